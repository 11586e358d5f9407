//! The wiring: adapters from configuration sections, the loops, reload and shutdown.
//!
//! Each organization has a loop that scans on schedule, and each notifier one that sends its
//! pending deliveries. They meet only in the outbox. A reload ends the loops and starts new ones
//! with the new configuration; the outbox keeps pending deliveries.

mod deliveries;
mod monitor;
mod peers;
mod pulse;
mod reload;
mod scans;
mod systemd;

use anyhow::Context;
use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin_api::AdminApi,
    clock,
    config::{Config, Organization, fault::Refused},
    domain::{certificate::OrganizationName, unreadable::CONFIRM_AFTER},
    heartbeat::Heartbeat,
    http::{self, Configured, Counters, Status, Watched},
    net::error_chain,
    notify::{self, Notifier},
    schedule,
    secret::Secret,
    store::{Membership, Store},
    usecase::scan::{Target, When},
};
use monitor::{Monitor, News, Watching};
pub use peers::Member;
use peers::OpenFault;
use pulse::Pulse;
pub use reload::settle_changes;
pub use scans::log_scan;
use scans::{Due, Scans};

/// How long work in progress may continue after the signal to stop. The contract is 10 s in total.
const GRACE: Duration = Duration::from_secs(8);
/// How long a scan that a reload drops may take to end.
const ENDING: Duration = Duration::from_secs(5);
/// The longest duration of a reload: another instance may hold the lease.
const CHANGING: Duration = Duration::from_secs(180);
/// How often records older than `state.history` are deleted.
const PRUNE: Duration = Duration::from_secs(24 * 3_600);

/// The settings for the scans of an organization.
///
/// # Errors
/// If a secret is no longer readable, or TLS cannot be set up.
pub fn target(config: &Config, organization: &Organization) -> anyhow::Result<Target> {
    let name = organization.api.organization.clone();
    Ok(Target {
        api: AdminApi::new(organization.api.clone())
            .with_context(|| format!("the organization {name}"))?,
        selection: organization.selection.clone(),
        policy: config.policy.of(organization),
        timeout: config.schedule.scan_timeout,
        confirm_after: CONFIRM_AFTER,
    })
}

/// The times of a scan that starts now.
pub fn when(schedule: &schedule::Settings, now: DateTime<Utc>, tick: DateTime<Utc>) -> When {
    let timezone = schedule.cron.timezone();
    let (stale_at, allowed) = (schedule.stale_after(now), schedule.allowed(tick));
    When { started_at: now, tick, timezone, stale_at, allowed }
}

/// The configured notifiers.
///
/// # Errors
/// As [`notify::all`].
pub fn notifiers(config: &Config) -> anyhow::Result<Vec<Arc<dyn Notifier>>> {
    let told = &config.notifiers;
    notify::all(&told.email, &told.webhook, &told.log)
}

/// A heartbeat and its organizations. In the database it has the name of its organization; the one
/// for all organizations has none.
pub struct Beating {
    pub name: String,
    pub heartbeat: Heartbeat,
    pub of: BTreeSet<OrganizationName>,
}

/// The configured heartbeats: one for all organizations, and one for each that has its own.
///
/// # Errors
/// If a URL is not readable.
pub fn heartbeats(config: &Config) -> anyhow::Result<Vec<Beating>> {
    let all: BTreeSet<_> =
        config.organizations.iter().map(|one| one.api.organization.clone()).collect();
    let own = config.organizations.iter().filter_map(|one| {
        let name = one.api.organization.clone();
        Some((name.to_string(), one.heartbeat.as_ref()?, BTreeSet::from([name])))
    });
    let shared = config.heartbeat.as_ref().map(|settings| (String::new(), settings, all));
    shared
        .into_iter()
        .chain(own)
        .map(|(name, settings, of)| Ok(Beating { name, heartbeat: Heartbeat::new(settings)?, of }))
        .collect()
}

/// The part of a configuration that the HTTP server needs.
///
/// # Errors
/// If the token is no longer readable.
fn configured(config: &Config) -> anyhow::Result<Configured> {
    let read = |secret: &Option<Secret>| secret.as_ref().map(Secret::read).transpose();
    let organizations = config.organizations.iter();
    Ok(Configured {
        timezone: config.timezone,
        cron: config.schedule.cron.clone(),
        late: scans::late(&config.schedule),
        organizations: organizations
            .map(|one| (one.api.organization.clone(), config.policy.of(one)))
            .collect(),
        listeners: config.notifiers.listeners(),
        give_up_after: config.delivery.give_up_after,
        retry_max: config.delivery.max,
        token: read(&config.http.token).context("http.token")?,
        read_token: read(&config.http.read_token).context("http.read_token")?,
        public_url: config.http.public_url.clone(),
    })
}

