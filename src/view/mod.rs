//! The fields of certificates, projects and scans, defined once for the pages, the API, `check`,
//! `explain`, the metrics, the calendar and the JSON webhook.
//!
//! [`Overview`] evaluates one organization into rows. Times in documents have whole seconds.

mod certificate;
mod change;
mod content;
mod delivery;
mod explanation;
mod overview;
mod project;
mod scan;

pub use certificate::{
    Candidate, Certificate, CertificateDetails, CertificateRow, ProjectOfCertificate, Successor,
};
pub use change::{Change, lines as change_lines};
pub use content::lines as content_lines;
pub use delivery::Delivery;
pub use explanation::{AlertStatus, Explanation, Notifier, Step, explain, status};
pub use overview::{Credential, Overview};
pub use project::{Coverage, Project, Unreadable};
pub use scan::Scan;

use chrono::{DateTime, SubsecRound, Utc};

/// Truncates a time to whole seconds.
pub fn seconds(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(0)
}
