//! The outbox: notifications, the delivery to each receiver, its attempts, and the claims on it.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{Commit, Plan, Result, Store, StoreFault, instant, millis};
use crate::domain::{
    notification::Notification,
    retry::{FailureReason, Outcome, Verdict},
    wording,
    words::words,
};

words! {
    /// What has become of a delivery.
    DeliveryState {
        /// Waits for its first or its next attempt.
        Pending = "pending",
        Delivered = "delivered",
        /// Refused for good by the receiver.
        Rejected = "rejected",
        /// Not accepted within `delivery.give_up_after`.
        GivenUp = "given_up",
        /// Never attempted, and out of date: a later one says it better.
        Superseded = "superseded",
        /// Its notifier or receiver is no longer configured.
        Abandoned = "abandoned",
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

/// A delivery that this worker alone may attempt until its lease ends.
#[derive(Clone, Debug)]
pub struct Claim {
    pub id: Uuid,
    pub notification: Notification,
    pub receiver: String,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    pub give_up_at: DateTime<Utc>,
}

/// A delivery, as `certvigil deliveries` shows it.
#[derive(Clone, Debug)]
pub struct DeliveryRow {
    pub id: Uuid,
    pub notification_id: Uuid,
    pub organization: String,
    pub notifier: String,
    pub receiver: String,
    pub summary: String,
    pub state: DeliveryState,
    pub created_at: DateTime<Utc>,
    pub attempts: u32,
    /// When it is tried next, while it is pending.
    pub next_attempt_at: Option<DateTime<Utc>>,
    pub settled_at: Option<DateTime<Utc>>,
    /// The latest attempt: its outcome in a word, and what the receiver said.
    pub last: Option<(String, String)>,
}

/// Writes a notification and one delivery for each receiver, and retires what it makes out of date.
pub(super) async fn insert(
    tx: &mut SqliteConnection,
    commit: &Commit,
    plan: &Plan,
    notification: &Notification,
) -> Result<()> {
    let id = notification.id.to_string();
    let now = millis(commit.now);
    sqlx::query(
        "INSERT INTO notifications (id, organization, notifier, created_at, summary, model, catch_up)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&id)
    .bind(commit.organization.as_str())
    .bind(&notification.notifier)
    .bind(now)
    .bind(wording::summary(notification, commit.now))
    .bind(serde_json::to_string(notification)?)
    .bind(i64::from(plan.catch_up))
    .execute(&mut *tx)
    .await?;
    for subject in notification.subjects() {
        sqlx::query(
            "INSERT INTO notification_subjects (notification_id, organization, subject)
             VALUES ($1, $2, $3)",
        )
        .bind(&id)
        .bind(commit.organization.as_str())
        .bind(subject.as_str())
        .execute(&mut *tx)
        .await?;
    }
    for receiver in &plan.receivers {
        supersede(tx, &id, &notification.notifier, receiver, now).await?;
        sqlx::query(
            "INSERT INTO deliveries (id, notification_id, notifier, receiver, state, created_at,
                                     give_up_at, next_attempt_at)
             VALUES ($1, $2, $3, $4, 'pending', $5, $6, $5)",
        )
        .bind(Uuid::new_v5(&notification.id, receiver.as_bytes()).to_string())
        .bind(&id)
        .bind(&notification.notifier)
        .bind(receiver)
        .bind(now)
        .bind(millis(commit.give_up_at))
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// What was never attempted and tells only of subjects that the new notification tells of is out of date.
async fn supersede(
    tx: &mut SqliteConnection,
    notification: &str,
    notifier: &str,
    receiver: &str,
    now: i64,
) -> Result<()> {
    let superseded: Vec<String> = sqlx::query_scalar(
        "UPDATE deliveries SET state = 'superseded', settled_at = $4
         WHERE notifier = $1 AND receiver = $2 AND state = 'pending' AND attempts = 0
           AND lease_until IS NULL
           AND NOT EXISTS (
             SELECT 1 FROM notification_subjects old
             WHERE old.notification_id = deliveries.notification_id
               AND NOT EXISTS (SELECT 1 FROM notification_subjects new
                               WHERE new.notification_id = $3
                                 AND new.organization = old.organization
                                 AND new.subject = old.subject))
         RETURNING notification_id",
    )
    .bind(notifier)
    .bind(receiver)
    .bind(notification)
    .bind(now)
    .fetch_all(&mut *tx)
    .await?;
    for id in superseded {
        settle(tx, &id).await?;
    }
    Ok(())
}

/// Notes that a receiver knows what is open.
pub(super) async fn up_to_date(
    tx: &mut SqliteConnection,
    organization: &str,
    notifier: &str,
    receiver: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO receivers (organization, notifier, receiver, since) VALUES ($1, $2, $3, $4)
         ON CONFLICT (organization, notifier, receiver) DO NOTHING",
    )
    .bind(organization)
    .bind(notifier)
    .bind(receiver)
    .bind(millis(now))
    .execute(tx)
    .await?;
    Ok(())
}

/// A notification that nobody took and nobody will was not told: the ledger forgets it.
async fn settle(tx: &mut SqliteConnection, notification: &str) -> Result<()> {
    sqlx::query(
        "UPDATE ledger SET withdrawn = 1
         WHERE notification_id = $1
           AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.notification_id = $1
                             AND d.state IN ('pending', 'delivered'))",
    )
    .bind(notification)
    .execute(tx)
    .await?;
    Ok(())
}

impl Store {
    /// Claims what is due for a notifier, oldest first, at most `limit`. For one receiver nothing is
    /// claimed while something older of the same subject waits.
    ///
    /// # Errors
    /// Where the database fails or what it holds cannot be read.
    pub async fn claim(
        &self,
        notifier: &str,
        now: DateTime<Utc>,
        lease: TimeDelta,
        limit: usize,
    ) -> Result<Vec<Claim>> {
        loop {
            let (claims, found) = self.claim_some(notifier, now, lease, limit).await?;
            // Where none of those found could be read, there may be others behind them.
            if !claims.is_empty() || found == 0 {
                return Ok(claims);
            }
        }
    }

    /// The claims, and how many deliveries were due.
    async fn claim_some(
        &self,
        notifier: &str,
        now: DateTime<Utc>,
        lease: TimeDelta,
        limit: usize,
    ) -> Result<(Vec<Claim>, usize)> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        // What a clock that was ahead has written would wait until the clock gets there.
        sqlx::query(
            "UPDATE deliveries SET created_at = $2, next_attempt_at = $2,
                    give_up_at = give_up_at - (created_at - $2)
             WHERE notifier = $1 AND state = 'pending' AND created_at > $2",
        )
        .bind(notifier)
        .bind(millis(now))
        .execute(&mut *tx)
        .await?;
        let mut rows = sqlx::query(
            "UPDATE deliveries SET lease_until = $3, attempts = attempts + 1
             WHERE id IN (
               SELECT d.id FROM deliveries d
               WHERE d.notifier = $1 AND d.state = 'pending' AND d.next_attempt_at <= $2
                 AND (d.lease_until IS NULL OR d.lease_until <= $2)
                 AND NOT EXISTS (
                   SELECT 1 FROM deliveries e
                   JOIN notification_subjects es ON es.notification_id = e.notification_id
                   JOIN notification_subjects ds ON ds.notification_id = d.notification_id
                    AND ds.organization = es.organization AND ds.subject = es.subject
                   WHERE e.notifier = d.notifier AND e.receiver = d.receiver
                     AND e.state = 'pending' AND e.seq < d.seq)
               ORDER BY d.seq LIMIT $4)
             RETURNING seq, id, receiver, attempts, give_up_at,
               (SELECT n.model FROM notifications n WHERE n.id = notification_id) AS model",
        )
        .bind(notifier)
        .bind(millis(now))
        .bind(millis(now + lease))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *tx)
        .await?;
        rows.sort_by_key(|row| row.get::<i64, _>("seq"));
        let found = rows.len();
        let mut claims = Vec::new();
        for row in rows {
            let (id, attempt) = (uuid(&row, "id")?, row.try_get("attempts")?);
            match serde_json::from_str(row.try_get("model")?) {
                Ok(notification) => claims.push(Claim {
                    id,
                    notification,
                    receiver: row.try_get("receiver")?,
                    attempt,
                    give_up_at: instant(row.try_get("give_up_at")?),
                }),
                // One that cannot be read must not stand in the way of the others.
                Err(error) => unreadable(&mut tx, id, attempt, &error, now).await?,
            }
        }
        tx.commit().await?;
        Ok((claims, found))
    }

    /// Keeps what came of an attempt, and ends the claim. A claim whose lease has ended and which another
    /// has taken over is left to that one.
    ///
    /// # Errors
    /// Where the database fails; then the claim ends with its lease, and the attempt is repeated.
    pub async fn record(
        &self,
        claim: &Claim,
        outcome: &Outcome,
        verdict: &Verdict,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let (word, detail) = match outcome {
            Outcome::Delivered { answer } => ("delivered", answer),
            Outcome::Retry { reason, detail, .. } | Outcome::Rejected { reason, detail } => {
                (reason.as_str(), detail)
            }
        };
        let next = match verdict {
            Verdict::WaitUntil(next) => Some(*next),
            Verdict::Delivered | Verdict::Rejected | Verdict::GivenUp => None,
        };
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "INSERT INTO attempts (delivery_id, number, at, outcome, detail)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (delivery_id, number) DO NOTHING",
        )
        .bind(claim.id.to_string())
        .bind(claim.attempt)
        .bind(millis(now))
        .bind(word)
        .bind(detail)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "UPDATE deliveries SET state = $3, lease_until = NULL, settled_at = $4,
                    next_attempt_at = coalesce($5, next_attempt_at)
             WHERE id = $1 AND attempts = $2 AND state = 'pending'",
        )
        .bind(claim.id.to_string())
        .bind(claim.attempt)
        .bind(DeliveryState::from(verdict).as_str())
        .bind(next.is_none().then_some(millis(now)))
        .bind(next.map(millis))
        .execute(&mut *tx)
        .await?;
        settle(&mut tx, &claim.notification.id.to_string()).await?;
        if let (Verdict::Delivered, Some(organization)) =
            (verdict, &claim.notification.organization)
        {
            let notification = &claim.notification;
            let catch_up: bool =
                sqlx::query_scalar("SELECT catch_up FROM notifications WHERE id = $1")
                    .bind(notification.id.to_string())
                    .fetch_one(&mut *tx)
                    .await?;
            if catch_up {
                let (organization, notifier) = (organization.as_str(), &notification.notifier);
                up_to_date(&mut tx, organization, notifier, &claim.receiver, now).await?;
            }
        }
        Ok(tx.commit().await?)
    }

    /// Gives a claim back that was not attempted.
    ///
    /// # Errors
    /// Where the database fails; then the claim ends with its lease.
    pub async fn release(&self, claim: &Claim) -> Result<()> {
        sqlx::query(
            "UPDATE deliveries SET lease_until = NULL, attempts = attempts - 1
             WHERE id = $1 AND attempts = $2 AND state = 'pending'",
        )
        .bind(claim.id.to_string())
        .bind(claim.attempt)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Deliveries, newest first; with `failed`, those that were refused or given up, and those that
    /// have failed at least once and wait.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn deliveries(&self, failed: bool, limit: u32) -> Result<Vec<DeliveryRow>> {
        let rows = sqlx::query(
            "SELECT d.*, n.organization, n.summary, a.outcome, a.detail
             FROM deliveries d
             JOIN notifications n ON n.id = d.notification_id
             LEFT JOIN attempts a ON a.delivery_id = d.id AND a.number =
               (SELECT max(b.number) FROM attempts b WHERE b.delivery_id = d.id)
             WHERE $1 = 0 OR d.state IN ('rejected', 'given_up')
                OR (d.state = 'pending' AND a.number IS NOT NULL)
             ORDER BY d.seq DESC LIMIT $2",
        )
        .bind(i64::from(failed))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(delivery_row).collect()
    }

    /// Makes a delivery that failed or waits due now, with a new time until it is given up.
    /// `id` may be the beginning of an id, where it is the only one.
    ///
    /// # Errors
    /// Where there is no such delivery, more than one, or one that was delivered or is out of date.
    pub async fn retry(
        &self,
        id: &str,
        now: DateTime<Utc>,
        give_up_at: DateTime<Utc>,
    ) -> Result<Uuid> {
        let known = id.len() >= 4 && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        let no_such = || StoreFault::NoSuchDelivery(crate::domain::text::one_line(id, 60));
        if !known {
            return Err(no_such());
        }
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let found = sqlx::query(
            "SELECT id, state, notification_id FROM deliveries WHERE id LIKE $1 || '%' LIMIT 2",
        )
        .bind(id.to_ascii_lowercase())
        .fetch_all(&mut *tx)
        .await?;
        let [row] = found.as_slice() else {
            return Err(no_such());
        };
        let id = uuid(row, "id")?;
        match state(row)? {
            DeliveryState::Pending | DeliveryState::Rejected | DeliveryState::GivenUp => {}
            done @ (DeliveryState::Delivered
            | DeliveryState::Superseded
            | DeliveryState::Abandoned) => {
                return Err(StoreFault::NotRetryable(id.to_string(), done));
            }
        }
        sqlx::query(
            "UPDATE deliveries SET state = 'pending', settled_at = NULL, next_attempt_at = $2,
                    created_at = min(created_at, $2), give_up_at = $3
             WHERE id = $1",
        )
        .bind(id.to_string())
        .bind(millis(now))
        .bind(millis(give_up_at))
        .execute(&mut *tx)
        .await?;
        // It is on its way again, and so counts as told.
        sqlx::query("UPDATE ledger SET withdrawn = 0 WHERE notification_id = $1")
            .bind(row.try_get::<String, _>("notification_id")?)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(id)
    }

    /// Gives up what is owed to notifiers and receivers that are no longer configured, and forgets what
    /// such a notifier was told. Gives the number of deliveries for each notifier.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn abandon(
        &self,
        configured: &[(String, Vec<String>)],
        now: DateTime<Utc>,
    ) -> Result<Vec<(String, u64)>> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let owed: Vec<(String, String)> = sqlx::query_as(
            "SELECT notifier, receiver FROM receivers
             UNION SELECT notifier, receiver FROM deliveries WHERE state = 'pending'",
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut abandoned: std::collections::BTreeMap<String, u64> = Default::default();
        for (notifier, receiver) in owed {
            let kept = configured.iter().find(|(name, _)| *name == notifier);
            if kept.is_some_and(|(_, receivers)| receivers.contains(&receiver)) {
                continue;
            }
            let ids: Vec<String> = sqlx::query_scalar(
                "UPDATE deliveries SET state = 'abandoned', settled_at = $3, lease_until = NULL
                 WHERE notifier = $1 AND receiver = $2 AND state = 'pending'
                 RETURNING notification_id",
            )
            .bind(&notifier)
            .bind(&receiver)
            .bind(millis(now))
            .fetch_all(&mut *tx)
            .await?;
            for id in &ids {
                settle(&mut tx, id).await?;
            }
            sqlx::query("DELETE FROM receivers WHERE notifier = $1 AND receiver = $2")
                .bind(&notifier)
                .bind(&receiver)
                .execute(&mut *tx)
                .await?;
            if kept.is_none() {
                sqlx::query("DELETE FROM ledger WHERE notifier = $1")
                    .bind(&notifier)
                    .execute(&mut *tx)
                    .await?;
            }
            if !ids.is_empty() {
                *abandoned.entry(notifier).or_default() += ids.len() as u64;
            }
        }
        tx.commit().await?;
        Ok(abandoned.into_iter().collect())
    }
}

