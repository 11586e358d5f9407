//! Owners: each team gets its own alerts in one mail, and the fallback gets the rest.

use certvigil::{
    clock::Clock,
    demo::{mailbox::Mail, pages::parts, world::World},
};

use super::support::{Service, Sim, days, run, start, with};

/// Three projects with one certificate each, and one certificate that is active in all of them.
fn world() -> World {
    let names = ["pay-api", "search-api", "lab"];
    let mut world = World::with_projects(3, |n| names[n - 1].to_owned());
    world.add("cert_pay", Some("pay-ca"), Some(start() + days(20)), [1]);
    world.add("cert_search", Some("search-ca"), Some(start() + days(20)), [2]);
    world.add("cert_lab", Some("lab-ca"), Some(start() + days(20)), [3]);
    world.add("cert_shared", Some("shared-ca"), Some(start() + days(20)), [1, 2, 3]);
    world
}

const OWNERS: &str = r#"
    [[owners]]
    team = "payments"
    to = ["pay@acme.example", "both@acme.example"]
    projects = ["pay-*"]

    [[owners]]
    team = "search"
    to = ["search@acme.example", "both@acme.example"]
    projects = ["search-*"]
"#;

/// A configuration with one notifier for the owners.
fn config(sim: &Sim, owners: &str) -> String {
    let text = sim.config();
    let to = "to = [\"a@acme.example\", \"b@acme.example\"]";
    assert!(text.contains(to), "{text}");
    let text = text.replace(to, "to = [\"owner\"]\nfallback = [\"ops@acme.example\"]");
    format!("{text}\n{owners}\n")
}

/// The mails since the last call: recipient, and the names of the certificates in the text.
async fn step(service: &Service, sim: &Sim, day: i64) -> Vec<String> {
    let before = sim.mailbox.mails().len();
    let now = start() + days(day);
    assert!(service.scan(now).await.record.complete);
    service.deliver(now).await;
    let mut lines: Vec<String> = sim.mailbox.mails()[before..].iter().map(line).collect();
    lines.sort();
    lines
}

