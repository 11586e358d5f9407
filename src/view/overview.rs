//! One organization: its certificates, projects and credentials, and its latest scan.

use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::BTreeMap;

use super::{CertificateRow, Project, Unreadable, seconds};
use crate::{
    domain::{
        certificate::{AdminKeyId, CertificateId, OrganizationName},
        credential::CredentialKind,
        evaluate::Evaluation,
        scan::ScanRecord,
        text::Name,
        threshold::Severity,
    },
    message::compose::MessageContext,
};

/// One organization, evaluated.
#[derive(Debug)]
pub struct Overview {
    pub organization: OrganizationName,
    /// Least time left first.
    pub certificates: Vec<CertificateRow>,
    /// Uncovered projects first, then by urgency.
    pub projects: Vec<Project>,
    pub credentials: Vec<Credential>,
    /// The latest stored scan.
    pub scan: Option<ScanRecord>,
    /// End of the latest complete scan.
    pub complete_at: Option<DateTime<Utc>>,
    /// The unreadable lists.
    pub faults: Vec<(String, Unreadable)>,
}

/// An admin key, or certvigil's own client certificate.
#[derive(Debug, Serialize)]
pub struct Credential {
    pub organization: OrganizationName,
    pub kind: CredentialKind,
    /// `None` for the client certificate.
    pub id: Option<AdminKeyId>,
    pub name: Option<Name>,
    /// Whether certvigil itself uses it.
    pub own: bool,
    pub expires_at: DateTime<Utc>,
    /// Severity of its stage.
    pub severity: Option<Severity>,
}

impl Overview {
    pub fn of(
        evaluation: &Evaluation<'_>,
        scan: Option<ScanRecord>,
        complete_at: Option<DateTime<Utc>>,
    ) -> Overview {
        let organization = evaluation.organization.clone();
        let inventory = evaluation.inventory;
        let context = MessageContext::without_scan(evaluation);
        let mut projects: Vec<Project> =
            inventory.projects.values().map(|one| Project::of(evaluation, one)).collect();
        projects.sort_by_cached_key(Project::urgency);
        let mut breaks: BTreeMap<&CertificateId, usize> = BTreeMap::new();
        for id in projects.iter().filter_map(|row| row.ended_by.as_ref()) {
            *breaks.entry(id).or_default() += 1;
        }
        let rows = evaluation.assessments().map(|assessment| {
            let row = CertificateRow::of(evaluation, &context, &assessment);
            CertificateRow { breaks: breaks.get(&row.view.id).copied().unwrap_or(0), ..row }
        });
        let mut certificates: Vec<CertificateRow> = rows.collect();
        certificates.sort_by_cached_key(CertificateRow::urgency);
        let credentials = evaluation.credentials.iter().map(|one| Credential {
            organization: organization.clone(),
            kind: one.kind(),
            id: one.id(),
            name: one.name().cloned(),
            own: one.is_own(),
            expires_at: seconds(one.expires_at),
            severity: one.reached.as_ref().map(|reached| reached.severity),
        });
        Overview {
            credentials: credentials.collect(),
            faults: inventory.faults().map(|(scope, why)| (scope, why.into())).collect(),
            organization,
            certificates,
            projects,
            scan,
            complete_at,
        }
    }

    /// The number of projects whose lists were read.
    pub fn projects_read(&self) -> usize {
        self.projects.iter().filter(|row| row.unreadable.is_none()).count()
    }
}

impl Credential {
    /// `the admin key “certvigil” that reads acme`.
    pub fn title(&self) -> String {
        let name = match (&self.name, &self.id) {
            (Some(name), _) => format!(" “{name}”"),
            (None, Some(id)) => format!(" {id}"),
            (None, None) => String::new(),
        };
        let does = if self.own { "that reads" } else { "of" };
        format!("{}{name} {does} {}", self.kind.title(), self.organization)
    }
}
