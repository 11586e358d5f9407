//! Alerts about projects: one for all uncovered projects, one for all unprotected ones, and one for
//! each reason of a resolution.

use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};

use super::{AlertWithSubjects, MAX_CANDIDATES, MAX_PROJECTS, MessageContext};
use crate::{
    domain::{
        alert::{Decision, Ledger, Reason, SentAlert},
        certificate::{Certificate, Project, ProjectId},
        notifier::{Grouping, NotifierState},
        routing::Routing,
        subject::{ProjectKind, Subject},
        threshold::{Reached, Severity},
    },
    message::{Alert, Body, CandidateView, Event, Named, ProjectView, ProjectsView},
};

/// The event of an alert, the event of its resolution, and the stage.
fn words(kind: ProjectKind) -> (Event, Event, &'static str) {
    match kind {
        ProjectKind::Uncovered => (Event::ProjectUncovered, Event::ProjectCovered, "uncovered"),
        ProjectKind::Unprotected => {
            (Event::ProjectUnprotected, Event::ProjectProtected, "unprotected")
        }
    }
}

impl MessageContext<'_> {
    pub(super) fn of_projects(
        &self,
        notifier: &NotifierState,
        decisions: &[&Decision],
    ) -> Vec<AlertWithSubjects> {
        let mut entries = Vec::new();
        let unprotected = self.open(ProjectKind::Unprotected, &notifier.routing, decisions);
        // If an uncovered project becomes unprotected, a digest contains only the new alert.
        // Services with an incident for each alert also need the resolution of the old one.
        let mut sent_as_unprotected = BTreeSet::new();
        if let (Some((alert, mut subjects)), Grouping::Digest) =
            (unprotected.clone(), notifier.grouping)
        {
            sent_as_unprotected.extend(
                subjects.iter().filter_map(|subject| ProjectKind::Unprotected.of(subject)).cloned(),
            );
            let uncovered = sent_as_unprotected.iter().cloned().map(Subject::Project);
            subjects.extend(uncovered.collect::<Vec<_>>());
            entries.push((alert, subjects));
        } else {
            entries.extend(unprotected);
        }
        entries.extend(self.open(ProjectKind::Uncovered, &notifier.routing, decisions));
        for kind in ProjectKind::ALL {
            let is_sent = |id: &ProjectId| match kind {
                ProjectKind::Uncovered => !sent_as_unprotected.contains(id),
                ProjectKind::Unprotected => true,
            };
            entries.extend(self.ended(kind, &notifier.ledger, decisions, is_sent));
        }
        entries
    }

    /// The shared alert of all projects of a kind.
    fn open(
        &self,
        kind: ProjectKind,
        routing: &Routing,
        decisions: &[&Decision],
    ) -> Option<AlertWithSubjects> {
        let mut reasons = BTreeSet::new();
        let mut open: Option<&Reached> = None;
        let mut due: Option<(DateTime<Utc>, Option<DateTime<Utc>>)> = None;
        let mut subjects = Vec::new();
        let mut projects = Vec::new();
        for decision in decisions {
            let Decision::Send { subject, reason, reached, sent } = decision else { continue };
            let Some(id) = kind.of(subject) else { continue };
            reasons.insert(*reason);
            open = Some(reached);
            if let (Some(due_at), timely_until) = self.punctuality(*reason, sent) {
                due =
                    Some(due.map_or((due_at, timely_until), |due| due.min((due_at, timely_until))));
            }
            subjects.push(subject.clone());
            projects.extend(self.project(kind, id, routing));
        }
        let reached = open.filter(|_| !projects.is_empty())?;
        // Latest loss first, because it is the news.
        let since = |one: &ProjectView| one.uncovered_from.or(one.unprotected_since);
        projects.sort_by(|a, b| (since(b), &a.id).cmp(&(since(a), &b.id)));
        let here = projects.len();
        let elsewhere = self.reported(kind);
        let elsewhere =
            elsewhere.filter(|one| !self.evaluation.concerns_project(routing, kind, one)).count();
        projects.truncate(MAX_PROJECTS);
        projects.shrink_to_fit();
        let candidates = self.remedy(&mut projects);
        let (total, remaining, listed) = (here, 0, projects);
        let body = ProjectsView { total, elsewhere, remaining, listed, candidates };
        let body = Body::Projects(body);
        let reason = reasons.into_iter().min();
        let alert = Alert {
            stage: Some(reached.label.clone()),
            last: reached.last,
            due_at: due.map(|(due_at, _)| due_at),
            timely_until: due.and_then(|(_, timely_until)| timely_until),
            ..Alert::new(words(kind).0, reason, reached.severity, body)
        };
        Some((alert, subjects))
    }

    /// Sets the next step of each project; returns the certificates that could be activated.
    fn remedy(&self, projects: &mut [ProjectView]) -> Vec<CandidateView> {
        let mut candidates: Vec<CandidateView> = Vec::new();
        for project in projects {
            let remedy = self.evaluation.remedy(&project.id);
            project.next = Some(remedy.next);
            project.candidate = remedy.candidate.map(Named::of);
            let known = |one: &&Certificate| candidates.iter().all(|known| known.id != one.id);
            let new = remedy.candidate.filter(known);
            candidates.extend(new.map(|one| CandidateView::of(one, None, false)));
        }
        candidates.truncate(MAX_CANDIDATES);
        candidates
    }

    /// All projects of a kind, regardless of routing.
    fn reported(&self, kind: ProjectKind) -> Box<dyn Iterator<Item = &Project> + '_> {
        match kind {
            ProjectKind::Uncovered => {
                let all = self.evaluation.uncovered.iter().filter(|one| !one.ignored);
                Box::new(all.map(|one| one.project))
            }
            ProjectKind::Unprotected => {
                Box::new(self.evaluation.unprotected.iter().map(|one| one.project))
            }
        }
    }

    fn project(&self, kind: ProjectKind, id: &ProjectId, routing: &Routing) -> Option<ProjectView> {
        match kind {
            ProjectKind::Uncovered => {
                self.evaluation.uncovered(id).map(|one| self.since(one.project))
            }
            ProjectKind::Unprotected => {
                let unprotected = self.evaluation.unprotected(id)?;
                let deactivated = self.deactivation(id, routing).map(Box::new);
                Some(ProjectView { deactivated, ..ProjectView::unprotected(unprotected) })
            }
        }
    }

    /// The resolutions of a kind: one alert for each reason.
    fn ended(
        &self,
        kind: ProjectKind,
        ledger: &Ledger,
        decisions: &[&Decision],
        is_sent: impl Fn(&ProjectId) -> bool,
    ) -> Vec<AlertWithSubjects> {
        let (_, event, stage) = words(kind);
        let mut reasons: BTreeMap<Reason, Vec<(&ProjectId, &SentAlert)>> = BTreeMap::new();
        let of_kind = |subject: &&Subject| kind.of(subject).is_some();
        let mut open: BTreeSet<&Subject> = ledger.open.keys().filter(of_kind).collect();
        for decision in decisions {
            match decision {
                Decision::Resolve { subject, reason, sent } => {
                    open.remove(subject);
                    if let Some(id) = kind.of(subject).filter(|id| is_sent(id)) {
                        reasons.entry(*reason).or_default().push((id, sent));
                    }
                }
                Decision::Send { subject, .. } => open.extend(Some(subject).filter(of_kind)),
                Decision::Redate { .. } | Decision::HoldBack { .. } => {}
            }
        }
        let remaining = open.len();
        let alert = |(reason, ended): (Reason, Vec<(&ProjectId, &SentAlert)>)| {
            let subjects = ended.iter().map(|(id, _)| kind.subject((*id).clone())).collect();
            let severity = ended.iter().map(|(_, sent)| sent.severity).max();
            let view = |(id, sent): &(&ProjectId, &SentAlert)| ProjectView {
                successor_id: self.covering(id),
                unprotected_since: self.lost_protection(id),
                ..ProjectView::of(&Project { id: (*id).clone(), name: sent.name.clone() })
            };
            let severity = severity.unwrap_or(Severity::Critical);
            let body = Body::Projects(ProjectsView {
                total: ended.len(),
                elsewhere: 0,
                remaining,
                listed: ended.iter().take(MAX_PROJECTS).map(view).collect(),
                candidates: Vec::new(),
            });
            let alert = Alert {
                stage: Some(stage.to_owned()),
                ..Alert::new(event, Some(reason), severity, body)
            };
            (alert, subjects)
        };
        reasons.into_iter().map(alert).collect()
    }
}
