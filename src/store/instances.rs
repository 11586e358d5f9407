//! The instances that share a database, and which of their configurations is active.
//!
//! Guarantees: if configurations differ, only instances with the newest one scan, so that alerts do
//! not alternate. It stays active while an instance with it runs, and some minutes longer. A
//! restart does not make an old configuration the newest. Uses the clock of the database.

use chrono::{DateTime, TimeDelta, Utc};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

use super::{
    Result, Store, instant, millis,
    sql::{On, Transaction, query},
};

/// An instance counts as running for this long after its last renewal.
const THERE: TimeDelta = TimeDelta::seconds(30);
/// How long a configuration stays active without a running instance, which may restart; the second
/// value applies if its last instance has left.
const REMEMBERED: TimeDelta = TimeDelta::minutes(10);
const LEFT: TimeDelta = TimeDelta::minutes(1);
/// How long an instance is listed after its last renewal.
const SHOWN: TimeDelta = TimeDelta::hours(1);

/// The registration of an instance.
#[derive(Clone, Debug)]
pub struct Membership {
    pub host: String,
    pub process: u32,
    pub version: &'static str,
    pub started_at: DateTime<Utc>,
    /// The keys that decide the alerts, with their values; no secrets.
    pub settings: BTreeMap<String, String>,
    /// A hash of the configuration.
    pub digest: String,
}

/// A registered instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub id: String,
    pub host: String,
    pub process: u32,
    pub version: String,
    pub started_at: DateTime<Utc>,
    pub seen_at: DateTime<Utc>,
    /// Whether it renewed its registration recently.
    pub there: bool,
    /// Whether it is this instance.
    pub me: bool,
    /// Whether its configuration is the active one, which scans.
    pub in_force: bool,
    pub digest: String,
    pub settings: BTreeMap<String, String>,
}

/// A key with different values in two instances; an unset value is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub key: String,
    pub here: String,
    pub there: String,
}

impl Instance {
    /// The keys whose values differ from another instance.
    pub fn differences(&self, other: &Instance) -> Vec<Difference> {
        let keys: BTreeSet<&String> = self.settings.keys().chain(other.settings.keys()).collect();
        let of = |settings: &BTreeMap<String, String>, key: &String| {
            settings.get(key).cloned().unwrap_or_default()
        };
        let both = keys.into_iter().map(|key| Difference {
            key: key.clone(),
            here: of(&self.settings, key),
            there: of(&other.settings, key),
        });
        both.filter(|one| one.here != one.there).collect()
    }
}

