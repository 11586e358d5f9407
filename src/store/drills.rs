//! Drills: for each receiver the latest drill and its confirmation, and the schedule's last time.

use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeSet;

use super::{
    Plan, Result, Store, instant, millis,
    outbox::uuid,
    sql::{Row, Transaction, query},
};
use crate::domain::{
    drill::{Drilled, Unconfirmed},
    notifier::Route,
};

/// A scheduled time up to this far in the future is kept: a clock that was corrected by seconds must
/// not repeat a drill.
const AHEAD: TimeDelta = TimeDelta::hours(1);

/// A drill that starts.
#[derive(Clone, Copy, Debug)]
pub struct Drill {
    /// Its scheduled time; `None` if somebody asked for it.
    pub tick: Option<DateTime<Utc>>,
    pub confirm_by: DateTime<Utc>,
}

/// The progress of the schedule.
#[derive(Clone, Copy, Debug)]
pub struct DrillSchedule {
    /// The scheduled time up to which drills have started.
    pub tick: DateTime<Utc>,
    /// Whether somebody asked for a drill since the latest one.
    pub asked: bool,
}

impl Store {
    /// The drills of all receivers.
    ///
    /// # Errors
    /// If the database fails or contains unreadable data.
    pub async fn drilled(&self) -> Result<Vec<Drilled>> {
        let rows = query("SELECT * FROM drills ORDER BY notifier, receiver");
        rows.fetch_all(&self.pool).await?.iter().map(drilled).collect()
    }

    /// The schedule of drills. For a new cron expression, the first drill waits for its first
    /// scheduled time after `now`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn drill_schedule(&self, cron: &str, now: DateTime<Utc>) -> Result<DrillSchedule> {
        let known = query("SELECT cron, tick, asked_at FROM drill_schedule");
        let known: Option<(String, i64, Option<i64>)> =
            known.tuples(&self.pool).await?.into_iter().next();
        let asked = known.as_ref().is_some_and(|(.., asked)| asked.is_some());
        match known {
            // A clock that was far ahead must not stop the schedule.
            Some((known, tick, _)) if known == cron && tick <= millis(now + AHEAD) => {
                Ok(DrillSchedule { tick: instant(tick), asked })
            }
            Some(_) | None => {
                let renew = "INSERT INTO drill_schedule (id, cron, tick) VALUES (1, $1, $2)
                     ON CONFLICT (id) DO UPDATE SET cron = excluded.cron, tick = excluded.tick";
                query(renew).bind(cron).bind(millis(now)).execute(&self.pool).await?;
                Ok(DrillSchedule { tick: now, asked })
            }
        }
    }

    /// Asks for a drill, which the service starts at its next check.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn ask_for_drill(&self, now: DateTime<Utc>) -> Result<()> {
        query(
            "INSERT INTO drill_schedule (id, cron, tick, asked_at) VALUES (1, '', $1, $1)
             ON CONFLICT (id) DO UPDATE SET asked_at = excluded.asked_at",
        )
        .bind(millis(now))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Deletes the drills of all other notifiers. If there are no notifiers, it also deletes the
    /// schedule, so that an old one does not apply later. An open incident is kept until it is closed.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn keep_drills(&self, notifiers: &BTreeSet<String>) -> Result<()> {
        let known: Vec<String> =
            query("SELECT DISTINCT notifier FROM drills").scalars(&self.pool).await?;
        for notifier in known.iter().filter(|one| !notifiers.contains(*one)) {
            for statement in [
                "DELETE FROM drills WHERE notifier = $1 AND closes_at IS NULL",
                "UPDATE drills SET waiting_since = NULL, confirm_by = NULL WHERE notifier = $1",
            ] {
                query(statement).bind(notifier).execute(&self.pool).await?;
            }
        }
        let schedule = query("SELECT EXISTS (SELECT 1 FROM drill_schedule)");
        if notifiers.is_empty() && schedule.scalar_one::<bool>(&self.pool).await? {
            query("DELETE FROM drill_schedule").execute(&self.pool).await?;
        }
        Ok(())
    }

    /// Confirms the latest drill of a receiver; false if it has a newer one, or none.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn confirm(&self, drilled: &Drilled, now: DateTime<Utc>) -> Result<bool> {
        let confirmed = query(
            "UPDATE drills SET confirmed_at = $4, waiting_since = NULL, confirm_by = NULL
             WHERE notifier = $1 AND receiver = $2 AND notification_id = $3
               AND waiting_since IS NOT NULL",
        )
        .bind(&drilled.notifier)
        .bind(&drilled.receiver)
        .bind(drilled.notification.to_string())
        .bind(millis(now))
        .execute(&self.pool)
        .await?;
        Ok(confirmed > 0)
    }
}

