//! The progress of cron schedules other than that of scans, and requests to run one now.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Result, Store, instant, millis,
    sql::{Transaction, query},
};
use crate::domain::words::words;

/// A scheduled time up to this far in the future is kept: a clock that was corrected by seconds must
/// not repeat a job.
const AHEAD: TimeDelta = TimeDelta::hours(1);

words! {
    /// A scheduled job.
    Job {
        Drill = "drill",
        Summary = "summary",
    }
}

/// The progress of a job's schedule.
#[derive(Clone, Copy, Debug)]
pub struct JobProgress {
    /// The scheduled time up to which it has run.
    pub tick: DateTime<Utc>,
    /// Whether somebody asked for it since its latest run.
    pub asked: bool,
    /// Time of its latest run, also with an earlier cron expression.
    pub ran_at: Option<DateTime<Utc>>,
}

impl Store {
    /// The progress of a job. For a new cron expression, the first run waits for its first scheduled
    /// time after `now`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn job_progress(
        &self,
        job: Job,
        cron: &str,
        now: DateTime<Utc>,
    ) -> Result<JobProgress> {
        let known = query("SELECT cron, tick, asked_at, ran_at FROM schedules WHERE job = $1");
        let known: Option<(String, i64, Option<i64>, Option<i64>)> =
            known.bind(job.as_str()).tuples(&self.pool).await?.into_iter().next();
        let asked = known.as_ref().is_some_and(|(_, _, asked, _)| asked.is_some());
        let ran_at = known.as_ref().and_then(|(.., ran_at)| *ran_at).map(instant);
        match known {
            // A clock that was far ahead must not stop the schedule.
            Some((known, tick, ..)) if known == cron && tick <= millis(now + AHEAD) => {
                Ok(JobProgress { tick: instant(tick), asked, ran_at })
            }
            Some(_) | None => {
                let renew = "INSERT INTO schedules (job, cron, tick) VALUES ($1, $2, $3)
                     ON CONFLICT (job) DO UPDATE SET cron = excluded.cron, tick = excluded.tick";
                let renew = query(renew).bind(job.as_str()).bind(cron).bind(millis(now));
                renew.execute(&self.pool).await?;
                Ok(JobProgress { tick: now, asked, ran_at })
            }
        }
    }

    /// The time of a job's latest run.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn last_run(&self, job: Job) -> Result<Option<DateTime<Utc>>> {
        let ran_at = query("SELECT ran_at FROM schedules WHERE job = $1").bind(job.as_str());
        let ran_at: Option<Option<i64>> = ran_at.scalar(&self.pool).await?;
        Ok(ran_at.flatten().map(instant))
    }

    /// Asks the service to run a job at its next check.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn ask_for(&self, job: Job, now: DateTime<Utc>) -> Result<()> {
        query(
            "INSERT INTO schedules (job, cron, tick, asked_at) VALUES ($1, '', $2, $2)
             ON CONFLICT (job) DO UPDATE SET asked_at = excluded.asked_at",
        )
        .bind(job.as_str())
        .bind(millis(now))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Forgets the schedule of a job that is off, so that an old one does not apply later.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn forget_schedule(&self, job: Job) -> Result<()> {
        let known = query("SELECT EXISTS (SELECT 1 FROM schedules WHERE job = $1)");
        if known.bind(job.as_str()).scalar_one::<bool>(&self.pool).await? {
            let forget = query("DELETE FROM schedules WHERE job = $1").bind(job.as_str());
            forget.execute(&self.pool).await?;
        }
        Ok(())
    }
}

/// Records that a job has run. A run that somebody asked for has no scheduled time.
pub(super) async fn advance(
    tx: &mut Transaction,
    job: Job,
    tick: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<()> {
    query(
        "UPDATE schedules SET tick = coalesce($2, tick), asked_at = NULL, ran_at = $3
         WHERE job = $1",
    )
    .bind(job.as_str())
    .bind(tick.map(millis))
    .bind(millis(now))
    .execute(tx)
    .await?;
    Ok(())
}
