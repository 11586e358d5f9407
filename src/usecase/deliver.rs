//! Sends pending deliveries.
//!
//! Guarantees: at least once, with the same id on every attempt. A delivery is claimed with a
//! lease, sent and recorded, in this order; after a kill between sending and recording, the next
//! start sends it again. Each notifier has its own pass: a dead mail server delays no webhook.
//! Never calls the Admin API.
//!
//! Only receivers limit the throughput, not the disk: during attempts, finished ones are recorded
//! in batches, and as many new deliveries are claimed.

use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};
use std::{collections::BTreeMap, panic::AssertUnwindSafe, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::follow_link;
use crate::{
    domain::{
        day,
        retry::{FailureReason, Outcome, RetryPolicy, Verdict, verdict},
    },
    notify::Notifier,
    signing::{AlertOf, LinkKey},
    store::{Attempted, Claim, Claimed, Store, StoreError},
};

/// How long a claim lasts beyond the time limit of the attempt, to record its result.
const RECORDING_MARGIN: Duration = Duration::from_secs(60);
/// The longest time to claim: later, another instance may take the claim over.
const MAX_CLAIM_TIME: Duration = Duration::from_secs(20);
/// How long recording is retried while the database is unavailable; then another instance may take
/// the claim over.
const RECORDING: Duration = Duration::from_secs(30);
/// How long a pass claims new deliveries.
const CLAIMING: Duration = Duration::from_secs(10);

/// The result of one pass over the outbox of a notifier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of attempts by outcome: `delivered`, or the reason of a failure.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Time from due to accepted, for each first alert.
    pub late: Vec<TimeDelta>,
    pub delivered: usize,
    /// Failed temporarily, and will be retried.
    pub waiting: usize,
    /// Rejected or given up.
    pub failed: usize,
    /// Whether the receiver is permanently gone: nothing is sent to it until a reload.
    pub gone: bool,
    /// How long the rate limit of the notifier delays the next attempt.
    pub wait: Option<Duration>,
}

/// Attempts every due delivery of one notifier, until none is left or `stop` is cancelled.
///
/// # Errors
/// If the database fails.
pub async fn run_once(
    store: &Store,
    notifier: &dyn Notifier,
    policy: &RetryPolicy,
    now: DateTime<Utc>,
    stop: &CancellationToken,
) -> Result<Report, StoreError> {
    let clock = Instant::now();
    let mut report = Report::default();
    while !report.gone && !stop.is_cancelled() {
        let now = now + TimeDelta::from_std(clock.elapsed()).unwrap_or(TimeDelta::zero());
        let some = pass(store, notifier, policy, now, stop).await?;
        if some == Report::default() {
            break;
        }
        if let Some(wait) = some.wait {
            stop.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
        report = report.and(some);
    }
    Ok(report)
}

/// The longest duration of one [`pass`], network included.
pub fn pass_limit(notifier: &dyn Notifier) -> Duration {
    CLAIMING + lease(notifier)
}

fn lease(notifier: &dyn Notifier) -> Duration {
    notifier.attempt_limit() + RECORDING_MARGIN
}

/// Attempts due deliveries of one notifier for a limited time, or until `stop` is cancelled. An
/// empty report means that none was due.
///
/// # Errors
/// If the database fails.
pub async fn pass(
    store: &Store,
    notifier: &dyn Notifier,
    policy: &RetryPolicy,
    now: DateTime<Utc>,
    stop: &CancellationToken,
) -> Result<Report, StoreError> {
    let clock = Instant::now();
    let links = follow_link::key(store).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the key of links: messages have none");
        None
    });
    let work = Work {
        links,
        store,
        notifier,
        policy,
        now,
        clock,
        receivers: notifier.receivers(),
        lease: TimeDelta::from_std(lease(notifier)).unwrap_or(TimeDelta::hours(1)),
    };
    work.run(stop).await
}

/// The context of one pass.
struct Work<'a> {
    /// Signs the links in messages.
    links: Option<LinkKey>,
    store: &'a Store,
    notifier: &'a dyn Notifier,
    policy: &'a RetryPolicy,
    /// The time at which `clock` started.
    now: DateTime<Utc>,
    clock: Instant,
    receivers: Vec<String>,
    lease: TimeDelta,
}

