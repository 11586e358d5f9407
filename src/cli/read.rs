//! Reading organizations now, beside a service that may be running, and keeping nothing.

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

/// The organizations of the configuration, ready to be read.
pub fn targets(config: &Config) -> anyhow::Result<Vec<Target>> {
    let targets = config.organizations.iter().map(|one| service::target(config, one));
    targets.collect()
}

/// One organization as it was read.
pub struct Read<'a> {
    pub target: &'a Target,
    pub inventory: Inventory,
    /// How far this machine's clock is off, where that is too much.
    pub skew: Option<TimeDelta>,
}

/// Reads all of these at once. Progress is shown on a terminal.
pub async fn read<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Vec<Read<'a>> {
    let (progress, watched) = watch::channel(Progress::default());
    let shown = super::terminal::show_progress(watched);
    let told = &progress;
    let scans = targets.into_iter().map(|target| async move {
        let reading = scan::read(target, Arc::default(), told).await;
        let skew = target.clock(clock::now(), clock::synchronization()).skew();
        if let Some(skew) = skew {
            service::say_clock(target.api.organization(), skew);
        }
        let now = clock::now() + skew.unwrap_or_default();
        let inventory = Inventory::default().merge(reading, &target.selection, now);
        Read { target, inventory, skew }
    });
    let read = futures_util::future::join_all(scans).await;
    drop(progress);
    // Nothing else is written while its line stands.
    drop(shown.await);
    read
}
