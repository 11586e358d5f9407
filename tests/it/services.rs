//! Services that open an incident for each alert, and close it: along the lives of certificates,
//! over real sockets, and against a real Alertmanager.

use certvigil::{
    clock::Clock,
    demo::{
        receiver::{Answer, Post},
        world::World,
    },
    domain::{acknowledgement::Acknowledgement, certificate::CertificateId, subject::Subject},
    store::Which,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use std::{collections::BTreeMap, process::Stdio};

use super::support::{Running, Service, Sim, days, free_port, organization, program, start, until};

/// A world with these certificates: an id, the days that it has left, and the projects where it is
/// active.
fn world(projects: usize, certificates: &[(&str, i64, &[usize])]) -> World {
    let mut world = World::with_projects(projects, |n| format!("prod-{n}"));
    for (id, left, active_in) in certificates {
        let end = Some(start() + days(*left));
        world.add(id, Some(id), end, active_in.iter().copied());
    }
    keep_a_spare(&mut world);
    world
}

/// An inactive certificate in every project: a list that loses all its items at once is not
/// believed at first.
fn keep_a_spare(world: &mut World) {
    let all = 1..=world.projects.len();
    let spare = world.add("cert_spare", Some("spare"), Some(start() + days(4_000)), all);
    spare.projects.values_mut().for_each(|active| *active = false);
}

/// These are about certificates: that a project loses its last one has incidents of its own.
fn incidents(sim: &Sim, format: &str) -> String {
    format!(
        "{}unprotected = \"off\"\n[notifiers.webhook.{format}]\nformat = \"{format}\"\n\
         key = \"the-key\"\nurl = \"http://{}/hook\"\nmax_per_minute = 6000\n",
        organization(sim.api_address),
        sim.hook
    )
}

/// What PagerDuty would show as open after these events, by key: the summary of each.
fn open(posts: &[Post]) -> BTreeMap<String, String> {
    let mut open = BTreeMap::new();
    for post in posts {
        let event: Value = serde_json::from_str(&post.body).unwrap();
        let key = event["dedup_key"].as_str().unwrap().to_owned();
        let summary = event["payload"]["summary"].as_str().unwrap().to_owned();
        match event["event_action"].as_str().unwrap() {
            "trigger" => drop(open.insert(key, summary)),
            "resolve" => drop(open.remove(&key)),
            other => panic!("{other}"),
        }
    }
    open
}

async fn scan_and_deliver(service: &Service, now: DateTime<Utc>) -> usize {
    let report = service.scan(now).await;
    service.deliver(now).await;
    report.notifications
}

/// Of the notifier `pagerduty` or `opsgenie`.
const KEY: &str = "certvigil:pagerduty:acme:certificate:";

#[tokio::test]
async fn pagerduty_gets_one_incident_for_each_certificate_from_its_first_stage_to_its_end() {
    let sim = Sim::start(world(3, &[("cert_a", 20, &[1]), ("cert_b", 5, &[2, 3])])).await;
    let service = Service::start(&incidents(&sim, "pagerduty")).await;
    assert_eq!(scan_and_deliver(&service, start()).await, 2, "a message for each");
    let posts = sim.receiver.posts();
    let ids: Vec<&str> =
        posts.iter().map(|post| post.headers["webhook-id"].to_str().unwrap()).collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1], "each delivery has its own id");
    let event: Value = serde_json::from_str(&posts[0].body).unwrap();
    assert_eq!(event["routing_key"], "the-key");
    assert_eq!(event["event_action"], "trigger");
    assert_eq!(event["dedup_key"], format!("{KEY}cert_b:critical"), "the worst first");
    assert_eq!(event["payload"]["severity"], "critical");
    assert!(posts[0].headers.get("authorization").is_none(), "the key goes into the message");

    // Nothing new: nothing said. Then a tighter stage of one, and the end of the other.
    assert_eq!(scan_and_deliver(&service, start() + days(1)).await, 0);
    sim.api.world().certificate("cert_b").unwrap().projects.clear();
    assert_eq!(scan_and_deliver(&service, start() + days(7)).await, 2);
    let posts = sim.receiver.posts();
    assert_eq!(
        open(&posts),
        BTreeMap::from([(
            format!("{KEY}cert_a:warning"),
            "acme: “cert_a” expires in 12 days".to_owned()
        )])
    );
    // Replaced, and with it gone from PagerDuty.
    sim.api.world().add("cert_c", None, Some(start() + days(900)), [1]);
    sim.api.world().certificate("cert_a").unwrap().projects.clear();
    scan_and_deliver(&service, start() + days(8)).await;
    assert!(open(&sim.receiver.posts()).is_empty());
}

