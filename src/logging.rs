//! The log, on stderr, as text or JSON. Levels: trace for idle loops, info for work, warn for
//! degraded operation, error if someone must act.

use std::{
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::LevelFilter,
    fmt::{MakeWriter, writer::BoxMakeWriter},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use crate::domain::words::words;

/// The target of the log notifier's lines; no level hides them.
pub const ALERTS: &str = "certvigil::alerts";

/// Reduces libraries that log too much; some even log mail bodies.
const QUIET: &str = "tokio_cron_scheduler=warn,lettre=info,sqlx=warn,sqlx::pool=error,\
                     rustls_platform_verifier=off,mailin_embedded=off,hyper=info,h2=info";

#[derive(Clone, Debug)]
pub struct Settings {
    pub format: Format,
    pub level: String,
}

words! {
    /// The format of log lines (`log.format`).
    Format {
        Text = "text",
        Json = "json",
    }
}

/// Parses the filter of a configured level, or of `RUST_LOG`.
///
/// # Errors
/// If the filter is invalid.
pub fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder()
        .parse(format!("{QUIET},{level},{ALERTS}=trace"))
        .map_err(|error| crate::net::error_chain(&error))
}

/// Checks that a text is a level or a list of `target=level`. A filter would treat any other word
/// as a target and silence everything else.
///
/// # Errors
/// The reason.
pub fn check_level(text: &str) -> Result<(), String> {
    let bare = text.split(',').map(str::trim).find(|part| {
        part.is_empty() || !part.contains('=') && part.parse::<LevelFilter>().is_err()
    });
    match bare {
        Some(word) => Err(format!("{} is not a log level", crate::redact::quoted(word))),
        None => filter(text).map(drop),
    }
}

/// The handle of the active filter.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// The filter of `RUST_LOG`, or else of the configuration.
fn wanted(settings: &Settings) -> EnvFilter {
    let level = std::env::var("RUST_LOG").ok().filter(|level| !level.is_empty());
    level
        .and_then(|level| filter(&level).ok())
        .or_else(|| filter(&settings.level).ok())
        .unwrap_or_default()
}

/// Applies the configured level to the running log.
pub fn change_level(settings: &Settings) {
    if let Some(handle) = FILTER.get()
        && let Err(error) = handle.reload(wanted(settings))
    {
        tracing::warn!(%error, "cannot change the log level: the previous level stays in force");
    }
}

/// The number of buffered lines; further lines are dropped and counted.
const WAITING_LINES: usize = 256;
/// The time limit for writing the last lines at shutdown.
const FLUSHING: Duration = Duration::from_secs(2);

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// The number of lines that were dropped because stderr was blocked.
pub fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// The background writer of the service's log. Dropping it flushes the buffered lines, for two
/// seconds at most.
pub struct Background(Option<WorkerGuard>);

impl Drop for Background {
    fn drop(&mut self) {
        let guard = self.0.take();
        within(FLUSHING, move || drop(guard));
    }
}

/// Runs `work`, which writes to stderr, in a thread and waits for it up to `limit`.
pub fn within(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let spawned = thread::Builder::new().name("stderr".to_owned()).spawn(move || {
        work();
        // The caller no longer waits after the time limit.
        done.send(()).ok();
    });
    if spawned.is_ok() {
        is_done.recv_timeout(limit).ok();
    }
}

/// Starts logging for the service: a blocked stderr never blocks it.
#[must_use]
pub fn start_in_background(settings: &Settings) -> Background {
    let builder = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log");
    let (writer, guard) = builder.finish(std::io::stderr());
    // A second start in one process changes nothing.
    drop(DROPPED.set(writer.error_counter()));
    start_with(settings, writer);
    Background(Some(guard))
}

/// Starts logging. A second start in one process changes nothing.
pub fn start(settings: &Settings) {
    start_with(settings, std::io::stderr);
}

fn start_with<W>(settings: &Settings, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(wanted(settings));
    let lines = tracing_subscriber::fmt::layer().with_writer(BoxMakeWriter::new(writer));
    let layer = match settings.format {
        Format::Text => {
            let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                && std::io::IsTerminal::is_terminal(&std::io::stderr());
            lines.with_ansi(colours).boxed()
        }
        Format::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let started = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    if started.is_ok() {
        // `try_init` succeeds once per process.
        drop(FILTER.set(handle));
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string);
            let why = panic.payload_as_str();
            tracing::error!(place, why, "internal error: please report it");
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_level_is_one_level_or_a_list_of_targets() {
        for good in ["info", "warn", "certvigil=debug,warn", "OFF"] {
            assert!(check_level(good).is_ok(), "{good}");
        }
        for bad in ["certvigil=loud", "inof", "", "info,certvigil"] {
            assert!(check_level(bad).is_err(), "{bad}");
        }
    }
}