/// Controls a running service.
pub struct Control {
    pub stop: CancellationToken,
    /// Requests to reload the configuration.
    pub reloads: mpsc::Receiver<()>,
    /// Requests to scan every organization.
    pub scans: mpsc::Receiver<()>,
    /// Loads the configuration again.
    pub load: Box<dyn Fn() -> Result<Config, Refused> + Send + Sync>,
}

/// Everything that outlives a reload.
struct Shared {
    store: Store,
    /// Notified after a write to the outbox.
    outbox: Notify,
    /// Changed to scan every organization now.
    scan_now: watch::Sender<()>,
    status: watch::Sender<Status>,
    /// The configuration for the HTTP server.
    configured: watch::Sender<Arc<Configured>>,
    counters: Counters,
    pulse: Pulse,
    stop: CancellationToken,
    /// Cancelled if the database file is removed: then the service exits with an error.
    lost: CancellationToken,
    started_at: DateTime<Utc>,
    /// The registration of this instance for the others.
    membership: watch::Sender<Arc<Membership>>,
    schedule: watch::Sender<schedule::Settings>,
    /// Number of scans in progress in this process.
    scanning: AtomicU32,
}

impl Shared {
    fn new(
        store: Store,
        config: &Config,
        membership: Membership,
        configured: watch::Sender<Arc<Configured>>,
        stop: CancellationToken,
    ) -> Shared {
        Shared {
            started_at: membership.started_at,
            membership: watch::channel(Arc::new(membership)).0,
            schedule: watch::channel(config.schedule.clone()).0,
            scanning: AtomicU32::new(0),
            store,
            outbox: Notify::new(),
            scan_now: watch::channel(()).0,
            status: watch::channel(Status::default()).0,
            configured,
            counters: Counters::default(),
            pulse: Pulse::default(),
            stop,
            lost: CancellationToken::new(),
        }
    }

    fn note_scan(&self, organization: &OrganizationName, note: impl FnOnce(&mut Watched)) {
        self.status.send_modify(|status| {
            let unknown = || scans::unknown(clock::now());
            note(status.organizations.entry(organization.clone()).or_insert_with(unknown));
        });
    }

    fn count_requests(&self, api: &AdminApi) {
        for (code, count) in api.take_answers() {
            self.counters.requested(api.organization(), &code, count);
        }
    }

    /// Returns whether the fault is new.
    fn note_outbox(&self, notifier: &str, fault: Option<String>) -> bool {
        self.status.send_if_modified(|status| match fault {
            Some(fault) => status.outbox.insert(notifier.to_owned(), fault).is_none(),
            None => status.outbox.remove(notifier).is_some(),
        })
    }
}

/// The parts built from a configuration before any loop starts.
struct Parts {
    targets: Vec<Target>,
    notifiers: Vec<Arc<dyn Notifier>>,
    heartbeats: Vec<Beating>,
    configured: Arc<Configured>,
}

impl Parts {
    fn of(config: &Config) -> anyhow::Result<Parts> {
        let targets = config.organizations.iter().map(|organization| target(config, organization));
        Ok(Parts {
            targets: targets.collect::<anyhow::Result<_>>()?,
            notifiers: notifiers(config)?,
            heartbeats: heartbeats(config)?,
            configured: Arc::new(configured(config)?),
        })
    }
}

/// The start of the loops of a configuration.
struct Begin {
    /// The reason for an immediate scan, if any.
    first: Option<Due>,
    /// Whether the cleanup of removed organizations and notifiers is done.
    settled: bool,
}

/// The loops of one configuration.
struct Generation {
    end: CancellationToken,
    /// The loops that must end before new ones start.
    scans: TaskTracker,
}

impl Control {
    /// A service that only stops.
    pub fn until(stop: CancellationToken) -> Control {
        let ((_, reloads), (_, scans)) = (mpsc::channel(1), mpsc::channel(1));
        Control { stop, reloads, scans, load: Box::new(|| Err(Refused(Vec::new()))) }
    }
}

