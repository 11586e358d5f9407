use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::seconds;
use crate::domain::delivery::{DeliveryRow, DeliveryState};

/// One notification to one receiver.
#[derive(Serialize, ToSchema)]
pub struct Delivery {
    /// The order of storage.
    #[serde(skip)]
    pub seq: i64,
    id: Uuid,
    notification_id: Uuid,
    /// Null if the notification is not about an organization.
    organization: Option<String>,
    notifier: String,
    receiver: String,
    summary: String,
    state: DeliveryState,
    created_at: DateTime<Utc>,
    attempts: u32,
    /// Time of the next attempt of a pending delivery.
    next_attempt_at: Option<DateTime<Utc>>,
    settled_at: Option<DateTime<Utc>>,
    /// Seconds from an alert being due to its acceptance; null for repeats.
    seconds_after_due: Option<i64>,
    /// Result of the latest attempt.
    last_outcome: Option<String>,
    /// Reply of the receiver.
    last_detail: Option<String>,
}

impl From<DeliveryRow> for Delivery {
    fn from(row: DeliveryRow) -> Delivery {
        let (last_outcome, last_detail) = row.last.unzip();
        Delivery {
            seq: row.seq,
            id: row.id,
            notification_id: row.notification_id,
            organization: row.organization,
            notifier: row.notifier,
            receiver: row.receiver,
            summary: row.summary,
            state: row.state,
            created_at: seconds(row.created_at),
            attempts: row.attempts,
            next_attempt_at: row.next_attempt_at.map(seconds),
            settled_at: row.settled_at.map(seconds),
            seconds_after_due: row.late.map(|late| late.num_seconds()),
            last_outcome,
            last_detail,
        }
    }
}
