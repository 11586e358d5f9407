//! The notification: one model, stored in the outbox, from which every format is rendered.
//!
//! It holds facts and instants. What depends on the hour ("in 6 days") is worked out when it is
//! rendered, at each attempt.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

use super::{
    certificate::{AdminKeyId, Certificate, CertificateId, OrganizationName, Project, ProjectId},
    rotation::RotationStep,
    scan::ScanRecord,
    subject::Subject,
    text::Name,
    threshold::{Severity, Stage},
    wording,
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
        ProjectUncovered = "project.uncovered",
        ProjectCovered = "project.covered",
        ProjectUnprotected = "project.unprotected",
        ProjectProtected = "project.protected",
        MonitorBlind = "monitor.blind",
        MonitorRecovered = "monitor.recovered",
        AdminKeyExpiring = "admin_key.expiring",
        AdminKeyExpired = "admin_key.expired",
        AdminKeyResolved = "admin_key.resolved",
        ClientIdentityExpiring = "client_identity.expiring",
        ClientIdentityExpired = "client_identity.expired",
        ClientIdentityResolved = "client_identity.resolved",
        NotifierFailing = "notifier.failing",
        NotifierRecovered = "notifier.recovered",
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
            Stage::Uncovered => Event::ProjectUncovered,
            Stage::Unprotected => Event::ProjectUnprotected,
            Stage::Blind => Event::MonitorBlind,
            Stage::Failing => Event::NotifierFailing,
        }
    }
}

impl Event {
    /// Whether it says that something is over.
    pub fn is_end(self) -> bool {
        match self {
            Event::CertificateResolved
            | Event::ProjectCovered
            | Event::ProjectProtected
            | Event::MonitorRecovered
            | Event::AdminKeyResolved
            | Event::ClientIdentityResolved
            | Event::NotifierRecovered => true,
            Event::CertificateExpiring
            | Event::CertificateExpired
            | Event::CertificateNotYetValid
            | Event::CertificateUnknownExpiry
            | Event::ProjectUncovered
            | Event::ProjectUnprotected
            | Event::MonitorBlind
            | Event::AdminKeyExpiring
            | Event::AdminKeyExpired
            | Event::ClientIdentityExpiring
            | Event::ClientIdentityExpired
            | Event::NotifierFailing
            | Event::Test => false,
        }
    }
}

words! {
    /// The reason for an alert.
    Reason {
        /// The first alert.
        Opened = "opened",
        /// A tighter stage was entered.
        Stage = "stage",
        /// A repeat is due.
        Repeat = "repeat",
        /// It was ignored until now.
        IgnoreEnded = "ignore_ended",
        /// It was acknowledged until now.
        AckEnded = "ack_ended",
        /// A refresh for a receiver that treats an alert without one as resolved.
        Refresh = "refresh",
        /// An end: another certificate covers every project it was in.
        Replaced = "replaced",
        /// An end: active nowhere now.
        Deactivated = "deactivated",
        /// An end: no list names it any more.
        Deleted = "deleted",
        /// An end: a certificate is active there again.
        Protected = "protected",
        /// Resolved: it expires later than it did at the alert.
        Renewed = "renewed",
        /// An end: all projects that it was active in are archived, or excluded now.
        Archived = "archived",
        /// Resolved: missing data is known now, and healthy.
        Corrected = "corrected",
        /// An end: the thresholds changed, and it is in none now.
        PolicyChanged = "policy_changed",
        /// An end: a rule ignores it now.
        Ignored = "ignored",
        /// An end: it is no longer what this notifier asks for, or the organization is not
        /// configured.
        Unwatched = "unwatched",
    }
}

/// One message for one notifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    pub id: Uuid,
    pub created_at: DateTime<Utc>,
    pub notifier: String,
    /// `None` for tests and alerts about other notifiers.
    pub organization: Option<OrganizationName>,
    /// The highest severity of the alerts.
    pub severity: Severity,
    pub scan: Option<ScanView>,
    /// Worst first; at most 100 of `alerts_total`.
    pub alerts: Vec<Alert>,
    pub alerts_total: usize,
    /// When this is out of date: by then the next scans have said how things stand. `None` where no
    /// scan follows.
    #[serde(default)]
    pub stale_at: Option<DateTime<Utc>>,
}

/// How fresh and how complete the reading was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanView {
    pub id: Uuid,
    pub finished_at: DateTime<Utc>,
    pub complete: bool,
    pub projects_read: usize,
    pub projects_unreadable: usize,
    /// Time at which the oldest list behind this alert was read.
    pub oldest_reading: Option<DateTime<Utc>>,
    /// How far the API's clock was ahead of this machine's, in seconds, where that is too much: all
    /// instants here go by the API's.
    #[serde(default)]
    pub clock_skew: Option<i64>,
}

