//! Runs the service: builds its parts, and controls loops, reload and shutdown.
//!
//! Each organization has a loop that scans on schedule, and each notifier has one that sends its
//! pending deliveries. The outbox is the only link between them. A reload ends the loops and starts
//! new ones with the new configuration; the outbox keeps pending deliveries.

mod build;
mod deliveries;
mod generation;
mod log;
mod monitor;
mod once;
mod one_scan;
mod peers;
mod reload;
mod scans;
mod shared;
mod systemd;
#[cfg(test)]
mod tests;
mod timing;
mod watchdog;

use backon::{ExponentialBuilder, Retryable};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::Clock,
    config::{Config, problem::Refused},
    http,
    net::error_chain,
    schedule,
    store::{Membership, Store},
};
use build::Parts;
use build::{ConfiguredHeartbeat, heartbeats};
pub use build::{jobs, notifiers, target, when};
use generation::{Begin, Generation, restart_on_panic};
use log::log_scan;
pub use once::Once;
use peers::{Member, OpenError};
pub use reload::settle_changes;
use scans::Due;
use shared::Shared;
pub use timing::Timing;

/// Controls a running service.
pub struct Control {
    pub clock: Clock,
    pub timing: Timing,
    pub stop: CancellationToken,
    /// Requests to reload the configuration.
    pub reloads: mpsc::Receiver<()>,
    /// Requests to scan every organization.
    pub scans: mpsc::Receiver<()>,
    /// Loads the configuration again.
    pub load: Box<dyn Fn() -> Result<Config, Refused> + Send + Sync>,
}

impl Control {
    /// A control without reloads and requested scans.
    pub fn until(stop: CancellationToken) -> Control {
        let ((_, reloads), (_, scans)) = (mpsc::channel(1), mpsc::channel(1));
        Control {
            clock: Clock::System,
            timing: Timing::default(),
            stop,
            reloads,
            scans,
            load: Box::new(|| Err(Refused(Vec::new()))),
        }
    }
}

