//! `certvigil run`: the service, until SIGTERM or SIGINT. SIGHUP reloads the configuration, SIGUSR1
//! scans.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::{
    clock::Clock,
    config::{Config, Needs, load, problem::Refused},
    logging,
    service::{self, Control, Timing},
};

/// The time limit for printing the final error.
const SAYING: Duration = Duration::from_secs(2);

pub async fn main(file: Option<&Path>, signals: Option<io::Result<Signals>>) -> u8 {
    match run(file, signals).await {
        Ok(()) => 0,
        Err(failure) => {
            let code = failure.code();
            logging::within(SAYING, move || {
                failure.report();
            });
            code
        }
    }
}

async fn run(file: Option<&Path>, signals: Option<io::Result<Signals>>) -> Result<(), Failure> {
    let signals = signals.unwrap_or_else(Signals::new)?;
    let loaded = load(file, Needs::ALL).map_err(Failure::Refused)?;
    // A blocked stderr must not stop the service.
    let _log = logging::start_in_background(&loaded.config.log);
    super::log_warnings(&loaded);
    match &loaded.file {
        Some(file) => tracing::info!(file = %file.display(), "configuration loaded"),
        None => {
            tracing::info!("no configuration file: using built-in defaults and the environment")
        }
    }
    let stop = CancellationToken::new();
    let ((reload, reloads), (scan, scans)) = (mpsc::channel(1), mpsc::channel(1));
    tokio::spawn(listen(signals, stop.clone(), reload, scan));
    // A reload reads the same file. If that file is gone, the reload fails and reads no other file.
    let file: Option<PathBuf> = loaded.file.clone().or(file.map(Path::to_owned));
    let load = Box::new(move || again(file.as_deref()));
    service::run(
        loaded.config,
        Control { clock: Clock::System, timing: Timing::default(), stop, reloads, scans, load },
    )
    .await?;
    Ok(())
}

fn again(file: Option<&Path>) -> Result<Config, Refused> {
    let loaded = load(file, Needs::ALL)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded.config)
}

/// The signals that the service handles: from now on, none of them kills the process.
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    user: tokio::signal::unix::Signal,
}

impl Signals {
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }
}

async fn listen(
    mut signals: Signals,
    stop: CancellationToken,
    reload: mpsc::Sender<()>,
    scan: mpsc::Sender<()>,
) {
    loop {
        let wanted = tokio::select! {
            _ = signals.terminate.recv() => Err("SIGTERM"),
            _ = signals.interrupt.recv() => Err("SIGINT"),
            _ = signals.hangup.recv() => Ok(&reload),
            _ = signals.user.recv() => Ok(&scan),
        };
        match wanted {
            // A pending request already covers this one.
            Ok(wanted) => drop(wanted.try_send(())),
            Err(signal) => {
                tracing::info!(signal, "stopping");
                stop.cancel();
                return;
            }
        }
    }
}