#[tokio::test]
async fn one_rejected_event_is_raised_again_and_the_others_are_not() {
    let sim = Sim::start(world(2, &[("cert_a", 6, &[1]), ("cert_b", 5, &[2])])).await;
    let service = Service::start(&incidents(&sim, "pagerduty")).await;
    sim.receiver
        .answer([Answer { status: 202, headers: vec![] }, Answer { status: 400, headers: vec![] }]);
    // One at a time, so that the second answer is the second event's.
    let one_by_one = incidents(&sim, "pagerduty") + "concurrency = 1\n";
    let service = service.restart(&one_by_one, start()).await;
    scan_and_deliver(&service, start()).await;
    assert_eq!(sim.receiver.posts().len(), 2);
    assert_eq!(scan_and_deliver(&service, start() + TimeDelta::hours(6)).await, 1);
    let posts = sim.receiver.posts();
    let key = |post: &Post| {
        serde_json::from_str::<Value>(&post.body).unwrap()["dedup_key"].as_str().unwrap().to_owned()
    };
    assert_eq!(key(&posts[2]), key(&posts[1]), "the one that was refused");
    assert_ne!(posts[2].headers["webhook-id"], posts[1].headers["webhook-id"], "under a new id");
    assert_eq!(scan_and_deliver(&service, start() + TimeDelta::hours(12)).await, 0);
}

#[tokio::test]
async fn projects_without_a_certificate_are_one_incident_that_ends_with_the_last_of_them() {
    // Eight projects whose certificates have expired, each with its own.
    let certificates: Vec<(String, usize)> = (1..=8).map(|n| (format!("cert_{n}"), n)).collect();
    let mut world = World::with_projects(8, |n| format!("prod-{n}"));
    for (id, n) in &certificates {
        world.add(id, None, Some(start() - days(1)), [*n]);
    }
    let sim = Sim::start(world).await;
    let service = Service::start(&incidents(&sim, "pagerduty")).await;
    scan_and_deliver(&service, start()).await;
    let projects = "certvigil:pagerduty:acme:projects:critical".to_owned();
    let of_projects = |posts: &[Post]| open(posts).get(&projects).cloned();
    let first = of_projects(&sim.receiver.posts());
    assert_eq!(first.as_deref(), Some("acme: 8 projects have no valid certificate"));
    // Five of them are repaired: the incident stays open, and no resolution is sent.
    for n in 1..=5 {
        sim.api.world().certificates.retain(|one| one.id != format!("cert_{n}"));
        sim.api.world().add(&format!("cert_new_{n}"), None, Some(start() + days(900)), [n]);
    }
    scan_and_deliver(&service, start() + TimeDelta::hours(6)).await;
    assert_eq!(of_projects(&sim.receiver.posts()), first);
    // Its reminder says how things stand.
    scan_and_deliver(&service, start() + days(1)).await;
    let rest = of_projects(&sim.receiver.posts());
    assert_eq!(rest.as_deref(), Some("acme: 3 projects have no valid certificate"));
    // The rest: it ends.
    for n in 6..=8 {
        sim.api.world().certificates.retain(|one| one.id != format!("cert_{n}"));
        sim.api.world().add(&format!("cert_new_{n}"), None, Some(start() + days(900)), [n]);
    }
    scan_and_deliver(&service, start() + TimeDelta::hours(30)).await;
    assert!(open(&sim.receiver.posts()).is_empty(), "{:?}", open(&sim.receiver.posts()));
}

