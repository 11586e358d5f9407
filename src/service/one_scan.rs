//! One scan of the loop, in its own task, and the reason why it is not saved.

use std::sync::{Arc, atomic::Ordering};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{Shared, log::log_scan, scans::Scans};
use crate::{
    net::error_chain,
    store::{Lease, StoreError},
    usecase::{
        Failed,
        scan::{self, Progress, Report, ScanTimes},
    },
};

/// Counts a scan in progress while it exists.
pub struct ScanInProgress<'a>(&'a Shared);

impl ScanInProgress<'_> {
    pub fn new(shared: &Shared) -> ScanInProgress<'_> {
        shared.scanning.fetch_add(1, Ordering::Relaxed);
        ScanInProgress(shared)
    }
}

impl Drop for ScanInProgress<'_> {
    fn drop(&mut self) {
        self.0.scanning.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The reason why a scan is not saved.
pub enum NotSaved {
    /// Another instance has taken over.
    TakenOver,
    Why(String),
}

/// One scan in its own task, so that a panic does not end the loop.
pub async fn one_scan(
    scans: &Scans,
    shared: Arc<Shared>,
    when: ScanTimes,
    lease: Lease,
) -> Result<Report, NotSaved> {
    let target = Arc::clone(&scans.target);
    let organization = target.api.organization().clone();
    let notifiers = scans.notifiers.clone();
    let give_up_after = scans.delivery.give_up_after;
    let work = {
        let shared = Arc::clone(&shared);
        async move {
            let (progress, _) = watch::channel(Progress::default());
            let store = &shared.store;
            scan::run_once(&target, store, &notifiers, give_up_after, when, lease, &progress).await
        }
    };
    match AbortOnDropHandle::new(tokio::spawn(work)).await {
        Ok(Ok(report)) => {
            log_scan(&report);
            shared.outbox.notify_waiters();
            Ok(report)
        }
        Ok(Err(Failed { source: StoreError::TakenOver, .. })) => {
            tracing::warn!(
                %organization,
                "scan discarded: this instance was unresponsive, and another instance took over \
                 the scan"
            );
            Err(NotSaved::TakenOver)
        }
        Ok(Err(error)) => {
            let why = error_chain(&error);
            tracing::error!(
                %organization, error = %why,
                "scan not saved: certvigil repeats the scan, and sends no alerts until a scan is \
                 saved"
            );
            Err(NotSaved::Why(why))
        }
        Err(panic) => {
            tracing::error!(
                %organization, error = %panic, "scan failed: internal error, will retry"
            );
            Err(NotSaved::Why("internal error".to_owned()))
        }
    }
}