impl Work<'_> {
    fn time(&self) -> DateTime<Utc> {
        self.now + TimeDelta::from_std(self.clock.elapsed()).unwrap_or(TimeDelta::zero())
    }

    async fn run(&self, stop: &CancellationToken) -> Result<Report, StoreError> {
        let most = self.notifier.concurrency();
        let mut report = Report::default();
        let mut fault = None;
        let mut under_way = FuturesUnordered::new();
        let mut done: Vec<Attempted> = Vec::new();
        // Recording and claiming run next to the attempts; nothing waits for them.
        let mut claiming: OptionFuture<BoxFuture<'_, _>> = None.into();
        let mut recording: OptionFuture<BoxFuture<'_, _>> = None.into();
        let (mut is_claiming, mut unrecorded, mut is_more) = (false, 0, true);
        loop {
            let goes_on = fault.is_none() && !report.gone && !stop.is_cancelled();
            let room = most.saturating_sub(under_way.len());
            // Unrecorded deliveries are repeated after a kill: limit their number.
            let is_free = room > 0 && done.len() + unrecorded <= most;
            if goes_on && is_more && is_free && !is_claiming && self.clock.elapsed() < CLAIMING {
                claiming = Some(self.claim(room).boxed()).into();
                is_claiming = true;
            }
            if unrecorded == 0 && !done.is_empty() {
                unrecorded = done.len();
                recording = Some(self.record(std::mem::take(&mut done)).boxed()).into();
            }
            tokio::select! {
                Some(claimed) = &mut claiming, if is_claiming => {
                    is_claiming = false;
                    match claimed {
                        Ok(Claimed { claims, wait }) => {
                            // None is due now, but recording may free a delivery about the same
                            // subject.
                            is_more = !claims.is_empty();
                            report.wait = wait.and_then(|wait| wait.to_std().ok());
                            under_way.extend(claims.into_iter().map(|claim| self.attempt(claim)));
                        }
                        Err(error) => fault = Some(error),
                    }
                }
                Some(recorded) = &mut recording, if unrecorded > 0 => {
                    unrecorded = 0;
                    match recorded {
                        Ok(attempts) => {
                            for one in &attempts {
                                log_attempt(self.notifier, one);
                                report.count(one);
                            }
                            is_more = true;
                        }
                        // The results of attempts in flight are still recorded if possible.
                        Err(error) => fault = Some(error),
                    }
                }
                Some(attempted) = under_way.next(), if !under_way.is_empty() => {
                    done.push(attempted);
                    // Record finished attempts together.
                    while let Some(Some(attempted)) = under_way.next().now_or_never() {
                        done.push(attempted);
                    }
                }
                else => break,
            }
        }
        fault.map_or(Ok(report), Err)
    }

    async fn claim(&self, room: usize) -> Result<Claimed, StoreError> {
        let (name, per_minute) = (self.notifier.name(), self.notifier.max_per_minute());
        let asked = Instant::now();
        let claimed =
            self.store.claim(name, &self.receivers, self.time(), self.lease, room, per_minute);
        let claimed = claimed.await?;
        if asked.elapsed() > MAX_CLAIM_TIME {
            // The process was paused or the database slow: the delivery is due again after its
            // lease.
            return Ok(Claimed::default());
        }
        Ok(self.sign(claimed))
    }

    /// Adds the links that acknowledge alerts and confirm drills. They are signed for each receiver.
    fn sign(&self, mut claimed: Claimed) -> Claimed {
        let Some(key) = &self.links else { return claimed };
        for Claim { notification, receiver, .. } in &mut claimed.claims {
            for (index, alert) in notification.alerts.iter_mut().enumerate() {
                let Ok(index) = u8::try_from(index) else { break };
                let of = AlertOf { notification: notification.id, alert: index };
                let token = || key.token(of, &notification.notifier, receiver);
                alert.link = alert.has_link().then(token);
            }
        }
        claimed
    }

    async fn attempt(&self, claim: Claim) -> Attempted {
        let outcome = attempt(self.notifier, &claim, self.time()).await;
        let ended = self.time();
        let (tried, until) = (claim.attempt, claim.give_up_at);
        let verdict = verdict(&outcome, tried, until, self.policy, ended, fastrand::f64());
        Attempted { claim, outcome, verdict, ended }
    }

    /// Records attempts; an unrecorded notification is sent again, although it may have been
    /// accepted. Retries until another instance may take the claims over. A failure for one attempt
    /// does not prevent the others.
    async fn record(&self, attempts: Vec<Attempted>) -> Result<Vec<Attempted>, StoreError> {
        match self.record_some(&attempts).await {
            Err(fault) if attempts.len() > 1 && !fault.is_away() => {
                let mut last = fault;
                let mut recorded = Vec::new();
                for one in attempts {
                    match self.record_some(std::slice::from_ref(&one)).await {
                        Ok(()) => recorded.push(one),
                        Err(fault) => last = fault,
                    }
                }
                if recorded.is_empty() { Err(last) } else { Ok(recorded) }
            }
            done => done.map(|()| attempts),
        }
    }

    async fn record_some(&self, attempts: &[Attempted]) -> Result<(), StoreError> {
        let record = || self.store.record(attempts);
        let often = ExponentialBuilder::default();
        let long = often.with_max_delay(Duration::from_secs(5)).without_max_times();
        let long = long.with_total_delay(Some(RECORDING));
        match record.retry(often).when(|fault| !fault.is_away()).await {
            Err(fault) if fault.is_away() => record.retry(long).await,
            recorded => recorded,
        }
    }
}

