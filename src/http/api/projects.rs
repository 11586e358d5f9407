//! Projects, and until when each has a valid certificate.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        Shared, changes,
        problem::Problem,
        standing::{Coverage, ProjectRow},
    },
    model::{Page, Unreadable, seconds},
    request::{Asked, limit, place},
};
use crate::domain::threshold::Severity;

/// Which projects.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Of one organization
    organization: Option<String>,
    /// By state
    #[param(inline)]
    coverage: Option<Coverage>,
    /// Only projects whose list the latest scan could not read
    unreadable: Option<bool>,
    /// Part of the id or name; case is ignored
    q: Option<String>,
    /// Maximum number of entries
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the previous page
    #[param(pattern = "^[^:]*:.*$")]
    cursor: Option<String>,
}

/// A project.
#[derive(Serialize, ToSchema)]
pub struct Project {
    organization: String,
    id: String,
    name: Option<String>,
    coverage: Coverage,
    /// Severity of the end of its coverage, or of having no active certificate; null if no
    /// threshold is reached, or if it is ignored.
    severity: Option<Severity>,
    /// Start of the time without a valid certificate, past or future; null if unknown.
    uncovered_from: Option<DateTime<Utc>>,
    /// Time since which no certificate is active; null if one is, or if none was ever seen.
    unprotected_since: Option<DateTime<Utc>>,
    /// The certificate whose expiry ends, or ended, its coverage.
    ended_by: Option<String>,
    /// Number of active certificates, its own and inherited.
    certificates: usize,
    /// The error, if the latest scan could not read its list.
    unreadable: Option<Unreadable>,
    /// Time of the last complete read of its list; null if there was none.
    read_at: Option<DateTime<Utc>>,
}

impl From<&ProjectRow> for Project {
    fn from(row: &ProjectRow) -> Project {
        Project {
            organization: row.organization.to_string(),
            id: row.project.id.to_string(),
            name: row.project.name.as_ref().map(ToString::to_string),
            coverage: row.coverage,
            severity: row.severity,
            uncovered_from: row.uncovered_from.map(seconds),
            unprotected_since: row.unprotected_since.map(seconds),
            ended_by: row.ended_by.as_ref().map(ToString::to_string),
            certificates: row.certificates,
            unreadable: row.unreadable.as_ref().map(Into::into),
            read_at: row.read_at.map(seconds),
        }
    }
}

/// Every watched project, ordered by organization and id.
#[utoipa::path(
    get,
    path = "/api/v1/projects",
    operation_id = "listProjects",
    tag = "projects",
    params(Wanted),
    responses(
        (status = 200, description = "A page of projects", body = Page<Project>),
        (status = "default", description = "The error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(shared): State<Shared>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Page<Project>>, Problem> {
    let limit = limit(wanted.limit)?;
    if let Some(name) = &wanted.organization {
        changes::organization(&shared, name)?;
    }
    let after = wanted.cursor.as_deref().map(place).transpose()?;
    let snapshot = shared.keeper.snapshot().await?;
    let text = wanted.q.as_deref().map(str::to_lowercase);
    let all = snapshot.organizations.iter().flat_map(|standing| &standing.projects);
    let mut found: Vec<&ProjectRow> = all
        .filter(|row| {
            wanted.organization.as_deref().is_none_or(|name| row.organization.as_str() == name)
                && wanted.coverage.is_none_or(|coverage| row.coverage == coverage)
                && wanted.unreadable.is_none_or(|is| row.unreadable.is_some() == is)
                && text.as_deref().is_none_or(|text| row.has(text))
                && after.is_none_or(|after| {
                    (row.organization.as_str(), row.project.id.as_str()) > after
                })
        })
        .collect();
    found.sort_by_key(|row| (row.organization.as_str(), row.project.id.as_str()));
    let data = found.into_iter().take(limit + 1).map(Into::into).collect();
    Ok(Json(Page::of(data, limit, |last: &Project| format!("{}:{}", last.organization, last.id))))
}
