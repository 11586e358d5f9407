//! Until when a project has a valid certificate, and which certificate takes over from another.
//!
//! A project accepts a client certificate that any of its active certificates signed. What breaks it
//! is not "this certificate expires" but "from that day it has no valid certificate left".

use chrono::{DateTime, TimeDelta, Utc};

use super::certificate::Certificate;

/// Until when the project with these active certificates has a valid one, without a gap, from `now`.
/// It is `now` where none is valid now. A certificate of unknown expiry is not counted on.
pub fn covered_until(active: &[&Certificate], now: DateTime<Utc>) -> DateTime<Utc> {
    let mut until = now;
    loop {
        let further = active
            .iter()
            .filter(|certificate| certificate.has_started(until))
            .filter_map(|certificate| certificate.expires_at)
            .max();
        match further {
            Some(further) if further > until => until = further,
            _ => return until,
        }
    }
}

/// Whether none of the certificates that are active in a project is valid now: all are expired or not yet
/// valid. One whose end is not known may be valid. A project without any counts for nothing.
pub fn is_uncovered<'a>(active: impl Iterator<Item = &'a Certificate>, now: DateTime<Utc>) -> bool {
    let mut active = active.peekable();
    active.peek().is_some()
        && active.all(|certificate| {
            let expired = certificate.expires_at.is_some_and(|expires_at| expires_at <= now);
            expired || !certificate.has_started(now)
        })
}

/// The certificate among `active` that takes over from `certificate`: it outlives it by more than
/// `margin` (the widest threshold, so that it does not itself need replacing at once) and has started
/// by then. The one that lives longest, where there are several.
pub fn successor<'a>(
    certificate: &Certificate,
    active: &[&'a Certificate],
    margin: TimeDelta,
) -> Option<&'a Certificate> {
    let end = certificate.expires_at?;
    active
        .iter()
        .copied()
        .filter(|other| other.id != certificate.id && other.has_started(end))
        .filter(|other| other.expires_at.is_some_and(|expires_at| expires_at - end > margin))
        .max_by(|a, b| (a.expires_at, &a.id).cmp(&(b.expires_at, &b.id)))
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
        let day = |days| start() + TimeDelta::days(days);
        let cases: [(&str, Vec<Certificate>, i64); 6] = [
            ("nothing is active", vec![], 0),
            ("expired", vec![certificate("a", -1)], 0),
            ("one", vec![certificate("a", 5)], 5),
            ("the next has started in time", vec![certificate("a", 5), from_day("b", 3, 40)], 40),
            ("the next starts too late", vec![certificate("a", 5), from_day("b", 6, 40)], 5),
            (
                "an unknown end is not counted on",
                vec![certificate("a", 5), Certificate { expires_at: None, ..certificate("b", 9) }],
                5,
            ),
        ];
        for (reason, certificates, expected) in cases {
            let active: Vec<&Certificate> = certificates.iter().collect();
            assert_eq!(covered_until(&active, start()), day(expected), "{reason}");
        }
    }

    #[test]
    fn a_successor_outlives_by_more_than_the_margin() {
        let ending = certificate("a", 5);
        let margin = TimeDelta::days(90);
        let cases = [
            ("itself is none", certificate("a", 400), None),
            ("not by more than the margin", certificate("b", 95), None),
            ("by a day more", certificate("b", 96), Some("b")),
            ("it starts when the other has ended", from_day("b", 6, 400), None),
        ];
        for (reason, other, expected) in cases {
            let found = successor(&ending, &[&other], margin).map(|found| found.id.as_str());
            assert_eq!(found, expected, "{reason}");
        }
    }
}
