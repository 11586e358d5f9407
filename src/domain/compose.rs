//! From decisions to the one message that says them: worst first, with coverage and successors, long
//! lists cut with a count.

use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

use super::{
    blindness::{Blind, List, Unseen},
    certificate::{Certificate, CertificateId, Project, ProjectId},
    coverage,
    evaluate::{Assessment, Evaluation},
    finding::RECENT,
    ledger::{Ledger, Told},
    listener::{Grain, Listener},
    notification::{
        ActiveIn, Alert, CertificateView, Event, Notification, ProjectView, ProjectsView, Reason,
        ScanView, SightView, SilenceView, SuccessorView, UnseenView,
    },
    policy::Ignore,
    reconcile::Decision,
    routing::Routing,
    subject::Subject,
    threshold::{Reached, Severity},
};

/// How many projects an alert lists; the rest is a number.
const MAX_PROJECTS: usize = 50;
/// How many alerts a notification lists; an organization holds at most 50 certificates, so that more
/// means an API that misbehaves.
const MAX_ALERTS: usize = 100;

/// Everything that the notifications of one scan have in common.
pub struct Occasion<'a> {
    pub evaluation: &'a Evaluation<'a>,
    /// `None` where nothing was read: for a forecast, and for an organization that is watched no more.
    pub scan: Option<ScanView>,
    /// When the messages are out of date.
    pub stale_at: Option<DateTime<Utc>>,
}

/// A message, and what it tells of: nothing of a later one of the same subject may overtake it, and what
/// it has no room for was not told.
#[derive(Clone, Debug)]
pub struct Composed {
    pub notification: Notification,
    pub subjects: BTreeSet<Subject>,
}

/// An alert, and what it tells of.
type Entry = (Alert, Vec<Subject>);

