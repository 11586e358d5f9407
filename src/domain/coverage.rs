//! Until when a project has a valid certificate, and which certificate takes over from another.
//!
//! A project accepts a client certificate that any of its active certificates signed. What breaks it
//! is not "this certificate expires" but "from that day it has no valid certificate left".

use chrono::{DateTime, TimeDelta, Utc};

use super::certificate::Certificate;

/// From when the project with these active certificates has no valid one: the end of a chain without a
/// gap, or, where none is valid now, since when that has been so. `None` where it is not known, because
/// the end of one of them is not.
pub fn uncovered_from(active: &[&Certificate], now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let started = |at: DateTime<Utc>| active.iter().filter(move |one| one.has_started(at));
    let mut until = now;
    loop {
        if started(until).any(|certificate| certificate.expires_at.is_none()) {
            return None;
        }
        let further = started(until).filter_map(|certificate| certificate.expires_at).max();
        match further {
            Some(further) if further > until => until = further,
            // It has ended before now.
            Some(ended) if until == now => return Some(ended),
            Some(_) => return Some(until),
            // None of them is valid yet.
            None => return Some(now),
        }
    }
}

/// Whether none of the certificates that are active in a project is valid now: all are expired or not yet
/// valid. One whose end is not known may be valid. A project without any counts for nothing.
pub fn is_uncovered(active: &[&Certificate], now: DateTime<Utc>) -> bool {
    !active.is_empty()
        && active.iter().all(|certificate| {
            let expired = certificate.expires_at.is_some_and(|expires_at| expires_at <= now);
            expired || !certificate.has_started(now)
        })
}

/// The certificate among `active` that takes over from `certificate`: it outlives it by more than
/// `margin` (the widest threshold, so that it does not itself need replacing at once), has not ended
/// either, and has started by the time that it is needed: then, or now where that has passed. The one
/// that lives longest, where there are several.
pub fn successor<'a>(
    certificate: &Certificate,
    active: &[&'a Certificate],
    margin: TimeDelta,
    now: DateTime<Utc>,
) -> Option<&'a Certificate> {
    successor_at(certificate, certificate.expires_at?, active, margin, now)
}

/// The same for a certificate that is needed until `end`.
pub fn successor_at<'a>(
    certificate: &Certificate,
    end: DateTime<Utc>,
    active: &[&'a Certificate],
    margin: TimeDelta,
    now: DateTime<Utc>,
) -> Option<&'a Certificate> {
    let others = active.iter().copied().filter(|other| other.id != certificate.id);
    others
        .filter(|other| outlives(other, end, margin, now))
        .max_by(|a, b| (a.expires_at, &a.id).cmp(&(b.expires_at, &b.id)))
}

/// Whether a certificate can take over at `end`: it lives longer by more than `margin`, has not ended, and has started
/// by then, or by now where that has passed.
pub fn outlives(
    certificate: &Certificate,
    end: DateTime<Utc>,
    margin: TimeDelta,
    now: DateTime<Utc>,
) -> bool {
    certificate.has_started(end.max(now))
        && certificate.expires_at.is_some_and(|until| until - end > margin && until > now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::inventory::tests::{certificate, start};

    fn from_day(id: &str, first: i64, last: i64) -> Certificate {
        let valid_at = Some(start() + TimeDelta::days(first));
        Certificate { valid_at, ..certificate(id, last) }
    }

    #[test]
    fn coverage_is_a_chain_without_a_gap() {
        let unknown = |id: &str| Certificate { expires_at: None, ..certificate(id, 9) };
        let unknown_from = |id: &str, day| Certificate { expires_at: None, ..from_day(id, day, 9) };
        let cases: [(&str, Vec<Certificate>, Option<i64>); 8] = [
            ("expired: since then", vec![certificate("a", -1), certificate("b", -9)], Some(-1)),
            ("none is valid yet: now", vec![from_day("a", 3, 9)], Some(0)),
            ("one", vec![certificate("a", 5)], Some(5)),
            (
                "the next has started in time",
                vec![certificate("a", 5), from_day("b", 3, 40)],
                Some(40),
            ),
            ("the next starts too late", vec![certificate("a", 5), from_day("b", 6, 40)], Some(5)),
            ("the end of one is not known", vec![certificate("a", 5), unknown("b")], None),
            ("nor where another has expired", vec![certificate("a", -5), unknown("b")], None),
            (
                "it starts when there is a gap already",
                vec![certificate("a", 5), unknown_from("b", 7)],
                Some(5),
            ),
        ];
        for (reason, certificates, expected) in cases {
            let active: Vec<&Certificate> = certificates.iter().collect();
            let expected = expected.map(|days| start() + TimeDelta::days(days));
            assert_eq!(uncovered_from(&active, start()), expected, "{reason}");
        }
    }

    #[test]
    fn a_successor_outlives_by_more_than_the_margin_and_is_there_when_it_is_needed() {
        let margin = TimeDelta::days(90);
        let cases = [
            ("it is not its own successor", 5, certificate("a", 400), None),
            ("not by more than the margin", 5, certificate("b", 95), None),
            ("by a day more", 5, certificate("b", 96), Some("b")),
            ("it starts when the other has ended", 5, from_day("b", 6, 400), None),
            ("which was long ago", -5, from_day("b", -2, 400), Some("b")),
            ("it has ended itself", -200, certificate("b", -5), None),
        ];
        for (reason, end, other, expected) in cases {
            let ending = certificate("a", end);
            let found = successor(&ending, &[&other], margin, start()).map(|one| one.id.as_str());
            assert_eq!(found, expected, "{reason}");
        }
    }
}
