//! Told in time, by the right clock: lateness is kept and said, and a wrong clock is not believed.

use axum::{extract::Request, middleware::Next, response::Response};
use certvigil::{
    clock::Clock,
    demo::{pages::parts, receiver::Answer, world::World},
    domain::{certificate::OrganizationName, punctuality::Punctuality},
    store::Which,
};
use chrono::TimeDelta;
use serde_json::Value;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use super::support::{Service, Sim, certvigil, days, fits_schema, run, serve, start};

fn hours(n: i64) -> TimeDelta {
    TimeDelta::hours(n)
}

/// A certificate that comes into its 7 days at the hour 20.
async fn sim() -> Sim {
    let mut world = World::with_projects(1, |n| format!("prod-{n}"));
    world.add("cert_a", Some("prod-ca"), Some(start() + days(7) + hours(20)), 1..=1);
    Sim::start(world).await
}

async fn step(service: &Service, hour: i64) {
    service.scan(start() + hours(hour)).await;
    service.deliver(start() + hours(hour)).await;
}

fn last(sim: &Sim) -> Value {
    let body: Value = serde_json::from_str(&sim.receiver.posts().last().unwrap().body).unwrap();
    fits_schema(&body);
    body["alerts"][0].clone()
}

fn mail(sim: &Sim) -> String {
    parts(&sim.mailbox.mails().last().unwrap().data).unwrap().text
}

/// Minutes from when it was due to its arrival, newest first.
async fn minutes_late(service: &Service) -> Vec<Option<i64>> {
    let rows = service.store.deliveries(&Which::default(), 50).await.unwrap();
    let hook = rows.iter().filter(|row| row.notifier == "hook");
    hook.map(|row| row.late.map(|late| (late.num_seconds() + 30) / 60)).collect()
}

#[tokio::test]
async fn an_alert_of_the_next_scan_is_in_time_and_one_that_waited_for_a_start_shows_its_delay() {
    let sim = sim().await;
    let service = Service::start(&sim.config()).await;
    step(&service, 0).await;
    assert_eq!(last(&sim)["due_at"], "2027-02-01T12:00:00Z", "it could not be known before");
    step(&service, 18).await;
    step(&service, 24).await;
    let told = last(&sim);
    assert_eq!((&told["stage"], &told["due_at"]), (&"7d".into(), &"2027-02-02T08:00:00Z".into()));
    assert_eq!(told["late_seconds"], Value::Null, "within the schedule");
    assert!(!mail(&sim).contains("Late:"), "{}", mail(&sim));
    assert_eq!(minutes_late(&service).await, [Some(241), Some(1)]);

    // Down for two days, over the threshold of one day.
    let service = service.restart(&sim.config(), start() + hours(150)).await;
    step(&service, 216).await;
    let told = last(&sim);
    assert_eq!(
        (&told["stage"], &told["due_at"]),
        (&"uncovered".into(), &"2027-02-09T08:00:00Z".into())
    );
    assert_eq!(told["late_seconds"], 28 * 3_600 + 60);
    let late = "Late: due 28 hours ago, on Tuesday 2027-02-09 08:00 UTC: certvigil was stopped";
    assert!(mail(&sim).contains(late), "{}", mail(&sim));
    assert_eq!(minutes_late(&service).await[0], Some(28 * 60 + 1));
    // A reminder is not late.
    step(&service, 240).await;
    let told = last(&sim);
    assert_eq!((&told["reason"], &told["due_at"]), (&"repeat".into(), &Value::Null));
    assert_eq!(minutes_late(&service).await[0], None);
    // Three alerts to three receivers each; the third was late.
    let limit = hours(6) + TimeDelta::minutes(5);
    let now = start() + hours(240);
    let punctuality = service.store.punctuality(start() - days(1), limit, now).await.unwrap();
    assert_eq!(punctuality, Punctuality { on_time: 6, total: 9 });
}

#[tokio::test]
async fn an_alert_that_could_not_be_delivered_is_late_also_when_it_is_raised_again() {
    let sim = sim().await;
    let text = format!("{}[delivery]\ngive_up_after = \"12h\"\n", sim.config());
    let service = Service::start(&text).await;
    step(&service, 0).await;
    let away = || Answer { status: 503, headers: vec![] };
    sim.receiver.answer((0..2).map(|_| away()));
    step(&service, 24).await;
    service.deliver(start() + hours(36)).await;
    let given_up = sim.receiver.posts().len();
    step(&service, 48).await;
    assert_eq!(sim.receiver.posts().len(), given_up + 1, "under a new id");
    let told = last(&sim);
    assert_eq!(
        (&told["reason"], &told["due_at"]),
        (&"stage".into(), &"2027-02-02T08:00:00Z".into())
    );
    assert_eq!(told["late_seconds"], 28 * 3_600 + 60);
    assert_eq!(minutes_late(&service).await[0], Some(28 * 60 + 1));
}