impl Occasion<'_> {
    /// The messages that say what `decisions` want said, and what is to be learnt of them: what the messages
    /// have no room for was not told, and is news to the next scan. `new_id` makes each message its id.
    pub fn tell(
        &self,
        new_id: impl Fn() -> Uuid,
        listener: &Listener,
        mut decisions: Vec<Decision>,
    ) -> (Vec<Composed>, Vec<Decision>) {
        let routing = &listener.routing;
        let said: Vec<&Decision> = decisions.iter().filter(|one| one.is_said(routing)).collect();
        let messages = self.compose(new_id, listener, &said);
        if !messages.is_empty() {
            let subjects: BTreeSet<&Subject> =
                messages.iter().flat_map(|message| &message.subjects).collect();
            decisions.retain(|one| !one.is_said(routing) || subjects.contains(one.subject()));
        }
        (messages, decisions)
    }

    /// The messages that say what `decisions` want said: one at most for a digest, or one for each alert.
    pub fn compose(
        &self,
        new_id: impl Fn() -> Uuid,
        listener: &Listener,
        decisions: &[&Decision],
    ) -> Vec<Composed> {
        let of_certificates = decisions.iter().filter_map(|one| self.of_certificate(listener, one));
        let mut entries: Vec<Entry> = of_certificates.collect();
        entries.extend(self.uncovered(&listener.routing, decisions));
        entries.extend(self.covered(&listener.ledger, decisions));
        entries.extend(decisions.iter().filter_map(|one| self.of_sight(one)));
        entries.sort_by(|(a, of_a), (b, of_b)| {
            urgency(b).cmp(&urgency(a)).then_with(|| of_a.cmp(of_b))
        });
        let total = entries.len();
        entries.truncate(MAX_ALERTS);
        match listener.grain {
            Grain::Digest if entries.is_empty() => Vec::new(),
            Grain::Digest => vec![self.message(new_id(), &listener.name, entries, total)],
            Grain::EachAlert | Grain::EachAlertKeptUp => entries
                .into_iter()
                .map(|entry| self.message(new_id(), &listener.name, vec![entry], 1))
                .collect(),
        }
    }

    fn message(&self, id: Uuid, notifier: &str, entries: Vec<Entry>, total: usize) -> Composed {
        let (alerts, subjects): (Vec<Alert>, Vec<Vec<Subject>>) = entries.into_iter().unzip();
        let severity = alerts.iter().map(|alert| alert.severity).max();
        let notification = Notification {
            id,
            created_at: self.evaluation.now,
            notifier: notifier.to_owned(),
            organization: Some(self.evaluation.organization.clone()),
            severity: severity.unwrap_or(Severity::Info),
            scan: self.scan.clone(),
            alerts,
            alerts_total: total,
            stale_at: self.stale_at,
        };
        Composed { notification, subjects: subjects.into_iter().flatten().collect() }
    }

    fn of_certificate(&self, listener: &Listener, decision: &Decision) -> Option<Entry> {
        let Subject::Certificate(id) = decision.subject() else {
            return None;
        };
        let routing = &listener.routing;
        let alert = match decision {
            Decision::Note { .. } | Decision::Forget { .. } | Decision::Damp { .. } => return None,
            Decision::Tell { reason, reached, .. } => {
                let before = listener.ledger.open.get(decision.subject());
                let before = before.map(|told| told.severity);
                Alert {
                    severity_before: before.filter(|severity| *severity != reached.severity),
                    ..self.told(self.evaluation.assessment(id)?, routing, *reason, reached)
                }
            }
            Decision::End { reason, told, .. } => self.resolved(id, routing, *reason, told),
        };
        Some((alert, vec![decision.subject().clone()]))
    }

    /// That certvigil is blind, or sees again.
    fn of_sight(&self, decision: &Decision) -> Option<Entry> {
        let (event, reason, severity, label) = match decision {
            Decision::Tell { subject: Subject::Sight, reason, reached, .. } => {
                (Event::MonitorBlind, *reason, reached.severity, &reached.label)
            }
            Decision::End { subject: Subject::Sight, reason, told } => {
                (Event::MonitorRecovered, *reason, told.severity, &told.label)
            }
            Decision::Tell { .. }
            | Decision::End { .. }
            | Decision::Note { .. }
            | Decision::Forget { .. }
            | Decision::Damp { .. } => return None,
        };
        let alert = Alert {
            event,
            reason: Some(reason),
            severity,
            severity_before: None,
            stage: Some(label.clone()),
            last: event == Event::MonitorBlind,
            certificate: None,
            successor: None,
            projects: None,
            sight: Some(self.evaluation.blind.as_ref().map(sight).unwrap_or_default()),
        };
        Some((alert, vec![Subject::Sight]))
    }

    fn told(
        &self,
        assessment: &Assessment<'_>,
        routing: &Routing,
        reason: Reason,
        reached: &Reached,
    ) -> Alert {
        let (certificate, successor) = self.view(assessment, routing);
        Alert {
            event: Event::from(reached.stage),
            reason: Some(reason),
            severity: reached.severity,
            severity_before: None,
            stage: Some(reached.label.clone()),
            last: assessment.reached.as_ref().is_some_and(|reached| reached.last),
            certificate: Some(certificate),
            successor,
            projects: None,
            sight: None,
        }
    }

    fn resolved(
        &self,
        id: &CertificateId,
        routing: &Routing,
        reason: Reason,
        told: &Told,
    ) -> Alert {
        let certificate = match self.evaluation.assessment(id) {
            Some(assessment) => self.view(assessment, routing).0,
            None => CertificateView {
                id: id.clone(),
                name: told.name.clone(),
                valid_at: None,
                expires_at: told.expires_at,
                strange_expiry: None,
                active_in: ActiveIn::default(),
                ignored: None,
                acknowledged: None,
            },
        };
        Alert {
            event: Event::CertificateResolved,
            reason: Some(reason),
            severity: told.severity,
            severity_before: None,
            stage: Some(told.label.clone()),
            last: false,
            certificate: Some(certificate),
            successor: None,
            projects: None,
            sight: None,
        }
    }

    /// The one alert of all projects without a valid certificate.
    fn uncovered(&self, routing: &Routing, decisions: &[&Decision]) -> Option<Entry> {
        let mut reasons = BTreeSet::new();
        let mut told: Option<&Reached> = None;
        let mut subjects = Vec::new();
        let mut projects = Vec::new();
        for decision in decisions {
            let Decision::Tell { subject: Subject::Project(id), reason, reached, .. } = decision
            else {
                continue;
            };
            reasons.insert(*reason);
            told = Some(reached);
            subjects.push(decision.subject().clone());
            projects.extend(self.evaluation.uncovered(id).map(|one| self.since(one.project)));
        }
        let reached = told?;
        // The latest to lose its last one is news.
        projects.sort_by(|a, b| (b.uncovered_from, &a.id).cmp(&(a.uncovered_from, &b.id)));
        let here = projects.len();
        let all = self.evaluation.uncovered.iter().filter(|one| !one.ignored);
        let elsewhere = all.filter(|one| !routing.projects.match_project(one.project)).count();
        projects.truncate(MAX_PROJECTS);
        let alert = Alert {
            event: Event::ProjectUncovered,
            reason: reasons.into_iter().min(),
            severity: reached.severity,
            severity_before: None,
            stage: Some(reached.label.clone()),
            last: true,
            certificate: None,
            successor: None,
            projects: Some(ProjectsView { total: here, elsewhere, remaining: 0, listed: projects }),
            sight: None,
        };
        Some((alert, subjects))
    }

    /// An alert for each reason why projects are no longer without a valid certificate.
    fn covered(&self, ledger: &Ledger, decisions: &[&Decision]) -> Vec<Entry> {
        let mut reasons: BTreeMap<Reason, Vec<(&ProjectId, &Told)>> = BTreeMap::new();
        let of_project = |subject: &&Subject| matches!(subject, Subject::Project(_));
        let mut open: BTreeSet<&Subject> = ledger.open.keys().filter(of_project).collect();
        for decision in decisions {
            match decision {
                Decision::End { subject, reason, told } => {
                    open.remove(subject);
                    if let Subject::Project(id) = subject {
                        reasons.entry(*reason).or_default().push((id, told));
                    }
                }
                Decision::Tell { subject, .. } => open.extend(Some(subject).filter(of_project)),
                Decision::Note { .. } | Decision::Forget { .. } | Decision::Damp { .. } => {}
            }
        }
        let remaining = open.len();
        let alert = |(reason, ended): (Reason, Vec<(&ProjectId, &Told)>)| {
            let subjects = ended.iter().map(|(id, _)| Subject::Project((*id).clone())).collect();
            let severity = ended.iter().map(|(_, told)| told.severity).max();
            let view = |(id, told): &(&ProjectId, &Told)| ProjectView {
                id: (*id).clone(),
                name: told.name.clone(),
                successor_id: self.covering(id),
                uncovered_from: None,
            };
            let alert = Alert {
                event: Event::ProjectCovered,
                reason: Some(reason),
                severity: severity.unwrap_or(Severity::Critical),
                severity_before: None,
                stage: Some("uncovered".to_owned()),
                last: false,
                certificate: None,
                successor: None,
                projects: Some(ProjectsView {
                    total: ended.len(),
                    elsewhere: 0,
                    remaining,
                    listed: ended.iter().take(MAX_PROJECTS).map(view).collect(),
                }),
                sight: None,
            };
            (alert, subjects)
        };
        reasons.into_iter().map(alert).collect()
    }

    /// A project without a valid certificate, and since when it has been so.
    fn since(&self, project: &Project) -> ProjectView {
        let active = self.evaluation.active_in(&project.id);
        let now = self.evaluation.now;
        ProjectView {
            id: project.id.clone(),
            name: project.name.clone(),
            successor_id: None,
            // Where none was valid yet there is no such moment.
            uncovered_from: coverage::uncovered_from(active, now).filter(|since| *since < now),
        }
    }

    /// The certificate that keeps a project valid for longest.
    fn covering(&self, project: &ProjectId) -> Option<CertificateId> {
        let active = self.evaluation.active_in(project);
        let valid = active.iter().filter(|certificate| certificate.is_valid(self.evaluation.now));
        let longest = valid.max_by_key(|certificate| certificate.expires_at)?;
        Some(longest.id.clone())
    }

    /// A certificate with where it is active, as far as the routing asks, and what takes over from it.
    pub fn view(
        &self,
        assessment: &Assessment<'_>,
        routing: &Routing,
    ) -> (CertificateView, Option<SuccessorView>) {
        let (active_in, successor) = self.coverage(assessment, routing);
        let certificate = assessment.certificate;
        let view = CertificateView {
            id: certificate.id.clone(),
            name: certificate.name.clone(),
            valid_at: certificate.valid_at,
            expires_at: certificate.expires_at,
            strange_expiry: certificate.strange_expiry,
            active_in,
            ignored: ignored(assessment),
            acknowledged: acknowledged(assessment, self.evaluation.now),
        };
        (view, successor)
    }

    fn coverage(
        &self,
        assessment: &Assessment<'_>,
        routing: &Routing,
    ) -> (ActiveIn, Option<SuccessorView>) {
        let (asked, others): (Vec<&Project>, Vec<&Project>) =
            assessment.projects.iter().partition(|one| routing.projects.match_project(one));
        let taking_over: Vec<Option<&Certificate>> =
            asked.iter().map(|project| self.successor(assessment, project)).collect();
        let without = |others: &[&Project]| {
            others.iter().filter(|one| self.successor(assessment, one).is_none()).count()
        };
        let mut projects: Vec<ProjectView> = asked
            .iter()
            .zip(&taking_over)
            .map(|(project, successor)| self.fate(assessment, project, *successor))
            .collect();
        // Without a successor first, and of those the one that is left alone first.
        projects.sort_by_key(|p| {
            let last = p.successor_id.is_some();
            (last, p.uncovered_from.is_none(), p.uncovered_from, p.id.clone())
        });
        projects.truncate(MAX_PROJECTS);
        let active_in = ActiveIn {
            organization: assessment.organization_wide,
            projects_total: assessment.projects.len(),
            projects_elsewhere: others.len(),
            elsewhere_without_successor: without(&others),
            without_successor: taking_over.iter().filter(|one| one.is_none()).count(),
            projects,
        };
        (active_in, self.successor_of_most(&taking_over))
    }

    /// What takes over from a certificate in a project.
    fn successor(&self, assessment: &Assessment<'_>, project: &Project) -> Option<&Certificate> {
        let active = self.evaluation.active_in(&project.id);
        let margin = assessment.ruling.steps.widest();
        coverage::successor(assessment.certificate, active, margin, self.evaluation.now)
    }

    fn fate(
        &self,
        assessment: &Assessment<'_>,
        project: &Project,
        successor: Option<&Certificate>,
    ) -> ProjectView {
        ProjectView {
            id: project.id.clone(),
            name: project.name.clone(),
            successor_id: successor.map(|certificate| certificate.id.clone()),
            // Of a certificate without a known end nothing can be said.
            uncovered_from: match (successor, assessment.certificate.expires_at) {
                (Some(_), _) | (_, None) => None,
                (None, Some(_)) => {
                    let active = self.evaluation.active_in(&project.id);
                    coverage::uncovered_from(active, self.evaluation.now)
                }
            },
        }
    }

    /// The certificate that takes over in most of these projects.
    fn successor_of_most(&self, taking_over: &[Option<&Certificate>]) -> Option<SuccessorView> {
        let mut successors: Vec<&Certificate> = taking_over.iter().copied().flatten().collect();
        successors.sort_by(|a, b| a.id.cmp(&b.id));
        let most = successors.chunk_by(|a, b| a.id == b.id).max_by_key(|same| same.len())?;
        let assessment = self.evaluation.assessment(&most[0].id);
        Some(SuccessorView {
            id: most[0].id.clone(),
            name: most[0].name.clone(),
            expires_at: most[0].expires_at,
            covers_every_project: most.len() == taking_over.len(),
            ignored: assessment.and_then(ignored),
            acknowledged: assessment.and_then(|one| acknowledged(one, self.evaluation.now)),
        })
    }
}