fn line(mail: &Mail) -> String {
    let text = parts(&mail.data).unwrap().text;
    let names = ["pay-ca", "search-ca", "lab-ca", "shared-ca"];
    let named: Vec<&str> = names.into_iter().filter(|name| text.contains(name)).collect();
    format!("{}: {}", mail.to.join(" "), named.join(" "))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_owner_gets_its_own_alerts_in_one_mail_and_the_fallback_the_rest() {
    let sim = Sim::start(world()).await;
    let text = config(&sim, OWNERS);
    let service = Service::start(&text).await;
    let all = [
        "both@acme.example: pay-ca search-ca shared-ca",
        "ops@acme.example: lab-ca shared-ca",
        "pay@acme.example: pay-ca shared-ca",
        "search@acme.example: search-ca shared-ca",
    ];
    assert_eq!(step(&service, &sim, 0).await, all);
    let none: [&str; 0] = [];
    assert_eq!(step(&service, &sim, 1).await, none, "nothing is repeated");
    let service = service.restart(&text, start() + days(2)).await;
    assert_eq!(step(&service, &sim, 2).await, none, "a restart repeats nothing");
    // The project belongs to another team now.
    sim.api.world().projects[2].name = Some("pay-lab".to_owned());
    let changed = step(&service, &sim, 3).await;
    assert_eq!(
        changed,
        [
            "both@acme.example: lab-ca",
            "ops@acme.example: lab-ca shared-ca",
            "pay@acme.example: lab-ca",
        ],
        "the new owner gets the open alert, and the previous one its resolution"
    );
}

/// The new subjects of the mails to a recipient.
fn subjects(sim: &Sim, to: &str) -> Vec<String> {
    let mails = sim.mailbox.mails();
    let of = mails.iter().filter(|mail| mail.to == [to]);
    of.map(|mail| parts(&mail.data).unwrap().subject).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_moves_between_teams_during_an_outage_misses_nothing() {
    let sim = Sim::start(world()).await;
    let before = config(&sim, OWNERS);
    let with_new = |team: &str| {
        let address = format!("\"{team}@acme.example\"");
        config(&sim, &OWNERS.replace(&address, &format!("{address}, \"new@acme.example\"")))
    };
    let service = Service::start(&before).await;
    step(&service, &sim, 0).await;
    // The new member’s mails wait.
    sim.mailbox.refuse("new@acme.example", Some(450));
    let service = service.restart(&with_new("pay"), start() + days(1)).await;
    assert_eq!(step(&service, &sim, 1).await, Vec::<String>::new());
    let service = service.restart(&with_new("search"), start() + days(2)).await;
    step(&service, &sim, 2).await;
    // Meanwhile, the first team gets another alert.
    sim.api.world().add("cert_new", Some("new-ca"), Some(start() + days(20)), [1]);
    let mails = step(&service, &sim, 3).await;
    assert!(mails.iter().any(|line| line.starts_with("pay@acme.example")), "{mails:?}");
    let service = service.restart(&with_new("pay"), start() + days(4)).await;
    sim.mailbox.refuse("new@acme.example", None);
    step(&service, &sim, 4).await;
    service.deliver(start() + days(5)).await;
    let mails = sim.mailbox.mails();
    let its = mails.iter().filter(|mail| mail.to == ["new@acme.example"]);
    let texts: Vec<String> = its.map(|mail| parts(&mail.data).unwrap().text).collect();
    let has = |name: &str| texts.iter().any(|text| text.contains(name));
    assert!(has("pay-ca") && has("new-ca") && has("shared-ca"), "{texts:#?}");
    assert_eq!(texts.len(), 1, "only the alerts of its present team: {texts:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_mails_of_a_former_team_are_cancelled() {
    let sim = Sim::start(world()).await;
    sim.mailbox.refuse("pay@acme.example", Some(450));
    let service = Service::start(&config(&sim, OWNERS)).await;
    step(&service, &sim, 0).await;
    let moved = OWNERS.replace("\"pay@acme.example\", ", "");
    let moved = moved.replace("\"search@", "\"pay@acme.example\", \"search@");
    let service = service.restart(&config(&sim, &moved), start() + days(1)).await;
    sim.mailbox.refuse("pay@acme.example", None);
    let mails = step(&service, &sim, 1).await;
    assert_eq!(mails, ["pay@acme.example: search-ca shared-ca"]);
    let mail = String::from_utf8(sim.mailbox.mails().pop().unwrap().data).unwrap();
    assert!(mail.contains("\nTo: pay@acme.example, search@acme.example\r\n"), "{mail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fallback_gets_a_mail_if_the_address_of_an_owner_is_rejected() {
    let sim = Sim::start(world()).await;
    let service = Service::start(&config(&sim, OWNERS)).await;
    sim.mailbox.refuse("search@acme.example", Some(550));
    step(&service, &sim, 0).await;
    let now = start() + chrono::TimeDelta::minutes(2);
    service.check(start(), now).await;
    service.deliver(now).await;
    let last = |to| subjects(&sim, to).pop().unwrap();
    let failing = "[certvigil] WARNING: a receiver rejected a message of notifier “ops”";
    assert_eq!(last("ops@acme.example"), failing);
    assert_ne!(last("pay@acme.example"), failing, "owners are not responsible for notifiers");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_show_who_gets_what() {
    let now = Clock::System.now();
    let names = ["pay-api", "search-api"];
    let mut world = World::with_projects(2, |n| names[n - 1].to_owned());
    world.add("cert_pay", Some("pay-ca"), Some(now + days(20)), [1]);
    let sim = Sim::start(world).await;
    let text = config(&sim, OWNERS);
    let folder = tempfile::tempdir().unwrap();
    let command = async |arguments: &[&str]| {
        let (code, out, err) = run(with(folder.path(), &text, arguments)).await;
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        out
    };
    let out = command(&["config", "check"]).await;
    for line in [
        "notifier ops: email to the owners by 127.0.0.1:",
        "  no owner: ops@acme.example\n",
        "  payments, search: both@acme.example\n",
        "  payments: pay@acme.example\n",
        "  search: search@acme.example\n",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    let (_, out, err) = run(with(folder.path(), &text, &["check", "--notify"])).await;
    assert_eq!(sim.mailbox.mails().len(), 2, "{out}{err}");
    let out = command(&["explain", "pay-ca"]).await;
    for lines in [
        "  owner        payments\n",
        "  ops (payments): alerted; last alert: ",
        "    to pay@acme.example\n",
        "  ops (payments, search): alerted; last alert: ",
        "    to both@acme.example\n",
    ] {
        assert!(out.contains(lines), "{lines}: {out}");
    }
    assert!(!out.contains("ops (no owner)") && !out.contains("ops (search)"), "{out}");
    let out = command(&["explain", "pay-ca", "--output", "json"]).await;
    let explained: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(explained["certificate"]["owners"], serde_json::json!(["payments"]));
    let owners: Vec<_> = explained["notifiers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), one["owners"].to_string()))
        .collect();
    let both = r#"["payments","search"]"#.to_owned();
    let expected =
        [("ops", r#"["payments"]"#.to_owned()), ("ops", both), ("hook", "null".to_owned())];
    assert_eq!(owners, expected);
    let out = command(&["forecast", "--output", "json", "--from-state"]).await;
    let forecast: serde_json::Value = serde_json::from_str(&out).unwrap();
    let of_ops = forecast["messages"].as_array().unwrap().iter();
    let of_ops = of_ops.filter(|message| message["notifier"] == "ops");
    let owners: std::collections::BTreeSet<String> =
        of_ops.map(|message| message["owners"].to_string()).collect();
    assert!(owners.contains(r#"["payments"]"#) && !owners.contains(r#"["search"]"#), "{owners:?}");
    let out = command(&["notify", "preview", "ops"]).await;
    assert!(out.contains("To: pay@acme.example\n"), "{out}");
    assert!(out.contains("To: both@acme.example\n"), "{out}");
    assert!(out.contains("it sends you those that concern the team payments"), "{out}");
}