#[tokio::test]
async fn an_alert_about_one_project_does_not_overtake_one_about_another() {
    let sim = Sim::start(world(2, &[("cert_1", -1, &[1]), ("cert_2", 1, &[2])])).await;
    let service = Service::start(&incidents(&sim, "pagerduty")).await;
    scan_and_deliver(&service, start()).await;
    // The end of the first cannot be delivered for two days; by then the second has none any more.
    sim.api.world().certificates.remove(0);
    sim.api.world().add("cert_3", None, Some(start() + days(900)), [1]);
    let busy = || Answer { status: 503, headers: vec![("retry-after", "172800".to_owned())] };
    let before = sim.receiver.posts().len();
    sim.receiver.answer([busy(), busy(), busy()]);
    assert_eq!(scan_and_deliver(&service, start() + TimeDelta::hours(6)).await, 3);
    let ends = "the certificate's end, the project's, and a reminder of the other one";
    assert_eq!(sim.receiver.posts().len(), before + 3, "{ends}");
    scan_and_deliver(&service, start() + TimeDelta::hours(30)).await;
    service.deliver(start() + TimeDelta::hours(60)).await;
    let mut taken = sim.receiver.posts();
    taken.drain(before..before + 3);
    let open = open(&taken);
    assert!(open.contains_key("certvigil:pagerduty:acme:projects:critical"), "{open:?}");
}

#[tokio::test]
async fn an_incident_that_moves_to_another_service_is_opened_there_and_forgotten_here() {
    let sim = Sim::start(world(2, &[("cert_a", 6, &[1]), ("cert_b", 5, &[2])])).await;
    let service = Service::start(&incidents(&sim, "pagerduty")).await;
    scan_and_deliver(&service, start()).await;
    let other = Sim::start(World::default()).await;
    let moved =
        incidents(&sim, "pagerduty").replace(&sim.hook.to_string(), &other.hook.to_string());
    let now = start() + TimeDelta::hours(6);
    let service = service.restart(&moved, now).await;
    // The new one accepts one of them and rejects the other.
    other.receiver.answer([Answer { status: 400, headers: vec![] }]);
    assert_eq!(scan_and_deliver(&service, now).await, 2, "the new one gets both");
    let later = now + TimeDelta::hours(6);
    assert_eq!(scan_and_deliver(&service, later).await, 1, "the refused one again, and it alone");
    assert_eq!(open(&other.receiver.posts()).len(), 2);
    assert_eq!(scan_and_deliver(&service, later + TimeDelta::hours(6)).await, 0);
}

#[tokio::test]
async fn another_channel_of_the_same_service_gets_everything_that_is_open() {
    let sim = Sim::start(world(2, &[("cert_a", 20, &[1]), ("cert_b", 5, &[2])])).await;
    let text = |channel: &str| {
        format!(
            "{}[notifiers.webhook.chat]\nformat = \"slack\"\nurl = \"http://{}/hook/{channel}\"\n",
            organization(sim.api_address),
            sim.hook
        )
    };
    let service = Service::start(&text("services/T0/B0/the-first-token")).await;
    assert_eq!(scan_and_deliver(&service, start()).await, 1);
    let now = start() + TimeDelta::hours(6);
    let service = service.restart(&text("services/T0/B0/the-first-token"), now).await;
    assert_eq!(scan_and_deliver(&service, now).await, 0, "the same channel");
    let service = service.restart(&text("services/T0/B1/the-second-token"), now).await;
    assert_eq!(scan_and_deliver(&service, now + TimeDelta::hours(6)).await, 1, "another one");
    let posts = sim.receiver.posts();
    let targets: Vec<&str> = posts.iter().map(|post| post.target.as_str()).collect();
    assert_eq!(
        targets,
        ["/hook/services/T0/B0/the-first-token", "/hook/services/T0/B1/the-second-token"]
    );
    assert!(posts[1].body.contains("cert_a") && posts[1].body.contains("cert_b"));
    let shown = service.notifiers[0].receivers().concat();
    assert!(shown.starts_with(&format!("http://{} #", sim.hook)), "{shown}");
    assert!(!shown.contains("token") && !shown.contains("services"), "{shown}");
}

#[tokio::test]
async fn worse_news_open_an_incident_of_their_own_and_close_the_one_before() {
    let sim = Sim::start(world(1, &[("cert_a", 20, &[1])])).await;
    let service = Service::start(&incidents(&sim, "pagerduty")).await;
    scan_and_deliver(&service, start()).await;
    let keys = |posts: &[Post]| open(posts).into_keys().collect::<Vec<_>>();
    assert_eq!(keys(&sim.receiver.posts()), [format!("{KEY}cert_a:warning")]);
    scan_and_deliver(&service, start() + days(14)).await;
    let posts = sim.receiver.posts();
    assert_eq!(keys(&posts), [format!("{KEY}cert_a:critical")]);
    assert_eq!(actions(&posts[1..]), ["trigger critical", "resolve warning"]);
    // Where closing fails, all of it is repeated, under the same keys and id.
    sim.api.world().certificate("cert_a").unwrap().projects.clear();
    let answer = |status| Answer { status, headers: vec![] };
    sim.receiver.answer([answer(202), answer(503)]);
    scan_and_deliver(&service, start() + days(15)).await;
    service.deliver(start() + days(15) + TimeDelta::hours(1)).await;
    let posts = sim.receiver.posts();
    assert!(open(&posts).is_empty());
    let ids = posts[3..].iter().map(|post| post.headers["webhook-id"].clone());
    assert_eq!(ids.collect::<std::collections::HashSet<_>>().len(), 1);
}

