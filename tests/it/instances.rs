//! Several instances on one PostgreSQL: real processes, killed, paused, cut off, and configured
//! differently.

use axum::{Router, extract::Request, middleware::Next};
use certvigil::{
    clock::Clock,
    demo::{admin_api::KEY, receiver::Post, world::World},
};
use chrono::TimeDelta;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    daemon::Daemon,
    postgres::{self, Database, Line, Traffic},
    support::{Sim, Tls, run, serve, until, with},
};

/// The simulated world with one certificate that is about to expire.
async fn sim() -> Sim {
    let mut world = World::with_projects(2, |n| format!("prod-{n}"));
    world.add("cert_0", Some("ca-0"), Some(Clock::System.now() + TimeDelta::days(5)), 1..=2);
    Sim::start(world).await
}

fn organizations(count: usize, api: SocketAddr) -> String {
    let one = |n| {
        format!(
            "[organizations.org_{n:02}]\nadmin_key = \"{KEY}\"\nbase_url = \"http://{api}/v1\"\n\
             requests_per_second = 0\n"
        )
    };
    (0..count).map(one).collect()
}

fn hooks(count: usize, hook: SocketAddr) -> String {
    let one = |n| {
        format!(
            "[notifiers.webhook.hook_{n}]\nurl = \"http://{hook}/hook/{n}\"\nmax_per_minute = 6000\n"
        )
    };
    (0..count).map(one).collect()
}

fn state(url: &str) -> String {
    format!("[state]\nurl = \"{url}\"\nconnect_timeout = \"3s\"\ntimeout = \"5s\"\n")
}

fn cron(cron: &str) -> String {
    format!("[schedule]\ncron = \"{cron}\"\n")
}

const YEARLY: &str = "0 0 1 1 *";

/// Passes everything on a little later.
fn slow(router: Router, by: Arc<AtomicU64>) -> Router {
    router.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
        let by = by.load(Ordering::SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(by)).await;
            next.run(request).await
        }
    }))
}

fn id(post: &Post) -> String {
    post.headers["webhook-id"].to_str().unwrap().to_owned()
}

/// How many moments of an organization were scanned more than once.
async fn scanned_twice(database: &Database) -> i64 {
    database
        .number(
            "SELECT count(*) FROM (SELECT 1 FROM scans GROUP BY organization, tick HAVING count(*) > 1) AS twice",
        )
        .await
}

async fn pending(database: &Database) -> i64 {
    database.number("SELECT count(*) FROM deliveries WHERE state = 'pending'").await
}

