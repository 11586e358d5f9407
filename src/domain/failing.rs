//! Notifiers that do not get through: told through the others, for a message that nobody takes is a missed
//! alert.

use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeMap;

use super::{
    alert::{Decision, Ledger, Reason, ScanTime, apply_grouping, compare_all},
    finding::Finding,
    notifier::{Grouping, NotifierState},
    retry::FailureReason,
    subject::Subject,
    threshold::{Reached, Severity, Stage},
};

/// How long a receiver may fail before it is reported.
pub const PATIENCE: TimeDelta = TimeDelta::hours(1);
/// How long a rejection is reported for a receiver that has accepted another message since.
const REMEMBERED: TimeDelta = TimeDelta::seconds(20);
/// The repeat interval of `notifier.failing`.
const DAILY: TimeDelta = TimeDelta::days(1);

/// A receiver that has taken nothing since its attempts began to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub notifier: String,
    pub receiver: String,
    /// The first attempt that failed.
    pub since: DateTime<Utc>,
    /// The latest one.
    pub last_at: DateTime<Utc>,
    /// Why that failed; `None` for a word that is not known.
    pub reason: Option<FailureReason>,
    pub detail: String,
    /// Whether it rejected a notification permanently.
    pub refused: bool,
    /// It has taken something else since.
    pub taken_at: Option<DateTime<Utc>>,
}

/// A notifier that has failed for too long, or that rejected a notification permanently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing<'a> {
    pub notifier: &'a str,
    /// Its receivers that do, the longest failing first; never empty.
    pub receivers: Vec<&'a Failure>,
}

impl Failing<'_> {
    /// Since when it has not got through to all its receivers.
    pub fn since(&self) -> DateTime<Utc> {
        self.receivers[0].since
    }

    fn finding(&self) -> Finding {
        let refused = self.receivers.iter().any(|failure| failure.refused);
        let patience = if refused { TimeDelta::zero() } else { PATIENCE };
        Finding {
            subject: Subject::Notifier(self.notifier.to_owned()),
            reached: Reached {
                stage: Stage::Failing,
                label: "failing".to_owned(),
                severity: Severity::Warning,
                repeat: Some(DAILY),
                last: true,
            },
            expires_at: None,
            name: None,
            since: Some(self.since() + patience),
            muted: false,
            silence_ended: None,
        }
    }
}

/// The notifiers that have failed for an hour or rejected a notification permanently. Failures
/// before `started_at`, the first attempt after a time without any, count only after another
/// attempt.
pub fn failing<'a>(
    failures: &'a [Failure],
    started_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Vec<Failing<'a>> {
    let counts = |one: &&Failure| match one.taken_at {
        Some(_) => one.refused && now - one.last_at < REMEMBERED,
        None => one.refused || (now - one.since >= PATIENCE && one.last_at >= started_at),
    };
    let mut of: BTreeMap<&str, Vec<&Failure>> = BTreeMap::new();
    for failure in failures.iter().filter(counts) {
        of.entry(&failure.notifier).or_default().push(failure);
    }
    let failing = |(notifier, mut receivers): (_, Vec<&'a Failure>)| {
        receivers.sort_by_key(|failure| failure.since);
        Failing { notifier, receivers }
    };
    of.into_iter().map(failing).collect()
}

