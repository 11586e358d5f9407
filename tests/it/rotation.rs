//! Rotations: next steps in alerts, and the requests that `certvigil rotation` prints.

use certvigil::{clock::Clock, demo::admin_api::KEY, demo::world::World};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use std::{path::Path, process::Command};
use tempfile::TempDir;

use super::support::{Service, Sim, days, organization, program, run, webhook, with};

/// Three projects: `prod-ca` is active in two of them and ends in 20 days; something else protects
/// the third.
fn world(now: DateTime<Utc>) -> World {
    let mut world = World::with_projects(3, |n| ["chat", "search", "lab"][n - 1].to_owned());
    let at = |n: i64| Some(now + days(n) + TimeDelta::hours(1));
    world.add("cert_old", Some("prod-ca-2026"), at(20), 1..=2).created_at = now - days(300);
    world.add("cert_lab", Some("lab-root"), at(50), 3..=3).created_at = now - days(200);
    world
}

fn upload(world: &mut World, id: &str, name: &str, now: DateTime<Utc>) {
    let end = Some(now + days(700));
    world.add(id, Some(name), end, []).created_at = now - days(1);
}

fn config(sim: &Sim) -> String {
    format!("{}{}", organization(sim.api_address), webhook(sim.hook))
}

async fn rotation(folder: &TempDir, text: &str, arguments: &[&str]) -> (i32, String, String) {
    run(with(folder.path(), text, &[&["rotation"], arguments].concat())).await
}

/// The commands that it printed.
fn commands(out: &str) -> Vec<String> {
    let lines = out.lines().filter_map(|line| line.strip_prefix("     "));
    lines.filter(|line| line.contains("curl ")).map(str::to_owned).collect()
}

/// Runs a command as somebody would who copied it.
async fn shell(folder: &Path, command: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", command]).current_dir(folder).env("OPENAI_ADMIN_KEY", KEY);
    shell.env("no_proxy", "*");
    let (code, out, err) = run(shell).await;
    assert_eq!(code, 0, "{command}\n{out}{err}");
}

/// The projects that have no valid certificate at this moment.
fn unprotected(sim: &Sim, now: DateTime<Utc>) -> Vec<String> {
    let world = sim.api.world();
    let is_protected = |project: &str| {
        let valid = world
            .certificates
            .iter()
            .filter(|one| one.expires_at > Some(now) && one.valid_at.is_none_or(|at| at <= now));
        valid.clone().any(|one| one.organization_wide || one.projects.get(project) == Some(&true))
    };
    let ids = world.projects.iter().map(|project| project.id.clone());
    ids.filter(|id| !is_protected(id)).collect()
}

/// Runs the printed commands until the certificate is gone; returns their requests.
async fn follow(sim: &Sim, folder: &TempDir, text: &str, arguments: &[&str]) -> Vec<String> {
    let mut made = Vec::new();
    for _ in 0..10 {
        let (code, out, err) = rotation(folder, text, arguments).await;
        if code == 1 {
            assert!(err.contains("no certificate"), "{err}");
            return made;
        }
        assert_eq!(code, 0, "{out}{err}");
        let commands = commands(&out);
        assert!(!commands.is_empty(), "nothing is left to do, and it is there: {out}");
        for command in commands {
            assert!(!command.contains(KEY), "{command}");
            sim.api.take_requests();
            shell(folder.path(), &command).await;
            made.extend(sim.api.take_requests());
            assert_eq!(unprotected(sim, Clock::System.now()), [""; 0], "{command}");
        }
    }
    panic!("it does not end: {made:#?}");
}

#[tokio::test]
async fn what_it_prints_leads_to_a_replaced_certificate_and_never_past_a_valid_one() {
    if program("curl", "curl").is_none() || program("jq", "jq").is_none() {
        return;
    }
    let now = Clock::System.now();
    let sim = Sim::start(world(now)).await;
    let (folder, text) = (tempfile::tempdir().unwrap(), config(&sim));
    let service = Service::start(&text).await;
    service.scan(now).await;
    // Nothing is uploaded: the first command uploads this file.
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.not_after = std::time::SystemTime::from(now + days(900)).into();
    let pem = ca.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
    std::fs::write(folder.path().join("successor.pem"), pem).unwrap();
    let made = follow(&sim, &folder, &text, &["cert_old"]).await;
    let expected = [
        "/v1/organization/certificates",
        "/v1/organization/projects/proj_0001/certificates/activate",
        "/v1/organization/projects/proj_0002/certificates/activate",
        "/v1/organization/projects/proj_0001/certificates/deactivate",
        "/v1/organization/projects/proj_0002/certificates/deactivate",
        "/v1/organization/certificates/cert_old",
    ];
    assert_eq!(made, expected);
    service.scan(now + days(1)).await;
    service.deliver(now + days(1)).await;
    let posts = sim.receiver.posts();
    let body: Value = serde_json::from_str(&posts.last().unwrap().body).unwrap();
    let over = &body["alerts"][0];
    assert_eq!(
        (&over["event"], &over["reason"]),
        (&"certificate.resolved".into(), &"replaced".into())
    );
}

