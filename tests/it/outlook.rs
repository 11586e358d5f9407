//! `forecast` and `explain`, as an operator and as a script sees them.

use certvigil::{clock::Clock, demo::world::World};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tempfile::TempDir;

use super::support::{Sim, days, organization, run, webhook, with};

/// One that will expire, one that takes over in a project of two, and a folder with the
/// configuration.
async fn sim(now: DateTime<Utc>) -> (Sim, String, TempDir) {
    let mut world = World::with_projects(2, |n| format!("prod-{n}"));
    let end = now + days(20) + TimeDelta::hours(1);
    world.add("cert_a", Some("prod-ca"), Some(end), 1..=2).created_at = now - days(80);
    world.add("cert_b", Some("next-ca"), Some(now + days(500)), [1]);
    world.add("cert_c", Some("silent-ca"), Some(now + days(5)), [1]);
    let sim = Sim::start(world).await;
    let text = format!(
        "timezone = \"Europe/Berlin\"\n{}{}[notifiers.webhook.pager]\nurl = \"http://{}/hook\"\nmin_severity = \"critical\"\n\
         [[rules]]\ncertificates = [\"silent-*\"]\nignore = {{ reason = \"OPS-1\", until = 2099-01-01 }}\n\
         [[rules]]\ncertificates = [\"prod-*\"]\nthresholds = [\n\
         {{ within = \"25%\", severity = \"info\" }},\n{{ within = \"14d\", severity = \"warning\" }},\n\
         {{ within = \"7d\", severity = \"critical\" }}]\n\
         [state]\nurl = \"sqlite:state.db\"\n",
        organization(sim.api_address),
        webhook(sim.hook),
        sim.hook
    );
    (sim, text, tempfile::tempdir().unwrap())
}

async fn json(folder: &TempDir, text: &str, arguments: &[&str]) -> Value {
    let (code, out, said) = run(with(folder.path(), text, arguments)).await;
    assert_eq!(code, 0, "{said}");
    serde_json::from_str(&out).unwrap()
}

/// `notifier event reason stage` of each message, without the repeats.
fn news(document: &Value) -> Vec<String> {
    let mut news = Vec::new();
    for message in document["messages"].as_array().unwrap() {
        for alert in message["alerts"].as_array().unwrap() {
            let word = |key: &str| alert[key].as_str().unwrap();
            if alert["reason"] != "repeat" {
                let notifier = message["notifier"].as_str().unwrap();
                news.push(format!(
                    "{notifier} {} {} {}",
                    word("event"),
                    word("reason"),
                    word("stage")
                ));
            }
        }
    }
    news
}

#[tokio::test]
async fn a_forecast_shows_each_notifiers_alerts_from_the_api_and_from_the_state() {
    let (sim, text, folder) = sim(Clock::System.now()).await;
    let asked = ["forecast", "--days", "30", "--output", "json"];
    let live = json(&folder, &text, &asked).await;
    assert_eq!(live["schema"], "certvigil.forecast/1");
    let coming = [
        "hook certificate.expiring stage 14d",
        "hook certificate.expiring stage 7d",
        "pager certificate.expiring opened 7d",
        "hook certificate.expired stage expired",
        "pager certificate.expired stage expired",
    ];
    let sorted = |mut words: Vec<String>| {
        words.sort();
        words
    };
    let and = |first: &[&str]| {
        let uncovered =
            ["hook project.uncovered opened uncovered", "pager project.uncovered opened uncovered"];
        let all = first.iter().chain(&coming).chain(&uncovered);
        sorted(all.map(ToString::to_string).collect())
    };
    assert_eq!(sorted(news(&live)), and(&["hook certificate.expiring opened 25%"]));
    assert!(!folder.path().join("state.db").exists(), "it keeps nothing");
    assert_eq!(sim.receiver.posts().len(), 0, "and sends nothing");
    assert!(live["notes"][0].as_str().unwrap().contains("“silent-ca” (cert_c) is ignored until"));

    assert_eq!(run(with(folder.path(), &text, &["check", "--notify"])).await.0, 0);
    sim.api.take_requests();
    let kept = json(&folder, &text, &[&asked[..], &["--from-state"]].concat()).await;
    assert_eq!(sorted(news(&kept)), and(&[]), "a sent alert is not repeated");
    assert_eq!(sim.api.take_requests(), [""; 0], "nobody is asked");
    let live = json(&folder, &text, &asked).await;
    assert_eq!(sorted(news(&live)), and(&[]), "nor where the API is asked");
    for (this, next) in kept["messages"]
        .as_array()
        .unwrap()
        .iter()
        .zip(kept["messages"].as_array().unwrap().iter().skip(1))
    {
        assert!(this["at"].as_str() <= next["at"].as_str());
    }
}

