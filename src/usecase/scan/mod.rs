//! Reads an organization, decides, and stores everything in one transaction.
//!
//! Guarantees: the certificates of projects are read while the next page of projects is requested;
//! each page is read once. One unreadable project neither hides the others nor counts as gone. The
//! last known inventory is evaluated even if nothing could be read. Sends nothing: alerts are
//! committed with the ledger and the scan record first.

mod audit;
mod plan;
mod read;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use futures_util::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::Failed;
use crate::{
    admin_api::{AdminApi, AuditSettings},
    build, clock,
    domain::{
        acknowledgement::Acknowledgements,
        alert::{ScanTime, Transition},
        certificate::OrganizationName,
        content::Knowledge,
        credential::WatchedKeys,
        evaluate::evaluate,
        inventory::Inventory,
        policy::Policy,
        reading::Reading,
        scan::ScanRecord,
        selection::Selection,
        skew::{ClockVerdict, Synchronization},
        unreadable::Cause,
    },
    message::{ScanView, compose::MessageContext},
    notify::Notifier,
    store::{Change, Commit, Lease, Store, StoreError, id_at},
};
use audit::read_audit_log;
use plan::plan;
pub use read::{Progress, read};

/// How often a scan repeats its decision because a delivery ended before the commit.
const PLANS: usize = 5;

/// Maximum number of faults in a scan record: if the API is down, thousands are the same.
const MAX_FAULTS: usize = 50;

/// The organization to read, with its policy.
pub struct Target {
    pub api: AdminApi,
    pub selection: Selection,
    pub policy: Policy,
    /// Whether to request the content of each certificate.
    pub certificate_content: bool,
    /// `None` if the audit log is not read.
    pub audit_log: Option<AuditSettings>,
    pub timeout: Duration,
    /// How long an absence must last before it counts.
    pub confirm_after: TimeDelta,
}

impl Target {
    fn reads_admin_keys(&self) -> bool {
        self.policy.admin_keys != WatchedKeys::Off
    }

    /// Chooses the clock, by the `Date` header of responses.
    pub fn clock(&self, local: DateTime<Utc>, synchronization: Synchronization) -> ClockVerdict {
        ClockVerdict::of(self.api.take_skew(), local, build::built_at(), synchronization)
    }
}

pub fn log_clock_skew(organization: &OrganizationName, skew: TimeDelta) {
    tracing::warn!(
        %organization, api_ahead_seconds = skew.num_seconds(),
        "clock skew of more than five minutes: using the API's clock (correct the clock of this \
         host)"
    );
}

/// The times of a scan.
#[derive(Clone, Copy, Debug)]
pub struct ScanTimes {
    pub started_at: DateTime<Utc>,
    /// The scheduled time of the scan.
    pub tick: DateTime<Utc>,
    /// The zone of the schedule.
    pub timezone: Tz,
    /// The time from which later scans have replaced its notifications.
    pub stale_at: DateTime<Utc>,
    /// The delay after the due time up to which an alert counts as on time.
    pub max_delay: TimeDelta,
}

impl ScanTimes {
    /// The times of the decision, as of the start of the scan.
    pub fn moment(&self) -> ScanTime {
        let (tick, timezone) = (self.tick, self.timezone);
        ScanTime { tick, ..ScanTime::at(self.started_at, timezone) }
    }
}

/// Why a part of the organization cannot be read without which the scan is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartError {
    pub why: String,
    /// Whether the API rejected the key (401 or 403).
    pub refused: bool,
}

/// The result of a scan.
#[derive(Clone, Debug)]
pub struct Report {
    pub record: ScanRecord,
    /// Number of notifications in the outbox.
    pub notifications: usize,
    /// The error of the admin keys, if it is new. It makes no scan incomplete.
    pub admin_keys_fault: Option<PartError>,
    /// Why the key cannot read the content of certificates, if that is new.
    pub content_refused: Option<String>,
    /// Why the audit log cannot be read, if that is new.
    pub audit_log_error: Option<PartError>,
    /// Whether a later scan has to confirm that something is gone.
    pub needs_confirmation: bool,
    /// How far the API's clock is ahead, if that is implausible and the local clock was used.
    pub ignored_skew: Option<TimeDelta>,
}

