//! The subjects of alerts.

use std::fmt;

use super::certificate::{AdminKeyId, CertificateId, ProjectId};

/// The subject of an alert. The ledger and the outbox store it as text (`certificate:cert_abc`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    Certificate(CertificateId),
    /// Whether the content of a certificate agrees with the API.
    Mismatch(CertificateId),
    /// Whether a certificate can work as a trust anchor.
    Fitness(CertificateId),
    /// Whether a project has a valid certificate.
    Project(ProjectId),
    /// Whether a project has an active certificate, and so enforces mutual TLS.
    Protection(ProjectId),
    /// Whether certvigil can read the lists of the organization.
    Sight,
    AdminKey(AdminKeyId),
    /// The client certificate that certvigil presents to the API.
    ClientIdentity,
    /// Whether a notifier delivers. It belongs to no organization.
    Notifier(String),
    /// Whether a person reads what a notifier sends. It belongs to no organization.
    Proof(String),
    /// A drill. It belongs to no organization.
    Drill,
    /// A summary. It belongs to no organization.
    Summary,
}

impl Subject {
    /// Parses the [`fmt::Display`] form; `None` for any other text.
    pub fn parse(text: &str) -> Option<Subject> {
        let (kind, id) = text.split_once(':')?;
        match kind {
            "certificate" => CertificateId::parse(id).ok().map(Subject::Certificate),
            "mismatch" => CertificateId::parse(id).ok().map(Subject::Mismatch),
            "fitness" => CertificateId::parse(id).ok().map(Subject::Fitness),
            "project" => ProjectId::parse(id).ok().map(Subject::Project),
            "protection" => ProjectId::parse(id).ok().map(Subject::Protection),
            "monitor" if id == "sight" => Some(Subject::Sight),
            "monitor" if id == "client_identity" => Some(Subject::ClientIdentity),
            "admin_key" => AdminKeyId::parse(id).ok().map(Subject::AdminKey),
            "monitor" if id == "drill" => Some(Subject::Drill),
            "monitor" if id == "summary" => Some(Subject::Summary),
            "proof" => Some(Subject::Proof(id.to_owned())),
            "notifier" => Some(Subject::Notifier(id.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Certificate(id) => write!(f, "certificate:{id}"),
            Subject::Mismatch(id) => write!(f, "mismatch:{id}"),
            Subject::Fitness(id) => write!(f, "fitness:{id}"),
            Subject::Project(id) => write!(f, "project:{id}"),
            Subject::Protection(id) => write!(f, "protection:{id}"),
            Subject::Sight => f.write_str("monitor:sight"),
            Subject::AdminKey(id) => write!(f, "admin_key:{id}"),
            Subject::ClientIdentity => f.write_str("monitor:client_identity"),
            Subject::Notifier(name) => write!(f, "notifier:{name}"),
            Subject::Proof(name) => write!(f, "proof:{name}"),
            Subject::Drill => f.write_str("monitor:drill"),
            Subject::Summary => f.write_str("monitor:summary"),
        }
    }
}

/// The kinds of alerts about projects. All projects of a kind share one alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectKind {
    /// Without a valid certificate.
    Uncovered,
    /// Without an active certificate.
    Unprotected,
}

impl ProjectKind {
    pub const ALL: [ProjectKind; 2] = [ProjectKind::Uncovered, ProjectKind::Unprotected];

    /// The project that a subject of this kind is about.
    pub fn of(self, subject: &Subject) -> Option<&ProjectId> {
        match (self, subject) {
            (ProjectKind::Uncovered, Subject::Project(id))
            | (ProjectKind::Unprotected, Subject::Protection(id)) => Some(id),
            (ProjectKind::Uncovered | ProjectKind::Unprotected, _) => None,
        }
    }

    pub fn subject(self, id: ProjectId) -> Subject {
        match self {
            ProjectKind::Uncovered => Subject::Project(id),
            ProjectKind::Unprotected => Subject::Protection(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_parsed_from_its_text_form() {
        let subjects = [
            Subject::Certificate(CertificateId::parse("cert_a:b").unwrap()),
            Subject::Mismatch(CertificateId::parse("cert_a").unwrap()),
            Subject::Fitness(CertificateId::parse("cert_a").unwrap()),
            Subject::Project(ProjectId::parse("proj_1").unwrap()),
            Subject::Protection(ProjectId::parse("proj_1").unwrap()),
            Subject::Sight,
            Subject::AdminKey(AdminKeyId::parse("key_1").unwrap()),
            Subject::ClientIdentity,
            Subject::Notifier("ops".to_owned()),
            Subject::Proof("ops".to_owned()),
            Subject::Drill,
            Subject::Summary,
        ];
        for subject in subjects {
            assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
        }
        assert_eq!(Subject::parse("monitor:acme"), None);
    }
}
