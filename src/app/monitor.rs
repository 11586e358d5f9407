//! The watcher is watched: whether notifiers get through, told through the others; and the heartbeats, by which
//! somebody else notices that certvigil is gone, blind or mute.

use futures_util::FutureExt;
use std::{collections::BTreeSet, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Shared, systemd};
use crate::{
    clock,
    domain::{certificate::OrganizationName, retry::RetryPolicy},
    heartbeat::{self, Heartbeat, Signal},
    net::error_chain,
    notify::Notifier,
    watch,
};

/// How often it looks round.
const LOOK: Duration = Duration::from_secs(5);
/// When a heartbeat that could not be sent is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// How long one look may take, beside what it sends.
const LOOKING: Duration = Duration::from_secs(60);

/// What happens in the loops of the organizations.
#[derive(Clone, Debug)]
pub enum Happened {
    ScanBegins(OrganizationName),
    /// And whether it was complete, and kept.
    ScanEnded(OrganizationName, bool),
}

/// Where it is told.
#[derive(Clone)]
pub struct News(mpsc::UnboundedSender<Happened>);

impl News {
    pub fn channel() -> (News, mpsc::UnboundedReceiver<Happened>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (News(sender), receiver)
    }

    /// Nobody listens any more only when everything ends.
    pub fn tell(&self, happened: Happened) {
        drop(self.0.send(happened));
    }
}

/// A heartbeat, and what it waits for.
pub struct Watching {
    heartbeat: Heartbeat,
    /// The organizations that it speaks for.
    of: BTreeSet<OrganizationName>,
    /// Those of them that were read completely since it was sent last.
    well: BTreeSet<OrganizationName>,
    /// Whether something waits for too long, and whether that was said since the last scan.
    late: bool,
    said_late: bool,
    not_before: Option<Instant>,
}

impl Watching {
    pub fn new(heartbeat: Heartbeat, of: BTreeSet<OrganizationName>) -> Watching {
        Watching {
            heartbeat,
            of,
            well: BTreeSet::new(),
            late: false,
            said_late: false,
            not_before: None,
        }
    }

    /// What is said at once of all that has happened since the last look, each signal once.
    async fn hear(&mut self, happened: &[Happened]) {
        let (mut begins, mut failed) = (false, false);
        for one in happened {
            match one {
                Happened::ScanBegins(organization) => begins |= self.of.contains(organization),
                Happened::ScanEnded(organization, complete) if self.of.contains(organization) => {
                    if *complete {
                        self.well.insert(organization.clone());
                        self.said_late = false;
                        self.not_before = None;
                    } else {
                        self.well.remove(organization);
                        failed = true;
                    }
                }
                Happened::ScanEnded(..) => {}
            }
        }
        if begins {
            self.heartbeat.send(Signal::Start).await;
        }
        if failed {
            self.heartbeat.send(Signal::Fail).await;
        }
    }

    /// Whether everything was read since it was sent last.
    fn is_owed(&self) -> bool {
        self.well == self.of && self.not_before.is_none_or(|at| at <= Instant::now())
    }

    /// Says that all is well, or that something waits for too long.
    async fn say(&mut self, late: bool) {
        if late && !self.late {
            tracing::warn!(
                "something has waited for longer than delivery.retry_max, or nobody gets through: no heartbeat"
            );
        }
        self.late = late;
        if !late {
            match self.heartbeat.send(Signal::Well).await {
                true => self.well.clear(),
                false => self.not_before = Some(Instant::now() + AGAIN),
            }
        } else if !std::mem::replace(&mut self.said_late, true) {
            self.heartbeat.send(Signal::Fail).await;
        }
    }
}

/// What the loop needs.
pub struct Monitor {
    pub notifiers: Vec<Arc<dyn Notifier>>,
    pub delivery: RetryPolicy,
    pub heartbeats: Vec<Watching>,
    pub news: mpsc::UnboundedReceiver<Happened>,
    pub end: CancellationToken,
}

