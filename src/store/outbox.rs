//! The outbox: writing, claiming, attempting and recording deliveries.

use chrono::{DateTime, TimeDelta, Utc};
use std::num::NonZeroU32;
use uuid::Uuid;

use super::{
    Commit, DeliveryState, MessageKind, Plan, Result, Store, failures, instant, millis,
    rates::Allowance,
    sql::{Row, Transaction, either, query},
};
use crate::domain::{
    compose::Composed,
    notification::Notification,
    retry::{FailureReason, Outcome, Verdict},
    subject::Subject,
    wording,
};

/// A delivery that this worker alone may attempt until its lease ends.
#[derive(Clone, Debug)]
pub struct Claim {
    pub id: Uuid,
    pub notification: Notification,
    pub receiver: String,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    pub give_up_at: DateTime<Utc>,
    /// When the alert became due, if it is sent for the first time.
    pub due_at: Option<DateTime<Utc>>,
    /// How far the API's clock was ahead of this machine's at the latest scan, where that is too
    /// much.
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
    /// How long the notifier has to wait, where its rate is what keeps it.
    pub wait: Option<TimeDelta>,
}

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
             RETURNING seq, id, receiver, attempts, give_up_at, due_at,
               (SELECT n.model FROM notifications n WHERE n.id = notification_id) AS model,
               (SELECT s.clock_skew FROM scans s
                JOIN notifications n ON n.organization = s.organization
                WHERE n.id = notification_id ORDER BY s.tick DESC LIMIT 1) AS clock_skew"
        )
    };
}

/// No claim lasts longer: a later end was written by a clock that was ahead.
const LONGEST_CLAIM: TimeDelta = TimeDelta::hours(1);
/// An attempt that is dated later than this after now was dated by a clock that was ahead. Less may
/// be a correction of the clock by its time service.
const CLOCK_SLACK: TimeDelta = TimeDelta::minutes(1);

/// The subject of all projects together: they share one incident, so that alerts about one project
/// do not overtake those about another.
const PROJECTS: &str = "projects";

/// Writes a message with one delivery for each receiver, and supersedes outdated ones.
pub(super) async fn insert(
    tx: &mut Transaction,
    commit: &Commit,
    plan: &Plan,
    message: &Composed,
) -> Result<()> {
    let Composed { notification, subjects } = message;
    let id = notification.id.to_string();
    let now = millis(commit.now);
    query(
        "INSERT INTO notifications (id, organization, notifier, created_at, summary, model, kind)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&id)
    .bind(commit.organization())
    .bind(&notification.notifier)
    .bind(now)
    .bind(wording::summary(notification, commit.now))
    .bind(serde_json::to_string(notification)?)
    .bind(plan.kind.as_str())
    .execute(&mut *tx)
    .await?;
    let together = subjects.iter().any(|subject| matches!(subject, Subject::Project(_)));
    let together = together.then(|| PROJECTS.to_owned());
    for subject in subjects.iter().map(Subject::to_string).chain(together) {
        query(
            "INSERT INTO notification_subjects (notification_id, organization, subject)
             VALUES ($1, $2, $3)",
        )
        .bind(&id)
        .bind(commit.organization())
        .bind(subject)
        .execute(&mut *tx)
        .await?;
    }
    if plan.kind == MessageKind::Refresh {
        forget_refreshes(tx, &id).await?;
    }
    // By the clock of this machine, as all that is kept; only news can be late.
    let ahead = notification.time(commit.now) - commit.now;
    let due_at = notification.due_at().filter(|_| plan.kind == MessageKind::News);
    let due_at = due_at.map(|due_at| millis(due_at - ahead));
    for receiver in &plan.receivers {
        supersede(tx, &id, plan.kind, &notification.notifier, receiver, now).await?;
        query(
            "INSERT INTO deliveries (id, notification_id, notifier, receiver, state, created_at,
                                     give_up_at, next_attempt_at, due_at)
             VALUES ($1, $2, $3, $4, 'pending', $5, $6, $5, $7)",
        )
        .bind(Uuid::new_v5(&notification.id, receiver.as_bytes()).to_string())
        .bind(&id)
        .bind(&notification.notifier)
        .bind(receiver)
        .bind(now)
        .bind(millis(commit.give_up_at))
        .bind(due_at)
        .execute(&mut *tx)
        .await?;
        if plan.kind != MessageKind::Refresh {
            hasten(tx, &id, &notification.notifier, receiver, now).await?;
        }
    }
    Ok(())
}

