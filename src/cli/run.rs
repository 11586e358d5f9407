//! `certvigil run`: the service, until SIGTERM or SIGINT.

use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::{app, config::Needs};

pub async fn main(file: Option<&Path>) -> u8 {
    match run(file).await {
        Ok(()) => 0,
        Err(failure) => failure.say(),
    }
}

async fn run(file: Option<&Path>) -> Result<(), Failure> {
    let loaded = super::start(file, Needs::ALL)?;
    match &loaded.file {
        Some(file) => tracing::info!(file = %file.display(), "configuration loaded"),
        None => tracing::info!("no configuration file: built-in defaults and environment"),
    }
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let asked = stop.clone();
    tokio::spawn(async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "stopping");
        asked.cancel();
    });
    app::run(loaded.config, stop).await?;
    Ok(())
}
