//! The HTTP server: pages, API, metrics, calendar and health.
//!
//! Guarantees: runs in its own thread with lower priority, and reads over its own read-only
//! connections, so that readers do not delay scans and deliveries. With a token, every path except
//! `/healthz`, `/readyz`, `/login` and the signed links of messages needs it; other writes always
//! do. Responses contain no secrets.
//! Sizes, times and connections have limits. Makes no decisions: it shows evaluations of the
//! domain.

mod api;
mod attempts;
mod calendar;
mod changes;
mod counters;
mod error;
mod guard;
mod health;
mod listener;
mod metrics;
mod page;
mod problem;
mod session;
mod snapshot;

use axum::{Router, middleware, routing::get};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use secrecy::SecretString;
use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, thread};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot, watch},
};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    clock::Clock,
    domain::{certificate::OrganizationName, notifier::NotifierState, policy::Policy},
    net::error_chain,
    schedule::Cron,
    secret::Secret,
    signing::random_key,
    store::{self, Instance, Store},
    usecase::{
        explain::{Explained, explain},
        organization::OrganizationState,
    },
    view::CertificateRow,
};
pub use api::document;
use attempts::LoginLimiter;
pub use counters::Counters;
use error::HttpError;
use page::Pages;
use problem::Problem;
use session::Key;
use snapshot::SnapshotCache;

/// The maximum numbers of concurrent explanations, and of blocking threads.
const EXPLAINING: usize = 2;
const BLOCKING: usize = 4;

#[derive(Clone, Debug)]
pub struct Settings {
    /// The address of the listener; `None` without a server.
    pub listen: Option<SocketAddr>,
    /// Required for every request if set, and always for writing.
    pub token: Option<Secret>,
    pub read_token: Option<Secret>,
    /// The external URL, if it differs from `listen`.
    pub public_url: Option<Url>,
}

/// The part of the configuration that requests need.
#[derive(Debug)]
pub struct Configured {
    pub timezone: Tz,
    pub cron: Cron,
    /// How long after its scheduled time a scan should have ended.
    pub late: TimeDelta,
    /// How long after becoming due the delivery of an alert is on time.
    pub on_time_within: TimeDelta,
    pub organizations: Vec<(OrganizationName, Policy)>,
    /// The notifiers with empty ledgers.
    pub notifiers: Vec<NotifierState>,
    /// The time until a requested retry is given up.
    pub give_up_after: TimeDelta,
    /// Deliveries pending for longer are late.
    pub retry_max: TimeDelta,
    /// May read and write.
    pub token: Option<SecretString>,
    /// May only read.
    pub read_token: Option<SecretString>,
    pub public_url: Option<Url>,
    /// Whether the signed links of messages are accepted.
    pub links: bool,
    /// The receivers that have drills, each with its notifier; `None` if drills are off.
    pub drilled: Option<Vec<(String, String)>>,
}

/// The status of the service, as reported by its loops.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub organizations: BTreeMap<OrganizationName, ScanStatus>,
    /// The reason why the outbox of a notifier is blocked.
    pub outbox: BTreeMap<String, String>,
    /// With PostgreSQL, the instances on the same database, this one first.
    pub instances: Vec<Instance>,
}

impl Status {
    /// Whether this instance has the active configuration, and therefore scans.
    pub fn is_in_force(&self) -> bool {
        self.instances.iter().all(|one| !one.me || one.in_force)
    }
}

/// The status of the scans of an organization.
#[derive(Clone, Debug)]
pub struct ScanStatus {
    /// The time by which the next scan should have ended.
    pub overdue_at: DateTime<Utc>,
    /// Whether a scan is in progress.
    pub scanning: bool,
    /// The latest saved scan.
    pub last: Option<LastScan>,
    /// The reason why the latest scan was not saved.
    pub fault: Option<String>,
    /// Whether no scan has read anything of the organization.
    pub never_read: bool,
}

#[derive(Clone, Debug)]
pub struct LastScan {
    pub finished_at: DateTime<Utc>,
    pub complete: bool,
    /// The unreadable lists with their errors.
    pub faults: Vec<String>,
    /// How far the API's clock is ahead, in seconds, if the difference is too large.
    pub clock_skew: Option<i64>,
}

/// The parts of the service that requests use.
pub struct Service {
    pub clock: Clock,
    /// For writes such as acknowledgements and retries.
    pub store: Store,
    /// The runtime of the service, for writes.
    pub work: tokio::runtime::Handle,
    /// The settings of the database, for read-only connections.
    pub state: store::Settings,
    pub status: watch::Receiver<Status>,
    pub configured: watch::Receiver<Arc<Configured>>,
    pub counters: Counters,
    /// Notified to scan every organization now.
    pub scan_now: watch::Sender<()>,
    /// Whether the loops of scans and deliveries still run.
    pub is_alive: Box<dyn Fn() -> bool + Send + Sync>,
}