#[tokio::test]
async fn a_forecast_is_a_table_and_a_calendar_too() {
    let now = Clock::System.now();
    let (_sim, text, folder) = sim(now).await;
    let (code, out, said) = run(with(folder.path(), &text, &["forecast", "--days", "60"])).await;
    assert_eq!(code, 0, "{said}");
    let expired =
        out.lines().find(|line| line.contains("hook") && line.contains("expired, stage")).unwrap();
    assert!(expired.contains("then") && expired.contains("repeats until"), "{expired}");
    assert!(out.contains("messages until"), "{out}");
    assert!(said.contains("no database: assuming that no alert was sent yet"), "{said}");

    let (code, _, said) = run(with(folder.path(), &text, &["forecast", "--from-state"])).await;
    assert_eq!(code, 1);
    assert!(said.contains("no database at"), "{said}");
    let yearly = format!("schedule = {{ cron = \"0 0 1 1 *\", run_on_start = false }}\n{text}");
    let (code, out, _) = run(with(folder.path(), &yearly, &["forecast", "--days", "1"])).await;
    let new_year = (now + days(1)).format("%m-%d").to_string() == "01-01";
    assert!(code == 0 && (new_year || out.starts_with("no alerts until")), "{out}");
    let (code, _, said) = run(with(folder.path(), &text, &["forecast", "--days", "0"])).await;
    assert_eq!(code, 2, "{said}");

    assert_eq!(run(with(folder.path(), &text, &["check", "--notify"])).await.0, 0);
    let calendar = ["forecast", "--from-state", "--output", "ics"];
    let (code, out, _) = run(with(folder.path(), &text, &calendar)).await;
    assert_eq!(code, 0);
    assert!(out.starts_with("BEGIN:VCALENDAR\r\n") && out.ends_with("END:VCALENDAR\r\n"), "{out}");
    assert_eq!(
        out.matches("BEGIN:VEVENT").count(),
        5,
        "one for each message that is no repeat: {out}"
    );
    let uids: std::collections::BTreeSet<&str> =
        out.lines().filter(|line| line.starts_with("UID:")).collect();
    assert_eq!(uids.len(), 5, "each its own");
    let (_, again, _) = run(with(folder.path(), &text, &calendar)).await;
    assert!(uids.iter().all(|uid| again.contains(uid)), "and the same tomorrow");
}

#[tokio::test]
async fn explain_shows_everything_that_the_decision_rests_on() {
    let (_sim, text, folder) = sim(Clock::System.now()).await;
    assert_eq!(run(with(folder.path(), &text, &["check", "--notify"])).await.0, 0);
    let (code, out, said) = run(with(folder.path(), &text, &["explain", "prod-ca"])).await;
    assert_eq!(code, 0, "{said}");
    for words in [
        "“prod-ca” (cert_a) in organization acme",
        "it expires in 20 days",
        "stage        25%, info",
        "prod-1 (proj_0001): cert_b takes over",
        "prod-2 (proj_0002): no valid certificate from",
        "Thresholds of rules[1], the first matching rule",
        "Lifetime: 100 days, counted from created_at because valid_at is missing.",
        "hook: alerted; last alert: 25% (info), ",
        "pager: no alert: the severity is below min_severity of the notifier; no open alert",
        "14d, warning (stage)",
        "certificate.expiring  25%  opened  1 delivered",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }

    let document = json(&folder, &text, &["explain", "cert_a", "--output", "json"]).await;
    assert_eq!(document["schema"], "certvigil.explain/1");
    assert_eq!(document["ladder_of_rule"], 1);
    assert_eq!(document["ladder"].as_array().unwrap().len(), 4);
    assert_eq!(document["notifiers"][0]["status"], "alerted");
    assert_eq!(document["notifiers"][1]["status"], "severity");
    assert_eq!(document["notifications"][0]["deliveries"]["delivered"], 1);

    let (_, out, _) = run(with(folder.path(), &text, &["explain", "silent-ca"])).await;
    assert!(
        out.contains("no alert: a rule ignores this certificate")
            && out.contains("OPS-1 (rules[0])"),
        "{out}"
    );
    let (code, _, said) = run(with(folder.path(), &text, &["explain", "cert_z"])).await;
    assert_eq!(code, 1);
    assert!(said.contains("no certificate “cert_z”"), "{said}");
    let (code, _, said) =
        run(with(folder.path(), &text, &["explain", "cert_a", "--organization", "other"])).await;
    assert_eq!(code, 1);
    assert!(said.contains("no organization “other”"), "{said}");
}
