//! Projects with their coverage.

use axum::{Json, extract::State};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    super::{Shared, changes, problem::Problem},
    page::Page,
    request::{Params, limit, place},
};
use crate::view::{Coverage, Project};

/// The filters of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
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

/// Every watched project, ordered by organization and id.
#[utoipa::path(
    get,
    path = "/api/v1/projects",
    operation_id = "listProjects",
    tag = "projects",
    params(ListParams),
    responses(
        (status = 200, description = "A page of projects", body = Page<Project>),
        (status = "default", description = "The error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(shared): State<Shared>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Project>>, Problem> {
    let limit = limit(params.limit)?;
    if let Some(name) = &params.organization {
        changes::organization(&shared, name)?;
    }
    let after = params.cursor.as_deref().map(place).transpose()?;
    let snapshot = shared.keeper.snapshot().await?;
    let text = params.q.as_deref().map(str::to_lowercase);
    let all = snapshot.organizations.iter().flat_map(|overview| &overview.projects);
    let mut found: Vec<&Project> = all
        .filter(|row| {
            params.organization.as_deref().is_none_or(|name| row.organization.as_str() == name)
                && params.coverage.is_none_or(|coverage| row.coverage == coverage)
                && params.unreadable.is_none_or(|is| row.unreadable.is_some() == is)
                && text.as_deref().is_none_or(|text| row.has(text))
                && after.is_none_or(|after| (row.organization.as_str(), row.id.as_str()) > after)
        })
        .collect();
    found.sort_by_key(|row| (row.organization.as_str(), row.id.as_str()));
    let data = found.into_iter().take(limit + 1).cloned().collect();
    Ok(Json(Page::of(data, limit, |last: &Project| format!("{}:{}", last.organization, last.id))))
}
