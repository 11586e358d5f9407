//! What alerts contain: certificates, projects, lists, credentials and receivers.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::wording;
use crate::domain::{
    certificate::{AdminKeyId, Certificate, CertificateId, Project, ProjectId},
    credential::CredentialKind,
    rotation::RotationStep,
    text::Name,
};

/// The state of the projects where a certificate was active before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LeftBehind {
    /// Number of them where another certificate is valid.
    pub covered: usize,
    /// Number of them with active certificates of which none is valid.
    pub uncovered: usize,
    /// In how many none is active, so that they do not enforce mutual TLS any more.
    pub unprotected: usize,
    /// The unprotected ones first, then the uncovered ones; at most 50.
    pub projects: Vec<ProjectView>,
}

impl LeftBehind {
    pub fn total(&self) -> usize {
        self.covered + self.uncovered + self.unprotected
    }
}

impl CredentialKind {
    /// In words.
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
    /// Of an admin key.
    pub id: Option<AdminKeyId>,
    pub name: Option<Name>,
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether certvigil itself uses it.
    pub own: bool,
}

/// A notifier that does not get through.
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

/// What certvigil has not seen for too long; of an end, only how many lists could not be read this
/// time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SightView {
    /// How many lists there are.
    pub total: usize,
    /// How many projects may have certificates that nobody sees.
    pub projects: usize,
    /// The longest unseen first; at most 50.
    pub unseen: Vec<UnseenView>,
}

/// One list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnseenView {
    /// In words, with the project's name.
    pub list: String,
    pub project: Option<ProjectId>,
    pub since: DateTime<Utc>,
    /// The latest error.
    pub why: String,
}

/// Projects that share a fate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProjectsView {
    pub total: usize,
    /// Number of further ones that the notifier does not select.
    pub elsewhere: usize,
    /// Of a resolution: the number of other projects whose alert is still open.
    #[serde(default)]
    pub remaining: usize,
    /// At most 50 of them.
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
    /// The expiry as the API gave it, where it cannot be meant.
    #[serde(default)]
    pub strange_expiry: Option<i64>,
    pub active_in: ActiveIn,
    /// The next rotation step, if it is in a stage or left over. If projects differ, the earliest
    /// step.
    #[serde(default)]
    pub next: Option<RotationStep>,
    /// The rule that ignores it, or did.
    #[serde(default)]
    pub ignored: Option<SilenceView>,
    /// Its acknowledgement that holds, or has ended of late.
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

/// Where it is active now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActiveIn {
    /// Active for the organization and therefore in every project.
    pub organization: bool,
    pub projects_total: usize,
    /// Number of further projects that the notifier does not select; they are only counted.
    #[serde(default)]
    pub projects_elsewhere: usize,
    /// How many of those have no successor for it: its severity is that of all projects.
    #[serde(default)]
    pub elsewhere_without_successor: usize,
    /// How many of the others, that the notifier did ask for, have none.
    pub without_successor: usize,
    /// Those that are left without a valid certificate first come first; at most 50.
    pub projects: Vec<ProjectView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProjectView {
    pub id: ProjectId,
    pub name: Option<Name>,
    /// The certificate that takes over in this project.
    pub successor_id: Option<CertificateId>,
    /// From when the project has no valid certificate left; `None` where there is a successor, and
    /// where that is not known.
    pub uncovered_from: Option<DateTime<Utc>>,
    /// Since when it has had no active certificate, so that it does not enforce mutual TLS; `None`
    /// where it has one, and where it was never seen with one.
    #[serde(default)]
    pub unprotected_since: Option<DateTime<Utc>>,
    /// The next step here.
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

/// An uploaded certificate that could take over. That it is meant to cannot be known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateView {
    pub id: CertificateId,
    pub name: Option<Name>,
    pub expires_at: Option<DateTime<Utc>>,
    /// It is already the successor in other projects where the certificate is active.
    pub is_successor: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuccessorView {
    pub id: CertificateId,
    pub name: Option<Name>,
    #[serde(default)]
    pub valid_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    pub covers_every_project: bool,
    #[serde(default)]
    pub ignored: Option<SilenceView>,
    #[serde(default)]
    pub acknowledged: Option<SilenceView>,
}

impl ActiveIn {
    /// How many projects the notifier asked for.
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
    pub fn of(certificate: &Certificate, is_successor: bool) -> CandidateView {
        CandidateView {
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
            next: None,
            candidate: None,
        }
    }

    /// The name, or the id of a project without one.
    pub fn title(&self) -> &str {
        self.name.as_ref().map_or(self.id.as_str(), Name::as_str)
    }
}
