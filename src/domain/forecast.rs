//! Who will be told what, and when, if nothing changes: the same evaluate and reconcile, walked along the
//! calendar.
//!
//! Between two scans at which nothing can be due nothing is computed, so that a schedule of every minute
//! costs no more than what it says.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use uuid::Uuid;

use super::{
    acknowledgement::Acknowledgements,
    certificate::OrganizationName,
    compose::Occasion,
    evaluate::{Evaluation, evaluate},
    finding::findings,
    inventory::Inventory,
    ledger::{FLIP, Ledger},
    notification::Notification,
    policy::{Policy, Says},
    reconcile::{self, Decision, Moment, World, reconcile},
    routing::Routing,
};

/// One organization as it is now.
pub struct Present<'a> {
    pub organization: &'a OrganizationName,
    pub inventory: &'a Inventory,
    pub policy: &'a Policy,
    pub acknowledgements: &'a Acknowledgements,
}

/// One notifier, and what it was told so far.
#[derive(Clone)]
pub struct Listener {
    pub name: String,
    pub routing: Routing,
    pub ledger: Ledger,
}

/// The messages that scans at these ticks will bring about, in their order. Their ids are nil.
///
/// `ticks` come in their order; the walk ends with them.
pub fn forecast(
    present: &Present<'_>,
    mut listeners: Vec<Listener>,
    ticks: impl IntoIterator<Item = DateTime<Utc>>,
    timezone: Tz,
) -> Vec<Notification> {
    let mut messages = Vec::new();
    let mut next = None;
    for tick in ticks {
        if next.is_some_and(|next| tick < next) {
            continue;
        }
        let Present { organization, inventory, policy, acknowledgements } = present;
        let evaluation = evaluate(organization, inventory, policy, acknowledgements, tick);
        let occasion = Occasion { evaluation: &evaluation, scan: None };
        let world = World::Watched { before: inventory, after: &evaluation };
        let moment = Moment { now: tick, tick, timezone };
        for listener in &mut listeners {
            let routing = &listener.routing;
            let mut decisions = reconcile(&world, routing, &listener.ledger, moment);
            let said: Vec<&Decision> =
                decisions.iter().filter(|one| one.is_said(routing)).collect();
            if let Some(composed) = occasion.compose(Uuid::nil(), &listener.name, routing, &said) {
                decisions.retain(|decision| {
                    !decision.is_said(routing) || composed.subjects.contains(decision.subject())
                });
                messages.push(composed.notification);
            }
            decisions.iter().for_each(|decision| listener.ledger.learn(decision));
        }
        next = Some(next_change(&evaluation, &listeners));
    }
    messages
}

/// The first instant after the evaluation's at which something may be due; every tick before it says
/// nothing.
fn next_change(evaluation: &Evaluation<'_>, listeners: &[Listener]) -> DateTime<Utc> {
    /// Ticks are compared by the clock on the wall, which may be ahead by so much.
    const WALL: TimeDelta = TimeDelta::hours(3);
    let now = evaluation.now;
    let mut instants: Vec<DateTime<Utc>> = Vec::new();
    for assessment in &evaluation.assessments {
        let certificate = assessment.certificate;
        instants.extend(certificate.valid_at);
        instants.extend(assessment.acknowledgement.map(|one| one.until));
        if let Some(expires_at) = certificate.expires_at {
            instants.push(expires_at);
            let steps = assessment.ruling.steps.as_slice();
            instants.extend(steps.iter().map(|step| expires_at - step.lead));
        }
    }
    instants.extend(evaluation.policy.rules.iter().filter_map(|rule| match &rule.says {
        Says::Ignore(ignore) => Some(ignore.until),
        Says::Watch(_) => None,
    }));
    instants.retain(|at| *at > now);
    for listener in listeners {
        for finding in findings(evaluation, &listener.routing) {
            let Some(told) = listener.ledger.open.get(&finding.subject) else {
                // Muted, or damped for a day.
                let past = listener.ledger.latest(&finding.subject);
                instants.extend(past.map(|told| (told.at + FLIP).max(now)));
                continue;
            };
            let repeat = reconcile::repeat(&finding.reached, finding.expires_at, now);
            let due =
                repeat.map(|repeat| (told.tick + repeat - WALL).max(told.at + repeat / 2).max(now));
            instants.extend(due);
        }
    }
    instants.into_iter().min().unwrap_or(DateTime::<Utc>::MAX_UTC)
}
