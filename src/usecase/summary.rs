//! Summaries: sends each receiver a regular message with everything that needs action soon, from the
//! stored inventories.
//!
//! Guarantees: summaries and their schedule are stored in one transaction, before anything is sent;
//! missed ones are sent once, late; a restart repeats nothing. The Admin API is not called.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use std::{collections::BTreeSet, sync::Arc};

use super::{Failed, organization::OrganizationState};
use crate::{
    domain::{
        certificate::OrganizationName, evaluate::evaluate, failing::Failure,
        notifier::NotifierState, policy::Policy,
    },
    message::{
        SummaryDeliveries, SummaryScans,
        compose::{Composed, SummaryContext},
    },
    notify::Notifier,
    schedule::Cron,
    store::{Change, Commit, Job, Lease, Plan, Store, StoreError, id_at},
};

/// Maximum number of failing receivers that a summary names.
const NAMED_RECEIVERS: usize = 50;

/// The settings of summaries.
#[derive(Clone, Debug)]
pub struct Settings {
    pub cron: Cron,
    /// The cron expression as written, to notice a change.
    pub written: String,
    /// The names of the notifiers that send summaries.
    pub notifiers: BTreeSet<String>,
}

/// The organizations, and when their data counts as late.
#[derive(Clone, Debug)]
pub struct Watched {
    pub organizations: Vec<(OrganizationName, Policy)>,
    /// The names of all notifiers.
    pub notifiers: Vec<String>,
    /// The schedule of scans.
    pub cron: Cron,
    /// The longest time from a scheduled scan to its end.
    pub late: TimeDelta,
    /// New alerts are on time if they are accepted within this time after they became due.
    pub on_time_within: TimeDelta,
}

/// The summary of one part of a notifier's alerts, with its receivers.
pub type OfRoute = (NotifierState, Vec<String>, Composed);

/// Sends summaries that are due; returns the number of messages. Without `settings`, summaries are
/// off.
///
/// # Errors
/// If the database fails; the next check continues.
pub async fn run_once(
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    settings: Option<&Settings>,
    watched: &Watched,
    give_up_after: TimeDelta,
    lease: &Lease,
    now: DateTime<Utc>,
) -> Result<usize, Failed> {
    let schedule = Failed::during("reading the schedule of summaries");
    let Some(settings) = settings else {
        store.forget_schedule(Job::Summary).await.map_err(schedule)?;
        return Ok(0);
    };
    let progress = store.job_progress(Job::Summary, &settings.written, now).await;
    let progress = progress.map_err(schedule)?;
    let tick = settings.cron.due(progress.tick, now);
    if tick.is_none() && !progress.asked {
        return Ok(0);
    }
    let since = progress.ran_at.unwrap_or(progress.tick);
    let named = notifiers.iter().filter(|one| settings.notifiers.contains(one.name()));
    let routes = named.flat_map(|one| one.states()).collect();
    let summaries = compose(store, routes, watched, since, now).await;
    let summaries = summaries.map_err(Failed::during("reading the data for summaries"))?;
    let plan = |(state, receivers, message): OfRoute| Plan::notice(&state, receivers, message);
    let plans: Vec<Plan> = summaries.into_iter().map(plan).collect();
    let messages = plans.len();
    let (lease, over) = (Some(lease.clone()), Vec::new());
    let give_up_at = now + give_up_after;
    let commit = Commit { lease, change: Change::Summary(tick), plans, over, now, give_up_at };
    store.commit(&commit).await.map_err(Failed::during("saving summaries"))?;
    Ok(messages)
}

/// Composes the summaries since the previous one, one for each part of a notifier's alerts.
///
/// # Errors
/// If the database fails.
pub async fn compose(
    store: &Store,
    routes: Vec<(NotifierState, Vec<String>)>,
    watched: &Watched,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<OfRoute>, StoreError> {
    let mut states = Vec::new();
    for (organization, policy) in &watched.organizations {
        let (name, policy) = (organization.clone(), policy.clone());
        let state = OrganizationState::load(name, policy, Vec::new(), Some(store), now).await?;
        let scan = store.latest_scan(organization).await?;
        let (all, incomplete) = store.count_scans(organization, since, now).await?;
        let skew = scan.as_ref().map_or(TimeDelta::zero(), |scan| scan.skew(now));
        let scans = SummaryScans {
            organization: organization.clone(),
            scans: all,
            incomplete,
            latest_at: scan.as_ref().map(|scan| scan.finished_at.trunc_subsecs(0)),
            complete: scan.as_ref().is_some_and(|scan| scan.complete),
            overdue: scan.as_ref().is_some_and(|scan| watched.cron.is_old(scan, watched.late, now)),
            unreadable_lists: state.inventory.faults().count(),
            admin_keys_unreadable: state.inventory.unreadable_admin_keys.is_some(),
            clock_skew: Some(skew.num_seconds()).filter(|seconds| *seconds != 0),
        };
        let at = now + skew;
        states.push((state, scans, at));
    }
    let deliveries = deliveries(store, watched, since, now).await?;
    // With thousands of projects, this takes seconds.
    let composed = tokio::task::spawn_blocking(move || {
        let evaluated = states.iter().map(|(state, scans, at)| {
            let OrganizationState { organization, inventory, policy, .. } = state;
            let acknowledgements = &state.acknowledgements;
            let evaluation = evaluate(organization, inventory, policy, acknowledgements, *at);
            (evaluation, scans.clone())
        });
        let organizations = evaluated.collect();
        let context = SummaryContext { organizations, deliveries, since, now };
        let of_route = |(state, receivers): (NotifierState, Vec<String>)| {
            let message = context.compose(id_at(now), &state)?;
            Some((state, receivers, message))
        };
        routes.into_iter().filter_map(of_route).collect()
    });
    // A panic is one of this task, too.
    Ok(composed.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())))
}

/// The deliveries of all notifiers since the previous summary.
async fn deliveries(
    store: &Store,
    watched: &Watched,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<SummaryDeliveries, StoreError> {
    let punctuality = store.punctuality_of_ended(since, watched.on_time_within, now).await?;
    let (failed, retrying) = store.count_failed(since).await?;
    let mut failures = store.failures().await?;
    // A receiver that has accepted a later message works again.
    failures.retain(|one| one.taken_at.is_none() && watched.notifiers.contains(&one.notifier));
    let name = |one: &Failure| format!("{} ({})", one.receiver, one.notifier);
    Ok(SummaryDeliveries {
        alerts_due: punctuality.total,
        alerts_on_time: punctuality.on_time,
        failed,
        retrying,
        failing_total: failures.len(),
        failing: failures.iter().take(NAMED_RECEIVERS).map(name).collect(),
    })
}
