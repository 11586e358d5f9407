//! Sends the pending deliveries of a notifier. Each notifier has its own loop, so that a hanging
//! notifier does not delay others.

use chrono::{DateTime, Utc};
use std::{sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Shared, watchdog::WatchedLoop};
use crate::{
    domain::retry::RetryPolicy, notify::Notifier, schedule::Ticks, store::FileFingerprint,
    usecase::deliver,
};

/// The number of ticks after which the outbox is queried even if the database seems unchanged.
const UNSEEN: u32 = 10;

/// Runs until cancelled, then finishes the attempts in flight unless the process stops.
pub async fn run(
    notifier: Arc<dyn Notifier>,
    policy: RetryPolicy,
    shared: Arc<Shared>,
    mut ticks: Ticks,
    end: CancellationToken,
) {
    let name = notifier.name().to_owned();
    let watchdog = shared.watchdog.enter();
    let mut quiet = IdleGate::default();
    // A start or a reload may have fixed the cause of failed deliveries.
    if let Err(error) = shared.store.retry_all(&name, shared.clock.now()).await {
        tracing::warn!(
            notifier = name, %error,
            "cannot retry pending deliveries at once: database unavailable (each is retried later)"
        );
    }
    loop {
        watchdog.beat();
        let nudged = shared.outbox.notified();
        let mark = shared.store.mark();
        let mut pause = None;
        if quiet.is_over(mark, shared.clock.now()) {
            let now = shared.clock.now();
            let looking = watchdog.during(shared.timing.query, shared.store.next_due(&name, now));
            let Some(next) = end.run_until_cancelled(looking).await else { return };
            let next = next.map_err(|error| error.to_string());
            let done = match next {
                Ok(next) if next.is_none_or(|next| next > now) => {
                    quiet.begin(mark, next);
                    Ok(None)
                }
                Ok(_) => {
                    quiet = IdleGate::default();
                    let Some(done) = pass(&notifier, &policy, &shared, &watchdog, &end).await
                    else {
                        return;
                    };
                    done.map(Some)
                }
                Err(error) => Err(error),
            };
            match done {
                Ok(report) => {
                    if shared.note_outbox(&name, None) {
                        tracing::info!(notifier = name, "deliveries no longer blocked");
                    }
                    if report.as_ref().is_some_and(|report| report.gone) {
                        tracing::error!(
                            notifier = name,
                            "receiver gone (HTTP 410): no deliveries to it until a reload"
                        );
                        return;
                    }
                    pause = match report {
                        Some(deliver::Report { wait: Some(wait), .. }) => {
                            Some(wait.min(shared.timing.rate))
                        }
                        Some(report) if report != deliver::Report::default() => {
                            Some(Duration::ZERO)
                        }
                        Some(_) | None => None,
                    };
                }
                Err(error) => {
                    if shared.note_outbox(&name, Some(error.clone())) {
                        tracing::error!(notifier = name, error, "deliveries blocked, will retry");
                    }
                }
            }
        }
        if end.is_cancelled() {
            return;
        }
        let waited = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => ticks.next().await,
            }
        };
        tokio::select! {
            () = nudged => quiet = IdleGate::default(),
            () = waited => {}
            () = end.cancelled() => return,
        }
    }
}

/// One pass in its own task, so that a panic does not end the loop. `None` if the process stops
/// first: the next start repeats unrecorded attempts.
async fn pass(
    notifier: &Arc<dyn Notifier>,
    policy: &RetryPolicy,
    shared: &Arc<Shared>,
    watchdog: &WatchedLoop,
    end: &CancellationToken,
) -> Option<Result<deliver::Report, String>> {
    let work = {
        let (notifier, policy, store) =
            (Arc::clone(notifier), policy.clone(), shared.store.clone());
        let end = end.clone();
        let now = shared.clock.now();
        async move { deliver::pass(&store, notifier.as_ref(), &policy, now, &end).await }
    };
    let limit = deliver::pass_limit(notifier.as_ref()) + shared.timing.recording;
    let stopped = async {
        shared.stop.cancelled().await;
        tokio::time::sleep(shared.timing.grace.saturating_sub(Duration::from_secs(1))).await;
    };
    let name = notifier.name();
    let done = tokio::select! {
        done = watchdog.during(limit, AbortOnDropHandle::new(tokio::spawn(work))) => done,
        () = stopped => return None,
    };
    Some(match done {
        Ok(Ok(report)) => {
            for (outcome, count) in &report.outcomes {
                shared.counters.attempted(name, outcome, *count);
            }
            report.late.iter().for_each(|late| shared.counters.arrived(*late));
            Ok(report)
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => {
            tracing::error!(
                notifier = name, error = %panic, "delivery failed: internal error, will retry"
            );
            Err("delivery failed: internal error".to_owned())
        }
    })
}

/// Detects without a query that no delivery can be due.
#[derive(Default)]
struct IdleGate {
    /// The fingerprint of the database at the last query, and the next due time then.
    seen: Option<(FileFingerprint, Option<DateTime<Utc>>)>,
    ticks: u32,
}

impl IdleGate {
    fn begin(&mut self, mark: Option<FileFingerprint>, next: Option<DateTime<Utc>>) {
        *self = IdleGate { seen: mark.map(|mark| (mark, next)), ticks: 0 };
    }

    /// Whether the outbox must be queried at this tick.
    fn is_over(&mut self, mark: Option<FileFingerprint>, now: DateTime<Utc>) -> bool {
        self.ticks += 1;
        let Some((seen, next)) = self.seen else { return true };
        let is_due = next.is_some_and(|next| next <= now);
        is_due || mark != Some(seen) || self.ticks > UNSEEN
    }
}
