//! The state of the service that outlives a reload.

use chrono::{DateTime, Utc};
use std::sync::{Arc, atomic::AtomicU32};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{Timing, scans, watchdog::Watchdog};
use crate::{
    admin_api::AdminApi,
    clock::Clock,
    config::Config,
    domain::certificate::OrganizationName,
    http::{Configured, Counters, ScanStatus, Status},
    schedule,
    store::{Membership, Store},
};

pub(super) struct Shared {
    pub clock: Clock,
    pub timing: Timing,
    pub store: Store,
    /// Notified after a write to the outbox.
    pub outbox: Notify,
    /// Notified to scan every organization now.
    pub scan_now: watch::Sender<()>,
    pub status: watch::Sender<Status>,
    /// The configuration for the HTTP server.
    pub configured: watch::Sender<Arc<Configured>>,
    pub counters: Counters,
    pub watchdog: Watchdog,
    pub stop: CancellationToken,
    /// Cancelled if the database file is removed: then the service exits with an error.
    pub lost: CancellationToken,
    pub started_at: DateTime<Utc>,
    /// The registration of this instance for the others.
    pub membership: watch::Sender<Arc<Membership>>,
    pub schedule: watch::Sender<schedule::Settings>,
    /// Number of scans in progress in this process.
    pub scanning: AtomicU32,
}

impl Shared {
    pub fn new(
        store: Store,
        config: &Config,
        clock: Clock,
        timing: Timing,
        membership: Membership,
        configured: watch::Sender<Arc<Configured>>,
        stop: CancellationToken,
    ) -> Shared {
        Shared {
            clock,
            timing,
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
            watchdog: Watchdog::default(),
            stop,
            lost: CancellationToken::new(),
        }
    }

    pub fn note_scan(&self, organization: &OrganizationName, note: impl FnOnce(&mut ScanStatus)) {
        self.status.send_modify(|status| {
            let unknown = || scans::unknown(self.clock.now());
            note(status.organizations.entry(organization.clone()).or_insert_with(unknown));
        });
    }

    pub fn count_requests(&self, api: &AdminApi) {
        for (code, count) in api.take_answers() {
            self.counters.requested(api.organization(), &code, count);
        }
    }

    /// Sets or clears the error of a notifier's outbox; returns whether it became blocked or
    /// unblocked.
    pub fn note_outbox(&self, notifier: &str, fault: Option<String>) -> bool {
        self.status.send_if_modified(|status| match fault {
            Some(fault) => status.outbox.insert(notifier.to_owned(), fault).is_none(),
            None => status.outbox.remove(notifier).is_some(),
        })
    }
}
