//! Use case 3: the notifiers watch one another. Who does not get through is told through the
//! others.
//!
//! Guarantees: what is to be told is committed, as by a scan, before anybody sends it; never
//! through the notifier that it is about; a restart tells nothing twice. It neither reads the Admin
//! API nor sends anything.

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use std::sync::Arc;

use crate::{
    domain::{
        compose::of_notifiers,
        failing::{decide, failing},
        listener::Listener,
        reconcile::{Decision, Moment},
    },
    notify::Notifier,
    store::id_at,
    store::{Change, Commit, Lease, MessageKind, Plan, Store, StoreFault},
};

/// For services where an alert that is not said again ends by itself: it is said again daily.
const STALE: TimeDelta = TimeDelta::hours(50);

/// What a look at the notifiers came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Who does not get through, and why, in words.
    pub failing: Vec<(String, String)>,
    /// How many notifications were written to the outbox.
    pub notifications: usize,
}

/// Looks who has failed for an hour or for good, and writes what the others are to be told.
/// Attempts have been made since `started_at`.
///
/// # Errors
/// Where the state fails; then nothing has changed, and the next look decides afresh.
pub async fn run_once(
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    give_up_after: TimeDelta,
    started_at: DateTime<Utc>,
    lease: Lease,
    now: DateTime<Utc>,
) -> anyhow::Result<Report> {
    // Mostly there is nothing, and nothing was ever told.
    if !store.has_told_of_failures().await.context("reading failing deliveries")? {
        return Ok(Report::default());
    }
    let mut failures = store.failures().await.context("reading failing deliveries")?;
    // An attempt that was under way when its receiver was taken out of the configuration says
    // nothing any more.
    failures.retain(|failure| {
        let mut its = notifiers.iter().filter(|notifier| notifier.name() == failure.notifier);
        its.any(|notifier| notifier.receivers().contains(&failure.receiver))
    });
    let failing = failing(&failures, started_at, now);
    let configured: Vec<&str> = notifiers.iter().map(|notifier| notifier.name()).collect();
    let mut plans = Vec::new();
    for notifier in notifiers {
        let ledger = store.ledger(None, notifier.name(), now).await;
        let (ledger, ledger_version) = ledger.context("reading the ledger")?;
        let listener = Listener {
            name: notifier.name().to_owned(),
            routing: notifier.routing().clone(),
            grain: notifier.grain(),
            ledger,
        };
        let moment =
            Moment { now, tick: now, timezone: Tz::UTC, decided_at: None, clock_is_certain: true };
        let decisions = decide(&failures, &failing, &configured, &listener, moment);
        // What flips is kept for a day, and changes nothing.
        if decisions.iter().all(|decision| matches!(decision, Decision::Damp { .. })) {
            continue;
        }
        let stale_at = Some(now + STALE);
        let messages = of_notifiers(|| id_at(now), &listener, &decisions, &failing, stale_at, now);
        plans.push(Plan {
            notifier: listener.name,
            decisions,
            messages,
            kind: MessageKind::News,
            receivers: notifier.receivers(),
            up_to_date: Vec::new(),
            afresh: false,
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
        let (of, lease, change) = (None, Some(lease), Change::None);
        let commit = Commit { of, lease, change, plans, over, now, give_up_at };
        match store.commit(&commit).await {
            // The next look repeats the decision.
            Err(StoreFault::LedgerChanged) => return Ok(Report::default()),
            kept => kept.context("saving alerts about notifiers")?,
        }
    }
    Ok(report)
}
