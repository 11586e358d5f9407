//! Use case 2: hand over what waits in the outbox.
//!
//! Guarantees: at least once, with the same id on every attempt. A delivery is claimed with a lease,
//! sent, and recorded, in this order; killed between sending and recording, it is sent once more by
//! the next start. Each notifier is worked on by itself: a dead mail server delays no webhook. It never
//! asks the Admin API anything.
//!
//! The receiver is what it waits for, and not the disk: while attempts are under way, the next ones are claimed, and
//! what came of those before is recorded, as many as there are in one transaction.

use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};
use std::{
    collections::{BTreeMap, VecDeque},
    panic::AssertUnwindSafe,
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::retry::{FailureReason, Outcome, RetryPolicy, Verdict, verdict},
    notify::Notifier,
    store::{Attempted, Claim, Claimed, Store, StoreFault},
};

/// How much longer than an attempt a claim lasts, for recording what came of it.
const SPARE: Duration = Duration::from_secs(60);
/// How long what is claimed may wait for its attempt.
const WAITING: Duration = Duration::from_secs(20);
/// How long recording may be tried where the state is away; then another may take the claim over.
const RECORDING: Duration = Duration::from_secs(30);
/// For how long a pass claims: it comes round then.
const CLAIMING: Duration = Duration::from_secs(10);

/// What one pass over a notifier's outbox came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many attempts came to what, in a word each: `delivered`, or the reason of a failure.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// How long after its time each of those arrived that were told for the first time.
    pub late: Vec<TimeDelta>,
    pub delivered: usize,
    /// Failed, and tried again later.
    pub waiting: usize,
    /// Refused for good, or given up.
    pub failed: usize,
    /// The receiver says that it is gone for good: it is left alone until the configuration is loaded
    /// again.
    pub gone: bool,
    /// How long the notifier has to wait before it may begin another, where its rate is what keeps it.
    pub wait: Option<Duration>,
}

