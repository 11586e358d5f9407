//! Reads organizations now, next to a running service; stores nothing.

use chrono::TimeDelta;
use std::sync::Arc;
use tokio::sync::watch;

use crate::{
    clock,
    config::Config,
    domain::inventory::Inventory,
    service,
    usecase::scan::{self, Progress, Target},
};

/// The scan settings of the configured organizations.
pub fn targets(config: &Config) -> anyhow::Result<Vec<Target>> {
    let targets = config.organizations.iter().map(|one| service::target(config, one));
    targets.collect()
}

/// The reading of an organization.
pub struct Read<'a> {
    pub target: &'a Target,
    pub inventory: Inventory,
    /// The clock skew of this host, if it is too large.
    pub skew: Option<TimeDelta>,
}

/// Reads all of them in parallel, with progress on a terminal.
pub async fn read<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Vec<Read<'a>> {
    let (progress, watched) = watch::channel(Progress::default());
    let shown = super::terminal::show_progress(watched);
    let told = &progress;
    let scans = targets.into_iter().map(|target| async move {
        let reading = scan::read(target, Arc::default(), told).await;
        let skew = target.clock(clock::now(), clock::synchronization()).skew();
        if let Some(skew) = skew {
            service::log_clock_skew(target.api.organization(), skew);
        }
        let now = clock::now() + skew.unwrap_or_default();
        let inventory = Inventory::default().merge(reading, &target.selection, now);
        Read { target, inventory, skew }
    });
    let read = futures_util::future::join_all(scans).await;
    drop(progress);
    // Print nothing else while the progress line is shown.
    drop(shown.await);
    read
}
