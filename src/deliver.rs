//! Use case 2: hand over what waits in the outbox.
//!
//! Guarantees: at least once, with the same id on every attempt. A delivery is claimed with a lease,
//! sent, and recorded, in this order; killed between sending and recording, it is sent once more by
//! the next start. Each notifier is worked on by itself: a dead mail server delays no webhook. It never
//! asks the Admin API anything.

use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{FutureExt, StreamExt, stream};
use std::{collections::BTreeMap, panic::AssertUnwindSafe, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::retry::{FailureReason, Outcome, RetryPolicy, Verdict, verdict},
    notify::Notifier,
    store::{Claim, Store, StoreFault},
};

/// How much longer than an attempt a claim lasts, for recording what came of it.
const SPARE: Duration = Duration::from_secs(60);

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
        let some = pass(store, notifier, policy, now).await?;
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
    notifier.attempt_limit() + SPARE
}

/// Attempts what is due for one notifier, as much as it takes at once. Nothing was due where the report says
/// nothing.
///
/// # Errors
/// Where the state fails.
pub async fn pass(
    store: &Store,
    notifier: &dyn Notifier,
    policy: &RetryPolicy,
    now: DateTime<Utc>,
) -> Result<Report, StoreFault> {
    let clock = Instant::now();
    let time = || now + TimeDelta::from_std(clock.elapsed()).unwrap_or(TimeDelta::zero());
    let time = &time;
    let lease = TimeDelta::from_std(pass_limit(notifier)).unwrap_or(TimeDelta::hours(1));
    let mut report = Report::default();
    let (name, most) = (notifier.name(), notifier.concurrency());
    if !store.is_due(name, time()).await? {
        return Ok(report);
    }
    let (receivers, per_minute) = (notifier.receivers(), notifier.max_per_minute());
    let claimed = store.claim(name, &receivers, time(), lease, most, per_minute).await?;
    report.wait = claimed.wait.and_then(|wait| wait.to_std().ok());
    let attempts = stream::iter(claimed.claims).map(|claim| async move {
        if clock.elapsed() > SPARE {
            // The process was paused: somebody else may have taken it over by now.
            return Ok(None);
        }
        let outcome = attempt(notifier, &claim, time()).await;
        let ended = time();
        let verdict =
            verdict(&outcome, claim.attempt, claim.give_up_at, policy, ended, fastrand::f64());
        // It may have been accepted: not to record that is to send it again. A state that is away is waited for until
        // others may have taken the claim over.
        let record = || store.record(&claim, &outcome, &verdict, ended);
        let often = ExponentialBuilder::default();
        let long = often.with_max_delay(Duration::from_secs(5)).without_max_times();
        let long = long.with_total_delay(Some(SPARE - Duration::from_secs(10)));
        match record.retry(often).when(|fault| !fault.is_away()).await {
            Err(fault) if fault.is_away() => record.retry(long).await?,
            recorded => recorded?,
        }
        say(notifier, &claim, &outcome, &verdict);
        let late = claim.due_at.filter(|_| verdict == Verdict::Delivered);
        Ok::<_, StoreFault>(Some((outcome, verdict, late.map(|due_at| ended - due_at))))
    });
    let mut attempts = attempts.buffer_unordered(notifier.concurrency());
    let mut fault = None;
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(None) => {}
            Ok(Some((outcome, verdict, late))) => {
                report.count(&outcome, &verdict);
                report.late.extend(late);
            }
            // The others are under way, and are recorded as far as that works.
            Err(error) => fault = Some(error),
        }
    }
    fault.map_or(Ok(report), Err)
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

    fn count(&mut self, outcome: &Outcome, verdict: &Verdict) {
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
fn say(notifier: &dyn Notifier, claim: &Claim, outcome: &Outcome, verdict: &Verdict) {
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