impl ScanView {
    pub fn of(scan: &ScanRecord, oldest_reading: Option<DateTime<Utc>>) -> ScanView {
        ScanView {
            id: scan.id,
            finished_at: scan.finished_at,
            complete: scan.complete,
            projects_read: scan.projects_read,
            projects_unreadable: scan.projects_unreadable,
            oldest_reading,
            clock_skew: scan.clock_skew.map(|skew| skew.num_seconds()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    pub event: Event,
    /// `None` for a test.
    pub reason: Option<Reason>,
    pub severity: Severity,
    /// The severities whose incidents end with this message; `None` in messages of earlier
    /// versions.
    #[serde(default)]
    pub closes: Option<BTreeSet<Severity>>,
    /// The label of the threshold, `expired`, or the name of the state.
    pub stage: Option<String>,
    /// Whether it cannot be acknowledged: the last threshold and later stages.
    #[serde(default)]
    pub last: bool,
    pub certificate: Option<CertificateView>,
    pub successor: Option<SuccessorView>,
    /// Uploaded certificates that could take over, and are not active in every project of the
    /// alert; the likeliest first, at most 3.
    #[serde(default)]
    pub candidates: Vec<CandidateView>,
    /// What a certificate leaves behind that was deactivated or deleted, or is replaced.
    #[serde(default)]
    pub left_behind: Option<LeftBehind>,
    /// The projects that `project.*` is about.
    #[serde(default)]
    pub projects: Option<ProjectsView>,
    /// What `monitor.*` is about.
    #[serde(default)]
    pub sight: Option<SightView>,
    /// What `admin_key.*` and `client_identity.*` are about.
    #[serde(default)]
    pub credential: Option<CredentialView>,
    /// What `notifier.*` is about.
    #[serde(default)]
    pub failing: Option<FailingView>,
    /// Time at which the alert became due; null for a repeat.
    #[serde(default)]
    pub due_at: Option<DateTime<Utc>>,
    /// The latest time that counts as on time.
    #[serde(default)]
    pub timely_until: Option<DateTime<Utc>>,
}

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

words! {
    /// What certvigil reads with.
    CredentialKind {
        AdminKey = "admin_key",
        ClientIdentity = "client_identity",
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

impl Alert {
    /// Identifies its incident from start to end: the subject, `projects` for the projects of an
    /// organization without a valid certificate, `projects:unprotected` for those without an active
    /// one, or `test`.
    pub fn key(&self) -> String {
        match self.about() {
            About::Certificate(certificate) => {
                Subject::Certificate(certificate.id.clone()).to_string()
            }
            About::Projects(_) => match self.event {
                Event::ProjectUnprotected | Event::ProjectProtected => "projects:unprotected",
                _ => "projects",
            }
            .to_owned(),
            About::Sight(_) => Subject::Sight.to_string(),
            About::Credential(CredentialView { id: Some(id), .. }) => {
                Subject::AdminKey(id.clone()).to_string()
            }
            About::Credential(_) => Subject::ClientIdentity.to_string(),
            About::Failing(failing) => Subject::Notifier(failing.notifier.clone()).to_string(),
            About::Nothing => Event::Test.to_string(),
        }
    }

    /// The kind of subject.
    pub fn about(&self) -> About<'_> {
        if let Some(projects) = &self.projects {
            About::Projects(projects)
        } else if let Some(certificate) = &self.certificate {
            About::Certificate(certificate)
        } else if let Some(sight) = &self.sight {
            About::Sight(sight)
        } else if let Some(credential) = &self.credential {
            About::Credential(credential)
        } else if let Some(failing) = &self.failing {
            About::Failing(failing)
        } else {
            About::Nothing
        }
    }

    /// An alert about nothing yet.
    pub fn of(event: Event, reason: Option<Reason>, severity: Severity) -> Alert {
        Alert {
            event,
            reason,
            severity,
            closes: None,
            stage: None,
            last: false,
            certificate: None,
            successor: None,
            candidates: Vec::new(),
            left_behind: None,
            projects: None,
            sight: None,
            credential: None,
            failing: None,
            due_at: None,
            timely_until: None,
        }
    }

    /// Whether it says that something is over, and leaves projects without a valid or an active
    /// certificate.
    pub fn ends_badly(&self) -> bool {
        let left = self.left_behind.as_ref();
        let left = left.is_some_and(|left| left.uncovered + left.unprotected > 0);
        let nothing_active =
            self.event == Event::ProjectCovered && self.reason == Some(Reason::Deactivated);
        self.event.is_end() && (left || nothing_active)
    }

    /// The delay of a delivery now; `None` if it is on time or punctuality is not reported.
    pub fn late_by(&self, now: DateTime<Utc>) -> Option<TimeDelta> {
        let timely_until = self.timely_until?;
        self.due_at.filter(|_| now > timely_until).map(|due_at| now - due_at)
    }
}

/// What an alert is about, one of many.
#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    Certificate(&'a CertificateView),
    Projects(&'a ProjectsView),
    Sight(&'a SightView),
    Credential(&'a CredentialView),
    Failing(&'a FailingView),
    /// Of a test.
    Nothing,
}

impl Notification {
    /// The instant of the one who reads it, where this machine's clock is not to be believed.
    pub fn time(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let skew =
            self.scan.as_ref().and_then(|scan| scan.clock_skew).and_then(TimeDelta::try_seconds);
        skew.and_then(|skew| now.checked_add_signed(skew)).unwrap_or(now)
    }

    /// The time at which the earliest of its first alerts became due.
    pub fn due_at(&self) -> Option<DateTime<Utc>> {
        self.alerts.iter().filter_map(|alert| alert.due_at).min()
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
            alerts: vec![Alert::of(Event::Test, None, Severity::Info)],
            alerts_total: 1,
            stale_at: None,
        }
    }
}
