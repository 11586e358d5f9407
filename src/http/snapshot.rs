//! Snapshots of all displayed data, which several requests share.
//!
//! Guarantees: the database is read at most once a second regardless of the number of requests, and
//! evaluated after a change or a minute. Read-only connections do not delay scans and deliveries.
//! Unused snapshots are dropped.

use chrono::{DateTime, TimeDelta, Utc};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

use super::{Configured, HttpError, Status, problem::Problem};
use crate::{
    clock::Clock,
    domain::{
        delivery::DeliveryRow, drill::Drilled, evaluate::evaluate, failing::Failure,
        punctuality::Punctualities, text::one_line,
    },
    store::{Store, Version, Waiting, Which},
    view::{CertificateRow, Overview},
};

/// How long a snapshot is used without reading the database again.
const FRESH: Duration = Duration::from_secs(1);
/// How long an evaluation is used while the data does not change.
const HOLDS: Duration = Duration::from_secs(60);
/// The time after which an unused snapshot is dropped.
const UNUSED: Duration = Duration::from_secs(120);
/// The number of deliveries of each kind that are read.
pub const LISTED: u32 = 50;

/// The data of the pages.
#[derive(Debug)]
pub struct Snapshot {
    /// Unique among all snapshots.
    pub number: u64,
    pub at: DateTime<Utc>,
    /// The time by the API's clock, if the local one is wrong; expiries use it.
    pub now: DateTime<Utc>,
    pub configured: Arc<Configured>,
    pub status: Status,
    /// In the order of the configuration.
    pub organizations: Vec<Arc<Overview>>,
    /// At most a minute old.
    pub punctuality: Punctualities,
    pub outbox: Outbox,
}

/// Pending, failed and recent deliveries.
#[derive(Debug)]
pub struct Outbox {
    pub waiting: Vec<Waiting>,
    /// The failing receivers.
    pub failures: Vec<Failure>,
    /// The drills of all receivers.
    pub drilled: Vec<Drilled>,
    /// The newest [`LISTED`] deliveries that were rejected, given up, or are pending after a
    /// failure.
    pub failed: Vec<DeliveryRow>,
    /// The newest [`LISTED`] deliveries.
    pub latest: Vec<DeliveryRow>,
}

impl Snapshot {
    /// A certificate, with its organization.
    pub fn certificate(
        &self,
        organization: &str,
        id: &str,
    ) -> Result<(&Overview, &CertificateRow), Problem> {
        let overview =
            self.organizations.iter().find(|one| one.organization.as_str() == organization);
        let row = overview.and_then(|overview| {
            let row = overview.certificates.iter().find(|row| row.view.id.as_str() == id)?;
            Some((overview.as_ref(), row))
        });
        row.ok_or_else(|| {
            let (id, organization) = (one_line(id, 120), one_line(organization, 64));
            Problem::not_found(format!("no certificate {id} in the latest scan of {organization}"))
        })
    }
}

/// Keeps the latest snapshot.
pub struct SnapshotCache {
    clock: Clock,
    store: Store,
    configured: watch::Receiver<Arc<Configured>>,
    status: watch::Receiver<Status>,
    kept: Mutex<Option<CachedSnapshot>>,
    made: AtomicU64,
}

struct CachedSnapshot {
    snapshot: Arc<Snapshot>,
    version: Version,
    read_at: Instant,
    /// Whether data was written since.
    outdated: bool,
    evaluated_at: Instant,
}

impl SnapshotCache {
    /// Reads from `store`.
    pub fn new(
        clock: Clock,
        store: Store,
        configured: watch::Receiver<Arc<Configured>>,
        status: watch::Receiver<Status>,
    ) -> SnapshotCache {
        SnapshotCache {
            clock,
            store,
            configured,
            status,
            kept: Mutex::new(None),
            made: AtomicU64::new(0),
        }
    }

