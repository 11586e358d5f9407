//! The rotation of a trust anchor: the completed steps, and the next one in each project.
//!
//! A rotation has five steps (OpenAI's mutual TLS guide): upload the new certificate, activate it
//! in addition to the old one, move the clients, deactivate the old one, delete it. The lists show
//! every step except the third. An uploaded certificate is a candidate; only an active one is known
//! to be the successor.

pub mod plan;

use chrono::{DateTime, TimeDelta, Utc};
use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    certificate::{Certificate, CertificateId, Project, ProjectId},
    coverage,
    evaluate::{Assessment, Evaluation},
    text::Name,
    words::words,
};

/// The Jaro-Winkler similarity (0 to 1) from which two names count as versions of one name.
const SIMILAR: f64 = 0.9;

words! {
    /// The next step of a rotation.
    RotationStep {
        /// No candidate is uploaded.
        Upload = "upload",
        /// A candidate is uploaded and not active here.
        Activate = "activate",
        /// The successor is active. The lists do not show whether clients have moved.
        MoveClients = "move_clients",
        /// The successor is active, and the old certificate has expired or its clients need nothing.
        Deactivate = "deactivate",
        /// The old certificate is not active in any project.
        Delete = "delete",
    }
}

/// The progress of a certificate's rotation.
#[derive(Debug)]
pub struct Rotation<'a> {
    /// Active for the organization, and therefore inherited by every project.
    pub organization_wide: bool,
    /// The projects in which it is active, in no particular order.
    pub projects: Vec<ProjectRotation<'a>>,
    /// If it is in a stage: possible successors, the likeliest first.
    pub candidates: Vec<&'a Certificate>,
    /// Inactive, and replaced or expired.
    pub leftover: bool,
}

/// The progress of a rotation in one project.
#[derive(Debug)]
pub struct ProjectRotation<'a> {
    pub project: &'a Project,
    /// The successor in this project.
    pub successor: Option<&'a Certificate>,
    /// Without a successor, in a stage: the certificate to activate.
    pub candidate: Option<&'a Certificate>,
    /// Start of the time without a valid certificate; `None` if there is a successor, or if it is
    /// unknown.
    pub uncovered_from: Option<DateTime<Utc>>,
    /// `None` if it is in no stage.
    pub next: Option<RotationStep>,
}

impl Rotation<'_> {
    /// The next step of a certificate that is in a stage or left over. If projects differ, the
    /// earliest step.
    pub fn next(&self) -> Option<RotationStep> {
        let earliest = self.projects.iter().filter_map(|one| one.next).min();
        earliest.or((self.leftover && !self.organization_wide).then_some(RotationStep::Delete))
    }
}

/// The next step for a project without a valid or an active certificate.
#[derive(Clone, Copy, Debug)]
pub struct Remedy<'a> {
    /// The certificate to activate.
    pub candidate: Option<&'a Certificate>,
    pub next: RotationStep,
}

impl<'a> Evaluation<'a> {
    pub fn rotation(&self, assessment: &Assessment<'a>) -> Rotation<'a> {
        let certificate = assessment.certificate;
        // Without a known expiry, a successor has to be valid for long enough from now on.
        let end = certificate.expires_at.unwrap_or(self.now);
        let margin = assessment.ruling.steps.widest();
        // Once for all projects with the same list: there may be thousands.
        let groups: Vec<_> = self
            .active
            .groups_with(&certificate.id)
            .map(|(active, projects)| {
                let takes_over = coverage::successor_at(certificate, end, active, margin, self.now);
                (active, projects, takes_over)
            })
            .collect();
        let mut used: BTreeMap<&CertificateId, usize> = BTreeMap::new();
        for (_, projects, successor) in &groups {
            if let Some(successor) = successor {
                *used.entry(&successor.id).or_default() += projects.len();
            }
        }
        let in_stage = self.ends_soon(assessment);
        // Each search is a pass over all certificates.
        let candidates = match in_stage {
            true => self.candidates(Some(certificate), end, margin, &used),
            false => Vec::new(),
        };
        let expired = certificate.expires_at.is_some_and(|at| at <= self.now);
        let mut in_projects = Vec::with_capacity(assessment.projects.len());
        for (active, projects, successor) in groups {
            let candidate = match successor {
                Some(_) => None,
                None => first_inactive(&candidates, active),
            };
            // Without a known expiry, the end of the coverage is unknown, too.
            let uncovered_from = match (successor, certificate.expires_at) {
                (Some(_), _) | (_, None) => None,
                (None, Some(_)) => coverage::uncovered_from(active, self.now),
            };
            let next = match (successor, candidate) {
                (Some(_), _) if expired => RotationStep::Deactivate,
                // Its clients chain to the successor already.
                (Some(one), _) if one.is_valid(self.now) && has_key_of(certificate, one) => {
                    RotationStep::Deactivate
                }
                (Some(_), _) => RotationStep::MoveClients,
                (None, Some(_)) => RotationStep::Activate,
                (None, None) => RotationStep::Upload,
            };
            in_projects.extend(projects.iter().map(|project| ProjectRotation {
                project,
                successor,
                candidate,
                uncovered_from,
                next: in_stage.then_some(next),
            }));
        }
        Rotation {
            organization_wide: assessment.organization_wide,
            projects: in_projects,
            candidates,
            leftover: self.is_leftover(assessment),
        }
    }

    pub fn remedy(&self, project: &ProjectId) -> Remedy<'a> {
        let last = self.active_in(project).iter().copied().max_by_key(|one| one.expires_at);
        // A certificate in the list of the project was probably active there.
        let listing = self.inventory.listings.get(project);
        let listed = listing.iter().flat_map(|listing| listing.list.iter());
        let listed = listed.map(|(id, _)| (id, 1)).collect();
        let candidates = self.candidates(last, self.now, TimeDelta::zero(), &listed);
        let candidate = first_inactive(&candidates, self.active_in(project));
        Remedy {
            candidate,
            next: if candidate.is_some() { RotationStep::Activate } else { RotationStep::Upload },
        }
    }

