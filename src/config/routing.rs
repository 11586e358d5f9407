//! The filters of notifiers, and the check that every organization is selected.

use super::{Notifiers, Organization, check::Checker, fault::KeyPath, raw::Strings};
use crate::domain::{routing::Routing, selection::Globs, threshold::Severity};

/// The keys that all kinds of notifiers have.
pub struct Filters<'a> {
    pub min_severity: &'a Option<String>,
    pub organizations: &'a Option<Strings>,
    pub projects: &'a Option<Strings>,
    pub send_resolved: Option<bool>,
}

impl Filters<'_> {
    pub fn routing(&self, checker: &mut Checker<'_>, path: &KeyPath) -> Routing {
        let severity = self
            .min_severity
            .as_ref()
            .and_then(|text| checker.severity(&path.key("min_severity"), Some(text)));
        let mut globs = |key: &str, list: &Option<Strings>| {
            checker.globs(&path.key(key), list.as_ref(), Globs::all())
        };
        Routing {
            min_severity: severity.unwrap_or(Severity::Info),
            organizations: globs("organizations", self.organizations),
            projects: globs("projects", self.projects),
            send_resolved: self.send_resolved.unwrap_or(true),
        }
    }
}

/// Warns of organizations without a notifier, and of notifiers without an organization.
pub fn check(checker: &mut Checker<'_>, organizations: &[Organization], notifiers: &Notifiers) {
    let notifiers = notifiers.listening();
    for (name, routing, _) in &notifiers {
        if !organizations.iter().any(|one| routing.selects(&one.api.organization)) {
            checker.warnings.push(format!(
                "notifier {name}: its key organizations matches no configured organization, so \
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