/// Three instances, 20 organizations, 500 deliveries, and something happens to one of them all the
/// time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_paused_at_random_everything_arrives_and_each_moment_is_scanned_once() {
    const ORGANIZATIONS: usize = 20;
    const NOTIFIERS: usize = 5;
    const ROUNDS: usize = 5;
    let Some(database) = postgres::database().await else { return };
    let sim = sim().await;
    let hook = serve(slow(sim.receiver.router(), Arc::new(AtomicU64::new(20)))).await;
    let text = format!(
        "{}{}{}{}",
        organizations(ORGANIZATIONS, sim.api_address),
        hooks(NOTIFIERS, hook),
        cron("*/4 * * * * *"),
        state(&database.url)
    );
    let mut instances: Vec<Daemon> = (0..3).map(|_| Daemon::start(&text)).collect();
    let (mut kills, mut random) = (0, fastrand::Rng::with_seed(7));
    for round in 0..ROUNDS {
        if round > 0 {
            let end = Clock::System.now() + TimeDelta::days(5);
            let (id, name) = (format!("cert_{round}"), format!("ca-{round}"));
            sim.api.world().add(&id, Some(&name), Some(end), 1..=2);
        }
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(random.u64(500..2_500))).await;
            let victim = &mut instances[random.usize(0..3)];
            if random.bool() {
                victim.signal("KILL");
                victim.ended().await;
                *victim = Daemon::start(&text);
                kills += 1;
            } else {
                victim.signal("STOP");
                tokio::time::sleep(Duration::from_millis(random.u64(100..2_000))).await;
                victim.signal("CONT");
            }
        }
        // Each certificate is one message for each organization and notifier.
        let expected = (round + 1) * ORGANIZATIONS * NOTIFIERS;
        let begun = Instant::now();
        loop {
            let told = told(&sim.receiver.posts());
            if told.len() >= expected && pending(&database).await == 0 {
                break;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(150),
                "round {round}: {} of {expected}\n{}",
                told.len(),
                instances[0].log()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    let posts = sim.receiver.posts();
    let told = told(&posts);
    assert_eq!(told.len(), ORGANIZATIONS * NOTIFIERS * ROUNDS, "and nothing else");
    let ids: BTreeSet<String> = posts.iter().map(id).collect();
    for ids in told.values() {
        assert_eq!(ids.len(), 1, "told again, it is under the same id: {ids:?}");
    }
    // At most what one instance had under way at each kill.
    let again = posts.len() - ids.len();
    assert!(kills > 0 && again <= kills * NOTIFIERS * 4, "{again} more, {kills} kills");
    assert_eq!(scanned_twice(&database).await, 0);
    for instance in &mut instances {
        instance.stop().await;
    }
    let left = database.number("SELECT count(*) FROM instances").await;
    // One that was killed before its registration leaves nothing.
    assert!(left <= i64::try_from(kills).unwrap(), "the others deleted theirs: {left}, {kills}");
}

/// Each organization, notifier and certificate of the messages, with their ids.
fn told(posts: &[Post]) -> BTreeMap<(String, String, String), BTreeSet<String>> {
    let mut told: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for post in posts {
        let body: serde_json::Value = serde_json::from_str(&post.body).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        for alert in body["alerts"].as_array().unwrap() {
            let of = (
                text(&body["organization"]),
                text(&body["notifier"]),
                text(&alert["certificate"]["id"]),
            );
            told.entry(of).or_default().insert(id(post));
        }
    }
    told
}

#[tokio::test]
async fn who_was_paused_in_a_scan_keeps_nothing_of_it_once_another_has_taken_over() {
    let Some(database) = postgres::database().await else { return };
    let sim = sim().await;
    let latency = Arc::new(AtomicU64::new(1_500));
    let api = serve(slow(sim.api.router(), Arc::clone(&latency))).await;
    let (organizations, hooks) = (organizations(1, api), hooks(1, sim.hook));
    let text = format!("{organizations}{hooks}{}{}", cron(YEARLY), state(&database.url));
    let mut first = Daemon::start(&text);
    // It is in the middle of its scan.
    until("the scan", || (!sim.api.take_requests().is_empty()).then_some(())).await;
    first.signal("STOP");
    latency.store(0, Ordering::SeqCst);
    let second = Daemon::start(&text);
    second.logged("scan finished", 0).await;
    assert_eq!(database.number("SELECT count(*) FROM scans").await, 1);
    first.signal("CONT");
    first.logged("another instance took over the scan", 0).await;
    first.logged("another instance uses the same database", 0).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(database.number("SELECT count(*) FROM scans").await, 1);
    assert_eq!(told(&sim.receiver.posts()).len(), 1);
    assert_eq!(sim.receiver.posts().len(), 1);
    // What the other has scanned is known here, too.
    let ready = first.ready(200).await;
    assert_eq!(ready["organizations"][0]["complete"], true, "{ready}");
    first.stop().await;
}

#[tokio::test]
async fn where_configurations_differ_the_newest_scans_and_both_show_what_differs() {
    let Some(database) = postgres::database().await else { return };
    let sim = sim().await;
    let text = |ladder: &str| {
        format!(
            "{}{}{}{}{ladder}",
            organizations(1, sim.api_address),
            hooks(1, sim.hook),
            cron(YEARLY),
            state(&database.url)
        )
    };
    let (old, new) = (text(""), text("[expired]\nseverity = \"critical\"\nrepeat = \"2d\"\n"));
    let mut first = Daemon::start(&old);
    let at = first.logged("scan finished", 0).await;
    let mut second = Daemon::start(&new);
    second.logged("scan finished", 0).await;
    let at = first.logged("instances have different configurations", at).await;
    let at = first.logged("expired.repeat: here \"1d\", there \"2d\"", at).await;
    second
        .logged("this instance scans; the other instance only delivers until it is reloaded", 0)
        .await;
    let at = first
        .logged("another instance has a newer configuration: this instance only delivers", at)
        .await;
    // The page of each says so.
    let page = first.text("/").await;
    for words in
        ["2 instances", "expired.repeat", "delivers, but does not scan until it is reloaded"]
    {
        assert!(page.contains(words), "{words}\n{page}");
    }
    // It scans no more, but delivers.
    first.signal("USR1");
    let at = first.logged("scan not started: another instance has a newer configuration", at).await;
    // Started again, it does not bring its configuration back.
    first.signal("KILL");
    first.ended().await;
    let first = Daemon::start(&old);
    first.logged("this instance only delivers until it is reloaded", 0).await;
    let scans = database.number("SELECT count(*) FROM scans").await;
    assert_eq!(scans, 2, "one by each configuration");
    // Reloaded with the new one, both scan.
    first.reload(&new);
    let at = first.logged("this instance has the newest configuration", at.min(1)).await;
    second.stop().await;
    first.signal("USR1");
    first.logged("scan finished", at).await;
    assert_eq!(sim.receiver.posts().len(), 1, "a repeat is no other stage");
}

#[tokio::test]
async fn two_instances_report_a_lost_protection_once_and_of_the_right_organization() {
    let Some(database) = postgres::database().await else { return };
    // Two organizations with the same projects and certificates, by id and by name.
    let world = || {
        let mut world = World::with_projects(2, |n| format!("prod-{n}"));
        let end = Some(Clock::System.now() + TimeDelta::days(400));
        world.add("cert_0", Some("ca-0"), end, 1..=2);
        let spare = world.add("cert_spare", Some("spare"), end, 1..=2);
        spare.projects.values_mut().for_each(|active| *active = false);
        world
    };
    let (one, other) = (Sim::start(world()).await, Sim::start(world()).await);
    let organization =
        |name, sim: &Sim| organizations(1, sim.api_address).replace("[organizations.org_00]", name);
    let text = format!(
        "{}{}{}{}{}",
        organization("[organizations.acme]", &one),
        organization("[organizations.beta]", &other),
        hooks(1, one.hook),
        cron(YEARLY),
        state(&database.url)
    );
    let mut first = Daemon::start(&text);
    first.logged("scan finished", 0).await;
    const LEAST: &str = "SELECT min(n) FROM (SELECT count(scans.id) AS n FROM organizations LEFT JOIN scans \
                         ON scans.organization = organizations.name GROUP BY organizations.name) AS each";
    let scans_of_each = async |at_least: i64| {
        while database.number("SELECT count(*) FROM organizations").await < 2
            || database.number(LEAST).await < at_least
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    scans_of_each(1).await;
    let mut second = Daemon::start(&text);
    second.logged("another instance uses the same database", 0).await;
    one.api.world().certificate("cert_0").unwrap().projects.insert("proj_0001".into(), false);
    for (round, instance) in [&first, &second, &first].into_iter().enumerate() {
        instance.signal("USR1");
        scans_of_each(i64::try_from(round).unwrap() + 2).await;
    }
    let body = until("the message", || {
        let posts = one.receiver.posts();
        posts.first().map(|post| serde_json::from_str::<serde_json::Value>(&post.body).unwrap())
    })
    .await;
    assert_eq!(body["organization"], "acme");
    assert_eq!(body["alerts"][0]["event"], "project.unprotected");
    assert_eq!(body["alerts"][0]["projects"][0]["id"], "proj_0001");
    first.stop().await;
    second.stop().await;
    assert_eq!(one.receiver.posts().len(), 1);
}

#[tokio::test]
async fn a_rate_holds_for_two_instances_together() {
    let Some(database) = postgres::database().await else { return };
    let sim = sim().await;
    let slowly = format!(
        "[notifiers.webhook.hook]\nurl = \"http://{}/hook\"\nmax_per_minute = 12\n",
        sim.hook
    );
    let organizations = organizations(20, sim.api_address);
    let text = format!("{organizations}{slowly}{}{}", cron(YEARLY), state(&database.url));
    let begun = Instant::now();
    let (_first, _second) = (Daemon::start(&text), Daemon::start(&text));
    until("the minute's allowance", || (sim.receiver.posts().len() >= 12).then_some(())).await;
    while begun.elapsed() < Duration::from_secs(25) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        // One more comes back every five seconds.
        let most = 12 + begun.elapsed().as_secs() as usize / 5 + 1;
        let come = sim.receiver.posts().len();
        assert!(come <= most, "{come} after {:?}", begun.elapsed());
    }
    assert!(sim.receiver.posts().len() >= 14, "and they do come");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_away_pauses_the_scans_and_loses_nothing() {
    let Some(database) = postgres::database().await else { return };
    let sim = sim().await;
    let line = Line::to(database.address).await;
    let url = format!("postgres://postgres@{}/{}", line.address, database.name);
    let text = format!(
        "{}{}{}{}",
        organizations(3, sim.api_address),
        hooks(1, sim.hook),
        cron("*/3 * * * * *"),
        state(&url)
    );
    // It waits for a server that is not there yet.
    line.set(Traffic::Cut);
    let mut service = Daemon::start(&text);
    service.logged("database unavailable", 0).await;
    line.set(Traffic::Flows);
    service.ready(200).await;
    until("the first messages", || (sim.receiver.posts().len() == 3).then_some(())).await;
    for (round, traffic) in [Traffic::Cut, Traffic::Stuck].into_iter().enumerate() {
        line.set(traffic);
        let not_ready = service.ready(503).await;
        let reasons = not_ready["reasons"].to_string();
        assert!(reasons.contains("database"), "{traffic:?}: {reasons}");
        let at = service.log().len().saturating_sub(4_000);
        service.logged("scan delayed: database unavailable", at).await;
        // Nothing is asked that nothing would come of.
        tokio::time::sleep(Duration::from_secs(12)).await;
        drop(sim.api.take_requests());
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(sim.api.take_requests(), Vec::<String>::new(), "{traffic:?}");
        let end = Clock::System.now() + TimeDelta::days(5);
        sim.api.world().add(&format!("cert_new_{round}"), Some("new"), Some(end), 1..=2);
        line.set(Traffic::Flows);
        service.ready(200).await;
        let expected = 3 * (round + 2);
        until("the messages", || (told(&sim.receiver.posts()).len() == expected).then_some(()))
            .await;
    }
    assert_eq!(sim.receiver.posts().len(), 9, "each once");
    service.stop().await;
}

#[tokio::test]
async fn the_server_has_to_prove_who_it_is() {
    let Some(binaries) = postgres::binaries() else { return };
    let tls = Tls::new();
    let folder = postgres::new_cluster(&binaries, "ssl = on");
    for (from, to) in [(&tls.certificate, "server.crt"), (&tls.key, "server.key")] {
        let to = folder.join("data").join(to);
        std::fs::copy(from, &to).unwrap();
        std::os::unix::fs::chown(&to, Some(65_534), Some(65_534)).unwrap_or_default();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&to, mode).unwrap();
    }
    let port = super::support::free_port();
    let mut server = postgres::serve(&binaries, &folder, port);
    drop(postgres::connect(&format!("postgres://postgres@127.0.0.1:{port}/postgres")).await);
    let place = tempfile::tempdir().unwrap();
    let text = |query: &str, ca: &std::path::Path| {
        format!(
            "[organizations.acme]\nadmin_key = \"x\"\n[state]\n\
             url = \"postgres://postgres:hunter2@localhost:{port}/postgres?{query}\"\nca_file = {ca:?}\n"
        )
    };
    let proven = text("sslmode=verify-full", &tls.ca);
    let (code, _, err) = run(with(place.path(), &proven, &["deliveries"])).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("no database at"), "the server was believed: {err}");
    let other = Tls::new();
    let (code, _, err) =
        run(with(place.path(), &text("sslmode=verify-full", &other.ca), &["deliveries"])).await;
    assert_eq!(code, 1);
    assert!(err.contains("certificate"), "{err}");
    assert!(!err.contains("hunter2"), "{err}");
    let (_, _, err) =
        run(with(place.path(), &text("sslmode=require", &tls.ca), &["config", "check"])).await;
    assert!(!err.contains("hunter2"), "{err}");
    drop(server.stdin.take());
    drop(server.wait());
}
