//! The only place that reads the wall clock.
//!
//! Everything else is given `now`, so that a year can be walked in a test and a step of the clock
//! in the middle of a decision cannot happen. Linting (`.clippy.toml`) keeps it so.

use chrono::{DateTime, SubsecRound, Utc};

/// The current instant, cut to milliseconds, which is what the state keeps.
#[allow(clippy::disallowed_methods)]
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(3)
}