/// What these events do to the incident of which severity.
fn actions(posts: &[Post]) -> Vec<String> {
    let action = |post: &Post| {
        let event: Value = serde_json::from_str(&post.body).unwrap();
        let key = event["dedup_key"].as_str().unwrap().to_owned();
        format!("{} {}", event["event_action"].as_str().unwrap(), key.rsplit(':').next().unwrap())
    };
    posts.iter().map(action).collect()
}

#[tokio::test]
async fn a_resolution_closes_every_incident_that_may_be_open_and_no_other() {
    let sim = Sim::start(world(1, &[("cert_a", 20, &[1])])).await;
    let service = Service::start(&incidents(&sim, "pagerduty")).await;
    scan_and_deliver(&service, start()).await;
    // The critical incident is opened late, and the resolution follows at once.
    let answer = |status| Answer { status, headers: vec![] };
    sim.receiver.answer([answer(503)]);
    scan_and_deliver(&service, start() + days(14)).await;
    sim.api.world().certificate("cert_a").unwrap().projects.clear();
    let later = start() + days(14) + TimeDelta::minutes(20);
    scan_and_deliver(&service, later).await;
    let posts = sim.receiver.posts();
    let late = ["trigger critical", "resolve warning", "resolve warning", "resolve critical"];
    assert_eq!(actions(&posts[..2]), ["trigger warning", "trigger critical"]);
    assert_eq!(actions(&posts[2..]), late);
    // A later alert of the same certificate with another expiry has nothing to do with them.
    sim.api.world().certificates.retain(|one| one.id != "cert_a");
    sim.api.world().add("cert_a", Some("cert_a"), Some(later + days(20)), [1]);
    scan_and_deliver(&service, later + days(1)).await;
    sim.api.world().certificate("cert_a").unwrap().projects.clear();
    scan_and_deliver(&service, later + days(2)).await;
    let posts = sim.receiver.posts();
    assert_eq!(actions(&posts[6..]), ["trigger warning", "resolve warning"]);
    // Nor has an incident that the service refused to open.
    let later = later + days(10);
    sim.api.world().add("cert_b", Some("cert_b"), Some(later + days(20)), [1]);
    scan_and_deliver(&service, later).await;
    sim.receiver.answer([answer(400)]);
    scan_and_deliver(&service, later + days(14)).await;
    sim.api.world().certificate("cert_b").unwrap().projects.clear();
    scan_and_deliver(&service, later + days(15)).await;
    let posts = sim.receiver.posts();
    assert_eq!(actions(&posts[8..]), ["trigger warning", "trigger critical", "resolve warning"]);
}

#[tokio::test]
async fn what_is_out_of_date_is_not_tried_again_by_hand() {
    let sim = Sim::start(world(1, &[("cert_a", 6, &[1])])).await;
    let service = Service::start(&incidents(&sim, "pagerduty")).await;
    sim.receiver.answer([Answer { status: 400, headers: vec![] }]);
    scan_and_deliver(&service, start()).await;
    scan_and_deliver(&service, start() + TimeDelta::hours(6)).await;
    let rows = service.store.deliveries(&Which::default(), 10).await.unwrap();
    let refused = rows.iter().find(|row| row.state.as_str() == "rejected").unwrap();
    let now = start() + TimeDelta::hours(7);
    let retried = service.store.retry(&refused.id.to_string(), now, now + days(3)).await;
    let said = retried.unwrap_err().to_string();
    assert!(said.contains("is superseded by a later message"), "{said}");
}

