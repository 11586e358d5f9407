//! Drills: sends a marked test alert to each receiver, and closes the incidents that it opened.
//! [`super::follow_link`] confirms drills, and [`super::watch_notifiers`] reports receivers that do
//! not confirm.
//!
//! Guarantees: a drill and its schedule are stored in one transaction, before anything is sent; a
//! missed one starts once, late; a restart repeats nothing.

use chrono::{DateTime, TimeDelta, Utc};
use std::{collections::BTreeSet, sync::Arc};

use super::Failed;
use crate::{
    domain::drill::Drilled,
    message::compose::of_drill,
    notify::Notifier,
    schedule::Cron,
    store::{Change, Commit, Drill, Job, Lease, Plan, Store, id_at},
};

/// The settings of drills.
#[derive(Clone, Debug)]
pub struct Settings {
    pub cron: Cron,
    /// The cron expression as written, to notice a change.
    pub written: String,
    /// How long a receiver has to confirm.
    pub confirm_within: TimeDelta,
    /// The names of the notifiers that have drills.
    pub notifiers: BTreeSet<String>,
}

impl Settings {
    /// The receivers that have drills, each with its notifier.
    pub fn receivers(&self, notifiers: &[Arc<dyn Notifier>]) -> Vec<(String, String)> {
        let drilled = notifiers.iter().filter(|one| self.notifiers.contains(one.name()));
        let of = |one: &Arc<dyn Notifier>| {
            let name = one.name().to_owned();
            one.receivers().into_iter().map(move |receiver| (name.clone(), receiver))
        };
        drilled.flat_map(of).collect()
    }
}

/// The messages of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of messages of a drill that started.
    pub started: usize,
    /// Number of messages that close incidents.
    pub ended: usize,
}

/// Starts a drill that is due, and ends those of services with incidents. Without `settings`, drills
/// are off, and none starts.
///
/// # Errors
/// If the database fails; the next check continues.
pub async fn run_once(
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    settings: Option<&Settings>,
    give_up_after: TimeDelta,
    lease: &Lease,
    now: DateTime<Utc>,
) -> Result<Report, Failed> {
    let drilled = store.drilled().await.map_err(Failed::during("reading drills"))?;
    let give_up_at = now + give_up_after;
    let none = BTreeSet::new();
    let kept = store.keep_drills(settings.map_or(&none, |settings| &settings.notifiers)).await;
    kept.map_err(Failed::during("deleting drills"))?;
    let Some(settings) = settings else {
        store.forget_schedule(Job::Drill).await.map_err(Failed::during("deleting drills"))?;
        let over: Vec<&Drilled> = drilled.iter().filter(|one| one.closes_at.is_some()).collect();
        let ended = end(store, notifiers, &over, give_up_at, lease, now).await?;
        return Ok(Report { started: 0, ended });
    };
    let due = is_due(store, settings, now).await?;
    // Services do not page again for an open incident: the next check starts a drill that is due.
    let is_over = |one: &&Drilled| one.is_over(now) || (due.is_some() && one.closes_at.is_some());
    let over: Vec<&Drilled> = drilled.iter().filter(is_over).collect();
    let ended = end(store, notifiers, &over, give_up_at, lease, now).await?;
    let started = match due {
        Some(tick) if ended == 0 => {
            start(store, notifiers, settings, tick, give_up_at, lease, now).await?
        }
        Some(_) | None => 0,
    };
    Ok(Report { started, ended })
}

/// Whether a drill is due or somebody asked for one, with its scheduled time, if it has one.
async fn is_due(
    store: &Store,
    settings: &Settings,
    now: DateTime<Utc>,
) -> Result<Option<Option<DateTime<Utc>>>, Failed> {
    let progress = store.job_progress(Job::Drill, &settings.written, now).await;
    let progress = progress.map_err(Failed::during("reading the schedule of drills"))?;
    let tick = settings.cron.due(progress.tick, now);
    Ok((tick.is_some() || progress.asked).then_some(tick))
}

async fn start(
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    settings: &Settings,
    tick: Option<DateTime<Utc>>,
    give_up_at: DateTime<Utc>,
    lease: &Lease,
    now: DateTime<Utc>,
) -> Result<usize, Failed> {
    let confirm_by = now + settings.confirm_within;
    let drilled = notifiers.iter().filter(|one| settings.notifiers.contains(one.name()));
    let plans: Vec<Plan> = drilled
        .flat_map(|notifier| notifier.states())
        .map(|(state, receivers)| {
            let message = of_drill(id_at(now), &state, confirm_by, None, now);
            Plan::notice(&state, receivers, message)
        })
        .collect();
    let messages = plans.len();
    let change = Change::Drill(Drill { tick, confirm_by });
    commit(store, lease, change, plans, give_up_at, now).await?;
    Ok(messages)
}

/// Ends drills of services with incidents.
async fn end(
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    over: &[&Drilled],
    give_up_at: DateTime<Utc>,
    lease: &Lease,
    now: DateTime<Utc>,
) -> Result<usize, Failed> {
    let mut plans = Vec::new();
    for one in over {
        let its = notifiers.iter().filter(|notifier| notifier.name() == one.notifier);
        for (state, receivers) in its.flat_map(|notifier| notifier.states()) {
            let confirm_by = one.closes_at.unwrap_or(now);
            let message = of_drill(id_at(now), &state, confirm_by, Some(one), now);
            plans.push(Plan::notice(&state, receivers, message));
        }
    }
    let messages = plans.len();
    if messages > 0 {
        commit(store, lease, Change::DrillsEnded, plans, give_up_at, now).await?;
    }
    Ok(messages)
}

async fn commit(
    store: &Store,
    lease: &Lease,
    change: Change,
    plans: Vec<Plan>,
    give_up_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), Failed> {
    let (lease, over) = (Some(lease.clone()), Vec::new());
    let commit = Commit { lease, change, plans, over, now, give_up_at };
    store.commit(&commit).await.map_err(Failed::during("saving a drill"))
}
