//! Lists, retries and cancels deliveries.

use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeMap;
use uuid::Uuid;

use super::{
    DeliveryRow, DeliveryState, MessageKind, Result, Store, StoreError, drills, failures, instant,
    leases::{self, Lease},
    millis,
    outbox::{lock, settle, uuid},
    sql::{Row, Transaction, either, query},
};
use crate::domain::{notifier::Route, owner::Audience, punctuality::Punctuality};

/// A statement that selects [`DeliveryRow`]s.
macro_rules! select {
    ($($rest:expr)+) => {
        concat!(
            "SELECT d.*, n.organization, n.summary, a.outcome, a.detail
             FROM deliveries d
             JOIN notifications n ON n.id = d.notification_id
             LEFT JOIN attempts a ON a.delivery_id = d.id AND a.number =
               (SELECT max(b.number) FROM attempts b WHERE b.delivery_id = d.id) ",
            $($rest),+
        )
    };
}

/// Its filter, order and limit, for [`Which`].
macro_rules! wanted {
    () => {
        "($1 IS NULL OR d.state = $1) AND ($2 IS NULL OR d.notifier = $2)
         AND ($3 IS NULL OR n.organization = $3) AND ($4 IS NULL OR d.seq < $4)
         AND (n.kind <> 'refresh' OR d.state NOT IN ('delivered', 'superseded'))
         ORDER BY d.seq DESC LIMIT $5"
    };
}

/// A selection of deliveries.
#[derive(Clone, Debug, Default)]
pub struct Which<'a> {
    /// Only rejected and given-up deliveries, and pending ones after a failed attempt.
    pub failed: bool,
    pub state: Option<DeliveryState>,
    pub notifier: Option<&'a str>,
    pub organization: Option<&'a str>,
    /// Only deliveries with a lower sequence number.
    pub before: Option<i64>,
}

/// The pending deliveries of a notifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub notifier: String,
    pub count: u64,
    /// The creation time of the oldest.
    pub since: DateTime<Utc>,
}

impl From<(String, i64, i64)> for Waiting {
    fn from((notifier, count, since): (String, i64, i64)) -> Waiting {
        Waiting { notifier, count: count.unsigned_abs(), since: instant(since) }
    }
}

/// Counts the deliveries of new alerts that were on time, and those that were not.
macro_rules! punctuality {
    ($which:literal) => {
        concat!(
            "SELECT
               coalesce(sum(CASE WHEN d.state = 'delivered' AND d.settled_at - d.due_at <= $2
                                 THEN 1 ELSE 0 END), 0),
               coalesce(sum(CASE
                 WHEN d.state IN ('delivered', 'superseded') AND d.settled_at - d.due_at > $2 THEN 1
                 WHEN d.state = 'pending' AND d.due_at < $3 THEN 1
                 WHEN d.state IN ('rejected', 'given_up') AND NOT EXISTS (
                   SELECT 1 FROM deliveries later
                   WHERE later.due_at = d.due_at AND later.notifier = d.notifier
                     AND later.receiver = d.receiver AND later.seq > d.seq) THEN 1
                 ELSE 0 END), 0)
             FROM deliveries d
             -- Deliveries that a clock ahead of time wrote have a later due time.
             WHERE d.due_at <= $4 AND ",
            $which
        )
    };
}

