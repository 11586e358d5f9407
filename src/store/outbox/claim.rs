//! Claims due deliveries for this instance.

use chrono::{DateTime, TimeDelta, Utc};
use std::{collections::HashMap, num::NonZeroU32};
use uuid::Uuid;

use super::{
    super::{
        Result, Store, instant, millis,
        rates::Allowance,
        sql::{Row, Transaction, either, query},
    },
    Claim, Claimed, settle, uuid,
};
use crate::domain::retry::FailureReason;

/// The claiming statement; row locking depends on the database. Older deliveries are searched by
/// subject, one delivery at a time, until there are enough: `OFFSET 0` keeps PostgreSQL from
/// comparing all pairs.
macro_rules! claim {
    ($receivers:literal, $lock:literal) => {
        concat!(
            "WITH due AS MATERIALIZED (
               SELECT d.id FROM deliveries d
               WHERE d.notifier = $1 AND d.state = 'pending' AND d.next_attempt_at <= $2
                 AND (d.lease_until IS NULL OR d.lease_until <= $5 OR d.lease_until > $7)
                 AND d.receiver IN (",
            $receivers,
            ") AND NOT EXISTS (
                   SELECT 1 FROM notification_subjects ds
                   JOIN notification_subjects es
                     ON es.organization = ds.organization AND es.subject = ds.subject
                   JOIN deliveries e
                     ON e.notification_id = es.notification_id AND e.notifier = d.notifier
                    AND e.receiver = d.receiver AND e.state = 'pending' AND e.seq < d.seq
                    AND coalesce((SELECT a.outcome FROM attempts a WHERE a.delivery_id = e.id
                                  ORDER BY a.number DESC LIMIT 1), '') <> 'unconfirmed'
                   WHERE ds.notification_id = d.notification_id LIMIT 1 OFFSET 0)
               ORDER BY d.seq LIMIT $4 ",
            $lock,
            ")
             UPDATE deliveries SET lease_until = $3, attempts = attempts + 1
             WHERE id IN (SELECT id FROM due)
             RETURNING seq, id, receiver, attempts, give_up_at, due_at, notification_id"
        )
    };
}