/// One scan: read, merge into the inventory, decide for each notifier, commit.
///
/// # Errors
/// If the database fails; nothing has changed then, and the next scan decides again.
pub async fn run_once(
    target: &Target,
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    give_up_after: TimeDelta,
    when: ScanTimes,
    lease: Lease,
    progress: &watch::Sender<Progress>,
) -> Result<Report, Failed> {
    let started = Instant::now();
    let known = store.inventory(target.api.organization()).await;
    let known = Arc::new(known.map_err(Failed::during("reading the last inventory"))?);
    let before = target.api.requests();
    // An internal error counts as unreadable lists.
    let reading = read(target, Arc::clone(&known), when.started_at, progress);
    let reading = AssertUnwindSafe(reading).catch_unwind().await;
    let mut reading = reading.unwrap_or_else(|_| Reading::failed("internal error while reading"));
    // After the lists: a 429 for the log must not delay them.
    let audit = AssertUnwindSafe(read_audit_log(target, &known)).catch_unwind().await;
    reading.audit = audit.unwrap_or_default();
    let at = when.started_at + TimeDelta::from_std(started.elapsed()).unwrap_or(TimeDelta::zero());
    let requests = target.api.requests() - before;
    let synchronization = clock::synchronization();
    let read = Read { before: known, reading, requests, at, synchronization };
    keep(target, read, store, notifiers, give_up_after, when, lease).await
}

/// A finished reading with its request count and end.
pub struct Read {
    /// The inventory at the start.
    pub before: Arc<Inventory>,
    pub reading: Reading,
    pub requests: u64,
    pub at: DateTime<Utc>,
    /// Whether the operating system reports the local clock as synchronized.
    pub synchronization: Synchronization,
}

/// The rest of a scan after the reading: merge, decide, commit.
///
/// # Errors
/// As [`run_once`].
pub async fn keep(
    target: &Target,
    read: Read,
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    give_up_after: TimeDelta,
    when: ScanTimes,
    lease: Lease,
) -> Result<Report, Failed> {
    let Read { before, reading, requests, at: local, synchronization } = read;
    let organization = target.api.organization();
    let last =
        store.latest_scan(organization).await.map_err(Failed::during("reading the last scan"))?;
    let clock = target.clock(local, synchronization);
    let skew = match clock {
        // No response had a `Date`: keep the known clock skew.
        ClockVerdict::Unchecked => last.as_ref().and_then(|last| last.clock_skew),
        clock => clock.skew(),
    };
    // Decisions use the API's clock; the database, schedule and leases use the local one.
    let now = local + skew.unwrap_or_default();
    let decided_at = last.map(|last| last.finished_at + last.clock_skew.unwrap_or_default());
    let after = Arc::new(before.merge(reading, &target.selection, now));
    let record = ScanRecord {
        id: id_at(local),
        organization: organization.clone(),
        tick: when.tick,
        started_at: when.started_at,
        finished_at: local,
        complete: after.is_complete(),
        projects_read: after.projects.len() - after.unreadable_projects.len(),
        projects_unreadable: after.unreadable_projects.len(),
        certificates: after.certificates.len(),
        requests,
        faults: faults(&after),
        clock_skew: skew,
    };
    let acknowledgements = store
        .acknowledgements(organization)
        .await
        .map_err(Failed::during("reading the acknowledgements"))?;
    let evaluation = evaluate(organization, &after, &target.policy, &acknowledgements, now);
    let context = MessageContext {
        evaluation: &evaluation,
        before: Some(&before),
        scan: Some(ScanView { finished_at: now, ..ScanView::of(&record, after.oldest_reading()) }),
        stale_at: Some(when.stale_at + skew.unwrap_or_default()),
        max_delay: Some(when.max_delay),
    };
    let transition = Transition::watched(&before, &evaluation);
    // The clock skew of an earlier scan is no confirmation.
    let clock_is_certain = clock.is_certain(synchronization) && skew.is_none();
    let moment = ScanTime { now, decided_at, clock_is_certain, ..when.moment() };
    let over = acknowledgements.iter().filter(|one| one.subject_changed(&evaluation));
    let over: Vec<Uuid> = over.map(|one| one.id).collect();
    let admin_keys_fault = news_of_keys(&before, &after);
    let content_refused = news_of_contents(organization, &before, &after);
    let audit_log_error = news_of_audit_log(&before, &after);
    let mut tries = 0..PLANS;
    let notifications = loop {
        let plans = plan(&context, &transition, store, notifiers, moment, local).await?;
        let notifications = plans.iter().map(|plan| plan.messages.len()).sum();
        let commit = Commit {
            lease: Some(lease.clone()),
            change: Change::Scan(Box::new((record.clone(), Arc::clone(&after)))),
            plans,
            over: over.clone(),
            now: local,
            give_up_at: local + give_up_after,
        };
        match store.commit(&commit).await {
            // A delivery that finished in between changes the decision.
            Err(StoreError::LedgerChanged) if tries.next().is_some() => continue,
            kept => kept.map_err(Failed::during("saving the scan"))?,
        }
        break notifications;
    };
    let needs_confirmation = after.needs_confirmation();
    let ignored_skew = match clock {
        ClockVerdict::Ignored(skew) => Some(skew),
        ClockVerdict::Agreed | ClockVerdict::Unchecked | ClockVerdict::Api(_) => None,
    };
    Ok(Report {
        record,
        notifications,
        admin_keys_fault,
        content_refused,
        audit_log_error,
        needs_confirmation,
        ignored_skew,
    })
}

