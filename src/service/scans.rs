//! The loop of one organization: scans on schedule, on request, and again after a scan that was not
//! saved. Its scans never overlap, and a hanging scan does not delay other organizations. With
//! several instances, a lease decides which one scans; if it fails, another one takes over.

use chrono::{DateTime, TimeDelta, Utc};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Shared, Timing,
    monitor::{ScanEvent, ScanEvents},
    one_scan::{NotSaved, ScanInProgress, one_scan},
    watchdog::WatchedLoop,
    when,
};
use crate::{
    domain::{certificate::OrganizationName, retry::RetryPolicy, scan::ScanRecord},
    http::{LastScan, ScanStatus},
    notify::Notifier,
    schedule,
    store::{Lease, LeaseOutcome, StoreError},
    usecase::scan::Target,
};

/// The settings of the loop.
pub struct Scans {
    pub target: Arc<Target>,
    pub schedule: schedule::Settings,
    pub notifiers: Vec<Arc<dyn Notifier>>,
    pub delivery: RetryPolicy,
    /// The reason for an immediate scan, if any.
    pub first: Option<Due>,
    /// Notified when a scan is requested.
    pub asked: watch::Receiver<()>,
    pub ticks: watch::Receiver<()>,
    pub news: ScanEvents,
    /// Cancelled to end the loop: no scan starts afterwards, and one in progress is aborted.
    pub end: CancellationToken,
}

/// The reason for a scan.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    Start,
    Schedule(DateTime<Utc>),
    /// A retry of a failed or unsaved scan; `asked` if a user requested it.
    Again {
        asked: bool,
    },
    Asked,
}

impl Due {
    /// The retry of this scan.
    fn again(self) -> Due {
        match self {
            Due::Start | Due::Schedule(_) => Due::Again { asked: false },
            Due::Asked => Due::Again { asked: true },
            Due::Again { asked } => Due::Again { asked },
        }
    }
}

/// Runs until cancelled.
pub async fn run(scans: Arc<Scans>, shared: Arc<Shared>) {
    let mut state = ScanLoop::start(scans, shared).await;
    while state.round().await.is_some() {}
}

/// The state of the loop.
struct ScanLoop {
    scans: Arc<Scans>,
    shared: Arc<Shared>,
    watchdog: WatchedLoop,
    ticks: watch::Receiver<()>,
    asked: watch::Receiver<()>,
    /// The scheduled time of the latest scan.
    last: DateTime<Utc>,
    /// The reason for a scan now.
    due: Option<Due>,
    /// The next retry, and its time.
    again: Option<(Instant, Due)>,
    /// Why the lease could not be requested.
    fault: Option<String>,
}

impl ScanLoop {
    async fn start(scans: Arc<Scans>, shared: Arc<Shared>) -> ScanLoop {
        let organization = scans.target.api.organization();
        let watchdog = shared.watchdog.enter();
        let started = shared.clock.now();
        let last = match shared.store.last_tick(organization).await {
            Ok(last) => last.unwrap_or(started),
            Err(error) => {
                tracing::error!(
                    %organization, %error,
                    "cannot read the time of the last scan: the next scan starts on schedule"
                );
                started
            }
        };
        let overdue_at = overdue(&scans.schedule, &shared.timing, last.min(started), started);
        // If the database does not respond, assume that the organization was read before.
        let was_read = shared.store.was_read(organization).await.unwrap_or(true);
        shared.note_scan(organization, |watched| {
            watched.overdue_at = overdue_at;
            watched.never_read = !was_read;
        });
        let mut due = scans.first;
        if let Some(Due::Again { asked }) = &mut due {
            // The new configuration may make unreadable lists readable.
            let status = shared.status.borrow();
            let last = status.organizations.get(organization).and_then(|one| one.last.as_ref());
            *asked |= last.is_none_or(|last| !last.complete);
        }
        let (ticks, asked) = (scans.ticks.clone(), scans.asked.clone());
        let (again, fault) = (None, None);
        ScanLoop { scans, shared, watchdog, ticks, asked, last, due, again, fault }
    }

