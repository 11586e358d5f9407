//! The only wiring: adapters from configuration sections, the loops, and their end.
//!
//! Each organization has a loop that scans when its schedule is due, so that its scans never overlap
//! and one that hangs delays no other. Each notifier has a loop that hands over what waits for it. They
//! meet in the outbox alone.

use anyhow::Context;
use chrono::{DateTime, Utc};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin_api::AdminApi,
    clock,
    config::{Config, Organization},
    deliver,
    domain::retry::RetryPolicy,
    notify::{self, Notifier},
    scan::{self, Progress, Target, When},
    schedule::{self, Heartbeat},
    store::Store,
};

/// How often a notifier's loop looks into the outbox when nobody nudges it.
const LOOK: Duration = Duration::from_secs(1);
/// When a scan that failed inside certvigil, or could not be kept, is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// A scheduler that has not beaten for so long is not waited for.
const MISSING_BEAT: Duration = Duration::from_secs(30);
/// How long what is under way has after the signal to stop. The contract is 10 s for all of it.
const GRACE: Duration = Duration::from_secs(8);
/// How often what is older than `state.history` is forgotten.
const PRUNE: Duration = Duration::from_secs(24 * 3_600);

/// What an organization's scans need.
///
/// # Errors
/// Where a secret cannot be read any more, or TLS cannot be set up.
pub fn target(config: &Config, organization: &Organization) -> anyhow::Result<Target> {
    let name = organization.api.organization.clone();
    Ok(Target {
        api: AdminApi::new(organization.api.clone())
            .with_context(|| format!("the organization {name}"))?,
        selection: organization.selection.clone(),
        policy: config.policy.of(&organization.api.organization, organization.include_inactive),
        timeout: config.schedule.scan_timeout,
    })
}

/// When a scan is that starts now, and until when what it says holds.
pub fn when(schedule: &schedule::Settings, now: DateTime<Utc>, tick: DateTime<Utc>) -> When {
    let timezone = schedule.cron.timezone();
    When { started_at: now, tick, timezone, stale_at: schedule.stale_after(now) }
}

/// The configured notifiers.
///
/// # Errors
/// As [`notify::all`].
pub fn notifiers(config: &Config) -> anyhow::Result<Vec<Arc<dyn Notifier>>> {
    let told = &config.notifiers;
    notify::all(&told.email, &told.webhook, &told.log)
}

/// Everything that runs shares this.
struct Shared {
    store: Store,
    notifiers: Vec<Arc<dyn Notifier>>,
    delivery: RetryPolicy,
    /// Rung when something was written to the outbox.
    outbox: Notify,
    stop: CancellationToken,
}

/// The service: runs until `stop`, and ends within ten seconds of it.
///
/// # Errors
/// Where the state cannot be opened, or something cannot be set up; once running, failures are logged
/// and lived with.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let now = clock::now();
    let targets: Vec<Target> = config
        .organizations
        .iter()
        .map(|organization| target(&config, organization))
        .collect::<anyhow::Result<_>>()?;
    let notifiers = notifiers(&config)?;
    let opening = async {
        let store = Store::open_exclusive(&config.state).await?;
        settle_changes(&config, &store, &notifiers, now).await?;
        anyhow::Ok(store)
    };
    let Some(store) = stop.run_until_cancelled(opening).await.transpose()? else {
        return Ok(());
    };
    let shared = Arc::new(Shared {
        store,
        notifiers,
        delivery: config.delivery.clone(),
        outbox: Notify::new(),
        stop: stop.clone(),
    });

    let tasks = TaskTracker::new();
    tracing::info!(
        organizations = targets.len(),
        notifiers = shared.notifiers.len(),
        state = %config.state.file.display(),
        schedule = %config.schedule.cron.describe(),
        timezone = config.timezone.name(),
        "certvigil {} started", env!("CARGO_PKG_VERSION")
    );
    for notifier in shared.notifiers.clone() {
        tasks.spawn(deliveries(notifier, Arc::clone(&shared)));
    }
    let heartbeat = stop.run_until_cancelled(Heartbeat::start()).await;
    if let Some(heartbeat) = &heartbeat {
        for target in targets {
            let (shared, schedule) = (Arc::clone(&shared), config.schedule.clone());
            tasks.spawn(scans(target, schedule, shared, heartbeat.beats()));
        }
    }
    tasks.spawn(pruning(shared.store.clone(), config.state.history, stop.clone()));
    tasks.close();

    stop.cancelled().await;
    if let Some(heartbeat) = heartbeat {
        // Dropped, where it does not end by itself.
        drop(tokio::time::timeout(Duration::from_secs(1), heartbeat.stop()).await);
    }
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!("what was under way is left for the next start");
    }
    tracing::info!("certvigil stopped");
    Ok(())
}

