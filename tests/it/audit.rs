//! The audit log: who changed a certificate, and the notices of changes.

use certvigil::{
    demo::{audit_log::Actor, pages::parts, world::World},
    domain::{certificate::CertificateId, change::ChangeKind},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::support::{Service, Sim, days, fits_schema, start};

const ALICE: Actor<'_> = Actor::Session("user_alice", "alice@acme.example");
const TERRAFORM: Actor<'_> = Actor::ServiceAccount("sa_terraform");
const CHAT: &str = "proj_0001";
const SEARCH: &str = "proj_0002";

fn at(minutes: i64) -> DateTime<Utc> {
    start() + TimeDelta::minutes(minutes)
}

/// Two projects: one certificate is active in both, another one in none.
fn world() -> World {
    let mut world = World::with_projects(2, |n| ["chat", "search"][n - 1].to_owned());
    world.add("cert_old", Some("prod-ca"), Some(start() + days(6)), [1, 2]);
    let new = world.add("cert_new", Some("prod-ca-2027"), Some(start() + days(400)), []);
    new.projects = [CHAT, SEARCH].map(|project| (project.to_owned(), false)).into();
    world.admin_keys.push(certvigil::demo::world::AdminKey {
        id: "key_1".to_owned(),
        name: None,
        redacted_value: "sk-admin...ted".to_owned(),
        expires_at: None,
        owner: ("sa_terraform".to_owned(), "terraform".to_owned()),
    });
    world
}

/// The configuration with the audit log and with notices.
fn config(sim: &Sim, keys: &str) -> String {
    let text = sim.config().replacen(
        "[organizations.acme]\n",
        &format!("[organizations.acme]\n{keys}\n"),
        1,
    );
    text.replace("[notifiers.webhook.hook]\n", "[notifiers.webhook.hook]\nevents = [\"changes\"]\n")
        .replace("[notifiers.email.ops]\n", "[notifiers.email.ops]\nevents = [\"changes\"]\n")
}

const ON: &str = "audit_log = true";

/// Scans and delivers; returns the changes in the new notices of the webhook.
async fn step(service: &Service, sim: &Sim, minutes: i64) -> Vec<Vec<String>> {
    let before = sim.receiver.posts().len();
    let report = service.scan(at(minutes)).await;
    assert!(report.record.complete);
    service.deliver(at(minutes)).await;
    let posts = sim.receiver.posts();
    let bodies =
        posts[before..].iter().map(|post| serde_json::from_str::<Value>(&post.body).unwrap());
    bodies
        .inspect(fits_schema)
        .filter(|body| body["alerts"][0]["event"] == "certificates.changed")
        .map(|body| {
            let changes = body["alerts"][0]["changes"].as_array().unwrap().clone();
            assert_eq!(body["alerts"][0]["changes_total"], changes.len());
            changes.iter().map(line).collect()
        })
        .collect()
}

fn line(change: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let projects = change["projects"].as_array().unwrap().iter().map(|one| text(&one["name"]));
    let actors = change["actors"].as_array().unwrap().iter();
    let actors = actors.map(|one| format!("{} {}", text(&one["id"]), text(&one["email"])));
    format!(
        "{} {} [{}] [{}]",
        text(&change["kind"]),
        text(&change["certificate_name"]),
        projects.collect::<Vec<_>>().join(", "),
        actors.collect::<Vec<_>>().join(", ")
    )
}

fn activate(sim: &Sim, certificate: &str, project: &str, active: bool) {
    let mut world = sim.api.world();
    let projects = &mut world.certificate(certificate).unwrap().projects;
    projects.insert(project.to_owned(), active);
}

fn of_audit_log(sim: &Sim) -> Vec<String> {
    let requests = sim.api.take_requests().into_iter();
    requests.filter(|one| one.contains("/audit_logs")).collect()
}

#[tokio::test]
async fn a_scan_without_news_sends_one_request_and_a_change_one_notice() {
    let sim = Sim::start(world()).await;
    sim.api.world().log("certificate.created", at(-90_000), TERRAFORM, None, &["cert_old"]);
    sim.api.world().log("certificates.activated", at(-80_000), ALICE, Some(CHAT), &["cert_old"]);
    let service = Service::start(&config(&sim, ON)).await;
    assert!(step(&service, &sim, 0).await.is_empty(), "the first reading is history");
    let alert: Value = serde_json::from_str(&sim.receiver.posts()[0].body).unwrap();
    let changes = alert["alerts"][0]["certificate"]["changes"].as_array().unwrap();
    let changes: Vec<String> = changes.iter().map(line).collect();
    assert_eq!(
        changes,
        ["activated prod-ca [chat] [user_alice -]", "uploaded prod-ca [] [sa_terraform -]"]
    );
    let mail = parts(&sim.mailbox.mails().last().unwrap().data).unwrap().text;
    assert!(mail.contains("by the service account “terraform”"), "{mail}");
    assert!(mail.contains("in chat by the user user_alice"), "{mail}");

    let first = of_audit_log(&sim);
    assert_eq!(first.len(), 1);
    assert!(!first[0].contains("effective_at"), "{first:?}");
    for n in 1..=10 {
        assert!(step(&service, &sim, 60 * n).await.is_empty());
    }
    let later = of_audit_log(&sim);
    assert_eq!(later.len(), 10);
    assert!(later.iter().all(|one| one.contains("effective_at%5Bgt%5D=")), "{later:?}");

    activate(&sim, "cert_new", CHAT, true);
    activate(&sim, "cert_new", SEARCH, true);
    sim.api.world().log("certificates.activated", at(610), TERRAFORM, Some(CHAT), &["cert_new"]);
    sim.api.world().log("certificates.activated", at(611), ALICE, Some(SEARCH), &["cert_new"]);
    let mails = sim.mailbox.mails().len();
    let told = step(&service, &sim, 660).await;
    assert_eq!(
        told,
        [[
            "activated prod-ca-2027 [search] [user_alice -]",
            "activated prod-ca-2027 [chat] [sa_terraform -]"
        ]]
    );
    let new = sim.mailbox.mails().split_off(mails);
    let notices: Vec<_> = new
        .iter()
        .map(|mail| parts(&mail.data).unwrap())
        .filter(|mail| mail.subject.contains("2 certificate changes"))
        .collect();
    assert_eq!(notices.len(), 2, "one for each of two people");
    let text = notices[0].text.replace('\n', " ");
    assert!(text.contains("activated in chat by the service account “terraform”"), "{text}");
    assert!(step(&service, &sim, 720).await.is_empty(), "once");
    // A restart repeats nothing.
    let service = service.restart(&config(&sim, ON), at(730)).await;
    assert!(step(&service, &sim, 740).await.is_empty());
}

#[tokio::test]
async fn without_the_audit_log_changes_have_no_actor() {
    let sim = Sim::start(world()).await;
    let service = Service::start(&config(&sim, "")).await;
    assert!(step(&service, &sim, 0).await.is_empty());
    {
        let mut world = sim.api.world();
        world.add("cert_third", Some("third-ca"), Some(start() + days(300)), []);
        world.certificate("cert_new").unwrap().name = Some("renamed-ca".to_owned());
        world.certificate("cert_new").unwrap().organization_wide = true;
        world.certificate("cert_old").unwrap().projects.clear();
        world.certificates.retain(|one| one.id != "cert_old");
    }
    let mut told = step(&service, &sim, 60).await.pop().unwrap();
    told.sort();
    assert_eq!(
        told,
        [
            "activated renamed-ca [] []",
            "deactivated prod-ca [chat, search] []",
            "deleted prod-ca [] []",
            "renamed renamed-ca [] []",
            "uploaded third-ca [] []"
        ]
    );
    assert!(of_audit_log(&sim).is_empty());
    // An unreadable list is no change, and neither is a new project.
    sim.api.world().projects[1].broken = Some(500);
    sim.api.world().projects.push(certvigil::demo::world::Project {
        id: "proj_0003".to_owned(),
        name: Some("new".to_owned()),
        archived: false,
        broken: None,
    });
    activate(&sim, "cert_third", "proj_0003", true);
    let before = sim.receiver.posts().len();
    service.scan(at(120)).await;
    service.deliver(at(120)).await;
    sim.api.world().projects[1].broken = None;
    assert!(step(&service, &sim, 180).await.is_empty());
    let later = sim.receiver.posts().split_off(before);
    assert!(later.iter().all(|post| !post.body.contains("certificates.changed")));
}

#[tokio::test]
async fn a_refused_log_is_reported_once_and_changes_no_alert() {
    let mut refusing = world();
    refusing.audit_log_broken = Some(403);
    let sim = Sim::start(refusing).await;
    let service = Service::start(&config(&sim, ON)).await;
    let report = service.scan(at(0)).await;
    assert!(report.record.complete && report.notifications > 0);
    let error = report.audit_log_error.unwrap();
    assert!(error.refused && error.why.contains("HTTP 403"), "{}", error.why);
    activate(&sim, "cert_new", CHAT, true);
    let told = step(&service, &sim, 60).await;
    assert_eq!(told, [["activated prod-ca-2027 [chat] []"]]);
    assert!(service.scan(at(70)).await.audit_log_error.is_none());
    // With the permission, the events of the time before are no news.
    sim.api.world().audit_log_broken = None;
    sim.api.world().log("certificates.activated", at(30), TERRAFORM, Some(CHAT), &["cert_new"]);
    assert!(step(&service, &sim, 80).await.is_empty());
    let known = changes(&service, "cert_new").await;
    assert_eq!(known, ["activated by sa_terraform in 1"]);
}

/// The known changes of a certificate: kind, actors, number of scopes.
async fn changes(service: &Service, certificate: &str) -> Vec<String> {
    let id = CertificateId::parse(certificate).unwrap();
    let known = service.store.inventory(service.target.api.organization()).await.unwrap();
    let shown = known.changes.of(&id).map(|one| {
        let actors: Vec<&str> = one.actors.iter().map(|actor| actor.id.as_str()).collect();
        format!("{} by {} in {}", one.kind, actors.join("+"), one.scopes_total)
    });
    shown.collect()
}

#[tokio::test]
async fn personal_data_is_kept_only_as_configured() {
    let sim = Sim::start(world()).await;
    sim.api.world().log("certificate.created", at(-500), ALICE, None, &["cert_old"]);
    let mut service = Service::start(&config(&sim, ON)).await;
    let addresses = format!("{ON}\naudit_log_addresses = true");
    let cases =
        [(ON, true, false), (&addresses, true, true), (ON, true, false), ("", false, false)];
    for (n, (keys, ids, emails)) in (0..).zip(cases) {
        let now = at(10 * n);
        service = service.restart(&config(&sim, keys), now).await;
        service.scan(now).await;
        let known = service.store.inventory(service.target.api.organization()).await.unwrap();
        let kept = serde_json::to_string(&known.changes.all).unwrap();
        assert_eq!(kept.contains("user_alice"), ids, "{kept}");
        assert_eq!(kept.contains("alice@acme.example"), emails, "{kept}");
        let file = std::fs::read(service.folder.path().join("state.db")).unwrap();
        let log = std::fs::read(service.folder.path().join("state.db-wal")).unwrap_or_default();
        for bytes in [file, log] {
            assert!(!String::from_utf8_lossy(&bytes).contains("203.0.113.7"), "an IP address");
        }
    }
}

#[tokio::test]
async fn awkward_events_hide_no_other_ones() {
    let sim = Sim::start(world()).await;
    let service = Service::start(&config(&sim, ON)).await;
    step(&service, &sim, 0).await;
    let named = json!({ "id": "cert_old", "name": "prod-ca" });
    let event = |id: &str, kind: &str, change: Value| {
        let mut event = json!({ "id": id, "type": kind, "effective_at": at(30).timestamp() });
        let all = event.as_object_mut().unwrap();
        change.as_object().unwrap().iter().for_each(|(key, value)| {
            all.insert(key.clone(), value.clone());
        });
        event
    };
    let created = "certificate.created";
    let user = |user: Value| json!({ created: named, "actor": { "session": { "user": user } } });
    let long = "x".repeat(5_000);
    let log = vec![
        json!(null),
        json!({}),
        json!({ "id": "no-type" }),
        event("nothing", created, json!({})),
        event("no-id", created, json!({ created: {} })),
        event("odd-id", created, json!({ created: { "id": "a\nb" } })),
        event("no-list", "certificates.activated", json!({ "certificates.activated": named })),
        event("no-time", created, json!({ created: named, "effective_at": "soon" })),
        event("zero", created, json!({ created: named, "effective_at": 0 })),
        event("millis", created, json!({ created: named, "effective_at": 1_800_000_000_000_i64 })),
        event("other", "login.succeeded", json!({ created: named })),
        event(
            "empty",
            "certificates.activated",
            json!({ "certificates.activated": { "certificates": [] } }),
        ),
        event("a", created, json!({ created: named, "actor": null })),
        event("b", created, json!({ created: named, "actor": {} })),
        event("c", created, json!({ created: named, "actor": { "type": "session" } })),
        event("d", created, user(json!({ "email": "no-id@acme.example" }))),
        event("e", created, user(json!({ "id": long, "email": long }))),
        event("f", created, user(json!({ "id": "<b>\u{202e}eve", "email": null }))),
        event("g", created, json!({ created: named, "actor": { "api_key": { "id": "key_9" } } })),
        event("h", created, json!({ created: named, "project": { "id": "a b" }, "actor": null })),
    ];
    sim.api.world().audit_log = log;
    let report = service.scan(at(60)).await;
    assert!(report.record.complete);
    let error = report.audit_log_error.unwrap().why;
    assert!(error.contains("unreadable items: data[") && error.len() < 1_200, "{error}");
    let known = service.store.inventory(service.target.api.organization()).await.unwrap();
    let id = CertificateId::parse("cert_old").unwrap();
    let known: Vec<_> = known.changes.of(&id).collect();
    assert!(known.iter().all(|one| one.kind == ChangeKind::Uploaded));
    assert_eq!(known.iter().map(|one| one.events).sum::<usize>(), 8);
    let actors: Vec<&str> =
        known.iter().flat_map(|one| &one.actors).map(|actor| actor.id.as_str()).collect();
    assert_eq!(actors.len(), 3, "{actors:?}");
    assert!(actors.contains(&"<b>eve") && actors.contains(&"key_9"));
    assert!(actors.iter().all(|actor| actor.chars().count() <= 120));
    // The readable events are known, so they cause no second notice.
    sim.api.world().log("certificate.updated", at(70), ALICE, None, &["cert_old"]);
    service.deliver(at(60)).await;
    let told = step(&service, &sim, 120).await;
    assert_eq!(told, [["renamed prod-ca [] [user_alice -]"]]);
}

#[tokio::test]
async fn an_alert_about_an_unprotected_project_names_who_deactivated_its_certificate() {
    let sim = Sim::start(world()).await;
    let service = Service::start(&config(&sim, ON)).await;
    step(&service, &sim, 0).await;
    activate(&sim, "cert_old", CHAT, false);
    sim.api.world().log("certificates.deactivated", at(30), ALICE, Some(CHAT), &["cert_old"]);
    step(&service, &sim, 60).await;
    let posts = sim.receiver.posts();
    let bodies = posts.iter().map(|post| serde_json::from_str::<Value>(&post.body).unwrap());
    let alerts = bodies.flat_map(|body| body["alerts"].as_array().unwrap().clone());
    let unprotected: Vec<Value> =
        alerts.filter(|alert| alert["event"] == "project.unprotected").collect();
    assert_eq!(unprotected.len(), 1);
    let project = &unprotected[0]["projects"][0];
    assert_eq!(line(&project["deactivated"]), "deactivated prod-ca [chat] [user_alice -]");
    let mails = sim.mailbox.mails();
    let mails = mails.iter().map(|mail| parts(&mail.data).unwrap().text.replace('\n', " "));
    let who = "“prod-ca” was deactivated in chat by the user user_alice";
    assert!(mails.filter(|text| text.contains("mutual TLS") && text.contains(who)).count() > 0);
}

#[tokio::test]
async fn ten_thousand_events_are_read_once() {
    let mut full = world();
    for n in 0..10_000 {
        let kind = ["certificates.activated", "certificates.deactivated"][n % 2];
        full.log(kind, at(-20_000 + n as i64), TERRAFORM, None, &["cert_new"]);
    }
    let sim = Sim::start(full).await;
    let service = Service::start(&config(&sim, ON)).await;
    assert!(step(&service, &sim, 0).await.is_empty());
    assert_eq!(of_audit_log(&sim).len(), 100);
    assert!(step(&service, &sim, 60).await.is_empty());
    assert_eq!(of_audit_log(&sim).len(), 1);
    assert!(changes(&service, "cert_new").await.len() <= 20, "their number is limited");
}
