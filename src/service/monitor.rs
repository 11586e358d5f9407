//! Monitors certvigil itself: working notifiers report failing ones, drills show whether people read
//! alerts, and heartbeats let another service detect that certvigil is down, blind or unable to send.

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use std::{collections::BTreeSet, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    ConfiguredHeartbeat, Shared, reload::settle, scans::overdue, systemd, watchdog::WatchedLoop,
};
use crate::{
    config::Config,
    domain::{certificate::OrganizationName, retry::RetryPolicy},
    heartbeat::{self, Heartbeat, Signal},
    http::Counters,
    logging,
    net::error_chain,
    notify::Notifier,
    schedule::Ticks,
    store::{Latest, Lease, LeaseOutcome, Store, StoreError, Waiting},
    usecase::jobs::{Jobs, Report},
};

/// The number of ticks between two checks.
const LOOK: u32 = 5;

/// Events of the scan loops.
#[derive(Clone, Debug)]
pub enum ScanEvent {
    ScanBegins(OrganizationName),
    /// Whether it was complete and saved.
    ScanEnded(OrganizationName, bool),
}

/// Sends events to the monitor.
#[derive(Clone)]
pub struct ScanEvents(mpsc::UnboundedSender<ScanEvent>);

impl ScanEvents {
    pub fn channel() -> (ScanEvents, mpsc::UnboundedReceiver<ScanEvent>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (ScanEvents(sender), receiver)
    }

    /// Does nothing after the monitor has ended.
    pub fn tell(&self, happened: ScanEvent) {
        drop(self.0.send(happened));
    }
}

/// A heartbeat and its state.
pub struct Watching {
    heartbeat: Heartbeat,
    /// Its organizations.
    of: BTreeSet<OrganizationName>,
    /// Its name in the database: the organization, if it has its own heartbeat.
    name: String,
    /// Whether a delivery has been pending too long, and whether that was logged since the last
    /// scan.
    late: bool,
    said_late: bool,
    /// The pause before the retry of a failed heartbeat.
    repeat: Duration,
    not_before: Option<Instant>,
}

impl Watching {
    pub fn of(beating: ConfiguredHeartbeat, repeat: Duration) -> Watching {
        let ConfiguredHeartbeat { name, heartbeat, of } = beating;
        Watching { heartbeat, of, name, late: false, said_late: false, repeat, not_before: None }
    }

    /// Sends start and fail signals for the events since the last check, each signal once.
    async fn record(&mut self, happened: &[ScanEvent]) {
        let (mut begins, mut failed) = (false, false);
        for one in happened {
            match one {
                ScanEvent::ScanBegins(organization) => begins |= self.of.contains(organization),
                ScanEvent::ScanEnded(organization, complete) if self.of.contains(organization) => {
                    if *complete {
                        self.said_late = false;
                        self.not_before = None;
                    } else {
                        failed = true;
                    }
                }
                ScanEvent::ScanEnded(..) => {}
            }
        }
        if begins {
            self.heartbeat.send(Signal::Start).await;
        }
        if failed {
            self.heartbeat.send(Signal::Fail).await;
        }
    }

    /// The scans to report: the latest ones of all its organizations, if all are complete and none
    /// was reported before.
    async fn owed(
        &self,
        latest: &[Latest],
        store: &Store,
    ) -> Result<Option<BTreeSet<Uuid>>, StoreError> {
        if self.not_before.is_some_and(|at| at > Instant::now()) {
            return Ok(None);
        }
        let mine = latest.iter().filter(|one| one.complete && self.of.contains(&one.organization));
        let scans: BTreeSet<Uuid> = mine.map(|one| one.scan).collect();
        if scans.len() < self.of.len() || scans.is_empty() {
            return Ok(None);
        }
        let signalled = store.last_well(&self.name).await?;
        Ok(Some(scans).filter(|scans| scans.is_disjoint(&signalled)))
    }

    /// Sends the heartbeat, or logs that a delivery has been pending too long. Returns whether the
    /// heartbeat was sent.
    async fn send(&mut self, late: bool) -> bool {
        if late && !self.late {
            tracing::warn!(
                "heartbeat withheld: a delivery has been pending for longer than delivery.retry_max, or every notifier fails"
            );
        }
        self.late = late;
        if !late {
            let sent = self.heartbeat.send(Signal::Well).await;
            if !sent {
                self.not_before = Some(Instant::now() + self.repeat);
            }
            return sent;
        }
        if !std::mem::replace(&mut self.said_late, true) {
            self.heartbeat.send(Signal::Fail).await;
        }
        false
    }
}

