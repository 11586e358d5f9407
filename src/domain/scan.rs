//! The record of one scan.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::certificate::OrganizationName;

/// The times and the results of a scan.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanRecord {
    pub id: Uuid,
    pub organization: OrganizationName,
    /// The scheduled time of the scan.
    pub tick: DateTime<Utc>,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub complete: bool,
    pub projects_read: usize,
    pub projects_unreadable: usize,
    pub certificates: usize,
    pub requests: u64,
    /// The unreadable lists with their errors.
    pub faults: Vec<String>,
    /// Seconds by which the API's clock was ahead of this host's clock, if more than five minutes.
    pub clock_skew: Option<TimeDelta>,
}

impl ScanRecord {
    /// How far the API's clock is ahead of this host's; zero if it is close, or if this host's
    /// clock was set back since.
    pub fn skew(&self, now: DateTime<Utc>) -> TimeDelta {
        self.clock_skew.filter(|_| self.finished_at <= now).unwrap_or_default()
    }

    /// Whether at least part of the organization was read.
    pub fn has_read(&self) -> bool {
        self.complete || self.projects_read > 0
    }
}