/// The state of the request handlers.
#[derive(Clone)]
struct Shared(Arc<HandlerState>);

struct HandlerState {
    service: Service,
    /// Read-only connections.
    reading: Store,
    keeper: SnapshotCache,
    key: Key,
    attempts: LoginLimiter,
    pages: Pages,
    /// Limits concurrent explanations.
    explaining: Semaphore,
}

impl std::ops::Deref for Shared {
    type Target = HandlerState;

    fn deref(&self) -> &HandlerState {
        &self.0
    }
}

impl Shared {
    /// Explains a certificate at a time by the API's clock.
    async fn explain(
        &self,
        row: &CertificateRow,
        now: DateTime<Utc>,
    ) -> Result<Explained, Problem> {
        let (organization, id) = (&row.organization, &row.view.id);
        let gone = || {
            Problem::not_found(format!("certificate {id} of {organization} is no longer watched"))
        };
        // With thousands of projects, this takes much time and memory.
        let _permit = self.explaining.acquire().await.map_err(HttpError::from)?;
        let configured = self.service.configured.borrow().clone();
        let policy = configured.organizations.iter().find(|(name, _)| name == organization);
        let policy = policy.map(|(_, policy)| policy.clone()).ok_or_else(gone)?;
        let (name, notifiers) = (organization.clone(), configured.notifiers.clone());
        let state = OrganizationState::load(name, policy, notifiers, Some(&self.reading), now);
        let explained = explain(&self.reading, state.await?, &configured.cron, id, now).await;
        explained.map_err(HttpError::from)?.ok_or_else(gone)
    }
}

/// Binds the address before anything else starts.
///
/// # Errors
/// If the address is not available.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves requests until `stop`, in a separate thread.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(
    listener: TcpListener,
    service: Service,
    stop: CancellationToken,
) -> io::Result<ServerHandle> {
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING)
        .build()?;
    let (ending, ended) = oneshot::channel();
    thread::Builder::new().name("http".to_owned()).spawn(move || {
        listener::give_way();
        let serving = async {
            let listener = TcpListener::from_std(listener)?;
            serve(listener, service, stop).await
        };
        if let Err(error) = runtime.block_on(serving) {
            tracing::error!(
                error = %error_chain(&error),
                "HTTP server stopped; scans and deliveries continue. Restart certvigil to serve its \
                 pages again"
            );
        }
        // Blocking reads must not delay the exit.
        runtime.shutdown_background();
        drop(ending);
    })?;
    Ok(ServerHandle(ended))
}

/// Signals the end of a server from [`start`].
pub struct ServerHandle(oneshot::Receiver<()>);

impl ServerHandle {
    /// Waits for the end; requests in progress get a short time to finish.
    pub async fn wait(self) {
        drop(self.0.await);
    }
}

/// The key of sessions and of the calendar's URL. All instances share it, and it outlives restarts.
async fn key(service: &Service) -> Result<Key, HttpError> {
    let new = random_key().ok_or(HttpError::Random)?;
    let (store, fresh) = (service.store.clone(), new.clone());
    let kept = service.work.spawn(async move { store.key("sessions", &fresh).await }).await?;
    let kept = kept.unwrap_or_else(|error| {
        let what = "cannot store the session key: a restart ends sessions and changes the calendar’s address";
        tracing::warn!(%error, "{what}");
        new
    });
    Ok(Key::new(&kept))
}

async fn serve(
    listener: TcpListener,
    service: Service,
    stop: CancellationToken,
) -> Result<(), HttpError> {
    let reading = Store::reading(&service.state).await?;
    let keeper = SnapshotCache::new(
        service.clock.clone(),
        reading.clone(),
        service.configured.clone(),
        service.status.clone(),
    );
    let key = key(&service).await?;
    let attempts = LoginLimiter::default();
    let pages = Pages::new()?;
    let explaining = Semaphore::new(EXPLAINING);
    let shared = Shared(Arc::new(HandlerState {
        service,
        reading,
        keeper,
        key,
        attempts,
        pages,
        explaining,
    }));
    let router = router(shared.clone());
    let serving = listener::serve(listener, router, stop.clone());
    tokio::select! {
        () = serving => {}
        () = shared.keeper.forget() => {}
    }
    // An open reader would keep SQLite from merging its write-ahead log at shutdown.
    shared.reading.close().await;
    Ok(())
}

fn router(shared: Shared) -> Router {
    let api = api::router();
    let open = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .merge(page::message_link())
        .merge(guard::login());
    let guarded = Router::new()
        .merge(page::router())
        .merge(api)
        .route("/metrics", get(metrics::metrics))
        .route("/calendar.ics", get(calendar::calendar))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(middleware::from_fn_with_state(shared.clone(), guard::check));
    let all =
        open.merge(guarded).layer(middleware::from_fn_with_state(shared.clone(), guard::same_site));
    listener::limits(all.with_state(shared))
}
