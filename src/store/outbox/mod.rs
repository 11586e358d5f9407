//! The outbox: notifications are enqueued with their deliveries, deliveries are claimed, and their
//! attempts recorded.

mod claim;
mod enqueue;
mod record;

use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeSet;
use uuid::Uuid;

use super::{
    Result, Store, millis,
    sql::{Row, Transaction, either, query},
};
use crate::{
    domain::{
        certificate::OrganizationName,
        owner::Audience,
        retry::{Outcome, Verdict},
    },
    message::Notification,
};
pub(super) use enqueue::insert;

/// A delivery that only this instance may attempt, until its lease ends.
#[derive(Clone, Debug)]
pub struct Claim {
    pub id: Uuid,
    pub notification: Notification,
    pub receiver: String,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    pub give_up_at: DateTime<Utc>,
    /// The time at which the alert became due, if it is sent for the first time.
    pub due_at: Option<DateTime<Utc>>,
    /// How far the API's clock was ahead of this machine's at the latest scan, if the difference is
    /// too large.
    pub clock_skew: Option<TimeDelta>,
}

/// An attempted delivery with its result.
#[derive(Debug)]
pub struct Attempted {
    pub claim: Claim,
    pub outcome: Outcome,
    pub verdict: Verdict,
    pub ended: DateTime<Utc>,
}

/// The deliveries to attempt now.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    pub claims: Vec<Claim>,
    /// The time that the notifier must wait because of its rate.
    pub wait: Option<TimeDelta>,
}

/// Records that a receiver has every open alert.
pub(super) async fn up_to_date(
    tx: &mut Transaction,
    organization: &str,
    ledger: &str,
    receiver: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    query(
        "INSERT INTO receivers (organization, notifier, receiver, since) VALUES ($1, $2, $3, $4)
         ON CONFLICT (organization, notifier, receiver) DO NOTHING",
    )
    .bind(organization)
    .bind(ledger)
    .bind(receiver)
    .bind(millis(now))
    .execute(tx)
    .await?;
    Ok(())
}

/// Locks a notification until the end of the transaction.
pub(super) async fn lock(tx: &mut Transaction, notification: &str) -> Result<()> {
    const ONE: &str = "SELECT id FROM notifications WHERE id = $1";
    either(ONE, "SELECT id FROM notifications WHERE id = $1 FOR NO KEY UPDATE")
        .bind(notification)
        .fetch_optional(tx)
        .await?;
    Ok(())
}

/// Withdraws the ledger entries of a notification that no receiver accepted or will accept, so that
/// the next scan raises its alerts again. Keeps resolutions without an organization, which no scan
/// sends again.
pub(super) async fn settle(tx: &mut Transaction, notification: &str) -> Result<()> {
    // Other results of the notification wait, so that the last one sees all of them.
    lock(tx, notification).await?;
    query(
        "UPDATE ledger SET withdrawn = TRUE
         WHERE notification_id = $1 AND (told IS NOT NULL OR organization <> '')
           AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.notification_id = $1
                             AND d.state IN ('pending', 'delivered'))",
    )
    .bind(notification)
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) fn uuid(row: &Row, column: &str) -> Result<Uuid> {
    let text: &str = row.try_get(column)?;
    Uuid::parse_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)).into())
}

impl Store {
    /// A stored notification and its receivers; `None` if it is not stored, or unreadable.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn sent_to(&self, id: Uuid) -> Result<Option<(Notification, Vec<String>)>> {
        let model: Option<String> = query("SELECT model FROM notifications WHERE id = $1")
            .bind(id.to_string())
            .scalar(&self.pool)
            .await?;
        let Some(notification) = model.and_then(|model| serde_json::from_str(&model).ok()) else {
            return Ok(None);
        };
        let receivers: Vec<String> =
            query("SELECT receiver FROM deliveries WHERE notification_id = $1")
                .bind(id.to_string())
                .scalars(&self.pool)
                .await?;
        Ok(Some((notification, receivers)))
    }

    /// The receivers that are up to date with a part of a notifier's alerts about the organization,
    /// or will be after a pending delivery of all open ones.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn known_receivers(
        &self,
        organization: &OrganizationName,
        notifier: &str,
        audience: &Audience,
    ) -> Result<BTreeSet<String>> {
        macro_rules! known {
            ($audience:expr) => {
                concat!(
                    "SELECT receiver FROM receivers WHERE organization = $1 AND notifier = $3
                     UNION
                     SELECT d.receiver FROM deliveries d
                     JOIN notifications n ON n.id = d.notification_id
                     WHERE n.organization = $1 AND d.notifier = $2 AND d.state = 'pending'
                       AND n.kind = 'catch_up' AND coalesce(",
                    $audience,
                    ", '') = $4"
                )
            };
        }
        let known: Vec<String> = either(known!(audience!(sqlite)), known!(audience!(postgres)))
            .bind(organization.as_str())
            .bind(notifier)
            .bind(audience.ledger_of(notifier))
            .bind(audience.key())
            .scalars(&self.pool)
            .await?;
        Ok(known.into_iter().collect())
    }
}
