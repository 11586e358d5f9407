//! The database, in domain types.
//!
//! Guarantees: one transaction commits notifications, ledger and scan record; another one the
//! results of attempts and their consequences. No transaction is open while sending. `now` is
//! always an argument. Decides nothing: superseding and withdrawing is bookkeeping of sent alerts.
//!
//! There are two databases: SQLite in a file, for one instance, and PostgreSQL on a server, for any
//! number of them. The statements are written once, for both. Where several work on one state, who
//! commits for an organization is settled by a lease, and checked in the transaction: whoever was
//! taken over from commits nothing.

mod acknowledgements;
mod deliveries;
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
mod rates;
mod sessions;
mod sql;
mod sqlite;
mod transfer;

use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, TimeDelta, Utc};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicI64},
};
use uuid::Uuid;

use crate::domain::{
    acknowledgement::Ending,
    certificate::OrganizationName,
    compose::Composed,
    delivery::{DeliveryRow, DeliveryState},
    inventory::Inventory,
    reconcile::Decision,
    scan::ScanRecord,
    words::words,
};
pub use deliveries::{Waiting, Which};
pub use heartbeats::Latest;
pub use instances::{Difference, Instance, Membership};
pub use leases::{LEASE, Lease, Taken};
pub use ledger::{LedgerVersion, SentNotification};
pub use open::Place;
pub use outbox::{Attempted, Claim, Claimed};
pub use postgres::{LEAST_CONNECTIONS, Server, fits_url, is_proven, password_in, shown_url};
use sql::{Pool, Row, Transaction, query};
pub use transfer::TransferFault;

#[derive(Clone, Debug)]
pub struct Settings {
    pub place: Place,
    /// How long scans, deliveries and sent alerts are kept.
    pub history: TimeDelta,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    #[error("the database {0} is in use by another certvigil")]
    InUse(String),
    #[error("no database at {0}: certvigil run creates it at its first start")]
    Missing(String),
    #[error("cannot open the database {0}: permission denied; try sudo")]
    Denied(String),
    #[error("the database {0} was written by a newer certvigil")]
    Newer(String),
    #[error("the database {0} was written by an older certvigil: certvigil run upgrades it")]
    Older(String),
    #[error(
        "the database {state} is damaged: {why}; restore it from a backup, or move the file \
         away: certvigil then starts with an empty database and sends every open alert again"
    )]
    Damaged { state: String, why: String },
    #[error("cannot open the database {state}: {why}")]
    Open { state: String, why: String },
    /// The server does not answer now, and may do so later.
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
    #[error("no delivery {0}")]
    NoSuchDelivery(String),
    #[error("delivery {0} is superseded by a later message to the same receiver")]
    OutOfDate(String),
    #[error("delivery {0} is {1} and cannot be retried")]
    NotRetryable(String, DeliveryState),
}

type Result<T> = std::result::Result<T, StoreFault>;

impl StoreFault {
    /// Whether the state is a server that does not answer now, and may do so later.
    pub fn is_away(&self) -> bool {
        match self {
            StoreFault::Away { .. } => true,
            StoreFault::Database(error) => postgres::is_away(error),
            _ => false,
        }
    }

    /// Whether it is worth another attempt: the server is away, or somebody else was in the way.
    pub fn is_passing(&self) -> bool {
        self.is_away() || is_conflict(self)
    }

    fn open(state: impl std::fmt::Display, why: impl std::fmt::Display) -> StoreFault {
        StoreFault::Open { state: state.to_string(), why: why.to_string() }
    }
}

/// The state. Cheap to clone; all clones share their connections.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool,
    /// The connection for renewing the registration, with several instances.
    beats: Pool,
    /// Who this is, to the others.
    me: Uuid,
    /// The leases that this instance has in use.
    kept: Arc<Mutex<BTreeSet<String>>>,
    /// How far the database's clock is ahead of this machine's, in milliseconds: what several
    /// instances settle by time, they settle by that clock.
    ahead: Arc<AtomicI64>,
    /// What every change of a file is written to first.
    log: Option<Arc<Path>>,
    /// The file that was opened.
    file: Option<Arc<open::OpenedFile>>,
    /// Held as long as the process works on a file; the system lets go of it when it dies.
    _lock: Option<Arc<sqlite::Locks>>,
}

/// Something that is another when a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    length: u64,
    written_at: std::time::SystemTime,
}

