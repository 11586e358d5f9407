//! The only place that reads the wall clock.
//!
//! Everything else is given `now`, so that a year can be walked in a test and a step of the clock
//! in the middle of a decision cannot happen. Linting (`.clippy.toml`) keeps it so.

use chrono::{DateTime, SubsecRound, Utc};
use std::path::Path;

use crate::domain::skew::Synchronization;

/// Present while systemd-timesyncd has synchronized the clock (systemd-timesyncd.service(8)).
const TIMESYNCD: &str = "/run/systemd/timesync/synchronized";

/// The current instant, cut to milliseconds, which is what the state keeps.
#[allow(clippy::disallowed_methods)]
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(3)
}

/// Whether the operating system calls the clock synchronized: by the kernel, and where certvigil may not ask it (a
/// system call filter), by systemd-timesyncd.
pub fn synchronization() -> Synchronization {
    match kernel_clock_is_synchronized() {
        Some(true) => Synchronization::Synchronized,
        Some(false) => Synchronization::Unsynchronized,
        None if Path::new(TIMESYNCD).exists() => Synchronization::Synchronized,
        None => Synchronization::Unknown,
    }
}

/// The kernel's own state (adjtimex(2)); `None` if it does not tell.
#[cfg(target_os = "linux")]
fn kernel_clock_is_synchronized() -> Option<bool> {
    /// "The system clock is not synchronized to a reliable server."
    const TIME_ERROR: i32 = 5;
    let state = rtime_clock::adjtime::adjtimex(&mut rtime_clock::adjtime::Timex::new()).ok()?;
    Some(state != TIME_ERROR)
}

#[cfg(not(target_os = "linux"))]
fn kernel_clock_is_synchronized() -> Option<bool> {
    None
}