/// Runs until its end.
pub async fn run(mut monitor: Monitor, shared: Arc<Shared>) {
    let pulse = shared.pulse.enter();
    let started_at = clock::now();
    let mut known: BTreeSet<String> = BTreeSet::new();
    // Each signal has its time.
    let signals = u32::try_from(monitor.heartbeats.len()).unwrap_or(u32::MAX);
    let limit = LOOKING + heartbeat::LONGEST.saturating_mul(signals.saturating_mul(2));
    loop {
        let first = tokio::select! {
            Some(heard) = monitor.news.recv() => Some(heard),
            () = pulse.during(LOOK * 2, tokio::time::sleep(LOOK)) => None,
            () = monitor.end.cancelled() => return,
        };
        // All of it, so that nothing is said by what is out of date.
        let mut heard: Vec<Happened> = first.into_iter().collect();
        heard.extend(std::iter::from_fn(|| monitor.news.try_recv().ok()));
        let end = monitor.end.clone();
        let look = async {
            for heartbeat in &mut monitor.heartbeats {
                heartbeat.hear(&heard).await;
            }
            let Monitor { notifiers, delivery, heartbeats, .. } = &mut monitor;
            watch_notifiers(notifiers, delivery, &shared, started_at, &mut known).await;
            // Where nobody gets through, nobody can be told of it either.
            let mute = known.len() == notifiers.len();
            beat(heartbeats, delivery, mute, &shared).await;
            systemd::status(&line(&shared));
        };
        let look = AssertUnwindSafe(look).catch_unwind();
        match end.run_until_cancelled(pulse.during(limit, look)).await {
            Some(Ok(())) => {}
            Some(Err(_)) => tracing::error!("the look at the notifiers failed inside certvigil"),
            None => return,
        }
    }
}

/// Sends the heartbeats that are owed.
async fn beat(heartbeats: &mut [Watching], delivery: &RetryPolicy, mute: bool, shared: &Shared) {
    if heartbeats.iter().all(|heartbeat| !heartbeat.is_owed()) {
        return;
    }
    let late = match shared.store.overdue(clock::now() - delivery.max).await {
        Ok(waiting) => waiting > 0 || mute,
        Err(error) => {
            tracing::error!(%error, "whether something waits cannot be read: no heartbeat");
            return;
        }
    };
    for heartbeat in heartbeats.iter_mut().filter(|heartbeat| heartbeat.is_owed()) {
        heartbeat.say(late).await;
    }
}

/// Tells through the others who does not get through. `known` are those of whom the log has been told.
async fn watch_notifiers(
    notifiers: &[Arc<dyn Notifier>],
    delivery: &RetryPolicy,
    shared: &Shared,
    started_at: chrono::DateTime<chrono::Utc>,
    known: &mut BTreeSet<String>,
) {
    let (store, now) = (&shared.store, clock::now());
    let looked = watch::run_once(store, notifiers, delivery.give_up_after, started_at, now).await;
    let report = match looked {
        Ok(report) => report,
        Err(error) => {
            let error = error_chain(error.as_ref());
            tracing::error!(error, "whether the notifiers get through cannot be told");
            return;
        }
    };
    if report.notifications > 0 {
        shared.outbox.notify_waiters();
    }
    for (notifier, why) in &report.failing {
        if !known.contains(notifier) {
            tracing::error!(
                notifier, error = %why, told = notifiers.len() - 1,
                "a notifier does not get through: the others are told, where there are any"
            );
        }
    }
    let failing: BTreeSet<String> = report.failing.into_iter().map(|(name, _)| name).collect();
    for notifier in known.difference(&failing) {
        tracing::info!(notifier, "the notifier gets through again, or is no longer configured");
    }
    *known = failing;
}

/// How things stand, in a line.
fn line(shared: &Shared) -> String {
    let status = shared.status.borrow();
    let all = status.organizations.len();
    let read = status.organizations.values();
    let complete = read.filter(|one| one.last.as_ref().is_some_and(|last| last.complete)).count();
    let latest = status.organizations.values().filter_map(|one| one.last.as_ref());
    match latest.map(|last| last.finished_at).max() {
        Some(at) => format!(
            "{complete} of {all} organizations read completely, the last at {}",
            at.format("%Y-%m-%d %H:%M UTC")
        ),
        None => format!("{all} organizations, none read yet"),
    }
}