#[tokio::test]
async fn what_was_over_before_a_service_moved_is_closed_under_its_new_address() {
    let sim = Sim::start(world(2, &[("cert_a", 6, &[1]), ("cert_b", 5, &[2])])).await;
    let service = Service::start(&incidents(&sim, "pagerduty")).await;
    scan_and_deliver(&service, start()).await;
    let moved = incidents(&sim, "pagerduty").replace("/hook\"", "/hook/v2\"");
    let now = start() + TimeDelta::hours(6);
    let service = service.restart(&moved, now).await;
    sim.api.world().certificates.retain(|one| one.id != "cert_a");
    scan_and_deliver(&service, now).await;
    let open = open(&sim.receiver.posts());
    assert_eq!(open.keys().collect::<Vec<_>>(), [&format!("{KEY}cert_b:critical")]);
}

#[tokio::test]
async fn what_flips_is_not_closed_while_it_may_be_open() {
    let sim = Sim::start(world(1, &[("cert_a", 6, &[1])])).await;
    let service = Service::start(&incidents(&sim, "pagerduty")).await;
    let mut sent = Vec::new();
    for n in 0..12 {
        let active = n % 2 == 0;
        sim.api.world().certificate("cert_a").unwrap().projects.insert("proj_0001".into(), active);
        scan_and_deliver(&service, start() + TimeDelta::hours(n)).await;
        sent.push(sim.receiver.posts().len());
        if active {
            assert_eq!(open(&sim.receiver.posts()).len(), 1, "scan {n}: it is open");
        }
    }
    assert_eq!(sent, [1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3], "and no storm");
    // Resolved: closed after a day.
    scan_and_deliver(&service, start() + TimeDelta::hours(30)).await;
    assert!(open(&sim.receiver.posts()).is_empty());
}

#[tokio::test]
async fn opsgenie_opens_and_closes_by_the_same_alias() {
    let sim = Sim::start(world(1, &[("cert_a", 6, &[1])])).await;
    let service = Service::start(&incidents(&sim, "opsgenie")).await;
    scan_and_deliver(&service, start()).await;
    sim.api.world().certificate("cert_a").unwrap().projects.clear();
    scan_and_deliver(&service, start() + days(1)).await;
    let posts = sim.receiver.posts();
    assert_eq!(posts[0].target, "/hook");
    assert_eq!(posts[0].headers["authorization"], "GenieKey the-key");
    let created: Value = serde_json::from_str(&posts[0].body).unwrap();
    assert_eq!(created["alias"], "certvigil:opsgenie:acme:certificate:cert_a:critical");
    let targets: Vec<&str> = posts[1..].iter().map(|post| post.target.as_str()).collect();
    let alias = "certvigil:opsgenie:acme:certificate:cert_a:critical";
    assert_eq!(targets, [format!("/hook/{alias}/close?identifierType=alias")]);
}

/// The alerts of an Alertmanager's body, as labels and whether each has ended by `now`.
fn labelled(body: &str, now: DateTime<Utc>) -> Vec<(String, String, bool)> {
    let alerts: Vec<Value> = serde_json::from_str(body).unwrap();
    let one = |alert: &Value| {
        let ends_at: DateTime<Utc> = alert["endsAt"].as_str().unwrap().parse().unwrap();
        let starts_at: DateTime<Utc> = alert["startsAt"].as_str().unwrap().parse().unwrap();
        assert!(starts_at <= ends_at);
        let label = |name: &str| alert["labels"][name].as_str().unwrap_or("-").to_owned();
        (label("certificate"), label("severity"), ends_at <= now)
    };
    alerts.iter().map(one).collect()
}

