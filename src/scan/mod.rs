//! Use case 1: read an organization, decide, and keep everything in one transaction.
//!
//! Guarantees: the projects' certificates are read while the next page of projects is on its way; each
//! page is read once. One unreadable project neither hides the others nor counts as gone. The last
//! known inventory is evaluated even when nothing could be read. Nothing is sent from here: what is to
//! be said is committed, with the ledger and the record of the scan, before anybody sends it.

mod read;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use crate::{
    admin_api::AdminApi,
    domain::{
        acknowledgement::Acknowledgements,
        certificate::OrganizationName,
        compose::{Composed, Occasion},
        evaluate::evaluate,
        inventory::{Inventory, Reading},
        ledger::Ledger,
        notification::{Notification, Reason, ScanView},
        policy::Policy,
        reconcile::{Decision, Moment, World, reconcile},
        selection::Selection,
        subject::Subject,
    },
    notify::Notifier,
    store::{Commit, Plan, ScanRecord, Store},
};
pub use read::{Progress, read};

/// How many faults the record of a scan keeps: where the API is down, thousands are the same.
const MAX_FAULTS: usize = 50;

/// What to read of an organization, and how to judge it.
pub struct Target {
    pub api: AdminApi,
    pub selection: Selection,
    pub policy: Policy,
    pub timeout: Duration,
}

/// When a scan is.
#[derive(Clone, Copy, Debug)]
pub struct When {
    pub started_at: DateTime<Utc>,
    /// The scheduled moment that it stands for.
    pub tick: DateTime<Utc>,
    /// The zone of the schedule.
    pub timezone: Tz,
}

/// What a scan came to.
#[derive(Clone, Debug)]
pub struct Report {
    pub record: ScanRecord,
    /// How many notifications were written to the outbox.
    pub notifications: usize,
}

/// One scan: read, merge with what was known, decide for each notifier, commit.
///
/// # Errors
/// Where the state fails; then nothing has changed, and the next scan decides afresh.
pub async fn run_once(
    target: &Target,
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    give_up_after: TimeDelta,
    when: When,
    progress: &watch::Sender<Progress>,
) -> anyhow::Result<Report> {
    let before = target.api.requests();
    let clock = Instant::now();
    let reading = read(target, progress).await;
    let at = when.started_at + TimeDelta::from_std(clock.elapsed()).unwrap_or(TimeDelta::zero());
    let read = Read { reading, requests: target.api.requests() - before, at };
    keep(target, read, store, notifiers, give_up_after, when).await
}

/// What was read, with how many requests, and when it was done.
pub struct Read {
    pub reading: Reading,
    pub requests: u64,
    pub at: DateTime<Utc>,
}

/// The part of a scan that follows the reading: merge with what was known, decide, commit.
///
/// # Errors
/// As [`run_once`].
pub async fn keep(
    target: &Target,
    read: Read,
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    give_up_after: TimeDelta,
    when: When,
) -> anyhow::Result<Report> {
    let Read { reading, requests, at: now } = read;
    let organization = target.api.organization();
    let before = store.inventory(organization).await.context("reading the last inventory")?;
    let after = before.clone().merge(reading, &target.selection, now);
    let record = ScanRecord {
        id: id_at(now),
        organization: organization.clone(),
        tick: when.tick,
        started_at: when.started_at,
        finished_at: now,
        complete: after.is_complete(),
        projects_read: after.projects.len() - after.unreadable_projects.len(),
        projects_unreadable: after.unreadable_projects.len(),
        certificates: after.certificates.len(),
        requests,
        faults: faults(&after),
    };
    let acknowledgements =
        store.acknowledgements(organization).await.context("reading the acknowledgements")?;
    let evaluation = evaluate(organization, &after, &target.policy, &acknowledgements, now);
    let occasion = Occasion {
        evaluation: &evaluation,
        scan: Some(ScanView {
            id: record.id,
            finished_at: now,
            complete: record.complete,
            projects_read: record.projects_read,
            projects_unreadable: record.projects_unreadable,
            oldest_reading: after.oldest_reading(),
        }),
    };
    let world = World::Watched { before: &before, after: &evaluation };
    let moment = Moment { now, tick: when.tick, timezone: when.timezone };
    let plans = plan(&occasion, &world, store, notifiers, moment).await?;
    let over = acknowledgements.values().filter(|one| one.is_over(&evaluation));
    let over: Vec<Uuid> = over.map(|one| one.id).collect();
    let notifications = plans.iter().filter(|plan| plan.notification.is_some()).count();
    let commit = Commit {
        scan: Some((record.clone(), after.clone())),
        organization: organization.clone(),
        plans,
        over,
        now,
        give_up_at: now + give_up_after,
    };
    store.commit(&commit).await.context("keeping the scan")?;
    Ok(Report { record, notifications })
}

