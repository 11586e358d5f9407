//! One alert of a notification.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use super::{
    CandidateView, CertificateView, ChangesView, CredentialView, DrillView, Event, FailingView,
    LeftBehind, ProjectsView, SightView, SuccessorView, SummaryView, UnprovenView,
};
use crate::domain::{
    alert::Reason, evaluate::ContentFinding, subject::Subject, threshold::Severity,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Alert {
    pub event: Event,
    /// `None` for a test.
    pub reason: Option<Reason>,
    pub severity: Severity,
    /// The severities whose incidents this alert closes; `None` in notifications of earlier
    /// versions.
    pub closes: Option<BTreeSet<Severity>>,
    /// The label of the threshold, `expired`, or the name of the state.
    pub stage: Option<String>,
    /// Whether it cannot be acknowledged: the last threshold and later stages.
    pub last: bool,
    pub body: Body,
    /// Time at which the alert became due; `None` for a repeat.
    pub due_at: Option<DateTime<Utc>>,
    /// The latest time that counts as on time.
    pub timely_until: Option<DateTime<Utc>>,
    /// The token of the link that acknowledges it, or confirms a drill; not stored, because it
    /// differs for each receiver.
    pub link: Option<String>,
}

/// The subject of an alert, with its details.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// For events `certificate.*`.
    Certificate(Box<CertificateBody>),
    /// For events `project.*`.
    Projects(ProjectsView),
    /// For events `monitor.*`.
    Sight(SightView),
    /// For events `admin_key.*` and `client_identity.*`.
    Credential(CredentialView),
    /// For `notifier.failing` and `notifier.recovered`.
    Failing(FailingView),
    /// For `notifier.unproven` and `notifier.proven`.
    Unproven(UnprovenView),
    /// For `drill` and `drill.ended`.
    Drill(DrillView),
    /// For `summary`.
    Summary(Box<SummaryView>),
    /// For `certificates.changed`.
    Changes(ChangesView),
    Test,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CertificateBody {
    pub certificate: CertificateView,
    pub successor: Option<SuccessorView>,
    /// Uploaded certificates that could take over, and are not active in every project of the
    /// alert; the likeliest first, at most 3.
    pub candidates: Vec<CandidateView>,
    /// The projects of a certificate that was deactivated, deleted or replaced.
    pub left_behind: Option<LeftBehind>,
}

impl From<CertificateView> for Body {
    fn from(certificate: CertificateView) -> Body {
        let (successor, candidates, left_behind) = (None, Vec::new(), None);
        Body::Certificate(Box::new(CertificateBody {
            certificate,
            successor,
            candidates,
            left_behind,
        }))
    }
}

impl Alert {
    pub fn new(event: Event, reason: Option<Reason>, severity: Severity, body: Body) -> Alert {
        Alert {
            event,
            reason,
            severity,
            closes: None,
            stage: None,
            last: false,
            body,
            due_at: None,
            timely_until: None,
            link: None,
        }
    }

    /// Whether it has a link: it can be acknowledged, or is a drill.
    pub fn has_link(&self) -> bool {
        self.event == Event::Drill || self.acknowledgeable().is_some()
    }

    /// The certificate or unprotected project that an acknowledgement of this alert silences;
    /// `None` if it cannot be acknowledged, or is about several projects.
    pub fn acknowledgeable(&self) -> Option<Subject> {
        if self.last || self.event.is_resolution() {
            return None;
        }
        match &self.body {
            Body::Certificate(body) if self.content_finding().is_none() => {
                Some(Subject::Certificate(body.certificate.id.clone()))
            }
            Body::Projects(projects) if self.event == Event::ProjectUnprotected => {
                match projects.listed.as_slice() {
                    [only] if projects.total == 1 => Some(Subject::Protection(only.id.clone())),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Identifies its incident: the subject, `projects` for all uncovered projects of an
    /// organization, `projects:unprotected` for all unprotected ones, `changes`, or `test`.
    pub fn key(&self) -> String {
        match &self.body {
            Body::Certificate(body) => {
                let id = body.certificate.id.clone();
                match self.content_finding() {
                    Some(finding) => finding.subject(id),
                    None => Subject::Certificate(id),
                }
                .to_string()
            }
            Body::Projects(_) => match self.event {
                Event::ProjectUnprotected | Event::ProjectProtected => "projects:unprotected",
                _ => "projects",
            }
            .to_owned(),
            Body::Sight(_) => Subject::Sight.to_string(),
            Body::Credential(CredentialView { id: Some(id), .. }) => {
                Subject::AdminKey(id.clone()).to_string()
            }
            Body::Credential(_) => Subject::ClientIdentity.to_string(),
            Body::Failing(failing) => Subject::Notifier(failing.notifier.clone()).to_string(),
            Body::Unproven(unproven) => Subject::Proof(unproven.notifier.clone()).to_string(),
            Body::Drill(_) => Subject::Drill.to_string(),
            Body::Summary(_) => Subject::Summary.to_string(),
            Body::Changes(_) => "changes".to_owned(),
            Body::Test => Event::Test.to_string(),
        }
    }

    /// The finding in a certificate's content that it reports. A resolution has the stage of the
    /// alert that it resolves.
    pub fn content_finding(&self) -> Option<ContentFinding> {
        self.of_certificate()?;
        ContentFinding::parse(self.stage.as_deref()?)
    }

    /// The body of an alert about a certificate.
    pub fn of_certificate(&self) -> Option<&CertificateBody> {
        match &self.body {
            Body::Certificate(body) => Some(body),
            _ => None,
        }
    }

    pub fn certificate(&self) -> Option<&CertificateView> {
        self.of_certificate().map(|body| &body.certificate)
    }

    pub fn projects(&self) -> Option<&ProjectsView> {
        match &self.body {
            Body::Projects(projects) => Some(projects),
            _ => None,
        }
    }

    /// Whether it is a resolution that leaves projects without a valid or an active certificate.
    pub fn loses_coverage(&self) -> bool {
        let left = self.of_certificate().and_then(|body| body.left_behind.as_ref());
        let left = left.is_some_and(|left| left.uncovered + left.unprotected > 0);
        let nothing_active =
            self.event == Event::ProjectCovered && self.reason == Some(Reason::Deactivated);
        self.event.is_resolution() && (left || nothing_active)
    }

    /// The delay of a delivery now; `None` if it is on time or punctuality is not reported.
    pub fn late_by(&self, now: DateTime<Utc>) -> Option<TimeDelta> {
        let timely_until = self.timely_until?;
        self.due_at.filter(|_| now > timely_until).map(|due_at| now - due_at)
    }
}

/// The form of an alert in the outbox. Fields that earlier versions did not write have defaults.
#[derive(Serialize, Deserialize)]
struct Stored {
    event: Event,
    reason: Option<Reason>,
    severity: Severity,
    #[serde(default)]
    closes: Option<BTreeSet<Severity>>,
    stage: Option<String>,
    #[serde(default)]
    last: bool,
    certificate: Option<CertificateView>,
    successor: Option<SuccessorView>,
    #[serde(default)]
    candidates: Vec<CandidateView>,
    #[serde(default)]
    left_behind: Option<LeftBehind>,
    #[serde(default)]
    projects: Option<ProjectsView>,
    #[serde(default)]
    sight: Option<SightView>,
    #[serde(default)]
    credential: Option<CredentialView>,
    #[serde(default)]
    failing: Option<FailingView>,
    #[serde(default)]
    unproven: Option<UnprovenView>,
    #[serde(default)]
    drill: Option<DrillView>,
    #[serde(default)]
    summary: Option<Box<SummaryView>>,
    #[serde(default)]
    changes: Option<ChangesView>,
    #[serde(default)]
    due_at: Option<DateTime<Utc>>,
    #[serde(default)]
    timely_until: Option<DateTime<Utc>>,
}

impl From<Stored> for Alert {
    fn from(stored: Stored) -> Alert {
        let Stored { successor, candidates, left_behind, .. } = stored;
        let body = match (stored.projects, stored.certificate) {
            (Some(projects), _) if projects.candidates.is_empty() => {
                Body::Projects(ProjectsView { candidates, ..projects })
            }
            (Some(projects), _) => Body::Projects(projects),
            (None, Some(certificate)) => Body::Certificate(Box::new(CertificateBody {
                certificate,
                successor,
                candidates,
                left_behind,
            })),
            (None, None) => {
                let sight = stored.sight.map(Body::Sight);
                let body = sight.or(stored.credential.map(Body::Credential));
                let body = body.or(stored.failing.map(Body::Failing));
                let body = body.or(stored.unproven.map(Body::Unproven));
                let body = body.or(stored.drill.map(Body::Drill));
                let body = body.or(stored.summary.map(Body::Summary));
                body.or(stored.changes.map(Body::Changes)).unwrap_or(Body::Test)
            }
        };
        Alert {
            closes: stored.closes,
            stage: stored.stage,
            last: stored.last,
            due_at: stored.due_at,
            timely_until: stored.timely_until,
            ..Alert::new(stored.event, stored.reason, stored.severity, body)
        }
    }
}

impl From<Alert> for Stored {
    fn from(alert: Alert) -> Stored {
        let mut stored = Stored {
            event: alert.event,
            reason: alert.reason,
            severity: alert.severity,
            closes: alert.closes,
            stage: alert.stage,
            last: alert.last,
            certificate: None,
            successor: None,
            candidates: Vec::new(),
            left_behind: None,
            projects: None,
            sight: None,
            credential: None,
            failing: None,
            unproven: None,
            drill: None,
            summary: None,
            changes: None,
            due_at: alert.due_at,
            timely_until: alert.timely_until,
        };
        match alert.body {
            Body::Certificate(body) => {
                stored.certificate = Some(body.certificate);
                stored.successor = body.successor;
                stored.candidates = body.candidates;
                stored.left_behind = body.left_behind;
            }
            Body::Projects(projects) => stored.projects = Some(projects),
            Body::Sight(sight) => stored.sight = Some(sight),
            Body::Credential(credential) => stored.credential = Some(credential),
            Body::Failing(failing) => stored.failing = Some(failing),
            Body::Unproven(unproven) => stored.unproven = Some(unproven),
            Body::Drill(drill) => stored.drill = Some(drill),
            Body::Summary(summary) => stored.summary = Some(summary),
            Body::Changes(changes) => stored.changes = Some(changes),
            Body::Test => {}
        }
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Notification, sample};

    #[test]
    fn every_kind_of_alert_survives_the_outbox() {
        for event in Event::ALL {
            let message = sample::of(*event, "ops", DateTime::UNIX_EPOCH);
            let text = serde_json::to_string(&message).unwrap();
            assert_eq!(serde_json::from_str::<Notification>(&text).unwrap(), message, "{event}");
        }
    }

    #[test]
    fn candidates_of_projects_are_read_from_the_field_of_earlier_versions() {
        let text = r#"{
            "event": "project.uncovered", "reason": "opened", "severity": "critical",
            "stage": "uncovered", "certificate": null, "successor": null,
            "candidates": [
                { "id": "cert_1", "name": null, "expires_at": null, "is_successor": false }
            ],
            "projects": { "total": 0, "elsewhere": 0, "listed": [] }
        }"#;
        let alert: Alert = serde_json::from_str(text).unwrap();
        assert_eq!(alert.projects().unwrap().candidates.len(), 1);
    }
}