impl Generation {
    /// Starts the loops. Those of the notifiers belong to `tasks`, because they finish attempts in
    /// flight.
    fn start(
        config: &Config,
        parts: Parts,
        begin: Begin,
        shared: &Arc<Shared>,
        beats: &watch::Receiver<()>,
        tasks: &TaskTracker,
    ) -> Generation {
        let Parts { targets, notifiers, heartbeats, configured: _ } = parts;
        let end = shared.stop.child_token();
        let own = TaskTracker::new();
        let (news, happened) = News::channel();
        let delivery = &config.delivery;
        for notifier in notifiers.clone() {
            shared.counters.expect(notifier.name(), notifier.failures());
            let (delivery, shared, end) = (delivery.clone(), Arc::clone(shared), end.clone());
            let beats = schedule::Beats::new(beats.clone());
            let name = format!("the deliveries of {}", notifier.name());
            let one = move || {
                let (notifier, shared) = (Arc::clone(&notifier), Arc::clone(&shared));
                deliveries::run(notifier, delivery.clone(), shared, beats.clone(), end.clone())
            };
            tasks.spawn(lasting(name, one));
        }
        for target in targets {
            let name = format!("the scans of {}", target.api.organization());
            let scans = Arc::new(Scans {
                target: Arc::new(target),
                schedule: config.schedule.clone(),
                notifiers: notifiers.clone(),
                delivery: delivery.clone(),
                first: begin.first,
                asked: shared.scan_now.subscribe(),
                beats: beats.clone(),
                news: news.clone(),
                end: end.clone(),
            });
            let shared = Arc::clone(shared);
            let one = move || scans::run(Arc::clone(&scans), Arc::clone(&shared));
            own.spawn(tasks.track_future(lasting(name, one)));
        }
        let heartbeats = heartbeats.into_iter();
        let monitor = Monitor {
            config: Arc::new(config.clone()),
            settled: begin.settled,
            notifiers,
            delivery: delivery.clone(),
            heartbeats: heartbeats.map(Watching::of).collect(),
            news: happened,
            beats: schedule::Beats::new(beats.clone()),
            end: end.clone(),
        };
        own.spawn(tasks.track_future(monitor::run(monitor, Arc::clone(shared))));
        let pruning = pruning(Arc::clone(shared), config.state.history, end.clone());
        own.spawn(tasks.track_future(pruning));
        own.close();
        Generation { end, scans: own }
    }

    /// Ends the loops: a scan in progress is dropped, attempts in flight are finished.
    async fn end(self) {
        self.end.cancel();
        if tokio::time::timeout(ENDING, self.scans.wait()).await.is_err() {
            tracing::warn!("waiting for a scan with the old configuration");
        }
    }
}

/// Restarts a loop after a panic, which then affects nothing else.
async fn lasting<F: Future<Output = ()>>(what: String, run: impl Fn() -> F) {
    while AssertUnwindSafe(run()).catch_unwind().await.is_err() {
        tracing::error!("{what} failed: internal error, restarting");
        tokio::time::sleep(ENDING).await;
    }
}

