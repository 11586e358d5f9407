//! Version, commit and time of this build.

use chrono::{DateTime, Utc};

/// The version, with commit and date if known.
pub const VERSION: &str = env!("CERTVIGIL_VERSION");
/// The commit hash, or `unknown`.
pub const COMMIT: &str = env!("CERTVIGIL_COMMIT");

/// The time of the commit; if unknown, of the general availability of mutual TLS (2026-08-29). A
/// correct clock is never earlier.
pub fn built_at() -> DateTime<Utc> {
    let seconds = env!("CERTVIGIL_BUILT_AT").parse().unwrap_or(1_787_961_600);
    DateTime::from_timestamp(seconds, 0).unwrap_or_default()
}