/// What [`Store::version`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    organizations: Vec<(String, i64, Option<String>)>,
    acknowledgements: (i64, i64),
}

/// The messages and ledger entries of one notifier after a scan.
#[derive(Clone, Debug)]
pub struct Plan {
    pub notifier: String,
    /// The ledger entries. Empty if the messages only repeat the ledger.
    pub decisions: Vec<Decision>,
    /// The messages; empty for ledger entries without a message.
    pub messages: Vec<Composed>,
    pub kind: MessageKind,
    /// The receivers.
    pub receivers: Vec<String>,
    /// Those of them that are up to date with this commit.
    pub up_to_date: Vec<String>,
    /// Whether no previous receiver is left: the ledger is deleted first.
    pub afresh: bool,
    /// The ledger that the plan was made by. If it has changed since, the commit is refused.
    pub ledger_version: LedgerVersion,
}

words! {
    /// What a message is to the bookkeeping.
    MessageKind {
        /// New alerts and resolutions.
        News = "news",
        /// All open alerts for new receivers: once delivered, they are up to date.
        CatchUp = "catch_up",
        /// A refresh of sent alerts: the ledger does not depend on it, and the next one replaces
        /// it.
        Refresh = "refresh",
    }
}

/// Everything that one scan, or one look at the notifiers, changes.
#[derive(Clone, Debug)]
pub struct Commit {
    /// By which lease; `None` where nobody else can work on the state.
    pub lease: Option<Lease>,
    pub change: Change,
    pub plans: Vec<Plan>,
    /// The acknowledgements whose subject is resolved.
    pub over: Vec<Uuid>,
    pub now: DateTime<Utc>,
    /// When these messages are given up.
    pub give_up_at: DateTime<Utc>,
}

/// The cause of a commit, with its change of the inventory.
#[derive(Clone, Debug)]
pub enum Change {
    Scan(Box<(ScanRecord, Arc<Inventory>)>),
    /// The organization is no longer watched.
    Retired(OrganizationName),
    /// Alerts about notifiers, which change no inventory.
    Notifiers,
}

impl Commit {
    /// The organization as it is stored.
    fn organization(&self) -> &str {
        organization(match &self.change {
            Change::Scan(scan) => Some(&scan.0.organization),
            Change::Retired(organization) => Some(organization),
            Change::Notifiers => None,
        })
    }
}

