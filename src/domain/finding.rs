//! The findings of one notifier: everything in a stage that it selects.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    alert::Reason,
    blindness::Blind,
    certificate::same_expiry,
    coverage,
    credential::Credential,
    evaluate::{Assessment, ContentFinding, Evaluation, Uncovered, Unprotected},
    routing::Routing,
    subject::{ProjectKind, Subject},
    text::Name,
    threshold::{Reached, Stage},
};

/// How long an ended silence is shown, and counts as the reason for a first alert.
pub const RECENT: TimeDelta = TimeDelta::days(7);

/// A subject in a stage.
#[derive(Clone, Debug)]
pub struct Finding {
    pub subject: Subject,
    pub reached: Reached,
    pub expires_at: Option<DateTime<Utc>>,
    /// The current name, for the resolution of a deleted subject.
    pub name: Option<Name>,
    /// Time at which it entered the stage, if known.
    pub since: Option<DateTime<Utc>>,
    /// An acknowledgement silences this stage.
    pub muted: bool,
    /// The latest end of a silence while the finding was open, and the reason for the alert that
    /// follows.
    pub silence_ended: Option<(DateTime<Utc>, Reason)>,
}

/// Everything in a stage that passes the filters of a notifier, ordered by subject.
pub fn findings(evaluation: &Evaluation<'_>, routing: &Routing) -> Vec<Finding> {
    if !routing.selects(evaluation.organization) {
        return Vec::new();
    }
    let certificates = evaluation
        .in_stage
        .iter()
        .filter(|assessment| evaluation.concerns(routing, assessment))
        .filter_map(|assessment| Some((assessment, assessment.open()?)))
        .filter(|(_, reached)| reached.severity >= routing.min_severity)
        .map(|(assessment, reached)| of_certificate(assessment, reached, routing, evaluation.now));
    let projects = evaluation
        .uncovered
        .iter()
        .filter(|one| !one.ignored)
        .filter(|one| evaluation.concerns_project(routing, ProjectKind::Uncovered, one.project))
        .map(|one| of_project(one, evaluation));
    let unprotected = evaluation
        .unprotected
        .iter()
        .filter(|one| one.severity >= routing.min_severity)
        .filter(|one| evaluation.concerns_project(routing, ProjectKind::Unprotected, one.project))
        .map(|one| of_protection(one, evaluation.now));
    let after = evaluation.policy.blind_after.unwrap_or_default();
    let of_all = evaluation.concerns_organization(routing);
    let sight = evaluation.blind.as_ref().filter(|_| of_all).map(|blind| of_sight(blind, after));
    let credentials = evaluation
        .credentials
        .iter()
        .filter(|_| of_all)
        .filter_map(|credential| Some((credential, credential.reached.as_ref()?)))
        .filter(|(_, reached)| reached.severity >= routing.min_severity)
        .map(|(credential, reached)| of_credential(credential, reached));
    let contents = evaluation
        .content_findings
        .iter()
        .filter(|(_, assessment)| evaluation.concerns(routing, assessment))
        .map(|(kind, assessment)| of_content(*kind, assessment, evaluation.now))
        .filter(|finding| finding.reached.severity >= routing.min_severity);
    let mut findings = Vec::with_capacity(evaluation.in_stage.len());
    findings.extend(certificates.chain(contents).chain(projects).chain(unprotected));
    findings.extend(sight.into_iter().chain(credentials));
    findings
}

fn of_content(kind: ContentFinding, assessment: &Assessment<'_>, now: DateTime<Utc>) -> Finding {
    let certificate = assessment.certificate;
    Finding {
        subject: kind.subject(certificate.id.clone()),
        reached: kind.reached(),
        expires_at: None,
        name: certificate.name.clone(),
        since: None,
        muted: assessment.acknowledged(now).is_some(),
        silence_ended: None,
    }
}

