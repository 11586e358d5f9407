//! The ledgers: the alerts sent to each notifier, or to each part of its receivers. The column
//! `notifier` has the name of the ledger ([`Audience::ledger_of`]).
//!
//! [`Audience::ledger_of`]: crate::domain::owner::Audience::ledger_of

use chrono::{DateTime, Utc};
use std::collections::BTreeMap;

use super::{
    Commit, DeliveryState, Plan, Result, Store, StoreError, millis, organization,
    sql::{Transaction, either, query},
};
use crate::{
    domain::{
        alert::{Decision, FLAPPING_WINDOW, Ledger, SentAlert},
        certificate::OrganizationName,
        subject::Subject,
    },
    message::Notification,
};

/// A notification about a subject, with the states of its deliveries.
#[derive(Clone, Debug)]
pub struct SentNotification {
    pub notification: Notification,
    /// How many deliveries are in each state.
    pub deliveries: BTreeMap<DeliveryState, usize>,
}

impl SentNotification {
    /// Whether no receiver has accepted it yet, but a delivery is pending.
    pub fn is_pending(&self) -> bool {
        self.deliveries.contains_key(&DeliveryState::Pending)
            && !self.deliveries.contains_key(&DeliveryState::Delivered)
    }
}

impl Store {
    /// The alerts in the ledger of this name about an organization, or without one about notifiers.
    ///
    /// # Errors
    /// If the database fails or contains unreadable data.
    pub async fn ledger(
        &self,
        of: Option<&OrganizationName>,
        name: &str,
        now: DateTime<Utc>,
    ) -> Result<(Ledger, LedgerVersion)> {
        let organization = organization(of);
        let mut tx = self.pool.begin_reading().await?;
        let version = version(&mut tx, organization, name, false).await?;
        // For each subject: the newest row, the newest sent alert, and the sent alerts of the last
        // day.
        let rows: Vec<(String, Option<String>, bool)> = query(
            "WITH rows AS (
               SELECT l.seq, l.subject, l.told, l.at,
                 l.seq = max(l.seq) OVER (PARTITION BY l.subject) AS newest,
                 l.seq = max(CASE WHEN l.told IS NOT NULL THEN l.seq END)
                   OVER (PARTITION BY l.subject) AS newest_telling
               FROM ledger l
               WHERE l.organization = $1 AND l.notifier = $2 AND NOT l.withdrawn)
             SELECT subject, told, newest FROM rows
             WHERE newest OR newest_telling OR (told IS NOT NULL AND at > $3) ORDER BY seq",
        )
        .bind(organization)
        .bind(name)
        .bind(millis(now - FLAPPING_WINDOW))
        .tuples(&mut tx)
        .await?;
        let mut ledger = Ledger::default();
        for (subject, sent, newest) in rows {
            let (Some(subject), Some(sent)) = (Subject::parse(&subject), sent) else {
                continue;
            };
            let sent: SentAlert = serde_json::from_str(&sent)?;
            if newest {
                ledger.open.insert(subject.clone(), sent.clone());
            }
            ledger.past.entry(subject).or_default().push(sent);
        }
        ledger.undelivered = undelivered(&mut tx, organization, name).await?;
        tx.rollback().await?;
        Ok((ledger, version))
    }
}

/// The latest undelivered alert of each subject, if no other was sent since.
async fn undelivered(
    tx: &mut Transaction,
    organization: &str,
    name: &str,
) -> Result<BTreeMap<Subject, SentAlert>> {
    let rows: Vec<(String, String)> = query(
        "SELECT l.subject, l.told FROM ledger l
             WHERE l.organization = $1 AND l.notifier = $2 AND l.withdrawn AND l.told IS NOT NULL
               AND NOT EXISTS (
                 SELECT 1 FROM ledger later
                 WHERE later.organization = $1 AND later.notifier = $2
                   AND later.subject = l.subject AND later.seq > l.seq)",
    )
    .bind(organization)
    .bind(name)
    .tuples(&mut *tx)
    .await?;
    let mut undelivered = BTreeMap::new();
    for (subject, sent) in rows {
        if let Some(subject) = Subject::parse(&subject) {
            undelivered.insert(subject, serde_json::from_str(&sent)?);
        }
    }
    Ok(undelivered)
}

/// Identifies the entries of a ledger: it changes if an entry is added or withdrawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerVersion {
    entries: i64,
    /// The sum of their sequence numbers, which only grow.
    numbers: i64,
}