/// Attempts everything that is due for one notifier, until nothing is, or nothing new is begun because
/// of `stop`.
///
/// # Errors
/// Where the state fails.
pub async fn run_once(
    store: &Store,
    notifier: &dyn Notifier,
    policy: &RetryPolicy,
    now: DateTime<Utc>,
    stop: &CancellationToken,
) -> Result<Report, StoreFault> {
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

/// How long one [`pass`] can take, as far as the network goes.
pub fn pass_limit(notifier: &dyn Notifier) -> Duration {
    CLAIMING + WAITING + lease(notifier)
}

fn lease(notifier: &dyn Notifier) -> Duration {
    notifier.attempt_limit() + SPARE
}

/// Attempts what is due for one notifier, for a while, or until nothing new is begun because of `stop`. Nothing was due
/// where the report says nothing.
///
/// # Errors
/// Where the state fails.
pub async fn pass(
    store: &Store,
    notifier: &dyn Notifier,
    policy: &RetryPolicy,
    now: DateTime<Utc>,
    stop: &CancellationToken,
) -> Result<Report, StoreFault> {
    let clock = Instant::now();
    let work = Work {
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

/// What one pass needs.
struct Work<'a> {
    store: &'a Store,
    notifier: &'a dyn Notifier,
    policy: &'a RetryPolicy,
    /// What time it was when `clock` began.
    now: DateTime<Utc>,
    clock: Instant,
    receivers: Vec<String>,
    lease: TimeDelta,
}

impl Work<'_> {
    fn time(&self) -> DateTime<Utc> {
        self.now + TimeDelta::from_std(self.clock.elapsed()).unwrap_or(TimeDelta::zero())
    }

    async fn run(&self, stop: &CancellationToken) -> Result<Report, StoreFault> {
        let most = self.notifier.concurrency();
        let mut report = Report::default();
        let mut fault = None;
        // What is claimed, and when.
        let mut waiting: VecDeque<(Claim, Instant)> = VecDeque::new();
        let mut under_way = FuturesUnordered::new();
        let mut done: Vec<Attempted> = Vec::new();
        let mut claiming: OptionFuture<BoxFuture<'_, _>> = None.into();
        let mut recording: OptionFuture<BoxFuture<'_, _>> = None.into();
        let (mut is_claiming, mut is_recording, mut is_more) = (false, false, true);
        loop {
            let goes_on = fault.is_none() && !report.gone && !stop.is_cancelled();
            while goes_on && under_way.len() < most {
                let Some((claim, claimed)) = waiting.pop_front() else { break };
                if claimed.elapsed() > WAITING {
                    // The receiver is slow, or the process was paused: somebody else may have it.
                    waiting.push_front((claim, claimed));
                    is_more = false;
                    break;
                }
                under_way.push(self.attempt(claim));
            }
            if !goes_on && !waiting.is_empty() {
                self.hand_back(&mut waiting).await;
            }
            // As many wait as are under way, so that the next one begins when one has ended.
            let room = (2 * most).saturating_sub(under_way.len() + waiting.len());
            if goes_on && is_more && !is_claiming && room > 0 && self.clock.elapsed() < CLAIMING {
                claiming = Some(self.claim(room).boxed()).into();
                is_claiming = true;
            }
            if !is_recording && !done.is_empty() {
                recording = Some(self.record(std::mem::take(&mut done)).boxed()).into();
                is_recording = true;
            }
            tokio::select! {
                Some(claimed) = &mut claiming, if is_claiming => {
                    is_claiming = false;
                    match claimed {
                        Ok(Claimed { claims, wait }) => {
                            // Where there is nothing, there may be when what is under way is recorded: what is told
                            // of the same waits for it.
                            is_more = !claims.is_empty();
                            report.wait = wait.and_then(|wait| wait.to_std().ok());
                            let at = Instant::now();
                            waiting.extend(claims.into_iter().map(|claim| (claim, at)));
                        }
                        Err(error) => fault = Some(error),
                    }
                }
                Some(recorded) = &mut recording, if is_recording => {
                    is_recording = false;
                    match recorded {
                        Ok(attempts) => {
                            for one in &attempts {
                                say(self.notifier, one);
                                report.count(one);
                            }
                            is_more = true;
                        }
                        // The others are under way, and are recorded as far as that works.
                        Err(error) => fault = Some(error),
                    }
                }
                Some(attempted) = under_way.next(), if !under_way.is_empty() => done.push(attempted),
                else => break,
            }
        }
        if !waiting.is_empty() {
            self.hand_back(&mut waiting).await;
        }
        fault.map_or(Ok(report), Err)
    }

    async fn hand_back(&self, waiting: &mut VecDeque<(Claim, Instant)>) {
        let claims: Vec<Claim> = waiting.drain(..).map(|(claim, _)| claim).collect();
        if let Err(error) = self.store.hand_back(&claims).await {
            tracing::debug!(%error, "what was claimed is attempted when its lease has ended");
        }
    }

    async fn claim(&self, room: usize) -> Result<Claimed, StoreFault> {
        let (name, per_minute) = (self.notifier.name(), self.notifier.max_per_minute());
        self.store.claim(name, &self.receivers, self.time(), self.lease, room, per_minute).await
    }

    async fn attempt(&self, claim: Claim) -> Attempted {
        let outcome = attempt(self.notifier, &claim, self.time()).await;
        let ended = self.time();
        let (tried, until) = (claim.attempt, claim.give_up_at);
        let verdict = verdict(&outcome, tried, until, self.policy, ended, fastrand::f64());
        Attempted { claim, outcome, verdict, ended }
    }

    /// They may have been accepted: not to record that is to send them again. A state that is away is waited for until
    /// others may have taken the claims over.
    async fn record(&self, attempts: Vec<Attempted>) -> Result<Vec<Attempted>, StoreFault> {
        let record = || self.store.record(&attempts);
        let often = ExponentialBuilder::default();
        let long = often.with_max_delay(Duration::from_secs(5)).without_max_times();
        let long = long.with_total_delay(Some(RECORDING));
        match record.retry(often).when(|fault| !fault.is_away()).await {
            Err(fault) if fault.is_away() => record.retry(long).await?,
            recorded => recorded?,
        }
        Ok(attempts)
    }
}

/// One attempt, which ends whatever the notifier does: what fails inside of it is an outcome like any other, so
/// that it is tried again, given up some day, and told.
async fn attempt(notifier: &dyn Notifier, claim: &Claim, now: DateTime<Utc>) -> Outcome {
    let limit = notifier.attempt_limit();
    // A clock that is not to be believed writes no times.
    let now = now + claim.clock_skew.unwrap_or_default();
    let sending = async { notifier.deliver(&claim.notification, &claim.receiver, now).await };
    let sending = AssertUnwindSafe(sending).catch_unwind();
    match tokio::time::timeout(limit, sending).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => {
            Outcome::retry(FailureReason::Internal, "the notifier failed inside certvigil")
        }
        Err(_) => Outcome::retry(FailureReason::Timeout, format!("no end within {limit:?}")),
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

/// Recipients' addresses stay out of the log; `certvigil deliveries` has them, by the same id.
fn say(notifier: &dyn Notifier, attempted: &Attempted) {
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
            let next = next.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            tracing::warn!(notifier, %delivery, %notification, attempt, reason = reason.as_str(), error = %detail,
                next_attempt_at = %next, "notification not delivered, will be tried again");
        }
        (Outcome::Retry { reason, detail, .. } | Outcome::Rejected { reason, detail }, _) => {
            let how = match verdict {
                Verdict::GivenUp => "given up",
                Verdict::Delivered | Verdict::WaitUntil(_) | Verdict::Rejected => {
                    "refused for good"
                }
            };
            tracing::error!(notifier, %delivery, %notification, attempt, reason = reason.as_str(), error = %detail,
                "notification not delivered: {how}");
        }
    }
}
