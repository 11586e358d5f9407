//! A change of a certificate, and its words.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Named, wording};
use crate::domain::{
    certificate::ProjectId,
    change::{Actor, ActorKind, ChangeKind},
    text::Name,
};

/// The number of projects that the text of a change names.
const NAMED_PROJECTS: usize = 3;

/// A change of a certificate. See [`CertificateChange`](crate::domain::change::CertificateChange).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeView {
    pub kind: ChangeKind,
    /// With its name at that time.
    pub certificate: Named,
    pub at: DateTime<Utc>,
    /// Whether the audit log reports it. Otherwise, `at` is the scan that noticed it.
    pub logged: bool,
    /// Activated or deactivated for the organization.
    pub organization: bool,
    /// Those of `projects_total` that the notifier selects, at most 10.
    pub projects: Vec<ProjectName>,
    pub projects_total: usize,
    /// Several if it is unknown who of them made which part of it; empty if it is unknown.
    pub actors: Vec<Actor>,
}

/// The changes that one scan noticed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangesView {
    /// Latest first; at most 100 of `total`.
    pub listed: Vec<ChangeView>,
    pub total: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProjectName {
    pub id: ProjectId,
    pub name: Option<Name>,
}

impl ProjectName {
    fn title(&self) -> &str {
        self.name.as_ref().map_or(self.id.as_str(), Name::as_str)
    }
}

impl ChangeView {
    /// `activated in chat by the service account “terraform”`.
    pub fn text(&self) -> String {
        let details = self.details();
        let space = if details.is_empty() { "" } else { " " };
        format!("{}{space}{details}", self.kind)
    }

    /// `“prod-ca” was activated in chat by the service account “terraform”`.
    pub fn headline(&self) -> String {
        let renamed = self.kind == ChangeKind::Renamed;
        let name = self.certificate.name.as_ref().filter(|_| !renamed);
        let title = match name {
            Some(name) => format!("“{name}”"),
            None => format!("certificate {}", self.certificate.id),
        };
        format!("{title} was {}", self.text())
    }

    /// `in chat by the service account “terraform”`; empty if nothing is known.
    pub fn details(&self) -> String {
        let renamed = self.certificate.name.as_ref().filter(|_| self.kind == ChangeKind::Renamed);
        let renamed = renamed.map(|name| format!("to “{name}”"));
        let parts = [renamed, self.place(), self.by()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    fn place(&self) -> Option<String> {
        let titles: Vec<String> =
            self.projects.iter().take(NAMED_PROJECTS).map(|one| one.title().to_owned()).collect();
        let projects = match (titles.len(), self.projects_total - titles.len()) {
            (_, _) if self.projects_total == 0 => None,
            (0, others) => Some(format!("in {}", wording::count(others, "project"))),
            (_, 0) => Some(format!("in {}", listed(&titles))),
            (_, others) => Some(format!("in {} and {others} more", titles.join(", "))),
        };
        match (self.organization, projects) {
            (true, Some(projects)) => Some(format!("for the organization and {projects}")),
            (true, None) => Some("for the organization".to_owned()),
            (false, projects) => projects,
        }
    }

    fn by(&self) -> Option<String> {
        let names: Vec<String> = self.actors.iter().map(actor).collect();
        (!names.is_empty()).then(|| format!("by {}", listed(&names)))
    }
}

/// `the service account “terraform”`, or the address of a user.
fn actor(actor: &Actor) -> String {
    let (what, name) = match (actor.kind, &actor.email, &actor.name) {
        (ActorKind::User, Some(email), _) => return email.to_string(),
        (ActorKind::User, None, name) => ("the user", name),
        (ActorKind::ServiceAccount, _, name) => ("the service account", name),
        (ActorKind::ApiKey, _, name) => ("the API key", name),
    };
    match name {
        Some(name) => format!("{what} “{name}”"),
        None => format!("{what} {}", actor.id),
    }
}

/// `a, b and c`.
fn listed(names: &[String]) -> String {
    match names.split_last() {
        Some((last, rest @ [_, ..])) => format!("{} and {last}", rest.join(", ")),
        Some((last, [])) => last.clone(),
        None => String::new(),
    }
}
