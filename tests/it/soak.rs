//! Twelve days at a scan a minute, in one process: `state.history` bounds the database, and memory
//! and file descriptors do not grow.

use certvigil::demo::world::World;
use chrono::TimeDelta;
use std::{path::Path, process::Command};

use super::support::{Service, Sim, days, start};

/// Set for the process that does it.
const ALONE: &str = "CERTVIGIL_SOAK";

/// What the process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    resident_kib: u64,
    descriptors: usize,
    database_kib: u64,
}

impl Held {
    fn now(folder: &Path) -> Held {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident_kib = resident.trim().trim_end_matches(" kB").parse().unwrap();
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let size = |name: &str| std::fs::metadata(folder.join(name)).map_or(0, |file| file.len());
        let database_kib = (size("state.db") + size("state.db-wal")) / 1_024;
        Held { resident_kib, descriptors, database_kib }
    }
}

/// The days of the soak.
const DAYS: i64 = 12;
/// The days until nothing may grow any more: by then the oldest records have been deleted.
const SETTLED: usize = 4;

async fn soak() -> Vec<Held> {
    let mut world = World::with_projects(2, |n| format!("prod-{n}"));
    for n in 0..6 {
        // One comes into each stage every few days, and expires in the end.
        let end = start() + days(2 * n + 1);
        world.add(&format!("cert_{n}"), Some("some-ca"), Some(end), [1 + n as usize % 2]);
    }
    let sim = Sim::start(world).await;
    // In memory if possible: the disk is slow and is not measured.
    let folder = match tempfile::tempdir_in("/dev/shm") {
        Ok(folder) => folder,
        Err(_) => tempfile::tempdir().unwrap(),
    };
    let text = format!(
        "{}[notifiers.log.log]\n[schedule]\ncron = \"* * * * *\"\nscan_timeout = \"30s\"\n[monitoring]\nblind_after = \"10m\"\n",
        sim.config()
    );
    let service = Service::start_in(folder, &text).await;
    let (history, mut held) = (days(1), Vec::new());
    for minute in 0..DAYS * 24 * 60 {
        let now = start() + TimeDelta::minutes(minute);
        // A fault each hour, and one project each day for long enough to alert.
        let broken = minute % 60 == 7 || (minute % 1_440 > 600 && minute % 1_440 < 615);
        sim.api.world().projects[1].broken = broken.then_some(403);
        let news = service.scan(now).await.notifications > 0;
        if news || minute % 5 == 0 {
            service.deliver(now).await;
        }
        if minute % 5 == 0 {
            service.check(start(), now).await;
        }
        drop(sim.api.take_requests());
        if minute % 1_440 == 1_439 {
            service.store.prune(now - history).await.unwrap();
            // What the simulated receivers keep is theirs.
            sim.receiver.forget();
            sim.mailbox.forget();
            held.push(Held::now(service.folder.path()));
        }
    }
    held
}

/// Runs in a process of its own, so that nothing else is measured.
#[test]
fn twelve_days_at_a_scan_a_minute_grow_nothing() {
    if std::env::var_os(ALONE).is_none() {
        let mut alone = Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", "soak::twelve_days_at_a_scan_a_minute_grow_nothing", "--nocapture"]);
        let output = alone.env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
        eprintln!("{said}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let held = runtime.block_on(soak());
    let (early, late) = (held[SETTLED - 1], held[DAYS as usize - 1]);
    eprintln!("after {SETTLED} days {early:?}\nafter {DAYS} days {late:?}");
    assert_eq!(late.descriptors, early.descriptors);
    assert!(late.resident_kib < early.resident_kib + 6 * 1_024, "{early:?} {late:?}");
    assert!(late.database_kib < early.database_kib * 5 / 4 + 64, "{early:?} {late:?}");
}