/// Brings the state in line with the configuration: what is owed to those who are no longer configured
/// is abandoned, and what was told of organizations that are not is ended.
///
/// # Errors
/// Where the state fails.
pub async fn settle_changes(
    config: &Config,
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    now: DateTime<Utc>,
) -> anyhow::Result<()> {
    let configured: Vec<(String, Vec<String>)> = notifiers
        .iter()
        .map(|notifier| (notifier.name().to_owned(), notifier.receivers()))
        .collect();
    for (notifier, deliveries) in store.abandon(&configured, now).await? {
        tracing::warn!(
            notifier,
            deliveries,
            "what was owed to a notifier or receiver that is no longer configured is abandoned"
        );
    }
    for organization in store.organizations().await? {
        if config.organizations.iter().all(|one| one.api.organization != organization) {
            tracing::warn!(%organization, "the organization is no longer configured, and is forgotten");
            let policy = config.policy.of(&organization, false);
            let give_up_after = config.delivery.give_up_after;
            scan::retire(&organization, &policy, store, notifiers, give_up_after, now).await?;
        }
    }
    Ok(())
}

/// One organization's loop.
async fn scans(
    target: Target,
    schedule: schedule::Settings,
    shared: Arc<Shared>,
    mut beats: watch::Receiver<()>,
) {
    let organization = target.api.organization().clone();
    let target = Arc::new(target);
    let started = clock::now();
    let mut last = match shared.store.last_tick(&organization).await {
        Ok(last) => last.unwrap_or(started),
        Err(error) => {
            tracing::error!(%organization, %error, "when the last scan was cannot be read");
            started
        }
    };
    let mut due = schedule.run_on_start.then(|| schedule.cron.latest(started));
    let mut again: Option<Instant> = None;
    loop {
        // A clock that was set back must not wait for the moment that it has been at.
        let now = clock::now();
        last = last.min(now);
        let failed =
            again.take_if(|again| *again <= Instant::now()).map(|_| schedule.cron.latest(now));
        if let Some(tick) = due.take().or(failed).or_else(|| schedule.cron.due(last, now)) {
            last = tick;
            let jitter = schedule.jitter.mul_f64(fastrand::f64());
            let waited = shared.stop.run_until_cancelled(tokio::time::sleep(jitter)).await;
            if waited.is_none() {
                return;
            }
            let now = clock::now();
            let when = when(&schedule, now, tick);
            // In a task of its own, so that a panic in it does not end the loop.
            let one = tokio::spawn(one_scan(Arc::clone(&target), Arc::clone(&shared), when));
            let abort = one.abort_handle();
            let kept = match shared.stop.run_until_cancelled(one).await {
                Some(Ok(kept)) => kept,
                Some(Err(panic)) => {
                    tracing::error!(%organization, error = %panic, "the scan failed inside certvigil");
                    false
                }
                None => {
                    // Nothing of it is kept; the next start scans again.
                    abort.abort();
                    return;
                }
            };
            again = (!kept).then(|| Instant::now() + AGAIN);
        }
        tokio::select! {
            beat = beats.changed() => if beat.is_err() {
                // Without the scheduler there is no beat any more, and the schedule goes on.
                tokio::time::sleep(LOOK).await;
            },
            () = tokio::time::sleep(MISSING_BEAT) => {
                tracing::warn!(%organization, "the scheduler has missed its beats");
            }
            () = shared.stop.cancelled() => return,
        }
    }
}