/// The messages of claimed deliveries. A statement of its own: SQLite uses no index for a subquery
/// in `RETURNING`.
macro_rules! messages {
    ($ids:literal) => {
        concat!(
            "SELECT n.id, n.model,
               (SELECT s.clock_skew FROM scans s WHERE s.organization = n.organization
                ORDER BY s.tick DESC LIMIT 1) AS clock_skew
             FROM notifications n WHERE n.id IN (",
            $ids,
            ")"
        )
    };
}

/// The longest claim: a later end was written by a clock that was ahead.
const LONGEST_CLAIM: TimeDelta = TimeDelta::hours(1);
/// An attempt dated further in the future was dated by a clock that was ahead. A smaller difference
/// may be a correction by the time service.
const CLOCK_SLACK: TimeDelta = TimeDelta::minutes(1);

impl Store {
    /// The time of the notifier's next attempt: not after `now` if a delivery is due, `None` if
    /// none is pending.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn next_due(
        &self,
        notifier: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>> {
        // Deliveries dated by a clock that was ahead are due now.
        let next: Option<i64> = query(
            "SELECT min(CASE WHEN created_at > $2
                               OR EXISTS (SELECT 1 FROM attempts a
                                          WHERE a.delivery_id = deliveries.id AND a.at > $3)
                        THEN $2 ELSE next_attempt_at END)
             FROM deliveries WHERE notifier = $1 AND state = 'pending'",
        )
        .bind(notifier)
        .bind(millis(now))
        .bind(millis(now + CLOCK_SLACK))
        .scalar_one(&self.pool)
        .await?;
        Ok(next.map(instant))
    }

    /// Claims due deliveries of a notifier to these receivers, oldest first, at most `limit` and
    /// within its rate; other instances may have other receivers. A delivery waits while an older
    /// one about the same subject is pending, unless that one is unconfirmed.
    ///
    /// # Errors
    /// If the database fails or contains unreadable data.
    pub async fn claim(
        &self,
        notifier: &str,
        receivers: &[String],
        now: DateTime<Utc>,
        lease: TimeDelta,
        limit: usize,
        per_minute: Option<NonZeroU32>,
    ) -> Result<Claimed> {
        loop {
            let (claimed, found) =
                self.claim_some(notifier, receivers, now, lease, limit, per_minute).await?;
            // If all claimed deliveries are unreadable, there may be others behind them.
            if !claimed.claims.is_empty() || found == 0 {
                return Ok(claimed);
            }
        }
    }

    /// Returns the claims, and the number of claimed deliveries including unreadable ones.
    async fn claim_some(
        &self,
        notifier: &str,
        receivers: &[String],
        now: DateTime<Utc>,
        lease: TimeDelta,
        limit: usize,
        per_minute: Option<NonZeroU32>,
    ) -> Result<(Claimed, usize)> {
        let mut tx = self.pool.begin().await?;
        // Claims use the clock that all instances share.
        let shared_now = self.shared(now);
        let lease = lease.min(LONGEST_CLAIM);
        let allowance = match per_minute {
            Some(most) => Some(Allowance::read(&mut tx, notifier, most, shared_now).await?),
            None => None,
        };
        let limit = allowance.as_ref().map_or(limit, |allowed| limit.min(allowed.deliveries()));
        if let Some(allowed) = allowance.as_ref().filter(|_| limit == 0) {
            let wait = Some(allowed.wait());
            tx.rollback().await?;
            return Ok((Claimed { claims: Vec::new(), wait }, 0));
        }
        // Deliveries written by a clock that was ahead would wait for that time.
        query(
            "UPDATE deliveries SET created_at = $2, next_attempt_at = $2,
                    give_up_at = give_up_at - (created_at - $2)
             WHERE notifier = $1 AND state = 'pending' AND created_at > $2",
        )
        .bind(notifier)
        .bind(millis(now))
        .execute(&mut tx)
        .await?;
        // So would deliveries whose last attempt was dated by such a clock.
        query(
            "UPDATE deliveries SET next_attempt_at = $2
             WHERE notifier = $1 AND state = 'pending' AND next_attempt_at > $2
               AND EXISTS (SELECT 1 FROM attempts a
                           WHERE a.delivery_id = deliveries.id AND a.at > $3)",
        )
        .bind(notifier)
        .bind(millis(now))
        .bind(millis(now + CLOCK_SLACK))
        .execute(&mut tx)
        .await?;
        let mut rows = either(
            claim!("SELECT value FROM json_each($6)", ""),
            claim!("SELECT jsonb_array_elements_text($6::jsonb)", "FOR UPDATE OF d SKIP LOCKED"),
        )
        .bind(notifier)
        .bind(millis(now))
        .bind(millis(shared_now + lease))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(millis(shared_now))
        .bind(serde_json::to_string(receivers)?)
        .bind(millis(shared_now + LONGEST_CLAIM))
        .fetch_all(&mut tx)
        .await?;
        rows.sort_by_key(|row| row.try_get::<i64>("seq").unwrap_or_default());
        let found = rows.len();
        if found == 0 {
            // Due deliveries wait for older ones: nothing has changed.
            tx.rollback().await?;
            return Ok((Claimed::default(), 0));
        }
        if let Some(allowed) = allowance {
            allowed.spend(&mut tx, notifier, found).await?;
        }
        let messages = messages_of(&mut tx, &rows).await?;
        let mut claims = Vec::new();
        for row in rows {
            let (id, attempt) = (uuid(&row, "id")?, row.number("attempts")?);
            let of: &str = row.try_get("notification_id")?;
            let message = messages.get(of).ok_or(sqlx::Error::RowNotFound)?;
            match serde_json::from_str(message.try_get("model")?) {
                Ok(notification) => claims.push(Claim {
                    id,
                    notification,
                    receiver: row.try_get("receiver")?,
                    attempt,
                    give_up_at: instant(row.try_get("give_up_at")?),
                    due_at: row.try_get::<Option<i64>>("due_at")?.map(instant),
                    clock_skew: message
                        .try_get::<Option<i64>>("clock_skew")?
                        .and_then(TimeDelta::try_milliseconds),
                }),
                // An unreadable delivery must not block the others.
                Err(error) => unreadable(&mut tx, id, attempt, &error, now).await?,
            }
        }
        tx.commit().await?;
        Ok((Claimed { claims, wait: None }, found))
    }
}

/// The messages of these deliveries, by the id of the notification.
async fn messages_of(tx: &mut Transaction, rows: &[Row]) -> Result<HashMap<String, Row>> {
    let ids = rows.iter().map(|row| row.try_get("notification_id"));
    let ids: Vec<&str> = ids.collect::<std::result::Result<_, _>>()?;
    let messages = either(
        messages!("SELECT value FROM json_each($1)"),
        messages!("SELECT jsonb_array_elements_text($1::jsonb)"),
    );
    let messages = messages.bind(serde_json::to_string(&ids)?).fetch_all(tx).await?;
    messages.into_iter().map(|row| Ok((row.try_get::<String>("id")?, row))).collect()
}

/// Rejects a delivery with an unreadable message: the next scan raises its alerts again.
async fn unreadable(
    tx: &mut Transaction,
    id: Uuid,
    attempt: u32,
    error: &serde_json::Error,
    now: DateTime<Utc>,
) -> Result<()> {
    tracing::error!(delivery = %id, %error, "stored message unreadable: the next scan alerts again");
    query(
        "INSERT INTO attempts (delivery_id, number, at, outcome, detail) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id.to_string())
    .bind(attempt)
    .bind(millis(now))
    .bind(FailureReason::Internal.as_str())
    .bind(format!("stored message unreadable: {error}"))
    .execute(&mut *tx)
    .await?;
    let notification: String = query(
        "UPDATE deliveries SET state = 'rejected', lease_until = NULL, settled_at = $2
         WHERE id = $1 RETURNING notification_id",
    )
    .bind(id.to_string())
    .bind(millis(now))
    .scalar_one(&mut *tx)
    .await?;
    settle(tx, &notification).await
}
