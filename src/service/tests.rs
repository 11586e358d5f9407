use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

use super::{build::configured, *};
use crate::{
    config::{Needs, from_text},
    demo::{
        admin_api::{self, AdminApi},
        receiver::Receiver,
        world::World,
    },
    domain::{
        notifier::{Grouping, Route},
        retry::{FailureReason, Outcome},
        routing::Routing,
    },
    message::Notification,
    notify::Notifier,
};

/// A notifier that panics in each delivery and, with `at_a_scan`, once when a scan reads its
/// receivers.
struct Panicking {
    at_a_scan: AtomicBool,
    routing: Routing,
}

fn panicking(at_a_scan: bool) -> Panicking {
    Panicking { at_a_scan: AtomicBool::new(at_a_scan), routing: Routing::all() }
}

impl Notifier for Panicking {
    fn name(&self) -> &str {
        "panicking"
    }
    fn routes(&self) -> Vec<Route> {
        assert!(!self.at_a_scan.swap(false, Ordering::SeqCst), "intended by the test");
        vec![Route { routing: self.routing.clone(), receivers: vec!["nobody".to_owned()] }]
    }
    fn grouping(&self) -> Grouping {
        Grouping::Digest
    }
    fn concurrency(&self) -> usize {
        1
    }
    fn max_per_minute(&self) -> Option<std::num::NonZeroU32> {
        None
    }
    fn attempt_limit(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn failures(&self) -> &'static [FailureReason] {
        &[FailureReason::Internal]
    }

    fn deliver<'a>(
        &'a self,
        _notification: &'a Notification,
        _receiver: &'a str,
        _now: DateTime<Utc>,
    ) -> BoxFuture<'a, Outcome> {
        panic!("intended by the test")
    }
}

async fn until(what: &str, look: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !look().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn service(fails: Panicking) -> (Receiver, Arc<Shared>, Generation) {
    // Without a scheduler, the loops check the schedule themselves.
    let (repeat, missing_tick) = (Duration::from_secs(1), Duration::from_millis(20));
    let timing = Timing { repeat, missing_tick, ..Timing::default() };
    service_by(fails, "0 0 1 1 *", Clock::System, timing).await
}

/// Two organizations and a webhook, in addition to the panicking notifier.
async fn service_by(
    fails: Panicking,
    cron: &str,
    clock: Clock,
    timing: Timing,
) -> (Receiver, Arc<Shared>, Generation) {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let mut organizations = String::new();
    for name in ["first", "second"] {
        let mut world = World::with_projects(1, |n| format!("prod-{n}"));
        let end = Clock::System.now() + chrono::TimeDelta::days(5);
        world.add(&format!("cert_{name}"), Some(name), Some(end), [1]);
        let api = AdminApi::new(world).serve().await.unwrap();
        organizations.push_str(&format!(
            "[organizations.{name}]\nadmin_key = \"{}\"\nbase_url = \"http://{api}/v1\"\n",
            admin_api::KEY
        ));
    }
    let receiver = Receiver::default();
    let hook = receiver.serve().await.unwrap();
    let folder = tempfile::tempdir().unwrap().keep();
    let text = format!(
        "{organizations}[notifiers.webhook.hook]\nurl = \"http://{hook}/hook\"\n\
         [schedule]\ncron = \"{cron}\"\njitter = \"0s\"\n[state]\nurl = \"sqlite:state.db\"\n"
    );
    let config = from_text(&folder.join("c.toml"), &text, Needs::ALL).unwrap().config;
    let mut parts = Parts::of(&config, &clock, &timing).unwrap();
    let membership = peers::membership(&config, &parts.notifiers, clock.now());
    parts.notifiers.insert(0, Arc::new(fails));
    let store = Store::open(&config.state).await.unwrap();
    let configured =
        watch::channel(Arc::new(configured(&config, &[], &timing, clock.now()).unwrap())).0;
    let stop = CancellationToken::new();
    let shared = Arc::new(Shared::new(store, &config, clock, timing, membership, configured, stop));
    let (beat, ticks) = watch::channel(());
    std::mem::forget(beat);
    let generation = Generation::start(
        &config,
        parts,
        Begin { first: Some(Due::Start), settled: true },
        &shared,
        &ticks,
        &TaskTracker::new(),
    );
    (receiver, shared, generation)
}

#[tokio::test]
async fn a_panic_in_a_notifier_is_a_failed_attempt_and_does_not_affect_others() {
    let (receiver, shared, generation) = service(panicking(false)).await;
    until("the alerts of the working notifier", async || receiver.posts().len() == 2).await;
    let failed = crate::store::Which { failed: true, ..Default::default() };
    until("the failed attempts", async || {
        let rows = shared.store.deliveries(&failed, 9).await.unwrap();
        rows.len() == 2 && rows.iter().all(|row| row.attempts > 0 && row.last.is_some())
    })
    .await;
    let failures = shared.store.failures().await.unwrap();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].detail, "internal error in the notifier");
    generation.end().await;
}

#[tokio::test]
async fn a_panic_in_a_scan_is_reported_and_does_not_affect_other_organizations() {
    let (receiver, shared, generation) = service(panicking(true)).await;
    let failed = || {
        let status = shared.status.borrow();
        let faults = status.organizations.values().filter_map(|one| one.fault.clone());
        faults.collect::<Vec<_>>()
    };
    until("the reported error", async || failed() == ["internal error"]).await;
    until("the alert of the other organization", async || !receiver.posts().is_empty()).await;
    // The scan is repeated after a pause, without a request.
    until("the repeated scan", async || receiver.posts().len() == 2 && failed().is_empty()).await;
    generation.end().await;
}

#[tokio::test]
async fn a_scheduled_scan_starts_exactly_at_its_time() {
    let now = Clock::System.now();
    let clock = Clock::manual(now);
    let timing = Timing { missing_tick: Duration::from_millis(20), ..Timing::default() };
    let (_receiver, shared, generation) =
        service_by(panicking(false), "*/2 * * * *", clock.clone(), timing).await;
    let scans = async || shared.store.scans(None, None, 9).await.unwrap().len();
    until("the scans at the start", async || scans().await == 2).await;
    let tick = crate::schedule::Cron::parse("*/2 * * * *", chrono_tz::UTC).unwrap();
    let tick = tick.next_after(now).unwrap();
    clock.set(tick - chrono::TimeDelta::milliseconds(1));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(scans().await, 2);
    clock.set(tick);
    until("the scheduled scans", async || scans().await == 4).await;
    generation.end().await;
}