#[tokio::test]
async fn what_is_open_in_alertmanager_is_kept_up_by_every_scan_and_by_nothing_else() {
    let sim = Sim::start(world(2, &[("cert_a", 20, &[1]), ("cert_b", 100, &[2])])).await;
    let text = format!("[schedule]\ncron = \"0 */6 * * *\"\n{}", incidents(&sim, "alertmanager"));
    let service = Service::start(&text).await;
    let mut seen = 0;
    let mut bodies = || {
        let posts = sim.receiver.posts();
        let new: Vec<String> = posts[seen..].iter().map(|post| post.body.clone()).collect();
        seen = posts.len();
        new
    };
    let told = |id: &str, severity: &str, over| (id.to_owned(), severity.to_owned(), over);

    scan_and_deliver(&service, start()).await;
    let body = &bodies()[0];
    assert_eq!(labelled(body, start()), [told("cert_a", "warning", false)]);
    // For two scans and what one may take, from the attempt on, which is some minute after the
    // scan.
    let lasts = |body: &str, from: DateTime<Utc>| {
        let ends_at = serde_json::from_str::<Value>(body).unwrap()[0]["endsAt"].clone();
        let lasts = ends_at.as_str().unwrap().parse::<DateTime<Utc>>().unwrap() - from;
        let expected = TimeDelta::hours(12) + TimeDelta::minutes(16);
        assert!((lasts - expected).abs() < TimeDelta::seconds(59), "{lasts}");
    };
    lasts(body, start());
    // Nothing new: kept up.
    let now = start() + TimeDelta::hours(6);
    scan_and_deliver(&service, now).await;
    let body = &bodies()[0];
    assert_eq!(labelled(body, now), [told("cert_a", "warning", false)]);
    lasts(body, now);
    // While it cannot be read it is kept up, too, and while it is acknowledged.
    sim.api.world().projects[0].broken = Some(500);
    let now = now + TimeDelta::hours(6);
    scan_and_deliver(&service, now).await;
    assert_eq!(labelled(&bodies()[0], now), [told("cert_a", "warning", false)]);
    sim.api.world().projects[0].broken = None;
    let acknowledgement = Acknowledgement {
        id: certvigil::store::id_at(now),
        subject: Subject::Certificate(CertificateId::parse("cert_a").unwrap()),
        reason: "at it".to_owned(),
        by: None,
        created_at: now,
        until: start() + days(10),
        expires_at: Some(start() + days(20)),
        ended: None,
    };
    let acme = service.target.api.organization();
    service.store.acknowledge(acme, &acknowledgement).await.unwrap();
    let now = start() + days(7);
    scan_and_deliver(&service, now).await;
    assert_eq!(labelled(&bodies()[0], now), [told("cert_a", "warning", false)], "not its 14 days");
    // Critical now: the alert of the severity before ends with the same request.
    let now = start() + days(14);
    scan_and_deliver(&service, now).await;
    let new = bodies();
    assert_eq!(new.len(), 2, "and the other one is open now");
    let minute = now + TimeDelta::minutes(2);
    assert_eq!(
        labelled(&new[0], minute),
        [told("cert_a", "critical", false), told("cert_a", "warning", true)]
    );
    assert_eq!(labelled(&new[1], minute), [told("cert_b", "info", false)]);
    // Over: it ends at once, and is kept up no more.
    sim.api.world().certificate("cert_a").unwrap().projects.clear();
    let now = now + TimeDelta::hours(6);
    scan_and_deliver(&service, now).await;
    let new = bodies();
    assert_eq!(labelled(&new[0], now + TimeDelta::minutes(2)), [told("cert_a", "critical", true)]);
    assert_eq!(labelled(&new[1], now), [told("cert_b", "info", false)]);
    scan_and_deliver(&service, now + TimeDelta::hours(6)).await;
    let new = bodies();
    assert_eq!(new.len(), 1);
    assert_eq!(labelled(&new[0], now)[0].0, "cert_b");
}

#[tokio::test]
async fn what_only_keeps_up_is_no_history_and_replaces_no_news() {
    let sim = Sim::start(world(1, &[("cert_a", 20, &[1])])).await;
    let service = Service::start(&incidents(&sim, "alertmanager")).await;
    scan_and_deliver(&service, start()).await;
    for n in 1..20 {
        scan_and_deliver(&service, start() + TimeDelta::hours(6 * n)).await;
    }
    let rows = service.store.deliveries(&Which::default(), 100).await.unwrap();
    assert_eq!(rows.len(), 1, "the sent alert is listed: {rows:#?}");
    let url = format!("sqlite:{}", service.config.state.place);
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let kept = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM notifications");
    let kept = kept.fetch_one(&pool).await.unwrap();
    assert_eq!(kept, 2, "that, and the latest that keeps it up");
    pool.close().await;

    // Alertmanager is down: a new alert stays pending, however often it is refreshed.
    sim.api.world().certificate("cert_a").unwrap().expires_at = Some(start() + days(10));
    let away = || Answer { status: 503, headers: vec![("retry-after", "3600".to_owned())] };
    sim.receiver.answer((0..60).map(|_| away()));
    let changed = start() + days(5);
    service.scan(changed).await;
    for n in 1..8 {
        service.scan(changed + TimeDelta::hours(6 * n)).await;
    }
    let rows = service.store.deliveries(&Which::default(), 100).await.unwrap();
    let pending = rows.iter().filter(|row| row.state.as_str() == "pending").count();
    assert_eq!(pending, 2, "the news, and the latest that keeps it up: {rows:#?}");
}