/// Makes one attempt. A panic or timeout of the notifier is a failure like any other, and is
/// retried.
async fn attempt(notifier: &dyn Notifier, claim: &Claim, now: DateTime<Utc>) -> Outcome {
    let limit = notifier.attempt_limit();
    // Rendered times use the API's clock if this host's clock is wrong.
    let now = now + claim.clock_skew.unwrap_or_default();
    let sending = async { notifier.deliver(&claim.notification, &claim.receiver, now).await };
    let sending = AssertUnwindSafe(sending).catch_unwind();
    match tokio::time::timeout(limit, sending).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Outcome::retry(FailureReason::Internal, "internal error in the notifier"),
        Err(_) => Outcome::retry(FailureReason::Timeout, format!("not finished within {limit:?}")),
    }
}

impl Report {
    fn and(mut self, other: Report) -> Report {
        for (word, count) in other.outcomes {
            *self.outcomes.entry(word).or_default() += count;
        }
        self.late.extend(other.late);
        Report {
            outcomes: self.outcomes,
            late: self.late,
            delivered: self.delivered + other.delivered,
            waiting: self.waiting + other.waiting,
            failed: self.failed + other.failed,
            gone: self.gone | other.gone,
            wait: other.wait,
        }
    }

    fn count(&mut self, attempted: &Attempted) {
        let Attempted { claim, outcome, verdict, ended } = attempted;
        if *verdict == Verdict::Delivered {
            self.late.extend(claim.due_at.map(|due_at| *ended - due_at));
        }
        match verdict {
            Verdict::Delivered => self.delivered += 1,
            Verdict::WaitUntil(_) => self.waiting += 1,
            Verdict::Rejected | Verdict::GivenUp => self.failed += 1,
        }
        *self.outcomes.entry(outcome.as_str()).or_default() += 1;
        self.gone |= matches!(outcome, Outcome::Rejected { reason: FailureReason::Gone, .. });
    }
}

/// Recipient addresses stay out of the log; `certvigil deliveries` shows them by the same id.
fn log_attempt(notifier: &dyn Notifier, attempted: &Attempted) {
    let Attempted { claim, outcome, verdict, .. } = attempted;
    let (notifier, delivery) = (notifier.name(), claim.id);
    let (notification, attempt) = (claim.notification.id, claim.attempt);
    match (outcome, verdict) {
        (Outcome::Delivered { .. }, _) => {
            tracing::info!(notifier, %delivery, %notification, attempt, "notification delivered");
        }
        (
            Outcome::Retry { reason, detail, .. } | Outcome::Rejected { reason, detail },
            Verdict::WaitUntil(next),
        ) => {
            let next = day::rfc3339(*next);
            tracing::warn!(notifier, %delivery, %notification, attempt, reason = reason.as_str(), error = %detail,
                next_attempt_at = %next, "notification not delivered, will be retried");
        }
        (Outcome::Retry { reason, detail, .. } | Outcome::Rejected { reason, detail }, _) => {
            let how = match verdict {
                Verdict::GivenUp => "given up",
                Verdict::Delivered | Verdict::WaitUntil(_) | Verdict::Rejected => "rejected",
            };
            tracing::error!(notifier, %delivery, %notification, attempt, reason = reason.as_str(), error = %detail,
                "notification not delivered: {how}");
        }
    }
}