    /// Scans if a scan is due, and waits for the next event; `None` if the loop is cancelled.
    async fn round(&mut self) -> Option<()> {
        let end = self.scans.end.clone();
        self.watchdog.beat();
        if let Some(due) = self.next() {
            end.run_until_cancelled(self.wait_for_turn(due)).await?;
            if let Some(lease) = end.run_until_cancelled(self.acquire(due)).await? {
                self.scan(due, lease).await?;
            }
        }
        end.run_until_cancelled(self.wait()).await
    }

    /// The reason for a scan now, if one is due.
    fn next(&mut self) -> Option<Due> {
        let cron = &self.scans.schedule.cron;
        let now = self.shared.clock.now();
        // A clock that was set back must not delay the next scan.
        self.last = self.last.min(now);
        let retry = self.again.take_if(|(at, _)| *at <= Instant::now()).map(|(_, due)| due);
        let scheduled = || cron.due(self.last, now).map(Due::Schedule);
        let due = self.due.take().or(retry).or_else(scheduled)?;
        self.last = match due {
            Due::Schedule(tick) => tick,
            Due::Start | Due::Again { .. } | Due::Asked => cron.latest(now),
        };
        Some(due)
    }

    /// Waits for the jitter of a scheduled scan.
    async fn wait_for_turn(&self, due: Due) {
        let jitter = match due {
            Due::Schedule(_) | Due::Start => {
                self.scans.schedule.jitter.mul_f64(fastrand::f64()) + turn(&self.shared)
            }
            Due::Again { .. } | Due::Asked => Duration::ZERO,
        };
        self.watchdog.during(jitter, tokio::time::sleep(jitter)).await;
    }

    /// Acquires the lease; otherwise notes the retry, if any.
    async fn acquire(&mut self, due: Due) -> Option<Lease> {
        let (shared, organization) = (&self.shared, self.scans.target.api.organization());
        let taking = take(shared, organization, due, self.last);
        let outcome = self.watchdog.during(shared.timing.taking, taking).await;
        if outcome.is_ok() && self.fault.take().is_some() {
            shared.note_scan(organization, |watched| watched.fault = None);
        }
        let (pause, retry) = match outcome {
            Ok(LeaseOutcome::Acquired(lease)) => return Some(lease),
            // Another instance has already run this scan.
            Ok(LeaseOutcome::Done) => {
                shared.note_scan(organization, |watched| watched.fault = None);
                return None;
            }
            Ok(LeaseOutcome::Held) => (shared.timing.lease_held, due.again()),
            Ok(LeaseOutcome::Superseded) => match due.again() {
                Due::Again { asked: true } => {
                    tracing::warn!(
                        %organization,
                        "scan not started: another instance has a newer configuration, and only \
                         that instance scans"
                    );
                    return None;
                }
                // The other instance may stop before it scans.
                due => (shared.timing.database_away, due),
            },
            Err(error) => {
                let why = error.to_string();
                if self.fault.replace(why.clone()).is_none() {
                    tracing::error!(
                        %organization, error = %why, "scan delayed: database unavailable"
                    );
                }
                shared.note_scan(organization, |watched| watched.fault = Some(why));
                (shared.timing.database_away, due.again())
            }
        };
        self.again = Some((Instant::now() + pause, retry));
        None
    }

