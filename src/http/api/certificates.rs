//! Certificates: each once, whatever the number of projects; and one with all that is decided about
//! it.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{Shared, changes, problem::Problem, standing::CertificateRow},
    model::{Page, ProjectOfCertificate, Silence, seconds},
    request::{Asked, Named, limit, place},
};
use crate::domain::{
    certificate::LifeFrom,
    explain::{AlertStatus, NotifierOutlook, Rung},
    notification::{Event, Reason},
    rotation::RotationStep,
    status::Status,
    threshold::Severity,
};

/// Which certificates.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
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

/// A certificate in its current state.
#[derive(Serialize, ToSchema)]
pub struct Certificate {
    organization: String,
    id: String,
    name: Option<String>,
    status: Status,
    /// Severity of its stage; null if it is in none or ignored.
    severity: Option<Severity>,
    /// The tightest threshold it has reached, `expired`, or the name of its state.
    stage: Option<String>,
    valid_at: Option<DateTime<Utc>>,
    /// Null if the API does not report it.
    expires_at: Option<DateTime<Utc>>,
    /// Negative if it has expired.
    expires_in_seconds: Option<i64>,
    active_in: ActiveIn,
    /// The successor in most projects.
    successor: Option<Successor>,
    /// Whether every project where it is active has a successor.
    replaced: bool,
    /// The next step of its rotation, if it is in a stage or left over.
    next_step: Option<RotationStep>,
    /// Whether the latest scan could not read a list that contains it: it may have changed.
    stale: bool,
    ignored: Option<Silence>,
    acknowledged: Option<Silence>,
}

/// Where a certificate is active.
#[derive(Serialize, ToSchema)]
struct ActiveIn {
    /// Active for the organization and therefore in every project.
    organization: bool,
    projects_total: usize,
    projects_without_successor: usize,
    /// At most 50 of `projects_total`; those that lose coverage first come first.
    projects: Vec<ProjectOfCertificate>,
}

/// The certificate that takes over.
#[derive(Serialize, ToSchema)]
struct Successor {
    id: String,
    name: Option<String>,
    expires_at: Option<DateTime<Utc>>,
    covers_every_project: bool,
}

impl Certificate {
    fn of(row: &CertificateRow, now: DateTime<Utc>) -> Certificate {
        let view = &row.view;
        Certificate {
            organization: row.organization.to_string(),
            id: view.id.to_string(),
            name: view.name.as_ref().map(ToString::to_string),
            status: row.status,
            severity: row.severity,
            stage: row.stage.clone(),
            valid_at: view.valid_at.map(seconds),
            expires_at: view.expires_at.map(seconds),
            expires_in_seconds: view.expires_at.map(|at| (at - now).num_seconds()),
            active_in: ActiveIn {
                organization: view.active_in.organization,
                projects_total: view.active_in.projects_total,
                projects_without_successor: row.left_alone(),
                projects: view.active_in.projects.iter().map(Into::into).collect(),
            },
            successor: row.successor.as_ref().map(|one| Successor {
                id: one.id.to_string(),
                name: one.name.as_ref().map(ToString::to_string),
                expires_at: one.expires_at.map(seconds),
                covers_every_project: one.covers_every_project,
            }),
            replaced: row.replaced,
            next_step: view.next,
            stale: row.stale,
            ignored: view.ignored.as_ref().map(Into::into),
            acknowledged: view.acknowledged.as_ref().map(Into::into),
        }
    }
}