/// The API's clock is ahead of the test's by some seconds.
async fn with_clock(sim: &Sim) -> (Arc<AtomicI64>, String) {
    let ahead = Arc::new(AtomicI64::new(0));
    let shown = Arc::clone(&ahead);
    let date = move |request: Request, next: Next| {
        let ahead = shown.load(Ordering::SeqCst);
        async move {
            let mut response: Response = next.run(request).await;
            let now = Clock::System.now() + TimeDelta::seconds(ahead);
            let date = now.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            response.headers_mut().insert("date", date.parse().unwrap());
            response
        }
    };
    let address = serve(sim.api.router().layer(axum::middleware::from_fn(date))).await;
    (ahead, sim.config().replace(&sim.api_address.to_string(), &address.to_string()))
}

#[tokio::test]
async fn where_the_clocks_differ_by_more_than_five_minutes_the_apis_counts_and_messages_show_it() {
    let sim = sim().await;
    let (ahead, text) = with_clock(&sim).await;
    let service = Service::start(&text).await;
    ahead.store(290, Ordering::SeqCst);
    let report = service.scan(start()).await;
    assert_eq!(report.record.clock_skew, None, "within five minutes");
    // A time before this build is not the API's: reported, but not as an unreadable list.
    ahead.store(-3_650 * 86_400, Ordering::SeqCst);
    let report = service.scan(start() + hours(1)).await;
    assert!(report.ignored_skew.is_some() && report.record.faults.is_empty(), "{report:?}");
    service.deliver(start()).await;
    // By our clock, the 7 days begin in two hours; by the API's they began an hour ago.
    ahead.store(3 * 3_600, Ordering::SeqCst);
    let report = service.scan(start() + hours(18)).await;
    assert_eq!(report.record.clock_skew.map(|skew| (skew.num_seconds() + 30) / 60), Some(180));
    assert_eq!(report.record.finished_at.date_naive(), (start() + hours(18)).date_naive());
    service.deliver(start() + hours(18)).await;
    let told = last(&sim);
    assert_eq!(told["stage"], "7d");
    let left = told["certificate"]["expires_in_seconds"].as_i64().unwrap();
    assert!((left - (7 * 24 - 1) * 3_600 + 60).abs() < 30, "by the API's clock: {left}");
    let text = mail(&sim);
    let said = "Wrong clock. The clock of this certvigil host is 3 hours behind the API’s";
    let roughly = said.replace("3 hours", "2 hours");
    assert!(text.contains(said) || text.contains(&roughly), "{text}");
    // A delivery is due at once despite the clock skew, and nothing is repeated once the clocks
    // agree.
    let posts = sim.receiver.posts().len();
    ahead.store(0, Ordering::SeqCst);
    step(&service, 24).await;
    assert_eq!(sim.receiver.posts().len(), posts);
}

#[tokio::test]
async fn a_clock_that_is_ahead_of_the_apis_expires_nothing() {
    let sim = sim().await;
    let (ahead, text) = with_clock(&sim).await;
    let service = Service::start(&text).await;
    ahead.store(-400 * 86_400, Ordering::SeqCst);
    // This machine believes that it is more than a year later.
    let wrong = start() + days(400);
    let report = service.scan(wrong).await;
    assert!(report.record.complete);
    service.deliver(wrong).await;
    let told = last(&sim);
    assert_eq!((&told["event"], &told["stage"]), (&"certificate.expiring".into(), &"14d".into()));
    let organization = OrganizationName::parse("acme").unwrap();
    assert_eq!(
        service.store.last_tick(&organization).await.unwrap(),
        Some(wrong),
        "the schedule is ours"
    );
}

#[tokio::test]
async fn check_uses_the_apis_clock_and_shows_it() {
    let mut world = World::with_projects(1, |n| format!("prod-{n}"));
    let soon = Clock::System.now() + days(7) + hours(2);
    world.add("cert_a", Some("prod-ca"), Some(soon), 1..=1);
    let sim = Sim::start(world).await;
    let (ahead, text) = with_clock(&sim).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.toml"), text).unwrap();
    let check = || {
        let mut command = certvigil(folder.path());
        command.args(["--config", "c.toml", "check"]);
        run(command)
    };
    let (code, _, log) = check().await;
    assert_eq!(code, 1, "a warning, more than 7 days ahead: {log}");
    ahead.store(3 * 3_600, Ordering::SeqCst);
    let (code, _, log) = check().await;
    assert_eq!(code, 2, "{log}");
    assert!(log.contains("clock skew of more than five minutes"), "{log}");
}
