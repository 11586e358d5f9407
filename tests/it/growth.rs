//! What `docs/reference/scaling.md` says is measured here, by hand and in a release build, for
//! these numbers are the machine's:
//!
//! ```sh
//! cargo build --release
//! CERTVIGIL_FSYNC=on CERTVIGIL_BINARY=target/release/certvigil cargo test --test it growth --
//! --ignored --nocapture
//! ```

use axum::{Router, extract::Request, middleware::Next, routing::post};
use certvigil::{
    clock::Clock,
    demo::{admin_api::AdminApi, admin_api::KEY, world::World},
};
use chrono::TimeDelta;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{
    daemon::Daemon,
    postgres::{self, Database},
    support::serve,
};

const YEARLY: &str = "[schedule]\ncron = \"0 0 1 1 *\"\n[http]\nlisten = \"off\"\n";

/// A receiver that notes when something comes, and takes its time.
async fn receiver(latency: Duration) -> (std::net::SocketAddr, Arc<Mutex<Vec<Instant>>>) {
    let came: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let note = Arc::clone(&came);
    let router = Router::new().route(
        "/{*rest}",
        post(move || {
            note.lock().unwrap().push(Instant::now());
            async move {
                tokio::time::sleep(latency).await;
                "ok"
            }
        }),
    );
    (serve(router).await, came)
}

async fn api(projects: usize, certificates: usize) -> std::net::SocketAddr {
    let mut world = World::with_projects(projects, |n| format!("prod-{n}"));
    let end = Clock::System.now() + TimeDelta::days(5);
    for n in 0..certificates {
        world.add(&format!("cert_{n}"), Some(&format!("ca-{n}")), Some(end), 1..=projects);
    }
    AdminApi::new(world).serve().await.unwrap()
}

fn organizations(count: usize, api: std::net::SocketAddr) -> String {
    let one = |n| {
        format!(
            "[organizations.org_{n:03}]\nadmin_key = \"{KEY}\"\nbase_url = \"http://{api}/v1\"\nrequests_per_second = 0\n"
        )
    };
    (0..count).map(one).collect()
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < Duration::from_secs(300), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn state(database: &Database) -> String {
    format!("[state]\nurl = \"{}\"\n", database.url)
}

/// Deliveries in a second, by 1, 2 and 4 instances: `certificates` alerts of ten organizations,
/// each a delivery.
async fn deliveries(latency: u64, concurrency: usize) {
    const ORGANIZATIONS: usize = 10;
    const CERTIFICATES: usize = 50;
    let api = api(1, CERTIFICATES).await;
    for instances in [1, 2, 4, 1, 2, 4] {
        let Some(database) = postgres::database().await else { return };
        let (hook, came) = receiver(Duration::from_millis(latency)).await;
        let text = format!(
            "{}[notifiers.webhook.hook]\nformat = \"opsgenie\"\nkey = \"x\"\nurl = \"http://{hook}/x\"\n\
             concurrency = {concurrency}\nmax_per_minute = 6000\n{YEARLY}{}",
            organizations(ORGANIZATIONS, api),
            state(&database)
        );
        let all: Vec<Daemon> = (0..instances).map(|_| Daemon::start(&text)).collect();
        let expected = ORGANIZATIONS * CERTIFICATES;
        until("the deliveries", async || came.lock().unwrap().len() >= expected).await;
        drop(all);
        let mut came = came.lock().unwrap().clone();
        came.sort();
        // The first and the last twentieth are the start and the end.
        let (first, last) = (expected / 20, expected - expected / 20);
        let seconds = (came[last] - came[first]).as_secs_f64();
        let rate = (last - first) as f64 / seconds;
        eprintln!(
            "deliveries, {latency} ms, concurrency {concurrency}: {instances} instances, {rate:.0} a second"
        );
    }
}

/// Scans in a second, by 1, 2 and 4 instances.
async fn scans(latency: u64) {
    const ORGANIZATIONS: usize = 60;
    let world = World::with_projects(100, |n| format!("prod-{n}"));
    let router = AdminApi::new(world).router().layer(axum::middleware::from_fn(
        move |request: Request, next: Next| async move {
            tokio::time::sleep(Duration::from_millis(latency)).await;
            next.run(request).await
        },
    ));
    let api = serve(router).await;
    for instances in [1, 2, 4, 1, 2, 4] {
        let Some(database) = postgres::database().await else { return };
        let text = format!("{}{YEARLY}{}", organizations(ORGANIZATIONS, api), state(&database));
        let all: Vec<Daemon> = (0..instances).map(|_| Daemon::start(&text)).collect();
        until("the scans", async || {
            // The tables are made by the first.
            let there =
                database.number("SELECT count(*) FROM pg_class WHERE relname = 'heartbeats'").await;
            there > 0 && database.number("SELECT count(*) FROM scans").await >= ORGANIZATIONS as i64
        })
        .await;
        let millis = database.number("SELECT max(finished_at) - min(started_at) FROM scans").await;
        drop(all);
        let rate = ORGANIZATIONS as f64 * 1_000.0 / millis as f64;
        eprintln!(
            "scans of 100 projects, {latency} ms: {instances} instances, {rate:.0} a second ({millis} ms)"
        );
    }
}

/// What one scan costs the database: its size, and how long it takes to keep.
async fn sizes() {
    for projects in [100, 1_000, 10_000] {
        let Some(database) = postgres::database().await else { return };
        let api = api(projects, 10).await;
        let text = format!("{}{YEARLY}{}", organizations(1, api), state(&database));
        let mut one = Daemon::start(&text);
        one.logged("scan finished", 0).await;
        let kept = database
            .number(
                "SELECT (SELECT sum(pg_column_size(inventory)) FROM organizations)::bigint
                   + (SELECT coalesce(sum(pg_column_size(content)), 0) FROM inventory_parts)::bigint",
            )
            .await;
        let written = database
            .number(
                "SELECT (SELECT sum(length(inventory)) FROM organizations)::bigint
                   + (SELECT coalesce(sum(length(content)), 0) FROM inventory_parts)::bigint",
            )
            .await;
        let before =
            database.number("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").await;
        let at = one.log().len();
        one.signal("USR1");
        one.logged("scan finished", at).await;
        let wal =
            database.number("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").await
                - before;
        eprintln!(
            "an organization of {projects} projects: {written} bytes of JSON, {kept} kept, {wal} bytes of WAL for a scan, \
             peak memory {} KiB",
            one.peak_kib()
        );
        one.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; see above"]
async fn growth() {
    deliveries(50, 4).await;
    deliveries(0, 16).await;
    scans(50).await;
    scans(0).await;
    sizes().await;
}
