//! Reports failing notifiers through the other notifiers, failing addresses of owners through the
//! fallback, and receivers that did not confirm a drill through the others.
//!
//! Guarantees: alerts are stored before they are sent, as for a scan; none goes to a failing
//! receiver; a restart repeats nothing. Neither calls the Admin API nor sends anything.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use std::{collections::BTreeSet, sync::Arc};

use super::Failed;
use crate::{
    domain::{
        alert::{Decision, ScanTime},
        drill::{self, listeners, unproven},
        failing::{decide, failing},
        notifier::NotifierState,
    },
    message::compose::{Composed, Raised, of_notifiers, of_unproven},
    notify::Notifier,
    store::{Change, Commit, Lease, LedgerVersion, MessageKind, Plan, Store, StoreError, id_at},
};

/// The time until a notification is out of date: two daily repeats, and a margin.
const STALE: TimeDelta = TimeDelta::hours(50);
/// The same for unproven receivers, with weekly repeats.
const UNPROVEN_STALE: TimeDelta = TimeDelta::days(15);

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Failing notifiers with the error.
    pub failing: Vec<(String, String)>,
    /// Number of notifications in the outbox.
    pub notifications: usize,
}

/// Finds notifiers that failed for an hour or rejected a message, and receivers that did not confirm
/// a drill, and stores the alerts for the others. `with_drills` contains the names of the notifiers
/// that have drills, and `started_at` is the start of this process.
///
/// # Errors
/// If the database fails; nothing has changed then, and the next check decides again.
pub async fn run_once(
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    with_drills: &BTreeSet<String>,
    give_up_after: TimeDelta,
    started_at: DateTime<Utc>,
    lease: Lease,
    now: DateTime<Utc>,
) -> Result<Report, Failed> {
    // The usual case: nothing fails, every drill is confirmed and no alert is open.
    let some = store.has_failures_or_drills().await;
    if !some.map_err(Failed::during("reading failing deliveries"))? {
        return Ok(Report::default());
    }
    let mut failures =
        store.failures().await.map_err(Failed::during("reading failing deliveries"))?;
    // Ignore attempts in flight to receivers that were removed from the configuration.
    failures.retain(|failure| is_configured(notifiers, &failure.notifier, &failure.receiver));
    let mut drilled = store.drilled().await.map_err(Failed::during("reading drills"))?;
    drilled.retain(|one| {
        with_drills.contains(&one.notifier)
            && is_configured(notifiers, &one.notifier, &one.receiver)
    });
    let failing = failing(&failures, started_at, now);
    let configured: Vec<&str> = notifiers.iter().map(|notifier| notifier.name()).collect();
    let mut plans = Vec::new();
    let routes = notifiers.iter().flat_map(|notifier| notifier.states());
    // Owners are not responsible for notifiers.
    let routes: Vec<(NotifierState, Vec<String>)> =
        routes.filter(|(state, _)| state.routing.audience.includes(None)).collect();
    let names: Vec<(&str, &[String])> =
        routes.iter().map(|(state, receivers)| (state.name.as_str(), &receivers[..])).collect();
    let listeners = listeners(&names, &drilled, now);
    for ((mut state, receivers), listeners) in routes.into_iter().zip(listeners) {
        let ledger = store.ledger(None, &state.ledger_name(), now).await;
        let (ledger, ledger_version) = ledger.map_err(Failed::during("reading the ledger"))?;
        state.ledger = ledger;
        let moment = ScanTime::at(now, Tz::UTC);
        let decisions = decide(&failures, &failing, &configured, (&state, &receivers), moment);
        let raised = Raised { decisions: &decisions, stale_at: now + STALE, now };
        let messages = of_notifiers(|| id_at(now), &state, &raised, &failing);
        plans.extend(plan(&state, ledger_version, receivers.clone(), decisions, messages));
        let unproven = unproven(&drilled, now);
        let mut decisions = drill::decide(&unproven, with_drills, &state, moment);
        // New alerts do not go to unproven receivers, but an open alert must end there, too.
        let listeners = match listeners.is_empty() {
            true => {
                decisions.retain(|one| matches!(one, Decision::Resolve { .. }));
                receivers
            }
            false => listeners,
        };
        let raised = Raised { decisions: &decisions, stale_at: now + UNPROVEN_STALE, now };
        let messages = of_unproven(|| id_at(now), &state, &raised, &unproven);
        plans.extend(plan(&state, ledger_version, listeners, decisions, messages));
    }
    let report = Report {
        failing: failing
            .iter()
            .map(|one| {
                let first = one.receivers[0];
                let reason = first.reason.map_or("failed", |reason| reason.as_str());
                (one.notifier.to_owned(), format!("{reason}: {}", first.detail))
            })
            .collect(),
        notifications: plans.iter().map(|plan| plan.messages.len()).sum(),
    };
    if !plans.is_empty() {
        let give_up_at = now + give_up_after;
        let over = Vec::new();
        let (lease, change) = (Some(lease), Change::Notifiers);
        let commit = Commit { lease, change, plans, over, now, give_up_at };
        match store.commit(&commit).await {
            // The next check decides again.
            Err(StoreError::LedgerChanged) => return Ok(Report::default()),
            kept => kept.map_err(Failed::during("saving alerts about notifiers"))?,
        }
    }
    Ok(report)
}

fn is_configured(notifiers: &[Arc<dyn Notifier>], notifier: &str, receiver: &str) -> bool {
    let mut its = notifiers.iter().filter(|one| one.name() == notifier);
    its.any(|one| one.receivers().iter().any(|known| known == receiver))
}

/// The plan of these decisions; `None` if nothing changes.
fn plan(
    state: &NotifierState,
    ledger_version: LedgerVersion,
    receivers: Vec<String>,
    decisions: Vec<Decision>,
    messages: Vec<Composed>,
) -> Option<Plan> {
    // A held-back alert changes nothing.
    if decisions.iter().all(|decision| matches!(decision, Decision::HoldBack { .. })) {
        return None;
    }
    Some(Plan {
        ledger: state.ledger_name(),
        notifier: state.name.clone(),
        decisions,
        messages,
        kind: MessageKind::News,
        receivers,
        up_to_date: Vec::new(),
        withdraws_ledger: false,
        ledger_version,
    })
}
