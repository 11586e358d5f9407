//! Faults of the database: nothing can be sent, so the log, the exit code, `/readyz` and the
//! missing heartbeat report them.

use certvigil::{clock::Clock, demo::world::World};
use chrono::TimeDelta;
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

use super::{
    daemon::{Beats, Daemon},
    support::{Sim, certvigil, days, run, until, with},
};

async fn sim() -> Sim {
    let mut world = World::with_projects(2, |n| format!("prod-{n}"));
    world.add("cert_a", Some("first"), Some(Clock::System.now() + days(5)), 1..=2);
    Sim::start(world).await
}

fn config(sim: &Sim, beats: &Beats) -> String {
    format!(
        "{}[schedule]\ncron = \"* * * * * *\"\n[state]\nurl = \"sqlite:state.db\"\n[monitoring]\n{}",
        sim.config(),
        beats.config()
    )
}

fn posted(sim: &Sim, what: &str) -> usize {
    sim.receiver.posts().iter().filter(|post| post.body.contains(what)).count()
}

/// Waits until the state says that a message was delivered.
async fn recorded(daemon: &Daemon) {
    for _ in 0..3_000 {
        let (_, page) = daemon.get("/api/v1/deliveries?state=delivered").await.unwrap();
        if page["data"].as_array().unwrap().iter().any(|one| one["settled_at"].is_string()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no delivery was recorded within a minute");
}

/// A disk with little room: a file system of its own where that may be had, or else a limit on the
/// size of files.
enum SmallDisk {
    Mounted(PathBuf),
    Limited,
}

impl SmallDisk {
    fn at(folder: &Path) -> SmallDisk {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if mounted { SmallDisk::Mounted(folder.to_owned()) } else { SmallDisk::Limited }
    }

    fn fill(&self, daemon: &Daemon) {
        match self {
            SmallDisk::Mounted(folder) => {
                let mut filler = fs::File::create(folder.join("filler")).unwrap();
                while filler.write_all(&[0; 4_096]).is_ok() {}
            }
            SmallDisk::Limited => limit(daemon, "16384"),
        }
    }

    fn empty(&self, daemon: &Daemon) {
        match self {
            SmallDisk::Mounted(folder) => fs::remove_file(folder.join("filler")).unwrap(),
            SmallDisk::Limited => limit(daemon, "unlimited"),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let SmallDisk::Mounted(folder) = self {
            drop(Command::new("umount").arg("--lazy").arg(folder).status());
        }
    }
}

/// Limits the size of the files that the service writes.
fn limit(daemon: &Daemon, bytes: &str) {
    let id = daemon.running.0.id().to_string();
    let limit = format!("--fsize={bytes}:");
    assert!(Command::new("prlimit").args(["--pid", &id, &limit]).status().unwrap().success());
}

#[tokio::test]
async fn a_full_disk_is_reported_and_alerts_follow_when_there_is_room() {
    let (sim, beats) = (sim().await, Beats::start().await);
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::at(folder.path());
    // Where files are limited, the signal that comes with it is not to end the service.
    let mut daemon = Daemon::start_in(folder, &config(&sim, &beats), |command| {
        let binary = command.get_program().to_owned();
        let mut wrapped = Command::new("sh");
        wrapped
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(binary)
            .args(command.get_args());
        wrapped.current_dir(command.get_current_dir().unwrap()).env_clear();
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *command = wrapped;
    });
    until("the first heartbeat", || (beats.well() > 0).then_some(())).await;
    // What arrived but was not recorded is sent again, under the same id: that would be another
    // test.
    recorded(&daemon).await;
    disk.fill(&daemon);
    let end = daemon.logged("scan not saved: certvigil repeats the scan", 0).await;
    let body = daemon.ready(503).await;
    assert!(body["reasons"].to_string().contains("was not saved"), "{body:#}");
    assert_eq!(daemon.get("/healthz").await.unwrap().0, 200, "the process works");
    sim.api.world().add("cert_b", Some("second"), Some(Clock::System.now() + days(3)), [1]);
    let end = daemon.logged("scan not saved", end).await;
    let before = beats.well();
    daemon.logged("scan not saved", end).await;
    assert_eq!((beats.well(), posted(&sim, "cert_b")), (before, 0));
    disk.empty(&daemon);
    until("the alert that was not saved", || (posted(&sim, "cert_b") == 1).then_some(())).await;
    until("the heartbeat again", || (beats.well() > before).then_some(())).await;
    daemon.ready(200).await;
    daemon.stop().await;
    assert_eq!(posted(&sim, "cert_a"), 1, "nothing is repeated");
}

#[tokio::test]
async fn a_state_that_somebody_else_holds_is_waited_for() {
    let (sim, beats) = (sim().await, Beats::start().await);
    let mut daemon = Daemon::start(&config(&sim, &beats));
    until("the first heartbeat", || (beats.well() > 0).then_some(())).await;
    let file = daemon.folder.path().join("state.db");
    let mut other = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    daemon.logged("database is locked", 0).await;
    let body = daemon.ready(503).await;
    assert!(body["reasons"].to_string().contains("database is locked"), "{body:#}");
    // Readers do not wait, and see that the database is damaged.
    let page = daemon.text("/").await;
    assert!(page.contains("was not saved") || page.contains("are blocked"), "{page}");
    let before = beats.well();
    let folder = daemon.folder.path();
    let (code, _, log) = run(with(folder, &config(&sim, &beats), &["run"])).await;
    assert_eq!(code, 1);
    assert!(log.contains("is in use by another certvigil"), "{log}");
    sim.api.world().add("cert_b", Some("second"), Some(Clock::System.now() + days(3)), [1]);
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    until("what waited for it", || (posted(&sim, "cert_b") == 1).then_some(())).await;
    until("the heartbeat again", || (beats.well() > before).then_some(())).await;
    daemon.ready(200).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_delivery_that_is_held_back_is_an_error_until_it_is_attempted() {
    let (sim, beats) = (sim().await, Beats::start().await);
    let mut daemon = Daemon::start(&config(&sim, &beats));
    until("the first message", || (posted(&sim, "cert_a") == 1).then_some(())).await;
    daemon.ready(200).await;
    let file = daemon.folder.path().join("state.db");
    let mut other = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
    let at = |hours: i64| (Clock::System.now() + TimeDelta::hours(hours)).timestamp_millis();
    sqlx::query("DELETE FROM attempts").execute(&mut other).await.unwrap();
    let hold = "UPDATE deliveries SET state = 'pending', settled_at = NULL, created_at = $1,
                next_attempt_at = $2 WHERE notifier = 'hook'";
    sqlx::query(hold).bind(at(-2)).bind(at(1)).execute(&mut other).await.unwrap();
    let body = daemon.ready(503).await;
    assert!(
        body["reasons"]
            .to_string()
            .contains("deliveries of the notifier hook pending without an attempt: 1"),
        "{body:#}"
    );
    daemon.logged("deliveries pending for longer than delivery.retry_max without", 0).await;
    let due = "UPDATE deliveries SET next_attempt_at = 0 WHERE notifier = 'hook'";
    sqlx::query(due).execute(&mut other).await.unwrap();
    until("it is delivered", || (posted(&sim, "cert_a") == 2).then_some(())).await;
    daemon.ready(200).await;
    daemon.stop().await;
}

/// A state of one scan, with nothing running.
async fn state(sim: &Sim, beats: &Beats) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (_, _, log) = run(with(folder.path(), &config(sim, beats), &["check", "--notify"])).await;
    let file = folder.path().join("state.db");
    assert!(file.exists() && !folder.path().join("state.db-wal").exists(), "{log}");
    (folder, file)
}

/// What starting on it comes to.
async fn refused(sim: &Sim, beats: &Beats, folder: &TempDir, said: &str) {
    let before = (beats.well(), sim.receiver.posts().len());
    let (code, _, log) = run(with(folder.path(), &config(sim, beats), &["run"])).await;
    assert_eq!(code, 1, "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("error: ") && last.contains(said), "{log}");
    assert_eq!((beats.well(), sim.receiver.posts().len()), before);
}

#[tokio::test]
async fn a_state_that_is_damaged_or_of_a_newer_version_refuses_to_start() {
    let (sim, beats) = (sim().await, Beats::start().await);
    let (folder, file) = state(&sim, &beats).await;
    let good = fs::read(&file).unwrap();

    fs::write(&file, "this is no database, whatever its name says").unwrap();
    refused(&sim, &beats, &folder, "file is not a database").await;

    // Every page but the first.
    fs::write(&file, &good).unwrap();
    let mut middle = OpenOptions::new().write(true).open(&file).unwrap();
    middle.seek(SeekFrom::Start(4_096)).unwrap();
    middle.write_all(&vec![0x5a; good.len() - 4_096]).unwrap();
    refused(&sim, &beats, &folder, "is damaged").await;

    fs::write(&file, &good).unwrap();
    let mut newer = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of a time to come', 1, x'00', 1)",
    )
    .execute(&mut newer)
    .await
    .unwrap();
    newer.close().await.unwrap();
    refused(&sim, &beats, &folder, "was written by a newer certvigil").await;
}

#[tokio::test]
async fn a_state_that_cannot_be_written_refuses_to_start() {
    let (sim, beats) = (sim().await, Beats::start().await);
    let (folder, file) = state(&sim, &beats).await;
    let config = folder.path().join("c.toml");
    fs::write(&config, super::faults_state::config(&sim, &beats)).unwrap();
    for (path, mode) in [(&file, 0o444), (&config, 0o444), (&folder.path().to_owned(), 0o555)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    // Root ignores permissions, so this runs as another user.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::set_permissions(elsewhere.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = elsewhere.path().join("certvigil");
    fs::copy(env!("CARGO_BIN_EXE_certvigil"), &binary).unwrap();
    let root = fs::write(folder.path().join("probe"), "").is_ok();
    let mut command = if root {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
        command
    } else {
        Command::new(&binary)
    };
    command.current_dir(folder.path()).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("CERTVIGIL__HTTP__LISTEN", "off").args(["--config", "c.toml", "run"]);
    let before = (beats.well(), sim.receiver.posts().len());
    let (code, _, log) = run(command).await;
    assert_eq!(code, 1, "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.contains("cannot open the database state.db: Permission denied"), "{log}");
    assert_eq!((beats.well(), sim.receiver.posts().len()), before);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();

    // Nor one in a folder that is not there.
    let mut command = certvigil(folder.path());
    command.env("CERTVIGIL__STATE__URL", "sqlite:nowhere/state.db");
    command.args(["--config", "c.toml", "run"]);
    let (code, _, log) = run(command).await;
    assert_eq!(code, 1);
    assert!(log.contains("nowhere/state.db: No such file or directory"), "{log}");
}

#[tokio::test]
async fn a_database_file_that_is_removed_or_replaced_ends_the_service_with_an_error() {
    for replaced in [false, true] {
        let (sim, beats) = (sim().await, Beats::start().await);
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state.db");
        let mut daemon = Daemon::start_in(folder, &config(&sim, &beats), |_| ());
        until("the first heartbeat", || (beats.well() > 0).then_some(())).await;
        fs::remove_file(&state).unwrap();
        if replaced {
            fs::write(&state, b"").unwrap();
        }
        let (code, _) = daemon.ended().await;
        assert_eq!(code, Some(1), "{}", daemon.log());
        let log = daemon.log();
        assert!(log.contains("the database file was removed or replaced"), "{log}");
        let at_the_end = beats.well();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(beats.well(), at_the_end);
    }
}

#[tokio::test]
async fn a_second_service_on_the_same_database_is_refused_whatever_its_name_and_its_lock_file() {
    let (sim, beats) = (sim().await, Beats::start().await);
    let mut daemon = Daemon::start(&config(&sim, &beats));
    until("the first heartbeat", || (beats.well() > 0).then_some(())).await;
    let folder = daemon.folder.path();
    fs::hard_link(folder.join("state.db"), folder.join("other.db")).unwrap();
    fs::remove_file(folder.join("state.db.lock")).unwrap();
    for file in ["state.db", "other.db"] {
        let text = config(&sim, &beats).replace("state.db", file);
        let (code, _, log) = run(with(folder, &text, &["run"])).await;
        assert_eq!(code, 1, "{file}: {log}");
        assert!(log.contains("is in use by another certvigil"), "{file}: {log}");
    }
    daemon.stop().await;
    assert_eq!(posted(&sim, "cert_a"), 1, "nothing is repeated");
}

#[tokio::test]
async fn the_database_is_its_owners_alone_whatever_the_umask_and_nobody_chooses_its_lock() {
    let (sim, beats) = (sim().await, Beats::start().await);
    let folder = tempfile::tempdir().unwrap();
    let mode = |name: &str| {
        let metadata = fs::metadata(folder.path().join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    let check = |umask: &str| {
        let command = with(folder.path(), &config(&sim, &beats), &["check", "--notify"]);
        let mut open = Command::new("sh");
        open.args(["-c", "umask \"$0\"; exec \"$@\"", umask]).arg(command.get_program());
        open.args(command.get_args()).current_dir(folder.path()).env_clear();
        open.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        run(open)
    };
    assert_eq!(check("0").await.0, 2);
    assert_eq!((mode("state.db"), mode("state.db.lock")), (0o600, 0o600));
    // Others could lock a file that they may read, and keep the service away.
    let open = fs::Permissions::from_mode(0o664);
    fs::set_permissions(folder.path().join("state.db"), open.clone()).unwrap();
    fs::set_permissions(folder.path().join("state.db.lock"), open).unwrap();
    assert_eq!(check("0").await.0, 2);
    assert_eq!((mode("state.db"), mode("state.db.lock")), (0o660, 0o660));
    // Somebody put a link in the lock's place.
    let victim = folder.path().join("victim");
    fs::write(&victim, "as it was").unwrap();
    fs::remove_file(folder.path().join("state.db.lock")).unwrap();
    std::os::unix::fs::symlink(&victim, folder.path().join("state.db.lock")).unwrap();
    let (code, _, log) = check("0").await;
    assert_eq!(code, 3, "{log}");
    assert!(log.contains("state.db.lock: Too many levels of symbolic links"), "{log}");
    assert_eq!(fs::read_to_string(victim).unwrap(), "as it was");
}

/// S2: a configuration file that is not found is no decision to forget.
#[tokio::test]
async fn a_start_without_its_configuration_file_forgets_nothing() {
    let (sim, beats) = (sim().await, Beats::start().await);
    let (folder, _) = state(&sim, &beats).await;
    let mut command = certvigil(folder.path());
    command.arg("run").env("OPENAI_ADMIN_KEY", certvigil::demo::admin_api::KEY);
    command.env("CERTVIGIL__STATE__URL", "sqlite:state.db");
    let api = format!("http://{}/v1", sim.api_address);
    command.env("CERTVIGIL__ORGANIZATIONS__DEFAULT__BASE_URL", api);
    let before = sim.receiver.posts().len();
    let (code, _, log) = run(command).await;
    assert_eq!(code, 1, "{log}");
    let why = "no configuration file was found (/etc/certvigil/certvigil.toml, ./certvigil.toml), but the database contains \
               the organization acme";
    assert!(log.contains(why), "{log}");
    assert_eq!(sim.receiver.posts().len(), before, "nothing is resolved");
    // The next correct start goes on as before.
    let (code, _, log) =
        run(with(folder.path(), &config(&sim, &beats), &["check", "--notify"])).await;
    assert_eq!((code, sim.receiver.posts().len()), (2, before), "{log}");
}