    /// Runs the scan, and notes its result and its retry. `None` if the loop is cancelled: nothing is
    /// saved then, and the next start scans again.
    async fn scan(&mut self, due: Due, lease: Lease) -> Option<()> {
        let (shared, organization) = (&self.shared, self.scans.target.api.organization());
        let Scans { target, schedule, news, end, .. } = self.scans.as_ref();
        news.tell(ScanEvent::ScanBegins(organization.clone()));
        shared.note_scan(organization, |watched| watched.scanning = true);
        let held = ScanInProgress::new(shared);
        let when = when(schedule, shared.clock.now(), self.last);
        let one = one_scan(&self.scans, Arc::clone(shared), when, lease.clone());
        let limit = target.timeout + shared.timing.saving;
        let kept = end.run_until_cancelled(self.watchdog.during(limit, one)).await;
        shared.count_requests(&target.api);
        drop(held);
        let releasing =
            tokio::time::timeout(shared.timing.releasing, shared.store.release(&lease)).await;
        if !matches!(releasing, Ok(Ok(()))) {
            tracing::debug!(%organization, "scan lease not released: it expires by itself");
        }
        let kept = kept?;
        let now = shared.clock.now();
        let overdue_at = overdue(schedule, &shared.timing, now, now);
        if let Ok(report) = &kept {
            shared.counters.scanned(report.record.finished_at - report.record.started_at);
        }
        shared.note_scan(organization, |watched| {
            watched.overdue_at = overdue_at;
            watched.scanning = false;
            match &kept {
                Ok(report) => {
                    watched.last = Some(last_of(&report.record));
                    watched.never_read &= !report.record.has_read();
                    watched.fault = None;
                }
                Err(NotSaved::TakenOver) => {}
                Err(NotSaved::Why(why)) => watched.fault = Some(why.clone()),
            }
        });
        let ended = |complete| ScanEvent::ScanEnded(organization.clone(), complete);
        let retry = match kept {
            Ok(report) => {
                news.tell(ended(report.record.complete));
                let pause = target.confirm_after.to_std().unwrap_or(shared.timing.repeat);
                report.needs_confirmation.then_some((pause, Due::Again { asked: true }))
            }
            // The other instance has run a scan or will do so, and reports the result.
            Err(NotSaved::TakenOver) => {
                Some((shared.timing.lease_held, Due::Again { asked: false }))
            }
            Err(NotSaved::Why(_)) => {
                news.tell(ended(false));
                Some((shared.timing.repeat, due.again()))
            }
        };
        self.again = retry.map(|(pause, due)| (Instant::now() + pause, due));
        Some(())
    }

    /// Waits for a tick of the scheduler or a request.
    async fn wait(&mut self) {
        tokio::select! {
            tick = self.ticks.changed() => if tick.is_err() {
                // Without the scheduler there are no ticks, but the schedule continues.
                tokio::time::sleep(Duration::from_secs(1)).await;
            },
            // A request during a scan starts another one afterwards.
            request = self.asked.changed() => if request.is_ok() {
                self.due = Some(Due::Asked);
            },
            () = tokio::time::sleep(self.shared.timing.missing_tick) => {
                tracing::warn!(
                    organization = %self.scans.target.api.organization(),
                    "the internal scheduler does not tick: checking the schedule without it"
                );
            }
        }
    }
}

/// The pause before this instance acquires a scan lease: longer with more scans in progress, so
/// that several instances share the work.
fn turn(shared: &Shared) -> Duration {
    if shared.status.borrow().instances.iter().filter(|one| one.there).count() < 2 {
        return Duration::ZERO;
    }
    let under_way = shared.scanning.load(Ordering::Relaxed).min(50);
    shared.timing.turn.mul_f64(fastrand::f64()) + Duration::from_millis(20) * under_way
}

/// Acquires the lease for a scan; for a scheduled scan only if no instance has run it.
async fn take(
    shared: &Shared,
    organization: &OrganizationName,
    due: Due,
    tick: DateTime<Utc>,
) -> Result<LeaseOutcome, StoreError> {
    let unless = match due {
        Due::Start | Due::Schedule(_) | Due::Again { asked: false } => Some(tick),
        Due::Asked | Due::Again { asked: true } => None,
    };
    shared.store.take(Some(organization), unless, shared.timing.lease, shared.clock.now()).await
}

/// The time by which the next scan after a given time should have ended.
pub fn overdue(
    schedule: &schedule::Settings,
    timing: &Timing,
    after: DateTime<Utc>,
    now: DateTime<Utc>,
) -> DateTime<Utc> {
    schedule.cron.next_after(after).unwrap_or(now).max(now) + late(schedule, timing)
}

/// How long after its scheduled time a scan should have ended.
pub fn late(schedule: &schedule::Settings, timing: &Timing) -> TimeDelta {
    let late = schedule.jitter + schedule.scan_timeout + timing.repeat + timing.saving;
    TimeDelta::from_std(late).unwrap_or(TimeDelta::hours(1))
}

pub fn last_of(record: &ScanRecord) -> LastScan {
    LastScan {
        finished_at: record.finished_at,
        complete: record.complete,
        faults: record.faults.clone(),
        clock_skew: record.clock_skew.map(|skew| skew.num_seconds()),
    }
}

/// The status of an organization before its first scan.
pub fn unknown(now: DateTime<Utc>) -> ScanStatus {
    ScanStatus { overdue_at: now, scanning: false, last: None, fault: None, never_read: false }
}
