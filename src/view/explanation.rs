//! Parts of an explanation: the thresholds of a certificate, and how each notifier is alerted of it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::seconds;
use crate::domain::{
    explain::{AlertStatus, Coming, NotifierOutlook, Rung},
    notification::{Event, Reason},
    threshold::Severity,
};

/// A threshold.
#[derive(Serialize, ToSchema)]
pub struct Step {
    stage: String,
    /// Time at which it is reached; null if the expiry is unknown.
    at: Option<DateTime<Utc>>,
    severity: Severity,
    repeat_seconds: Option<i64>,
    reached: bool,
}

impl From<&Rung> for Step {
    fn from(rung: &Rung) -> Step {
        Step {
            stage: rung.label.clone(),
            at: rung.at.map(seconds),
            severity: rung.severity,
            repeat_seconds: rung.repeat.map(|repeat| repeat.num_seconds()),
            reached: rung.reached,
        }
    }
}

/// How a notifier is alerted of a certificate.
#[derive(Serialize, ToSchema)]
pub struct Notifier {
    name: String,
    /// Whether it is alerted now, or why not.
    status: AlertStatus,
    /// The latest alert that it was sent and that is not resolved.
    sent: Option<Sent>,
    /// The next alerts, if nothing changes.
    upcoming: Vec<Upcoming>,
}

/// An alert that was sent.
#[derive(Serialize, ToSchema)]
struct Sent {
    stage: String,
    severity: Severity,
    at: DateTime<Utc>,
}

/// A future alert.
#[derive(Serialize, ToSchema)]
struct Upcoming {
    at: DateTime<Utc>,
    event: Event,
    reason: Option<Reason>,
    stage: Option<String>,
    severity: Severity,
    /// Number of repeats within the time that is looked ahead.
    repeats: usize,
    last_repeat_at: Option<DateTime<Utc>>,
}

impl From<&NotifierOutlook> for Notifier {
    fn from(outlook: &NotifierOutlook) -> Notifier {
        Notifier {
            name: outlook.notifier.clone(),
            status: outlook.status,
            sent: outlook.sent.as_ref().map(|told| Sent {
                stage: told.label.clone(),
                severity: told.severity,
                at: seconds(told.at),
            }),
            upcoming: outlook.upcoming.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Coming> for Upcoming {
    fn from(coming: &Coming) -> Upcoming {
        Upcoming {
            at: seconds(coming.at),
            event: coming.event,
            reason: coming.reason,
            stage: coming.stage.clone(),
            severity: coming.severity,
            repeats: coming.repeats,
            last_repeat_at: coming.last_repeat.map(seconds),
        }
    }
}
