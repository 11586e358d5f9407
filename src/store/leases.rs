//! Leases: the right to commit for an organization, with several instances.
//!
//! Guarantees: one holder at a time, by a lease that expires if its holder dies. A scanned tick is
//! not taken again, unless the configuration has changed. Each lease has a new token, and a
//! transaction refuses commits with an older one, however long the holder was paused. Uses the
//! clock of the database. A file has a single instance, which always gets the lease.

use chrono::{DateTime, TimeDelta, Utc};
use std::sync::PoisonError;

use super::{
    Result, Store, StoreError, instances, millis, organization,
    sql::{Transaction, query},
};
use crate::domain::certificate::OrganizationName;

/// How long a lease lasts that is not renewed: by then another instance takes over from one that has died.
pub const LEASE: TimeDelta = TimeDelta::seconds(30);

/// What a commit is allowed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    name: String,
    holder: String,
    token: i64,
}

/// The result of taking a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// It is held, until it is let go of, or was not renewed for its length.
    Acquired(Lease),
    /// Another instance holds it.
    Held,
    /// That scheduled moment was scanned already, with the configuration that is in force.
    Done,
    /// Another configuration is in force.
    Superseded,
}

impl Store {
    /// Takes the lease of an organization, or the one without an organization; for a scheduled tick
    /// only if it was not scanned yet.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn take(
        &self,
        of: Option<&OrganizationName>,
        tick: Option<DateTime<Utc>>,
        length: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<LeaseOutcome> {
        let (name, holder) = (organization(of).to_owned(), self.me.to_string());
        if !self.is_shared() {
            return Ok(LeaseOutcome::Acquired(Lease { name, holder, token: 0 }));
        }
        let mut tx = self.pool.begin().await?;
        if !instances::is_in_force(&mut tx, &holder).await? {
            self.keep(&name, false);
            query("UPDATE leases SET until = 0 WHERE name = $1 AND holder = $2")
                .bind(&name)
                .bind(&holder)
                .execute(&mut tx)
                .await?;
            tx.commit().await?;
            return Ok(LeaseOutcome::Superseded);
        }
        let token: Option<i64> = query(
            "INSERT INTO leases (name, holder, token, until)
             VALUES ($1, $2, 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3)
             ON CONFLICT (name) DO UPDATE
             SET holder = excluded.holder, token = leases.token + 1, until = excluded.until
             WHERE leases.holder = excluded.holder
                OR leases.until <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint
             RETURNING token",
        )
        .bind(&name)
        .bind(&holder)
        .bind(length.num_milliseconds())
        .scalar(&mut tx)
        .await?;
        let Some(token) = token else {
            tx.rollback().await?;
            return Ok(LeaseOutcome::Held);
        };
        if let Some(tick) = tick {
            // Times from a clock that was ahead delay nothing; and a tick scanned under another
            // configuration is scanned again under this one.
            let done: bool = query(
                "SELECT EXISTS (SELECT 1 FROM scans WHERE organization = $1 AND tick >= $2 AND tick <= $3)
                    AND (SELECT digest FROM leases WHERE name = $1)
                        IS NOT DISTINCT FROM (SELECT digest FROM instances WHERE id = $4)",
            )
            .bind(&name)
            .bind(millis(tick))
            .bind(millis(now.max(tick)))
            .bind(&holder)
            .scalar_one(&mut tx)
            .await?;
            if done {
                // One that was held before need not be waited for.
                self.keep(&name, false);
                query("UPDATE leases SET until = 0 WHERE name = $1 AND token = $2")
                    .bind(&name)
                    .bind(token)
                    .execute(&mut tx)
                    .await?;
                tx.commit().await?;
                return Ok(LeaseOutcome::Done);
            }
        }
        tx.commit().await?;
        self.keep(&name, true);
        Ok(LeaseOutcome::Acquired(Lease { name, holder, token }))
    }

    /// Lets go of a lease, where it is still held.
    ///
    /// # Errors
    /// Where the database fails; then it ends by itself.
    pub async fn release(&self, lease: &Lease) -> Result<()> {
        if self.is_shared() {
            self.keep(&lease.name, false);
            query("UPDATE leases SET until = 0 WHERE name = $1 AND holder = $2 AND token = $3")
                .bind(&lease.name)
                .bind(&lease.holder)
                .bind(lease.token)
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }
}

impl Store {
    /// Notes whether the signs that this instance gives keep a lease.
    fn keep(&self, name: &str, keep: bool) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if keep {
            kept.insert(name.to_owned());
        } else {
            kept.remove(name);
        }
    }
}

/// Makes sure that a lease is held until the end of the transaction, and that its holder's configuration counts.
pub(super) async fn hold(tx: &mut Transaction, lease: &Lease) -> Result<()> {
    if !tx.is_shared() {
        return Ok(());
    }
    // Whoever wants to take it waits for this row.
    let held = query(
        "UPDATE leases SET digest = (SELECT digest FROM instances WHERE id = $2)
         WHERE name = $1 AND holder = $2 AND token = $3",
    )
    .bind(&lease.name)
    .bind(&lease.holder)
    .bind(lease.token)
    .execute(&mut *tx)
    .await?;
    if held == 0 || !instances::is_in_force(tx, &lease.holder).await? {
        return Err(StoreError::TakenOver);
    }
    Ok(())
}
