//! What a notifier is told: one model, kept in the outbox, that every format is rendered from.
//!
//! It holds facts and instants. What depends on the hour ("in 6 days") is worked out when it is
//! rendered, at each attempt.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    certificate::{Certificate, CertificateId, OrganizationName, Project, ProjectId},
    coverage,
    evaluate::{Assessment, Policy},
    inventory::Inventory,
    reconcile::{Decision, Subject},
    text::Name,
    threshold::{Severity, Stage},
    words::words,
};

/// How many projects of a certificate a notification lists; the rest is a number.
const MAX_PROJECTS: usize = 50;
/// How many alerts a notification lists; an organization holds at most 50 certificates, so that more
/// means an API that misbehaves.
const MAX_ALERTS: usize = 100;

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

/// Everything that the notifications of one scan have in common.
pub struct Occasion<'a> {
    pub organization: &'a OrganizationName,
    pub scan: ScanView,
    pub inventory: &'a Inventory,
    pub assessments: &'a [Assessment<'a>],
    pub policy: &'a Policy,
    pub now: DateTime<Utc>,
}

impl Occasion<'_> {
    /// Makes the one message that says what `decisions` want said; `None` where that is nothing.
    pub fn compose(
        &self,
        id: Uuid,
        notifier: &str,
        decisions: &[&Decision],
    ) -> Option<Notification> {
        let mut alerts: Vec<Alert> =
            decisions.iter().filter_map(|decision| self.alert(decision)).collect();
        alerts.sort_by(|a, b| urgency(b).cmp(&urgency(a)).then_with(|| id_of(a).cmp(&id_of(b))));
        let severity = alerts.iter().map(|alert| alert.severity).max()?;
        let alerts_total = alerts.len();
        alerts.truncate(MAX_ALERTS);
        Some(Notification {
            id,
            created_at: self.now,
            notifier: notifier.to_owned(),
            organization: Some(self.organization.clone()),
            severity,
            scan: Some(self.scan.clone()),
            alerts,
            alerts_total,
        })
    }

    fn alert(&self, decision: &Decision) -> Option<Alert> {
        match decision {
            Decision::Note { .. } => None,
            Decision::Tell { id, reason, reached, .. } => {
                let assessment = self.assessments.iter().find(|one| one.certificate.id == *id)?;
                let (active_in, successor) = self.coverage(assessment);
                Some(Alert {
                    event: Event::from(reached.stage),
                    reason: Some(*reason),
                    severity: reached.severity,
                    stage: Some(reached.label.clone()),
                    certificate: Some(view(assessment.certificate, active_in)),
                    successor,
                })
            }
            Decision::End { id, reason, told } => {
                let certificate = match self.assessments.iter().find(|a| a.certificate.id == *id) {
                    Some(assessment) => view(assessment.certificate, self.coverage(assessment).0),
                    None => CertificateView {
                        id: id.clone(),
                        name: told.name.clone(),
                        valid_at: None,
                        expires_at: told.expires_at,
                        active_in: ActiveIn::default(),
                    },
                };
                Some(Alert {
                    event: Event::CertificateResolved,
                    reason: Some(*reason),
                    severity: told.severity,
                    stage: Some(told.label.clone()),
                    certificate: Some(certificate),
                    successor: None,
                })
            }
        }
    }

    fn coverage(&self, assessment: &Assessment<'_>) -> (ActiveIn, Option<SuccessorView>) {
        let margin = self.policy.ladder.widest();
        let mut successors: Vec<&Certificate> = Vec::new();
        let mut projects: Vec<ProjectView> = assessment
            .projects
            .iter()
            .map(|project: &&Project| {
                let active = self.inventory.active_in_project(&project.id);
                let successor = coverage::successor(assessment.certificate, &active, margin);
                successors.extend(successor);
                ProjectView {
                    id: project.id.clone(),
                    name: project.name.clone(),
                    successor_id: successor.map(|certificate| certificate.id.clone()),
                    // Of a certificate without a known end nothing can be said.
                    uncovered_from: match (successor, assessment.certificate.expires_at) {
                        (Some(_), _) | (_, None) => None,
                        (None, Some(_)) => Some(coverage::covered_until(&active, self.now)),
                    },
                }
            })
            .collect();
        // Without a successor first, and of those the one that is left alone first.
        projects.sort_by_key(|p| (p.uncovered_from.is_none(), p.uncovered_from, p.id.clone()));
        let total = projects.len();
        let without_successor = total - successors.len();
        projects.truncate(MAX_PROJECTS);

        successors.sort_by(|a, b| a.id.cmp(&b.id));
        let most = successors.chunk_by(|a, b| a.id == b.id).max_by_key(|same| same.len());
        let successor = most.map(|same| SuccessorView {
            id: same[0].id.clone(),
            name: same[0].name.clone(),
            expires_at: same[0].expires_at,
            covers_every_project: same.len() == total,
        });
        let active_in = ActiveIn {
            organization: assessment.organization_wide,
            projects_total: total,
            without_successor,
            projects,
        };
        (active_in, successor)
    }
}

fn view(certificate: &Certificate, active_in: ActiveIn) -> CertificateView {
    CertificateView {
        id: certificate.id.clone(),
        name: certificate.name.clone(),
        valid_at: certificate.valid_at,
        expires_at: certificate.expires_at,
        active_in,
    }
}

/// What is wrong comes before what is over, the severe first, and of those the one that ends first.
fn urgency(alert: &Alert) -> (bool, Severity, Option<std::cmp::Reverse<DateTime<Utc>>>) {
    let ends = alert.certificate.as_ref().and_then(|certificate| certificate.expires_at);
    (alert.event != Event::CertificateResolved, alert.severity, ends.map(std::cmp::Reverse))
}

fn id_of(alert: &Alert) -> Option<&CertificateId> {
    alert.certificate.as_ref().map(|certificate| &certificate.id)
}