/// Rows without an organization have an empty name, which no organization has.
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
    /// An instant of this machine's clock by the one that all instances share.
    fn shared(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let ahead = self.ahead.load(std::sync::atomic::Ordering::Relaxed);
        now + TimeDelta::milliseconds(ahead)
    }

    /// A fingerprint of the database without a query: an equal one most likely means no change,
    /// because file systems count milliseconds. `None` if unknown.
    pub fn mark(&self) -> Option<Mark> {
        let log = std::fs::metadata(self.log.as_ref()?).ok()?;
        Some(Mark { length: log.len(), written_at: log.modified().ok()? })
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

    /// The organizations of which something is known.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn organizations(&self) -> Result<Vec<OrganizationName>> {
        let names: Vec<String> =
            query("SELECT name FROM organizations ORDER BY name").scalars(&self.pool).await?;
        Ok(names.iter().filter_map(|name| OrganizationName::parse(name).ok()).collect())
    }

    /// The scheduled moment of the organization's latest scan.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn last_tick(
        &self,
        organization: &OrganizationName,
    ) -> Result<Option<DateTime<Utc>>> {
        let tick: Option<i64> = query("SELECT max(tick) FROM scans WHERE organization = $1")
            .bind(organization.as_str())
            .scalar_one(&self.pool)
            .await?;
        Ok(tick.map(instant))
    }

    /// Whether some kept scan has read anything of the organization.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn was_read(&self, organization: &OrganizationName) -> Result<bool> {
        Ok(query(
            "SELECT EXISTS (SELECT 1 FROM scans
                            WHERE organization = $1 AND (complete OR projects_read > 0))",
        )
        .bind(organization.as_str())
        .scalar_one(&self.pool)
        .await?)
    }

    /// The latest scan of an organization: the one that its inventory comes from, regardless of
    /// clocks. `None` before the first scan.
    ///
    /// # Errors
    /// If the database fails or contains unreadable data.
    pub async fn latest_scan(&self, organization: &OrganizationName) -> Result<Option<ScanRecord>> {
        let row = query(
            "SELECT s.* FROM organizations o JOIN scans s ON s.id = coalesce(o.scan_id,
               (SELECT l.id FROM scans l WHERE l.organization = o.name
                ORDER BY l.finished_at DESC, l.id DESC LIMIT 1))
             WHERE o.name = $1",
        )
        .bind(organization.as_str())
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(scan_record).transpose()
    }

    /// The latest scans, most recent start first; optionally of one organization and started before
    /// another one.
    ///
    /// # Errors
    /// If the database fails or contains unreadable data.
    pub async fn scans(
        &self,
        organization: Option<&OrganizationName>,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<ScanRecord>> {
        // The ids begin with the time (RFC 9562, section 5.7).
        let rows = query(
            "SELECT * FROM scans
             WHERE ($1 IS NULL OR organization = $1) AND ($2 IS NULL OR id < $2)
             ORDER BY id DESC LIMIT $3",
        )
        .bind(organization.map(OrganizationName::as_str))
        .bind(before.map(|id| id.to_string()))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(scan_record).collect()
    }

    /// When the organization's latest complete scan ended; what a clock that was ahead has noted
    /// does not count.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn last_complete_scan(
        &self,
        organization: &OrganizationName,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>> {
        let at: Option<i64> = query(
            "SELECT finished_at FROM scans
             WHERE organization = $1 AND complete AND finished_at <= $2
               AND EXISTS (SELECT 1 FROM organizations o WHERE o.name = $1)
             ORDER BY finished_at DESC LIMIT 1",
        )
        .bind(organization.as_str())
        .bind(millis(now))
        .scalar(&self.pool)
        .await?;
        Ok(at.map(instant))
    }

    /// A version that changes with every inventory or acknowledgement.
    ///
    /// # Errors
    /// Where the database fails.
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

    /// The receivers that are up to date with the organization, or will be by a delivery in flight.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn known_receivers(
        &self,
        organization: &OrganizationName,
        notifier: &str,
    ) -> Result<BTreeSet<String>> {
        let known: Vec<String> = query(
            "SELECT receiver FROM receivers WHERE organization = $1 AND notifier = $2
             UNION
             SELECT d.receiver FROM deliveries d JOIN notifications n ON n.id = d.notification_id
             WHERE n.organization = $1 AND d.notifier = $2 AND d.state = 'pending'",
        )
        .bind(organization.as_str())
        .bind(notifier)
        .scalars(&self.pool)
        .await?;
        Ok(known.into_iter().collect())
    }

    /// Keeps everything that a scan changes, or nothing of it.
    ///
    /// # Errors
    /// Where the database fails, or another instance has taken over; then nothing has changed.
    pub async fn commit(&self, commit: &Commit) -> Result<()> {
        let once = || self.commit_once(commit);
        once.retry(ExponentialBuilder::default()).when(is_conflict).await
    }

    async fn commit_once(&self, commit: &Commit) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        if let Some(lease) = &commit.lease {
            leases::hold(&mut tx, lease).await?;
        }
        match &commit.change {
            Change::Scan(scan) => {
                let (record, inventory) = scan.as_ref();
                insert_scan(&mut tx, record).await?;
                let (organization, scan) = (commit.organization(), record.id.to_string());
                let updated_at = millis(commit.now);
                inventories::keep(&mut tx, organization, inventory, updated_at, &scan).await?;
            }
            Change::Retired(_) => {
                query("DELETE FROM organizations WHERE name = $1")
                    .bind(commit.organization())
                    .execute(&mut tx)
                    .await?;
            }
            Change::Notifiers => {}
        }
        for plan in &commit.plans {
            ledger::check(&mut tx, commit.organization(), plan).await?;
        }
        for id in &commit.over {
            acknowledgements::end(&mut tx, *id, Ending::Over, commit.now).await?;
        }
        for plan in &commit.plans {
            if plan.afresh {
                ledger::forget(&mut tx, commit, plan).await?;
            }
            for message in &plan.messages {
                outbox::insert(&mut tx, commit, plan, message).await?;
            }
            for decision in &plan.decisions {
                ledger::learn(&mut tx, commit, plan, decision).await?;
            }
            for receiver in &plan.up_to_date {
                let organization = commit.organization();
                outbox::up_to_date(&mut tx, organization, &plan.notifier, receiver, commit.now)
                    .await?;
            }
        }
        Ok(tx.commit().await?)
    }

    /// Ends the acknowledgements of organizations that have not been configured since `before`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end_orphaned_acknowledgements(
        &self,
        before: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<u64> {
        let orphaned = query(
            "UPDATE acknowledgements SET ended_at = $2, ending = $3
             WHERE ended_at IS NULL AND until > $2
               AND NOT EXISTS (SELECT 1 FROM organizations o
                               WHERE o.name = acknowledgements.organization)
               AND NOT EXISTS (SELECT 1 FROM scans s
                               WHERE s.organization = acknowledgements.organization
                                 AND s.finished_at > $1)",
        );
        let orphaned = orphaned.bind(millis(before)).bind(millis(now)).bind(Ending::Over.as_str());
        Ok(orphaned.execute(&self.pool).await?)
    }

    /// Deletes scans, settled notifications and resolved alerts older than `before`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn prune(&self, before: DateTime<Utc>) -> Result<u64> {
        let mut tx = self.pool.begin().await?;
        let mut gone = 0;
        for statement in [
            // The newest of each organization stays: the schedule counts from it.
            "DELETE FROM scans WHERE finished_at < $1
               AND tick < (SELECT max(s.tick) FROM scans s WHERE s.organization = scans.organization)
               AND NOT EXISTS (SELECT 1 FROM organizations o WHERE o.scan_id = scans.id)",
            "DELETE FROM notifications WHERE created_at < $1
               AND NOT EXISTS (SELECT 1 FROM deliveries d
                               WHERE d.notification_id = notifications.id AND d.state = 'pending')",
            "DELETE FROM acknowledgements WHERE coalesce(ended_at, until) < $1",
            "DELETE FROM ledger WHERE at < $1 AND (told IS NULL OR withdrawn OR EXISTS (
               SELECT 1 FROM ledger l
               WHERE l.organization = ledger.organization AND l.notifier = ledger.notifier
                 AND l.subject = ledger.subject AND NOT l.withdrawn AND l.seq > ledger.seq))",
        ] {
            gone += query(statement)
                .bind(millis(before))
                .execute(&mut tx)
                .await?
                ;
        }
        tx.commit().await?;
        Ok(gone)
    }
}

