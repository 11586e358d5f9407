//! Leases: with several instances, the right to commit for an organization.
//!
//! Guarantees: a lease has one holder at a time, and expires if its holder dies. Each scheduled
//! time is scanned once for each configuration. Each new lease has a higher token, and a commit
//! with an older token fails, no matter how long its holder was paused. Uses the clock of the
//! database. With SQLite, the single instance always gets the lease.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Result, Store, StoreError, instances, millis, organization,
    sql::{Transaction, query},
};
use crate::domain::certificate::OrganizationName;

/// The duration of a lease without renewal; afterwards another instance takes over.
pub const LEASE: TimeDelta = TimeDelta::seconds(30);

/// The right to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    name: String,
    holder: String,
    token: i64,
}

/// The result of an attempt to acquire a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// Valid until it is released, or not renewed for its length.
    Acquired(Lease),
    /// Another instance holds it.
    Held,
    /// This scheduled time was already scanned with the active configuration.
    Done,
    /// Another configuration is active.
    Superseded,
}

impl Store {
    /// Acquires the lease of an organization, or the one without an organization; with a scheduled
    /// time only if it was not scanned yet.
    ///
    /// # Errors
    /// If the database fails.
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
            // Scans dated in the future by a clock that was ahead do not count, nor do scans with
            // another configuration.
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
                // Other instances need not wait for the lease to expire.
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

    /// Releases a lease, if it is still held.
    ///
    /// # Errors
    /// If the database fails; the lease expires then.
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
    /// Sets whether this instance renews the lease.
    fn keep(&self, name: &str, keep: bool) {
        let mut renewed_leases = self.renewed_leases.lock();
        if keep {
            renewed_leases.insert(name.to_owned());
        } else {
            renewed_leases.remove(name);
        }
    }
}

/// Checks that the lease is held and its holder's configuration is active, and locks the lease
/// until the end of the transaction.
pub(super) async fn hold(tx: &mut Transaction, lease: &Lease) -> Result<()> {
    if !tx.is_shared() {
        return Ok(());
    }
    // The update locks the row: other instances wait before they acquire the lease.
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
