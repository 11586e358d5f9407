//! What a message shows of what it is about: certificates with where they are active, projects, silences.

use chrono::{DateTime, Utc};

use super::{MAX_PROJECTS, Occasion};
use crate::domain::{
    blindness::{Blind, List, Unseen},
    certificate::{Certificate, CertificateId, Project, ProjectId, same_expiry},
    coverage,
    evaluate::Assessment,
    finding::RECENT,
    notification::{
        ActiveIn, CertificateView, LeftBehind, ProjectView, SightView, SilenceView, SuccessorView,
        UnseenView,
    },
    policy::Ignore,
    routing::Routing,
};

impl Occasion<'_> {
    /// A project without a valid certificate, and since when it has been so.
    pub(super) fn since(&self, project: &Project) -> ProjectView {
        let active = self.evaluation.active_in(&project.id);
        let now = self.evaluation.now;
        ProjectView {
            // Where none was valid yet there is no such moment.
            uncovered_from: coverage::uncovered_from(active, now).filter(|since| *since < now),
            ..ProjectView::of(project)
        }
    }

    /// The certificate that keeps a project valid for longest.
    pub(super) fn covering(&self, project: &ProjectId) -> Option<CertificateId> {
        let active = self.evaluation.active_in(project);
        let valid = active.iter().filter(|certificate| certificate.is_valid(self.evaluation.now));
        let longest = valid.max_by_key(|certificate| certificate.expires_at)?;
        Some(longest.id.clone())
    }

    /// Since when a project has certainly had no active certificate, where it had one before.
    pub(super) fn lost_protection(&self, project: &ProjectId) -> Option<DateTime<Utc>> {
        let lost = self.evaluation.inventory.protection_lost.get(project);
        lost.filter(|lost| lost.certain).map(|lost| lost.at)
    }

    /// How the projects stand in which a certificate was active before the scan; `None` where it was active in none.
    pub(super) fn left_behind(&self, id: &CertificateId, routing: &Routing) -> Option<LeftBehind> {
        let mut left = LeftBehind::default();
        let mut ranked = Vec::new();
        let was_in = self.before?.projects_of(id).into_iter();
        let still_there = was_in
            .filter_map(|project| self.evaluation.inventory.projects.get(&project.id))
            .filter(|project| routing.projects.match_project(project));
        for project in still_there {
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
        let mut fates: Vec<Fate<'_>> = asked
            .iter()
            .zip(&taking_over)
            .map(|(project, successor)| self.fate(assessment, project, *successor))
            .collect();
        // Without a successor first, and of those the one that is left alone first.
        fates.sort_by_key(|fate| {
            let from = fate.uncovered_from;
            (fate.successor.is_some(), from.is_none(), from, &fate.project.id)
        });
        // Only those that are shown: there may be thousands for each of a hundred alerts.
        let projects = fates.iter().take(MAX_PROJECTS).map(Fate::view).collect();
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

    fn fate<'a>(
        &self,
        assessment: &Assessment<'_>,
        project: &'a Project,
        successor: Option<&'a Certificate>,
    ) -> Fate<'a> {
        // Of a certificate without a known end nothing can be said.
        let uncovered_from = match (successor, assessment.certificate.expires_at) {
            (Some(_), _) | (_, None) => None,
            (None, Some(_)) => {
                let active = self.evaluation.active_in(&project.id);
                coverage::uncovered_from(active, self.evaluation.now)
            }
        };
        Fate { project, successor, uncovered_from }
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
            ignored: assessment.as_ref().and_then(ignored),
            acknowledged: assessment
                .as_ref()
                .and_then(|one| acknowledged(one, self.evaluation.now)),
        })
    }
}

/// What becomes of a project when a certificate ends.
struct Fate<'a> {
    project: &'a Project,
    successor: Option<&'a Certificate>,
    uncovered_from: Option<DateTime<Utc>>,
}

impl Fate<'_> {
    fn view(&self) -> ProjectView {
        ProjectView {
            successor_id: self.successor.map(|certificate| certificate.id.clone()),
            uncovered_from: self.uncovered_from,
            ..ProjectView::of(self.project)
        }
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

/// The acknowledgement that holds, or has ended of late. One of another expiry says nothing of today.
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
