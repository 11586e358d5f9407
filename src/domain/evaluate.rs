//! Inventory, policy and the hour in; how each certificate stands, out.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    certificate::{Certificate, Project},
    inventory::Inventory,
    threshold::{Ladder, Reached, Severity, Stage},
};

/// What the user wants to hear of, for one organization.
#[derive(Clone, Debug)]
pub struct Policy {
    pub ladder: Ladder,
    /// Whether certificates that are active nowhere are watched, too.
    pub include_inactive: bool,
}

/// How often one is told again that a certificate is not yet valid, or that its end is unknown.
const WEEKLY: TimeDelta = TimeDelta::days(7);

/// One certificate, as it stands now.
#[derive(Clone, Debug)]
pub struct Assessment<'a> {
    pub certificate: &'a Certificate,
    /// Active for the organization itself, and so inherited by every project.
    pub organization_wide: bool,
    /// The projects in which it is active, its own or inherited.
    pub projects: Vec<&'a Project>,
    /// The stage it is in; `None` where there is nothing to say.
    pub reached: Option<Reached>,
}

impl Assessment<'_> {
    pub fn is_active(&self) -> bool {
        self.organization_wide || !self.projects.is_empty()
    }
}

/// Assesses every certificate, in the order of their ids.
pub fn evaluate<'a>(
    inventory: &'a Inventory,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Vec<Assessment<'a>> {
    inventory
        .certificates
        .values()
        .map(|certificate| {
            let organization_wide = inventory.active_in_organization(&certificate.id);
            let projects = inventory.projects_of(&certificate.id);
            let active = organization_wide || !projects.is_empty();
            let reached = reached(certificate, active, policy, now);
            Assessment { certificate, organization_wide, projects, reached }
        })
        .collect()
}

fn reached(
    certificate: &Certificate,
    active: bool,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Option<Reached> {
    if !active && !policy.include_inactive {
        return None;
    }
    let warning = |stage, label: &str| Reached {
        stage,
        label: label.to_owned(),
        severity: Severity::Warning,
        repeat: Some(WEEKLY),
    };
    match certificate.expires_at {
        None => active.then(|| warning(Stage::UnknownExpiry, "unknown_expiry")),
        Some(expires_at) => policy.ladder.reached(expires_at, now).or_else(|| {
            (active && !certificate.has_started(now))
                .then(|| warning(Stage::NotYetValid, "not_yet_valid"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        inventory::tests::{certificate, everything, reading, start},
        threshold::tests::ladder,
    };

    fn stage(certificate: Certificate, active: bool, include_inactive: bool) -> Option<Stage> {
        let policy = Policy { ladder: ladder(&[30, 7]), include_inactive };
        let days = 1;
        let mut inventory = Inventory::default().merge(
            reading(&[("", Ok(&[])), ("p", Ok(&[("c", days, active)]))]),
            &everything(),
            start(),
        );
        inventory.certificates.insert(certificate.id.clone(), certificate);
        evaluate(&inventory, &policy, start())[0].reached.as_ref().map(|reached| reached.stage)
    }

    #[test]
    fn every_state_has_its_stage() {
        let seven = Stage::Within(7 * 86_400);
        let ahead = Some(start() + TimeDelta::days(1));
        let unknown = || Certificate { expires_at: None, ..certificate("c", 0) };
        let young = |days| Certificate { valid_at: ahead, ..certificate("c", days) };
        let cases = [
            (certificate("c", 400), true, false, None, "healthy"),
            (certificate("c", 5), true, false, Some(seven), "in a stage"),
            (certificate("c", 5), false, false, None, "active nowhere"),
            (certificate("c", 5), false, true, Some(seven), "active nowhere, but watched"),
            (certificate("c", -5), true, false, Some(Stage::Expired), "expired"),
            (unknown(), true, false, Some(Stage::UnknownExpiry), "no end given"),
            (unknown(), false, true, None, "no end given, active nowhere"),
            (young(400), true, false, Some(Stage::NotYetValid), "not yet valid"),
            (young(400), false, true, None, "not yet valid, active nowhere"),
            (young(5), true, false, Some(seven), "its end matters more than its start"),
        ];
        for (certificate, active, include_inactive, expected, reason) in cases {
            assert_eq!(stage(certificate, active, include_inactive), expected, "{reason}");
        }
    }
}
