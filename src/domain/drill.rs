//! Drills: test alerts that a person at each receiver confirms. The other receivers report those
//! that do not confirm, because alerts to them may not reach a person.

use chrono::{DateTime, TimeDelta, Utc};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

use super::{
    alert::{Decision, Ledger, Reason, ScanTime, apply_grouping, compare_all},
    failing::is_too_soon,
    finding::Finding,
    notifier::NotifierState,
    subject::Subject,
    threshold::{Reached, Severity, Stage},
};

/// The repeat interval of `notifier.unproven`.
const WEEKLY: TimeDelta = TimeDelta::days(7);

/// The drills of one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drilled {
    pub notifier: String,
    pub receiver: String,
    /// The notification of the latest drill.
    pub notification: Uuid,
    /// Time of the latest drill.
    pub sent_at: DateTime<Utc>,
    /// The first drill since the latest confirmation; `None` if the latest drill is confirmed.
    pub unconfirmed: Option<Unconfirmed>,
    /// Time of the latest confirmation.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// For a service with incidents, the latest time to close that of the latest drill; `None`
    /// without an open one.
    pub closes_at: Option<DateTime<Utc>>,
}

/// A drill that nobody has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    pub since: DateTime<Utc>,
    /// The time from which its receiver is unproven.
    pub until: DateTime<Utc>,
}

impl Drilled {
    /// Whether nobody confirmed in time.
    pub fn is_unproven(&self, now: DateTime<Utc>) -> bool {
        self.unconfirmed.is_some_and(|one| one.until <= now)
    }

    /// Whether the incident of its drill is to be closed.
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.closes_at.is_some_and(|at| at <= now || self.unconfirmed.is_none())
    }
}

/// A notifier with unproven receivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unproven<'a> {
    pub notifier: &'a str,
    /// The longest unconfirmed first; never empty.
    pub receivers: Vec<&'a Drilled>,
}

impl Unproven<'_> {
    /// The alert is due at once if a receiver became unproven after the latest one.
    fn finding(&self, ledger: &Ledger) -> Finding {
        let subject = Subject::Proof(self.notifier.to_owned());
        let times = self.receivers.iter().filter_map(|one| one.unconfirmed);
        let latest = times.clone().map(|one| one.until).max();
        let is_new = ledger.open.get(&subject).is_some_and(|sent| Some(sent.at) < latest);
        Finding {
            subject,
            reached: Reached {
                stage: Stage::Unproven,
                label: "unproven".to_owned(),
                severity: Severity::Warning,
                repeat: Some(if is_new { TimeDelta::zero() } else { WEEKLY }),
                last: true,
            },
            expires_at: None,
            name: None,
            since: times.map(|one| one.until).min(),
            muted: false,
            silence_ended: None,
        }
    }
}

/// The notifiers with unproven receivers.
pub fn unproven(drilled: &[Drilled], now: DateTime<Utc>) -> Vec<Unproven<'_>> {
    let mut of: BTreeMap<&str, Vec<&Drilled>> = BTreeMap::new();
    for one in drilled.iter().filter(|one| one.is_unproven(now)) {
        of.entry(&one.notifier).or_default().push(one);
    }
    of.into_iter()
        .map(|(notifier, mut receivers)| {
            receivers.sort_by_key(|one| one.unconfirmed.map(|one| one.since));
            Unproven { notifier, receivers }
        })
        .collect()
}

/// The receivers of each notifier that get alerts about unproven ones, in the order of `routes`: the
/// receivers that are not unproven themselves, and if no drill is confirmed among them, all.
pub fn listeners(
    routes: &[(&str, &[String])],
    drilled: &[Drilled],
    now: DateTime<Utc>,
) -> Vec<Vec<String>> {
    let is_proven = |notifier: &str, receiver: &str| {
        let mut its =
            drilled.iter().filter(|one| one.notifier == notifier && one.receiver == receiver);
        its.next().map(|one| !one.is_unproven(now))
    };
    // A receiver without drills, such as the log, does not replace a person.
    let is_confirmed = |(name, receivers): &(&str, &[String])| {
        receivers.iter().any(|one| is_proven(name, one) == Some(true))
    };
    let everybody = !routes.iter().any(is_confirmed);
    let of = |(name, receivers): &(&str, &[String])| {
        let its = receivers.iter().filter(|one| everybody || is_proven(name, one) != Some(false));
        its.cloned().collect()
    };
    routes.iter().map(of).collect()
}

