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
    /// The `cursor` of the next page; null where this is the last one.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page of at most `limit`, of a list that may have one more.
    pub fn of(mut data: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Page<T> {
        let more = data.len() > limit;
        data.truncate(limit);
        let next_cursor = data.last().filter(|_| more).map(cursor);
        Page { data, next_cursor }
    }
}

/// Why nothing is said, and until when.
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
    pub why: String,
}

impl From<&unreadable::Unreadable> for Unreadable {
    fn from(one: &unreadable::Unreadable) -> Unreadable {
        Unreadable { since: seconds(one.since), why: one.why.as_ref().to_owned() }
    }
}

/// A project in which a certificate is active.
#[derive(Serialize, ToSchema)]
pub struct ProjectOfCertificate {
    pub id: String,
    pub name: Option<String>,
    /// The certificate that takes over here.
    pub successor_id: Option<String>,
    /// From when it has no valid certificate left; null where there is a successor, and where that is not known.
    pub uncovered_from: Option<DateTime<Utc>>,
    /// The next step here; null if there is none.
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
    /// The scheduled moment that it stands for.
    pub tick: DateTime<Utc>,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    /// Whether the list of projects, every selected project's list and the organization's list were read to their
    /// ends.
    pub complete: bool,
    pub projects_read: usize,
    pub projects_unreadable: usize,
    pub certificates: usize,
    /// Requests to the Admin API, retries included.
    pub requests: u64,
    /// What could not be read, and why; at most 50 of `faults_total`.
    pub faults: Vec<String>,
    pub faults_total: usize,
    /// How far the API's clock was ahead of this machine's, where that is more than may be.
    pub clock_skew_seconds: Option<i64>,
}

/// An instant to the second, as everything that is told.
pub fn seconds(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(0)
}