fn sight(blind: &Blind<'_>) -> SightView {
    let view = |unseen: &Unseen<'_>| UnseenView {
        list: match unseen.list {
            List::Projects => "the list of projects".to_owned(),
            List::Organization => "the organization’s certificates".to_owned(),
            List::Project(project) => format!("project “{}” ({})", project.title(), project.id),
        },
        project: match unseen.list {
            List::Projects | List::Organization => None,
            List::Project(project) => Some(project.id.clone()),
        },
        since: unseen.since,
        why: unseen.why.to_owned(),
    };
    SightView {
        total: blind.unseen.len(),
        projects: blind.projects,
        unseen: blind.unseen.iter().take(MAX_PROJECTS).map(view).collect(),
    }
}

/// The acknowledgement that holds, or has ended of late. One of another expiry says nothing of today.
pub fn acknowledged(assessment: &Assessment<'_>, now: DateTime<Utc>) -> Option<SilenceView> {
    let one = assessment.acknowledgement?;
    let holds = one.is_active(assessment.certificate, now);
    let ended = one.lapsed_at(now);
    let shown = one.expires_at == assessment.certificate.expires_at
        && (holds || ended.is_some_and(|at| now - at < RECENT));
    shown.then(|| SilenceView {
        reason: one.reason.clone(),
        by: one.by.clone(),
        until: if holds { one.until } else { ended.unwrap_or(one.until) },
        ended: !holds,
    })
}

/// The ignore that holds, or else the one that has ended.
pub fn ignored(assessment: &Assessment<'_>) -> Option<SilenceView> {
    let view = |ignore: &Ignore, ended| SilenceView {
        reason: ignore.reason.clone(),
        by: None,
        until: ignore.until,
        ended,
    };
    let Assessment { ruling, .. } = assessment;
    match (ruling.ignored, ruling.lapsed) {
        (Some((_, ignore)), _) => Some(view(ignore, false)),
        (None, Some((_, ignore))) => Some(view(ignore, true)),
        (None, None) => None,
    }
}

/// What is wrong comes before what is over, the severe first, what is broken now before what will be, and
/// then what ends first.
fn urgency(alert: &Alert) -> (bool, Severity, bool, Option<std::cmp::Reverse<DateTime<Utc>>>) {
    let ends = alert.certificate.as_ref().and_then(|certificate| certificate.expires_at);
    let broken = matches!(alert.event, Event::ProjectUncovered | Event::MonitorBlind);
    (!alert.event.is_end(), alert.severity, broken, ends.map(std::cmp::Reverse))
}