impl Store {
    /// Deliveries, newest first, without delivered and superseded refreshes.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn deliveries(&self, which: &Which<'_>, limit: u32) -> Result<Vec<DeliveryRow>> {
        // Failed deliveries are few and have an index.
        let statement = match which.failed {
            true => select!(
                "WHERE (d.state IN ('rejected', 'given_up')
                        OR (d.state = 'pending' AND a.number IS NOT NULL)) AND "
                wanted!()
            ),
            false => select!("WHERE " wanted!()),
        };
        let rows = query(statement)
            .bind(which.state.map(DeliveryState::as_str))
            .bind(which.notifier)
            .bind(which.organization)
            .bind(which.before)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(delivery_row).collect()
    }

    /// The punctuality of deliveries of new alerts that became due after `since`. They are on time
    /// if they are accepted within `limit`. A failed delivery does not count if its alert was sent
    /// again; nor does one that was cancelled, or superseded in time.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn punctuality(
        &self,
        since: DateTime<Utc>,
        limit: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Punctuality> {
        self.count_punctual(punctuality!("d.due_at > $1"), since, limit, now).await
    }

    /// The punctuality of deliveries of new alerts that ended after `since`, and of pending ones
    /// that are late already: consecutive periods miss none.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn punctuality_of_ended(
        &self,
        since: DateTime<Utc>,
        limit: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Punctuality> {
        let ended = punctuality!("(d.settled_at > $1 OR d.state = 'pending')");
        self.count_punctual(ended, since, limit, now).await
    }

    async fn count_punctual(
        &self,
        sql: &'static str,
        since: DateTime<Utc>,
        limit: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Punctuality> {
        let (on_time, missed): (i64, i64) = query(sql)
            .bind(millis(since))
            .bind(limit.num_milliseconds())
            .bind(millis(now - limit))
            .bind(millis(now))
            .tuple(&self.pool)
            .await?;
        let on_time = on_time.unsigned_abs();
        Ok(Punctuality { on_time, total: on_time + missed.unsigned_abs() })
    }

    /// The numbers of deliveries that were rejected or given up after `since`, and of pending ones
    /// that have failed.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn count_failed(&self, since: DateTime<Utc>) -> Result<(u64, u64)> {
        let (failed, retrying): (i64, i64) = query(
            "SELECT
               coalesce(sum(CASE WHEN d.state IN ('rejected', 'given_up') THEN 1 ELSE 0 END), 0),
               coalesce(sum(CASE WHEN d.state = 'pending' THEN 1 ELSE 0 END), 0)
             FROM deliveries d
             WHERE (d.state IN ('rejected', 'given_up') AND d.settled_at > $1)
                OR (d.state = 'pending'
                    AND EXISTS (SELECT 1 FROM attempts a WHERE a.delivery_id = d.id))",
        )
        .bind(millis(since))
        .tuple(&self.pool)
        .await?;
        Ok((failed.unsigned_abs(), retrying.unsigned_abs()))
    }

    /// The delivery with this id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delivery(&self, id: Uuid) -> Result<Option<DeliveryRow>> {
        let row = query(select!("WHERE d.id = $1"))
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(delivery_row).transpose()
    }

    /// Pending deliveries by notifier.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn waiting(&self) -> Result<Vec<Waiting>> {
        let rows: Vec<(String, i64, i64)> = query(
            "SELECT notifier, count(*), min(created_at) FROM deliveries WHERE state = 'pending'
             GROUP BY notifier ORDER BY notifier",
        )
        .tuples(&self.pool)
        .await?;
        Ok(rows.into_iter().map(Waiting::from).collect())
    }

    /// Makes all pending deliveries of a notifier due now: a start or reload may have fixed their
    /// problem. Unconfirmed deliveries, which may have arrived, keep their pause.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn retry_all(&self, notifier: &str, now: DateTime<Utc>) -> Result<u64> {
        query(
            "UPDATE deliveries SET next_attempt_at = $2
             WHERE notifier = $1 AND state = 'pending' AND lease_until IS NULL AND next_attempt_at > $2
               AND coalesce((SELECT a.outcome FROM attempts a WHERE a.delivery_id = deliveries.id
                             ORDER BY a.number DESC LIMIT 1), '') <> 'unconfirmed'",
        )
        .bind(notifier)
        .bind(millis(now))
        .execute(&self.pool)
        .await
        .map_err(Into::into)
    }

    /// Makes a pending, rejected or given-up delivery due now, with a new end of retries. `id` can
    /// be a unique prefix of at least four characters.
    ///
    /// # Errors
    /// If no delivery or more than one matches, or if it is delivered, superseded, cancelled or out
    /// of date.
    pub async fn retry(
        &self,
        id: &str,
        now: DateTime<Utc>,
        give_up_at: DateTime<Utc>,
    ) -> Result<Uuid> {
        let known = id.len() >= 4 && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        let no_such = || StoreError::NoSuchDelivery(crate::domain::text::one_line(id, 60));
        if !known {
            return Err(no_such());
        }
        let mut tx = self.pool.begin().await?;
        let found =
            query("SELECT id, notification_id FROM deliveries WHERE id LIKE $1 || '%' LIMIT 2")
                .bind(id.to_ascii_lowercase())
                .fetch_all(&mut tx)
                .await?;
        let [row] = found.as_slice() else {
            return Err(no_such());
        };
        let id = uuid(row, "id")?;
        // Wait for a result that is being recorded.
        let notification: String = row.try_get("notification_id")?;
        lock(&mut tx, &notification).await?;
        let row = query("SELECT state FROM deliveries WHERE id = $1")
            .bind(id.to_string())
            .fetch_one(&mut tx)
            .await?;
        let state = state(&row)?;
        match state {
            DeliveryState::Pending | DeliveryState::Rejected | DeliveryState::GivenUp => {}
            done @ (DeliveryState::Delivered
            | DeliveryState::Superseded
            | DeliveryState::Cancelled) => {
                return Err(StoreError::NotRetryable(id.to_string(), done));
            }
        }
        // Sent after a later message, it would reopen a resolved alert or show old data. A pending
        // delivery is still sent before the later one.
        let newer: bool = query(
            "SELECT EXISTS (
               SELECT 1 FROM deliveries d
               JOIN notification_subjects ds ON ds.notification_id = d.notification_id
               JOIN notification_subjects es ON es.organization = ds.organization
                AND es.subject = ds.subject
               JOIN deliveries e ON e.notification_id = es.notification_id
                AND e.notifier = d.notifier AND e.receiver = d.receiver AND e.seq > d.seq
               WHERE d.id = $1)",
        )
        .bind(id.to_string())
        .scalar_one(&mut tx)
        .await?;
        if newer && state != DeliveryState::Pending {
            return Err(StoreError::OutOfDate(id.to_string()));
        }
        query(
            "UPDATE deliveries SET state = 'pending', settled_at = NULL, next_attempt_at = $2,
                    created_at = CASE WHEN created_at < $2 THEN created_at ELSE $2 END, give_up_at = $3
             WHERE id = $1",
        )
        .bind(id.to_string())
        .bind(millis(now))
        .bind(millis(give_up_at))
        .execute(&mut tx)
        .await?;
        // The alert counts as sent again.
        query("UPDATE ledger SET withdrawn = FALSE WHERE notification_id = $1")
            .bind(&notification)
            .execute(&mut tx)
            .await?;
        tx.commit().await?;
        Ok(id)
    }

    /// Cancels the pending deliveries of notifiers and receivers that are no longer configured, and
    /// deletes the ledgers without a receiver. A receiver that moved to another route gets all its
    /// open alerts, so the pending deliveries of the previous one are cancelled, too, except those
    /// that are also for its present owners. `routes` contains every route with the name of its
    /// notifier. Returns the number of deliveries for each notifier.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn cancel_removed(
        &self,
        routes: &[(String, Route)],
        lease: &Lease,
        now: DateTime<Utc>,
    ) -> Result<Vec<(String, u64)>> {
        let mut tx = self.pool.begin().await?;
        leases::hold(&mut tx, lease).await?;
        let mut cancelled: BTreeMap<String, u64> = BTreeMap::new();
        for pending in pending(&mut tx).await? {
            if !pending.is_obsolete(routes) {
                continue;
            }
            lock(&mut tx, &pending.notification).await?;
            let changed = query(
                "UPDATE deliveries SET state = 'cancelled', settled_at = $2, lease_until = NULL
                 WHERE id = $1 AND state = 'pending'",
            )
            .bind(&pending.id)
            .bind(millis(now))
            .execute(&mut tx)
            .await?;
            settle(&mut tx, &pending.notification).await?;
            if changed > 0 {
                *cancelled.entry(pending.notifier).or_default() += changed;
            }
        }
        // After the notifications, which other transactions lock first.
        forget_ledgers(&mut tx, routes).await?;
        failures::forget(&mut tx, routes).await?;
        drills::forget(&mut tx, routes).await?;
        tx.commit().await?;
        Ok(cancelled.into_iter().collect())
    }
}

