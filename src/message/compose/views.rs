//! The contents of alerts: certificates with the projects where they are active, projects,
//! silences.

use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

use super::{MAX_CANDIDATES, MAX_PROJECTS, MessageContext};
use crate::{
    domain::{
        blindness::{Blind, List, Unseen},
        certificate::{Certificate, CertificateId, Project, ProjectId, same_expiry},
        evaluate::Assessment,
        finding::RECENT,
        owner::Team,
        policy::Ignore,
        rotation::{ProjectRotation, Rotation},
        routing::Routing,
    },
    message::{
        ActiveIn, CandidateView, CertificateBody, CertificateView, LeftBehind, Named, ProjectView,
        SightView, SilenceView, SuccessorView, UnseenView,
    },
};

impl MessageContext<'_> {
    /// An uncovered project, and since when it is uncovered.
    pub(super) fn since(&self, project: &Project) -> ProjectView {
        let uncovered_from = self.evaluation.uncovered_since(&project.id);
        ProjectView { uncovered_from, ..ProjectView::of(project) }
    }

    /// The valid certificate of a project that expires last.
    pub(super) fn covering(&self, project: &ProjectId) -> Option<CertificateId> {
        let active = self.evaluation.active_in(project);
        let valid = active.iter().filter(|certificate| certificate.is_valid(self.evaluation.now));
        let longest = valid.max_by_key(|certificate| certificate.expires_at)?;
        Some(longest.id.clone())
    }

    /// The time at which a project lost its last active certificate, if that is certain.
    pub(super) fn lost_protection(&self, project: &ProjectId) -> Option<DateTime<Utc>> {
        let lost = self.evaluation.inventory.protection_lost.get(project);
        lost.filter(|lost| lost.certain).map(|lost| lost.at)
    }

    /// The state of the projects where a certificate was active before the scan; `None` if there
    /// were none.
    pub(super) fn left_behind(&self, id: &CertificateId, routing: &Routing) -> Option<LeftBehind> {
        let mut left = LeftBehind::default();
        let mut ranked = Vec::new();
        let before = self.before?;
        let was_in = before.projects_of(id).into_iter();
        let still_there: Vec<&Project> = was_in
            .filter_map(|project| self.evaluation.inventory.projects.get(&project.id))
            .collect();
        let certificate = before.certificates.get(id)?;
        let selected = self.evaluation.selected_projects(routing, certificate, &still_there);
        for (project, _) in still_there.into_iter().zip(selected).filter(|(_, selected)| *selected)
        {
            let unprotected_since = self.lost_protection(&project.id);
            let view = ProjectView { unprotected_since, ..self.since(project) };
            let successor_id = self.covering(&project.id);
            let (count, rank) = match (unprotected_since, &successor_id) {
                (Some(_), _) => (&mut left.unprotected, 0),
                (None, None) => (&mut left.uncovered, 1),
                (None, Some(_)) => (&mut left.covered, 2),
            };
            *count += 1;
            ranked.push((rank, ProjectView { successor_id, ..view }));
        }
        ranked.sort_by(|(a, one), (b, other)| (a, &one.id).cmp(&(b, &other.id)));
        left.projects = ranked.into_iter().take(MAX_PROJECTS).map(|(_, view)| view).collect();
        (left.total() > 0).then_some(left)
    }

    /// A certificate with the projects that the routing selects, its successor and its candidates.
    pub fn view(&self, assessment: &Assessment<'_>, routing: &Routing) -> CertificateBody {
        let certificate = assessment.certificate;
        let rotation = self.evaluation.rotation(assessment);
        let projects: Vec<&Project> = rotation.projects.iter().map(|one| one.project).collect();
        let selected = self.evaluation.selected_projects(routing, certificate, &projects);
        let (mut asked, mut others) = (Vec::new(), Vec::new());
        for (one, selected) in rotation.projects.iter().zip(selected) {
            if selected { asked.push(one) } else { others.push(one) }
        }
        // Projects without a successor first, by the time at which they lose coverage.
        let place = |one: &ProjectRotation<'_>| {
            let from = one.uncovered_from;
            (takes_over(certificate, one).is_some(), from.is_none(), from)
        };
        let order = |a: &&ProjectRotation<'_>, b: &&ProjectRotation<'_>| {
            (place(a), &a.project.id).cmp(&(place(b), &b.project.id))
        };
        // Only the shown projects: there may be thousands for each of a hundred alerts.
        let mut shown = asked.clone();
        if shown.len() > MAX_PROJECTS {
            shown.select_nth_unstable_by(MAX_PROJECTS, order);
            shown.truncate(MAX_PROJECTS);
        }
        shown.sort_unstable_by(order);
        let projects = shown.iter().map(|one| project_view(certificate, one)).collect();
        let without = |all: &[&ProjectRotation<'_>]| {
            all.iter().filter(|one| takes_over(certificate, one).is_none()).count()
        };
        let active_in = ActiveIn {
            organization: assessment.organization_wide,
            projects_total: assessment.projects.len(),
            projects_elsewhere: others.len(),
            elsewhere_without_successor: without(&others),
            without_successor: without(&asked),
            projects,
        };
        let successors = asked.iter().filter_map(|one| takes_over(certificate, one)).collect();
        CertificateBody {
            left_behind: None,
            certificate: CertificateView {
                id: certificate.id.clone(),
                name: certificate.name.clone(),
                valid_at: certificate.valid_at,
                expires_at: certificate.expires_at,
                strange_expiry: certificate.strange_expiry,
                content: certificate.content.clone(),
                defects: self.evaluation.defects(certificate),
                duplicate_of: self.evaluation.older_twin(certificate).map(Named::of),
                reported: certificate.reported,
                carries_certvigil: self.evaluation.carries_certvigil(certificate),
                owners: self.owners_of(assessment),
                changes: self.changes_of(&certificate.id, routing),
                active_in,
                next: rotation.next(),
                ignored: ignored(assessment),
                acknowledged: acknowledged(assessment, self.evaluation.now),
            },
            successor: self.successor_of_most(certificate, successors, asked.len()),
            candidates: candidates(certificate, &rotation, &asked),
        }
    }

    /// Empty without configured owners.
    fn owners_of(&self, assessment: &Assessment<'_>) -> BTreeSet<Option<Team>> {
        match self.evaluation.policy.owners.is_empty() {
            true => BTreeSet::new(),
            false => self.evaluation.owners_of(assessment).clone(),
        }
    }

    /// The certificate that takes over in most of the projects.
    fn successor_of_most(
        &self,
        of: &Certificate,
        mut successors: Vec<&Certificate>,
        projects: usize,
    ) -> Option<SuccessorView> {
        successors.sort_by(|a, b| a.id.cmp(&b.id));
        let most = successors.chunk_by(|a, b| a.id == b.id).max_by_key(|same| same.len())?;
        let assessment = self.evaluation.assessment(&most[0].id);
        Some(SuccessorView {
            id: most[0].id.clone(),
            name: most[0].name.clone(),
            valid_at: most[0].valid_at,
            expires_at: most[0].expires_at,
            covers_every_project: most.len() == projects,
            same_key: of.signs_as(most[0]),
            ignored: assessment.as_ref().and_then(ignored),
            acknowledged: assessment
                .as_ref()
                .and_then(|one| acknowledged(one, self.evaluation.now)),
        })
    }
}

