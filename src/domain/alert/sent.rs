//! A sent alert, as the ledger keeps it.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use super::super::{
    certificate::same_expiry,
    finding::Finding,
    text::Name,
    threshold::{Reached, Severity, Stage},
};

/// An alert with the same subject, expiry and stage opens again at most once in this time.
pub const FLAPPING_WINDOW: TimeDelta = TimeDelta::hours(24);

/// The latest alert that was sent to one notifier about one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentAlert {
    pub stage: Stage,
    pub label: String,
    pub severity: Severity,
    pub expires_at: Option<DateTime<Utc>>,
    /// The name at that time, for the resolution of a deleted subject.
    pub name: Option<Name>,
    pub at: DateTime<Utc>,
    /// The scheduled time of the scan that sent it; repeats are measured from it.
    pub tick: DateTime<Utc>,
    /// Whether the same alert was sent and resolved before.
    #[serde(default)]
    pub again: bool,
    /// The time at which the alert became due; `None` for a repeat.
    #[serde(default)]
    pub due_at: Option<DateTime<Utc>>,
    /// The severities that were sent before for the same alert. Each may be an open incident.
    #[serde(default)]
    pub earlier_severities: BTreeSet<Severity>,
}

impl SentAlert {
    /// All severities that were sent for this alert.
    pub fn severities(&self) -> BTreeSet<Severity> {
        let mut severities = self.earlier_severities.clone();
        severities.insert(self.severity);
        severities
    }

    /// The stage as it was sent.
    pub fn reached(&self) -> Reached {
        Reached {
            stage: self.stage,
            label: self.label.clone(),
            severity: self.severity,
            repeat: None,
            // The ledger does not store it.
            last: false,
        }
    }

    /// Whether it was opened again within the last day.
    pub(super) fn flips(&self, now: DateTime<Utc>) -> bool {
        self.again && self.at > now - FLAPPING_WINDOW && self.at <= now
    }

    /// Whether it reports the same stage and expiry, with the same or a higher severity.
    pub(super) fn is_same(&self, finding: &Finding) -> bool {
        self.stage == finding.reached.stage
            && self.severity >= finding.reached.severity
            && same_expiry(self.expires_at, finding.expires_at)
    }
}
