//! The reason of a resolution, for each kind of subject.

use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

use super::{
    super::{
        active::Active,
        blindness,
        certificate::{Certificate, CertificateId, Project, ProjectId, same_expiry},
        coverage,
        credential::WatchedKeys,
        evaluate::{Assessment, Evaluation},
        inventory::Inventory,
        routing::Routing,
        subject::{ProjectKind, Subject},
        threshold::Stage,
    },
    Reason,
    decide::Transition,
    sent::SentAlert,
};

/// The reason for the resolution of an alert for a notifier; `None` while its data is stale.
pub(super) fn end(
    subject: &Subject,
    sent: &SentAlert,
    transition: &Transition<'_>,
    routing: &Routing,
) -> Option<Reason> {
    let Transition::Watched { before, was_active, after } = transition else {
        return Some(Reason::Unwatched);
    };
    match subject {
        Subject::Certificate(id) => {
            let was_active = was_active.get_or_init(|| Active::of(before));
            end_of_certificate(id, sent, (before, was_active, after), routing)
        }
        Subject::Mismatch(id) | Subject::Fitness(id) => {
            let was_active = was_active.get_or_init(|| Active::of(before));
            end_of_content((subject, id), sent, (before, was_active, after), routing)
        }
        Subject::Project(id) => end_of_project(id, before, after, routing),
        Subject::Protection(id) => Some(end_of_protection(id, sent, after, routing)),
        Subject::Sight => Some(end_of_blindness(sent, before, after)),
        Subject::AdminKey(_) | Subject::ClientIdentity => {
            Some(end_of_credential(subject, sent, after))
        }
        // These have no organization: `domain::failing` and `domain::drill` resolve them.
        Subject::Notifier(_) | Subject::Proof(_) | Subject::Drill | Subject::Summary => {
            Some(Reason::Unwatched)
        }
    }
}

/// An inventory with its active certificates, and the evaluation after it.
type BeforeAndAfter<'a> = (&'a Inventory, &'a Active<'a>, &'a Evaluation<'a>);

fn end_of_certificate(
    id: &CertificateId,
    sent: &SentAlert,
    (before, was_active, after): BeforeAndAfter<'_>,
    routing: &Routing,
) -> Option<Reason> {
    let assessment = after.assessment(id);
    let assessment = assessment.as_ref();
    let changed = |now: &Certificate| {
        let was = before.certificates.get(id).and_then(|was| was.content.as_ref());
        changed(sent, now.expires_at).map(|reason| match (was, &now.content) {
            // The content is no longer requested, and the reported date is in use again.
            (Some(_), None) => Reason::PolicyChanged,
            // The certificate is the same: only its reported date has changed.
            (was, Some(now)) if was.is_none_or(|was| was.fingerprint == now.fingerprint) => {
                Reason::Corrected
            }
            _ => reason,
        })
    };
    if let Some(assessment) = assessment
        && let Some(reached) = &assessment.reached
    {
        // Still in a stage: ignored, or no longer selected by this notifier.
        let certificate = assessment.certificate;
        return Some(if assessment.ruling.ignored.is_some() {
            Reason::Ignored
        } else if !after.concerns(routing, assessment) {
            end_of_concern(assessment, (before, was_active, after), routing, sent.again)
        } else if let Some(reason) = changed(certificate) {
            reason
        } else if sent.stage == Stage::NotYetValid && certificate.has_started(after.now) {
            Reason::Corrected
        } else if reached.severity == sent.severity {
            Reason::Unwatched
        } else if assessment.replaced && reached.severity < sent.severity {
            // A successor lowered the severity below the notifier's minimum.
            Reason::Replaced
        } else {
            Reason::PolicyChanged
        });
    }
    if let Some(assessment) = assessment {
        // These stages apply only to active certificates.
        let of_active = matches!(sent.stage, Stage::UnknownExpiry | Stage::NotYetValid);
        if assessment.is_active() || (after.policy.include_inactive && !of_active) {
            return Some(match changed(assessment.certificate) {
                Some(reason) => reason,
                None if sent.stage == Stage::NotYetValid => Reason::Corrected,
                None => Reason::PolicyChanged,
            });
        }
        if after.is_stale(id) {
            return None;
        }
    }
    Some(end_of_activity(id, (before, was_active, after)))
}

