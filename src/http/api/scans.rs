//! Scans: their results, and requesting one.

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    super::{Shared, changes, problem::Problem},
    model::{Page, Scan, seconds},
    request::{Asked, limit},
};
use crate::store::ScanRecord;

/// How many faults of a scan are listed.
const MAX_FAULTS: usize = 50;

/// Which scans.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Of one configured organization
    organization: Option<String>,
    /// Maximum number of entries
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the previous page
    cursor: Option<Uuid>,
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

/// Stored scans, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/scans",
    operation_id = "listScans",
    tag = "scans",
    params(Wanted),
    responses(
        (status = 200, description = "A page of scans", body = Page<Scan>),
        (status = "default", description = "The error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(shared): State<Shared>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Page<Scan>>, Problem> {
    let limit = limit(wanted.limit)?;
    let organization = match &wanted.organization {
        Some(name) => Some(changes::organization(&shared, name)?.0),
        None => None,
    };
    let rows = shared.reading.scans(organization.as_ref(), wanted.cursor, limit as u32 + 1).await?;
    let data = rows.iter().map(Into::into).collect();
    Ok(Json(Page::of(data, limit, |last: &Scan| last.id.to_string())))
}

/// The requested scans.
#[derive(Serialize, ToSchema)]
pub struct Begun {
    /// The organizations to scan, each after its scan in progress.
    organizations: Vec<String>,
}

/// Requests a scan of every organization.
#[utoipa::path(
    post,
    path = "/api/v1/scans",
    operation_id = "requestScan",
    tag = "scans",
    responses(
        (status = 202, description = "The scan was requested", body = Begun),
        (status = "default", description = "The error", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = [])),
)]
pub async fn begin(State(shared): State<Shared>) -> Result<(StatusCode, Json<Begun>), Problem> {
    changes::scan(&shared)?;
    let configured = shared.service.configured.borrow();
    let organizations = configured.organizations.iter().map(|(name, _)| name.to_string()).collect();
    Ok((StatusCode::ACCEPTED, Json(Begun { organizations })))
}
