//! Drills: each receiver confirms a test alert, and the others get an alert about those that do not.

use certvigil::{
    demo::{pages::parts, world::World},
    domain::drill::Drilled,
    store::Job,
    usecase::follow_link::{self, LinkError, OpenedLink},
};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::{
    daemon::Daemon,
    support::{Service, Sim, days, fits_schema, run, until, with},
};

/// Shortly before the drill of February.
fn start() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2027, 1, 31, 12, 0, 0).unwrap()
}

fn at(hours: i64) -> DateTime<Utc> {
    start() + TimeDelta::hours(hours)
}

const DRILL: &str = "[drill]\ncron = \"0 9 1 * *\"\n";
const PAGE: &str = "[http]\npublic_url = \"https://certvigil.acme.example\"\n";

async fn sim() -> Sim {
    Sim::start(World::with_projects(1, |_| "prod".to_owned())).await
}

/// Checks and delivers, `hours` after the start.
async fn step(service: &Service, hours: i64) {
    service.check(start(), at(hours)).await;
    service.deliver(at(hours)).await;
}

/// The subjects of the mails to a recipient.
fn subjects(sim: &Sim, to: &str) -> Vec<String> {
    let mails = sim.mailbox.mails();
    let of = mails.iter().filter(|mail| mail.to == [to]);
    of.map(|mail| parts(&mail.data).unwrap().subject.replace("[certvigil] ", "")).collect()
}

/// The token of the latest drill that a recipient got.
fn token(sim: &Sim, to: &str) -> String {
    let mails = sim.mailbox.mails();
    let of = mails.iter().rev().filter(|mail| mail.to == [to]);
    let mut texts = of.map(|mail| parts(&mail.data).unwrap().text);
    let token = texts.find_map(|text| {
        let links = text.split_whitespace().filter_map(|word| word.split_once("/link/"));
        let tokens: Vec<String> = links.map(|(_, token)| token.to_owned()).collect();
        tokens.into_iter().next()
    });
    token.unwrap()
}

fn bodies(sim: &Sim) -> Vec<Value> {
    sim.receiver.posts().iter().map(|post| serde_json::from_str(&post.body).unwrap()).collect()
}

async fn confirm(service: &Service, token: &str, hours: i64) -> Result<(), LinkError> {
    match follow_link::open(&service.store, token, at(hours)).await? {
        OpenedLink::Confirm(link) => follow_link::confirm(&service.store, link, at(hours)).await,
        OpenedLink::Acknowledge(link) => panic!("{link:?}"),
    }
}

async fn drilled(service: &Service, receiver: &str) -> Drilled {
    let all = service.store.drilled().await.unwrap();
    all.into_iter().find(|one| one.receiver == receiver).unwrap()
}

const A: &str = "a@acme.example";
const B: &str = "b@acme.example";
const DRILL_MAIL: &str = "DRILL: confirm by 2027-02-04 that you read this test alert";
const UNPROVEN: &str = "WARNING: 1 receiver of notifier “ops” has not confirmed a drill in time";

