//! Drills: for each receiver the latest drill and its confirmation.

use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

use super::{
    Job, Plan, Result, Store, instant, millis,
    outbox::uuid,
    schedules,
    sql::{Row, Transaction, query},
};
use crate::domain::{
    drill::{Drilled, Unconfirmed},
    notifier::Route,
};

/// A drill that starts.
#[derive(Clone, Copy, Debug)]
pub struct Drill {
    /// Its scheduled time; `None` if somebody asked for it.
    pub tick: Option<DateTime<Utc>>,
    pub confirm_by: DateTime<Utc>,
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

    /// Deletes the drills of all other notifiers. An open incident is kept until it is closed.
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
    schedules::advance(tx, Job::Drill, drill.tick, now).await?;
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