    /// The current snapshot.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>, HttpError> {
        // Concurrent requests wait for one read.
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_ref()
            && !kept.outdated
            && kept.read_at.elapsed() < FRESH
        {
            return Ok(Arc::clone(&kept.snapshot));
        }
        let (snapshot, version, evaluated_at) = self.read(kept.take()).await?;
        let snapshot = Arc::new(snapshot);
        *kept = Some(CachedSnapshot {
            snapshot: Arc::clone(&snapshot),
            version,
            read_at: Instant::now(),
            outdated: false,
            evaluated_at,
        });
        Ok(snapshot)
    }

    /// Makes the next snapshot read the database again, after a write.
    pub async fn invalidate(&self) {
        if let Some(kept) = self.kept.lock().await.as_mut() {
            kept.outdated = true;
        }
    }

    /// Drops an unused snapshot from time to time.
    pub async fn forget(&self) {
        loop {
            tokio::time::sleep(UNUSED / 4).await;
            let mut kept = self.kept.lock().await;
            kept.take_if(|kept| kept.read_at.elapsed() > UNUSED);
        }
    }

    async fn read(
        &self,
        before: Option<CachedSnapshot>,
    ) -> Result<(Snapshot, Version, Instant), HttpError> {
        let (now, store) = (self.clock.now(), &self.store);
        let configured = Arc::clone(&self.configured.borrow());
        let version = store.version().await?;
        // Drop an outdated snapshot before creating the next: memory may not suffice for two.
        let before = before.filter(|kept| {
            kept.version == version
                && Arc::ptr_eq(&kept.snapshot.configured, &configured)
                // Evaluate again after the clock was set back.
                && kept.snapshot.at <= now
                && kept.evaluated_at.elapsed() < HOLDS
        });
        let (organizations, punctuality, evaluated_at) = match before {
            Some(kept) => {
                let Snapshot { organizations, punctuality, .. } = kept.snapshot.as_ref();
                (organizations.clone(), *punctuality, kept.evaluated_at)
            }
            None => {
                let punctuality = self.punctuality(&configured, now).await?;
                (self.evaluate(&configured, now).await?, punctuality, Instant::now())
            }
        };
        let skews = organizations.iter().filter_map(|one| Some(one.scan.as_ref()?.skew(now)));
        let skew = skews.into_iter().find(|skew| !skew.is_zero());
        let outbox = Outbox {
            waiting: store.waiting().await?,
            failures: store.failures().await?,
            drilled: store.drilled().await?,
            failed: store.deliveries(&Which { failed: true, ..Which::default() }, LISTED).await?,
            latest: store.deliveries(&Which::default(), LISTED).await?,
        };
        let status = self.status.borrow().clone();
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let snapshot = Snapshot {
            number,
            at: now,
            now: now + skew.unwrap_or_default(),
            configured,
            status,
            organizations,
            punctuality,
            outbox,
        };
        Ok((snapshot, version, evaluated_at))
    }

    async fn punctuality(
        &self,
        configured: &Configured,
        now: DateTime<Utc>,
    ) -> Result<Punctualities, HttpError> {
        let limit = configured.on_time_within;
        let of = |days| self.store.punctuality(now - TimeDelta::days(days), limit, now);
        Ok(Punctualities { of_90_days: of(90).await?, of_3_days: of(3).await? })
    }

    async fn evaluate(
        &self,
        configured: &Configured,
        now: DateTime<Utc>,
    ) -> Result<Vec<Arc<Overview>>, HttpError> {
        let mut all = Vec::new();
        for (organization, policy) in &configured.organizations {
            let (name, policy) = (organization.clone(), policy.clone());
            let inventory = self.store.inventory(organization).await?;
            let acknowledgements = self.store.acknowledgements(organization).await?;
            let scan = self.store.latest_scan(organization).await?;
            let complete_at = self.store.last_complete_scan(organization, now).await?;
            // With thousands of projects, this takes seconds.
            let overview = tokio::task::spawn_blocking(move || {
                let at = now + scan.as_ref().map_or(TimeDelta::zero(), |scan| scan.skew(now));
                let evaluation = evaluate(&name, &inventory, &policy, &acknowledgements, at);
                Overview::of(&evaluation, scan, complete_at)
            });
            all.push(Arc::new(overview.await?));
        }
        Ok(all)
    }
}
