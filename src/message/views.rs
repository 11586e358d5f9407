//! The contents of alerts: certificates, projects, lists, credentials and receivers.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

use super::{ChangeView, wording};
use crate::domain::{
    certificate::{AdminKeyId, Certificate, CertificateId, Dates, Project, ProjectId},
    content::{Content, Defect},
    credential::CredentialKind,
    evaluate::Unprotected,
    owner::Team,
    rotation::RotationStep,
    text::Name,
};

/// The state of the projects where a certificate was active before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LeftBehind {
    /// Number of projects in which another certificate is valid.
    pub covered: usize,
    /// Number of projects with active certificates of which none is valid.
    pub uncovered: usize,
    /// Number of projects without an active certificate: mutual TLS is off.
    pub unprotected: usize,
    /// Unprotected projects first, then uncovered ones; at most 50.
    pub projects: Vec<ProjectView>,
}

impl LeftBehind {
    pub fn total(&self) -> usize {
        self.covered + self.uncovered + self.unprotected
    }
}

impl CredentialKind {
    pub fn title(self) -> &'static str {
        match self {
            CredentialKind::AdminKey => "the admin key",
            CredentialKind::ClientIdentity => "the client certificate",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CredentialView {
    pub kind: CredentialKind,
    /// `None` for the client certificate.
    pub id: Option<AdminKeyId>,
    pub name: Option<Name>,
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether certvigil itself uses it.
    pub own: bool,
}

/// A failing or recovered notifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailingView {
    pub notifier: String,
    /// The number of failing receivers; 0 in a resolution.
    pub total: usize,
    /// The longest failing first; at most 50.
    pub receivers: Vec<ReceiverView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReceiverView {
    pub receiver: String,
    pub since: DateTime<Utc>,
    /// The latest error.
    pub why: String,
    /// Whether it rejected a notification permanently.
    pub refused: bool,
}

/// The unproven receivers of a notifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnprovenView {
    pub notifier: String,
    /// The number of unproven receivers; 0 in a resolution.
    pub total: usize,
    /// The longest unproven first; at most 50.
    pub receivers: Vec<UnprovenReceiverView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnprovenReceiverView {
    pub receiver: String,
    /// Time of its first drill that nobody confirmed.
    pub drill_at: DateTime<Utc>,
    /// The time by which it was to be confirmed.
    pub confirm_by: DateTime<Utc>,
    /// Time of its latest confirmation.
    pub confirmed_at: Option<DateTime<Utc>>,
}

/// A drill, or its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillView {
    pub confirm_by: DateTime<Utc>,
    /// Time of its confirmation, if it has ended with one.
    pub confirmed_at: Option<DateTime<Utc>>,
}

/// The lists that were unreadable for too long; in a resolution, only the number of lists that are
/// still unreadable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SightView {
    /// Number of lists.
    pub total: usize,
    /// Number of projects whose certificates may expire unnoticed.
    pub projects: usize,
    /// Longest unreadable first; at most 50.
    pub unseen: Vec<UnseenView>,
}

/// An unreadable list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnseenView {
    /// A description of the list, with the project's name.
    pub list: String,
    pub project: Option<ProjectId>,
    pub since: DateTime<Utc>,
    /// The latest error.
    pub why: String,
}

/// The projects of an alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProjectsView {
    pub total: usize,
    /// Number of further projects that the notifier does not select.
    pub elsewhere: usize,
    /// Of a resolution: the number of other projects whose alert is still open.
    #[serde(default)]
    pub remaining: usize,
    /// At most 50 of `total`.
    pub listed: Vec<ProjectView>,
    /// Uploaded certificates that could be activated in them; the likeliest first, at most 3.
    #[serde(default)]
    pub candidates: Vec<CandidateView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertificateView {
    pub id: CertificateId,
    pub name: Option<Name>,
    pub valid_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    /// The reported expiry, if it is implausible.
    #[serde(default)]
    pub strange_expiry: Option<i64>,
    /// Its own content, if known.
    #[serde(default)]
    pub content: Option<Arc<Content>>,
    /// Why it may not work as a trust anchor.
    #[serde(default)]
    pub defects: Vec<Defect>,
    /// The older active object with the same content.
    #[serde(default)]
    pub duplicate_of: Option<Named>,
    /// The dates that the API reports, if the content replaces one of them.
    #[serde(default)]
    pub reported: Option<Dates>,
    /// Whether certvigil's own client certificate depends on it.
    #[serde(default)]
    pub carries_certvigil: bool,
    /// The teams that are responsible for it, with `None` for projects without an owner; empty
    /// without configured owners.
    #[serde(default)]
    pub owners: BTreeSet<Option<Team>>,
    /// Latest first, at most 10.
    #[serde(default)]
    pub changes: Vec<ChangeView>,
    pub active_in: ActiveIn,
    /// The next rotation step, if it is in a stage or left over. If projects differ, the earliest
    /// step.
    #[serde(default)]
    pub next: Option<RotationStep>,
    /// The ignore rule that applies or has ended.
    #[serde(default)]
    pub ignored: Option<SilenceView>,
    /// The acknowledgement that applies or has ended recently.
    #[serde(default)]
    pub acknowledged: Option<SilenceView>,
}

