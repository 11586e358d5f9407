//! The service's life as its operator has it: signals, reload, systemd, the end.

use certvigil::{
    clock::Clock,
    demo::{receiver::Answer, world::World},
};
use std::{
    collections::BTreeSet,
    os::unix::net::UnixDatagram,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    daemon::{Beats, Daemon},
    support::{Sim, days, organization, raw_server, until},
};

/// A schedule that never matches during a test.
const RARELY: &str = "[schedule]\ncron = \"0 0 1 1 *\"\n";

async fn sim() -> Sim {
    let mut world = World::with_projects(2, |n| format!("prod-{n}"));
    world.add("cert_a", Some("first"), Some(Clock::System.now() + days(5)), 1..=2);
    Sim::start(world).await
}

/// The certificates that the webhook received, and the number of requests.
fn told(sim: &Sim) -> (BTreeSet<String>, usize) {
    let posts = sim.receiver.posts();
    let mut told = BTreeSet::new();
    for post in &posts {
        let body: serde_json::Value = serde_json::from_str(&post.body).unwrap();
        for alert in body["alerts"].as_array().unwrap() {
            told.extend(alert["certificate"]["id"].as_str().map(str::to_owned));
        }
    }
    (told, posts.len())
}

#[tokio::test]
async fn a_reload_takes_what_is_added_and_ends_what_is_removed_and_a_bad_file_changes_nothing() {
    let (sim, other) = (sim().await, sim().await);
    let text = format!("{}{RARELY}", sim.config());
    let mut daemon = Daemon::start(&text);
    until("the first alert", || (sim.receiver.posts().len() == 1).then_some(())).await;
    let end = daemon.logged("certvigil 0.1.0 started", 0).await;

    daemon.reload(&text.replace("[notifiers.webhook.hook]", "[notifiers.webhook.hook]\nurl_ = 3"));
    let end = daemon.logged("reload failed: keeping the previous configuration", end).await;
    assert!(
        daemon.log().contains("c.toml") && daemon.log().contains("hook.url_: found an unknown key")
    );

    // Another organization, another notifier; new certificates alert through all of them.
    let expires = Clock::System.now() + days(3);
    sim.api.world().add("cert_b", Some("second"), Some(expires), 1..=1);
    other.api.world().add("cert_c", Some("third"), Some(expires), 1..=1);
    let more =
        organization(other.api_address).replace("organizations.acme", "organizations.second");
    let hook = format!("[notifiers.webhook.new]\nurl = \"http://{}/hook\"\n", other.hook);
    let added = format!("{text}{more}{hook}[log]\nlevel = \"debug\"\n");
    daemon.reload(&added);
    let end = daemon.logged("configuration reloaded", end).await;
    let all = BTreeSet::from(["cert_a", "cert_b", "cert_c"].map(str::to_owned));
    until("the new one told of all", || (told(&other).0 == all).then_some(())).await;
    until("the old one told of all", || (told(&sim).0 == all).then_some(())).await;
    assert!(daemon.log()[end..].contains("DEBUG"), "the level has changed");
    let before = told(&sim).1;

    // Removed again: the organization's alerts resolve, and nothing else is sent.
    daemon.reload(&text);
    daemon.logged("organization no longer configured: its data is deleted", end).await;
    until("its end", || (told(&sim).1 > before).then_some(())).await;
    let last: serde_json::Value =
        serde_json::from_str(&sim.receiver.posts().last().unwrap().body).unwrap();
    assert_eq!(
        (&last["organization"], &last["alerts"][0]["reason"]),
        (&"second".into(), &"unwatched".into())
    );
    daemon.signal("USR1");
    let end = daemon.logged("scan of all organizations requested", end).await;
    daemon.logged("scan finished", end).await;
    assert_eq!(told(&sim).1, before + 1);
    daemon.stop().await;
}

#[tokio::test]
async fn a_reload_shows_what_needs_a_restart_and_goes_on_with_the_rest() {
    let sim = sim().await;
    let mut daemon = Daemon::start(&format!("{}{RARELY}", sim.config()));
    let end = daemon.logged("scan finished", 0).await;
    let text = format!(
        "{}{RARELY}[state]\nurl = \"sqlite:other.db\"\n[log]\nformat = \"json\"\n",
        sim.config()
    );
    daemon.reload(&text);
    let end = daemon.logged("state.url changed: takes effect after a restart", end).await;
    daemon.logged("log.format changed: takes effect after a restart", 0).await;
    daemon.logged("scan finished", end).await;
    assert!(!daemon.folder.path().join("other.db").exists());
    assert!(daemon.folder.path().join("certvigil.db").exists());
    daemon.stop().await;
}

