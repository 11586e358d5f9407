//! Processes and their use of processor time, memory and wake-ups.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};
use wait4::Wait4;

/// What a process used from its start to its end.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Since the Unix epoch.
    pub started: Duration,
    pub wall: Duration,
    pub processor: Duration,
    pub peak_bytes: u64,
}

/// Runs a command to its end.
pub fn run<S: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> anyhow::Result<Usage> {
    let (started, clock) = (SystemTime::UNIX_EPOCH.elapsed()?, Instant::now());
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    let ended = child.wait4()?;
    anyhow::ensure!(ended.status.success(), "{}: {}: {said}", program.display(), ended.status);
    let used = ended.rusage;
    Ok(Usage {
        started,
        wall: clock.elapsed(),
        processor: used.utime + used.stime,
        peak_bytes: used.maxrss,
    })
}

/// A process that runs until this is dropped.
pub struct Service {
    child: Child,
    /// Since the Unix epoch.
    pub started: Duration,
}

impl Service {
    /// Starts a command, and gives it with the lines that it writes to the given stream.
    pub fn start(mut command: Command) -> anyhow::Result<Service> {
        let started = SystemTime::UNIX_EPOCH.elapsed()?;
        Ok(Service { child: command.stdin(Stdio::null()).spawn()?, started })
    }

    /// The first line of its standard output, which is piped.
    pub fn first_line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if let Some(stdout) = self.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        Ok(line.trim_end().to_owned())
    }

    /// A number of `/proc/PID/status`, in its unit.
    pub fn status(&self, key: &str) -> anyhow::Result<u64> {
        number(&format!("/proc/{}/status", self.child.id()), key)
    }

    /// How often its threads have gone to sleep and were woken.
    pub fn wake_ups(&self) -> anyhow::Result<u64> {
        let mut all = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let status = thread?.path().join("status");
            all += number(&status.to_string_lossy(), "voluntary_ctxt_switches")?;
        }
        Ok(all)
    }
}

fn number(file: &str, key: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    number.parse().map_err(|_| anyhow::anyhow!("{file} has no number for {key}"))
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
