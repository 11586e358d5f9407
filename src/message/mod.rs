//! The notification: one model, stored in the outbox, from which every format is rendered.
//!
//! It holds facts and times. Text that depends on the current time ("in 6 days") is rendered at
//! each attempt.

mod alert;
mod change;
pub mod compose;
pub mod entry;
mod event;
pub mod forecast;
pub mod sample;
pub mod style;
mod summary;
mod views;
pub mod wording;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{
    certificate::OrganizationName, owner::Audience, scan::ScanRecord, threshold::Severity,
};
pub use alert::{Alert, Body, CertificateBody};
pub use change::{ChangeView, ChangesView, ProjectName};
pub use event::Event;
pub use summary::{
    Listed, SummaryCertificate, SummaryCredential, SummaryDeliveries, SummaryExpiry,
    SummaryProject, SummaryScans, SummaryView,
};
pub use views::{
    ActiveIn, CandidateView, CertificateView, CredentialView, DrillView, FailingView, LeftBehind,
    Named, ProjectView, ProjectsView, ReceiverView, SightView, SilenceView, SuccessorView,
    UnprovenReceiverView, UnprovenView, UnseenView,
};

/// One message of one notifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    pub id: Uuid,
    pub created_at: DateTime<Utc>,
    pub notifier: String,
    /// The route of the notifier that it is for.
    #[serde(default, skip_serializing_if = "Audience::is_everyone")]
    pub audience: Audience,
    /// `None` for tests, drills, summaries, and alerts about other notifiers.
    pub organization: Option<OrganizationName>,
    /// The highest severity of the alerts.
    pub severity: Severity,
    pub scan: Option<ScanView>,
    /// Worst first; at most 100 of `alerts_total`.
    pub alerts: Vec<Alert>,
    pub alerts_total: usize,
    /// The time from which later scans have replaced it; `None` if no scan follows.
    #[serde(default)]
    pub stale_at: Option<DateTime<Utc>>,
}

/// The time and the completeness of the scan behind a notification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanView {
    pub id: Uuid,
    pub finished_at: DateTime<Utc>,
    pub complete: bool,
    pub projects_read: usize,
    pub projects_unreadable: usize,
    /// Time at which the oldest list behind this alert was read.
    pub oldest_reading: Option<DateTime<Utc>>,
    /// Seconds by which the API's clock was ahead of this host's, if more than five minutes. All
    /// times here then use the API's clock.
    #[serde(default)]
    pub clock_skew: Option<i64>,
}

impl ScanView {
    pub fn of(scan: &ScanRecord, oldest_reading: Option<DateTime<Utc>>) -> ScanView {
        ScanView {
            id: scan.id,
            finished_at: scan.finished_at,
            complete: scan.complete,
            projects_read: scan.projects_read,
            projects_unreadable: scan.projects_unreadable,
            oldest_reading,
            clock_skew: scan.clock_skew.map(|skew| skew.num_seconds()),
        }
    }
}

impl Notification {
    /// `now` by the clock that the scan used.
    pub fn time(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let skew =
            self.scan.as_ref().and_then(|scan| scan.clock_skew).and_then(TimeDelta::try_seconds);
        skew.and_then(|skew| now.checked_add_signed(skew)).unwrap_or(now)
    }

    /// The earliest due time of its alerts.
    pub fn due_at(&self) -> Option<DateTime<Utc>> {
        self.alerts.iter().filter_map(|alert| alert.due_at).min()
    }

    /// The message of `certvigil notify test`.
    pub fn test(id: Uuid, notifier: &str, now: DateTime<Utc>) -> Notification {
        Notification {
            id,
            created_at: now,
            notifier: notifier.to_owned(),
            audience: Audience::Everyone,
            organization: None,
            severity: Severity::Info,
            scan: None,
            alerts: vec![Alert::new(Event::Test, None, Severity::Info, Body::Test)],
            alerts_total: 1,
            stale_at: None,
        }
    }
}
