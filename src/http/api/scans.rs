//! Scans: their results, and requesting one.

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    super::{Shared, changes, problem::Problem},
    page::Page,
    request::{Params, limit},
};
use crate::view::Scan;

/// The filters of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Of one configured organization
    organization: Option<String>,
    /// Maximum number of entries
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the previous page
    cursor: Option<Uuid>,
}

/// Stored scans, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/scans",
    operation_id = "listScans",
    tag = "scans",
    params(ListParams),
    responses(
        (status = 200, description = "A page of scans", body = Page<Scan>),
        (status = "default", description = "The error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(shared): State<Shared>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Scan>>, Problem> {
    let limit = limit(params.limit)?;
    let organization = match &params.organization {
        Some(name) => Some(changes::organization(&shared, name)?.0),
        None => None,
    };
    let rows = shared.reading.scans(organization.as_ref(), params.cursor, limit as u32 + 1).await?;
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