/// The state of the monitoring loop.
pub struct Monitor {
    pub config: Arc<Config>,
    pub jobs: Jobs,
    /// Whether the cleanup of removed organizations and notifiers is done.
    pub settled: bool,
    pub notifiers: Vec<Arc<dyn Notifier>>,
    pub delivery: RetryPolicy,
    pub heartbeats: Vec<Watching>,
    pub news: mpsc::UnboundedReceiver<ScanEvent>,
    pub ticks: Ticks,
    pub end: CancellationToken,
}

/// Runs until cancelled.
pub async fn run(mut monitor: Monitor, shared: Arc<Shared>) {
    let watchdog = shared.watchdog.enter();
    let started_at = shared.clock.now();
    // The notifiers that are already logged.
    let (mut failing, mut held_back) = (BTreeSet::new(), BTreeSet::new());
    let mut log = DroppedLines::default();
    // Each heartbeat may take its full time limit, for two signals.
    let signals = u32::try_from(monitor.heartbeats.len()).unwrap_or(u32::MAX);
    let limit = shared.timing.check + heartbeat::LONGEST.saturating_mul(signals.saturating_mul(2));
    loop {
        let first = tokio::select! {
            Some(events) = monitor.news.recv() => Some(events),
            () = until_look(&mut monitor.ticks, &watchdog) => None,
            () = monitor.end.cancelled() => return,
        };
        // Take every pending event, so that no signal is out of date.
        let mut events: Vec<ScanEvent> = first.into_iter().collect();
        events.extend(std::iter::from_fn(|| monitor.news.try_recv().ok()));
        let end = monitor.end.clone();
        if let Some(file) = shared.store.lost_file() {
            tracing::error!(
                file = %file.display(),
                "database file removed or replaced: certvigil exits so that its supervisor restarts it"
            );
            shared.lost.cancel();
            return;
        }
        log.report(&shared.counters);
        let look = async {
            for heartbeat in &mut monitor.heartbeats {
                heartbeat.record(&events).await;
            }
            // One instance checks for all.
            match shared.store.take(None, None, shared.timing.lease, shared.clock.now()).await {
                Ok(LeaseOutcome::Acquired(lease)) => {
                    let logged = (&mut failing, &mut held_back);
                    look(&mut monitor, &shared, lease, started_at, logged).await;
                }
                Ok(LeaseOutcome::Held | LeaseOutcome::Done | LeaseOutcome::Superseded) => {}
                Err(error) => tracing::debug!(%error, "cannot acquire the monitoring lease"),
            }
            systemd::status(&line(&shared));
        };
        let look = AssertUnwindSafe(look).catch_unwind();
        match end.run_until_cancelled(watchdog.during(limit, look)).await {
            Some(Ok(())) => {}
            Some(Err(_)) => tracing::error!("notifier check failed: internal error, will retry"),
            None => return,
        }
    }
}

/// Dropped log lines, as counted and as logged.
#[derive(Default)]
struct DroppedLines {
    counted: u64,
    logged: u64,
}

impl DroppedLines {
    fn report(&mut self, counters: &Counters) {
        let dropped = logging::dropped_lines();
        counters.dropped(dropped - self.counted);
        self.counted = dropped;
        if dropped > self.logged {
            tracing::warn!(lines = dropped - self.logged, "log lines dropped: stderr was not read");
            // While stderr is not read, this line is dropped, too.
            if logging::dropped_lines() == dropped {
                self.logged = dropped;
            }
        }
    }
}

/// Waits for the next check, reporting to the watchdog in between.
async fn until_look(ticks: &mut Ticks, watchdog: &WatchedLoop) {
    for _ in 0..LOOK {
        watchdog.beat();
        ticks.next().await;
    }
}

/// The checks that one instance does for all.
async fn look(
    monitor: &mut Monitor,
    shared: &Shared,
    lease: Lease,
    started_at: DateTime<Utc>,
    (known, held): (&mut BTreeSet<String>, &mut BTreeSet<String>),
) {
    let Monitor { config, jobs, settled, notifiers, delivery, heartbeats, .. } = monitor;
    if !*settled {
        match settle(config, &shared.store, notifiers, &lease, shared.clock.now()).await {
            Ok(done) => *settled = done,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(
                    error,
                    "cleanup of removed organizations and notifiers failed, will retry"
                );
            }
        }
    }
    let (store, now) = (&shared.store, shared.clock.now());
    let report = jobs.run_once(store, notifiers, started_at, lease, now).await;
    if report.has_messages() {
        shared.outbox.notify_waiters();
    }
    log_jobs(report, notifiers.len(), known);
    match shared.store.held_back(shared.clock.now() - delivery.max).await {
        Ok(held_back) => log_held_back(held_back, held),
        Err(error) => tracing::error!(%error, "cannot read pending deliveries, will retry"),
    }
    let counts = (known.len(), notifiers.len());
    if let Err(error) = beat(heartbeats, delivery, counts, shared).await {
        tracing::error!(%error, "heartbeat withheld: database unavailable");
    }
}

