//! The real service as a process, with what an operator sees of it: its log, its health, its
//! heartbeat, its signals.

use axum::{Router, extract::State, http::Uri};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tempfile::TempDir;

use super::support::{Running, certvigil, free_port, serve, until};

/// Who misses the heartbeat.
#[derive(Clone)]
pub struct Beats {
    pub address: SocketAddr,
    hits: Arc<Mutex<Vec<String>>>,
}

impl Beats {
    pub async fn start() -> Beats {
        let hits: Arc<Mutex<Vec<String>>> = Arc::default();
        let note = |State(hits): State<Arc<Mutex<Vec<String>>>>, uri: Uri| async move {
            hits.lock().unwrap().push(uri.path().to_owned());
        };
        let router = Router::new().fallback(note).with_state(Arc::clone(&hits));
        Beats { address: serve(router).await, hits }
    }

    /// The requested paths; `/beat` is the heartbeat.
    pub fn hits(&self) -> Vec<String> {
        self.hits.lock().unwrap().clone()
    }

    /// How often all was well.
    pub fn well(&self) -> usize {
        self.hits().iter().filter(|hit| *hit == "/beat").count()
    }

    pub fn config(&self) -> String {
        format!("heartbeat_url = \"http://{}/beat\"\nheartbeat_start_fail = true\n", self.address)
    }
}

/// A running service.
pub struct Daemon {
    pub folder: TempDir,
    pub running: Running,
    port: u16,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    pub fn start(text: &str) -> Daemon {
        Daemon::start_in(tempfile::tempdir().unwrap(), text, |_| {})
    }

    /// The same in a given folder, with changes to the command.
    pub fn start_in(folder: TempDir, text: &str, change: impl FnOnce(&mut Command)) -> Daemon {
        configure(folder.path(), text);
        let port = free_port();
        let mut command = certvigil(folder.path());
        command.args(["--config", "c.toml", "run"]).env("NO_COLOR", "1");
        command.env("CERTVIGIL__HTTP__LISTEN", format!("127.0.0.1:{port}"));
        change(&mut command);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let log: Arc<Mutex<String>> = Arc::default();
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut lines = lines.lock().unwrap();
                lines.push_str(&line);
                lines.push('\n');
            }
        });
        Daemon { folder, running: Running(child), port, log }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a text in the log behind its first `after` bytes; gives where it ends there.
    pub async fn logged(&self, text: &str, after: usize) -> usize {
        for _ in 0..3_000 {
            let log = self.log();
            if let Some(at) = log.get(after..).and_then(|log| log.find(text)) {
                return after + at + text.len();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("“{text}” is not in the log:\n{}", self.log());
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A request as a program makes it, that follows no redirect.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let none = reqwest::redirect::Policy::none();
        let client = reqwest::Client::builder().no_proxy().redirect(none).build().unwrap();
        client.request(method, self.url(path))
    }

    /// Status and body of a path.
    pub async fn get(&self, path: &str) -> Option<(u16, Value)> {
        let answer = self.request(reqwest::Method::GET, path).send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    }

    /// The body of a path, as it is.
    pub async fn text(&self, path: &str) -> String {
        let answer = self.request(reqwest::Method::GET, path).send().await.unwrap();
        answer.text().await.unwrap()
    }

    /// `/readyz`, once it answers with this status.
    pub async fn ready(&self, status: u16) -> Value {
        for _ in 0..3_000 {
            if let Some((code, body)) = self.get("/readyz").await
                && code == status
            {
                return body;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("/readyz is not {status}: {:?}\n{}", self.get("/readyz").await, self.log());
    }

    /// The most memory that it has had, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.running.0.id());
        let status = std::fs::read_to_string(status).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let id = self.running.0.id().to_string();
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap();
        assert!(sent.success());
    }

    /// Writes another configuration, and asks to load it.
    pub fn reload(&self, text: &str) {
        configure(self.folder.path(), text);
        self.signal("HUP");
    }

    /// The exit code, once it has ended, and how long that took from now.
    pub async fn ended(&mut self) -> (Option<i32>, Duration) {
        let asked = Instant::now();
        let child = &mut self.running.0;
        let status = until("the end of the service", || child.try_wait().unwrap()).await;
        (status.code(), asked.elapsed())
    }

    /// Stops it; within ten seconds, as promised, and a margin for a busy machine.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        let (code, took) = self.ended().await;
        assert_eq!(code, Some(0), "{}", self.log());
        assert!(took < Duration::from_secs(12), "{took:?}\n{}", self.log());
    }
}

fn configure(folder: &Path, text: &str) {
    std::fs::write(folder.join("c.toml"), text).unwrap();
}
