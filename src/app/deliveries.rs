//! One notifier's loop: hands over what waits for it, so that one that hangs delays no other.

use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

use super::{GRACE, Shared, scans::Task};
use crate::{clock, deliver, domain::retry::RetryPolicy, notify::Notifier};

/// How often it looks into the outbox when nobody nudges it.
const LOOK: Duration = Duration::from_secs(1);
/// How much longer than its attempts a pass may take, for recording what came of them.
const RECORDING: Duration = Duration::from_secs(120);

/// Runs until its end, and then still ends what is under way, unless the process stops.
pub async fn run(
    notifier: Arc<dyn Notifier>,
    policy: RetryPolicy,
    shared: Arc<Shared>,
    end: CancellationToken,
) {
    let name = notifier.name().to_owned();
    let pulse = shared.pulse.enter();
    loop {
        let nudged = shared.outbox.notified();
        let work = {
            let (notifier, policy, store) =
                (Arc::clone(&notifier), policy.clone(), shared.store.clone());
            async move { deliver::pass(&store, notifier.as_ref(), &policy, clock::now()).await }
        };
        // In a task of its own, so that a panic in it does not end the loop.
        let pass = Task(tokio::spawn(work)).join();
        let limit = deliver::pass_limit(notifier.as_ref()) + RECORDING;
        let stopped = async {
            shared.stop.cancelled().await;
            // What is under way may end; what is not recorded then is repeated by the next start.
            tokio::time::sleep(GRACE - Duration::from_secs(1)).await;
        };
        let done = tokio::select! {
            done = pulse.during(limit, pass) => done,
            () = stopped => return,
        };
        if let Ok(Ok(report)) = &done {
            for (outcome, count) in &report.outcomes {
                shared.counters.attempted(&name, outcome, *count);
            }
            report.late.iter().for_each(|late| shared.counters.arrived(*late));
        }
        if end.is_cancelled() {
            return;
        }
        let mut pause = LOOK;
        match done {
            Ok(Ok(report)) => {
                if shared.note_outbox(&name, None) {
                    tracing::info!(notifier = name, "the outbox is worked on again");
                }
                if report.gone {
                    tracing::error!(
                        notifier = name,
                        "the receiver says that it is gone: nothing more is sent to it until a reload"
                    );
                    return;
                }
                pause = match report.wait {
                    Some(wait) => wait.min(LOOK),
                    None if report == deliver::Report::default() => LOOK,
                    None => Duration::ZERO,
                };
            }
            Ok(Err(error)) => {
                if shared.note_outbox(&name, Some(error.to_string())) {
                    tracing::error!(notifier = name, %error, "the outbox cannot be read or written");
                }
            }
            Err(panic) => {
                tracing::error!(notifier = name, error = %panic, "a delivery failed inside certvigil");
                shared.note_outbox(&name, Some("a delivery failed inside certvigil".to_owned()));
            }
        }
        if !pause.is_zero() {
            tokio::select! {
                () = nudged => {}
                () = tokio::time::sleep(pause) => {}
                () = end.cancelled() => return,
            }
        }
    }
}
