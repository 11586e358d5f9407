//! The events of alerts.

use crate::domain::{threshold::Stage, words::words};

words! {
    Event {
        CertificateExpiring = "certificate.expiring",
        CertificateExpired = "certificate.expired",
        CertificateNotYetValid = "certificate.not_yet_valid",
        CertificateUnknownExpiry = "certificate.unknown_expiry",
        CertificateMismatch = "certificate.mismatch",
        CertificateUnfit = "certificate.unfit",
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
        NotifierUnproven = "notifier.unproven",
        NotifierProven = "notifier.proven",
        Drill = "drill",
        DrillEnded = "drill.ended",
        Summary = "summary",
        CertificatesChanged = "certificates.changed",
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
            Stage::Unproven => Event::NotifierUnproven,
            Stage::Mismatch => Event::CertificateMismatch,
            Stage::Unfit => Event::CertificateUnfit,
        }
    }
}

impl Event {
    /// Whether it is a resolution.
    pub fn is_resolution(self) -> bool {
        match self {
            Event::CertificateResolved
            | Event::ProjectCovered
            | Event::ProjectProtected
            | Event::MonitorRecovered
            | Event::AdminKeyResolved
            | Event::ClientIdentityResolved
            | Event::NotifierRecovered
            | Event::NotifierProven
            | Event::DrillEnded => true,
            Event::CertificateExpiring
            | Event::CertificateExpired
            | Event::CertificateNotYetValid
            | Event::CertificateUnknownExpiry
            | Event::CertificateMismatch
            | Event::CertificateUnfit
            | Event::CertificatesChanged
            | Event::ProjectUncovered
            | Event::ProjectUnprotected
            | Event::MonitorBlind
            | Event::AdminKeyExpiring
            | Event::AdminKeyExpired
            | Event::ClientIdentityExpiring
            | Event::ClientIdentityExpired
            | Event::NotifierFailing
            | Event::NotifierUnproven
            | Event::Drill
            | Event::Summary
            | Event::Test => false,
        }
    }
}
