//! Certificates: each once, whatever the number of projects; and one with all that is decided about it.

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{Shared, changes, explained, problem::Problem, standing::CertificateRow},
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
    /// How they stand
    #[param(inline)]
    status: Option<Status>,
    /// Of the stage that they are in
    #[param(inline)]
    severity: Option<Severity>,
    /// A part of the id or the name, in any case
    q: Option<String>,
    /// How many entries at most
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the page before
    #[param(pattern = "^[^:]*:.*$")]
    cursor: Option<String>,
}

/// A certificate, as it stands now.
#[derive(Serialize, ToSchema)]
pub struct Certificate {
    organization: String,
    id: String,
    name: Option<String>,
    status: Status,
    /// Of the stage that it is in; null where it is in none, and where it is ignored.
    severity: Option<Severity>,
    /// The tightest threshold that it has reached, `expired`, or the name of the state.
    stage: Option<String>,
    valid_at: Option<DateTime<Utc>>,
    /// Null where the API does not say.
    expires_at: Option<DateTime<Utc>>,
    /// Negative where it has expired.
    expires_in_seconds: Option<i64>,
    active_in: ActiveIn,
    /// What takes over in most projects.
    successor: Option<Successor>,
    /// Every project where it is active has a successor.
    replaced: bool,
    /// The next step of its rotation, if it is in a stage or left over.
    next_step: Option<RotationStep>,
    /// The latest scan could not read a list that names it, so it may have changed.
    stale: bool,
    ignored: Option<Silence>,
    acknowledged: Option<Silence>,
}

/// Where a certificate is active.
#[derive(Serialize, ToSchema)]
struct ActiveIn {
    /// For the organization, and so in every project.
    organization: bool,
    projects_total: usize,
    projects_without_successor: usize,
    /// Those that are left without a valid certificate first come first; at most 50 of `projects_total`.
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

/// The certificates that are known, in the order of organization and id.
#[utoipa::path(
    get,
    path = "/api/v1/certificates",
    tag = "certificates",
    params(Wanted),
    responses(
        (status = 200, description = "A page of them", body = Page<Certificate>),
        (status = "default", description = "Why it could not be done", body = Problem, content_type = "application/problem+json"),
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

/// A certificate with all that is decided about it.
#[derive(Serialize, ToSchema)]
pub struct Explained {
    #[serde(flatten)]
    certificate: Certificate,
    created_at: Option<DateTime<Utc>>,
    /// Its place in `[[rules]]`, from 0, where a rule gives its ladder.
    ladder_of_rule: Option<usize>,
    ignored_by_rule: Option<usize>,
    /// What its life was counted from, where the ladder has shares of it.
    #[schema(value_type = Option<String>)]
    life_from: Option<LifeFrom>,
    /// From the widest step to its end.
    ladder: Vec<Step>,
    notifiers: Vec<Notifier>,
}

/// A step of the ladder.
#[derive(Serialize, ToSchema)]
struct Step {
    label: String,
    /// When it is reached; null where the expiry is not known.
    at: Option<DateTime<Utc>>,
    severity: Severity,
    repeat_seconds: Option<i64>,
    reached: bool,
}

impl From<&Rung> for Step {
    fn from(rung: &Rung) -> Step {
        Step {
            label: rung.label.clone(),
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
    /// How often it is repeated after that, as far as is looked ahead.
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

/// One certificate: why it did or did not alert, and what comes next.
#[utoipa::path(
    get,
    path = "/api/v1/certificates/{organization}/{id}",
    tag = "certificates",
    params(
        ("organization" = String, Path, description = "The name of the organization"),
        ("id" = String, Path, description = "The id of the certificate"),
    ),
    responses(
        (status = 200, description = "The certificate", body = Explained),
        (status = "default", description = "Why it could not be done", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn show(
    State(shared): State<Shared>,
    Named((organization, id)): Named<(String, String)>,
) -> Result<Json<Explained>, Problem> {
    let snapshot = shared.keeper.snapshot().await?;
    let (_, row) = snapshot.certificate(&organization, &id)?;
    let explained = explained::explain(&shared, row, snapshot.now).await?;
    let explanation = &explained.explanation;
    Ok(Json(Explained {
        certificate: Certificate::of(row, snapshot.now),
        created_at: explanation.created_at.map(seconds),
        ladder_of_rule: explanation.ladder_of_rule,
        ignored_by_rule: explanation.ignored_by_rule,
        life_from: explanation.life.map(|(_, from)| from),
        ladder: explanation.ladder.iter().map(Into::into).collect(),
        notifiers: explanation.notifiers.iter().map(Into::into).collect(),
    }))
}
