//! Summaries: schedule, content, and no all-clear with incomplete data.

use certvigil::{
    demo::{pages::parts, world::World},
    domain::summary::SummaryState,
    message::{Body, Event, sample},
    store::Job,
};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeSet;

use super::{
    daemon::Daemon,
    support::{Service, Sim, days, fits_schema, run, start, until, with},
    window::{TOKEN, demo, guarded, told},
};

/// Mondays at 08:00; the tests start on a Monday at noon.
const SUMMARY: &str = "[summary]\ncron = \"0 8 * * MON\"\nnotifiers = [\"ops\", \"hook\"]\n";
const A: &str = "a@acme.example";

/// The Monday morning after `weeks`.
fn monday(weeks: i64) -> DateTime<Utc> {
    start() + days(7 * weeks) - TimeDelta::hours(4)
}

async fn step(service: &Service, now: DateTime<Utc>) {
    service.check(start(), now).await;
    service.deliver(now).await;
}

/// The subjects and texts of the summaries to a recipient.
fn summaries(sim: &Sim, to: &str) -> Vec<(String, String)> {
    let mails = sim.mailbox.mails();
    let of = mails.iter().filter(|mail| mail.to.iter().any(|one| one == to));
    let parts = of.map(|mail| parts(&mail.data).unwrap());
    let summary = parts.filter_map(|parts| {
        let subject = parts.subject.strip_prefix("[certvigil] Summary: ")?.to_owned();
        Some((subject, parts.text))
    });
    summary.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_says_what_is_due_and_whether_everything_was_read() {
    let mut world = World::with_projects(2, |n| format!("project-{n}"));
    world.add("cert_long", Some("long-ca"), Some(start() + days(300)), [1, 2]);
    let sim = Sim::start(world).await;
    let text = format!("{}{SUMMARY}[monitoring]\nadmin_keys = \"off\"\n", sim.config());
    let service = Service::start(&text).await;
    service.scan(start()).await;
    step(&service, start()).await;
    assert!(summaries(&sim, A).is_empty(), "the first one waits for its time");
    service.scan(monday(1) - TimeDelta::hours(2)).await;
    step(&service, monday(1)).await;
    step(&service, monday(1) + TimeDelta::hours(1)).await;
    // A restart repeats nothing.
    let service = service.restart(&text, monday(1) + TimeDelta::hours(2)).await;
    step(&service, monday(1) + TimeDelta::hours(2)).await;
    let sent = summaries(&sim, A);
    let subjects: Vec<&str> = sent.iter().map(|(subject, _)| subject.as_str()).collect();
    assert_eq!(subjects, ["nothing to do; next, “long-ca” expires in 293 days"]);
    assert!(sent[0].1.contains("2 since 2027-02-01, all complete"), "{}", sent[0].1);

    // Another week: something is due, and a list is unreadable.
    sim.api.world().add(
        "cert_a",
        Some("prod-ca"),
        Some(monday(2) + days(6) + TimeDelta::hours(1)),
        [1],
    );
    service.scan(monday(2) - TimeDelta::hours(3)).await;
    sim.api.world().projects[1].broken = Some(403);
    service.scan(monday(2) - TimeDelta::hours(2)).await;
    step(&service, monday(2)).await;
    let (subject, text) = summaries(&sim, A).pop().unwrap();
    let expected = "1 certificate needs action (“prod-ca” expires in 6 days), 3 late deliveries, \
                    and the data of acme is incomplete";
    assert_eq!(subject, expected);
    for part in [
        "Certificates of acme may expire unnoticed.",
        "2 since 2027-02-08, 1 incomplete",
        "1 list is unreadable now",
        "Move the clients to the successor (1)",
        "“prod-ca” (cert_a): expires on 2027-02-21 (in 6 days); in project-1",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let posts = sim.receiver.posts();
    // Alerts and summaries are sent at the same time.
    let mut bodies = posts.iter().rev().map(|post| serde_json::from_str(&post.body).unwrap());
    let is_summary = |body: &Value| body["alerts"][0]["event"] == "summary";
    let body = bodies.find(is_summary).unwrap();
    fits_schema(&body);
    assert_eq!(body["alerts"][0]["report"]["organizations"][0]["incomplete"], 1);

    // Without scans, it makes no all-clear.
    sim.api.world().projects[1].broken = None;
    service.scan(monday(2)).await;
    step(&service, monday(3)).await;
    let (subject, text) = summaries(&sim, A).pop().unwrap();
    assert!(subject.ends_with("the data of acme is old"), "{subject}");
    assert!(text.contains("the next one is overdue"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_dies_anywhere_neither_loses_nor_doubles_a_summary() {
    let sim = Sim::start(World::with_projects(1, |_| "prod".to_owned())).await;
    let text = format!("{}{SUMMARY}", sim.config());
    let service = Service::start(&text).await;
    service.scan(start()).await;
    step(&service, start()).await;
    // Two scheduled ones and one on request; the service was down in the second week.
    let asked = monday(1) + days(2);
    for (count, now) in [(1, monday(1)), (2, asked), (3, monday(3) + days(1))] {
        if now == asked {
            service.store.ask_for(Job::Summary, now).await.unwrap();
        }
        let mut died = 0;
        for _ in 0..100 {
            let limit = std::time::Duration::from_micros(fastrand::u64(..3_000));
            let check = service.check(start(), now);
            died += u32::from(tokio::time::timeout(limit, check).await.is_err());
        }
        assert!(died > 0);
        step(&service, now).await;
        for to in [A, "b@acme.example"] {
            assert_eq!(summaries(&sim, to).len(), count, "{to}");
        }
    }
    // After summaries were off, the schedule starts with its next time.
    let service = service.restart(&sim.config(), monday(3) + days(2)).await;
    step(&service, monday(3) + days(2)).await;
    let service = service.restart(&text, monday(9) + days(2)).await;
    step(&service, monday(9) + days(2)).await;
    assert_eq!(summaries(&sim, A).len(), 3);
    step(&service, monday(10)).await;
    assert_eq!(summaries(&sim, A).len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_owner_gets_a_summary_of_its_own_certificates() {
    let mut world = World::with_projects(2, |n| format!("{}-1", ["pay", "search"][n - 1]));
    world.add("cert_pay", Some("pay-ca"), Some(start() + days(20)), [1]);
    world.add("cert_search", Some("search-ca"), Some(start() + days(60)), [2]);
    let sim = Sim::start(world).await;
    let text = sim.config().replace(
        "to = [\"a@acme.example\", \"b@acme.example\"]",
        "to = [\"owner\"]\nfallback = [\"ops@acme.example\"]\nmin_severity = \"critical\"",
    );
    let owner = |team: &str| {
        format!(
            "[[owners]]\nteam = \"{team}\"\nto = [\"{team}@acme.example\"]\nprojects = [\"{team}-*\"]\n"
        )
    };
    let text = format!("{text}{}{}{SUMMARY}", owner("pay"), owner("search"));
    let service = Service::start(&text).await;
    service.scan(start()).await;
    step(&service, start()).await;
    service.scan(monday(1) - TimeDelta::hours(1)).await;
    step(&service, monday(1)).await;
    for (to, with, without) in [
        ("pay@acme.example", "pay-ca", "search-ca"),
        ("search@acme.example", "search-ca", "pay-ca"),
    ] {
        let (_, text) = summaries(&sim, to).pop().unwrap();
        assert!(text.contains(with) && !text.contains(without), "{to}: {text}");
        assert!(!text.contains("Deliveries"), "owners do not run certvigil: {text}");
    }
    let (subject, text) = summaries(&sim, "ops@acme.example").pop().unwrap();
    assert!(text.contains("Deliveries: ") && !text.contains("-ca"), "{text}");
    assert!(subject.starts_with("nothing to do, but "), "{subject}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_problem_falls_between_two_summaries_or_is_an_all_clear() {
    let mut world = World::with_projects(1, |_| "prod".to_owned());
    world.add("cert_a", Some("prod-ca"), Some(monday(1) + days(30) - TimeDelta::minutes(20)), [1]);
    let sim = Sim::start(world).await;
    let text = format!("{}{SUMMARY}", sim.config());
    let service = Service::start(&text).await;
    service.scan(monday(1) - TimeDelta::hours(8)).await;
    step(&service, monday(1) - TimeDelta::hours(8)).await;
    // An alert becomes due before a summary and is delivered late after it.
    sim.mailbox.refuse(A, Some(451));
    service.scan(monday(1) + TimeDelta::minutes(-10)).await;
    step(&service, monday(1)).await;
    let since = monday(1) + TimeDelta::hours(9);
    sim.mailbox.refuse(A, None);
    service.scan(since).await;
    step(&service, since).await;
    // A new schedule does not shorten the period.
    let text = text.replace("0 8 * * MON", "0 9 * * MON");
    let service = service.restart(&text, monday(2) - days(1)).await;
    step(&service, monday(2) - days(1)).await;
    sim.api.world().admin_keys_broken = Some(403);
    service.scan(monday(2)).await;
    step(&service, monday(2) + TimeDelta::hours(1)).await;
    let (subject, text) = summaries(&sim, A).pop().unwrap();
    assert!(subject.contains("1 late delivery"), "{subject} {text}");
    assert!(text.contains(" of new alerts, 1 late; no failed deliveries"), "{text}");
    assert!(text.contains("2 since 2027-02-08, all complete"), "{text}");
    assert!(text.contains("the list of admin keys is unreadable"), "{text}");
}

#[test]
fn the_headline_names_the_first_certificate_without_an_active_successor() {
    let mut message = sample::of(Event::Summary, "ops", start());
    let Body::Summary(summary) = &mut message.alerts[0].body else { panic!("no summary") };
    assert!(summary.headline(start()).contains("(“prod-ca” expires in 6 days)"));
    let later = summary.certificates.iter_mut().find(|one| one.state == SummaryState::Later);
    let replaced = later.unwrap();
    replaced.state = SummaryState::Deactivate;
    replaced.listed[0].expires_at = Some(start() - days(9));
    assert!(summary.headline(start()).contains("3 certificates need action (“prod-ca” expires"));
    summary.certificates.retain(|one| one.state == SummaryState::Deactivate);
    assert!(summary.headline(start()).contains("(“eu-ca” expired 9 days ago)"));
}

async fn list(daemon: &Daemon, path: &str) -> Vec<Value> {
    let answer = daemon.request(Method::GET, path).bearer_auth(TOKEN).send().await.unwrap();
    let page: Value = answer.json().await.unwrap();
    page["data"].as_array().unwrap_or_else(|| panic!("{path}: {page}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn its_figures_are_those_of_the_api() {
    let sim = demo().await;
    let text = format!("{}{SUMMARY}", guarded(&sim));
    let mut daemon = told(&sim, &text).await;
    let folder = daemon.folder.path().to_owned();
    let command = |arguments: &[&str]| run(with(&folder, &text, arguments));
    let (code, _, error) = command(&["ack", "prod-ca", "--until", "30d", "--reason", "test"]).await;
    let acknowledged = code == 0;
    assert!(acknowledged || error.contains("prod-ca"), "{error}");
    let (code, out, error) = command(&["summary", "--output", "json"]).await;
    assert_eq!(code, 0, "{error}");
    let document: Value = serde_json::from_str(&out).unwrap();
    let report = &document["summaries"][0]["report"];
    let end = report["until"].as_str().unwrap();
    let certificates = list(&daemon, "/api/v1/certificates?limit=500").await;
    let ids = |all: Vec<&Value>| -> BTreeSet<String> {
        all.into_iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    // Every active certificate that expires by then is listed, and each that waits for a step.
    let listed: Vec<&Value> = report["certificates"].as_array().unwrap().iter().collect();
    let of_states = |keep: &dyn Fn(&str) -> bool| {
        let kept = listed.iter().filter(|one| keep(one["state"].as_str().unwrap()));
        ids(kept.flat_map(|one| one["listed"].as_array().unwrap()).collect())
    };
    let expiring = certificates.iter().filter(|one| {
        let expires = one["expires_at"].as_str();
        one["active_in"]["projects_total"] != 0 && expires.is_some_and(|at| at <= end)
    });
    let expiring = ids(expiring.collect());
    assert!(!expiring.is_empty());
    assert!(expiring.is_subset(&of_states(&|_| true)), "{expiring:?} {report:#}");
    for step in ["upload", "activate", "move_clients", "deactivate", "delete"] {
        let silenced = |one: &Value| !one["acknowledged"].is_null() || !one["ignored"].is_null();
        let of_step = certificates.iter().filter(|one| one["next_step"] == step && !silenced(one));
        assert_eq!(of_states(&|state| state == step), ids(of_step.collect()), "{step}");
    }
    let projects = list(&daemon, "/api/v1/projects?limit=500").await;
    for state in ["uncovered", "unprotected"] {
        let of_state = projects.iter().filter(|one| one["coverage"] == state);
        let reported = report["projects"].as_array().unwrap().iter();
        let reported = reported.filter(|one| one["state"] == state);
        let reported = reported.map(|one| one["total"].as_u64().unwrap()).sum::<u64>();
        assert_eq!(reported, of_state.count() as u64, "{state}: {report:#}");
    }
    let scans = list(&daemon, "/api/v1/scans?limit=500").await;
    let since = report["since"].as_str().unwrap();
    let recent = || scans.iter().filter(|one| one["finished_at"].as_str().unwrap() >= since);
    let organizations = report["organizations"].as_array().unwrap();
    let total: u64 = organizations.iter().map(|one| one["scans"].as_u64().unwrap()).sum();
    assert_eq!(total, recent().count() as u64, "{report:#}");
    let incomplete: u64 = organizations.iter().map(|one| one["incomplete"].as_u64().unwrap()).sum();
    assert_eq!(incomplete, recent().filter(|one| one["complete"] == false).count() as u64);
    let failed = list(&daemon, "/api/v1/deliveries?failed=true&limit=500").await;
    let deliveries = &report["deliveries"];
    let both = deliveries["failed"].as_u64().unwrap() + deliveries["retrying"].as_u64().unwrap();
    assert_eq!(both, failed.len() as u64, "{deliveries}");

    let (code, out, error) = command(&["summary", "ops"]).await;
    assert_eq!((code, out.starts_with("Summary: ")), (0, true), "{out} {error}");
    let (code, out, _) = command(&["summary", "--send"]).await;
    assert_eq!((code, out.contains("sends the summary within seconds")), (0, true), "{out}");
    until("the summaries", || (summaries(&sim, A).len() == 1).then_some(())).await;
    daemon.stop().await;
}

#[tokio::test]
async fn wrong_settings_of_summaries_are_explained() {
    let sim = Sim::start(World::with_projects(1, |_| "prod".to_owned())).await;
    let folder = tempfile::tempdir().unwrap();
    let pager = "[notifiers.webhook.pager]\nurl = \"http://127.0.0.1:9/\"\nformat = \"pagerduty\"\nkey = \"r\"\n";
    let cases = [
        ("cron = \"0 * * * *\"", "at most one summary a day"),
        ("cron = \"0 8 * * MON\"\nnotifiers = [\"mail\"]", "without incidents: ops, hook"),
        ("cron = \"0 8 * * MON\"\nnotifiers = [\"pager\"]", "without incidents: ops, hook"),
        ("cron = \"0 8 * * MON\"\nnotifiers = []", "at least one name"),
        ("cron = \"8\"", "a cron expression"),
    ];
    for (written, expected) in cases {
        let text = format!("{}{pager}[summary]\n{written}\n", sim.config());
        let (code, _, error) = run(with(folder.path(), &text, &["config", "check"])).await;
        assert_eq!((code, error.contains(expected)), (2, true), "{written}: {error}");
    }
    let text = format!("{}[summary]\ncron = \"0 8 * * MON\"\n", sim.config());
    let (code, out, error) = run(with(folder.path(), &text, &["config", "check"])).await;
    assert_eq!((code, out.contains("(UTC), through ops\n")), (0, true), "{out} {error}");
    let (code, _, error) = run(with(folder.path(), &sim.config(), &["summary", "--send"])).await;
    assert_ne!(code, 0);
    assert!(error.contains("summaries are off") || error.contains("database"), "{error}");
}