/// Decides the alerts of one notifier about unproven receivers. `configured` contains the names of
/// the notifiers that have drills.
pub fn decide(
    unproven: &[Unproven<'_>],
    configured: &BTreeSet<String>,
    notifier: &NotifierState,
    moment: ScanTime,
) -> Vec<Decision> {
    let findings: Vec<Finding> = unproven.iter().map(|one| one.finding(&notifier.ledger)).collect();
    let end = |subject: &Subject, _: &_| match subject {
        Subject::Proof(name) if configured.contains(name) => Some(Reason::Corrected),
        Subject::Proof(_) => Some(Reason::Unwatched),
        _ => None,
    };
    let mut decisions = compare_all(&findings, end, &notifier.ledger, moment);
    decisions.retain(|decision| !is_too_soon(decision, &notifier.ledger, moment));
    apply_grouping(decisions, notifier, moment.now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{inventory::tests::start, notifier::Grouping, routing::Routing};
    use chrono_tz::Tz;

    /// A receiver with a drill at the start and three days to confirm it.
    fn drilled(notifier: &str, receiver: &str, is_confirmed: bool) -> Drilled {
        let unconfirmed = Unconfirmed { since: start(), until: start() + TimeDelta::days(3) };
        Drilled {
            notifier: notifier.to_owned(),
            receiver: receiver.to_owned(),
            notification: Uuid::nil(),
            sent_at: start(),
            unconfirmed: (!is_confirmed).then_some(unconfirmed),
            confirmed_at: is_confirmed.then(start),
            closes_at: None,
        }
    }

    fn at(hours: i64) -> DateTime<Utc> {
        start() + TimeDelta::hours(hours)
    }

    #[test]
    fn a_receiver_is_unproven_once_its_time_to_confirm_has_passed() {
        let all =
            [drilled("mail", "a", false), drilled("mail", "b", true), drilled("chat", "c", false)];
        assert_eq!(unproven(&all, at(71)), []);
        let found = unproven(&all, at(72));
        let names: Vec<_> =
            found.iter().map(|one| (one.notifier, one.receivers[0].receiver.as_str())).collect();
        assert_eq!(names, [("chat", "c"), ("mail", "a")]);
    }

    #[test]
    fn proven_receivers_listen_and_all_of_them_if_nobody_is_proven() {
        let two = ["a".to_owned(), "b".to_owned()];
        let one = [drilled("mail", "a", false), drilled("mail", "b", true)];
        let mail = [("mail", &two[..])];
        assert_eq!(listeners(&mail, &one, at(71)), [&two[..]], "in time");
        assert_eq!(listeners(&mail, &one, at(72)), [["b"]]);
        assert_eq!(listeners(&[("log", &two[..])], &one, at(72)), [&two[..]], "another notifier");
        let none = [drilled("mail", "a", false), drilled("mail", "b", false)];
        assert_eq!(listeners(&mail, &none, at(72)), [&two[..]], "nobody is proven");
        let owner = [&none[..], &[drilled("owners", "c", true)]].concat();
        let with_log = [("mail", &two[..]), ("log", &two[..1])];
        let all = [&two[..], &two[..1]];
        assert_eq!(listeners(&with_log, &owner, at(72)), all, "nobody here is proven");
        assert_eq!(listeners(&mail, &[], at(72)), [&two[..]], "without drills");
    }

    #[test]
    fn an_unproven_receiver_is_reported_weekly_until_it_confirms() {
        let mut notifier = NotifierState::new("ops", &Routing::all(), Grouping::Digest);
        let mut say = |all: &[Drilled], configured: &[&str], hours: i64| {
            let configured = configured.iter().map(|name| (*name).to_owned()).collect();
            let moment = ScanTime::at(at(hours), Tz::UTC);
            let decisions = decide(&unproven(all, at(hours)), &configured, &notifier, moment);
            decisions.iter().for_each(|decision| notifier.ledger.learn(decision));
            let reason = |decision: &Decision| match decision {
                Decision::Send { reason, .. } | Decision::Resolve { reason, .. } => reason.as_str(),
                other => panic!("{other:?}"),
            };
            decisions.iter().map(reason).collect::<Vec<_>>()
        };
        let (open, confirmed) = ([drilled("mail", "a", false)], [drilled("mail", "a", true)]);
        assert!(say(&open, &["mail"], 71).is_empty());
        assert_eq!(say(&open, &["mail"], 72), ["opened"]);
        assert!(say(&open, &["mail"], 72 + 7 * 24 - 1).is_empty());
        assert_eq!(say(&open, &["mail"], 72 + 7 * 24), ["repeat"]);
        let mut second = drilled("mail", "b", false);
        second.unconfirmed = Some(Unconfirmed { since: at(170), until: at(242) });
        let two = [open[0].clone(), second];
        assert!(say(&two, &["mail"], 241).is_empty());
        assert_eq!(say(&two, &["mail"], 242), ["repeat"], "another receiver is unproven");
        assert!(say(&two, &["mail"], 243).is_empty());
        assert_eq!(say(&confirmed, &["mail"], 300), ["corrected"]);
        assert!(say(&confirmed, &["mail"], 301).is_empty());
    }
}
