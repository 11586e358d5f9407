//! The filters of one notifier.

use super::{
    certificate::{OrganizationName, Project},
    owner::Audience,
    selection::Globs,
    threshold::Severity,
};

#[derive(Clone, Debug)]
pub struct Routing {
    pub min_severity: Severity,
    pub organizations: Globs,
    /// Selects matching projects, and certificates that are active in one.
    pub projects: Globs,
    /// Whether it sends resolutions.
    pub send_resolved: bool,
    /// Whether it also sends changes of certificates, whatever its severity.
    pub changes: bool,
    /// Whose alerts it selects.
    pub audience: Audience,
}

impl Routing {
    /// Selects everything.
    pub fn all() -> Routing {
        Routing {
            min_severity: Severity::Info,
            organizations: Globs::all(),
            projects: Globs::all(),
            send_resolved: true,
            changes: false,
            audience: Audience::Everyone,
        }
    }

    pub fn selects(&self, organization: &OrganizationName) -> bool {
        self.organizations.matches(organization.as_str(), None)
    }

    /// Whether it selects a certificate that is active in these projects.
    pub fn concerns(&self, active_in: &[&Project]) -> bool {
        self.projects.is_all()
            || active_in.iter().any(|project| self.projects.match_project(project))
    }
}
