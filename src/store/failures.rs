//! Receivers that take nothing: kept with each attempt, so that nobody has to look through all of them.

use chrono::{DateTime, Utc};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Result, Store, instant, millis, outbox::Claim};
use crate::domain::{
    failing::Failure,
    retry::{FailureReason, Outcome, Verdict},
};

impl Store {
    /// The receivers whose latest attempts have failed.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn failures(&self) -> Result<Vec<Failure>> {
        let rows = sqlx::query("SELECT * FROM failures ORDER BY notifier, receiver")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(failure).collect()
    }

    /// How many deliveries have waited since `before`, or longer.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn overdue(&self, before: DateTime<Utc>) -> Result<u64> {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM deliveries WHERE state = 'pending' AND created_at <= $1",
        )
        .bind(millis(before))
        .fetch_one(&self.pool)
        .await?;
        Ok(count.unsigned_abs())
    }
}

/// Notes what an attempt says of its receiver.
pub(super) async fn note(
    tx: &mut SqliteConnection,
    claim: &Claim,
    outcome: &Outcome,
    verdict: &Verdict,
    now: DateTime<Utc>,
) -> Result<()> {
    let (notifier, receiver) = (&claim.notification.notifier, &claim.receiver);
    let (reason, detail) = match outcome {
        Outcome::Delivered { .. } => {
            sqlx::query("DELETE FROM failures WHERE notifier = $1 AND receiver = $2")
                .bind(notifier)
                .bind(receiver)
                .execute(tx)
                .await?;
            return Ok(());
        }
        Outcome::Retry { reason, detail, .. } | Outcome::Rejected { reason, detail } => {
            (reason, detail)
        }
    };
    sqlx::query(
        "INSERT INTO failures (notifier, receiver, since, last_at, outcome, detail, refused)
         VALUES ($1, $2, $3, $3, $4, $5, $6)
         ON CONFLICT (notifier, receiver) DO UPDATE
         SET since = min(failures.since, excluded.since), last_at = excluded.last_at,
             outcome = excluded.outcome, detail = excluded.detail,
             refused = max(failures.refused, excluded.refused)",
    )
    .bind(notifier)
    .bind(receiver)
    .bind(millis(now))
    .bind(reason.as_str())
    .bind(detail)
    .bind(i64::from(*verdict == Verdict::Rejected))
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets the receivers that are not configured any more.
pub(super) async fn forget(
    tx: &mut SqliteConnection,
    configured: &[(String, Vec<String>)],
) -> Result<()> {
    let known: Vec<(String, String)> =
        sqlx::query_as("SELECT notifier, receiver FROM failures").fetch_all(&mut *tx).await?;
    let kept = |(notifier, receiver): &(String, String)| {
        let mut all = configured.iter();
        all.any(|(name, receivers)| name == notifier && receivers.contains(receiver))
    };
    for (notifier, receiver) in known.iter().filter(|one| !kept(one)) {
        sqlx::query("DELETE FROM failures WHERE notifier = $1 AND receiver = $2")
            .bind(notifier)
            .bind(receiver)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

fn failure(row: &SqliteRow) -> Result<Failure> {
    Ok(Failure {
        notifier: row.try_get("notifier")?,
        receiver: row.try_get("receiver")?,
        since: instant(row.try_get("since")?),
        last_at: instant(row.try_get("last_at")?),
        reason: FailureReason::parse(row.try_get("outcome")?),
        detail: row.try_get("detail")?,
        refused: row.try_get("refused")?,
    })
}
