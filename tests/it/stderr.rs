//! Nobody reads stderr: the service goes on, and says so wherever else it can.

use certvigil::{clock::Clock, demo::world::World};
use std::{io::Write, process::Stdio, time::Duration};

use super::support::{Running, Sim, days, free_port, until, with};

/// What a pipe takes on Linux (pipe(7)).
const PIPE: usize = 65_536;

/// How long SIGTERM may take.
const STOPPING: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_stderr_that_nobody_reads_stops_neither_the_work_nor_the_end() {
    let mut world = World::with_projects(1, |n| format!("prod-{n}"));
    let expires = Clock::System.now() + days(5);
    world.add("cert_a", Some("first"), Some(expires), [1]);
    let sim = Sim::start(world).await;
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let text = format!(
        "{}[notifiers.log.log]\n[log]\nlevel = \"trace,hyper=trace,hyper_util=trace\"\n[schedule]\ncron = \"* * * * * *\"\n\
         run_on_start = true\n",
        sim.config()
    );
    let (_unread, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&vec![b'.'; PIPE]).unwrap();
    let mut command = with(folder.path(), &text, &["run"]);
    command.env("CERTVIGIL__HTTP__LISTEN", format!("127.0.0.1:{port}"));
    command.stdout(Stdio::from(writer.try_clone().unwrap())).stderr(Stdio::from(writer));
    let mut service = Running(command.spawn().unwrap());
    // Whatever is delivered to the webhook comes from a scan and a delivery that were not held up.
    until("the first alert", || (!sim.receiver.posts().is_empty()).then_some(())).await;
    sim.api.world().add("cert_b", Some("second"), Some(expires), [1]);
    until("the second alert", || (sim.receiver.posts().len() > 1).then_some(())).await;
    let metrics = format!("http://127.0.0.1:{port}/metrics");
    let dropped = async || {
        let text = reqwest::get(&metrics).await.ok()?.text().await.ok()?;
        let line =
            text.lines().find(|line| line.starts_with("certvigil_log_lines_dropped_total"))?;
        line.split(' ').nth(1)?.parse::<f64>().ok().filter(|lines| *lines > 0.0)
    };
    let begun = std::time::Instant::now();
    while dropped().await.is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "lines are dropped and counted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let process = rustix::process::Pid::from_child(&service.0);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let begun = std::time::Instant::now();
    let ended = until("the end", || service.0.try_wait().unwrap()).await;
    assert!(ended.success() && begun.elapsed() < STOPPING, "{ended} after {:?}", begun.elapsed());
}
