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
pub const FLIP: TimeDelta = TimeDelta::hours(24);

/// The latest alert that was sent to one notifier about one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentAlert {
    pub stage: Stage,
    pub label: String,
    pub severity: Severity,
    pub expires_at: Option<DateTime<Utc>>,
    /// The name of that time, for the message that it is over.
    pub name: Option<Name>,
    pub at: DateTime<Utc>,
    /// The scheduled moment of the scan that told it; repeats are counted from there.
    pub tick: DateTime<Utc>,
    /// Whether the same alert was sent and resolved before.
    #[serde(default)]
    pub again: bool,
    /// The due time of a first alert; a later delivery is late.
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
            // What no acknowledgement mutes is not known of it.
            last: false,
        }
    }

    /// Whether it was opened again, and within the last day.
    pub(super) fn flips(&self, now: DateTime<Utc>) -> bool {
        self.again && self.at > now - FLIP && self.at <= now
    }

    /// Whether it told what there is to tell now.
    pub(super) fn is_same(&self, finding: &Finding) -> bool {
        self.stage == finding.reached.stage
            && self.severity >= finding.reached.severity
            && same_expiry(self.expires_at, finding.expires_at)
    }
}
