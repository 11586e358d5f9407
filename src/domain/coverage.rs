//! The coverage of projects, and the successors of certificates.
//!
//! A project accepts client certificates that any of its active certificates signed. It loses
//! access only when none of them is valid.

use chrono::{DateTime, TimeDelta, Utc};

use super::certificate::{Certificate, CertificateId};

/// The time from which a project with these active certificates has no valid one: the first gap in
/// their validity, the last expiry if all have expired, or `now` if none has started. `None` if a
/// certificate with an unknown expiry may cover the gap.
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
            // All have expired.
            Some(ended) if until == now => return Some(ended),
            Some(_) => return Some(until),
            // None has started.
            None => return Some(now),
        }
    }
}

/// Whether all active certificates of a project are expired or not yet valid. A certificate with an
/// unknown expiry may be valid. A project without active certificates is not uncovered.
pub fn is_uncovered(active: &[&Certificate], now: DateTime<Utc>) -> bool {
    !active.is_empty()
        && active.iter().all(|certificate| {
            let expired = certificate.expires_at.is_some_and(|expires_at| expires_at <= now);
            expired || !certificate.has_started(now)
        })
}

/// The successor of `certificate` among `active`: it expires later by more than `margin` (the
/// widest threshold, so that it does not need replacement at once), has not expired, and has
/// started at the expiry of `certificate`, or now if that has passed. A certificate that cannot
/// issue client certificates does not count. If there are several, one with the same key, then the
/// one that expires last.
pub fn successor<'a>(
    certificate: &Certificate,
    active: &[&'a Certificate],
    margin: TimeDelta,
    now: DateTime<Utc>,
) -> Option<&'a Certificate> {
    successor_at(certificate, certificate.expires_at?, active, margin, now)
}

/// [`successor`] for a certificate that is needed until `end`.
pub fn successor_at<'a>(
    certificate: &Certificate,
    end: DateTime<Utc>,
    active: &[&'a Certificate],
    margin: TimeDelta,
    now: DateTime<Utc>,
) -> Option<&'a Certificate> {
    let others = active.iter().copied().filter(|other| other.id != certificate.id);
    let rank = |one: &&'a Certificate| -> (bool, Option<DateTime<Utc>>, &'a CertificateId) {
        (certificate.signs_as(one) == Some(true), one.expires_at, &one.id)
    };
    others.filter(|other| outlives(other, end, margin, now)).max_by(|a, b| rank(a).cmp(&rank(b)))
}

/// Whether a certificate can take over at `end`, by the rules of [`successor`].
pub fn outlives(
    certificate: &Certificate,
    end: DateTime<Utc>,
    margin: TimeDelta,
    now: DateTime<Utc>,
) -> bool {
    certificate.has_started(end.max(now))
        && !certificate.cannot_issue()
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
    fn coverage_ends_at_the_first_gap() {
        let unknown = |id: &str| Certificate { expires_at: None, ..certificate(id, 9) };
        let unknown_from = |id: &str, day| Certificate { expires_at: None, ..from_day(id, day, 9) };
        let cases: [(&str, Vec<Certificate>, Option<i64>); 8] = [
            (
                "expired: since the last expiry",
                vec![certificate("a", -1), certificate("b", -9)],
                Some(-1),
            ),
            ("none has started: now", vec![from_day("a", 3, 9)], Some(0)),
            ("one certificate", vec![certificate("a", 5)], Some(5)),
            ("the next starts in time", vec![certificate("a", 5), from_day("b", 3, 40)], Some(40)),
            ("the next starts too late", vec![certificate("a", 5), from_day("b", 6, 40)], Some(5)),
            ("one expiry is unknown", vec![certificate("a", 5), unknown("b")], None),
            ("one is expired, one unknown", vec![certificate("a", -5), unknown("b")], None),
            (
                "an unknown expiry that starts after a gap",
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
    fn a_successor_expires_later_by_more_than_the_margin_and_starts_in_time() {
        let margin = TimeDelta::days(90);
        let cases = [
            ("it is not its own successor", 5, certificate("a", 400), None),
            ("exactly the margin", 5, certificate("b", 95), None),
            ("a day more than the margin", 5, certificate("b", 96), Some("b")),
            ("it starts after the expiry", 5, from_day("b", 6, 400), None),
            ("it started after the expiry, before now", -5, from_day("b", -2, 400), Some("b")),
            ("it has expired itself", -200, certificate("b", -5), None),
        ];
        for (reason, end, other, expected) in cases {
            let ending = certificate("a", end);
            let found = successor(&ending, &[&other], margin, start()).map(|one| one.id.as_str());
            assert_eq!(found, expected, "{reason}");
        }
    }
}
