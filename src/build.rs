//! What this program was built from.

use chrono::{DateTime, Utc};

/// The version, with the commit and its day where they are known.
pub const VERSION: &str = env!("CERTVIGIL_VERSION");
/// The commit, or `unknown`.
pub const COMMIT: &str = env!("CERTVIGIL_COMMIT");

/// The instant of the commit, or else of the general availability of mutual TLS (2026-08-29): no real time is earlier.
pub fn built_at() -> DateTime<Utc> {
    let seconds = env!("CERTVIGIL_BUILT_AT").parse().unwrap_or(1_787_961_600);
    DateTime::from_timestamp(seconds, 0).unwrap_or_default()
}
