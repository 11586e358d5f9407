//! Summaries: a regular message with everything that needs action soon, and everything that is
//! silenced, for one part of a notifier's alerts.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    certificate::Project,
    credential::Credential,
    evaluate::{Assessment, Evaluation, Uncovered, Unprotected},
    rotation::RotationStep,
    routing::Routing,
    subject::ProjectKind,
    threshold::Reached,
    words::words,
};

/// Summaries list the certificates that expire within this time: a quarter.
pub const AHEAD: TimeDelta = TimeDelta::days(90);

words! {
    /// The reason why a certificate is in a summary; the most urgent first.
    SummaryState {
        /// Its next rotation step is to upload a successor.
        Upload = "upload",
        Activate = "activate",
        MoveClients = "move_clients",
        Deactivate = "deactivate",
        /// Another alert about it is open, such as an unknown expiry.
        Review = "review",
        /// It is left over, and can be deleted.
        Delete = "delete",
        /// It expires soon, and has not reached a threshold.
        Later = "later",
        /// An acknowledgement silences it.
        Acknowledged = "acknowledged",
        /// A rule ignores it.
        Ignored = "ignored",
    }
}

impl SummaryState {
    /// Whether somebody has to do something now.
    pub fn needs_action(self) -> bool {
        self <= SummaryState::Review
    }
}

impl From<RotationStep> for SummaryState {
    fn from(step: RotationStep) -> SummaryState {
        match step {
            RotationStep::Upload => SummaryState::Upload,
            RotationStep::Activate => SummaryState::Activate,
            RotationStep::MoveClients => SummaryState::MoveClients,
            RotationStep::Deactivate => SummaryState::Deactivate,
            RotationStep::Delete => SummaryState::Delete,
        }
    }
}

words! {
    /// The reason why a project is in a summary.
    ProjectState {
        /// It has no valid certificate.
        Uncovered = "uncovered",
        /// It does not enforce mutual TLS.
        Unprotected = "unprotected",
        /// The same, and an acknowledgement silences it.
        Acknowledged = "acknowledged",
    }
}

/// A certificate in a summary.
#[derive(Debug)]
pub struct Summarized<'a> {
    pub state: SummaryState,
    pub assessment: Assessment<'a>,
    /// The selected projects where it is active; those that wait for its rotation step first.
    pub projects: Vec<&'a Project>,
    /// The number of those projects.
    pub projects_waiting: usize,
}

/// The part of an organization that concerns a routing.
#[derive(Debug)]
pub struct Summary<'a> {
    /// By state, then soonest expiry first.
    pub certificates: Vec<Summarized<'a>>,
    /// Ordered by id, as the next two.
    pub uncovered: Vec<&'a Uncovered<'a>>,
    pub unprotected: Vec<&'a Unprotected<'a>>,
    /// Unprotected projects that are acknowledged.
    pub acknowledged: Vec<&'a Unprotected<'a>>,
    /// The credentials that expire soon, soonest first.
    pub credentials: Vec<&'a Credential<'a>>,
    /// The first later expiry of an active certificate.
    pub next_expiry: Option<(DateTime<Utc>, Assessment<'a>)>,
}

