//! The events, and the reasons of alerts.

use super::super::{threshold::Stage, words::words};

words! {
    /// What happened.
    Event {
        CertificateExpiring = "certificate.expiring",
        CertificateExpired = "certificate.expired",
        CertificateNotYetValid = "certificate.not_yet_valid",
        CertificateUnknownExpiry = "certificate.unknown_expiry",
        CertificateResolved = "certificate.resolved",
        ProjectUncovered = "project.uncovered",
        ProjectCovered = "project.covered",
        ProjectUnprotected = "project.unprotected",
        ProjectProtected = "project.protected",
        MonitorBlind = "monitor.blind",
        MonitorRecovered = "monitor.recovered",
        AdminKeyExpiring = "admin_key.expiring",
        AdminKeyExpired = "admin_key.expired",
        AdminKeyResolved = "admin_key.resolved",
        ClientIdentityExpiring = "client_identity.expiring",
        ClientIdentityExpired = "client_identity.expired",
        ClientIdentityResolved = "client_identity.resolved",
        NotifierFailing = "notifier.failing",
        NotifierRecovered = "notifier.recovered",
        Test = "test",
    }
}

impl From<Stage> for Event {
    fn from(stage: Stage) -> Event {
        match stage {
            Stage::UnknownExpiry => Event::CertificateUnknownExpiry,
            Stage::NotYetValid => Event::CertificateNotYetValid,
            Stage::Within(_) => Event::CertificateExpiring,
            Stage::Expired => Event::CertificateExpired,
            Stage::Uncovered => Event::ProjectUncovered,
            Stage::Unprotected => Event::ProjectUnprotected,
            Stage::Blind => Event::MonitorBlind,
            Stage::Failing => Event::NotifierFailing,
        }
    }
}

impl Event {
    /// Whether it says that something is over.
    pub fn is_end(self) -> bool {
        match self {
            Event::CertificateResolved
            | Event::ProjectCovered
            | Event::ProjectProtected
            | Event::MonitorRecovered
            | Event::AdminKeyResolved
            | Event::ClientIdentityResolved
            | Event::NotifierRecovered => true,
            Event::CertificateExpiring
            | Event::CertificateExpired
            | Event::CertificateNotYetValid
            | Event::CertificateUnknownExpiry
            | Event::ProjectUncovered
            | Event::ProjectUnprotected
            | Event::MonitorBlind
            | Event::AdminKeyExpiring
            | Event::AdminKeyExpired
            | Event::ClientIdentityExpiring
            | Event::ClientIdentityExpired
            | Event::NotifierFailing
            | Event::Test => false,
        }
    }
}

words! {
    /// The reason for an alert.
    Reason {
        /// The first alert.
        Opened = "opened",
        /// A tighter stage was entered.
        Stage = "stage",
        /// A repeat is due.
        Repeat = "repeat",
        /// It was ignored until now.
        IgnoreEnded = "ignore_ended",
        /// It was acknowledged until now.
        AckEnded = "ack_ended",
        /// A refresh for a receiver that treats an alert without one as resolved.
        Refresh = "refresh",
        /// An end: another certificate covers every project it was in.
        Replaced = "replaced",
        /// An end: active nowhere now.
        Deactivated = "deactivated",
        /// An end: no list names it any more.
        Deleted = "deleted",
        /// An end: a certificate is active there again.
        Protected = "protected",
        /// Resolved: it expires later than it did at the alert.
        Renewed = "renewed",
        /// An end: all projects that it was active in are archived, or excluded now.
        Archived = "archived",
        /// Resolved: missing data is known now, and healthy.
        Corrected = "corrected",
        /// An end: the thresholds changed, and it is in none now.
        PolicyChanged = "policy_changed",
        /// An end: a rule ignores it now.
        Ignored = "ignored",
        /// An end: it is no longer what this notifier asks for, or the organization is not
        /// configured.
        Unwatched = "unwatched",
    }
}
