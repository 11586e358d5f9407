//! The future notifications if nothing changes: evaluate and reconcile at each future scan.
//!
//! Scans at which no alert can be due are skipped, so that a frequent schedule costs no more than a
//! daily one.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use uuid::Uuid;

use super::{Notification, compose::MessageContext};
use crate::domain::{
    acknowledgement::Acknowledgements,
    alert::{self, FLAPPING_WINDOW, ScanTime, SentAlert, Transition, decide},
    certificate::OrganizationName,
    evaluate::{Evaluation, evaluate},
    finding::findings,
    inventory::Inventory,
    notifier::NotifierState,
    policy::{Effect, Policy},
    subject::Subject,
};

/// A time after the end of every forecast.
const NEVER: DateTime<Utc> = DateTime::<Utc>::MAX_UTC;

/// The current state of an organization.
pub struct CurrentState<'a> {
    pub organization: &'a OrganizationName,
    /// The inventory at the time of the latest notifications.
    pub before: &'a Inventory,
    pub inventory: &'a Inventory,
    pub policy: &'a Policy,
    pub acknowledgements: &'a Acknowledgements,
}

/// The notifications of future scans in order, beginning with the scan at `first`. Their ids are
/// nil. `next` returns the scheduled time after a time; the forecast ends at `None`.
pub fn forecast(
    present: &CurrentState<'_>,
    mut notifiers: Vec<NotifierState>,
    first: DateTime<Utc>,
    next: impl Fn(DateTime<Utc>) -> Option<DateTime<Utc>>,
    timezone: Tz,
) -> Vec<Notification> {
    // A forecast does not assume that unreadable lists stay unreadable.
    let policy = Policy { blind_after: None, ..present.policy.clone() };
    let present = &CurrentState { policy: &policy, ..*present };
    for notifier in &mut notifiers {
        notifier.ledger.open.remove(&Subject::Sight);
    }
    let mut messages = Vec::new();
    let mut tick = first;
    loop {
        let due = scan(present, &mut notifiers, tick, timezone, &mut messages);
        // A scan at the due time counts; an earlier one has no alert.
        match next(tick.max(due - TimeDelta::seconds(1))) {
            Some(next) => tick = next,
            None => return messages,
        }
    }
}

/// Simulates one scan: adds its notifications to `messages` and returns the first time at which
/// another alert may be due.
fn scan(
    present: &CurrentState<'_>,
    notifiers: &mut [NotifierState],
    tick: DateTime<Utc>,
    timezone: Tz,
    messages: &mut Vec<Notification>,
) -> DateTime<Utc> {
    let CurrentState { organization, before, inventory, policy, acknowledgements } = present;
    let evaluation = evaluate(organization, inventory, policy, acknowledgements, tick);
    let context = MessageContext::without_scan(&evaluation);
    let transition = Transition::watched(before, &evaluation);
    let moment = ScanTime::at(tick, timezone);
    for notifier in notifiers.iter_mut() {
        let decisions = decide(&transition, notifier, moment);
        let (composed, decisions) = context.messages(Uuid::nil, notifier, decisions);
        messages.extend(composed.into_iter().map(|composed| composed.notification));
        decisions.iter().for_each(|decision| notifier.ledger.learn(decision));
    }
    next_change(&evaluation, notifiers, timezone)
}

/// The earliest time at which a repeat is due: the inverse of [`ScanTime::is_due`] for scans that
/// run at their scheduled times.
fn repeat_at(sent: &SentAlert, repeat: TimeDelta, timezone: Tz) -> DateTime<Utc> {
    /// If a daylight-saving change skips that local time, it is at most this long.
    const MAX_DST_GAP: TimeDelta = TimeDelta::hours(3);
    let by_the_wall = sent.tick.with_timezone(&timezone).naive_local() + repeat;
    let by_the_wall = by_the_wall.and_local_timezone(timezone).earliest();
    let by_the_wall = by_the_wall.map_or(sent.tick + repeat - MAX_DST_GAP, |at| at.to_utc());
    let by_ticks = by_the_wall.min(sent.tick + repeat).max(sent.at + repeat / 2);
    by_ticks.min(sent.at + repeat)
}

