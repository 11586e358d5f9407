//! Certificates: a list with one entry for each, and the details and alerts of one.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{Shared, changes, problem::Problem},
    page::Page,
    request::{Named, Params, limit, place},
};
use crate::{
    domain::{certificate::LifeFrom, status::Status, threshold::Severity},
    view::{Certificate, CertificateRow, Notifier, Step, seconds},
};

/// The filters of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Of one organization
    organization: Option<String>,
    /// By state
    #[param(inline)]
    status: Option<Status>,
    /// By severity of the current stage
    #[param(inline)]
    severity: Option<Severity>,
    /// Part of the id or name; case is ignored
    q: Option<String>,
    /// Maximum number of entries
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the previous page
    #[param(pattern = "^[^:]*:.*$")]
    cursor: Option<String>,
}

/// Every known certificate, ordered by organization and id.
#[utoipa::path(
    get,
    path = "/api/v1/certificates",
    operation_id = "listCertificates",
    tag = "certificates",
    params(ListParams),
    responses(
        (status = 200, description = "A page of certificates", body = Page<Certificate>),
        (status = "default", description = "The error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(shared): State<Shared>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Certificate>>, Problem> {
    let limit = limit(params.limit)?;
    if let Some(name) = &params.organization {
        changes::organization(&shared, name)?;
    }
    let after = params.cursor.as_deref().map(place).transpose()?;
    let snapshot = shared.keeper.snapshot().await?;
    let text = params.q.as_deref().map(str::to_lowercase);
    let mut found: Vec<&CertificateRow> = Vec::new();
    for overview in &snapshot.organizations {
        let rows = overview.certificates.iter().filter(|row| {
            params.organization.as_deref().is_none_or(|name| row.organization.as_str() == name)
                && params.status.is_none_or(|status| row.status == status)
                && params.severity.is_none_or(|severity| row.severity == Some(severity))
                && text.as_deref().is_none_or(|text| row.has(text))
                && after
                    .is_none_or(|after| (row.organization.as_str(), row.view.id.as_str()) > after)
        });
        found.extend(rows);
    }
    found.sort_by_key(|row| (row.organization.as_str(), row.view.id.as_str()));
    let data = found.iter().take(limit + 1);
    let data = data.map(|row| Certificate::of(row, snapshot.now)).collect();
    Ok(Json(Page::of(data, limit, |last| format!("{}:{}", last.organization, last.details.id))))
}

/// A certificate with its thresholds, its silences and its alerts.
#[derive(Serialize, ToSchema)]
pub struct Explained {
    #[serde(flatten)]
    certificate: Certificate,
    created_at: Option<DateTime<Utc>>,
    /// Why its content could not be read.
    content_error: Option<String>,
    /// Index in `[[rules]]`, from 0, of the rule that sets its thresholds.
    ladder_of_rule: Option<usize>,
    ignored_by_rule: Option<usize>,
    /// Start of its lifetime, if a threshold is a share of it.
    #[schema(value_type = Option<String>)]
    lifetime_from: Option<LifeFrom>,
    /// From the widest threshold to the expiry.
    ladder: Vec<Step>,
    notifiers: Vec<Notifier>,
}

/// Why a certificate did or did not alert, and its upcoming alerts.
#[utoipa::path(
    get,
    path = "/api/v1/certificates/{organization}/{id}",
    operation_id = "getCertificate",
    tag = "certificates",
    params(
        ("organization" = String, Path, description = "The name of the organization"),
        ("id" = String, Path, description = "The id of the certificate"),
    ),
    responses(
        (status = 200, description = "The certificate", body = Explained),
        (status = "default", description = "The error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn show(
    State(shared): State<Shared>,
    Named((organization, id)): Named<(String, String)>,
) -> Result<Json<Explained>, Problem> {
    let snapshot = shared.keeper.snapshot().await?;
    let (_, row) = snapshot.certificate(&organization, &id)?;
    let explained = shared.explain(row, snapshot.now).await?;
    let explanation = &explained.explanation;
    Ok(Json(Explained {
        certificate: Certificate::of(row, snapshot.now),
        created_at: explanation.created_at.map(seconds),
        content_error: explanation.content_failure.clone(),
        ladder_of_rule: explanation.ladder_of_rule,
        ignored_by_rule: explanation.ignored_by_rule,
        lifetime_from: explanation.life.map(|(_, from)| from),
        ladder: explanation.ladder.clone(),
        notifiers: explanation.notifiers.clone(),
    }))
}
