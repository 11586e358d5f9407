//! Alert rules and dashboard: their metrics, labels and links exist.

use certvigil::{
    clock::Clock,
    demo::world::{AdminKey, World},
    message::{Event, style::Links},
};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use super::{deploy, done, text};
use crate::{
    daemon::Daemon,
    support::{Sim, program},
};

#[test]
fn the_rules_fire_when_they_should_and_only_then() {
    let Some(promtool) = program("promtool", "prometheus") else { return };
    let mut command = Command::new(promtool);
    command.args(["test", "rules", "rules.test.yaml"]).current_dir(deploy("prometheus"));
    let said = done(&mut command);
    assert!(said.contains("SUCCESS"), "{said}");
    let tests = text("prometheus/rules.test.yaml");
    for (name, _) in alerts() {
        assert!(
            tests.matches(&format!("alertname: {name}")).count() >= 2,
            "{name} is not tested both ways"
        );
    }
}

/// The rules: name, expression.
fn alerts() -> Vec<(String, Value)> {
    let rules: Value = serde_yaml_ng::from_str(&text("prometheus/rules.yaml")).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap().clone();
    rules.into_iter().map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule)).collect()
}

/// Every expression of the dashboard.
fn dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&text("grafana/dashboard.json")).unwrap();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && !panel["title"].as_str().unwrap().is_empty(), "{panel}");
        found.extend(targets.iter().map(|target| target["expr"].as_str().unwrap().to_owned()));
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            let asked = variable["definition"].as_str().unwrap();
            let inner = asked.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
            let (metric, label) = inner.split_once(", ").unwrap();
            found.push(format!("sum by ({label}) ({metric})"));
        }
    }
    assert!(found.len() >= 15, "{found:#?}");
    found
}

/// The metrics that an expression names, with the labels that it asks them for.
fn asked(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in expression.match_indices("certvigil_") {
        let rest = &expression[at..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let labels = rest[end..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let labels = labels.into_iter().flat_map(|(labels, _)| labels.split(','));
        let labels = labels.map(|label| label.chars().take_while(|c| is_name(*c)).collect());
        found.push((rest[..end].to_owned(), labels.collect()));
    }
    found
}

#[tokio::test]
async fn rules_and_dashboard_ask_only_for_what_there_is_and_link_to_what_there_is() {
    let mut world = World::with_projects(2, |n| format!("prod-{n}"));
    world.add("cert_a", Some("prod-ca"), Some(Clock::System.now() + TimeDelta::days(5)), 1..=2);
    world.admin_keys.push(AdminKey {
        id: "key_a".to_owned(),
        name: None,
        redacted_value: "sk-admin...ted".to_owned(),
        owner: ("user_1".to_owned(), "dana".to_owned()),
        expires_at: Some(Clock::System.now() + TimeDelta::days(100)),
    });
    let sim = Sim::start(world).await;
    let text = format!("{}[drill]\ncron = \"0 9 1 * *\"\n", sim.config());
    let mut daemon = Daemon::start(&text);
    daemon.logged("notification delivered", 0).await;

    // A name, and all labels that any of its series has.
    let mut there: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for _ in 0..200 {
        let exposition =
            daemon.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        for line in exposition.lines().filter(|line| !line.starts_with('#')) {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.split(',').filter_map(|label| label.split_once('='));
            let known = there.entry(name.to_owned()).or_default();
            known.extend(labels.map(|(label, _)| label.to_owned()));
        }
        if there.contains_key("certvigil_deliveries_total") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let rules = alerts();
    let expressions = rules.iter().map(|(_, rule)| rule["expr"].as_str().unwrap().to_owned());
    let mut seen = BTreeSet::new();
    for expression in expressions.chain(dashboard()) {
        for (name, labels) in asked(&expression) {
            let known =
                there.get(&name).unwrap_or_else(|| panic!("{name} is no metric: {expression}"));
            for label in labels {
                assert!(known.contains(&label), "{name} has no label {label}: {expression}");
            }
            seen.insert(name);
        }
    }
    assert!(seen.len() >= 10, "{seen:?}");

    let runbook = daemon.request(Method::GET, "/runbook").send().await.unwrap();
    assert_eq!(runbook.status(), 200);
    let runbook = runbook.text().await.unwrap();
    let is_there = |url: &str| {
        let (page, part) = url.split_once('#').unwrap();
        assert!(page.ends_with("/runbook"), "{url}");
        assert!(runbook.contains(&format!(" id=\"{part}\"")), "{url} leads nowhere");
    };
    for (_, rule) in &rules {
        is_there(rule["annotations"]["runbook_url"].as_str().unwrap());
    }
    let runbook = Some(daemon.url("/runbook").parse().unwrap());
    let links = Links { page: None, runbook, acknowledge: false };
    let linked: Vec<String> = Event::ALL.iter().filter_map(|event| links.runbook(*event)).collect();
    assert!(linked.len() >= 11, "{linked:?}");
    linked.iter().for_each(|url| is_there(url));
    daemon.stop().await;
}

#[test]
fn the_dashboard_asks_in_promql() {
    let Some(promtool) = program("promtool", "prometheus") else { return };
    let rules: Vec<Value> = dashboard()
        .iter()
        .enumerate()
        .map(|(n, expression)| {
            let expression = expression.replace("$organization", ".*");
            serde_json::json!({ "record": format!("dashboard:{n}"), "expr": expression })
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    std::fs::write(folder.path().join("rules.json"), groups.to_string()).unwrap();
    let mut command = Command::new(promtool);
    done(command.args(["check", "rules", "rules.json"]).current_dir(folder.path()));
}