/// Runs the service until it is stopped; it ends within ten seconds of the signal.
///
/// # Errors
/// If the database cannot be opened or a part cannot be set up. Later failures are logged, and the
/// service continues.
pub async fn run(config: Config, mut control: Control) -> anyhow::Result<()> {
    let stop = control.stop.clone();
    let parts = Parts::of(&config)?;
    let membership = peers::membership(&config, &parts.notifiers, clock::now());
    let opening = open(&config, &parts, &membership);
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
    let shared = Arc::new(Shared::new(store, &config, membership, configured, stop.clone()));
    let tasks = TaskTracker::new();
    log_started(&config);
    let answering = if let Some(listener) = listener {
        let service = http::Service {
            store: shared.store.clone(),
            work: tokio::runtime::Handle::current(),
            state: config.state.clone(),
            status: shared.status.subscribe(),
            configured: shared.configured.subscribe(),
            counters: shared.counters.clone(),
            scan_now: shared.scan_now.clone(),
            is_alive: {
                let pulse = shared.pulse.clone();
                Box::new(move || pulse.is_alive())
            },
        };
        Some(http::start(listener, service, stop.clone())?)
    } else {
        None
    };
    let Some(heartbeat) = stop.run_until_cancelled(schedule::Heartbeat::start()).await else {
        return Ok(());
    };
    if shared.store.is_shared() {
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        let one = move || peers::run(Arc::clone(&shared), stop.clone());
        tasks.spawn(lasting("the look at the other instances".to_owned(), one));
    }
    let first = config.schedule.run_on_start.then_some(Due::Start);
    let begin = Begin { first, settled };
    let mut generation =
        Generation::start(&config, parts, begin, &shared, &heartbeat.beats(), &tasks);
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
                    let pulse = shared.pulse.enter();
                    let change = async {
                        generation.end().await;
                        reload::change(&config, &parts, &shared).await
                    };
                    let changing = pulse.during(CHANGING, change);
                    let Some(settled) = stop.run_until_cancelled(changing).await else {
                        break;
                    };
                    // Scan at once to apply the changes; with several instances, one of them does.
                    let first = Due::Again { asked: !shared.store.is_shared() };
                    let begin = Begin { first: Some(first), settled };
                    let beats = heartbeat.beats();
                    generation = Generation::start(&config, parts, begin, &shared, &beats, &tasks);
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
    drop(tokio::time::timeout(Duration::from_secs(1), heartbeat.stop()).await);
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!("shutdown timed out: unfinished work continues at the next start");
    }
    if let Some(answering) = answering {
        // It has been stopping together with the loops, and takes at most two seconds.
        drop(tokio::time::timeout(Duration::from_millis(2_500), answering.wait()).await);
    }
    let farewell = async {
        if let Err(error) = shared.store.leave().await {
            tracing::debug!(%error, "cannot deregister this instance: its registration expires");
        }
        shared.store.close().await;
    };
    drop(tokio::time::timeout(Duration::from_millis(500), farewell).await);
    tracing::info!("certvigil stopped");
    // A supervisor restarts the process, which then opens the new file.
    anyhow::ensure!(!shared.lost.is_cancelled(), "the database file was removed or replaced");
    Ok(())
}

/// Opens the database, registers this instance, and cleans up after removals; returns whether that
/// is done. Waits for a server that does not respond yet.
async fn open(
    config: &Config,
    parts: &Parts,
    membership: &Membership,
) -> Result<(Store, bool), OpenFault> {
    let open = || async {
        let store = Store::open(&config.state).await?;
        peers::refuse_to_forget(config, &store, &parts.notifiers).await?;
        store.join(membership, false, clock::now).await?;
        let settled = settle_changes(config, &store, &parts.notifiers, clock::now()).await?;
        Ok::<_, OpenFault>((store, settled))
    };
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_secs(10))
        .without_max_times();
    open.retry(pauses)
        .when(OpenFault::is_passing)
        .notify(|error, pause| {
            let error = error_chain(error);
            tracing::error!(error, "database unavailable, next attempt in {pause:?}");
        })
        .await
}

fn log_started(config: &Config) {
    let told = config.notifiers.listening().len();
    tracing::info!(
        organizations = config.organizations.len(),
        api = config.api_origins(),
        notifiers = told,
        state = %config.state.place,
        schedule = %config.schedule.cron.describe(),
        timezone = config.timezone.name(),
        listen = config.http.listen.map(|address| address.to_string()),
        "certvigil {} started", env!("CARGO_PKG_VERSION")
    );
}

/// How long acknowledgements outlive the configuration of their organization.
const WEEK: chrono::TimeDelta = chrono::TimeDelta::days(7);