/// The successor in a project, of a certificate with a known expiry.
fn takes_over<'a>(
    certificate: &Certificate,
    rotation: &ProjectRotation<'a>,
) -> Option<&'a Certificate> {
    certificate.expires_at.and(rotation.successor)
}

/// The certificates that could be activated in these projects: proposed ones first.
fn candidates(
    of: &Certificate,
    rotation: &Rotation<'_>,
    asked: &[&ProjectRotation<'_>],
) -> Vec<CandidateView> {
    let proposed: BTreeSet<&CertificateId> =
        asked.iter().filter_map(|one| one.candidate).map(|one| &one.id).collect();
    if proposed.is_empty() {
        return Vec::new();
    }
    let successors: BTreeSet<&CertificateId> =
        rotation.projects.iter().filter_map(|one| one.successor).map(|one| &one.id).collect();
    let (first, rest): (Vec<&Certificate>, Vec<_>) =
        rotation.candidates.iter().partition(|one| proposed.contains(&one.id));
    let view = |one: &Certificate| CandidateView::of(one, Some(of), successors.contains(&one.id));
    first.into_iter().chain(rest).take(MAX_CANDIDATES).map(view).collect()
}

/// A project in which a certificate is active.
fn project_view(certificate: &Certificate, rotation: &ProjectRotation<'_>) -> ProjectView {
    let successor = takes_over(certificate, rotation);
    ProjectView {
        successor_id: successor.map(|certificate| certificate.id.clone()),
        uncovered_from: rotation.uncovered_from,
        next: rotation.next,
        candidate: rotation.candidate.map(Named::of),
        ..ProjectView::of(rotation.project)
    }
}

pub(super) fn sight(blind: &Blind<'_>) -> SightView {
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

/// The active acknowledgement, or one that ended recently. One for another expiry does not count.
pub fn acknowledged(assessment: &Assessment<'_>, now: DateTime<Utc>) -> Option<SilenceView> {
    let one = assessment.acknowledgement?;
    let holds = one.is_active(assessment.certificate, now);
    let ended = one.lapsed_at(now);
    let shown = same_expiry(one.expires_at, assessment.certificate.expires_at)
        && (holds || ended.is_some_and(|at| now - at < RECENT));
    shown.then(|| SilenceView {
        reason: one.reason.clone(),
        by: one.by.clone(),
        until: if holds { one.until } else { ended.unwrap_or(one.until) },
        ended: !holds,
    })
}

/// The ignore rule that applies, otherwise one that has ended.
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
