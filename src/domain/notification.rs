//! What a notifier is told: one model, kept in the outbox, that every format is rendered from.
//!
//! It holds facts and instants. What depends on the hour ("in 6 days") is worked out when it is
//! rendered, at each attempt.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    certificate::{CertificateId, OrganizationName, ProjectId},
    subject::Subject,
    text::Name,
    threshold::{Severity, Stage},
    words::words,
};

words! {
    /// What happened.
    Event {
        CertificateExpiring = "certificate.expiring",
        CertificateExpired = "certificate.expired",
        CertificateNotYetValid = "certificate.not_yet_valid",
        CertificateUnknownExpiry = "certificate.unknown_expiry",
        CertificateResolved = "certificate.resolved",
        Test = "test",
    }
}

impl From<Stage> for Event {
    fn from(stage: Stage) -> Event {
        match stage {
            Stage::UnknownExpiry => Event::CertificateUnknownExpiry,
            Stage::NotYetValid => Event::CertificateNotYetValid,
            Stage::Within(_) => Event::CertificateExpiring,
            Stage::Expired => Event::CertificateExpired,
        }
    }
}

words! {
    /// Why it is told now.
    Reason {
        /// The notifier hears of it for the first time.
        Opened = "opened",
        /// A tighter stage was entered.
        Stage = "stage",
        /// It was told before, and its repeat is due.
        Repeat = "repeat",
        /// An end: inactive or deleted now, and another certificate covers every project it was in.
        Replaced = "replaced",
        /// An end: active nowhere now.
        Deactivated = "deactivated",
        /// An end: no list names it any more.
        Deleted = "deleted",
        /// An end: it expires later than what was told.
        Renewed = "renewed",
        /// An end: all projects that it was active in are archived, or excluded now.
        Archived = "archived",
        /// An end: what was not known is known now, and it is well.
        Corrected = "corrected",
        /// An end: the thresholds changed, and it is in none now.
        PolicyChanged = "policy_changed",
        /// An end: its organization is no longer configured.
        Unwatched = "unwatched",
    }
}

/// One message for one notifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    pub id: Uuid,
    pub created_at: DateTime<Utc>,
    pub notifier: String,
    /// `None` for a test, which is about no organization.
    pub organization: Option<OrganizationName>,
    /// The worst of the alerts.
    pub severity: Severity,
    pub scan: Option<ScanView>,
    /// Worst first; at most 100 of `alerts_total`.
    pub alerts: Vec<Alert>,
    pub alerts_total: usize,
}

/// How fresh and how complete the reading was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanView {
    pub id: Uuid,
    pub finished_at: DateTime<Utc>,
    pub complete: bool,
    pub projects_read: usize,
    pub projects_unreadable: usize,
    /// When the oldest list that this rests on was read.
    pub oldest_reading: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    pub event: Event,
    /// `None` for a test.
    pub reason: Option<Reason>,
    pub severity: Severity,
    /// The label of the threshold, `expired`, or the name of the state.
    pub stage: Option<String>,
    pub certificate: Option<CertificateView>,
    pub successor: Option<SuccessorView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertificateView {
    pub id: CertificateId,
    pub name: Option<Name>,
    pub valid_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    pub active_in: ActiveIn,
}

/// Where it is active now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActiveIn {
    /// For the organization, and so in every project.
    pub organization: bool,
    pub projects_total: usize,
    /// How many of them have no successor for it.
    pub without_successor: usize,
    /// Those that are left without a valid certificate first come first; at most 50.
    pub projects: Vec<ProjectView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProjectView {
    pub id: ProjectId,
    pub name: Option<Name>,
    /// The certificate that takes over here.
    pub successor_id: Option<CertificateId>,
    /// From when the project has no valid certificate left; `None` where there is a successor.
    pub uncovered_from: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuccessorView {
    pub id: CertificateId,
    pub name: Option<Name>,
    pub expires_at: Option<DateTime<Utc>>,
    pub covers_every_project: bool,
}

impl CertificateView {
    /// The name, or the id of a certificate without one.
    pub fn title(&self) -> &str {
        self.name.as_ref().map_or(self.id.as_str(), Name::as_str)
    }
}

impl ProjectView {
    /// The name, or the id of a project without one.
    pub fn title(&self) -> &str {
        self.name.as_ref().map_or(self.id.as_str(), Name::as_str)
    }
}

impl Notification {
    /// What the notification tells of: nothing of a later one of the same subject may overtake it.
    pub fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.alerts
            .iter()
            .filter_map(|alert| alert.certificate.as_ref())
            .map(|certificate| Subject::certificate(&certificate.id))
    }

    /// Whether one of the alerts listed is about this certificate.
    pub fn names(&self, id: &CertificateId) -> bool {
        self.alerts.iter().filter_map(|alert| alert.certificate.as_ref()).any(|one| one.id == *id)
    }

    /// A marked sample, for `notify test`.
    pub fn test(id: Uuid, notifier: &str, now: DateTime<Utc>) -> Notification {
        Notification {
            id,
            created_at: now,
            notifier: notifier.to_owned(),
            organization: None,
            severity: Severity::Info,
            scan: None,
            alerts: vec![Alert {
                event: Event::Test,
                reason: None,
                severity: Severity::Info,
                stage: None,
                certificate: None,
                successor: None,
            }],
            alerts_total: 1,
        }
    }
}