/// Whether two transactions stood in each other's way, and this one may go first next time
/// (SQLSTATE 40001, 40P01 and 55P03).
fn is_conflict(fault: &StoreFault) -> bool {
    let StoreFault::Database(sqlx::Error::Database(error)) = fault else { return false };
    error.code().is_some_and(|code| ["40001", "40P01", "55P03"].contains(&&*code))
}

fn scan_record(row: &Row) -> Result<ScanRecord> {
    let organization: String = row.try_get("organization")?;
    let decode = |why: &str| sqlx::Error::Decode(why.to_owned().into());
    Ok(ScanRecord {
        id: outbox::uuid(row, "id")?,
        organization: OrganizationName::parse(&organization).map_err(decode)?,
        tick: instant(row.try_get("tick")?),
        started_at: instant(row.try_get("started_at")?),
        finished_at: instant(row.try_get("finished_at")?),
        complete: row.try_get("complete")?,
        projects_read: row.number("projects_read")?,
        projects_unreadable: row.number("projects_unreadable")?,
        certificates: row.number("certificates")?,
        requests: row.try_get::<i64>("requests")?.max(0) as u64,
        faults: serde_json::from_str(row.try_get("faults")?)?,
        clock_skew: row.try_get::<Option<i64>>("clock_skew")?.and_then(TimeDelta::try_milliseconds),
    })
}

async fn insert_scan(tx: &mut Transaction, record: &ScanRecord) -> Result<()> {
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    query(
        "INSERT INTO scans (id, organization, tick, started_at, finished_at, complete, projects_read,
                            projects_unreadable, certificates, requests, faults, clock_skew)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(record.id.to_string())
    .bind(record.organization.as_str())
    .bind(millis(record.tick))
    .bind(millis(record.started_at))
    .bind(millis(record.finished_at))
    .bind(record.complete)
    .bind(number(record.projects_read))
    .bind(number(record.projects_unreadable))
    .bind(number(record.certificates))
    .bind(i64::try_from(record.requests).unwrap_or(i64::MAX))
    .bind(serde_json::to_string(&record.faults)?)
    .bind(record.clock_skew.map(|skew| skew.num_milliseconds()))
    .execute(tx)
    .await?;
    Ok(())
}
