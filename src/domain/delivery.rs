//! A delivery: one notification for one receiver.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{retry::Verdict, words::words};

words! {
    /// The state of a delivery.
    DeliveryState {
        /// Waiting for its first or next attempt.
        Pending = "pending",
        Delivered = "delivered",
        /// Rejected by the receiver, and not retried.
        Rejected = "rejected",
        /// Not accepted within `delivery.give_up_after`.
        GivenUp = "given_up",
        /// Never attempted, because a later notification replaced it.
        Superseded = "superseded",
        /// Its notifier or receiver is no longer configured.
        Cancelled = "cancelled",
    }
}

impl From<&Verdict> for DeliveryState {
    fn from(verdict: &Verdict) -> DeliveryState {
        match verdict {
            Verdict::Delivered => DeliveryState::Delivered,
            Verdict::WaitUntil(_) => DeliveryState::Pending,
            Verdict::Rejected => DeliveryState::Rejected,
            Verdict::GivenUp => DeliveryState::GivenUp,
        }
    }
}

/// A delivery with its latest attempt.
#[derive(Clone, Debug)]
pub struct DeliveryRow {
    /// The order of storage.
    pub seq: i64,
    pub id: Uuid,
    pub notification_id: Uuid,
    /// `None` if the notification is not about an organization.
    pub organization: Option<String>,
    pub notifier: String,
    pub receiver: String,
    pub summary: String,
    pub state: DeliveryState,
    pub created_at: DateTime<Utc>,
    pub attempts: u32,
    /// Time of the next attempt of a pending delivery.
    pub next_attempt_at: Option<DateTime<Utc>>,
    pub settled_at: Option<DateTime<Utc>>,
    /// Time from due to accepted; `None` for repeats.
    pub late: Option<TimeDelta>,
    /// The latest attempt: its outcome, and the reply of the receiver.
    pub last: Option<(String, String)>,
}

impl DeliveryRow {
    /// `connect: connection refused`; the reply only, if it was delivered; empty before an attempt.
    pub fn answer(&self) -> String {
        match &self.last {
            Some((outcome, detail)) if outcome == "delivered" => detail.clone(),
            Some((outcome, detail)) => format!("{outcome}: {detail}"),
            None => String::new(),
        }
    }
}
