//! The filters of one notifier.

use super::{
    certificate::{OrganizationName, Project},
    selection::Globs,
    threshold::Severity,
};

/// The filters of a notifier.
#[derive(Clone, Debug)]
pub struct Routing {
    pub min_severity: Severity,
    pub organizations: Globs,
    /// Told only of certificates that are active in a matching project.
    pub projects: Globs,
    /// Whether it sends resolutions.
    pub send_resolved: bool,
}

impl Routing {
    /// Everything.
    pub fn all() -> Routing {
        Routing {
            min_severity: Severity::Info,
            organizations: Globs::all(),
            projects: Globs::all(),
            send_resolved: true,
        }
    }

    pub fn selects(&self, organization: &OrganizationName) -> bool {
        self.organizations.matches(organization.as_str(), None)
    }

    /// Whether a certificate that is active in these projects is its business.
    pub fn concerns(&self, active_in: &[&Project]) -> bool {
        self.projects.is_all()
            || active_in.iter().any(|project| self.projects.match_project(project))
    }
}
