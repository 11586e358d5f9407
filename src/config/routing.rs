//! The filters of notifiers, and the check that every organization is selected.

use super::{
    Notifiers, Organization,
    check::Checker,
    value::{List, Selection, Written, selected},
};
use crate::domain::{owner::Audience, routing::Routing, threshold::Severity, words::words};

words! {
    /// What a notifier sends in addition to alerts (`events`).
    Extra {
        Changes = "changes",
    }
}

/// The filters of a notifier from the keys that every kind has.
pub fn routing(
    min_severity: &Option<Written<Severity>>,
    organizations: &Option<Selection>,
    projects: &Option<Selection>,
    send_resolved: Option<bool>,
    events: &Option<List<Extra>>,
) -> Routing {
    Routing {
        min_severity: min_severity.as_ref().map_or(Severity::Info, |severity| **severity),
        organizations: selected(organizations),
        projects: selected(projects),
        send_resolved: send_resolved.unwrap_or(true),
        audience: Audience::Everyone,
        changes: events.iter().flat_map(|list| &list.0).any(|event| **event == Extra::Changes),
    }
}

/// Warns about organizations without a notifier, and notifiers without an organization.
pub fn check(checker: &mut Checker<'_>, organizations: &[Organization], notifiers: &Notifiers) {
    // All routes of a notifier select the same organizations.
    let mut notifiers = notifiers.listening();
    notifiers.dedup_by_key(|(name, ..)| *name);
    for (name, routing, _) in &notifiers {
        if !organizations.iter().any(|one| routing.selects(&one.api.organization)) {
            checker.warnings.push(format!(
                "notifier {name}: the key “organizations” matches no configured organization, so \
                 this notifier sends nothing"
            ));
        }
    }
    for organization in organizations {
        let name = &organization.api.organization;
        if !notifiers.iter().any(|(_, routing, _)| routing.selects(name)) {
            checker.warnings.push(format!(
                "organization {name}: no notifier selects it, so its alerts are not sent"
            ));
        }
    }
}
