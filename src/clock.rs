//! The only place that reads the wall clock.
//!
//! Callers pass a [`Clock`] or `now`, so that tests can simulate a year and the time does not
//! change during a decision. A lint (`.clippy.toml`) enforces this.

use chrono::{DateTime, SubsecRound, Utc};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use crate::domain::skew::Synchronization;

/// Present while systemd-timesyncd has synchronized the clock (systemd-timesyncd.service(8)).
const TIMESYNCD: &str = "/run/systemd/timesync/synchronized";

/// A source of the current time.
#[derive(Clone, Debug)]
pub enum Clock {
    System,
    /// Set by tests, in Unix milliseconds.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    pub fn manual(at: DateTime<Utc>) -> Clock {
        Clock::Manual(Arc::new(AtomicI64::new(at.timestamp_millis())))
    }

    /// Sets a manual clock; does not change the system clock.
    pub fn set(&self, at: DateTime<Utc>) {
        if let Clock::Manual(millis) = self {
            millis.store(at.timestamp_millis(), Ordering::SeqCst);
        }
    }

    /// The current time in milliseconds, the precision of the database.
    #[allow(clippy::disallowed_methods)]
    pub fn now(&self) -> DateTime<Utc> {
        match self {
            Clock::System => Utc::now().trunc_subsecs(3),
            Clock::Manual(millis) => {
                let millis = millis.load(Ordering::SeqCst);
                DateTime::from_timestamp_millis(millis).unwrap_or_default()
            }
        }
    }
}

/// Whether the clock is synchronized, according to the kernel or, if a system call filter blocks
/// adjtimex(2), to systemd-timesyncd.
pub fn synchronization() -> Synchronization {
    match kernel_clock_is_synchronized() {
        Some(true) => Synchronization::Synchronized,
        Some(false) => Synchronization::Unsynchronized,
        None if Path::new(TIMESYNCD).exists() => Synchronization::Synchronized,
        None => Synchronization::Unknown,
    }
}

/// The kernel's state (adjtimex(2)); `None` if the call fails.
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