/// Logs deliveries that are pending without an attempt; `known` has the notifiers that are already
/// logged.
fn log_held_back(held_back: Vec<Waiting>, known: &mut BTreeSet<String>) {
    for one in &held_back {
        if !known.contains(&one.notifier) {
            tracing::error!(
                notifier = one.notifier, deliveries = one.count, since = %one.since,
                "deliveries pending for longer than delivery.retry_max without an attempt"
            );
        }
    }
    *known = held_back.into_iter().map(|one| one.notifier).collect();
}

/// Whether alerts do not get through: every notifier fails, or a delivery has been pending for too
/// long. The heartbeat is withheld then.
pub(super) async fn is_late(
    store: &Store,
    delivery: &RetryPolicy,
    failing: usize,
    notifiers: usize,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    Ok(failing == notifiers || store.overdue(now - delivery.max).await? > 0)
}

/// Sends due heartbeats.
async fn beat(
    heartbeats: &mut [Watching],
    delivery: &RetryPolicy,
    (failing, notifiers): (usize, usize),
    shared: &Shared,
) -> Result<(), StoreError> {
    if heartbeats.is_empty() {
        return Ok(());
    }
    let latest = shared.store.latest_scans().await?;
    for heartbeat in heartbeats {
        let Some(scans) = heartbeat.owed(&latest, &shared.store).await? else { continue };
        // If a scan is overdue, the latest data is out of date.
        let (now, schedule) = (shared.clock.now(), shared.schedule.borrow().clone());
        let mut of = latest.iter().filter(|one| scans.contains(&one.scan));
        if of.any(|one| overdue(&schedule, &shared.timing, one.tick, one.tick) < now) {
            continue;
        }
        let late = is_late(&shared.store, delivery, failing, notifiers, now).await?;
        if heartbeat.send(late).await {
            shared.store.record_well(&heartbeat.name, &scans).await?;
        }
    }
    Ok(())
}

/// Logs what the jobs did; `known` has the failing notifiers that are already logged.
fn log_jobs(report: Report, notifiers: usize, known: &mut BTreeSet<String>) {
    match report.drill {
        Ok(drill) if drill.started > 0 => {
            let messages = drill.started;
            tracing::info!(messages, "drill started: each receiver is asked to confirm");
        }
        Ok(_) => {}
        Err(error) => {
            let error = error_chain(&error);
            tracing::error!(error, "cannot start or end a drill, will retry");
        }
    }
    match report.summaries {
        Ok(0) => {}
        Ok(messages) => tracing::info!(messages, "summaries queued"),
        Err(error) => {
            let error = error_chain(&error);
            tracing::error!(error, "cannot compose summaries, will retry");
        }
    }
    let failing = match report.notifiers {
        Ok(report) => report.failing,
        Err(error) => {
            let error = error_chain(&error);
            tracing::error!(error, "cannot check the notifiers, will retry");
            return;
        }
    };
    let working = notifiers.saturating_sub(failing.len());
    for (notifier, why) in &failing {
        if !known.contains(notifier) {
            tracing::error!(
                notifier, error = %why, working,
                "notifier failing: the working notifiers, if any, report it"
            );
        }
    }
    let failing: BTreeSet<String> = failing.into_iter().map(|(name, _)| name).collect();
    for notifier in known.difference(&failing) {
        tracing::info!(notifier, "notifier works again, or was removed");
    }
    *known = failing;
}

/// The status in one line.
fn line(shared: &Shared) -> String {
    let status = shared.status.borrow();
    let all = status.organizations.len();
    let read = status.organizations.values();
    let complete = read.filter(|one| one.last.as_ref().is_some_and(|last| last.complete)).count();
    let latest = status.organizations.values().filter_map(|one| one.last.as_ref());
    match latest.map(|last| last.finished_at).max() {
        Some(at) => format!(
            "{complete} of {all} organizations read completely, latest scan at {}",
            at.format("%Y-%m-%d %H:%M UTC")
        ),
        None => format!("{all} organizations, none read yet"),
    }
}
