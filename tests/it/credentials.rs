//! What certvigil reads with is watched, too: its admin key, and its own client certificate.

use certvigil::{
    demo::world::{AdminKey, World},
    usecase::scan::PartError,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::support::{Heard, Service, Sim, Tls, days, fits_schema, start};

fn key(id: &str, redacted: &str, expires_at: Option<DateTime<Utc>>) -> AdminKey {
    let name = Some(format!("name of {id}"));
    let owner = ("user_1".to_owned(), "dana".to_owned());
    AdminKey { id: id.to_owned(), name, redacted_value: redacted.to_owned(), expires_at, owner }
}

/// Of the key that the simulated API takes.
const OWN: &str = "sk-admin...ted";

async fn world() -> Sim {
    let mut world = World::with_projects(2, |n| format!("prod-{n}"));
    world.add("cert_a", Some("prod-ca"), Some(start() + days(500)), 1..=2);
    world.admin_keys = vec![
        key("key_other", "sk-admin...xyz", Some(start() + days(3))),
        key("key_own", OWN, Some(start() + days(31))),
        key("key_for_ever", "sk-admin...abc", None),
    ];
    Sim::start(world).await
}

async fn step(service: &Service, day: i64) {
    service.scan(start() + days(day)).await;
    service.deliver(start() + days(day)).await;
}

#[tokio::test]
async fn the_expiry_of_the_own_key_is_reported_along_the_ladder_until_another_one_is_used() {
    let sim = world().await;
    let service = Service::start(&sim.config()).await;
    let mut heard = Heard::of(&sim);
    step(&service, 0).await;
    let own = "certvigil’s admin key “name of key_own”";
    let first = heard.news();
    assert_eq!(first, [("admin_key.expiring", "opened", format!("{own} expires in 30 days"))]);
    step(&service, 1).await;
    assert_eq!(heard.news()[0].1, "stage", "30 days");
    step(&service, 2).await;
    assert!(heard.news().is_empty(), "once");
    step(&service, 32).await;
    assert_eq!(
        heard.news(),
        [("admin_key.expired", "stage", format!("{own} expired 24 hours ago"))]
    );
    let posts = sim.receiver.posts();
    let body: Value = serde_json::from_str(&posts.last().unwrap().body).unwrap();
    fits_schema(&body);
    assert_eq!(body["alerts"][0]["admin_key"]["id"], "key_own");
    assert!(!posts.iter().any(|post| post.body.contains(OWN)), "nothing of the key is kept");
    // Another one is in use, and the old one is still there; then it is deleted.
    sim.api.world().admin_keys[1].redacted_value = "sk-admin...old".to_owned();
    sim.api.world().admin_keys.push(key("key_new", OWN, Some(start() + days(400))));
    step(&service, 33).await;
    let over =
        "certvigil’s admin key “name of key_own” is resolved: certvigil now uses another key";
    assert_eq!(heard.news(), [("admin_key.resolved", "replaced", over.to_owned())]);
    sim.api.world().admin_keys.remove(1);
    step(&service, 34).await;
    assert!(heard.news().is_empty());
}

#[tokio::test]
async fn all_keys_are_watched_where_that_is_asked_for_and_none_where_not() {
    let sim = world().await;
    let with = |word: &str| format!("{}[monitoring]\nadmin_keys = \"{word}\"\n", sim.config());
    let service = Service::start(&with("all")).await;
    let mut heard = Heard::of(&sim);
    step(&service, 0).await;
    let worst = "the admin key “name of key_other” expires in 2 days (+1 more)";
    assert_eq!(heard.news(), [("admin_key.expiring", "opened", worst.to_owned())]);
    sim.api.take_requests();
    let service = service.restart(&with("off"), start()).await;
    step(&service, 1).await;
    let asked = sim.api.take_requests();
    assert!(!asked.iter().any(|asked| asked.contains("admin_api_keys")), "{asked:?}");
    assert_eq!(heard.news()[0].1, "unwatched");
}

#[tokio::test]
async fn a_key_that_may_not_read_the_keys_is_reported_once_and_makes_no_scan_incomplete() {
    let sim = world().await;
    let service = Service::start(&sim.config()).await;
    sim.api.world().admin_keys_broken = Some(403);
    let report = service.scan(start()).await;
    assert!(report.record.complete && report.record.faults.is_empty());
    let PartError { why, refused } = report.admin_keys_fault.unwrap();
    assert!(refused);
    assert!(why.contains("HTTP 403: the admin key has no permission to read this"), "{why}");
    assert_eq!(service.scan(start() + days(1)).await.admin_keys_fault, None, "once");
    // The last known keys stay in use, and nothing resolves, while the list is unreadable.
    sim.api.world().admin_keys_broken = None;
    let mut heard = Heard::of(&sim);
    step(&service, 2).await;
    assert_eq!(heard.news()[0].1, "opened");
    sim.api.world().admin_keys_broken = Some(403);
    step(&service, 18).await;
    assert_eq!(heard.news()[0].1, "stage", "14 days, from the last known data");
    sim.api.world().admin_keys_broken = None;
    sim.api.world().admin_keys.retain(|key| key.id == "key_other");
    let report = service.scan(start() + days(19)).await;
    let none = "the list of admin keys does not contain the key that certvigil uses";
    assert_eq!(report.admin_keys_fault.map(|fault| fault.why).as_deref(), Some(none));
}

#[tokio::test]
async fn the_end_of_the_own_client_certificate_is_reported_from_the_file() {
    let sim = world().await;
    let tls = Tls::until(start() + days(6) + TimeDelta::hours(1));
    let identity = format!(
        "client_identity = {{ certificate = \"{}\", key = {{ file = \"{}\" }} }}\n",
        tls.certificate.display(),
        tls.key.display()
    );
    sim.api.world().admin_keys.clear();
    let with = |tls: &str| {
        sim.config().replace("requests_per_second", &format!("{tls}requests_per_second"))
    };
    let service = Service::start(&with(&identity)).await;
    let mut heard = Heard::of(&sim);
    step(&service, 0).await;
    let said = "certvigil’s client certificate expires in 6 days";
    assert_eq!(heard.news(), [("client_identity.expiring", "opened", said.to_owned())]);
    let posts = sim.receiver.posts();
    fits_schema(&serde_json::from_str(&posts.last().unwrap().body).unwrap());
    let renewed = Tls::until(start() + days(600));
    let other = identity
        .replace(&tls.certificate.display().to_string(), &renewed.certificate.display().to_string())
        .replace(&tls.key.display().to_string(), &renewed.key.display().to_string());
    let service = service.restart(&with(&other), start()).await;
    step(&service, 1).await;
    assert_eq!(heard.news()[0].1, "renewed");
    // A notifier for critical alerts gets nothing 90 days ahead.
    let critical = with(&identity).replace(
        "[notifiers.webhook.hook]",
        "[notifiers.webhook.hook]\nmin_severity = \"critical\"",
    );
    let early = Tls::until(start() + days(80));
    let early = critical
        .replace(&tls.certificate.display().to_string(), &early.certificate.display().to_string())
        .replace(&tls.key.display().to_string(), &early.key.display().to_string());
    let service = Service::start(&early).await;
    step(&service, 0).await;
    assert!(heard.news().is_empty());
}