#[tokio::test]
async fn one_for_the_whole_organization_is_replaced_for_the_organization() {
    if program("curl", "curl").is_none() {
        return;
    }
    let now = Clock::System.now();
    let mut world = world(now);
    let old = world.certificate("cert_old").unwrap();
    old.organization_wide = true;
    old.projects.remove("proj_0002");
    upload(&mut world, "cert_new", "prod-ca-2027", now);
    let sim = Sim::start(world).await;
    let (folder, text) = (tempfile::tempdir().unwrap(), config(&sim));
    let made = follow(&sim, &folder, &text, &["prod-ca-2026"]).await;
    let expected = [
        "/v1/organization/certificates/activate",
        "/v1/organization/projects/proj_0001/certificates/activate",
        "/v1/organization/certificates/deactivate",
        "/v1/organization/projects/proj_0001/certificates/deactivate",
        "/v1/organization/certificates/cert_old",
    ];
    assert_eq!(made, expected);
}

#[tokio::test]
async fn what_cannot_be_seen_is_neither_deactivated_nor_deleted() {
    let now = Clock::System.now();
    let mut world = world(now);
    upload(&mut world, "cert_new", "prod-ca-2027", now);
    world.certificate("cert_new").unwrap().projects.insert("proj_0001".into(), true);
    world.certificate("cert_new").unwrap().projects.insert("proj_0002".into(), true);
    world.projects[1].broken = Some(500);
    let sim = Sim::start(world).await;
    let (folder, text) = (tempfile::tempdir().unwrap(), config(&sim));
    let (code, out, err) = rotation(&folder, &text, &["cert_old"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("could not be read"), "{err}");
    let commands = commands(&out);
    assert_eq!(commands.len(), 1, "{out}");
    assert!(commands[0].contains("/projects/proj_0001/certificates/deactivate"), "{out}");
    // Inactive in every readable list: the unreadable one may have it active.
    sim.api.world().certificate("cert_old").unwrap().projects.insert("proj_0001".into(), false);
    let (_, out, _) = rotation(&folder, &text, &["cert_old"]).await;
    assert!(!out.contains("curl"), "{out}");
    assert!(out.contains("5. Delete the old certificate: it is not active anywhere"), "{out}");
}

#[tokio::test]
async fn nothing_is_deactivated_before_its_successor_is_valid() {
    let now = Clock::System.now();
    let mut world = world(now);
    upload(&mut world, "cert_new", "prod-ca-2027", now);
    let new = world.certificate("cert_new").unwrap();
    new.valid_at = Some(now + days(5));
    new.projects.extend([("proj_0001".to_owned(), true), ("proj_0002".to_owned(), true)]);
    let sim = Sim::start(world).await;
    let (folder, text) = (tempfile::tempdir().unwrap(), config(&sim));
    for arguments in [&["cert_old"][..], &["cert_old", "--successor", "cert_new"]] {
        let (code, out, err) = rotation(&folder, &text, arguments).await;
        assert!(code == 0 && commands(&out).is_empty(), "{out}{err}");
        assert!(out.contains("not yet: cert_new is active but not valid yet"), "{out}");
    }
}

#[tokio::test]
async fn the_successor_that_somebody_names_is_the_one() {
    let now = Clock::System.now();
    let mut world = world(now);
    upload(&mut world, "cert_new", "prod-ca-2027", now);
    upload(&mut world, "cert_root", "company-root", now);
    let sim = Sim::start(world).await;
    let (folder, text) = (tempfile::tempdir().unwrap(), config(&sim));
    let (_, out, _) = rotation(&folder, &text, &["cert_old"]).await;
    assert!(out.contains("{\"certificate_ids\":[\"cert_new\"]}"), "the similar name first: {out}");
    assert!(out.contains("“company-root” (cert_root)"), "and the other candidate: {out}");
    let (_, out, _) = rotation(&folder, &text, &["cert_old", "--successor", "company-root"]).await;
    assert!(out.contains("cert_root") && !out.contains("cert_new"), "{out}");
    let (_, out, _) = rotation(&folder, &text, &["cert_old", "--output", "json"]).await;
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["schema"], "certvigil.rotation/1");
    let request = &document["steps"][1]["requests"][0];
    assert_eq!(request["method"], "POST");
    assert_eq!(request["body"]["certificate_ids"][0], "cert_new");
    for (successor, said) in [
        ("cert_lab", "cannot take over on"),
        ("cert_old", "a certificate does not replace itself"),
        ("nobody", "no certificate “nobody”"),
    ] {
        let (code, _, err) =
            rotation(&folder, &text, &["cert_old", "--successor", successor]).await;
        assert!(code == 1 && err.contains(said), "{successor}: {err}");
    }
}

