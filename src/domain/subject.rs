//! What an alert is about.

use std::fmt;

use super::certificate::{CertificateId, ProjectId};

/// What an alert is about. As text (`certificate:cert_abc`) in the ledger and the outbox.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    Certificate(CertificateId),
    /// A project's having a valid certificate at all.
    Project(ProjectId),
    /// That certvigil sees the organization.
    Sight,
}

impl Subject {
    /// Reads what [`fmt::Display`] writes; `None` for any other text.
    pub fn parse(text: &str) -> Option<Subject> {
        let (kind, id) = text.split_once(':')?;
        match kind {
            "certificate" => CertificateId::parse(id).ok().map(Subject::Certificate),
            "project" => ProjectId::parse(id).ok().map(Subject::Project),
            "monitor" if id == "sight" => Some(Subject::Sight),
            _ => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Certificate(id) => write!(f, "certificate:{id}"),
            Subject::Project(id) => write!(f, "project:{id}"),
            Subject::Sight => f.write_str("monitor:sight"),
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
            Subject::Sight,
        ];
        for subject in subjects {
            assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
        }
        assert_eq!(Subject::parse("monitor:acme"), None);
    }
}