/// The reason of a certificate that is still active, but no longer concerns the notifier: no longer
/// active in the projects that the notifier selects, or they are no longer selected.
/// `was_held_back` is whether an earlier scan may have held back the resolution.
fn end_of_concern(
    assessment: &Assessment<'_>,
    (before, was_active, after): BeforeAndAfter<'_>,
    routing: &Routing,
    was_held_back: bool,
) -> Reason {
    let certificate = assessment.certificate;
    let active_in: BTreeSet<&ProjectId> = assessment.projects.iter().map(|one| &one.id).collect();
    let left_by_selection = |projects: &[&'_ Project]| -> Vec<&Project> {
        // With their present names.
        let projects = projects.iter().filter(|one| !active_in.contains(&one.id)).map(|one| {
            let known = after.inventory.projects.get(&one.id);
            known.or(before.projects.get(&one.id))
        });
        let projects: Vec<&Project> = projects.flatten().collect();
        let selected = after.selected_projects(routing, certificate, &projects);
        let left = projects.into_iter().zip(selected);
        left.filter_map(|(project, selected)| selected.then_some(project)).collect()
    };
    let mut left = left_by_selection(&was_active.projects_of(&certificate.id));
    if left.is_empty() && was_held_back {
        left = left_by_selection(&before.projects_that_list(&certificate.id));
    }
    match left.is_empty() {
        true => end_of_selection(routing, routing.concerns(&assessment.projects)),
        false => end_in_projects(&certificate.id, &left, before, after),
    }
}

/// The reason of an alert that is still open, but no longer selected by this notifier.
/// `is_selected` is whether its filter for projects still selects it.
fn end_of_selection(routing: &Routing, is_selected: bool) -> Reason {
    match is_selected && !routing.audience.is_everyone() {
        true => Reason::Reassigned,
        false => Reason::Unwatched,
    }
}

/// The reason of a project whose alert is still open, but no longer selected by this notifier.
fn end_of_project_selection(
    kind: ProjectKind,
    project: &Project,
    after: &Evaluation<'_>,
    routing: &Routing,
) -> Reason {
    let is_of_others = !after.concerns_project(routing, kind, project);
    end_of_selection(routing, is_of_others && routing.concerns(&[project]))
}

/// The reason of a certificate that is no longer active.
fn end_of_activity(id: &CertificateId, (before, was_active, after): BeforeAndAfter<'_>) -> Reason {
    let mut was_in = was_active.projects_of(id);
    if was_in.is_empty() {
        // An earlier, incomplete scan already found it inactive.
        was_in = before.projects_that_list(id).into();
    }
    end_in_projects(id, &was_in, before, after)
}

/// The reason of a certificate that is no longer active in these projects.
fn end_in_projects(
    id: &CertificateId,
    was_in: &[&Project],
    before: &Inventory,
    after: &Evaluation<'_>,
) -> Reason {
    let still_there: Vec<&ProjectId> = was_in
        .iter()
        .map(|project| &project.id)
        .filter(|project| after.inventory.projects.contains_key(project))
        .collect();
    if !was_in.is_empty() && still_there.is_empty() {
        return Reason::Archived;
    }
    let replaced = !still_there.is_empty()
        && before.certificates.get(id).is_some_and(|gone| {
            let margin = after.policy.ruling(gone, was_in, &[], after.now).steps.widest();
            still_there.iter().all(|project| {
                let active = after.active_in(project);
                coverage::successor(gone, active, margin, after.now).is_some()
            })
        });
    match (replaced, after.inventory.certificates.contains_key(id)) {
        (true, _) => Reason::Replaced,
        (false, true) => Reason::Deactivated,
        (false, false) => Reason::Deleted,
    }
}

/// `None` while the certificate may be active in an unreadable list, and while the API reports no
/// expiry to compare.
fn end_of_content(
    (subject, id): (&Subject, &CertificateId),
    sent: &SentAlert,
    (before, was_active, after): BeforeAndAfter<'_>,
    routing: &Routing,
) -> Option<Reason> {
    let assessment = match after.assessment(id) {
        Some(assessment) if assessment.is_active() => assessment,
        Some(_) if after.is_stale(id) => return None,
        Some(_) | None => return Some(end_of_activity(id, (before, was_active, after))),
    };
    let certificate = assessment.certificate;
    if assessment.ruling.ignored.is_some() {
        return Some(Reason::Ignored);
    }
    if certificate.content.is_none() {
        // Contents are no longer requested.
        return Some(Reason::PolicyChanged);
    }
    let mut findings = after.content_findings.iter();
    if findings.any(|(kind, one)| kind.subject(one.certificate.id.clone()) == *subject) {
        // Open, but the notifier no longer selects it.
        return Some(match after.concerns(routing, &assessment) {
            true => Reason::Unwatched,
            false => end_of_concern(&assessment, (before, was_active, after), routing, sent.again),
        });
    }
    let is_comparable = certificate.reported().expires_at.is_some();
    (matches!(subject, Subject::Fitness(_)) || is_comparable).then_some(Reason::Corrected)
}

