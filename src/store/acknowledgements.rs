//! Stores, lists and ends acknowledgements.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    Result, Store, instant, millis,
    outbox::uuid,
    sql::{Row, Transaction, query},
};
use crate::domain::{
    acknowledgement::{Acknowledgement, Acknowledgements, Ending},
    certificate::OrganizationName,
    subject::Subject,
};

impl Store {
    /// The latest acknowledgements of an organization.
    ///
    /// # Errors
    /// If the database fails or contains unreadable data.
    pub async fn acknowledgements(
        &self,
        organization: &OrganizationName,
    ) -> Result<Acknowledgements> {
        Ok(self.all_acknowledgements(organization).await?.into_iter().collect())
    }

    /// All stored acknowledgements of an organization, oldest first.
    ///
    /// # Errors
    /// If the database fails or contains unreadable data.
    pub async fn all_acknowledgements(
        &self,
        organization: &OrganizationName,
    ) -> Result<Vec<Acknowledgement>> {
        let rows = query("SELECT * FROM acknowledgements WHERE organization = $1 ORDER BY seq")
            .bind(organization.as_str())
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(acknowledgement).collect()
    }

    /// Stores an acknowledgement; it supersedes an active one of the same subject.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn acknowledge(
        &self,
        organization: &OrganizationName,
        one: &Acknowledgement,
    ) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        let old: Vec<String> = query(
            "SELECT id FROM acknowledgements
             WHERE organization = $1 AND subject = $2 AND ended_at IS NULL AND until > $3",
        )
        .bind(organization.as_str())
        .bind(one.subject.to_string())
        .bind(millis(one.created_at))
        .scalars(&mut tx)
        .await?;
        for id in old.iter().filter_map(|id| Uuid::parse_str(id).ok()) {
            end(&mut tx, id, Ending::Superseded, one.created_at).await?;
        }
        query(
            "INSERT INTO acknowledgements (id, organization, subject, reason, by_whom,
                                           created_at, until, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(one.id.to_string())
        .bind(organization.as_str())
        .bind(one.subject.to_string())
        .bind(&one.reason)
        .bind(one.by.as_deref())
        .bind(millis(one.created_at))
        .bind(millis(one.until))
        .bind(one.expires_at.map(millis))
        .execute(&mut tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Withdraws an acknowledgement; returns whether it was active.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn withdraw(&self, id: Uuid, now: DateTime<Utc>) -> Result<bool> {
        let mut tx = self.pool.begin().await?;
        let held = end(&mut tx, id, Ending::Withdrawn, now).await?;
        tx.commit().await?;
        Ok(held)
    }
}

/// Ends an active acknowledgement; returns whether it was active.
pub(super) async fn end(
    tx: &mut Transaction,
    id: Uuid,
    ending: Ending,
    now: DateTime<Utc>,
) -> Result<bool> {
    let ended = query(
        "UPDATE acknowledgements SET ended_at = $2, ending = $3
         WHERE id = $1 AND ended_at IS NULL AND until > $2",
    )
    .bind(id.to_string())
    .bind(millis(now))
    .bind(ending.as_str())
    .execute(tx)
    .await?;
    Ok(ended > 0)
}

fn acknowledgement(row: &Row) -> Result<Acknowledgement> {
    let decode = |why: String| sqlx::Error::Decode(why.into());
    let subject: String = row.try_get("subject")?;
    let ended_at: Option<i64> = row.try_get("ended_at")?;
    let ending: Option<String> = row.try_get("ending")?;
    let ending = ending
        .map(|word| Ending::parse(&word).ok_or_else(|| decode(format!("unknown ending “{word}”"))))
        .transpose()?;
    Ok(Acknowledgement {
        id: uuid(row, "id")?,
        subject: Subject::parse(&subject)
            .ok_or_else(|| decode(format!("unknown subject of an acknowledgement: “{subject}”")))?,
        reason: row.try_get("reason")?,
        by: row.try_get("by_whom")?,
        created_at: instant(row.try_get("created_at")?),
        until: instant(row.try_get("until")?),
        expires_at: row.try_get::<Option<i64>>("expires_at")?.map(instant),
        ended: ended_at.map(instant).zip(ending),
    })
}
