use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::seconds;
use crate::domain::scan::ScanRecord;

/// Maximum number of faults that a scan lists.
const MAX_FAULTS: usize = 50;

/// A scan.
#[derive(Serialize, ToSchema)]
pub struct Scan {
    pub id: Uuid,
    pub organization: String,
    /// The scheduled time of the scan.
    pub scheduled_at: DateTime<Utc>,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    /// Whether the list of projects, the list of every selected project and that of the
    /// organization were read completely.
    pub complete: bool,
    pub projects_read: usize,
    pub projects_unreadable: usize,
    pub certificates: usize,
    /// Requests to the Admin API, including retries.
    pub requests: u64,
    /// Unreadable lists with the error; at most 50 of `faults_total`.
    pub faults: Vec<String>,
    pub faults_total: usize,
    /// Seconds by which the API's clock was ahead of this host's clock, if more than five minutes.
    pub clock_skew_seconds: Option<i64>,
}

impl From<&ScanRecord> for Scan {
    fn from(record: &ScanRecord) -> Scan {
        Scan {
            id: record.id,
            organization: record.organization.to_string(),
            scheduled_at: seconds(record.tick),
            started_at: seconds(record.started_at),
            finished_at: seconds(record.finished_at),
            complete: record.complete,
            projects_read: record.projects_read,
            projects_unreadable: record.projects_unreadable,
            certificates: record.certificates,
            requests: record.requests,
            faults: record.faults.iter().take(MAX_FAULTS).cloned().collect(),
            faults_total: record.faults.len(),
            clock_skew_seconds: record.clock_skew.map(|skew| skew.num_seconds()),
        }
    }
}