/// A pending delivery.
struct Pending {
    id: String,
    notification: String,
    notifier: String,
    receiver: String,
    audience: Audience,
    /// Whether it contains all open alerts for a new receiver.
    is_catch_up: bool,
}

impl Pending {
    /// Whether its receiver is no longer configured, or belongs to other owners now.
    fn is_obsolete(&self, routes: &[(String, Route)]) -> bool {
        let Pending { notifier, audience, .. } = self;
        let mut its = routes.iter().filter(|(name, _)| name == notifier);
        let Some((_, route)) = its.find(|(_, route)| route.has(&self.receiver)) else {
            return true;
        };
        let present = &route.routing.audience;
        let is_same = present.ledger_of(notifier) == audience.ledger_of(notifier);
        !is_same && (self.is_catch_up || !present.covers(audience))
    }
}

/// The pending deliveries in the order of their notifications: a fixed order of locks prevents
/// deadlocks.
async fn pending(tx: &mut Transaction) -> Result<Vec<Pending>> {
    macro_rules! pending {
        ($audience:expr) => {
            concat!(
                "SELECT d.id, d.notification_id, d.notifier, d.receiver, n.kind, ",
                $audience,
                " FROM deliveries d JOIN notifications n ON n.id = d.notification_id
                 WHERE d.state = 'pending' ORDER BY d.notification_id, d.id"
            )
        };
    }
    let statement = either(pending!(audience!(sqlite)), pending!(audience!(postgres)));
    let rows: Vec<(String, String, String, String, String, Option<String>)> =
        statement.tuples(&mut *tx).await?;
    let pending =
        rows.into_iter().map(|(id, notification, notifier, receiver, kind, audience)| Pending {
            id,
            notification,
            notifier,
            receiver,
            audience: audience.map_or(Audience::Everyone, Audience::from),
            is_catch_up: kind == MessageKind::CatchUp.as_str(),
        });
    Ok(pending.collect())
}

