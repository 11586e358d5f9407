//! Reads organizations, with progress on a terminal.

use tokio::sync::watch;

use crate::{
    clock::Clock,
    config::Config,
    service,
    store::{Store, StoreError},
    usecase::{
        check::{self, Read},
        scan::{Progress, Target},
    },
};

/// The scan settings of the configured organizations.
pub fn targets(config: &Config) -> anyhow::Result<Vec<Target>> {
    let targets =
        config.organizations.iter().map(|one| service::target(config, one, &Clock::System));
    targets.collect()
}

/// Reads all of them in parallel, with progress on a terminal.
///
/// # Errors
/// As [`check::read`].
pub async fn read<'a>(
    targets: impl IntoIterator<Item = &'a Target>,
    store: Option<&Store>,
) -> Result<Vec<Read<'a>>, StoreError> {
    let (progress, watched) = watch::channel(Progress::default());
    let shown = super::terminal::show_progress(watched);
    let read = check::read(targets, store, &progress).await;
    drop(progress);
    // Print nothing else while the progress line is shown.
    drop(shown.await);
    read
}