#[tokio::test]
async fn every_alert_names_the_next_step_of_each_project() {
    let now = Clock::System.now();
    let mut world = world(now);
    upload(&mut world, "cert_new", "prod-ca-2027", now);
    let sim = Sim::start(world).await;
    let service = Service::start(&config(&sim)).await;
    let said = async |days_on: i64| {
        let at = now + days(days_on);
        service.scan(at).await;
        service.deliver(at).await;
        let posts = sim.receiver.posts();
        let body: Value = serde_json::from_str(&posts.last().unwrap().body).unwrap();
        super::support::fits_schema(&body);
        body["alerts"][0].clone()
    };
    let steps = |alert: &Value| {
        let projects = alert["certificate"]["active_in"]["projects"].as_array().unwrap();
        let step = |one: &Value| {
            let word = |key: &str| one[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", word("id"), word("next_step"), word("candidate_id"))
        };
        projects.iter().map(step).collect::<Vec<_>>()
    };
    let alert = said(0).await;
    assert_eq!(steps(&alert), ["proj_0001 activate cert_new", "proj_0002 activate cert_new"]);
    assert_eq!(alert["candidates"][0]["id"], "cert_new");
    assert_eq!(alert["candidates"][0]["successor_elsewhere"], false);
    // Half of it is done.
    sim.api.world().certificate("cert_new").unwrap().projects.insert("proj_0001".into(), true);
    let alert = said(7).await;
    assert_eq!(steps(&alert), ["proj_0002 activate cert_new", "proj_0001 move_clients -"]);
    assert_eq!(alert["candidates"][0]["successor_elsewhere"], true);
    assert_eq!(alert["certificate"]["next_step"], "activate");
    sim.api.world().certificate("cert_new").unwrap().projects.insert("proj_0002".into(), true);
    let alert = said(21).await;
    assert_eq!(steps(&alert), ["proj_0001 deactivate -", "proj_0002 deactivate -"]);
    sim.api.world().certificate("cert_old").unwrap().projects.clear();
    let alert = said(22).await;
    assert_eq!(
        (&alert["reason"], &alert["certificate"]["next_step"]),
        (&"replaced".into(), &"delete".into())
    );
}

#[tokio::test]
async fn an_anchor_of_other_projects_is_no_candidate() {
    let now = Clock::System.now();
    let mut world = world(now);
    world.add("cert_other", Some("partner-root"), Some(now + days(900)), [3]);
    let sim = Sim::start(world).await;
    let (folder, text) = (tempfile::tempdir().unwrap(), config(&sim));
    let (_, out, _) = rotation(&folder, &text, &["cert_old"]).await;
    assert!(out.contains("1. Upload the successor: next") && !out.contains("cert_other"), "{out}");
    // Unless somebody says so.
    let (_, out, _) = rotation(&folder, &text, &["cert_old", "--successor", "cert_other"]).await;
    assert!(out.contains("{\"certificate_ids\":[\"cert_other\"]}"), "{out}");
}

#[tokio::test]
async fn what_is_left_over_is_shown_with_its_step() {
    let now = Clock::System.now();
    let mut world = world(now);
    upload(&mut world, "cert_new", "prod-ca-2027", now);
    world
        .certificate("cert_new")
        .unwrap()
        .projects
        .extend([("proj_0001".to_owned(), true), ("proj_0002".to_owned(), true)]);
    let old = world.certificate("cert_old").unwrap();
    old.projects.values_mut().for_each(|active| *active = false);
    world.add("cert_spare", Some("spare"), Some(now + days(400)), []).created_at = now - days(9);
    let sim = Sim::start(world).await;
    let (folder, text) = (tempfile::tempdir().unwrap(), config(&sim));
    let (_, out, err) = run(with(folder.path(), &text, &["check"])).await;
    let line = |id: &str| out.lines().rev().find(|line| line.contains(id)).unwrap().to_owned();
    assert!(line("cert_old").contains("next: delete it: it is not active anywhere"), "{out}{err}");
    assert!(!line("cert_spare").contains("next"), "its purpose is unknown: {out}");
    let (_, out, _) = run(with(folder.path(), &text, &["check", "--output", "json"])).await;
    let document: Value = serde_json::from_str(&out).unwrap();
    let of = |id: &str| {
        let all = document["certificates"].as_array().unwrap();
        all.iter().find(|one| one["id"] == id).unwrap()["next_step"].clone()
    };
    assert_eq!((of("cert_old"), of("cert_spare")), ("delete".into(), Value::Null));
}
