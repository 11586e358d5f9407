//! From decisions to the one message that says them: worst first, with coverage and successors, long
//! lists cut with a count.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    certificate::{Certificate, CertificateId, OrganizationName, Project},
    coverage,
    evaluate::{Assessment, Policy},
    inventory::Inventory,
    notification::{
        ActiveIn, Alert, CertificateView, Event, Notification, ProjectView, ScanView, SuccessorView,
    },
    reconcile::Decision,
    threshold::Severity,
};

/// How many projects of a certificate a notification lists; the rest is a number.
const MAX_PROJECTS: usize = 50;
/// How many alerts a notification lists; an organization holds at most 50 certificates, so that more
/// means an API that misbehaves.
const MAX_ALERTS: usize = 100;

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
            Decision::Note { .. } | Decision::Forget { .. } => None,
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