async fn pruning(shared: Arc<Shared>, history: chrono::TimeDelta, stop: CancellationToken) {
    loop {
        // The newest configuration decides the retention.
        if shared.status.borrow().is_in_force() {
            match shared.store.prune(clock::now() - history).await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(rows, "deleted records older than state.history"),
                Err(error) => tracing::error!(%error, "cannot delete old records"),
            }
            let now = clock::now();
            let orphaned = shared.store.end_orphaned_acknowledgements(now - WEEK, now).await;
            if let Err(error) = orphaned {
                tracing::error!(%error, "cannot end acknowledgements of removed organizations");
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(PRUNE)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::time::Instant;

    use super::*;
    use crate::{
        config::{Needs, from_text},
        demo::{
            admin_api::{self, AdminApi},
            receiver::Receiver,
            world::World,
        },
        domain::{
            listener::Grain,
            notification::Notification,
            retry::{FailureReason, Outcome},
            routing::Routing,
        },
    };

    /// A notifier that panics: in each delivery, and when the first scan reads its routing.
    struct Panicking {
        at_a_scan: AtomicBool,
        routing: Routing,
    }

    fn panicking(at_a_scan: bool) -> Panicking {
        Panicking { at_a_scan: AtomicBool::new(at_a_scan), routing: Routing::all() }
    }

    impl Notifier for Panicking {
        fn name(&self) -> &str {
            "panicking"
        }
        fn receivers(&self) -> Vec<String> {
            assert!(!self.at_a_scan.swap(false, Ordering::SeqCst), "as the test has it");
            vec!["nobody".to_owned()]
        }
        fn routing(&self) -> &Routing {
            &self.routing
        }
        fn grain(&self) -> Grain {
            Grain::Digest
        }
        fn concurrency(&self) -> usize {
            1
        }
        fn max_per_minute(&self) -> Option<std::num::NonZeroU32> {
            None
        }
        fn attempt_limit(&self) -> Duration {
            Duration::from_secs(1)
        }
        fn failures(&self) -> &'static [FailureReason] {
            &[FailureReason::Internal]
        }

        fn deliver<'a>(
            &'a self,
            _notification: &'a Notification,
            _receiver: &'a str,
            _now: DateTime<Utc>,
        ) -> BoxFuture<'a, Outcome> {
            panic!("as the test has it")
        }
    }

    async fn until(what: &str, look: impl AsyncFn() -> bool) {
        let begun = Instant::now();
        while !look().await {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Two organizations and a webhook, in addition to the panicking notifier.
    async fn service(fails: Panicking) -> (Receiver, Arc<Shared>, Generation) {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let mut organizations = String::new();
        for name in ["first", "second"] {
            let mut world = World::with_projects(1, |n| format!("prod-{n}"));
            let end = clock::now() + chrono::TimeDelta::days(5);
            world.add(&format!("cert_{name}"), Some(name), Some(end), [1]);
            let api = AdminApi::new(world).serve().await.unwrap();
            organizations.push_str(&format!(
                "[organizations.{name}]\nadmin_key = \"{}\"\nbase_url = \"http://{api}/v1\"\n",
                admin_api::KEY
            ));
        }
        let receiver = Receiver::default();
        let hook = receiver.serve().await.unwrap();
        let folder = tempfile::tempdir().unwrap().keep();
        let text = format!(
            "{organizations}[notifiers.webhook.hook]\nurl = \"http://{hook}/hook\"\n\
             [schedule]\ncron = \"0 0 1 1 *\"\n[state]\nurl = \"sqlite:state.db\"\n"
        );
        let config = from_text(&folder.join("c.toml"), &text, Needs::ALL).unwrap().config;
        let mut parts = Parts::of(&config).unwrap();
        let membership = peers::membership(&config, &parts.notifiers, clock::now());
        parts.notifiers.insert(0, Arc::new(fails));
        let store = Store::open(&config.state).await.unwrap();
        let configured = watch::channel(Arc::new(configured(&config).unwrap())).0;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared::new(store, &config, membership, configured, stop));
        let (beat, beats) = watch::channel(());
        std::mem::forget(beat);
        let generation = Generation::start(
            &config,
            parts,
            Begin { first: Some(Due::Start), settled: true },
            &shared,
            &beats,
            &TaskTracker::new(),
        );
        (receiver, shared, generation)
    }

    #[tokio::test]
    async fn a_panic_in_a_notifier_is_a_failed_attempt_and_stops_nobody_else() {
        let (receiver, shared, generation) = service(panicking(false)).await;
        until("the other one", async || receiver.posts().len() == 2).await;
        let failed = crate::store::Which { failed: true, ..Default::default() };
        until("the attempts", async || {
            let rows = shared.store.deliveries(&failed, 9).await.unwrap();
            rows.len() == 2 && rows.iter().all(|row| row.attempts > 0 && row.last.is_some())
        })
        .await;
        let failures = shared.store.failures().await.unwrap();
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].detail, "internal error in the notifier");
        generation.end().await;
    }

    #[tokio::test]
    async fn a_panic_in_the_scan_of_one_organization_stops_nobody_else_and_is_reported() {
        let (receiver, shared, generation) = service(panicking(true)).await;
        let failed = || {
            let status = shared.status.borrow();
            let faults = status.organizations.values().filter_map(|one| one.fault.clone());
            faults.collect::<Vec<_>>()
        };
        until("the other one", async || receiver.posts().len() == 1).await;
        until("the report", async || failed() == ["internal error"]).await;
        shared.scan_now.send_replace(());
        until("the next scan", async || receiver.posts().len() == 2 && failed().is_empty()).await;
        generation.end().await;
    }
}
