//! The loops of one configuration, from a start or a reload to the next.

use futures_util::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Shared,
    build::{self, Parts},
    deliveries,
    monitor::{self, Monitor, ScanEvents, Watching},
    scans::{self, Due, Scans},
};
use crate::{config::Config, schedule};

/// The start of the loops of a configuration.
pub(super) struct Begin {
    /// The reason for an immediate scan, if any.
    pub first: Option<Due>,
    /// Whether the cleanup of removed organizations and notifiers is done.
    pub settled: bool,
}

/// The loops of one configuration.
pub(super) struct Generation {
    end: CancellationToken,
    ending: Duration,
    /// The loops that must end before new ones start.
    scans: TaskTracker,
}

impl Generation {
    /// Starts the loops. Only `tasks` waits for the loops of the notifiers, because they finish
    /// attempts in flight.
    pub fn start(
        config: &Config,
        parts: Parts,
        begin: Begin,
        shared: &Arc<Shared>,
        ticks: &watch::Receiver<()>,
        tasks: &TaskTracker,
    ) -> Generation {
        let Parts { targets, notifiers, heartbeats, configured: _ } = parts;
        let end = shared.stop.child_token();
        let own = TaskTracker::new();
        let (news, happened) = ScanEvents::channel();
        let delivery = &config.delivery;
        let pause = shared.timing.ending;
        for notifier in notifiers.clone() {
            shared.counters.expect(notifier.name(), notifier.failures());
            let (delivery, shared, end) = (delivery.clone(), Arc::clone(shared), end.clone());
            let ticks = schedule::Ticks::new(ticks.clone());
            let name = format!("the delivery loop of the notifier {}", notifier.name());
            let one = move || {
                let (notifier, shared) = (Arc::clone(&notifier), Arc::clone(&shared));
                deliveries::run(notifier, delivery.clone(), shared, ticks.clone(), end.clone())
            };
            tasks.spawn(restart_on_panic(name, pause, one));
        }
        for target in targets {
            let name = format!("the scan loop of the organization {}", target.api.organization());
            let scans = Arc::new(Scans {
                target: Arc::new(target),
                schedule: config.schedule.clone(),
                notifiers: notifiers.clone(),
                delivery: delivery.clone(),
                first: begin.first,
                asked: shared.scan_now.subscribe(),
                ticks: ticks.clone(),
                news: news.clone(),
                end: end.clone(),
            });
            let shared = Arc::clone(shared);
            let one = move || scans::run(Arc::clone(&scans), Arc::clone(&shared));
            own.spawn(tasks.track_future(restart_on_panic(name, pause, one)));
        }
        let heartbeats = heartbeats.into_iter();
        let monitor = Monitor {
            config: Arc::new(config.clone()),
            jobs: build::jobs(config, &shared.timing, shared.clock.now()),
            settled: begin.settled,
            notifiers,
            delivery: delivery.clone(),
            heartbeats: heartbeats.map(|one| Watching::of(one, shared.timing.repeat)).collect(),
            news: happened,
            ticks: schedule::Ticks::new(ticks.clone()),
            end: end.clone(),
        };
        own.spawn(tasks.track_future(monitor::run(monitor, Arc::clone(shared))));
        let pruning = pruning(Arc::clone(shared), config.state.history, end.clone());
        own.spawn(tasks.track_future(pruning));
        own.close();
        Generation { end, ending: shared.timing.ending, scans: own }
    }

    /// Ends the loops: aborts a scan in progress, and lets attempts in flight finish.
    pub async fn end(self) {
        self.end.cancel();
        if tokio::time::timeout(self.ending, self.scans.wait()).await.is_err() {
            tracing::warn!(
                "tasks with the previous configuration did not end in time: continuing without \
                 waiting for them"
            );
        }
    }
}

/// Runs a loop, and restarts it after a panic.
pub(super) async fn restart_on_panic<F: Future<Output = ()>>(
    what: String,
    pause: Duration,
    run: impl Fn() -> F,
) {
    while AssertUnwindSafe(run()).catch_unwind().await.is_err() {
        tracing::error!("{what} failed: internal error, restarting this task");
        tokio::time::sleep(pause).await;
    }
}

/// How long acknowledgements remain after their organization is removed.
const WEEK: chrono::TimeDelta = chrono::TimeDelta::days(7);

async fn pruning(shared: Arc<Shared>, history: chrono::TimeDelta, stop: CancellationToken) {
    loop {
        // The newest configuration decides the retention.
        if shared.status.borrow().is_in_force() {
            match shared.store.prune(shared.clock.now() - history).await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(rows, "deleted records older than state.history"),
                Err(error) => tracing::error!(%error, "cannot delete old records, will retry"),
            }
            let now = shared.clock.now();
            let orphaned = shared.store.end_orphaned_acknowledgements(now - WEEK, now).await;
            if let Err(error) = orphaned {
                tracing::error!(
                    %error, "cannot end acknowledgements of removed organizations, will retry"
                );
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(shared.timing.prune)).await.is_none() {
            return;
        }
    }
}