    /// Whether a certificate has reached a threshold or expired.
    fn ends_soon(&self, assessment: &Assessment<'_>) -> bool {
        assessment.reached.as_ref().is_some_and(|reached| reached.stage.is_of_expiry())
    }

    /// Whether a certificate is left over: not active in any project, and either expired, or there
    /// is an active certificate with a similar name that is newer and expires later.
    fn is_leftover(&self, assessment: &Assessment<'a>) -> bool {
        let certificate = assessment.certificate;
        // It may be active in an unreadable list.
        if assessment.is_active() || !self.inventory.is_complete() {
            return false;
        }
        let Some(end) = certificate.expires_at else { return false };
        let replaces = |other: &Certificate| {
            other.created_at > certificate.created_at
                && other.expires_at.is_some_and(|at| at > end && at > self.now)
                && are_similar(certificate, other)
        };
        let mut others = self.inventory.certificates.values();
        end <= self.now || others.any(|one| replaces(one) && self.is_active(&one.id))
    }

    /// Possible successors, the likeliest first: those in `used`, then the same key, similar names,
    /// newer uploads and later expiries. A certificate that is active elsewhere for another purpose is excluded:
    /// its clients should not get access here.
    fn candidates(
        &self,
        old: Option<&Certificate>,
        end: DateTime<Utc>,
        margin: TimeDelta,
        used: &BTreeMap<&CertificateId, usize>,
    ) -> Vec<&'a Certificate> {
        let all = self.inventory.certificates.values().map(AsRef::as_ref);
        let fit = all
            .filter(|other| old.is_none_or(|old| old.id != other.id))
            .filter(|other| coverage::outlives(other, end, margin, self.now))
            .filter(|other| {
                used.contains_key(&other.id)
                    || !self.is_active(&other.id)
                    || old.is_some_and(|old| are_similar(old, other) || has_key_of(old, other))
            });
        let rank = |other: &&Certificate| {
            let younger = old.is_none_or(|old| other.created_at > old.created_at);
            let similar = old.is_some_and(|old| are_similar(old, other));
            let used = used.get(&other.id).copied().unwrap_or_default();
            let same_key = old.is_some_and(|old| has_key_of(old, other));
            Reverse((used, same_key, similar, younger, other.expires_at, other.created_at))
        };
        let mut candidates: Vec<&Certificate> = fit.collect();
        candidates.sort_by_cached_key(rank);
        candidates
    }
}

/// The first candidate that is not active in a project with these active certificates.
fn first_inactive<'a>(
    candidates: &[&'a Certificate],
    active: &[&Certificate],
) -> Option<&'a Certificate> {
    let is_active = |id: &CertificateId| active.iter().any(|one| one.id == *id);
    candidates.iter().copied().find(|one| !is_active(&one.id))
}

/// Whether clients of `one` are known to chain to `other`.
fn has_key_of(one: &Certificate, other: &Certificate) -> bool {
    one.signs_as(other) == Some(true)
}

/// Whether two names look like versions of one name: `prod-ca-2026` and `prod-ca-2027`.
fn are_similar(one: &Certificate, other: &Certificate) -> bool {
    let stem = |name: &Name| -> String {
        name.as_str().chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase).collect()
    };
    let (Some(one), Some(other)) = (&one.name, &other.name) else { return false };
    strsim::jaro_winkler(&stem(one), &stem(other)) >= SIMILAR
}