/// Reads the version. With `lock`, no entry can be withdrawn until the end of the transaction.
async fn version(
    tx: &mut Transaction,
    organization: &str,
    name: &str,
    lock: bool,
) -> Result<LedgerVersion> {
    macro_rules! version {
        ($lock:literal) => {
            concat!(
                "SELECT count(*), CAST(coalesce(sum(l.seq), 0) AS BIGINT)
                 FROM (SELECT seq FROM ledger
                       WHERE organization = $1 AND notifier = $2 AND NOT withdrawn ORDER BY seq ",
                $lock,
                ") l"
            )
        };
    }
    const PLAIN: &str = version!("");
    let statement = if lock { either(PLAIN, version!("FOR UPDATE")) } else { query(PLAIN) };
    let (entries, numbers) = statement.bind(organization).bind(name).tuple(tx).await?;
    Ok(LedgerVersion { entries, numbers })
}

/// Checks that the ledger has not changed since the plan was made.
pub(super) async fn check(tx: &mut Transaction, organization: &str, plan: &Plan) -> Result<()> {
    match version(tx, organization, &plan.ledger, true).await? == plan.ledger_version {
        true => Ok(()),
        false => Err(StoreError::LedgerChanged),
    }
}

impl Store {
    /// The latest notifications about a subject, newest first, without refreshes.
    ///
    /// # Errors
    /// If the database fails or contains unreadable data.
    pub async fn sent_notifications(
        &self,
        organization: &OrganizationName,
        subject: &Subject,
        limit: u32,
    ) -> Result<Vec<SentNotification>> {
        let rows = query(
            "SELECT n.id, n.model FROM notifications n
             JOIN notification_subjects s ON s.notification_id = n.id
             WHERE s.organization = $1 AND s.subject = $2 AND n.kind <> 'refresh'
             ORDER BY n.created_at DESC, n.id DESC LIMIT $3",
        )
        .bind(organization.as_str())
        .bind(subject.to_string())
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        let mut tellings = Vec::new();
        for row in rows {
            let id: String = row.try_get("id")?;
            let states: Vec<String> =
                query("SELECT state FROM deliveries WHERE notification_id = $1")
                    .bind(id)
                    .scalars(&self.pool)
                    .await?;
            let mut deliveries = BTreeMap::new();
            for state in states.iter().filter_map(|state| DeliveryState::parse(state)) {
                *deliveries.entry(state).or_insert(0) += 1;
            }
            match serde_json::from_str(row.try_get("model")?) {
                Ok(notification) => tellings.push(SentNotification { notification, deliveries }),
                Err(error) => {
                    tracing::warn!(
                        %error, "stored message unreadable: left out of the sent notifications"
                    );
                }
            }
        }
        Ok(tellings)
    }
}

/// Withdraws the ledger of a notifier for the organization, because none of its receivers is left.
pub(super) async fn forget(tx: &mut Transaction, commit: &Commit, plan: &Plan) -> Result<()> {
    query("UPDATE ledger SET withdrawn = TRUE WHERE organization = $1 AND notifier = $2")
        .bind(commit.organization())
        .bind(&plan.ledger)
        .execute(tx)
        .await?;
    Ok(())
}

/// Writes the ledger entry of a decision.
pub(super) async fn learn(
    tx: &mut Transaction,
    commit: &Commit,
    plan: &Plan,
    decision: &Decision,
) -> Result<()> {
    let sent = match decision {
        Decision::Send { sent, .. } | Decision::Redate { sent, .. } => Some(sent),
        Decision::Resolve { .. } => None,
        Decision::HoldBack { .. } => return Ok(()),
    };
    let said_in = match decision {
        Decision::Redate { .. } | Decision::HoldBack { .. } => None,
        Decision::Send { .. } | Decision::Resolve { .. } => {
            let mut messages = plan.messages.iter();
            messages.find(|message| message.subjects.contains(decision.subject()))
        }
    };
    let subject = decision.subject().to_string();
    // Entries before a delivered alert are no longer needed: that alert is never withdrawn.
    query(
        "DELETE FROM ledger
         WHERE organization = $1 AND notifier = $2 AND subject = $3 AND at <= $4
           AND seq < (SELECT max(l.seq) FROM ledger l
                      JOIN deliveries d ON d.notification_id = l.notification_id
                      WHERE l.organization = $1 AND l.notifier = $2 AND l.subject = $3
                        AND l.told IS NOT NULL AND d.state = 'delivered')",
    )
    .bind(commit.organization())
    .bind(&plan.ledger)
    .bind(&subject)
    .bind(millis(commit.now - FLAPPING_WINDOW))
    .execute(&mut *tx)
    .await?;
    // A redated alert is not a new one: it belongs to the previous notification.
    query(
        "INSERT INTO ledger (organization, notifier, subject, told, at, notification_id)
         VALUES ($1, $2, $3, $4, $5, CASE WHEN $7 = 0 THEN $6 ELSE (
           SELECT l.notification_id FROM ledger l
           WHERE l.organization = $1 AND l.notifier = $2 AND l.subject = $3 AND NOT l.withdrawn
           ORDER BY l.seq DESC LIMIT 1) END)",
    )
    .bind(commit.organization())
    .bind(&plan.ledger)
    .bind(&subject)
    .bind(sent.map(serde_json::to_string).transpose()?)
    .bind(millis(commit.now))
    .bind(said_in.map(|message| message.notification.id.to_string()))
    .bind(i64::from(matches!(decision, Decision::Redate { .. })))
    .execute(tx)
    .await?;
    Ok(())
}