/// The first time after the evaluation at which an alert may be due; no earlier scan has one.
fn next_change(
    evaluation: &Evaluation<'_>,
    notifiers: &[NotifierState],
    timezone: Tz,
) -> DateTime<Utc> {
    let now = evaluation.now;
    let mut instants: Vec<DateTime<Utc>> = Vec::new();
    for assessment in evaluation.assessments() {
        let certificate = assessment.certificate;
        instants.extend(certificate.valid_at);
        instants.extend(assessment.acknowledgement.map(|one| one.until));
        if let Some(expires_at) = certificate.expires_at {
            instants.push(expires_at);
            let steps = assessment.ruling.steps.as_slice();
            instants.extend(steps.iter().map(|step| expires_at - step.lead));
        }
    }
    for credential in &evaluation.credentials {
        instants.push(credential.expires_at);
        let steps = credential.steps.as_slice();
        instants.extend(steps.iter().map(|step| credential.expires_at - step.lead));
    }
    instants.extend(evaluation.policy.rules.iter().filter_map(|rule| match &rule.effect {
        Effect::Ignore(ignore) => Some(ignore.until),
        Effect::Watch(_) => None,
    }));
    instants.retain(|at| *at > now);
    for notifier in notifiers {
        // The resolution of a flapping alert is held back for a day.
        let flips = notifier.ledger.open.values().filter(|sent| sent.again);
        instants.extend(flips.map(|sent| sent.at + FLAPPING_WINDOW).filter(|at| *at > now));
        for finding in findings(evaluation, &notifier.routing) {
            let Some(sent) = notifier.ledger.open.get(&finding.subject) else {
                // Silenced, or held back for a day.
                let past = notifier.ledger.latest(&finding.subject);
                instants.extend(past.map(|sent| (sent.at + FLAPPING_WINDOW).max(now)));
                continue;
            };
            let repeat = alert::repeat(&finding.reached, finding.expires_at, now);
            instants.extend(repeat.map(|repeat| repeat_at(sent, repeat, timezone).max(now)));
        }
    }
    instants.into_iter().min().unwrap_or(NEVER)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{
        alert::Ledger,
        inventory::tests::{certificate, everything, reading, start},
        notifier::Grouping,
        routing::Routing,
        selection::{Glob, Globs},
        threshold::{ExpiredStep, Ladder, Lead, Severity, Threshold},
    };

    fn notifiers() -> Vec<NotifierState> {
        let critical = Routing { min_severity: Severity::Critical, ..Routing::all() };
        let of_p = Routing { projects: Globs(vec![Glob::new("p")]), ..Routing::all() };
        [("all", Routing::all()), ("critical", critical), ("of_p", of_p)]
            .map(|(name, routing)| NotifierState {
                name: name.to_owned(),
                routing,
                grouping: Grouping::Digest,
                ledger: Ledger::default(),
            })
            .to_vec()
    }

    fn policy(repeat_hours: i64) -> Policy {
        let threshold = |days: i64, severity, repeat| Threshold {
            lead: Lead::Fixed(TimeDelta::days(days)),
            label: format!("{days}d"),
            severity,
            repeat,
        };
        let repeat = Some(TimeDelta::hours(repeat_hours));
        let ladder = Ladder::new(
            vec![
                threshold(20, Severity::Info, None),
                threshold(5, Severity::Warning, repeat),
                threshold(1, Severity::Critical, Some(TimeDelta::hours(6))),
            ],
            ExpiredStep { severity: Severity::Critical, repeat: Some(TimeDelta::days(1)) },
        );
        Policy::new(ladder.unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn skipped_scans_send_nothing_and_notifiers_are_independent(
            ends in proptest::collection::vec((-200..1_500i64, any::<bool>(), any::<bool>()), 1..5),
            every in prop_oneof![Just(45), Just(60), Just(360), Just(1_440), Just(10_080)],
            repeat_hours in prop_oneof![Just(2), Just(6), Just(24), Just(50)],
            zone in prop_oneof![Just(Tz::UTC), Just(Tz::Europe__Berlin), Just(Tz::Australia__Lord_Howe)],
        ) {
            let scope = |of_p: bool| {
                ends.iter().enumerate().filter(move |(_, (_, p, _))| *p == of_p)
                    .map(|(index, (_, _, active))| (index, *active)).collect::<Vec<_>>()
            };
            let mut listed = reading(&[("", Ok(&[])), ("p", Ok(&[])), ("q", Ok(&[]))]);
            let scopes: Vec<_> = listed.listings.keys().skip(1).cloned().collect();
            for (of, of_p) in scopes.into_iter().zip([true, false]) {
                let page = scope(of_p).into_iter().map(|(index, active)| {
                    let mut certificate = certificate(&format!("c{index}"), 0);
                    certificate.expires_at = Some(start() + TimeDelta::hours(ends[index].0));
                    crate::domain::reading::Listed { certificate: certificate.into(), active }
                });
                listed.take(of, vec![page.collect::<Vec<_>>().into()]);
            }
            let inventory = Inventory::default().merge(listed, &everything(), start());
            let organization = OrganizationName::parse("acme").unwrap();
            let (policy, none) = (policy(repeat_hours), Acknowledgements::default());
            let present = CurrentState {
                organization: &organization,
                before: &inventory,
                inventory: &inventory,
                policy: &policy,
                acknowledgements: &none,
            };
            let ticks = || (0..60 * 1_440 / every).map(|n| start() + TimeDelta::minutes(n * every));
            let next = |after| ticks().find(|tick| *tick > after);
            let foretold = forecast(&present, notifiers(), start(), next, zone);
            let (mut all, mut each) = (notifiers(), Vec::new());
            for tick in ticks() {
                scan(&present, &mut all, tick, zone, &mut each);
            }
            prop_assert_eq!(&foretold, &each);

            let alone = notifiers().into_iter().filter(|one| one.name == "critical").collect();
            let alone = forecast(&present, alone, start(), next, zone);
            let among_others = foretold.into_iter().filter(|one| one.notifier == "critical");
            prop_assert_eq!(alone, among_others.collect::<Vec<_>>());
        }
    }
}
