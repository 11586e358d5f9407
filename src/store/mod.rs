//! The database, in domain types.
//!
//! Guarantees: one transaction commits notifications, ledger and scan record; another one commits
//! the results of attempts and their consequences. No transaction is open while sending. `now` is
//! always an argument. This module makes no decisions about alerts; it supersedes deliveries and
//! withdraws ledger entries as records of the decisions.
//!
//! Two databases are supported, with the same statements: a SQLite file for one instance, and a
//! PostgreSQL server for several. With several instances, a lease decides which one commits for an
//! organization, and the transaction checks it.

#[macro_use]
mod sql;

mod acknowledgements;
mod commit;
mod deliveries;
mod drills;
mod failures;
mod heartbeats;
mod instances;
mod inventories;
mod leases;
mod ledger;
mod migrations;
mod open;
mod outbox;
mod postgres;
mod prune;
mod rates;
mod scans;
mod schedules;
mod sessions;
mod sqlite;
mod transfer;

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, atomic::AtomicI64},
};
use uuid::Uuid;

use crate::domain::{
    certificate::OrganizationName,
    delivery::{DeliveryRow, DeliveryState},
    inventory::Inventory,
};
pub use commit::{Change, Commit, MessageKind, Plan};
pub use deliveries::{Waiting, Which};
pub use drills::Drill;
pub use heartbeats::Latest;
pub use instances::{Instance, Membership};
pub use leases::{LEASE, Lease, LeaseOutcome};
pub use ledger::{LedgerVersion, SentNotification};
pub use open::Place;
pub use outbox::{Attempted, Claim, Claimed};
pub use postgres::{LEAST_CONNECTIONS, Server, fits_url, is_proven, password_in, shown_url};
pub use prune::LINK_LIFETIME;
pub use schedules::{Job, JobProgress};
use sql::{Pool, query};
pub use transfer::TransferError;

#[derive(Clone, Debug)]
pub struct Settings {
    pub place: Place,
    /// How long scans, deliveries and sent alerts are kept.
    pub history: TimeDelta,
}

/// An error of the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database {0} is in use by another certvigil")]
    InUse(String),
    #[error("no database at {0}: the first start of the service (certvigil run) creates it")]
    Missing(String),
    #[error("cannot open the database {0}: permission denied; try sudo")]
    Denied(String),
    #[error("the database {0} was written by a newer certvigil: use that version or a newer one")]
    Newer(String),
    #[error(
        "the database {0} was written by an older certvigil: a start of the service \
             (certvigil run) upgrades it"
    )]
    Older(String),
    #[error(
        "the database {state} is damaged: {why}; restore it from a backup, or move the file \
         away: certvigil then starts with an empty database and sends every open alert again"
    )]
    Damaged { state: String, why: String },
    #[error("cannot open the database {state}: {why}")]
    Open { state: String, why: String },
    /// The server is temporarily unavailable.
    #[error("cannot reach the database {state}: {why}")]
    Away { state: String, why: String },
    #[error("a delivery finished while the scan was being saved")]
    LedgerChanged,
    #[error("another instance has taken over: changes discarded")]
    TakenOver,
    #[error("stored data unreadable: {0}")]
    Content(#[from] serde_json::Error),
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    #[error("no delivery, or more than one, matches the id {0}")]
    NoSuchDelivery(String),
    #[error(
        "delivery {0} cannot be retried: it is superseded by a later message to the same receiver"
    )]
    OutOfDate(String),
    #[error("delivery {0} is {1} and cannot be retried")]
    NotRetryable(String, DeliveryState),
}

type Result<T> = std::result::Result<T, StoreError>;

impl StoreError {
    /// Whether the transaction conflicted with another one, and may succeed on a retry (SQLSTATE
    /// 40001, 40P01 and 55P03).
    fn is_conflict(&self) -> bool {
        let StoreError::Database(sqlx::Error::Database(error)) = self else { return false };
        error.code().is_some_and(|code| ["40001", "40P01", "55P03"].contains(&&*code))
    }

