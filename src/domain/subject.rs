//! What an alert is about.

use serde::{Deserialize, Serialize};
use std::fmt;

use super::certificate::CertificateId;

/// What an alert is about, as the ledger and the outbox name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subject(String);

impl Subject {
    pub fn certificate(id: &CertificateId) -> Subject {
        Subject(format!("certificate:{id}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