/// What could not be read, in words; of very many the first ones and their number.
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

/// Ends everything that was told of an organization that is no longer configured, and forgets it.
///
/// # Errors
/// Where the state fails; then nothing has changed.
pub async fn retire(
    organization: &OrganizationName,
    policy: &Policy,
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    give_up_after: TimeDelta,
    now: DateTime<Utc>,
) -> anyhow::Result<()> {
    let nothing = Inventory::default();
    let acknowledgements =
        store.acknowledgements(organization).await.context("reading the acknowledgements")?;
    let over = acknowledgements.values().filter(|one| one.ended.is_none()).map(|one| one.id);
    let over = over.collect();
    let none = Acknowledgements::new();
    let evaluation = evaluate(organization, &nothing, policy, &none, now);
    let occasion = Occasion { evaluation: &evaluation, scan: None };
    let moment = Moment { now, tick: now, timezone: Tz::UTC };
    let plans = plan(&occasion, &World::Unwatched, store, notifiers, moment).await?;
    let give_up_at = now + give_up_after;
    let commit =
        Commit { scan: None, organization: organization.clone(), plans, over, now, give_up_at };
    store.commit(&commit).await.context("keeping the end of an organization")
}

/// What each notifier is to be told, and what its ledger learns.
async fn plan(
    occasion: &Occasion<'_>,
    world: &World<'_>,
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    moment: Moment,
) -> anyhow::Result<Vec<Plan>> {
    let mut plans = Vec::new();
    for notifier in notifiers {
        let (name, routing) = (notifier.name(), notifier.routing());
        let organization = occasion.evaluation.organization;
        let ledger = store.ledger(organization, name, moment.now).await;
        let ledger = ledger.context("reading the ledger")?;
        let known =
            store.known_receivers(organization, name).await.context("reading the receivers")?;
        // Whoever joins a notifier that was told things is told of all that is open, and not of the news
        // alone. Where nothing was told yet, all that is open is news.
        let (listening, joined): (Vec<String>, Vec<String>) = notifier
            .receivers()
            .into_iter()
            .partition(|receiver| ledger.has_nothing_open() || known.contains(receiver));

        let decisions = reconcile(world, routing, &ledger, moment);
        decisions.iter().for_each(|decision| say_damped(occasion, name, decision));
        let (news, decisions) = occasion.tell(id_at(moment.now), name, routing, decisions);
        let catch_up = if joined.is_empty() {
            None
        } else {
            let mut open = reconcile(world, routing, &Ledger::default(), moment);
            for decision in &mut open {
                if let Decision::Tell { reason, .. } = decision {
                    // To somebody who joins, no silence has ended.
                    *reason = Reason::Opened;
                }
            }
            let open: Vec<&Decision> = open.iter().collect();
            occasion.compose(id_at(moment.now), name, routing, &open)
        };
        let caught_up = if catch_up.is_none() { joined.clone() } else { Vec::new() };
        let (catch_up, subjects) = parts(catch_up);
        let join = Plan {
            notifier: name.to_owned(),
            decisions: Vec::new(),
            notification: catch_up,
            subjects,
            receivers: joined,
            up_to_date: caught_up,
            catch_up: true,
        };
        // Where nobody is left to hear the news but those who join, the ledger hangs on their message.
        if listening.is_empty() {
            plans.push(Plan { decisions, ..join });
            continue;
        }
        let (news, subjects) = parts(news);
        plans.push(Plan {
            notifier: name.to_owned(),
            decisions,
            notification: news,
            subjects,
            // Where something was told before, they are already, or will be by what is on its way.
            up_to_date: if ledger.has_nothing_open() { listening.clone() } else { Vec::new() },
            receivers: listening,
            catch_up: false,
        });
        if !join.receivers.is_empty() {
            plans.push(join);
        }
    }
    Ok(plans)
}

fn parts(composed: Option<Composed>) -> (Option<Notification>, BTreeSet<Subject>) {
    match composed {
        Some(Composed { notification, subjects }) => (Some(notification), subjects),
        None => (None, BTreeSet::new()),
    }
}

/// What is not told because it flips is logged.
fn say_damped(occasion: &Occasion<'_>, notifier: &str, decision: &Decision) {
    if let Decision::Damp { subject, reached } = decision {
        tracing::info!(
            organization = %occasion.evaluation.organization, notifier, %subject,
            stage = reached.label,
            "opened and resolved again and again: not told more than once in 24 hours"
        );
    }
}

/// An id that sorts by time (RFC 9562, version 7).
pub fn id_at(now: DateTime<Utc>) -> Uuid {
    let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
    let timestamp =
        uuid::Timestamp::from_unix(uuid::NoContext, seconds, now.timestamp_subsec_nanos());
    Uuid::new_v7(timestamp)
}
