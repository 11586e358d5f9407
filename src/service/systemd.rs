//! Notifications to systemd (`sd_notify(3)`), if it listens.

use sd_notify::{NotifyState, notify};

/// Started, or reloaded.
pub fn ready() {
    say(&[NotifyState::Ready]);
}

/// A reload starts; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "cannot read the monotonic clock"),
    }
}

pub fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// The status line.
pub fn status(line: &str) {
    say(&[NotifyState::Status(line)]);
}

/// Feeds the watchdog.
pub fn alive() {
    if sd_notify::watchdog_enabled().is_some() {
        say(&[NotifyState::Watchdog]);
    }
}

/// Does nothing without a service manager.
fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = notify(states) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}
