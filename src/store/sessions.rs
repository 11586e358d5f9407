//! Data of the HTTP pages that outlives a restart: random keys and the revoked sessions.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Result, Store, millis, sql::query};

impl Store {
    /// Returns the key with this name; stores `new` first if it is missing. Every instance gets the
    /// same key.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn key(&self, name: &str, new: &str) -> Result<String> {
        let mut tx = self.pool.begin().await?;
        query("INSERT INTO keys (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(new)
            .execute(&mut tx)
            .await?;
        let kept =
            query("SELECT value FROM keys WHERE name = $1").bind(name).scalar(&mut tx).await?;
        tx.commit().await?;
        Ok(kept.unwrap_or_else(|| new.to_owned()))
    }

    /// The key with this name, if it was stored.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn known_key(&self, name: &str) -> Result<Option<String>> {
        let known = query("SELECT value FROM keys WHERE name = $1").bind(name);
        Ok(known.scalar(&self.pool).await?)
    }

    /// Revokes a session until its expiry.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end_session(
        &self,
        id: Uuid,
        until: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        query("DELETE FROM ended_sessions WHERE until < $1")
            .bind(millis(now))
            .execute(&mut tx)
            .await?;
        query("INSERT INTO ended_sessions (id, until) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING")
            .bind(id.to_string())
            .bind(millis(until))
            .execute(&mut tx)
            .await?;
        Ok(tx.commit().await?)
    }

    /// Whether a session was revoked.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn has_session_ended(&self, id: Uuid) -> Result<bool> {
        let found: Option<String> = query("SELECT id FROM ended_sessions WHERE id = $1")
            .bind(id.to_string())
            .scalar(&self.pool)
            .await?;
        Ok(found.is_some())
    }
}