    /// Whether the server is temporarily unavailable.
    pub fn is_away(&self) -> bool {
        match self {
            StoreError::Away { .. } => true,
            StoreError::Database(error) => postgres::is_away(error),
            _ => false,
        }
    }

    /// Whether a retry may succeed: the server is unavailable, or a transaction conflicted.
    pub fn is_passing(&self) -> bool {
        self.is_away() || self.is_conflict()
    }

    fn open(state: impl std::fmt::Display, why: impl std::fmt::Display) -> StoreError {
        StoreError::Open { state: state.to_string(), why: why.to_string() }
    }
}

/// The database. Cheap to clone: all clones share the connections.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool,
    /// The connections for renewing the registration of this instance.
    registration_pool: Pool,
    /// The id of this instance.
    me: Uuid,
    /// The leases that this instance renews.
    renewed_leases: Arc<Mutex<BTreeSet<String>>>,
    /// How far the database's clock is ahead of this machine's, in milliseconds. Claims of several
    /// instances use the database's clock.
    ahead: Arc<AtomicI64>,
    /// SQLite's write-ahead log, which receives every change first.
    log: Option<Arc<Path>>,
    /// The opened database file.
    file: Option<Arc<open::OpenedFile>>,
    /// The locks of the file; the system releases them when the process dies.
    _lock: Option<Arc<sqlite::Locks>>,
}

/// A fingerprint of a SQLite database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFingerprint {
    length: u64,
    written_at: std::time::SystemTime,
}

/// The result of [`Store::version`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    organizations: Vec<(String, i64, Option<String>)>,
    acknowledgements: (i64, i64),
}

/// The stored name: rows without an organization have an empty name, which no organization has.
fn organization(of: Option<&OrganizationName>) -> &str {
    of.map_or("", OrganizationName::as_str)
}

/// An id that sorts by time (RFC 9562, version 7).
pub fn id_at(now: DateTime<Utc>) -> Uuid {
    let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
    let timestamp =
        uuid::Timestamp::from_unix(uuid::NoContext, seconds, now.timestamp_subsec_nanos());
    Uuid::new_v7(timestamp)
}

fn millis(at: DateTime<Utc>) -> i64 {
    at.timestamp_millis()
}

fn instant(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(millis).unwrap_or_default()
}

impl Store {
    /// Converts a time of this machine's clock to the clock that all instances share.
    fn shared(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let ahead = self.ahead.load(std::sync::atomic::Ordering::Relaxed);
        now + TimeDelta::milliseconds(ahead)
    }

    /// A fingerprint of the database without a query; `None` if unknown. An equal one almost
    /// certainly means that nothing has changed: file systems record times in milliseconds or
    /// finer.
    pub fn mark(&self) -> Option<FileFingerprint> {
        let log = std::fs::metadata(self.log.as_ref()?).ok()?;
        Some(FileFingerprint { length: log.len(), written_at: log.modified().ok()? })
    }

    /// The inventory of an organization; empty before the first scan.
    ///
    /// # Errors
    /// If the database fails or contains unreadable data.
    pub async fn inventory(&self, organization: &OrganizationName) -> Result<Inventory> {
        let mut tx = self.pool.begin_reading().await?;
        let inventory = inventories::read(&mut tx, organization).await;
        tx.rollback().await?;
        inventory
    }

    /// The organizations with a stored inventory.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn organizations(&self) -> Result<Vec<OrganizationName>> {
        let names: Vec<String> =
            query("SELECT name FROM organizations ORDER BY name").scalars(&self.pool).await?;
        Ok(names.iter().filter_map(|name| OrganizationName::parse(name).ok()).collect())
    }

    /// A version that changes with every inventory or acknowledgement.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn version(&self) -> Result<Version> {
        let organizations =
            query("SELECT name, updated_at, scan_id FROM organizations ORDER BY name")
                .tuples(&self.pool)
                .await?;
        let acknowledgements: (i64, i64) =
            query("SELECT coalesce(max(seq), 0), count(ended_at) FROM acknowledgements")
                .tuple(&self.pool)
                .await?;
        Ok(Version { organizations, acknowledgements })
    }
}
