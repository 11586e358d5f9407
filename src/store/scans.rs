//! The records of scans.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{
    Result, Store, instant, millis, outbox,
    sql::{Row, Transaction, query},
};
use crate::domain::{certificate::OrganizationName, scan::ScanRecord};

impl Store {
    /// The scheduled time of the organization's latest scan.
    ///
    /// # Errors
    /// If the database fails.
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

    /// Whether a stored scan was complete or has read a project of the organization.
    ///
    /// # Errors
    /// If the database fails.
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

    /// The numbers of scans that ended after `since`: all, and incomplete ones.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn count_scans(
        &self,
        organization: &OrganizationName,
        since: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<(u64, u64)> {
        let (all, incomplete): (i64, i64) = query(
            "SELECT count(*), coalesce(sum(CASE WHEN complete THEN 0 ELSE 1 END), 0) FROM scans
             WHERE organization = $1 AND finished_at > $2 AND finished_at <= $3",
        )
        .bind(organization.as_str())
        .bind(millis(since))
        .bind(millis(now))
        .tuple(&self.pool)
        .await?;
        Ok((all.unsigned_abs(), incomplete.unsigned_abs()))
    }

    /// The end of the organization's latest complete scan. Ignores scans dated in the future by a
    /// clock that was ahead.
    ///
    /// # Errors
    /// If the database fails.
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

pub(super) async fn insert(tx: &mut Transaction, record: &ScanRecord) -> Result<()> {
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
