//! Reports failing notifiers through the other notifiers, and failing addresses of owners through
//! the fallback.
//!
//! Guarantees: alerts are stored before they are sent, as for a scan; none goes to a failing
//! receiver; a restart repeats nothing. Neither calls the Admin API nor sends anything.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use std::sync::Arc;

use super::Failed;
use crate::{
    domain::{
        alert::{Decision, ScanTime},
        failing::{decide, failing},
    },
    message::compose::of_notifiers,
    notify::Notifier,
    store::{Change, Commit, Lease, MessageKind, Plan, Store, StoreError, id_at},
};

/// The time until a notification is out of date: two daily repeats, and a margin.
const STALE: TimeDelta = TimeDelta::hours(50);

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Failing notifiers with the error.
    pub failing: Vec<(String, String)>,
    /// Number of notifications in the outbox.
    pub notifications: usize,
}

/// Finds notifiers that failed for an hour or rejected a message, and stores the alerts for the
/// others. `started_at` is the start of this process.
///
/// # Errors
/// If the database fails; nothing has changed then, and the next check decides again.
pub async fn run_once(
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    give_up_after: TimeDelta,
    started_at: DateTime<Utc>,
    lease: Lease,
    now: DateTime<Utc>,
) -> Result<Report, Failed> {
    // The usual case: nothing fails and no alert is open.
    if !store.has_reported_failures().await.map_err(Failed::during("reading failing deliveries"))? {
        return Ok(Report::default());
    }
    let mut failures =
        store.failures().await.map_err(Failed::during("reading failing deliveries"))?;
    // Ignore attempts in flight to receivers that were removed from the configuration.
    failures.retain(|failure| {
        let mut its = notifiers.iter().filter(|notifier| notifier.name() == failure.notifier);
        its.any(|notifier| notifier.receivers().contains(&failure.receiver))
    });
    let failing = failing(&failures, started_at, now);
    let configured: Vec<&str> = notifiers.iter().map(|notifier| notifier.name()).collect();
    let mut plans = Vec::new();
    let routes = notifiers.iter().flat_map(|notifier| notifier.states());
    // Owners are not responsible for notifiers.
    for (mut state, receivers) in routes.filter(|(state, _)| state.routing.audience.includes(None))
    {
        let ledger = store.ledger(None, &state.ledger_name(), now).await;
        let (ledger, ledger_version) = ledger.map_err(Failed::during("reading the ledger"))?;
        state.ledger = ledger;
        let moment = ScanTime::at(now, Tz::UTC);
        let decisions = decide(&failures, &failing, &configured, (&state, &receivers), moment);
        // A held-back alert changes nothing.
        if decisions.iter().all(|decision| matches!(decision, Decision::HoldBack { .. })) {
            continue;
        }
        let stale_at = Some(now + STALE);
        let messages = of_notifiers(|| id_at(now), &state, &decisions, &failing, stale_at, now);
        plans.push(Plan {
            ledger: state.ledger_name(),
            notifier: state.name,
            decisions,
            messages,
            kind: MessageKind::News,
            receivers,
            up_to_date: Vec::new(),
            withdraws_ledger: false,
            ledger_version,
        });
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
