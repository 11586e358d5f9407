//! What an alert is about.

use std::fmt;

use super::certificate::{AdminKeyId, CertificateId, ProjectId};

/// What an alert is about. As text (`certificate:cert_abc`) in the ledger and the outbox.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    Certificate(CertificateId),
    /// A project's having a valid certificate at all.
    Project(ProjectId),
    /// That a project enforces mutual TLS, since a certificate is active there.
    Protection(ProjectId),
    /// That certvigil sees the organization.
    Sight,
    AdminKey(AdminKeyId),
    /// The client certificate that certvigil itself shows to the API.
    ClientIdentity,
    /// That a notifier gets through. It is of no organization.
    Notifier(String),
}

impl Subject {
    /// Reads what [`fmt::Display`] writes; `None` for any other text.
    pub fn parse(text: &str) -> Option<Subject> {
        let (kind, id) = text.split_once(':')?;
        match kind {
            "certificate" => CertificateId::parse(id).ok().map(Subject::Certificate),
            "project" => ProjectId::parse(id).ok().map(Subject::Project),
            "protection" => ProjectId::parse(id).ok().map(Subject::Protection),
            "monitor" if id == "sight" => Some(Subject::Sight),
            "monitor" if id == "client_identity" => Some(Subject::ClientIdentity),
            "admin_key" => AdminKeyId::parse(id).ok().map(Subject::AdminKey),
            "notifier" => Some(Subject::Notifier(id.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Certificate(id) => write!(f, "certificate:{id}"),
            Subject::Project(id) => write!(f, "project:{id}"),
            Subject::Protection(id) => write!(f, "protection:{id}"),
            Subject::Sight => f.write_str("monitor:sight"),
            Subject::AdminKey(id) => write!(f, "admin_key:{id}"),
            Subject::ClientIdentity => f.write_str("monitor:client_identity"),
            Subject::Notifier(name) => write!(f, "notifier:{name}"),
        }
    }
}

/// The alerts about projects: all projects of a kind share one.
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
    fn a_subject_is_read_as_it_was_written() {
        let subjects = [
            Subject::Certificate(CertificateId::parse("cert_a:b").unwrap()),
            Subject::Project(ProjectId::parse("proj_1").unwrap()),
            Subject::Protection(ProjectId::parse("proj_1").unwrap()),
            Subject::Sight,
            Subject::AdminKey(AdminKeyId::parse("key_1").unwrap()),
            Subject::ClientIdentity,
            Subject::Notifier("ops".to_owned()),
        ];
        for subject in subjects {
            assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
        }
        assert_eq!(Subject::parse("monitor:acme"), None);
    }
}
