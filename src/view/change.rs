//! The changes of a certificate: their fields in documents, and as lines for people.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::seconds;
use crate::{
    domain::change::{self, ActorKind, ChangeKind},
    message::{ChangeView, ProjectName},
};

/// A change of a certificate.
#[derive(Serialize, ToSchema)]
pub struct Change {
    kind: ChangeKind,
    certificate_id: String,
    /// Its name at that time.
    certificate_name: Option<String>,
    at: DateTime<Utc>,
    /// Whether the audit log reports it. Otherwise, `at` is the end of the scan that noticed it.
    logged: bool,
    /// Activated or deactivated for the organization.
    organization: bool,
    /// At most 10 of `projects_total`.
    projects: Vec<ChangedIn>,
    /// 0 if it is unknown where it was activated or deactivated.
    projects_total: usize,
    /// Several if it is unknown who of them made which part of it; empty if it is unknown.
    actors: Vec<Actor>,
}

/// A project in which a certificate was activated or deactivated.
#[derive(Serialize, ToSchema)]
pub struct ChangedIn {
    id: String,
    name: Option<String>,
}

/// Who made a change, according to the audit log.
#[derive(Serialize, ToSchema)]
pub struct Actor {
    #[serde(rename = "type")]
    kind: ActorKind,
    id: String,
    /// The name of a service account, if known.
    name: Option<String>,
    /// Null without `audit_log_addresses`.
    email: Option<String>,
}

impl From<&ChangeView> for Change {
    fn from(view: &ChangeView) -> Change {
        Change {
            kind: view.kind,
            certificate_id: view.certificate.id.to_string(),
            certificate_name: view.certificate.name.as_ref().map(ToString::to_string),
            at: seconds(view.at),
            logged: view.logged,
            organization: view.organization,
            projects: view.projects.iter().map(Into::into).collect(),
            projects_total: view.projects_total,
            actors: view.actors.iter().map(Into::into).collect(),
        }
    }
}

impl From<&ProjectName> for ChangedIn {
    fn from(project: &ProjectName) -> ChangedIn {
        let name = project.name.as_ref().map(ToString::to_string);
        ChangedIn { id: project.id.to_string(), name }
    }
}

impl From<&change::Actor> for Actor {
    fn from(actor: &change::Actor) -> Actor {
        Actor {
            kind: actor.kind,
            id: actor.id.to_string(),
            name: actor.name.as_ref().map(ToString::to_string),
            email: actor.email.as_ref().map(ToString::to_string),
        }
    }
}

/// The changes as time and text.
pub fn lines(changes: &[ChangeView]) -> Vec<(DateTime<Utc>, String)> {
    let text = |one: &ChangeView| match one.logged {
        true => one.text(),
        false => format!("{} (noticed at this time)", one.text()),
    };
    changes.iter().map(|one| (one.at, text(one))).collect()
}
