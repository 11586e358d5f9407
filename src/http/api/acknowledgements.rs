//! Lists, creates and withdraws acknowledgements.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    super::{Shared, changes, problem::Problem},
    page::Page,
    request::{Body, Named, Params, limit},
};
use crate::{
    domain::{
        acknowledgement::{self, Ending, NewAcknowledgement},
        certificate::OrganizationName,
        day,
        subject::Subject,
        text::one_line,
    },
    usecase::acknowledge::{self, Target},
    view::seconds,
};

/// The filters of the list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Of one configured organization
    organization: Option<String>,
    /// Include ended ones
    #[param(default = false)]
    all: Option<bool>,
    /// Maximum number of entries
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the previous page
    cursor: Option<Uuid>,
}

/// Silences a certificate, or a project that does not enforce mutual TLS.
#[derive(Serialize, ToSchema)]
pub struct Acknowledgement {
    id: Uuid,
    organization: String,
    /// The certificate's id; null for a project.
    certificate: Option<String>,
    /// The project's id; null for a certificate.
    project: Option<String>,
    reason: String,
    by: Option<String>,
    created_at: DateTime<Utc>,
    until: DateTime<Utc>,
    /// The time at which it ended, early or on its date; null while it applies.
    ended_at: Option<DateTime<Utc>>,
    /// The reason for an early end.
    ending: Option<Ending>,
}

impl Acknowledgement {
    fn of(
        organization: &OrganizationName,
        one: acknowledgement::Acknowledgement,
        now: DateTime<Utc>,
    ) -> Acknowledgement {
        let ended_at = one.ended_at(now);
        let (certificate, project) = match &one.subject {
            Subject::Certificate(id) => (Some(id.to_string()), None),
            Subject::Protection(id) => (None, Some(id.to_string())),
            Subject::Project(_)
            | Subject::Mismatch(_)
            | Subject::Fitness(_)
            | Subject::Sight
            | Subject::AdminKey(_)
            | Subject::ClientIdentity
            | Subject::Notifier(_)
            | Subject::Proof(_)
            | Subject::Drill
            | Subject::Summary => (None, None),
        };
        Acknowledgement {
            id: one.id,
            organization: organization.to_string(),
            certificate,
            project,
            reason: one.reason,
            by: one.by,
            created_at: seconds(one.created_at),
            until: seconds(one.until),
            ended_at: ended_at.map(seconds),
            ending: one.ended.map(|(_, ending)| ending),
        }
    }
}

/// The current acknowledgements, or all stored ones; newest first.
#[utoipa::path(
    get,
    path = "/api/v1/acknowledgements",
    operation_id = "listAcknowledgements",
    tag = "acknowledgements",
    params(ListParams),
    responses(
        (status = 200, description = "A page of acknowledgements", body = Page<Acknowledgement>),
        (status = "default", description = "The error", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(shared): State<Shared>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Acknowledgement>>, Problem> {
    let limit = limit(params.limit)?;
    let organizations: Vec<OrganizationName> = match &params.organization {
        Some(name) => vec![changes::organization(&shared, name)?.0],
        None => {
            let configured = shared.service.configured.borrow();
            configured.organizations.iter().map(|(name, _)| name.clone()).collect()
        }
    };
    let (now, all) = (shared.service.clock.now(), params.all.unwrap_or(false));
    let mut found = Vec::new();
    for organization in &organizations {
        let listed = acknowledge::list(&shared.reading, organization, all, now).await?;
        found.extend(listed.into_iter().map(|one| Acknowledgement::of(organization, one, now)));
    }
    // The ids begin with the time (RFC 9562, section 5.7).
    found.retain(|one| params.cursor.is_none_or(|before| one.id < before));
    found.sort_by_key(|one| std::cmp::Reverse(one.id));
    found.truncate(limit + 1);
    Ok(Json(Page::of(found, limit, |last| last.id.to_string())))
}

/// A new acknowledgement.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct New {
    /// The name of the organization.
    organization: String,
    /// The certificate's id; either this or `project`.
    certificate: Option<String>,
    /// The id of a project that does not enforce mutual TLS.
    project: Option<String>,
    /// Its end, in the future. A date means the end of that day in the configured time zone.
    #[schema(format = DateTime)]
    until: String,
    /// The reason, for other operators.
    #[schema(min_length = 1)]
    reason: String,
    /// The person who acknowledges.
    by: Option<String>,
}

/// Acknowledges a certificate (its last threshold and its expiry still alert), or a project that
/// does not enforce mutual TLS.
#[utoipa::path(
    post,
    path = "/api/v1/acknowledgements",
    operation_id = "acknowledge",
    tag = "acknowledgements",
    request_body = New,
    responses(
        (status = 201, description = "The new acknowledgement", body = Acknowledgement),
        (status = "default", description = "The error", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = [])),
)]
pub async fn acknowledge(
    State(shared): State<Shared>,
    Body(new): Body<New>,
) -> Result<(StatusCode, Json<Acknowledgement>), Problem> {
    let timezone = shared.service.configured.borrow().timezone;
    let until = day::instant(&new.until, timezone).ok_or_else(|| {
        let found = one_line(&new.until, 60);
        Problem::bad_request(format!(
            "until: found “{found}”, expected a time such as 2027-03-01T12:00:00Z, or a date \
             such as 2027-03-01"
        ))
    })?;
    let target = match (new.certificate, new.project) {
        (Some(id), None) => Target::Certificate(id),
        (None, Some(id)) => Target::Project(id),
        (None, None) => {
            return Err(Problem::bad_request("specify either certificate or project"));
        }
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request("specify either certificate or project, not both"));
        }
    };
    let request = NewAcknowledgement { id: None, until, reason: new.reason, by: new.by };
    let (organization, one) =
        changes::acknowledge(&shared, &new.organization, target, request).await?;
    let one = Acknowledgement::of(&organization, one, shared.service.clock.now());
    Ok((StatusCode::CREATED, Json(one)))
}

/// Withdraws an acknowledgement: alerts resume with the next scan.
#[utoipa::path(
    delete,
    path = "/api/v1/acknowledgements/{id}",
    operation_id = "withdrawAcknowledgement",
    tag = "acknowledgements",
    params(("id" = Uuid, Path, description = "The id of the acknowledgement")),
    responses(
        (status = 204, description = "The acknowledgement was withdrawn"),
        (status = "default", description = "The error", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = [])),
)]
pub async fn withdraw(
    State(shared): State<Shared>,
    Named(id): Named<Uuid>,
) -> Result<StatusCode, Problem> {
    changes::withdraw(&shared, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