/// The reason of a resolution if the expiry has changed since the alert.
fn changed(sent: &SentAlert, now: Option<DateTime<Utc>>) -> Option<Reason> {
    match (sent.expires_at, now) {
        (sent, now) if same_expiry(sent, now) => None,
        (Some(sent), Some(now)) if now > sent => Some(Reason::Renewed),
        (Some(_) | None, _) => Some(Reason::Corrected),
    }
}

fn end_of_credential(subject: &Subject, sent: &SentAlert, after: &Evaluation<'_>) -> Reason {
    if let Some(credential) = after.credential(subject) {
        let changed = changed(sent, Some(credential.expires_at));
        return changed.unwrap_or(match &credential.reached {
            // Still in a stage, but no longer selected by this notifier.
            Some(reached) if reached.severity == sent.severity => Reason::Unwatched,
            Some(_) | None => Reason::PolicyChanged,
        });
    }
    let keys = after.inventory.admin_keys.as_ref();
    match subject {
        Subject::AdminKey(id) => match keys.and_then(|listed| listed.keys.get(id)) {
            _ if after.policy.admin_keys == WatchedKeys::Off => Reason::Unwatched,
            Some(key) if key.expires_at.is_none() => Reason::Corrected,
            // certvigil uses another key now.
            Some(_) => Reason::Replaced,
            None => Reason::Deleted,
        },
        Subject::ClientIdentity
        | Subject::Certificate(_)
        | Subject::Mismatch(_)
        | Subject::Fitness(_)
        | Subject::Project(_)
        | Subject::Protection(_)
        | Subject::Sight
        | Subject::Notifier(_)
        | Subject::Proof(_)
        | Subject::Drill
        | Subject::Summary => Reason::Unwatched,
    }
}

fn end_of_blindness(sent: &SentAlert, before: &Inventory, after: &Evaluation<'_>) -> Reason {
    let still = |limit| blindness::blind(before, limit, after.now).is_some();
    match after.policy.blind_after {
        // Still blind, but the notifier no longer selects the organization.
        _ if after.blind.is_some() => Reason::Unwatched,
        // The previous inventory would still be blind now: the lists were read in this scan.
        Some(limit) if still(limit) => Reason::Corrected,
        // The resolution of a flapping alert was held back; the lists were read meanwhile.
        Some(_) if sent.again => Reason::Corrected,
        Some(_) | None => Reason::PolicyChanged,
    }
}

/// `None` while an unreadable list may have an active certificate.
fn end_of_project(
    id: &ProjectId,
    before: &Inventory,
    after: &Evaluation<'_>,
    routing: &Routing,
) -> Option<Reason> {
    let Some(project) = after.inventory.projects.get(id) else {
        return Some(Reason::Archived);
    };
    if let Some(uncovered) = after.uncovered(id) {
        return Some(match uncovered.ignored {
            true => Reason::Ignored,
            false => end_of_project_selection(ProjectKind::Uncovered, project, after, routing),
        });
    }
    let active = after.active_in(id);
    if active.is_empty() {
        let lost = after.inventory.protection_lost.get(id);
        return lost.is_none_or(|lost| lost.certain).then_some(Reason::Deactivated);
    }
    let was_active = before.active_in_project(id);
    let valid = || active.iter().filter(|certificate| certificate.is_valid(after.now));
    let known = |id: &CertificateId| was_active.iter().find(|was| was.id == *id);
    Some(if valid().any(|one| known(&one.id).is_none()) {
        Reason::Replaced
    } else if valid().any(|one| known(&one.id).is_some_and(|was| was.expires_at < one.expires_at)) {
        Reason::Renewed
    } else {
        Reason::Corrected
    })
}

fn end_of_protection(
    id: &ProjectId,
    sent: &SentAlert,
    after: &Evaluation<'_>,
    routing: &Routing,
) -> Reason {
    let Some(project) = after.inventory.projects.get(id) else {
        return Reason::Archived;
    };
    if !after.active_in(id).is_empty() {
        return Reason::Protected;
    }
    match after.unprotected(id) {
        // Still unprotected, but with another severity.
        Some(one) if one.severity != sent.severity => Reason::PolicyChanged,
        Some(_) => end_of_project_selection(ProjectKind::Unprotected, project, after, routing),
        None if after.policy.protection.ignored.match_project(project) => Reason::Ignored,
        None => Reason::PolicyChanged,
    }
}