/// An acknowledgement or an ignore rule: reason and end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SilenceView {
    pub reason: String,
    pub by: Option<String>,
    pub until: DateTime<Utc>,
    /// Whether it has ended.
    pub ended: bool,
}

/// Where a certificate is active.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActiveIn {
    /// Active for the organization and therefore in every project.
    pub organization: bool,
    pub projects_total: usize,
    /// Number of further projects that the notifier does not select; they are only counted.
    #[serde(default)]
    pub projects_elsewhere: usize,
    /// Number of those without a successor; the severity takes them into account.
    #[serde(default)]
    pub elsewhere_without_successor: usize,
    /// Number of selected projects without a successor.
    pub without_successor: usize,
    /// Projects that lose coverage first come first; at most 50.
    pub projects: Vec<ProjectView>,
}

impl ActiveIn {
    /// The number of all projects without a successor.
    pub fn all_without_successor(&self) -> usize {
        self.without_successor + self.elsewhere_without_successor
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProjectView {
    pub id: ProjectId,
    pub name: Option<Name>,
    /// The certificate that takes over in this project.
    pub successor_id: Option<CertificateId>,
    /// Start of the time without a valid certificate; `None` if there is a successor, or if it is
    /// unknown.
    pub uncovered_from: Option<DateTime<Utc>>,
    /// Time since which no certificate is active; `None` if one is, or if none was ever seen.
    #[serde(default)]
    pub unprotected_since: Option<DateTime<Utc>>,
    /// Of an unprotected project: the deactivation that turned mutual TLS off, if the audit log
    /// names who made it.
    #[serde(default)]
    pub deactivated: Option<Box<ChangeView>>,
    /// The next rotation step in this project.
    #[serde(default)]
    pub next: Option<RotationStep>,
    /// The certificate to activate, if that is the next step.
    #[serde(default)]
    pub candidate: Option<Named>,
}

/// A certificate by its id and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub id: CertificateId,
    pub name: Option<Name>,
}

impl Named {
    pub fn of(certificate: &Certificate) -> Named {
        Named { id: certificate.id.clone(), name: certificate.name.clone() }
    }
}

/// An uploaded certificate that could take over. Its intended use is unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateView {
    pub id: CertificateId,
    pub name: Option<Name>,
    pub expires_at: Option<DateTime<Utc>>,
    /// It is already the successor in other projects where the certificate is active.
    pub is_successor: bool,
    /// Whether clients of the old certificate pass this one, too; `None` if unknown.
    #[serde(default)]
    pub same_key: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuccessorView {
    pub id: CertificateId,
    pub name: Option<Name>,
    #[serde(default)]
    pub valid_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    pub covers_every_project: bool,
    /// Whether clients of the old certificate pass this one, too; `None` if unknown.
    #[serde(default)]
    pub same_key: Option<bool>,
    #[serde(default)]
    pub ignored: Option<SilenceView>,
    #[serde(default)]
    pub acknowledged: Option<SilenceView>,
}

impl ActiveIn {
    /// Number of projects that the notifier selects.
    pub fn projects_here(&self) -> usize {
        self.projects_total - self.projects_elsewhere.min(self.projects_total)
    }
}

impl CertificateView {
    /// The name, or the id of a certificate without one.
    pub fn title(&self) -> &str {
        self.name.as_ref().map_or(self.id.as_str(), Name::as_str)
    }
}

impl SuccessorView {
    /// The name, or the id of a certificate without one.
    pub fn title(&self) -> &str {
        self.name.as_ref().map_or(self.id.as_str(), Name::as_str)
    }
}

impl CandidateView {
    /// A candidate to replace `old`, if a certificate is known to be replaced.
    pub fn of(
        certificate: &Certificate,
        old: Option<&Certificate>,
        is_successor: bool,
    ) -> CandidateView {
        CandidateView {
            same_key: old.and_then(|old| old.signs_as(certificate)),
            id: certificate.id.clone(),
            name: certificate.name.clone(),
            expires_at: certificate.expires_at,
            is_successor,
        }
    }

    /// The name and the id.
    pub fn title(&self) -> String {
        wording::with_id(self.name.as_ref(), &self.id)
    }
}

impl ProjectView {
    /// A project without further details.
    pub fn of(project: &Project) -> ProjectView {
        ProjectView {
            id: project.id.clone(),
            name: project.name.clone(),
            successor_id: None,
            uncovered_from: None,
            unprotected_since: None,
            deactivated: None,
            next: None,
            candidate: None,
        }
    }

    pub fn unprotected(unprotected: &Unprotected<'_>) -> ProjectView {
        ProjectView { unprotected_since: unprotected.since, ..ProjectView::of(unprotected.project) }
    }

    /// The name, or the id of a project without one.
    pub fn title(&self) -> &str {
        self.name.as_ref().map_or(self.id.as_str(), Name::as_str)
    }
}
