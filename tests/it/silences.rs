//! Silences: ignore rules, acknowledgements and filters, and how they are shown.

use certvigil::{
    clock::Clock,
    demo::world::World,
    domain::{
        acknowledgement::{Acknowledgement, Ending},
        certificate::{CertificateId, OrganizationName},
        subject::Subject,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

use super::support::{Service, Sim, days, fits_schema, organization, run, start, webhook, with};

/// One certificate that is active in three projects of two teams.
fn world(end: DateTime<Utc>) -> World {
    let mut world =
        World::with_projects(3, |n| if n == 1 { "lab-1".into() } else { format!("prod-{n}") });
    world.add("cert_a", Some("prod-ca"), Some(end), 1..=3);
    // A list that loses all its items at once is not believed at first.
    let spare = world.add("cert_spare", Some("spare"), Some(start() + days(4_000)), 1..=3);
    spare.projects.values_mut().for_each(|active| *active = false);
    world
}

/// A simulated world, and its configuration with a webhook.
async fn sim(end: DateTime<Utc>) -> (Sim, String) {
    let sim = Sim::start(world(end)).await;
    let text = format!("{}{}", organization(sim.api_address), webhook(sim.hook));
    (sim, text)
}

/// The received bodies, each valid under the published schema.
fn bodies(sim: &Sim) -> Vec<Value> {
    let posts = sim.receiver.posts();
    let bodies = posts.iter().map(|post| serde_json::from_str(&post.body).unwrap());
    bodies.inspect(fits_schema).collect()
}

/// `event reason stage` of every alert that came, by message.
fn heard(sim: &Sim) -> Vec<String> {
    let words = |alert: &Value| {
        let word = |key: &str| alert[key].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", word("event"), word("reason"), word("stage"))
    };
    bodies(sim)
        .iter()
        .map(|body| {
            let alerts = body["alerts"].as_array().unwrap();
            alerts.iter().map(words).collect::<Vec<_>>().join("; ")
        })
        .collect()
}

async fn walk(service: &Service, days: impl Iterator<Item = i64>) {
    for day in days {
        let now = start() + TimeDelta::days(day);
        service.scan(now).await;
        service.deliver(now).await;
    }
}

#[tokio::test]
async fn what_is_ignored_is_reported_when_that_ends_with_the_reason_it_had() {
    let (sim, text) = sim(start() + days(20)).await;
    let until = (start() + days(10)).to_rfc3339();
    let rule = format!(
        "[[rules]]\ncertificates = [\"prod-*\"]\nignore = {{ reason = \"OPS-1\", until = \"{until}\" }}\n"
    );
    let service = Service::start(&format!("{text}{rule}")).await;
    walk(&service, 0..=11).await;
    assert_eq!(heard(&sim), ["certificate.expiring ignore_ended 14d"]);
    let ignored = &bodies(&sim)[0]["alerts"][0]["certificate"]["ignored"];
    assert_eq!(ignored["reason"], "OPS-1");
    assert_eq!(ignored["ended"], true);
}

#[tokio::test]
async fn an_ignore_for_some_projects_holds_only_where_all_of_them_match() {
    let (sim, text) = sim(start() + days(20)).await;
    let rule =
        "[[rules]]\nprojects = [\"prod-*\"]\nignore = { reason = \"x\", until = 2099-01-01 }\n";
    let service = Service::start(&format!("{text}{rule}")).await;
    walk(&service, 0..1).await;
    assert_eq!(heard(&sim), ["certificate.expiring opened 30d"], "it is active in lab-1, too");
    sim.api.world().certificate("cert_a").unwrap().projects.insert("proj_0001".into(), false);
    walk(&service, 1..3).await;
    assert_eq!(
        heard(&sim)[1..],
        ["project.unprotected opened unprotected; certificate.resolved ignored 30d"]
    );
}

#[tokio::test]
async fn a_ladder_of_a_rule_replaces_the_global_one_with_shares_of_a_life() {
    let (sim, text) = sim(start() + days(100)).await;
    {
        let mut world = sim.api.world();
        let certificate = world.certificate("cert_a").unwrap();
        certificate.valid_at = Some(start() - days(100));
    }
    let rule = "[[rules]]\nprojects = [\"lab-*\"]\nthresholds = [{ within = \"25%\", severity = \"info\" }, \
                { within = \"10%\", severity = \"warning\" }]\nexpired = { severity = \"warning\" }\n";
    let service = Service::start(&format!("{text}{rule}")).await;
    walk(&service, (0..=101).step_by(5)).await;
    let certificates = |heard: Vec<String>| {
        let mut certificates = heard;
        certificates.retain(|words| !words.starts_with("project."));
        certificates
    };
    assert_eq!(
        certificates(heard(&sim)),
        ["certificate.expiring opened 25%", "certificate.expiring stage 10%"],
        "50 and 20 days before the end of a life of 200"
    );
    assert!(heard(&sim).last().unwrap().contains("project.uncovered"), "at the end all three are");
}

fn acknowledgement(until: DateTime<Utc>, expires_at: DateTime<Utc>) -> Acknowledgement {
    Acknowledgement {
        id: Uuid::new_v5(&Uuid::NAMESPACE_OID, b"one"),
        subject: Subject::Certificate(CertificateId::parse("cert_a").unwrap()),
        reason: "new CA is on its way".into(),
        by: Some("dana".into()),
        created_at: start(),
        until,
        expires_at: Some(expires_at),
        ended: None,
    }
}

#[tokio::test]
async fn an_acknowledgement_mutes_all_but_the_last_and_is_shown_in_its_alert() {
    let end = start() + days(20);
    let (sim, text) = sim(end).await;
    let acme = OrganizationName::parse("acme").unwrap();
    let service = Service::start(&text).await;
    walk(&service, 0..1).await;
    service.store.acknowledge(&acme, &acknowledgement(start() + days(25), end)).await.unwrap();
    walk(&service, 1..=19).await;
    assert_eq!(
        heard(&sim),
        ["certificate.expiring opened 30d", "certificate.expiring stage 1d"],
        "14d and 7d were muted"
    );
    let shown = &bodies(&sim)[1]["alerts"][0]["certificate"]["acknowledged"];
    assert_eq!(shown["reason"], "new CA is on its way");
    assert_eq!(shown["by"], "dana");
    assert_eq!(shown["ended"], false);
}

#[tokio::test]
async fn an_acknowledgement_ends_with_what_it_was_about() {
    let end = start() + days(20);
    let (sim, text) = sim(end).await;
    let acme = OrganizationName::parse("acme").unwrap();
    let service = Service::start(&text).await;
    walk(&service, 0..1).await;
    service.store.acknowledge(&acme, &acknowledgement(start() + days(25), end)).await.unwrap();
    sim.api.world().certificate("cert_a").unwrap().expires_at = Some(start() + days(25));
    walk(&service, 1..2).await;
    let kept = service.store.acknowledgements(&acme).await.unwrap();
    let (_, ending) = kept.iter().next().unwrap().ended.unwrap();
    assert_eq!(ending, Ending::Over);
    walk(&service, 2..=12).await;
    assert_eq!(
        heard(&sim),
        [
            "certificate.expiring opened 30d",
            "certificate.expiring stage 30d",
            "certificate.expiring stage 14d"
        ],
        "the acknowledgement was for another expiry"
    );
}

#[tokio::test]
async fn a_notifier_gets_the_projects_that_it_selects_and_the_number_of_others() {
    let (sim, text) = sim(start() + days(20)).await;
    let text = text
        .replace("[notifiers.webhook.hook]", "[notifiers.webhook.hook]\nprojects = [\"lab-*\"]");
    let service = Service::start(&text).await;
    walk(&service, 0..1).await;
    let body = bodies(&sim).remove(0);
    let active_in = &body["alerts"][0]["certificate"]["active_in"];
    assert_eq!(active_in["projects_total"], 3);
    assert_eq!(active_in["projects_elsewhere"], 2);
    assert_eq!(active_in["projects"].as_array().unwrap().len(), 1);
    assert!(!body.to_string().contains("prod-2"), "{body}");

    walk(&service, 20..21).await;
    let body = bodies(&sim).remove(1);
    assert_eq!(body["alerts"][0]["event"], "project.uncovered");
    assert_eq!(body["alerts"][0]["projects_total"], 1);
    assert_eq!(body["alerts"][0]["projects_elsewhere"], 2);
    assert!(!body.to_string().contains("prod-2"), "{body}");

    // It stays active in the projects of other teams.
    sim.api.world().certificate("cert_a").unwrap().projects.remove("proj_0001");
    walk(&service, 21..22).await;
    assert_eq!(
        heard(&sim)[2],
        "project.unprotected opened unprotected; certificate.resolved deactivated expired"
    );
}

#[tokio::test]
async fn the_alerts_of_a_notifier_do_not_depend_on_other_notifiers() {
    let both = sim(start() + days(20)).await;
    let alone = sim(start() + days(20)).await;
    let other = format!(
        "[notifiers.webhook.b]\nurl = \"http://{}/hook\"\nmin_severity = \"critical\"\n",
        both.0.hook
    );
    for (text, sim) in [(format!("{}{other}", both.1), &both.0), (alone.1.clone(), &alone.0)] {
        let service = Service::start(&text).await;
        walk(&service, (0..=22).filter(|day| day % 3 != 1)).await;
        drop((service, sim));
    }
    let of_hook = |sim: &Sim| {
        let mut bodies = bodies(sim);
        bodies.retain(|body| body["notifier"] == "hook");
        bodies.iter().map(|body| body["alerts"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of_hook(&both.0), of_hook(&alone.0));
}

#[tokio::test]
async fn an_expiry_in_milliseconds_is_unknown_and_reported_as_that() {
    let (sim, text) = sim(start() + days(20)).await;
    let milliseconds = (start() + days(20)).timestamp_millis();
    let seconds = DateTime::from_timestamp(milliseconds, 0).unwrap();
    sim.api.world().certificate("cert_a").unwrap().expires_at = Some(seconds);
    let service = Service::start(&text).await;
    walk(&service, 0..1).await;
    let alert = &bodies(&sim)[0]["alerts"][0];
    assert_eq!(alert["event"], "certificate.unknown_expiry");
    assert_eq!(alert["certificate"]["expires_at"], Value::Null);
    assert_eq!(alert["certificate"]["expires_at_reported"], milliseconds);
}

/// Runs the binary in a folder with a state, by the words of its arguments.
async fn cli(folder: &TempDir, text: &str, arguments: &[&str]) -> (i32, String, String) {
    run(with(folder.path(), text, arguments)).await
}

#[tokio::test]
async fn ack_acks_and_unack_from_the_command_line() {
    let now = Clock::System.now();
    let (sim, text) = sim(now + days(20)).await;
    let text = format!("{text}[state]\nurl = \"sqlite:state.db\"\n");
    sim.api.world().add("cert_b", Some("twin"), Some(now + days(300)), [1]);
    sim.api.world().add("cert_c", Some("twin"), Some(now + days(300)), [1]);
    let folder = tempfile::tempdir().unwrap();
    let until = (now + days(10)).format("%Y-%m-%d").to_string();
    let ack = |certificate: &'static str| {
        vec!["ack", certificate, "--until", &until, "--reason", "new CA,\nOPS-9", "--by", "dana"]
    };

    let (code, _, said) = cli(&folder, &text, &ack("prod-ca")).await;
    assert_eq!(code, 1);
    assert!(said.contains("no database at state.db"), "{said}");

    assert_eq!(cli(&folder, &text, &["check", "--notify"]).await.0, 1);
    assert_eq!(heard(&sim), ["certificate.expiring opened 30d"]);

    let (code, out, said) = cli(&folder, &text, &ack("prod-ca")).await;
    assert_eq!(code, 0, "{said}");
    let day = format!("acme: “prod-ca” (cert_a) is acknowledged until the end of {until} (");
    assert!(out.contains(&day), "{out}");
    let durations =
        ["ack", "cert_a", "--until", "10d", "--reason", "new CA, OPS-9", "--by", "dana"];
    let (code, out, said) = cli(&folder, &text, &durations).await;
    assert_eq!(code, 0, "{said}");
    assert!(out.contains(&day), "{out}");
    assert!(said.contains("database: state.db"), "which state it was: {said}");

    let refusals: [(Vec<&str>, i32, &str); 6] = [
        (ack("nobody"), 1, "no certificate “nobody”"),
        (
            ack("twin"),
            1,
            "“twin” matches more than one certificate: cert_b of acme, cert_c of acme",
        ),
        (
            vec!["ack", "cert_a", "--until", "soon", "--reason", "x"],
            2,
            "--until: found “soon”, expected",
        ),
        (vec!["ack", "cert_a", "--until", "2020-01-01", "--reason", "x"], 2, "has passed"),
        (
            vec!["ack", "cert_a", "--until", &until, "--reason", " \n "],
            2,
            "--reason: found an empty",
        ),
        (vec!["ack", "cert_a", "--reason", "x"], 2, "--until"),
    ];
    for (arguments, expected, words) in refusals {
        let (code, _, said) = cli(&folder, &text, &arguments).await;
        assert_eq!(code, expected, "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }

    let (code, out, _) = cli(&folder, &text, &["acks", "--output", "json"]).await;
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    assert_eq!(listed["schema"], "certvigil.acknowledgements/1");
    let one = &listed["acknowledgements"][0];
    assert_eq!(one["certificate"]["id"], "cert_a");
    assert_eq!(one["reason"], "new CA, OPS-9", "in one line");
    assert_eq!(one["by"], "dana");
    assert_eq!(one["ended_at"], Value::Null);

    let (code, out, _) = cli(&folder, &text, &["check"]).await;
    assert_eq!(code, 1, "the truth is not muted");
    assert!(out.contains("acknowledged by dana, until"), "{out}");
    let (_, out, _) = cli(&folder, &text, &["explain", "cert_a"]).await;
    assert!(out.contains("acknowledged by dana, until"), "{out}");
    assert!(out.contains("no alert: the certificate is acknowledged"), "{out}");

    assert_eq!(cli(&folder, &text, &["check", "--notify"]).await.0, 1);
    assert_eq!(heard(&sim).len(), 1);
    let (code, _, said) = cli(&folder, &text, &["unack", "prod-ca"]).await;
    assert_eq!(code, 0, "{said}");
    let (code, _, said) = cli(&folder, &text, &["unack", "prod-ca"]).await;
    assert_eq!(code, 1);
    assert!(said.contains("“prod-ca” (cert_a) is not acknowledged"), "{said}");
    assert_eq!(cli(&folder, &text, &["check", "--notify"]).await.0, 1);
    assert_eq!(heard(&sim)[1..], ["certificate.expiring ack_ended 30d"], "its end is shown");
    assert_eq!(cli(&folder, &text, &["acks"]).await.1, "No acknowledgements.\n");
    let (_, out, _) = cli(&folder, &text, &["acks", "--all"]).await;
    assert!(out.contains("withdrawn"), "{out}");
}

#[tokio::test]
async fn a_ladder_with_a_single_step_cannot_be_acknowledged() {
    let now = Clock::System.now();
    let (_sim, text) = sim(now + days(5)).await;
    let ladder = "[[thresholds]]\nwithin = \"30d\"\nseverity = \"warning\"\n";
    let text = format!("{text}{ladder}[state]\nurl = \"sqlite:state.db\"\n");
    let folder = tempfile::tempdir().unwrap();
    cli(&folder, &text, &["check", "--notify"]).await;
    let until = (now + days(2)).to_rfc3339();
    let arguments = ["ack", "cert_a", "--until", &until, "--reason", "x"];
    let (code, _, said) = cli(&folder, &text, &arguments).await;
    assert_eq!(code, 1);
    assert!(said.contains("its only threshold is 30d"), "{said}");
}

#[tokio::test]
async fn check_shows_what_is_ignored_and_does_not_count_it() {
    let now = Clock::System.now();
    let (_sim, text) = sim(now - days(5)).await;
    let rule = "[[rules]]\ncertificates = [\"cert_a\"]\n\
                ignore = { reason = \"being retired | OPS-1\", until = 2099-01-01 }\n";
    let text = format!("{text}{rule}");
    let folder = tempfile::tempdir().unwrap();
    let (code, out, _) = cli(&folder, &text, &["check"]).await;
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("ignored until 2099-01-02 00:00 UTC: being retired | OPS-1"), "{out}");
    assert!(!out.contains("Without a valid certificate"), "{out}");
    let (_, out, _) = cli(&folder, &text, &["check", "--output", "json"]).await;
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["certificates"][0]["status"], "expired", "the truth is shown");
    assert_eq!(document["certificates"][0]["severity"], Value::Null);
    assert_eq!(document["certificates"][0]["ignored"]["reason"], "being retired | OPS-1");
    assert_eq!(document["uncovered_projects"], Value::Array(vec![]));
    let (_, out, _) = cli(&folder, &text, &["check", "--output", "csv"]).await;
    assert!(out.contains("ignored until"), "{out}");
}

#[tokio::test]
async fn check_shows_projects_without_a_valid_certificate_in_four_outputs() {
    let now = Clock::System.now();
    let (_sim, text) = sim(now - days(5)).await;
    let calm =
        "[[thresholds]]\nwithin = \"1d\"\nseverity = \"info\"\n[expired]\nseverity = \"info\"\n";
    let text = format!("{text}{calm}");
    let folder = tempfile::tempdir().unwrap();
    let (code, out, _) = cli(&folder, &text, &["check"]).await;
    assert_eq!(code, 2, "it is critical whatever the ladder says");
    assert!(
        out.contains("Projects without a valid certificate") && out.contains("lab-1 (proj_0001)"),
        "{out}"
    );
    let (_, out, _) = cli(&folder, &text, &["check", "--output", "json"]).await;
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["uncovered_projects"].as_array().unwrap().len(), 3);
    let (_, out, _) = cli(&folder, &text, &["check", "--output", "nagios"]).await;
    let first = out.lines().next().unwrap();
    assert!(
        first.contains("3 projects without a valid certificate")
            && first.ends_with("uncovered=3;;0 unprotected=0"),
        "{out}"
    );
    let (_, _, said) = cli(&folder, &text, &["check", "--output", "csv"]).await;
    assert!(said.contains("lab-1 (proj_0001) has no valid certificate"), "{said}");
}