#[tokio::test]
async fn what_waits_at_a_reload_is_delivered_once_and_a_receiver_that_was_gone_is_tried_again() {
    let sim = sim().await;
    let text = format!("{}{RARELY}", sim.config());
    sim.receiver.answer([Answer { status: 410, headers: vec![] }]);
    let mut daemon = Daemon::start(&text);
    let end = daemon.logged("no deliveries to it until a reload", 0).await;
    // The mails report it, and the next scan logs the missing alerts.
    until("the mails", || (sim.mailbox.mails().len() == 4).then_some(())).await;
    daemon.signal("USR1");
    daemon.logged("notifications=1", end).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(sim.receiver.posts().len(), 1, "it is left alone");
    daemon.reload(&text);
    until("what waited", || (sim.receiver.posts().len() == 2).then_some(())).await;
    // The mails report the recovery, and nothing is repeated.
    until("its end", || (sim.mailbox.mails().len() == 6).then_some(())).await;
    let subjects: Vec<String> = sim
        .mailbox
        .mails()
        .iter()
        .map(|mail| certvigil::demo::pages::parts(&mail.data).unwrap().subject)
        .collect();
    assert_eq!(
        subjects[2],
        "[certvigil] WARNING: a receiver rejected a message of notifier “hook”"
    );
    assert_eq!(subjects[5], "[certvigil] RESOLVED: notifier “hook” works again");
    daemon.stop().await;
}

#[tokio::test]
async fn it_stops_within_ten_seconds_while_the_api_and_the_mail_server_hang() {
    let silent = raw_server(|_stream| std::future::pending()).await;
    let sim = sim().await;
    let hanging = sim.config().replace(
        &format!("port = {}", sim.mailbox.address.port()),
        &format!("port = {}", silent.port()),
    );
    let more = organization(silent).replace("organizations.acme", "organizations.hanging");
    let mut daemon = Daemon::start(&format!("{hanging}{more}{RARELY}"));
    until("the webhook", || (sim.receiver.posts().len() == 1).then_some(())).await;
    daemon.stop().await;
    assert!(daemon.log().contains("certvigil stopped"));
}

#[tokio::test]
async fn systemd_is_notified_and_its_watchdog_is_fed_by_the_loops() {
    let sim = sim().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&said);
    std::thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok(length) = socket.recv(&mut buffer) {
            heard.lock().unwrap().push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    });
    let text = format!("{}{RARELY}", sim.config());
    let mut daemon = Daemon::start_in(folder, &text, |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "30000000");
    });
    let has = |what: &str| said.lock().unwrap().iter().filter(|said| said.contains(what)).count();
    until("readiness", || (has("READY=1") == 1).then_some(())).await;
    until("the watchdog", || (has("WATCHDOG=1") >= 3).then_some(())).await;
    // Count the deliveries once nothing is due.
    let counted = "certvigil_alert_lateness_seconds_count 3\n";
    let mut metrics = daemon.text("/metrics").await;
    for _ in 0..100 {
        if metrics.contains(counted) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        metrics = daemon.text("/metrics").await;
    }
    assert!(metrics.contains(counted), "{metrics}");
    until("a status", || (has("STATUS=1 of 1 organizations read completely") > 0).then_some(()))
        .await;
    daemon.reload(&text);
    until("the reload", || (has("RELOADING=1\nMONOTONIC_USEC=") == 1).then_some(())).await;
    until("its end", || (has("READY=1") == 2).then_some(())).await;
    daemon.stop().await;
    assert_eq!(has("STOPPING=1"), 1);
}

#[tokio::test]
async fn the_heartbeat_is_sent_after_complete_scans_of_all_organizations_and_only_then() {
    let (sim, other, beats, own) =
        (sim().await, sim().await, Beats::start().await, Beats::start().await);
    let more = organization(other.api_address).replace(
        "[organizations.acme]",
        &format!("[organizations.second]\nheartbeat_url = \"http://{}/beat\"", own.address),
    );
    let text = format!("{}{more}{RARELY}[monitoring]\n{}", sim.config(), beats.config());
    other.api.world().projects[0].broken = Some(403);
    let mut daemon = Daemon::start(&text);
    until("the beginning and the failure", || {
        let hits = beats.hits();
        (hits.iter().any(|hit| hit == "/beat/start") && hits.iter().any(|hit| hit == "/beat/fail"))
            .then_some(())
    })
    .await;
    daemon.logged("complete=true", 0).await;
    daemon.logged("complete=false", 0).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!((beats.well(), own.well()), (0, 0), "one of them was not read");
    other.api.world().projects[0].broken = None;
    daemon.signal("USR1");
    until("all is well", || (beats.well() == 1 && own.well() == 1).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!((beats.well(), own.well()), (1, 1), "once for each scan");
    daemon.stop().await;
}