/// The error of the admin keys, unless the previous scan had the same: the list is unreadable, or
/// does not contain the key in use.
fn news_of_keys(before: &Inventory, after: &Inventory) -> Option<PartError> {
    fn fault(inventory: &Inventory) -> Option<PartError> {
        if let Some(unreadable) = &inventory.unreadable_admin_keys {
            let why = without_request_id(&unreadable.why);
            return Some(PartError { why, refused: unreadable.cause == Cause::Refused });
        }
        let listed = inventory.admin_keys.as_ref()?;
        let own = listed.keys.values().any(|key| key.own);
        let why = "the list of admin keys does not contain the key that certvigil uses".to_owned();
        (!own).then_some(PartError { why, refused: false })
    }
    fault(after).filter(|new| fault(before).as_ref() != Some(new))
}

/// The error of the audit log, unless the previous scan had the same.
fn news_of_audit_log(before: &Inventory, after: &Inventory) -> Option<PartError> {
    fn error(inventory: &Inventory) -> Option<PartError> {
        let unreadable = inventory.changes.audit_log.as_ref()?.unreadable.as_ref()?;
        let why = without_request_id(&unreadable.why);
        Some(PartError { why, refused: unreadable.cause == Cause::Refused })
    }
    error(after).filter(|new| error(before).as_ref() != Some(new))
}

/// An error without the request id, which differs in each response.
fn without_request_id(why: &str) -> String {
    why.split(" (x-request-id").next().unwrap_or_default().to_owned()
}

/// Why the API refuses the contents of certificates, unless it did so before. Logs a content that
/// has changed.
fn news_of_contents(
    organization: &OrganizationName,
    before: &Inventory,
    after: &Inventory,
) -> Option<String> {
    for (id, content) in &after.contents {
        let known = before.contents.get(id).and_then(Knowledge::content);
        if let (Some(known), Some(content)) = (known, content.content())
            && known.fingerprint != content.fingerprint
        {
            tracing::warn!(
                %organization, certificate = %id, before = known.fingerprint,
                fingerprint = content.fingerprint,
                "the API returns another certificate under the same id: using the new one"
            );
        }
    }
    fn refusal(inventory: &Inventory) -> Option<&str> {
        let mut failures = inventory.contents.values().filter_map(Knowledge::failure);
        failures.find(|failure| failure.refused).map(|failure| failure.why.as_str())
    }
    refusal(after).filter(|_| refusal(before).is_none()).map(str::to_owned)
}

/// The unreadable lists with their errors: the first ones, and the number of others.
fn faults(inventory: &Inventory) -> Vec<String> {
    let all = inventory.faults().count();
    let first = inventory.faults().take(MAX_FAULTS);
    let mut faults: Vec<String> =
        first.map(|(scope, fault)| format!("{scope}: {}", fault.why)).collect();
    if all > MAX_FAULTS {
        faults.push(format!("and {} more", all - MAX_FAULTS));
    }
    faults
}

/// Resolves every alert of an organization that is no longer configured, and deletes its data.
///
/// # Errors
/// If the database fails; nothing has changed then.
pub async fn retire(
    organization: &OrganizationName,
    policy: &Policy,
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    give_up_after: TimeDelta,
    lease: Lease,
    now: DateTime<Utc>,
) -> Result<(), Failed> {
    let nothing = Inventory::default();
    let none = Acknowledgements::default();
    let evaluation = evaluate(organization, &nothing, policy, &none, now);
    let context = MessageContext::without_scan(&evaluation);
    let moment = ScanTime::at(now, Tz::UTC);
    let mut tries = 0..PLANS;
    loop {
        let plans = plan(&context, &Transition::Unwatched, store, notifiers, moment, now).await?;
        let commit = Commit {
            lease: Some(lease.clone()),
            change: Change::Retired(organization.clone()),
            plans,
            over: Vec::new(),
            now,
            give_up_at: now + give_up_after,
        };
        match store.commit(&commit).await {
            Err(StoreError::LedgerChanged) if tries.next().is_some() => {}
            kept => {
                return kept.map_err(Failed::during("deleting the data of a removed organization"));
            }
        }
    }
}