/// Decides the alerts of one notifier about the others, never about itself; `configured` has all
/// names. An alert is resolved when no receiver fails any more: one that was not attempted again
/// may still fail.
pub fn decide(
    failures: &[Failure],
    failing: &[Failing<'_>],
    configured: &[&str],
    notifier: &NotifierState,
    moment: ScanTime,
) -> Vec<Decision> {
    let others = failing.iter().filter(|one| one.notifier != notifier.name);
    let findings: Vec<Finding> = others.map(Failing::finding).collect();
    let fails =
        |name: &String| failures.iter().any(|one| one.notifier == *name && one.taken_at.is_none());
    let end = |subject: &Subject, _: &_| match subject {
        Subject::Notifier(name) if configured.contains(&name.as_str()) => {
            (!fails(name)).then_some(Reason::Corrected)
        }
        _ => Some(Reason::Unwatched),
    };
    let mut decisions = compare_all(&findings, end, &notifier.ledger, moment);
    decisions.retain(|decision| !is_too_soon(decision, &notifier.ledger, moment));
    if notifier.grouping != Grouping::EachAlertRefreshed {
        decisions.retain(|decision| !is_stale(decision, failing, &notifier.ledger));
    }
    apply_grouping(decisions, notifier, moment.now)
}

/// What a receiver refused is not told to it again at once: nothing is different then.
fn is_too_soon(decision: &Decision, ledger: &Ledger, moment: ScanTime) -> bool {
    let Decision::Send { subject, .. } = decision else {
        return false;
    };
    let undelivered = ledger.undelivered.get(subject);
    undelivered.is_some_and(|undelivered| {
        undelivered.at <= moment.now && moment.now - undelivered.at < DAILY
    })
}

/// Whether a repeat is without a new attempt: no notification was due for that receiver.
fn is_stale(decision: &Decision, failing: &[Failing<'_>], ledger: &Ledger) -> bool {
    let Decision::Send { subject, reason: Reason::Repeat, .. } = decision else {
        return false;
    };
    let tried = failing
        .iter()
        .filter(|one| Subject::Notifier(one.notifier.to_owned()) == *subject)
        .flat_map(|one| one.receivers.iter().map(|failure| failure.last_at))
        .max();
    ledger.open.get(subject).is_some_and(|sent| tried.is_none_or(|tried| tried <= sent.at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{inventory::tests::start, routing::Routing};
    use chrono_tz::Tz;

    fn failure(notifier: &str, minutes: i64, refused: bool) -> Failure {
        let since = start() - TimeDelta::minutes(minutes);
        Failure {
            notifier: notifier.to_owned(),
            receiver: "r".to_owned(),
            since,
            last_at: start(),
            reason: Some(FailureReason::Connect),
            detail: "refused".to_owned(),
            refused,
            taken_at: None,
        }
    }

    #[test]
    fn an_hour_or_a_refusal_and_what_failed_before_the_start_is_tried_again_first() {
        let day_before = start() - TimeDelta::days(1);
        let cases = [
            ("for 59 minutes", failure("a", 59, false), day_before, false),
            ("for an hour", failure("a", 60, false), day_before, true),
            ("for good", failure("a", 0, true), day_before, true),
            ("not tried since", failure("a", 90, false), start() + TimeDelta::seconds(1), false),
            (
                "refused, and something else was taken at once",
                Failure { taken_at: Some(start()), ..failure("a", 0, true) },
                day_before,
                true,
            ),
            (
                "something was taken",
                Failure { taken_at: Some(start()), ..failure("a", 90, false) },
                day_before,
                false,
            ),
        ];
        for (reason, failure, started_at, expected) in cases {
            let failures = [failure];
            let found = failing(&failures, started_at, start());
            assert_eq!(!found.is_empty(), expected, "{reason}");
        }
    }

    #[test]
    fn the_others_get_one_alert_then_daily_ones_and_a_resolution() {
        let mut failures = [failure("a", 61, false)];
        // It is tried all the time.
        failures[0].last_at = start() + TimeDelta::days(9);
        let notifier = |name: &str| NotifierState {
            name: name.to_owned(),
            routing: Routing::all(),
            grouping: Grouping::Digest,
            ledger: Ledger::default(),
        };
        let at = |hours: i64| {
            let now = start() + TimeDelta::hours(hours);
            ScanTime { now, tick: now, timezone: Tz::UTC, decided_at: None, clock_is_certain: true }
        };
        let names = ["a", "b"];
        let say = |notifier: &mut NotifierState, failing: &[Failing<'_>], hours| {
            let all: Vec<Failure> =
                failing.iter().flat_map(|one| one.receivers.iter().copied().cloned()).collect();
            let decisions = decide(&all, failing, &names, notifier, at(hours));
            decisions.iter().for_each(|decision| notifier.ledger.learn(decision));
            let reason = |decision: &Decision| match decision {
                Decision::Send { reason, .. } | Decision::Resolve { reason, .. } => reason.as_str(),
                other => panic!("{other:?}"),
            };
            decisions.iter().map(reason).collect::<Vec<_>>()
        };
        let long_ago = start() - TimeDelta::days(9);
        let (mut itself, mut other) = (notifier("a"), notifier("b"));
        let bad = failing(&failures, long_ago, start());
        assert!(say(&mut itself, &bad, 0).is_empty(), "never through itself");
        assert_eq!(say(&mut other, &bad, 0), ["opened"]);
        assert!(say(&mut other, &bad, 1).is_empty(), "once");
        assert_eq!(say(&mut other, &bad, 24), ["repeat"]);
        assert_eq!(say(&mut other, &[], 25), ["corrected"]);
        assert!(say(&mut other, &[], 26).is_empty());
        // Removed from the configuration.
        say(&mut other, &bad, 80);
        let untried = decide(&failures, &[], &names, &other, at(105));
        assert!(untried.is_empty(), "not resolved without a new attempt: {untried:?}");
        let gone = decide(&[], &[], &["b"], &other, at(105));
        assert!(matches!(gone.as_slice(), [Decision::Resolve { reason: Reason::Unwatched, .. }]));
        // The rejecting notifier gets no immediate alert about the rejection.
        let mut refusing = notifier("b");
        let Some(Decision::Send { subject, sent, .. }) =
            decide(&failures, &bad, &names, &refusing, at(0)).into_iter().next()
        else {
            panic!("it is told");
        };
        refusing.ledger.undelivered.insert(subject, sent);
        assert!(decide(&failures, &bad, &names, &refusing, at(1)).is_empty());
        assert_eq!(decide(&failures, &bad, &names, &refusing, at(24)).len(), 1);
        // No repeat without an attempt since.
        let still = [Failure { last_at: start(), ..failure("a", 0, true) }];
        let refused = failing(&still, long_ago, start());
        let mut other = notifier("b");
        assert_eq!(say(&mut other, &refused, 1), ["opened"]);
        assert!(say(&mut other, &refused, 30).is_empty());
    }
}