fn of_credential(credential: &Credential<'_>, reached: &Reached) -> Finding {
    Finding {
        subject: credential.subject(),
        reached: reached.clone(),
        expires_at: Some(credential.expires_at),
        name: credential.name().cloned(),
        since: reached.stage.since(Some(credential.expires_at)),
        muted: false,
        silence_ended: None,
    }
}

fn of_sight(blind: &Blind<'_>, after: TimeDelta) -> Finding {
    Finding {
        subject: Subject::Sight,
        reached: blind.reached(),
        expires_at: None,
        name: None,
        since: blind.unseen.first().map(|unseen| unseen.since + after),
        muted: false,
        silence_ended: None,
    }
}

fn of_certificate(
    assessment: &Assessment<'_>,
    reached: &Reached,
    routing: &Routing,
    now: DateTime<Utc>,
) -> Finding {
    let certificate = assessment.certificate;
    Finding {
        subject: Subject::Certificate(certificate.id.clone()),
        reached: reached.clone(),
        expires_at: certificate.expires_at,
        name: certificate.name.clone(),
        since: reached.stage.since(certificate.expires_at),
        muted: assessment.acknowledged(now).is_some() && !reached.last,
        silence_ended: silence_ended(assessment, routing, now),
    }
}

fn of_project(uncovered: &Uncovered<'_>, evaluation: &Evaluation<'_>) -> Finding {
    let active = evaluation.active_in(&uncovered.project.id);
    Finding {
        subject: Subject::Project(uncovered.project.id.clone()),
        reached: uncovered.reached(),
        expires_at: None,
        name: uncovered.project.name.clone(),
        since: coverage::uncovered_from(active, evaluation.now),
        muted: false,
        silence_ended: None,
    }
}

fn of_protection(unprotected: &Unprotected<'_>, now: DateTime<Utc>) -> Finding {
    let lapsed = unprotected.acknowledgement.and_then(|one| one.lapsed_at(now));
    Finding {
        subject: Subject::Protection(unprotected.project.id.clone()),
        reached: unprotected.reached(),
        expires_at: None,
        name: unprotected.project.name.clone(),
        since: unprotected.since,
        muted: unprotected.acknowledged(now).is_some(),
        silence_ended: lapsed.map(|at| (at, Reason::AckEnded)),
    }
}

/// The later end of an ignore rule or an acknowledgement that silenced an alert of this notifier.
fn silence_ended(
    assessment: &Assessment<'_>,
    routing: &Routing,
    now: DateTime<Utc>,
) -> Option<(DateTime<Utc>, Reason)> {
    let certificate = assessment.certificate;
    let reached = assessment.reached.as_ref()?;
    let silenced = |at: &DateTime<Utc>| certificate.created_at.is_none_or(|made| made < *at);
    let stage_then = |at: DateTime<Utc>| match (reached.stage, certificate.expires_at) {
        (Stage::Within(_) | Stage::Expired, Some(end)) => assessment.ruling.steps.reached(end, at),
        // Other stages do not depend on the expiry: assume that the stage was the same.
        _ => Some(reached.clone()),
    };
    let stage_sent_then = |at: DateTime<Utc>| {
        stage_then(at).filter(|reached| reached.severity >= routing.min_severity)
    };
    let ignored = assessment
        .ruling
        .lapsed
        .map(|(_, ignore)| ignore.until)
        .filter(silenced)
        .filter(|at| stage_sent_then(*at).is_some())
        .map(|at| (at, Reason::IgnoreEnded));
    let acknowledged = assessment
        .acknowledgement
        .filter(|one| same_expiry(one.expires_at, certificate.expires_at))
        .and_then(|one| one.lapsed_at(now))
        .filter(silenced)
        // An acknowledgement does not silence the last threshold.
        .filter(|at| stage_sent_then(*at).is_some_and(|reached| !reached.last))
        .map(|at| (at, Reason::AckEnded));
    ignored.into_iter().chain(acknowledged).max_by_key(|(at, _)| *at)
}
