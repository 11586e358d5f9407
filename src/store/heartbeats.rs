//! The scans that were reported by a heartbeat: each is reported once, by whichever instance.

use chrono::{DateTime, Utc};
use std::collections::BTreeSet;
use uuid::Uuid;

use super::{Result, Store, instant, outbox::uuid, sql::query};
use crate::domain::certificate::OrganizationName;

/// A summary of the latest scan of an organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    pub organization: OrganizationName,
    pub scan: Uuid,
    pub tick: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub complete: bool,
}

impl Store {
    /// The scan of the stored inventory of each organization.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn latest_scans(&self) -> Result<Vec<Latest>> {
        let rows = query(
            "SELECT s.organization, s.id, s.tick, s.finished_at, s.complete
             FROM organizations o JOIN scans s ON s.id = o.scan_id ORDER BY o.name",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut latest = Vec::new();
        for row in &rows {
            let Ok(organization) = OrganizationName::parse(row.try_get("organization")?) else {
                continue;
            };
            latest.push(Latest {
                organization,
                scan: uuid(row, "id")?,
                tick: instant(row.try_get("tick")?),
                finished_at: instant(row.try_get("finished_at")?),
                complete: row.try_get("complete")?,
            });
        }
        Ok(latest)
    }

    /// The scans of the latest success signal of this heartbeat.
    ///
    /// # Errors
    /// If the database fails or contains unreadable data.
    pub async fn last_well(&self, heartbeat: &str) -> Result<BTreeSet<Uuid>> {
        let said: Option<String> = query("SELECT said FROM heartbeats WHERE name = $1")
            .bind(heartbeat)
            .scalar(&self.pool)
            .await?;
        Ok(said.map(|said| serde_json::from_str(&said)).transpose()?.unwrap_or_default())
    }

    /// Records the scans of a success signal.
    ///
    /// # Errors
    /// If the database fails; the heartbeat may be repeated then.
    pub async fn record_well(&self, heartbeat: &str, of: &BTreeSet<Uuid>) -> Result<()> {
        query(
            "INSERT INTO heartbeats (name, said) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET said = excluded.said",
        )
        .bind(heartbeat)
        .bind(serde_json::to_string(of)?)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