/// Deletes the ledgers that are no longer configured, and forgets the receivers that no longer
/// belong to a ledger.
async fn forget_ledgers(tx: &mut Transaction, routes: &[(String, Route)]) -> Result<()> {
    let ledgers: Vec<(String, &Route)> = routes
        .iter()
        .map(|(notifier, route)| (route.routing.audience.ledger_of(notifier), route))
        .collect();
    let known: Vec<(String, String)> =
        query("SELECT DISTINCT notifier, receiver FROM receivers").tuples(&mut *tx).await?;
    for (ledger, receiver) in known {
        if !ledgers.iter().any(|(name, route)| *name == ledger && route.has(&receiver)) {
            query("DELETE FROM receivers WHERE notifier = $1 AND receiver = $2")
                .bind(&ledger)
                .bind(&receiver)
                .execute(&mut *tx)
                .await?;
        }
    }
    let names: Vec<String> =
        query("SELECT DISTINCT notifier FROM ledger").scalars(&mut *tx).await?;
    for name in names.iter().filter(|name| ledgers.iter().all(|(known, _)| known != *name)) {
        query("DELETE FROM ledger WHERE notifier = $1").bind(name).execute(&mut *tx).await?;
    }
    Ok(())
}

fn state(row: &Row) -> Result<DeliveryState> {
    let word: &str = row.try_get("state")?;
    DeliveryState::parse(word)
        .ok_or_else(|| sqlx::Error::Decode(format!("unknown state “{word}”").into()).into())
}

fn delivery_row(row: &Row) -> Result<DeliveryRow> {
    let state = state(row)?;
    let outcome: Option<String> = row.try_get("outcome")?;
    let detail: Option<String> = row.try_get("detail")?;
    let next = instant(row.try_get("next_attempt_at")?);
    let settled_at = row.try_get::<Option<i64>>("settled_at")?.map(instant);
    let due_at = row.try_get::<Option<i64>>("due_at")?.map(instant);
    let arrived_at = settled_at.filter(|_| state == DeliveryState::Delivered);
    Ok(DeliveryRow {
        seq: row.try_get("seq")?,
        id: uuid(row, "id")?,
        notification_id: uuid(row, "notification_id")?,
        organization: Some(row.try_get("organization")?).filter(|name: &String| !name.is_empty()),
        notifier: row.try_get("notifier")?,
        receiver: row.try_get("receiver")?,
        summary: row.try_get("summary")?,
        state,
        created_at: instant(row.try_get("created_at")?),
        attempts: row.number("attempts")?,
        next_attempt_at: (state == DeliveryState::Pending).then_some(next),
        settled_at,
        late: arrived_at.zip(due_at).map(|(arrived_at, due_at)| arrived_at - due_at),
        last: outcome.zip(detail),
    })
}