/// Runs the service until it is stopped; it ends within ten seconds of the signal.
///
/// # Errors
/// If the database cannot be opened or a part cannot be set up. Later failures are logged, and the
/// service continues.
pub async fn run(config: Config, mut control: Control) -> anyhow::Result<()> {
    let stop = control.stop.clone();
    let clock = control.clock.clone();
    let parts = Parts::of(&config, &clock, &control.timing)?;
    let membership = peers::membership(&config, &parts.notifiers, clock.now());
    let opening = open(&config, &parts, &membership, &clock);
    let Some((store, settled)) = stop.run_until_cancelled(opening).await.transpose()? else {
        return Ok(());
    };
    let listener = match config.http.listen {
        Some(address) => Some(http::bind(address).await.map_err(|error| {
            anyhow::anyhow!(
                "cannot listen on {address}: {error} (set http.listen to another address or \"off\")"
            )
        })?),
        None => None,
    };
    let configured = watch::channel(Arc::clone(&parts.configured)).0;
    let shared = Arc::new(Shared::new(
        store,
        &config,
        clock.clone(),
        control.timing.clone(),
        membership,
        configured,
        stop.clone(),
    ));
    let tasks = TaskTracker::new();
    log_started(&config);
    let answering = if let Some(listener) = listener {
        let service = http::Service {
            clock,
            store: shared.store.clone(),
            work: tokio::runtime::Handle::current(),
            state: config.state.clone(),
            status: shared.status.subscribe(),
            configured: shared.configured.subscribe(),
            counters: shared.counters.clone(),
            scan_now: shared.scan_now.clone(),
            is_alive: {
                let watchdog = shared.watchdog.clone();
                Box::new(move || watchdog.is_alive())
            },
        };
        Some(http::start(listener, service, stop.clone())?)
    } else {
        None
    };
    let Some(ticker) = stop.run_until_cancelled(schedule::Ticker::start()).await else {
        return Ok(());
    };
    if shared.store.is_shared() {
        let (shared, stop, pause) = (Arc::clone(&shared), stop.clone(), shared.timing.ending);
        let one = move || peers::run(Arc::clone(&shared), stop.clone());
        tasks.spawn(restart_on_panic("the check of the other instances".to_owned(), pause, one));
    }
    let first = config.schedule.run_on_start.then_some(Due::Start);
    let begin = Begin { first, settled };
    let mut generation = Generation::start(&config, parts, begin, &shared, &ticker.ticks(), &tasks);
    let mut running = config;
    systemd::ready();

    loop {
        tokio::select! {
            Some(()) = control.scans.recv() => {
                tracing::info!("scan of all organizations requested");
                shared.scan_now.send_replace(());
            }
            Some(()) = control.reloads.recv() => {
                systemd::reloading();
                if let Some((config, parts)) = reload::load(&control, &running) {
                    let watchdog = shared.watchdog.enter();
                    let change = async {
                        generation.end().await;
                        reload::change(&config, &parts, &shared).await
                    };
                    let changing = watchdog.during(shared.timing.reload, change);
                    let Some(settled) = stop.run_until_cancelled(changing).await else {
                        break;
                    };
                    // Scan at once to apply the changes; with several instances, one of them does.
                    let first = Due::Again { asked: !shared.store.is_shared() };
                    let begin = Begin { first: Some(first), settled };
                    let ticks = ticker.ticks();
                    generation = Generation::start(&config, parts, begin, &shared, &ticks, &tasks);
                    running = config;
                    tracing::info!("configuration reloaded");
                }
                systemd::ready();
            }
            () = shared.lost.cancelled() => {
                stop.cancel();
                break;
            }
            () = stop.cancelled() => break,
        }
    }
    systemd::stopping();
    tasks.close();
    // Dropped if it does not end in time.
    drop(tokio::time::timeout(Duration::from_secs(1), ticker.stop()).await);
    if tokio::time::timeout(shared.timing.grace, tasks.wait()).await.is_err() {
        tracing::warn!("shutdown timed out: unfinished work continues at the next start");
    }
    if let Some(answering) = answering {
        // The server stops in parallel with the loops, within two seconds.
        drop(tokio::time::timeout(Duration::from_millis(2_500), answering.wait()).await);
    }
    let farewell = async {
        if let Err(error) = shared.store.leave().await {
            tracing::debug!(
                %error, "cannot deregister this instance: its registration expires by itself"
            );
        }
        shared.store.close().await;
    };
    drop(tokio::time::timeout(Duration::from_millis(500), farewell).await);
    tracing::info!("certvigil stopped");
    // A supervisor restarts the process, which then opens the new file.
    anyhow::ensure!(!shared.lost.is_cancelled(), "the database file was removed or replaced");
    Ok(())
}

/// Opens the database, registers this instance, and cleans up after removals; returns whether the
/// cleanup is done. Waits while the database server is unavailable.
async fn open(
    config: &Config,
    parts: &Parts,
    membership: &Membership,
    clock: &Clock,
) -> Result<(Store, bool), OpenError> {
    let open = || async {
        let store = Store::open(&config.state).await?;
        peers::refuse_to_forget(config, &store, &parts.notifiers).await?;
        store.join(membership, false, &|| clock.now()).await?;
        let settled = settle_changes(config, &store, &parts.notifiers, clock.now()).await?;
        Ok::<_, OpenError>((store, settled))
    };
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_secs(10))
        .without_max_times();
    open.retry(pauses)
        .when(OpenError::is_passing)
        .notify(|error, pause| {
            let error = error_chain(error);
            tracing::error!(error, "database unavailable, next attempt in {pause:?}");
        })
        .await
}

fn log_started(config: &Config) {
    tracing::info!(
        organizations = config.organizations.len(),
        api = config.api_origins(),
        notifiers = config.notifiers.names().len(),
        state = %config.state.place,
        schedule = %config.schedule.cron.describe(),
        timezone = config.timezone.name(),
        listen = config.http.listen.map(|address| address.to_string()),
        "certvigil {} started", env!("CARGO_PKG_VERSION")
    );
}