/// Makes older deliveries of the same subjects due now. They go first, and a pause between their
/// attempts must not hold back the new message. One that may have arrived holds nothing back, and
/// keeps its pause.
async fn hasten(
    tx: &mut Transaction,
    notification: &str,
    notifier: &str,
    receiver: &str,
    now: i64,
) -> Result<()> {
    query(
        "UPDATE deliveries SET next_attempt_at = $4
         WHERE notifier = $2 AND receiver = $3 AND state = 'pending' AND next_attempt_at > $4
           AND coalesce((SELECT a.outcome FROM attempts a WHERE a.delivery_id = deliveries.id
                         ORDER BY a.number DESC LIMIT 1), '') <> 'unconfirmed'
           AND EXISTS (
             SELECT 1 FROM notification_subjects old
             JOIN notification_subjects new ON new.organization = old.organization
              AND new.subject = old.subject
             WHERE old.notification_id = deliveries.notification_id AND new.notification_id = $1)",
    )
    .bind(notification)
    .bind(notifier)
    .bind(receiver)
    .bind(now)
    .execute(tx)
    .await?;
    Ok(())
}

/// Only the last refresh counts: settled ones are not history.
async fn forget_refreshes(tx: &mut Transaction, newest: &str) -> Result<()> {
    query(
        "DELETE FROM notifications
         WHERE kind = $2 AND id <> $1
           AND (notifier, organization) IN (SELECT notifier, organization FROM notifications WHERE id = $1)
           AND id IN (SELECT old.notification_id FROM notification_subjects old
                      JOIN notification_subjects new ON new.organization = old.organization
                       AND new.subject = old.subject
                      WHERE new.notification_id = $1)
           AND NOT EXISTS (SELECT 1 FROM deliveries d
                           WHERE d.notification_id = notifications.id AND d.state = 'pending')",
    )
    .bind(newest)
    .bind(MessageKind::Refresh.as_str())
    .execute(tx)
    .await?;
    Ok(())
}