/// Summarizes the part of an organization that `routing` selects, regardless of severities.
pub fn summarize<'a>(evaluation: &'a Evaluation<'a>, routing: &Routing) -> Summary<'a> {
    let until = evaluation.now + AHEAD;
    let mut certificates = Vec::new();
    let mut next_expiry: Option<(DateTime<Utc>, Assessment<'_>)> = None;
    let concerned = evaluation.assessments().filter(|one| evaluation.concerns(routing, one));
    for assessment in concerned {
        let later = assessment.certificate.expires_at.filter(|at| *at > until);
        if let Some(at) = later.filter(|_| assessment.is_active())
            && next_expiry.as_ref().is_none_or(|(next, _)| at < *next)
        {
            next_expiry = Some((at, assessment.clone()));
        }
        certificates.extend(certificate(evaluation, assessment, routing, until));
    }
    certificates.sort_by_key(|one| {
        let Assessment { certificate, .. } = one.assessment;
        (one.state, certificate.expires_at.is_none(), certificate.expires_at, &certificate.id)
    });
    let concerns = |kind, project| evaluation.concerns_project(routing, kind, project);
    let uncovered = evaluation.uncovered.iter().filter(|one| !one.ignored);
    let uncovered = uncovered.filter(|one| concerns(ProjectKind::Uncovered, one.project));
    let unprotected = evaluation.unprotected.iter();
    let unprotected = unprotected.filter(|one| concerns(ProjectKind::Unprotected, one.project));
    let (acknowledged, unprotected) =
        unprotected.partition(|one| one.acknowledged(evaluation.now).is_some());
    let of_all = evaluation.concerns_organization(routing);
    let credentials = evaluation.credentials.iter().filter(|_| of_all);
    let mut credentials: Vec<_> = credentials.filter(|one| one.expires_at <= until).collect();
    credentials.sort_by_key(|one| one.expires_at);
    Summary {
        certificates,
        uncovered: uncovered.collect(),
        unprotected,
        acknowledged,
        credentials,
        next_expiry,
    }
}

/// `None` if a certificate is not in the summary.
fn certificate<'a>(
    evaluation: &'a Evaluation<'a>,
    assessment: Assessment<'a>,
    routing: &Routing,
    until: DateTime<Utc>,
) -> Option<Summarized<'a>> {
    let (certificate, now) = (assessment.certificate, evaluation.now);
    let rotation = evaluation.rotation(&assessment);
    let all: Vec<&Project> = rotation.projects.iter().map(|one| one.project).collect();
    let selected = evaluation.selected_projects(routing, certificate, &all);
    let of_routing = rotation.projects.iter().zip(selected).filter(|(_, selected)| *selected);
    let mut projects: Vec<_> = of_routing.map(|(one, _)| (one.next, one.project)).collect();
    // Without a step comes last.
    projects.sort_by_key(|(next, project)| (next.is_none(), *next, &project.id));
    let of_projects = projects.first().and_then(|(next, _)| *next);
    let next = of_projects.or_else(|| rotation.next().filter(|_| rotation.projects.is_empty()));
    let is_soon = assessment.is_active() && certificate.expires_at.is_some_and(|at| at <= until);
    let ignored = assessment.ruling.ignored.is_some();
    let is_last = assessment.reached.as_ref().is_some_and(|reached| reached.last);
    let acknowledged = assessment.acknowledged(now).is_some();
    let of_expiry = |reached: &Reached| reached.stage.is_of_expiry();
    let content = || {
        let mut of_content = evaluation.content_findings.iter();
        of_content.any(|(_, one)| one.certificate.id == certificate.id)
    };
    let state = match next {
        _ if ignored && (is_soon || assessment.reached.is_some()) => SummaryState::Ignored,
        // An acknowledgement does not silence the last threshold.
        _ if acknowledged && !is_last => SummaryState::Acknowledged,
        // Its own alert is open, so that it is not only left over.
        Some(RotationStep::Delete) if assessment.open().is_some() => SummaryState::Review,
        Some(step) => step.into(),
        // It is active in the organization, and its projects are unknown.
        None if is_soon && assessment.open().is_some_and(of_expiry) => SummaryState::Upload,
        None if assessment.open().is_some() || content() => SummaryState::Review,
        None if is_soon => SummaryState::Later,
        None => return None,
    };
    let projects_waiting = projects.iter().filter(|(step, _)| *step == next && next.is_some());
    let projects_waiting = projects_waiting.count();
    let projects = projects.into_iter().map(|(_, project)| project).collect();
    Some(Summarized { state, assessment, projects, projects_waiting })
}