/// Every known certificate, ordered by organization and id.
#[utoipa::path(
    get,
    path = "/api/v1/certificates",
    operation_id = "listCertificates",
    tag = "certificates",
    params(Wanted),
    responses(
        (status = 200, description = "A page of certificates", body = Page<Certificate>),
        (status = "default", description = "The error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(shared): State<Shared>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Page<Certificate>>, Problem> {
    let limit = limit(wanted.limit)?;
    if let Some(name) = &wanted.organization {
        changes::organization(&shared, name)?;
    }
    let after = wanted.cursor.as_deref().map(place).transpose()?;
    let snapshot = shared.keeper.snapshot().await?;
    let text = wanted.q.as_deref().map(str::to_lowercase);
    let mut found: Vec<&CertificateRow> = Vec::new();
    for standing in &snapshot.organizations {
        let rows = standing.certificates.iter().filter(|row| {
            wanted.organization.as_deref().is_none_or(|name| row.organization.as_str() == name)
                && wanted.status.is_none_or(|status| row.status == status)
                && wanted.severity.is_none_or(|severity| row.severity == Some(severity))
                && text.as_deref().is_none_or(|text| row.has(text))
                && after
                    .is_none_or(|after| (row.organization.as_str(), row.view.id.as_str()) > after)
        });
        found.extend(rows);
    }
    found.sort_by_key(|row| (row.organization.as_str(), row.view.id.as_str()));
    let data = found.iter().take(limit + 1);
    let data = data.map(|row| Certificate::of(row, snapshot.now)).collect();
    Ok(Json(Page::of(data, limit, |last| format!("{}:{}", last.organization, last.id))))
}

/// A certificate with its thresholds, its silences and its alerts.
#[derive(Serialize, ToSchema)]
pub struct Explained {
    #[serde(flatten)]
    certificate: Certificate,
    created_at: Option<DateTime<Utc>>,
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

/// A threshold.
#[derive(Serialize, ToSchema)]
struct Step {
    stage: String,
    /// Time at which it is reached; null if the expiry is unknown.
    at: Option<DateTime<Utc>>,
    severity: Severity,
    repeat_seconds: Option<i64>,
    reached: bool,
}

impl From<&Rung> for Step {
    fn from(rung: &Rung) -> Step {
        Step {
            stage: rung.label.clone(),
            at: rung.at.map(seconds),
            severity: rung.severity,
            repeat_seconds: rung.repeat.map(|repeat| repeat.num_seconds()),
            reached: rung.reached,
        }
    }
}

/// How a notifier is alerted of a certificate.
#[derive(Serialize, ToSchema)]
struct Notifier {
    name: String,
    /// Whether it is alerted now, or why not.
    status: AlertStatus,
    /// The latest alert that it was sent and that is not resolved.
    sent: Option<Told>,
    /// The next alerts, if nothing changes.
    upcoming: Vec<Coming>,
}

/// An alert that was sent.
#[derive(Serialize, ToSchema)]
struct Told {
    stage: String,
    severity: Severity,
    at: DateTime<Utc>,
}

/// A future alert.
#[derive(Serialize, ToSchema)]
struct Coming {
    at: DateTime<Utc>,
    event: Event,
    reason: Option<Reason>,
    stage: Option<String>,
    severity: Severity,
    /// Number of repeats within the time that is looked ahead.
    repeats: usize,
    last_repeat_at: Option<DateTime<Utc>>,
}

impl From<&NotifierOutlook> for Notifier {
    fn from(outlook: &NotifierOutlook) -> Notifier {
        Notifier {
            name: outlook.notifier.clone(),
            status: outlook.status,
            sent: outlook.sent.as_ref().map(|told| Told {
                stage: told.label.clone(),
                severity: told.severity,
                at: seconds(told.at),
            }),
            upcoming: outlook
                .upcoming
                .iter()
                .map(|coming| Coming {
                    at: seconds(coming.at),
                    event: coming.event,
                    reason: coming.reason,
                    stage: coming.stage.clone(),
                    severity: coming.severity,
                    repeats: coming.repeats,
                    last_repeat_at: coming.last_repeat.map(seconds),
                })
                .collect(),
        }
    }
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
        ladder_of_rule: explanation.ladder_of_rule,
        ignored_by_rule: explanation.ignored_by_rule,
        lifetime_from: explanation.life.map(|(_, from)| from),
        ladder: explanation.ladder.iter().map(Into::into).collect(),
        notifiers: explanation.notifiers.iter().map(Into::into).collect(),
    }))
}