#[tokio::test(flavor = "multi_thread")]
async fn receivers_that_do_not_confirm_are_reported_to_those_that_do() {
    let sim = sim().await;
    let text = format!("{}{DRILL}{PAGE}", sim.config());
    let service = Service::start(&text).await;
    step(&service, 0).await;
    assert!(subjects(&sim, A).is_empty(), "the first drill waits for its time");
    step(&service, 22).await;
    step(&service, 23).await;
    assert_eq!(
        (subjects(&sim, A), subjects(&sim, B)),
        (vec![DRILL_MAIL.to_owned()], vec![DRILL_MAIL.to_owned()])
    );
    // A restart repeats nothing.
    let service = service.restart(&text, at(24)).await;
    step(&service, 24).await;
    let of_a = token(&sim, A);
    confirm(&service, &of_a, 30).await.unwrap();
    let confirmed = drilled(&service, A).await.confirmed_at;
    assert_eq!(confirmed, Some(at(30)));
    // A second confirmation changes nothing.
    confirm(&service, &of_a, 31).await.unwrap();
    assert_eq!(drilled(&service, A).await.confirmed_at, confirmed);
    step(&service, 21 + 72).await;
    assert_eq!(subjects(&sim, A).len(), 1);
    step(&service, 22 + 72).await;
    assert_eq!(subjects(&sim, A), [DRILL_MAIL, UNPROVEN]);
    assert_eq!(subjects(&sim, B), [DRILL_MAIL], "b may not read its mails");
    let webhook: Vec<Value> = bodies(&sim);
    let body = webhook.last().unwrap();
    fits_schema(body);
    let unproven = &body["alerts"][0]["unproven_notifier"];
    assert_eq!(
        (&unproven["name"], &unproven["receivers"][0]["receiver"]),
        (&"ops".into(), &B.into())
    );
    assert_eq!(unproven["receivers_total"], 1);
    step(&service, 23 + 72).await;
    assert_eq!(subjects(&sim, A).len(), 2);
    // A late confirmation counts, too.
    confirm(&service, &token(&sim, B), 120).await.unwrap();
    step(&service, 121).await;
    let over = "RESOLVED: notifier “ops” has no unproven receivers any more";
    assert_eq!(subjects(&sim, A), [DRILL_MAIL, UNPROVEN, over]);
    step(&service, 122).await;
    assert_eq!(subjects(&sim, A).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_dies_anywhere_neither_loses_nor_doubles_a_drill() {
    let sim = sim().await;
    let service = Service::start(&format!("{}{DRILL}{PAGE}", sim.config())).await;
    step(&service, 0).await;
    // Two scheduled drills, and one on request between them.
    for (drills, hours) in [(1, 23), (2, 200), (3, 23 + 28 * 24)] {
        if drills == 2 {
            service.store.ask_for(Job::Drill, at(hours)).await.unwrap();
        }
        let mut died = 0;
        for _ in 0..100 {
            let limit = std::time::Duration::from_micros(fastrand::u64(..2_000));
            let check = service.check(start(), at(hours));
            died += u32::from(tokio::time::timeout(limit, check).await.is_err());
        }
        assert!(died > 0);
        step(&service, hours).await;
        for to in [A, B] {
            let mails = subjects(&sim, to);
            let its = mails.iter().filter(|subject| subject.starts_with("DRILL")).count();
            assert_eq!(its, drills, "{to}: {mails:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drills_that_are_turned_on_again_begin_anew() {
    let sim = sim().await;
    let on = format!("{}{DRILL}{PAGE}", sim.config());
    let service = Service::start(&on).await;
    step(&service, 0).await;
    step(&service, 23).await;
    let old = token(&sim, A);
    let service = service.restart(&sim.config(), at(24)).await;
    step(&service, 24).await;
    assert!(service.store.drilled().await.unwrap().is_empty());
    // Months later: no drill before its time, and no alert about the old one.
    let later = 24 * 100;
    let service = service.restart(&on, at(later)).await;
    step(&service, later).await;
    assert_eq!(subjects(&sim, A), [DRILL_MAIL]);
    let refused = confirm(&service, &old, later).await.unwrap_err();
    assert!(matches!(refused, LinkError::Unknown), "{refused}");
    // A clock that was ahead by seconds repeats nothing.
    let june = 23 + (28 + 31 + 30 + 31) * 24;
    step(&service, june).await;
    service.check(start(), at(june) - TimeDelta::seconds(20)).await;
    step(&service, june).await;
    assert_eq!(subjects(&sim, A).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_hears_of_it_if_nobody_confirms() {
    let sim = sim().await;
    let service = Service::start(&format!("{}{DRILL}", sim.config())).await;
    step(&service, 0).await;
    // Down at the scheduled time: the drill starts once, late.
    step(&service, 50).await;
    step(&service, 51).await;
    let late = "DRILL: confirm by 2027-02-05 that you read this test alert";
    let both = "WARNING: 2 receivers of notifier “ops” have not confirmed a drill in time";
    step(&service, 50 + 72).await;
    for to in [A, B] {
        assert_eq!(subjects(&sim, to), [late, both], "{to}");
    }
    // Without drills, the alert ends.
    let service = service.restart(&sim.config(), at(130)).await;
    step(&service, 131).await;
    assert_eq!(subjects(&sim, A).last().unwrap(), "RESOLVED: notifier “ops” no longer has drills");
    step(&service, 24 * 40).await;
    assert_eq!(subjects(&sim, A).len(), 3, "drills are off");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_link_of_the_latest_drill_confirms() {
    let sim = sim().await;
    let service = Service::start(&format!("{}{DRILL}{PAGE}", sim.config())).await;
    step(&service, 0).await;
    step(&service, 23).await;
    let first = token(&sim, A);
    let of_b = token(&sim, B);
    // The next drill arrives only at b.
    sim.mailbox.refuse(A, Some(451));
    let march = 23 + 28 * 24;
    step(&service, march).await;
    let refused = confirm(&service, &first, march + 1).await.unwrap_err();
    assert!(matches!(refused, LinkError::NewerDrill(_)), "{refused}");
    assert!(refused.to_string().contains("If it has not arrived"), "{refused}");
    assert_eq!(drilled(&service, A).await.confirmed_at, None);
    let newest = token(&sim, B);
    assert_ne!(newest, of_b);
    for forged in [&first[1..], &newest[..newest.len() - 1], "", "drill"] {
        let refused = confirm(&service, forged, march + 1).await.unwrap_err();
        assert!(matches!(refused, LinkError::Unknown), "{forged}: {refused}");
    }
    // Long after the message was deleted, the latest drill can still be confirmed.
    service.store.prune(at(march) + days(60)).await.unwrap();
    confirm(&service, &newest, march + 61 * 24).await.unwrap();
    assert!(drilled(&service, B).await.unconfirmed.is_none());
    assert!(drilled(&service, A).await.unconfirmed.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_of_a_drill_is_closed_on_confirmation_or_in_time() {
    let sim = sim().await;
    let hook = sim.hook;
    let text = format!(
        "{}[notifiers.webhook.oncall]\nurl = \"http://{hook}/hook\"\nformat = \"pagerduty\"\nkey = \"r-simulated\"\n\
         {DRILL}notifiers = [\"oncall\"]\n",
        super::support::organization(sim.api_address)
    );
    let service = Service::start(&text).await;
    let actions = || -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of = |body: &Value| (text(&body["event_action"]), text(&body["payload"]["severity"]));
        bodies(&sim).iter().map(of).collect()
    };
    let (opened, closed) = (
        ("trigger".to_owned(), "critical".to_owned()),
        ("resolve".to_owned(), "critical".to_owned()),
    );
    step(&service, 0).await;
    step(&service, 23).await;
    assert_eq!(actions(), std::slice::from_ref(&opened));
    let details = bodies(&sim)[0]["payload"]["custom_details"].clone();
    let command = details["confirm"].as_str().unwrap();
    let token = command.strip_prefix("certvigil drill confirm ").unwrap();
    confirm(&service, token, 24).await.unwrap();
    step(&service, 25).await;
    step(&service, 26).await;
    assert_eq!(actions(), [opened.clone(), closed.clone()]);
    // The next one is not confirmed. The alert about it reaches the same service: nobody else can.
    let march = 23 + 28 * 24;
    step(&service, march).await;
    step(&service, march + 71).await;
    assert_eq!(actions().len(), 3);
    step(&service, march + 72).await;
    let last = &actions()[3..];
    assert_eq!(last.len(), 2, "{last:?}");
    assert!(last.contains(&closed), "{last:?}");
    assert!(last.contains(&("trigger".to_owned(), "warning".to_owned())), "{last:?}");
    let keys: Vec<Value> = bodies(&sim).iter().map(|body| body["dedup_key"].clone()).collect();
    assert_eq!(keys[0], keys[1], "the drill’s own incident is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_is_started_and_confirmed_from_the_page_and_the_command_line() {
    let sim = sim().await;
    let text = format!("{}{DRILL}{PAGE}", sim.config());
    let mut daemon = Daemon::start(&text);
    daemon.ready(200).await;
    let folder = daemon.folder.path().to_owned();
    let command = |arguments: &[&str]| run(with(&folder, &text, arguments));
    let (code, out, _) = command(&["drill", "status"]).await;
    assert_eq!((code, out.starts_with("No drills yet.\nNext drill: ")), (0, true), "{out}");
    let (_, out, _) = command(&["config", "check"]).await;
    assert!(out.contains("hint: nobody confirmed a drill in the last 90 days"), "{out}");
    let (code, _, error) = command(&["drill", "start"]).await;
    assert_eq!(code, 0, "{error}");
    until("both mails", || (subjects(&sim, B).len() + subjects(&sim, A).len() == 2).then_some(()))
        .await;
    let (of_a, of_b) = (token(&sim, A), token(&sim, B));
    // GET changes nothing.
    let path = format!("/link/{of_a}");
    let page = daemon.text(&path).await;
    assert!(page.contains("I read it") && page.contains(A), "{page}");
    let metric = |text: &str, to: &str| -> i64 {
        let start =
            "certvigil_receiver_last_confirmed_timestamp_seconds{notifier=\"ops\",receiver=";
        let line = text.lines().find(|line| line.starts_with(&format!("{start}\"{to}\"}}")));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    let metrics = daemon.text("/metrics").await;
    assert_eq!((metric(&metrics, A), metric(&metrics, B)), (0, 0));
    let post = daemon.request(Method::POST, &path);
    let post = post.header("content-type", "application/x-www-form-urlencoded");
    let posted = post.send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::SEE_OTHER, "{posted:?}");
    let page = daemon.text(&path).await;
    assert!(page.contains("Drill confirmed") && !page.contains("I read it"), "{page}");
    let metrics = daemon.text("/metrics").await;
    assert!(metric(&metrics, A) > 0 && metric(&metrics, B) == 0, "{metrics}");
    let overview = daemon.text("/").await;
    assert!(overview.contains("drill confirmed by 1 of 2"), "{overview}");
    // The whole link works, too.
    let link = format!("https://certvigil.acme.example/link/{of_b}");
    let (code, out, error) = command(&["drill", "confirm", &link]).await;
    assert_eq!((code, out.as_str()), (0, "confirmed: messages reach b@acme.example\n"), "{error}");
    let (code, _, error) = command(&["drill", "confirm", "nonsense"]).await;
    assert_eq!((code, error.contains("unknown here")), (1, true), "{error}");
    let (_, out, _) = command(&["drill", "status", "--output", "json"]).await;
    let status: Value = serde_json::from_str(&out).unwrap();
    let states: Vec<&Value> =
        status["receivers"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["confirmed", "confirmed"], "{out}");
    daemon.stop().await;
}

#[tokio::test]
async fn wrong_settings_of_drills_are_explained() {
    let sim = sim().await;
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("cron = \"0 9 * * *\"\nconfirm_within = \"3d\"", "drills at least 3d apart"),
        ("cron = \"0 9 1 * *\"\nconfirm_within = \"30m\"", "a duration from 1h to 30d"),
        ("cron = \"0 9 1 * *\"\nnotifiers = [\"mail\"]", "a configured notifier: ops, hook"),
        ("cron = \"0 9 1 * *\"\nnotifiers = []", "at least one name"),
        ("cron = \"9\"", "a cron expression"),
    ];
    for (written, expected) in cases {
        let text = format!("{}[drill]\n{written}\n", sim.config());
        let (code, _, error) = run(with(folder.path(), &text, &["config", "check"])).await;
        assert_eq!((code, error.contains(expected)), (2, true), "{written}: {error}");
    }
    let text = format!("{}{DRILL}", sim.config());
    let (code, out, error) = run(with(folder.path(), &text, &["config", "check"])).await;
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("through ops\n") && !out.contains("hint"), "there is no database: {out}");
    let (_, out, _) = run(with(folder.path(), &sim.config(), &["config", "check"])).await;
    assert!(out.contains("drills: off; nothing shows"), "{out}");
}
