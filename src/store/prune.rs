//! Deletes old records, and ends acknowledgements of removed organizations.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Result, Store, millis, sql::query};
use crate::domain::acknowledgement::Ending;

/// How long the link of a message is valid.
pub const LINK_LIFETIME: TimeDelta = TimeDelta::days(30);

impl Store {
    /// Ends the acknowledgements of organizations without an inventory and without a scan since
    /// `before`.
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

    /// Deletes scans, settled notifications and resolved alerts older than `before`, and
    /// acknowledgements that ended 30 days earlier: until then, one shows that its link was used.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn prune(&self, before: DateTime<Utc>) -> Result<u64> {
        let mut tx = self.pool.begin().await?;
        let mut gone = 0;
        for statement in [
            // The newest scan of each organization stays: the schedule depends on it.
            "DELETE FROM scans WHERE finished_at < $1
               AND tick < (SELECT max(s.tick) FROM scans s WHERE s.organization = scans.organization)
               AND NOT EXISTS (SELECT 1 FROM organizations o WHERE o.scan_id = scans.id)",
            "DELETE FROM notifications WHERE created_at < $1
               AND NOT EXISTS (SELECT 1 FROM deliveries d
                               WHERE d.notification_id = notifications.id AND d.state = 'pending')",
            "DELETE FROM ledger WHERE at < $1 AND (told IS NULL OR withdrawn OR EXISTS (
               SELECT 1 FROM ledger l
               WHERE l.organization = ledger.organization AND l.notifier = ledger.notifier
                 AND l.subject = ledger.subject AND NOT l.withdrawn AND l.seq > ledger.seq))",
        ] {
            gone += query(statement)
                .bind(millis(before))
                .execute(&mut tx)
                .await?;
        }
        gone += query("DELETE FROM acknowledgements WHERE coalesce(ended_at, until) < $1")
            .bind(millis(before - LINK_LIFETIME))
            .execute(&mut tx)
            .await?;
        tx.commit().await?;
        Ok(gone)
    }
}
