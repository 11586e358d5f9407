//! Lists that could not be read, or whose content needs confirmation.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How long an absence must last before it counts: a scan after this time must confirm it.
pub const CONFIRM_AFTER: TimeDelta = TimeDelta::minutes(5);

/// Why a list could not be read in one scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// Shared, because thousands of lists fail alike if the API is down.
    pub why: Arc<str>,
    pub cause: Cause,
}

/// The kind of failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    #[default]
    Failed,
    /// The API rejected the admin key (401 or 403).
    Refused,
    /// The list had items before, and has none now.
    Emptied,
    /// The list of projects no longer names the project, and the API answers 404 for it.
    Missing,
}

impl Cause {
    /// Whether a later scan must confirm it.
    pub fn needs_confirmation(self) -> bool {
        matches!(self, Cause::Emptied | Cause::Missing)
    }
}

impl From<String> for ReadError {
    fn from(why: String) -> ReadError {
        ReadError { why: why.into(), cause: Cause::Failed }
    }
}

impl From<&str> for ReadError {
    fn from(why: &str) -> ReadError {
        ReadError { why: why.into(), cause: Cause::Failed }
    }
}

/// The error of a list in the latest scan, and the time of its first failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    pub since: DateTime<Utc>,
    pub why: Arc<str>,
    #[serde(default)]
    pub cause: Cause,
}

impl Unreadable {
    /// Combines a failure with the one of the previous scan.
    pub fn after(before: Option<&Unreadable>, error: ReadError, now: DateTime<Utc>) -> Unreadable {
        // An absence counts from its first scan, not from an earlier failure of another kind.
        let same = before
            .filter(|before| !error.cause.needs_confirmation() || before.cause == error.cause);
        // A time after `now` comes from a clock that was ahead.
        let since = same.map_or(now, |before| before.since.min(now));
        Unreadable { since, why: error.why, cause: error.cause }
    }

    /// Whether an absence that this reading found is confirmed by a scan at `now`.
    pub fn confirms(&self, cause: Cause, confirm_after: TimeDelta, now: DateTime<Utc>) -> bool {
        self.cause == cause && now - self.since >= confirm_after
    }
}