impl Store {
    /// Registers this instance or, with `changed`, its changed configuration. A configuration that
    /// no instance had recently, or that this one has changed to, becomes the active one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn join(
        &self,
        membership: &Membership,
        changed: bool,
        clock: &(dyn Fn() -> DateTime<Utc> + Sync),
    ) -> Result<()> {
        if !self.is_shared() {
            return Ok(());
        }
        let mut tx = self.registration_pool.begin().await?;
        self.compare(&mut tx, clock).await?;
        query("LOCK TABLE configurations IN EXCLUSIVE MODE").execute(&mut tx).await?;
        let renewed_leases: Option<bool> = query(
            "SELECT seen_at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $2
             FROM configurations WHERE digest = $1",
        )
        .bind(&membership.digest)
        .bind(REMEMBERED.num_milliseconds())
        .scalar(&mut tx)
        .await?;
        let already: bool =
            query("SELECT EXISTS (SELECT 1 FROM instances WHERE id = $1 AND digest = $2)")
                .bind(self.me.to_string())
                .bind(&membership.digest)
                .scalar_one(&mut tx)
                .await?;
        let is_new = renewed_leases != Some(true) || (changed && !already);
        if is_new {
            query(
                "INSERT INTO configurations (digest, seq, seen_at)
                 SELECT $1, coalesce(max(seq), 0) + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
                 FROM configurations
                 ON CONFLICT (digest) DO UPDATE SET seq = excluded.seq, seen_at = excluded.seen_at",
            )
            .bind(&membership.digest)
            .execute(&mut tx)
            .await?;
        }
        self.sign(&mut tx, membership).await?;
        Ok(tx.commit().await?)
    }

    /// Renews the registration of this instance, and its leases for another `length`. Returns the
    /// instances of the last hour: this one, then the most recently started ones.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn beat(
        &self,
        membership: &Membership,
        length: TimeDelta,
        clock: &(dyn Fn() -> DateTime<Utc> + Sync),
    ) -> Result<Vec<Instance>> {
        let renewed_leases = self.renewed_leases.lock().clone();
        let mut tx = self.registration_pool.begin().await?;
        self.compare(&mut tx, clock).await?;
        self.sign(&mut tx, membership).await?;
        query(
            "UPDATE leases SET until = (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $2
             WHERE holder = $1 AND until > 0 AND name IN (SELECT jsonb_array_elements_text($3::jsonb))",
        )
        .bind(self.me.to_string())
        .bind(length.num_milliseconds())
        .bind(serde_json::to_string(&renewed_leases)?)
        .execute(&mut tx)
        .await?;
        query(
            "DELETE FROM instances
             WHERE seen_at < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1",
        )
        .bind(SHOWN.num_milliseconds())
        .execute(&mut tx)
        .await?;
        let rows = query(
            "SELECT id, host, process, version, started_at, seen_at, digest, settings,
                    (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now
             FROM instances ORDER BY id <> $1, started_at DESC, id",
        )
        .bind(self.me.to_string())
        .fetch_all(&mut tx)
        .await?;
        let in_force = in_force(&mut tx).await?;
        tx.commit().await?;
        let mut instances = Vec::new();
        let me = self.me.to_string();
        for row in &rows {
            let (id, seen_at): (String, i64) = (row.try_get("id")?, row.try_get("seen_at")?);
            let at: i64 = row.try_get("now")?;
            instances.push(Instance {
                me: id == me,
                id,
                host: row.try_get("host")?,
                process: row.number("process")?,
                version: row.try_get("version")?,
                started_at: instant(row.try_get("started_at")?),
                seen_at: instant(seen_at),
                there: seen_at > at - THERE.num_milliseconds(),
                in_force: in_force.as_deref() == Some(row.try_get("digest")?),
                digest: row.try_get("digest")?,
                settings: serde_json::from_str(row.try_get("settings")?)?,
            });
        }
        Ok(instances)
    }

    /// The number of running instances; 0 with SQLite.
    ///
    /// # Errors
    /// If the database fails.
    pub(super) async fn instances_there(&self, on: impl Into<On<'_>>) -> Result<i64> {
        if !self.is_shared() {
            return Ok(0);
        }
        let there = query(
            "SELECT count(*) FROM instances
             WHERE seen_at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1",
        );
        Ok(there.bind(THERE.num_milliseconds()).scalar_one(on).await?)
    }

    /// Deletes the registration and releases all leases, so that other instances need not wait.
    ///
    /// # Errors
    /// If the database fails; registration and leases expire then.
    pub async fn leave(&self) -> Result<()> {
        if !self.is_shared() {
            return Ok(());
        }
        let mut tx = self.registration_pool.begin().await?;
        let me = self.me.to_string();
        query("UPDATE leases SET until = 0 WHERE holder = $1").bind(&me).execute(&mut tx).await?;
        query(
            "UPDATE configurations c SET seen_at = c.seen_at - $2
             FROM instances mine
             WHERE mine.id = $1 AND c.digest = mine.digest AND NOT EXISTS (
               SELECT 1 FROM instances other
               WHERE other.id <> $1 AND other.digest = c.digest
                 AND other.seen_at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $3)",
        )
        .bind(&me)
        .bind((REMEMBERED - LEFT).num_milliseconds())
        .bind(THERE.num_milliseconds())
        .execute(&mut tx)
        .await?;
        query("DELETE FROM instances WHERE id = $1").bind(&me).execute(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Measures how far the database's clock is ahead of this machine's.
    async fn compare(
        &self,
        tx: &mut Transaction,
        clock: &(dyn Fn() -> DateTime<Utc> + Sync),
    ) -> Result<()> {
        let before = clock();
        let there: i64 = query("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
            .scalar_one(tx)
            .await?;
        let here = i64::midpoint(millis(before), millis(clock()));
        self.ahead.store(there - here, Ordering::Relaxed);
        Ok(())
    }

    async fn sign(&self, tx: &mut Transaction, membership: &Membership) -> Result<()> {
        query(
            "INSERT INTO instances (id, host, process, version, started_at, digest, settings, seen_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
             ON CONFLICT (id) DO UPDATE
             SET digest = excluded.digest, settings = excluded.settings, seen_at = excluded.seen_at",
        )
        .bind(self.me.to_string())
        .bind(&membership.host)
        .bind(membership.process)
        .bind(membership.version)
        .bind(millis(membership.started_at))
        .bind(&membership.digest)
        .bind(serde_json::to_string(&membership.settings)?)
        .execute(&mut *tx)
        .await?;
        // A configuration without a record is new.
        query(
            "INSERT INTO configurations (digest, seq, seen_at)
             SELECT $1, coalesce(max(seq), 0) + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
             FROM configurations
             ON CONFLICT (digest) DO UPDATE SET seen_at = excluded.seen_at",
        )
        .bind(&membership.digest)
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// The active configuration: the newest one that an instance had recently.
async fn in_force(tx: &mut Transaction) -> Result<Option<String>> {
    Ok(query(
        "SELECT digest FROM configurations
         WHERE seen_at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1
         ORDER BY seq DESC, digest DESC LIMIT 1",
    )
    .bind(REMEMBERED.num_milliseconds())
    .scalar(tx)
    .await?)
}

/// Whether the configuration of this instance is active. False if the instance is not registered.
pub(super) async fn is_in_force(tx: &mut Transaction, me: &str) -> Result<bool> {
    let in_force = in_force(tx).await?;
    let mine: Option<String> =
        query("SELECT digest FROM instances WHERE id = $1").bind(me).scalar(tx).await?;
    Ok(mine.is_some() && mine == in_force)
}