/// Supersedes deliveries that were never attempted, or may have arrived, if the new notification
/// covers all their subjects. A refresh supersedes only refreshes: new alerts stay until they
/// arrive. New alerts do not supersede a catch-up, whose arrival shows that the receiver is up to
/// date.
async fn supersede(
    tx: &mut Transaction,
    notification: &str,
    kind: MessageKind,
    notifier: &str,
    receiver: &str,
    now: i64,
) -> Result<()> {
    let superseded: Vec<String> = query(
        "UPDATE deliveries SET state = 'superseded', settled_at = $4
         WHERE notifier = $1 AND receiver = $2 AND state = 'pending' AND lease_until IS NULL
           AND (attempts = 0 OR 'unconfirmed' = (
             SELECT a.outcome FROM attempts a WHERE a.delivery_id = deliveries.id
             ORDER BY a.number DESC LIMIT 1))
           AND (SELECT CASE $5 WHEN 'refresh' THEN n.kind = 'refresh'
                               WHEN 'news' THEN n.kind <> 'catch_up'
                               ELSE TRUE END
                FROM notifications n WHERE n.id = deliveries.notification_id)
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
    .bind(kind.as_str())
    .scalars(&mut *tx)
    .await?;
    for id in superseded {
        settle(tx, &id).await?;
    }
    Ok(())
}

/// Records that a receiver has every open alert.
pub(super) async fn up_to_date(
    tx: &mut Transaction,
    organization: &str,
    notifier: &str,
    receiver: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    query(
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

/// Keeps all others from a notification until the end of the transaction.
pub(super) async fn lock(tx: &mut Transaction, notification: &str) -> Result<()> {
    const ONE: &str = "SELECT id FROM notifications WHERE id = $1";
    either(ONE, "SELECT id FROM notifications WHERE id = $1 FOR NO KEY UPDATE")
        .bind(notification)
        .fetch_optional(tx)
        .await?;
    Ok(())
}

/// A notification that no receiver accepted or will accept was not sent: its ledger entries are
/// withdrawn. Except resolutions without an organization, where no scan sends them again.
pub(super) async fn settle(tx: &mut Transaction, notification: &str) -> Result<()> {
    // What others record of it waits, so that the last of them sees that nobody has taken it.
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

impl Store {
    /// When the notifier has something to attempt next: now, or a time before, where something is
    /// due; `None` where nothing waits.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn next_due(
        &self,
        notifier: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>> {
        // Instants that a clock ahead of this one wrote are due now.
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

    /// Claims due deliveries of a notifier, oldest first, at most `limit` and within its rate.
    /// Other instances may have other `receivers`, and claim theirs. A receiver gets nothing while
    /// an older delivery about the same subject is pending.
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
            // Where none of those found could be read, there may be others behind them.
            if !claimed.claims.is_empty() || found == 0 {
                return Ok(claimed);
            }
        }
    }

    /// The claims, and how many deliveries were due.
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
        // Leases are what instances settle among themselves.
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
        // What a clock that was ahead has written would wait until the clock gets there.
        query(
            "UPDATE deliveries SET created_at = $2, next_attempt_at = $2,
                    give_up_at = give_up_at - (created_at - $2)
             WHERE notifier = $1 AND state = 'pending' AND created_at > $2",
        )
        .bind(notifier)
        .bind(millis(now))
        .execute(&mut tx)
        .await?;
        // So would one whose last attempt such a clock dated.
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
        let mut claims = Vec::new();
        for row in rows {
            let (id, attempt) = (uuid(&row, "id")?, row.number("attempts")?);
            match serde_json::from_str(row.try_get("model")?) {
                Ok(notification) => claims.push(Claim {
                    id,
                    notification,
                    receiver: row.try_get("receiver")?,
                    attempt,
                    give_up_at: instant(row.try_get("give_up_at")?),
                    due_at: row.try_get::<Option<i64>>("due_at")?.map(instant),
                    clock_skew: row
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

    /// Records attempts and ends their claims, all or none. The attempt of a claim that was taken
    /// over changes nothing: the delivery belongs to the new claim.
    ///
    /// # Errors
    /// Where the database fails; then the claims end with their leases, and the attempts are
    /// repeated.
    pub async fn record(&self, attempts: &[Attempted]) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        // In the same order as all others.
        let mut attempts: Vec<&Attempted> = attempts.iter().collect();
        attempts.sort_by_key(|one| one.claim.notification.id);
        let mut ours = Vec::with_capacity(attempts.len());
        for one in attempts {
            if record(&mut tx, one).await? {
                ours.push(one);
            } else {
                let (delivery, attempt) = (one.claim.id, one.claim.attempt);
                let outcome = one.outcome.as_str();
                tracing::warn!(%delivery, attempt, outcome, "attempt not recorded: the claim \
                    ended before the attempt");
            }
        }
        // The state of a receiver is its last result; and a fixed order prevents deadlocks.
        ours.sort_by_key(|one| (&one.claim.receiver, one.ended));
        for Attempted { claim, outcome, verdict, ended } in ours {
            failures::note(&mut tx, claim, outcome, verdict, *ended).await?;
        }
        Ok(tx.commit().await?)
    }
}

/// Returns false, and changes nothing, if the delivery was claimed again or settled meanwhile.
async fn record(tx: &mut Transaction, attempted: &Attempted) -> Result<bool> {
    let Attempted { claim, outcome, verdict, ended } = attempted;
    let now = *ended;
    let detail = match outcome {
        Outcome::Delivered { answer } => answer,
        Outcome::Retry { detail, .. } | Outcome::Rejected { detail, .. } => detail,
    };
    let next = match verdict {
        Verdict::WaitUntil(next) => Some(*next),
        Verdict::Delivered | Verdict::Rejected | Verdict::GivenUp => None,
    };
    lock(tx, &claim.notification.id.to_string()).await?;
    let is_ours = query(
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
    if is_ours == 0 {
        return Ok(false);
    }
    query(
        "INSERT INTO attempts (delivery_id, number, at, outcome, detail)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (delivery_id, number) DO NOTHING",
    )
    .bind(claim.id.to_string())
    .bind(claim.attempt)
    .bind(millis(now))
    .bind(outcome.as_str())
    .bind(detail)
    .execute(&mut *tx)
    .await?;
    settle(tx, &claim.notification.id.to_string()).await?;
    if let (Verdict::Delivered, Some(organization)) = (verdict, &claim.notification.organization) {
        let notification = &claim.notification;
        let kind: String = query("SELECT kind FROM notifications WHERE id = $1")
            .bind(notification.id.to_string())
            .scalar_one(&mut *tx)
            .await?;
        if kind == MessageKind::CatchUp.as_str() {
            let (organization, notifier) = (organization.as_str(), &notification.notifier);
            up_to_date(tx, organization, notifier, &claim.receiver, now).await?;
        }
    }
    Ok(true)
}

/// Ends a delivery with an unreadable message: the next scan raises its alerts again.
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

pub(super) fn uuid(row: &Row, column: &str) -> Result<Uuid> {
    let text: &str = row.try_get(column)?;
    Uuid::parse_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)).into())
}