/// Whether the scan could be kept.
async fn one_scan(target: Arc<Target>, shared: Arc<Shared>, when: When) -> bool {
    let organization = target.api.organization().clone();
    let (progress, _) = watch::channel(Progress::default());
    let give_up_after = shared.delivery.give_up_after;
    let scanned =
        scan::run_once(&target, &shared.store, &shared.notifiers, give_up_after, when, &progress)
            .await;
    match scanned {
        Ok(report) => {
            say(&report);
            shared.outbox.notify_waiters();
            true
        }
        Err(error) => {
            tracing::error!(
                %organization, error = %format!("{error:#}"),
                "the scan could not be kept, and is repeated: nothing is told until one can"
            );
            false
        }
    }
}

/// The log lines of a scan.
pub fn say(report: &scan::Report) {
    /// How many of the faults are logged; the first ones tell the cause.
    const LOGGED: usize = 3;
    let record = &report.record;
    let seconds = (record.finished_at - record.started_at).as_seconds_f64();
    let (organization, scan) = (&record.organization, record.id);
    tracing::info!(
        %organization, %scan, complete = record.complete, projects_read = record.projects_read,
        projects_unreadable = record.projects_unreadable, certificates = record.certificates,
        requests = record.requests, seconds, notifications = report.notifications, "scan finished"
    );
    for fault in record.faults.iter().take(LOGGED) {
        tracing::warn!(%organization, %scan, error = %fault, "could not be read");
    }
    if record.faults.len() > LOGGED {
        tracing::warn!(
            %organization, %scan, projects = record.projects_unreadable,
            "more could not be read: certificates there may expire unseen"
        );
    }
}

/// One notifier's loop.
async fn deliveries(notifier: Arc<dyn Notifier>, shared: Arc<Shared>) {
    loop {
        let nudged = shared.outbox.notified();
        let pass = {
            let (notifier, shared) = (Arc::clone(&notifier), Arc::clone(&shared));
            // In a task of its own, so that a panic in it does not end the loop.
            tokio::spawn(async move {
                let now = clock::now();
                let Shared { store, delivery, stop, .. } = shared.as_ref();
                deliver::run_once(store, notifier.as_ref(), delivery, now, stop).await
            })
        };
        let abort = pass.abort_handle();
        tokio::pin!(pass);
        let done = tokio::select! {
            done = &mut pass => done,
            () = shared.stop.cancelled() => {
                // What is under way may end; what is not recorded then is repeated by the next start.
                let ended = tokio::time::timeout(GRACE - Duration::from_secs(1), pass).await;
                if ended.is_err() {
                    abort.abort();
                }
                return;
            }
        };
        match done {
            Ok(Ok(report)) if report.gone => {
                tracing::error!(
                    notifier = notifier.name(),
                    "the receiver says that it is gone: nothing more is sent to it until a restart"
                );
                return;
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(notifier = notifier.name(), %error, "the outbox cannot be read or written");
            }
            Err(panic) => {
                tracing::error!(notifier = notifier.name(), error = %panic, "a delivery failed inside certvigil");
            }
        }
        tokio::select! {
            () = nudged => {}
            () = tokio::time::sleep(LOOK) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

async fn pruning(store: Store, history: chrono::TimeDelta, stop: CancellationToken) {
    loop {
        match store.prune(clock::now() - history).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "what is older than state.history was forgotten"),
            Err(error) => tracing::error!(%error, "old entries cannot be forgotten"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(PRUNE)).await.is_none() {
            return;
        }
    }
}
