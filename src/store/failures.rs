//! Failing receivers, updated with each attempt, so that no query scans all attempts.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Result, Store, Waiting, instant, millis,
    outbox::Claim,
    sql::{Row, Transaction, query},
};
use crate::domain::{
    failing::Failure,
    notifier::Route,
    retry::{FailureReason, Outcome, Verdict},
};

/// How long a rejection is kept despite later successful deliveries.
const DAY: TimeDelta = TimeDelta::days(1);

impl Store {
    /// The receivers whose latest attempt failed, and those with a recent rejection.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn failures(&self) -> Result<Vec<Failure>> {
        let rows = query("SELECT * FROM failures ORDER BY notifier, receiver")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(failure).collect()
    }

    /// Whether a failure or an unconfirmed drill is recorded, or the ledger has an alert about a
    /// notifier.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn has_failures_or_drills(&self) -> Result<bool> {
        let some = query(
            "SELECT EXISTS (SELECT 1 FROM failures)
                 OR EXISTS (SELECT 1 FROM drills WHERE waiting_since IS NOT NULL)
                 OR EXISTS (SELECT 1 FROM ledger WHERE organization = '')",
        );
        Ok(some.scalar_one(&self.pool).await?)
    }

    /// The number of deliveries that are pending since `before` or longer.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn overdue(&self, before: DateTime<Utc>) -> Result<u64> {
        let count: i64 =
            query("SELECT count(*) FROM deliveries WHERE state = 'pending' AND created_at <= $1")
                .bind(millis(before))
                .scalar_one(&self.pool)
                .await?;
        Ok(count.unsigned_abs())
    }

    /// The deliveries of each notifier that are pending since `before` or longer, without a later
    /// attempt and without a failure of their receiver: certvigil itself holds them back.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn held_back(&self, before: DateTime<Utc>) -> Result<Vec<Waiting>> {
        let rows = query(
            "SELECT d.notifier, count(*), min(d.created_at) FROM deliveries d
             WHERE d.state = 'pending' AND d.created_at <= $1
               AND NOT EXISTS (SELECT 1 FROM failures f
                               WHERE f.notifier = d.notifier AND f.receiver = d.receiver)
               AND NOT EXISTS (SELECT 1 FROM attempts a
                               WHERE a.delivery_id = d.id AND (a.at > $1 OR a.outcome = 'unconfirmed'))
             GROUP BY d.notifier ORDER BY d.notifier",
        );
        let rows: Vec<(String, i64, i64)> = rows.bind(millis(before)).tuples(&self.pool).await?;
        Ok(rows.into_iter().map(Waiting::from).collect())
    }
}

/// Records the result of an attempt for its receiver.
pub(super) async fn note(
    tx: &mut Transaction,
    claim: &Claim,
    outcome: &Outcome,
    verdict: &Verdict,
    now: DateTime<Utc>,
) -> Result<()> {
    let (notifier, receiver) = (&claim.notification.notifier, &claim.receiver);
    let (reason, detail) = match outcome {
        Outcome::Delivered { .. } => {
            // The next successful delivery must not hide a rejection.
            query("UPDATE failures SET taken_at = $3 WHERE notifier = $1 AND receiver = $2")
                .bind(notifier)
                .bind(receiver)
                .bind(millis(now))
                .execute(&mut *tx)
                .await?;
            query(
                "DELETE FROM failures
                 WHERE notifier = $1 AND receiver = $2 AND (NOT refused OR last_at <= $3)",
            )
            .bind(notifier)
            .bind(receiver)
            .bind(millis(now - DAY))
            .execute(tx)
            .await?;
            return Ok(());
        }
        Outcome::Retry { reason, detail, .. } | Outcome::Rejected { reason, detail } => {
            (reason, detail)
        }
    };
    query(
        "INSERT INTO failures (notifier, receiver, since, last_at, outcome, detail, refused)
         VALUES ($1, $2, $3, $3, $4, $5, $6)
         ON CONFLICT (notifier, receiver) DO UPDATE
         SET since = CASE WHEN failures.taken_at IS NULL
                          AND failures.since < excluded.since
                          THEN failures.since ELSE excluded.since END,
             last_at = excluded.last_at, outcome = excluded.outcome, detail = excluded.detail,
             refused = CASE WHEN failures.taken_at IS NULL
                            THEN (failures.refused OR excluded.refused) ELSE excluded.refused END,
             taken_at = NULL",
    )
    .bind(notifier)
    .bind(receiver)
    .bind(millis(now))
    .bind(reason.as_str())
    .bind(detail)
    .bind(*verdict == Verdict::Rejected)
    .execute(tx)
    .await?;
    Ok(())
}

/// Deletes the failures of receivers that are no longer configured.
pub(super) async fn forget(tx: &mut Transaction, routes: &[(String, Route)]) -> Result<()> {
    let known: Vec<(String, String)> =
        query("SELECT notifier, receiver FROM failures").tuples(&mut *tx).await?;
    let kept = |(notifier, receiver): &(String, String)| {
        routes.iter().any(|(name, route)| name == notifier && route.has(receiver))
    };
    for (notifier, receiver) in known.iter().filter(|one| !kept(one)) {
        query("DELETE FROM failures WHERE notifier = $1 AND receiver = $2")
            .bind(notifier)
            .bind(receiver)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

fn failure(row: &Row) -> Result<Failure> {
    Ok(Failure {
        notifier: row.try_get("notifier")?,
        receiver: row.try_get("receiver")?,
        since: instant(row.try_get("since")?),
        last_at: instant(row.try_get("last_at")?),
        reason: FailureReason::parse(row.try_get("outcome")?),
        detail: row.try_get("detail")?,
        refused: row.try_get("refused")?,
        taken_at: row.try_get::<Option<i64>>("taken_at")?.map(instant),
    })
}