/// Records that a drill was sent to the receivers of these plans.
pub(super) async fn start(
    tx: &mut Transaction,
    drill: &Drill,
    plans: &[Plan],
    now: DateTime<Utc>,
) -> Result<()> {
    query("UPDATE drill_schedule SET tick = coalesce($1, tick), asked_at = NULL")
        .bind(drill.tick.map(millis))
        .execute(&mut *tx)
        .await?;
    for (plan, message) in plans.iter().filter_map(|plan| Some((plan, plan.messages.first()?))) {
        for receiver in &plan.receivers {
            query(
                "INSERT INTO drills (notifier, receiver, notification_id, sent_at, waiting_since,
                                     confirm_by, closes_at)
                 VALUES ($1, $2, $3, $4, $4, $5, $6)
                 ON CONFLICT (notifier, receiver) DO UPDATE
                 SET notification_id = excluded.notification_id, sent_at = excluded.sent_at,
                     waiting_since = CASE WHEN drills.waiting_since <= excluded.waiting_since
                                     THEN drills.waiting_since ELSE excluded.waiting_since END,
                     confirm_by = CASE WHEN drills.confirm_by <= excluded.sent_at
                                  THEN drills.confirm_by ELSE excluded.confirm_by END,
                     closes_at = excluded.closes_at",
            )
            .bind(&plan.notifier)
            .bind(receiver)
            .bind(message.notification.id.to_string())
            .bind(millis(now))
            .bind(millis(drill.confirm_by))
            .bind(message.notification.stale_at.map(millis))
            .execute(&mut *tx)
            .await?;
        }
    }
    Ok(())
}

/// Records that the drills of these plans have ended, and their incidents are closed.
pub(super) async fn end(tx: &mut Transaction, plans: &[Plan]) -> Result<()> {
    for plan in plans {
        query("UPDATE drills SET closes_at = NULL WHERE notifier = $1")
            .bind(&plan.notifier)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// Deletes the drills of receivers that are no longer configured.
pub(super) async fn forget(tx: &mut Transaction, routes: &[(String, Route)]) -> Result<()> {
    let known: Vec<(String, String)> =
        query("SELECT notifier, receiver FROM drills").tuples(&mut *tx).await?;
    let kept = |(notifier, receiver): &(String, String)| {
        routes.iter().any(|(name, route)| name == notifier && route.has(receiver))
    };
    for (notifier, receiver) in known.iter().filter(|one| !kept(one)) {
        query("DELETE FROM drills WHERE notifier = $1 AND receiver = $2")
            .bind(notifier)
            .bind(receiver)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

fn drilled(row: &Row) -> Result<Drilled> {
    let at = |column| row.try_get::<Option<i64>>(column).map(|at| at.map(instant));
    let unconfirmed = at("waiting_since")?.zip(at("confirm_by")?);
    Ok(Drilled {
        notifier: row.try_get("notifier")?,
        receiver: row.try_get("receiver")?,
        notification: uuid(row, "notification_id")?,
        sent_at: instant(row.try_get("sent_at")?),
        unconfirmed: unconfirmed.map(|(since, until)| Unconfirmed { since, until }),
        confirmed_at: at("confirmed_at")?,
        closes_at: at("closes_at")?,
    })
}