/// Ends a delivery whose message cannot be read: it was not told, and the next scan tells it anew.
async fn unreadable(
    tx: &mut SqliteConnection,
    id: Uuid,
    attempt: u32,
    error: &serde_json::Error,
    now: DateTime<Utc>,
) -> Result<()> {
    tracing::error!(delivery = %id, %error, "a kept message cannot be read: the next scan tells it anew");
    sqlx::query(
        "INSERT INTO attempts (delivery_id, number, at, outcome, detail) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id.to_string())
    .bind(attempt)
    .bind(millis(now))
    .bind(FailureReason::Internal.as_str())
    .bind(format!("the kept message cannot be read: {error}"))
    .execute(&mut *tx)
    .await?;
    let notification: String = sqlx::query_scalar(
        "UPDATE deliveries SET state = 'rejected', lease_until = NULL, settled_at = $2
         WHERE id = $1 RETURNING notification_id",
    )
    .bind(id.to_string())
    .bind(millis(now))
    .fetch_one(&mut *tx)
    .await?;
    settle(tx, &notification).await
}

fn uuid(row: &SqliteRow, column: &str) -> Result<Uuid> {
    let text: &str = row.try_get(column)?;
    Uuid::parse_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)).into())
}

fn state(row: &SqliteRow) -> Result<DeliveryState> {
    let word: &str = row.try_get("state")?;
    DeliveryState::parse(word)
        .ok_or_else(|| sqlx::Error::Decode(format!("the state “{word}”").into()).into())
}

fn delivery_row(row: &SqliteRow) -> Result<DeliveryRow> {
    let state = state(row)?;
    let outcome: Option<String> = row.try_get("outcome")?;
    let detail: Option<String> = row.try_get("detail")?;
    let next = instant(row.try_get("next_attempt_at")?);
    Ok(DeliveryRow {
        id: uuid(row, "id")?,
        notification_id: uuid(row, "notification_id")?,
        organization: row.try_get("organization")?,
        notifier: row.try_get("notifier")?,
        receiver: row.try_get("receiver")?,
        summary: row.try_get("summary")?,
        state,
        created_at: instant(row.try_get("created_at")?),
        attempts: row.try_get("attempts")?,
        next_attempt_at: (state == DeliveryState::Pending).then_some(next),
        settled_at: row.try_get::<Option<i64>, _>("settled_at")?.map(instant),
        last: outcome.zip(detail),
    })
}
