//! The rotation of one certificate, step by step, in each scope in which it is active.

use super::RotationStep;
use crate::domain::{
    certificate::{Certificate, CertificateId, Project},
    coverage,
    evaluate::{Assessment, Evaluation},
    words::words,
};
use std::collections::BTreeMap;

words! {
    /// The progress of a step.
    Progress {
        Done = "done",
        /// It can be done now.
        Next = "next",
        /// Other steps come first.
        Later = "later",
        /// The lists do not show it.
        Unseen = "unknown",
    }
}

/// Where a certificate is activated and deactivated.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    Organization,
    Project(&'a Project),
}

/// A place in which the certificate is active.
#[derive(Clone, Copy, Debug)]
pub struct PlaceProgress<'a> {
    pub place: Place<'a>,
    /// The successor, active here or inherited.
    pub successor: Option<&'a Certificate>,
    /// Without a successor: the certificate to activate.
    pub candidate: Option<&'a Certificate>,
    /// Whether the latest scan read its lists.
    pub is_read: bool,
    /// Whether the certificate can be deactivated here: the lists were read, and the successor is
    /// valid already.
    pub can_deactivate: bool,
}

/// The rotation of one certificate.
#[derive(Debug)]
pub struct Plan<'a> {
    pub certificate: &'a Certificate,
    /// The places in which it is active, the organization first.
    pub places: Vec<PlaceProgress<'a>>,
    /// Possible successors, the likeliest first.
    pub candidates: Vec<&'a Certificate>,
    /// Whether the latest scan was complete.
    pub is_complete: bool,
    pub expired: bool,
    /// Inactive, and replaced or expired.
    leftover: bool,
}

impl<'a> Plan<'a> {
    /// The successor in any place, otherwise the likeliest candidate.
    pub fn successor(&self) -> Option<&'a Certificate> {
        let known = self.places.iter().find_map(|one| one.successor);
        known.or(self.candidates.first().copied())
    }

    /// Whether the clients of the certificate pass its successors, too; `None` if that is unknown in
    /// a place.
    pub fn clients_pass(&self) -> Option<bool> {
        let successors = self.places.iter().map(|one| one.successor.or(one.candidate));
        let mut known = successors.map(|one| self.certificate.signs_as(one?));
        known.try_fold(true, |all, one| Some(all && one?))
    }

    pub fn progress(&self, step: RotationStep) -> Progress {
        let gone = self.places.is_empty();
        let without = self.places.iter().filter(|one| one.successor.is_none()).count();
        let begun = without < self.places.len();
        match step {
            RotationStep::Upload if self.successor().is_some() || self.leftover => Progress::Done,
            RotationStep::Upload => Progress::Next,
            RotationStep::Activate if without == 0 => Progress::Done,
            RotationStep::Activate if self.candidates.is_empty() => Progress::Later,
            RotationStep::Activate => Progress::Next,
            RotationStep::MoveClients if gone || self.expired => Progress::Done,
            RotationStep::MoveClients if without == 0 && self.clients_pass() == Some(true) => {
                Progress::Done
            }
            RotationStep::MoveClients if begun => Progress::Unseen,
            RotationStep::MoveClients => Progress::Later,
            RotationStep::Deactivate if gone => Progress::Done,
            RotationStep::Deactivate if self.places.iter().any(|one| one.can_deactivate) => {
                Progress::Next
            }
            RotationStep::Deactivate => Progress::Later,
            RotationStep::Delete if self.leftover => Progress::Next,
            RotationStep::Delete if gone => Progress::Unseen,
            RotationStep::Delete => Progress::Later,
        }
    }
}

impl<'a> Evaluation<'a> {
    /// Plans the rotation of a certificate; `chosen` is the successor that the user named.
    pub fn plan(&self, assessment: &Assessment<'a>, chosen: Option<&'a Certificate>) -> Plan<'a> {
        let certificate = assessment.certificate;
        let end = certificate.expires_at.unwrap_or(self.now);
        let margin = assessment.ruling.steps.widest();
        let takes_over = |active: &[&'a Certificate]| match chosen {
            Some(chosen) => active.iter().copied().find(|one| one.id == chosen.id),
            None => coverage::successor_at(certificate, end, active, margin, self.now),
        };
        let inventory = self.inventory;
        let inherited = inventory.organization.iter().flat_map(|listing| listing.list.active());
        let inherited: Vec<&Certificate> =
            inherited.filter_map(|id| inventory.certificates.get(id)).map(AsRef::as_ref).collect();
        let own = |project: &&Project| {
            let listing = inventory.listings.get(&project.id);
            listing.is_some_and(|listing| listing.list.has_active(&certificate.id))
        };
        let organization = assessment.organization_wide.then_some(Place::Organization);
        let projects = inventory.projects.values().filter(own).map(Place::Project);
        let active = |place: Place<'a>| match place {
            Place::Organization => inherited.as_slice(),
            Place::Project(project) => self.active_in(&project.id),
        };
        let known: Vec<(Place<'a>, Option<&Certificate>)> = organization
            .into_iter()
            .chain(projects)
            .map(|place| (place, takes_over(active(place))))
            .collect();
        let candidates = match chosen {
            Some(chosen) => vec![chosen],
            None => {
                let mut used: BTreeMap<&CertificateId, usize> = BTreeMap::new();
                for (_, successor) in &known {
                    successor.iter().for_each(|one| *used.entry(&one.id).or_default() += 1);
                }
                self.candidates(Some(certificate), end, margin, &used)
            }
        };
        let in_place = |(place, successor): (Place<'a>, Option<&'a Certificate>)| {
            let is_active =
                |one: &Certificate| active(place).iter().any(|other| other.id == one.id);
            let candidate = candidates.iter().copied().find(|one| !is_active(one));
            let is_read = match place {
                Place::Organization => inventory.unreadable_organization.is_none(),
                Place::Project(project) => inventory.is_read(&project.id),
            };
            PlaceProgress {
                place,
                successor,
                candidate: candidate.filter(|_| successor.is_none()),
                is_read,
                can_deactivate: is_read && successor.is_some_and(|one| one.is_valid(self.now)),
            }
        };
        Plan {
            certificate,
            places: known.into_iter().map(in_place).collect(),
            is_complete: inventory.is_complete(),
            expired: certificate.expires_at.is_some_and(|at| at <= self.now),
            leftover: self.is_leftover(assessment)
                || (inventory.is_complete()
                    && !assessment.is_active()
                    && chosen.is_some_and(|one| self.is_active(&one.id))),
            candidates,
        }
    }
}
