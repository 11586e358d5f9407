//! One transaction for all changes of a scan, of a check of the notifiers, of a drill, or of
//! summaries.

use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, Utc};
use std::sync::Arc;
use uuid::Uuid;

use super::{
    Drill, Job, Lease, LedgerVersion, Result, Store, StoreError, acknowledgements, drills,
    inventories, leases, ledger, millis, organization, outbox, scans, schedules, sql::query,
};
use crate::{
    domain::{
        acknowledgement::Ending, alert::Decision, certificate::OrganizationName,
        inventory::Inventory, notifier::NotifierState, scan::ScanRecord, words::words,
    },
    message::compose::Composed,
};

/// The messages and ledger entries of one notifier after a scan.
#[derive(Clone, Debug)]
pub struct Plan {
    pub notifier: String,
    /// The name of its ledger; a notifier with owners has several.
    pub ledger: String,
    /// The ledger entries. Empty if the messages only repeat the ledger.
    pub decisions: Vec<Decision>,
    /// The messages; empty for ledger entries without a message.
    pub messages: Vec<Composed>,
    pub kind: MessageKind,
    pub receivers: Vec<String>,
    /// The receivers that are up to date with this commit.
    pub up_to_date: Vec<String>,
    /// Whether none of the previous receivers is left: the whole ledger is withdrawn first.
    pub withdraws_ledger: bool,
    /// The ledger that the plan is based on. The commit fails if it has changed since.
    pub ledger_version: LedgerVersion,
}

impl Plan {
    /// A message without entries in the ledger.
    pub fn notice(state: &NotifierState, receivers: Vec<String>, message: Composed) -> Plan {
        Plan {
            notifier: state.name.clone(),
            ledger: state.ledger_name(),
            decisions: Vec::new(),
            messages: vec![message],
            kind: MessageKind::Notice,
            receivers,
            up_to_date: Vec::new(),
            withdraws_ledger: false,
            ledger_version: LedgerVersion::default(),
        }
    }
}

words! {
    /// The effect of a message on the ledger.
    MessageKind {
        /// New alerts and resolutions.
        News = "news",
        /// All open alerts for new receivers, which are up to date once it is delivered.
        CatchUp = "catch_up",
        /// A refresh of sent alerts: it does not change the ledger, and the next one replaces it.
        Refresh = "refresh",
        /// A notice of changes, a drill or a summary, without entries in the ledger.
        Notice = "notice",
    }
}

/// All changes of one scan, of one check of the notifiers, of a drill, or of summaries.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The lease to check; `None` if no other instance can use the database.
    pub lease: Option<Lease>,
    pub change: Change,
    pub plans: Vec<Plan>,
    /// The acknowledgements whose subject is resolved.
    pub over: Vec<Uuid>,
    pub now: DateTime<Utc>,
    /// The end of the retries of these messages.
    pub give_up_at: DateTime<Utc>,
}

/// The cause of a commit, with its change of the inventory.
#[derive(Clone, Debug)]
pub enum Change {
    Scan(Box<(ScanRecord, Arc<Inventory>)>),
    /// The organization is no longer monitored.
    Retired(OrganizationName),
    /// Alerts about notifiers, which change no inventory.
    Notifiers,
    /// A drill starts for the receivers of the plans.
    Drill(Drill),
    /// The drills of the notifiers of the plans have ended.
    DrillsEnded,
    /// Summaries, with their scheduled time; `None` if somebody asked for them.
    Summary(Option<DateTime<Utc>>),
}

impl Commit {
    /// The organization as it is stored.
    pub(super) fn organization(&self) -> &str {
        organization(match &self.change {
            Change::Scan(scan) => Some(&scan.0.organization),
            Change::Retired(organization) => Some(organization),
            Change::Notifiers | Change::Drill(_) | Change::DrillsEnded | Change::Summary(_) => None,
        })
    }
}

impl Store {
    /// Applies all changes in one transaction.
    ///
    /// # Errors
    /// If the database fails, another instance has taken over or the ledger has changed; nothing is
    /// changed then.
    pub async fn commit(&self, commit: &Commit) -> Result<()> {
        let once = || self.commit_once(commit);
        once.retry(ExponentialBuilder::default()).when(StoreError::is_conflict).await
    }

    async fn commit_once(&self, commit: &Commit) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        if let Some(lease) = &commit.lease {
            leases::hold(&mut tx, lease).await?;
        }
        match &commit.change {
            Change::Scan(scan) => {
                let (record, inventory) = scan.as_ref();
                scans::insert(&mut tx, record).await?;
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
            Change::Drill(drill) => {
                drills::start(&mut tx, drill, &commit.plans, commit.now).await?
            }
            Change::DrillsEnded => drills::end(&mut tx, &commit.plans).await?,
            Change::Summary(tick) => {
                schedules::advance(&mut tx, Job::Summary, *tick, commit.now).await?
            }
        }
        // Drills and summaries depend on no ledger.
        let without_ledger =
            matches!(commit.change, Change::Drill(_) | Change::DrillsEnded | Change::Summary(_));
        for plan in commit.plans.iter().filter(|_| !without_ledger) {
            ledger::check(&mut tx, commit.organization(), plan).await?;
        }
        for id in &commit.over {
            acknowledgements::end(&mut tx, *id, Ending::Over, commit.now).await?;
        }
        for plan in &commit.plans {
            if plan.withdraws_ledger {
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
                outbox::up_to_date(&mut tx, organization, &plan.ledger, receiver, commit.now)
                    .await?;
            }
        }
        Ok(tx.commit().await?)
    }
}
