//! Failing notifiers. The other notifiers report them, because an undelivered alert is a missed
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
pub const FAILING_AFTER: TimeDelta = TimeDelta::hours(1);
/// How long a rejection is reported after the receiver has accepted another notification.
const REJECTION_SHOWN_FOR: TimeDelta = TimeDelta::seconds(20);
/// The repeat interval of `notifier.failing`.
const DAILY: TimeDelta = TimeDelta::days(1);

/// A receiver with failed attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub notifier: String,
    pub receiver: String,
    /// Time of the first failed attempt.
    pub since: DateTime<Utc>,
    /// Time of the latest failed attempt.
    pub last_at: DateTime<Utc>,
    /// Why the latest attempt failed; `None` for a reason that this version does not know.
    pub reason: Option<FailureReason>,
    pub detail: String,
    /// Whether it rejected a notification permanently.
    pub refused: bool,
    /// Time at which it accepted another notification since.
    pub taken_at: Option<DateTime<Utc>>,
}

/// A notifier with receivers that failed for too long or rejected a notification permanently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing<'a> {
    pub notifier: &'a str,
    /// The failing receivers, longest failing first; never empty.
    pub receivers: Vec<&'a Failure>,
}

impl Failing<'_> {
    /// The start of its longest failure.
    pub fn since(&self) -> DateTime<Utc> {
        self.receivers[0].since
    }

    fn finding(&self) -> Finding {
        let refused = self.receivers.iter().any(|failure| failure.refused);
        let patience = if refused { TimeDelta::zero() } else { FAILING_AFTER };
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

/// The notifiers that have failed for an hour or rejected a notification permanently. A failure for
/// an hour counts only after an attempt since `started_at`, the start of this process.
pub fn failing<'a>(
    failures: &'a [Failure],
    started_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Vec<Failing<'a>> {
    let counts = |one: &&Failure| match one.taken_at {
        Some(_) => one.refused && now - one.last_at < REJECTION_SHOWN_FOR,
        None => one.refused || (now - one.since >= FAILING_AFTER && one.last_at >= started_at),
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

/// Decides the alerts of one notifier about the others, or about itself, if it has owners and only
/// addresses of other routes fail. `configured` contains the names of all notifiers. An alert stays
/// open while a receiver fails, even without a new attempt.
pub fn decide(
    failures: &[Failure],
    failing: &[Failing<'_>],
    configured: &[&str],
    (notifier, receivers): (&NotifierState, &[String]),
    moment: ScanTime,
) -> Vec<Decision> {
    // Without an error of the mail server itself.
    let works = |one: &Failing<'_>| {
        one.receivers.iter().all(|failure| {
            let of_address = failure.refused || failure.reason == Some(FailureReason::Recipient);
            of_address && !receivers.contains(&failure.receiver)
        })
    };
    let others = failing.iter().filter(|one| {
        one.notifier != notifier.name || (!notifier.routing.audience.is_everyone() && works(one))
    });
    let findings: Vec<Finding> = others.map(Failing::finding).collect();
    let fails =
        |name: &String| failures.iter().any(|one| one.notifier == *name && one.taken_at.is_none());
    let end = |subject: &Subject, _: &_| match subject {
        Subject::Notifier(name) if configured.contains(&name.as_str()) => {
            (!fails(name)).then_some(Reason::Corrected)
        }
        Subject::Notifier(_) => Some(Reason::Unwatched),
        _ => None,
    };
    let mut decisions = compare_all(&findings, end, &notifier.ledger, moment);
    decisions.retain(|decision| !is_too_soon(decision, &notifier.ledger, moment));
    if notifier.grouping != Grouping::EachAlertRefreshed {
        decisions.retain(|decision| !is_stale(decision, failing, &notifier.ledger));
    }
    apply_grouping(decisions, notifier, moment.now)
}

/// Whether no receiver accepted the same alert within the last day: sending it again at once would
/// fail, too.
pub(super) fn is_too_soon(decision: &Decision, ledger: &Ledger, moment: ScanTime) -> bool {
    let Decision::Send { subject, .. } = decision else {
        return false;
    };
    let undelivered = ledger.undelivered.get(subject);
    undelivered.is_some_and(|undelivered| {
        undelivered.at <= moment.now && moment.now - undelivered.at < DAILY
    })
}

/// Whether a repeat has no news: no attempt was made since the last alert.
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
    use crate::domain::{inventory::tests::start, owner::Audience, routing::Routing};
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
    fn a_notifier_fails_after_an_hour_or_a_rejection() {
        let day_before = start() - TimeDelta::days(1);
        let cases = [
            ("for 59 minutes", failure("a", 59, false), day_before, false),
            ("for an hour", failure("a", 60, false), day_before, true),
            ("rejected permanently", failure("a", 0, true), day_before, true),
            (
                "no attempt since the start",
                failure("a", 90, false),
                start() + TimeDelta::seconds(1),
                false,
            ),
            (
                "rejected, and another notification accepted at once",
                Failure { taken_at: Some(start()), ..failure("a", 0, true) },
                day_before,
                true,
            ),
            (
                "a notification was accepted since",
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
    fn the_fallback_reports_addresses_of_owners_but_not_its_own_mail_server() {
        let audience = Audience::Owners([None].into());
        let routing = Routing { audience, ..Routing::all() };
        let fallback = NotifierState::new("a", &routing, Grouping::Digest);
        let moment = ScanTime::at(start(), Tz::UTC);
        let alerts = |failure: Failure, receivers: &[String]| {
            let failures = [failure];
            let failing = failing(&failures, start() - TimeDelta::days(1), start());
            assert_eq!(failing.len(), 1);
            decide(&failures, &failing, &["a"], (&fallback, receivers), moment).len()
        };
        let rejected = failure("a", 61, true);
        let of_address =
            Failure { reason: Some(FailureReason::Recipient), ..failure("a", 61, false) };
        assert_eq!(alerts(rejected.clone(), &[]), 1);
        assert_eq!(alerts(of_address, &[]), 1);
        assert_eq!(alerts(failure("a", 61, false), &[]), 0);
        let its_own = rejected.receiver.clone();
        assert_eq!(alerts(rejected, &[its_own]), 0);
    }

    #[test]
    fn other_notifiers_get_an_alert_daily_repeats_and_a_resolution() {
        let mut failures = [failure("a", 61, false)];
        // Attempts continue.
        failures[0].last_at = start() + TimeDelta::days(9);
        let notifier = |name: &str| NotifierState {
            name: name.to_owned(),
            routing: Routing::all(),
            grouping: Grouping::Digest,
            ledger: Ledger::default(),
        };
        let at = |hours: i64| {
            let now = start() + TimeDelta::hours(hours);
            ScanTime::at(now, Tz::UTC)
        };
        let names = ["a", "b"];
        let say = |notifier: &mut NotifierState, failing: &[Failing<'_>], hours| {
            let all: Vec<Failure> =
                failing.iter().flat_map(|one| one.receivers.iter().copied().cloned()).collect();
            let decisions = decide(&all, failing, &names, (notifier, &[]), at(hours));
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
        say(&mut other, &bad, 80);
        let untried = decide(&failures, &[], &names, (&other, &[]), at(105));
        assert!(untried.is_empty(), "not resolved without a new attempt: {untried:?}");
        let gone = decide(&[], &[], &["b"], (&other, &[]), at(105));
        assert!(matches!(gone.as_slice(), [Decision::Resolve { reason: Reason::Unwatched, .. }]));
        // A notifier that rejected the alert does not get it again within a day.
        let mut refusing = notifier("b");
        let Some(Decision::Send { subject, sent, .. }) =
            decide(&failures, &bad, &names, (&refusing, &[]), at(0)).into_iter().next()
        else {
            panic!("no alert");
        };
        refusing.ledger.undelivered.insert(subject, sent);
        assert!(decide(&failures, &bad, &names, (&refusing, &[]), at(1)).is_empty());
        assert_eq!(decide(&failures, &bad, &names, (&refusing, &[]), at(24)).len(), 1);
        // No repeat without a new attempt.
        let still = [Failure { last_at: start(), ..failure("a", 0, true) }];
        let refused = failing(&still, long_ago, start());
        let mut other = notifier("b");
        assert_eq!(say(&mut other, &refused, 1), ["opened"]);
        assert!(say(&mut other, &refused, 30).is_empty());
    }
}
