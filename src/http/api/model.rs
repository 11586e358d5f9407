//! What the answers are made of.

use chrono::{DateTime, SubsecRound, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::{
    notification::{self, SilenceView},
    rotation::RotationStep,
    unreadable,
};

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// The `cursor` of the next page; null on the last page.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Cuts a list of up to `limit + 1` entries into a page of at most `limit`.
    pub fn of(mut data: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Page<T> {
        let more = data.len() > limit;
        data.truncate(limit);
        let next_cursor = data.last().filter(|_| more).map(cursor);
        Page { data, next_cursor }
    }
}

/// The reason and the end of a silence.
#[derive(Serialize, ToSchema)]
pub struct Silence {
    pub reason: String,
    pub by: Option<String>,
    pub until: DateTime<Utc>,
}

impl From<&SilenceView> for Silence {
    fn from(view: &SilenceView) -> Silence {
        Silence { reason: view.reason.clone(), by: view.by.clone(), until: seconds(view.until) }
    }
}

/// A list that could not be read in the latest scan.
#[derive(Serialize, ToSchema)]
pub struct Unreadable {
    pub since: DateTime<Utc>,
    pub error: String,
}

impl From<&unreadable::Unreadable> for Unreadable {
    fn from(one: &unreadable::Unreadable) -> Unreadable {
        Unreadable { since: seconds(one.since), error: one.why.as_ref().to_owned() }
    }
}

/// A project in which a certificate is active.
#[derive(Serialize, ToSchema)]
pub struct ProjectOfCertificate {
    pub id: String,
    pub name: Option<String>,
    /// The certificate that takes over in this project.
    pub successor_id: Option<String>,
    /// Start of the time without a valid certificate; null if there is a successor, or if it is
    /// unknown.
    pub uncovered_from: Option<DateTime<Utc>>,
    /// The next rotation step in this project, if any.
    pub next_step: Option<RotationStep>,
    /// The certificate to activate, if that is the next step.
    pub candidate_id: Option<String>,
}

impl From<&notification::ProjectView> for ProjectOfCertificate {
    fn from(view: &notification::ProjectView) -> ProjectOfCertificate {
        ProjectOfCertificate {
            id: view.id.to_string(),
            name: view.name.as_ref().map(ToString::to_string),
            successor_id: view.successor_id.as_ref().map(ToString::to_string),
            uncovered_from: view.uncovered_from.map(seconds),
            next_step: view.next,
            candidate_id: view.candidate.as_ref().map(|one| one.id.to_string()),
        }
    }
}

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

/// A time truncated to seconds, as in notifications.
pub fn seconds(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(0)
}
