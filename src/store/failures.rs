//! Receivers that take nothing: kept with each attempt, so that nobody has to look through all of them.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Result, Store, instant, millis, outbox::Claim};
use crate::domain::{
    failing::Failure,
    retry::{FailureReason, Outcome, Verdict},
};

/// How long a refusal is kept after something else was taken.
const DAY: TimeDelta = TimeDelta::days(1);

impl Store {
    /// The receivers whose latest attempts have failed, and those that have refused something of late.
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

/// How late what was told for the first time arrived, of all that is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Lateness {
    /// All of it together.
    pub seconds: f64,
    /// How many arrived within so many seconds, and not within fewer; the last bound is none.
    pub counts: Vec<(f64, u64)>,
}

/// The bounds, in seconds: as they stand in the statement.
const BOUNDS: [f64; 9] =
    [60.0, 300.0, 900.0, 3_600.0, 21_600.0, 43_200.0, 86_400.0, 259_200.0, f64::INFINITY];

impl Store {
    /// How late what was told for the first time arrived.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn lateness(&self) -> Result<Lateness> {
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
            "SELECT CASE WHEN late <= 60000 THEN 0 WHEN late <= 300000 THEN 1 WHEN late <= 900000 THEN 2
                         WHEN late <= 3600000 THEN 3 WHEN late <= 21600000 THEN 4
                         WHEN late <= 43200000 THEN 5 WHEN late <= 86400000 THEN 6
                         WHEN late <= 259200000 THEN 7 ELSE 8 END AS bound,
                    count(*), CAST(sum(late) AS INTEGER)
             FROM (SELECT settled_at - due_at AS late FROM deliveries
                   WHERE state = 'delivered' AND due_at IS NOT NULL) AS arrived
             GROUP BY bound",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut lateness =
            Lateness { seconds: 0.0, counts: BOUNDS.iter().map(|bound| (*bound, 0)).collect() };
        for (bound, count, milliseconds) in rows {
            let bound =
                usize::try_from(bound).ok().and_then(|bound| lateness.counts.get_mut(bound));
            if let Some((_, counted)) = bound {
                *counted = count.unsigned_abs();
            }
            lateness.seconds += milliseconds as f64 / 1_000.0;
        }
        Ok(lateness)
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
            // A refusal must not be hidden by the next message, that is taken in the same moment.
            sqlx::query("UPDATE failures SET taken_at = $3 WHERE notifier = $1 AND receiver = $2")
                .bind(notifier)
                .bind(receiver)
                .bind(millis(now))
                .execute(&mut *tx)
                .await?;
            sqlx::query(
                "DELETE FROM failures
                 WHERE notifier = $1 AND receiver = $2 AND (refused = 0 OR last_at <= $3)",
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
    sqlx::query(
        "INSERT INTO failures (notifier, receiver, since, last_at, outcome, detail, refused)
         VALUES ($1, $2, $3, $3, $4, $5, $6)
         ON CONFLICT (notifier, receiver) DO UPDATE
         SET since = CASE WHEN failures.taken_at IS NULL
                          THEN min(failures.since, excluded.since) ELSE excluded.since END,
             last_at = excluded.last_at, outcome = excluded.outcome, detail = excluded.detail,
             refused = CASE WHEN failures.taken_at IS NULL
                            THEN max(failures.refused, excluded.refused) ELSE excluded.refused END,
             taken_at = NULL",
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
        taken_at: row.try_get::<Option<i64>, _>("taken_at")?.map(instant),
    })
}