/// A real Alertmanager, on loopback alone.
struct Alertmanager {
    address: String,
    _process: Running,
    _folder: tempfile::TempDir,
}

impl Alertmanager {
    async fn start() -> Option<Alertmanager> {
        let program = program("prometheus-alertmanager", "prometheus-alertmanager")?;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alertmanager.yml");
        std::fs::write(&file, "route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n")
            .unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let process = std::process::Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", folder.path().display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let alertmanager = Alertmanager { address, _process: Running(process), _folder: folder };
        let ready = alertmanager.address.clone();
        until("alertmanager", || std::net::TcpStream::connect(&ready).ok()).await;
        Some(alertmanager)
    }

    /// The alerts that it shows: labels, and `active` or whatever else.
    async fn alerts(&self) -> Vec<Value> {
        let url = format!("http://{}/api/v2/alerts", self.address);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(url).send().await.unwrap().json().await.unwrap()
    }
}

#[tokio::test]
async fn a_real_alertmanager_shows_what_is_open_and_not_what_is_over() {
    super::support::crypto();
    let Some(alertmanager) = Alertmanager::start().await else { return };
    // It uses this machine's clock and expires past alerts.
    let now = Clock::System.now();
    let mut world = World::with_projects(3, |n| format!("prod-{n}"));
    world.add("cert_a", Some("prod “ca” <b>"), Some(now + days(5)), [1]);
    world.add("cert_b", Some("other-ca"), Some(now + days(25)), [2]);
    world.add("cert_c", Some("old-ca"), Some(now - days(2)), [3]);
    keep_a_spare(&mut world);
    let sim = Sim::start(world).await;
    let text = format!(
        "{}unprotected = \"off\"\n[notifiers.webhook.am]\nformat = \"alertmanager\"\nurl = \"http://{}/\"\n",
        organization(sim.api_address),
        alertmanager.address
    );
    let service = Service::start(&text).await;
    service.scan(now).await;
    let report = service.deliver(now).await.remove(0);
    assert_eq!((report.delivered, report.waiting, report.failed), (4, 0, 0));
    let shown = alertmanager.alerts().await;
    let mut labels: Vec<Value> = shown.iter().map(|alert| alert["labels"].clone()).collect();
    labels.sort_by_key(|labels| labels["certificate"].as_str().map(str::to_owned));
    let of = |id: &str, severity: &str| {
        json!({
            "alertname": "CertvigilCertificate", "certificate": id, "organization": "acme",
            "service": "certvigil", "severity": severity,
        })
    };
    let projects = json!({
        "alertname": "CertvigilProjectsUncovered", "organization": "acme",
        "service": "certvigil", "severity": "critical",
    });
    assert_eq!(
        labels,
        [projects, of("cert_a", "critical"), of("cert_b", "warning"), of("cert_c", "critical")]
    );
    let first = shown.iter().find(|alert| alert["labels"]["certificate"] == "cert_a").unwrap();
    assert_eq!(first["status"]["state"], "active");
    assert_eq!(first["annotations"]["summary"], "acme: “prod “ca” <b>” expires in 4 days");
    let started = first["startsAt"].clone();

    // Kept up by the next scan: the same alert, from the same beginning, for longer.
    service.scan(now + TimeDelta::seconds(60)).await;
    service.deliver(now + TimeDelta::seconds(60)).await;
    let shown = alertmanager.alerts().await;
    assert_eq!(shown.len(), 4);
    let first = shown.iter().find(|alert| alert["labels"]["certificate"] == "cert_a").unwrap();
    assert_eq!(first["startsAt"], started);

    // Over, by a clock that is not ahead of Alertmanager's: then it is shown no more.
    sim.api.world().certificates.retain(|one| one.id != "cert_a");
    service.scan(now + TimeDelta::seconds(120)).await;
    service.deliver(now - TimeDelta::minutes(1)).await;
    let shown = alertmanager.alerts().await;
    assert!(shown.iter().all(|alert| alert["labels"]["certificate"] != "cert_a"), "{shown:#?}");
    assert_eq!(shown.len(), 3);
}
