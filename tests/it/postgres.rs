//! A PostgreSQL server of the tests' own: started once, from the machine's binaries, by a user who
//! is not root, on
//! 127.0.0.1; it ends with the process. Each test has a database of its own. And a line to it that
//! can be cut.

use certvigil::{
    secret::Secret,
    store::{Place, Server, Settings},
};
use sqlx::{Connection, PgConnection};
use std::{
    io::Write,
    net::SocketAddr,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::support::{Running, days, free_port};

/// Debian's `nobody`: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;

struct Cluster {
    port: u16,
    /// Ends the server when its input ends, that is, with this process.
    _shell: Child,
}

static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The folder with the server's binaries, where it is installed.
pub fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok();
    let mut found: Vec<PathBuf> = versions
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|folder| folder.join("initdb").is_file())
        .collect();
    found.sort();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).find(|folder| folder.join("initdb").is_file());
    let found = found.pop().or(on_path);
    if found.is_none() {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "PostgreSQL is not there: apt-get install postgresql");
        eprintln!("skipped: it needs PostgreSQL (apt-get install postgresql)");
    }
    found
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}

/// What runs a program as somebody who is not root.
fn as_nobody() -> Vec<String> {
    let words = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    if is_root() { words.map(str::to_owned).to_vec() } else { Vec::new() }
}

/// A folder with a new cluster in it, whose superuser is `postgres`; `settings` are added to its
/// configuration.
pub fn new_cluster(binaries: &Path, settings: &str) -> PathBuf {
    let folder = tempfile::Builder::new().prefix("certvigil-pg").tempdir().unwrap().keep();
    if is_root() {
        chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let data = folder.join("data");
    let mut command: Vec<String> = as_nobody();
    command.push(binaries.join("initdb").display().to_string());
    for word in ["-U", "postgres", "-A", "trust", "-N", "--locale=C.UTF-8", "-D"] {
        command.push(word.to_owned());
    }
    command.push(data.display().to_string());
    let made = Command::new(&command[0]).args(&command[1..]).current_dir("/").output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut file =
        std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
    writeln!(
        file,
        "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = {}\n\
         max_connections = 300\n{settings}",
        folder.display(),
        // What a test leaves is thrown away; a measurement asks for the disk.
        std::env::var("CERTVIGIL_FSYNC").unwrap_or("off".to_owned())
    )
    .unwrap();
    folder
}

/// A server that runs on a cluster, until its input ends.
pub fn serve(binaries: &Path, folder: &Path, port: u16) -> Child {
    let server = format!(
        "{} {}/postgres -D {}/data -p {port}",
        as_nobody().join(" "),
        binaries.display(),
        folder.display()
    );
    // An immediate end, for nobody uses it again.
    let folder = folder.display();
    let script = format!(
        "{server} >{folder}/log 2>&1 & pid=$!; cat; kill -QUIT $pid; wait $pid; rm -rf {folder}"
    );
    Command::new("sh")
        .args(["-c", &script])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn cluster() -> Option<&'static Cluster> {
    let started = CLUSTER.get_or_init(|| {
        let binaries = binaries()?;
        let folder = new_cluster(&binaries, "");
        let port = free_port();
        let shell = serve(&binaries, &folder, port);
        Some(Cluster { port, _shell: shell })
    });
    started.as_ref()
}

/// A connection as the superuser.
pub async fn connect(url: &str) -> PgConnection {
    let begun = std::time::Instant::now();
    loop {
        match PgConnection::connect(url).await {
            Ok(connection) => return connection,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{url}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A database of the test's own.
pub struct Database {
    pub url: String,
    pub address: SocketAddr,
    pub name: String,
}

/// Starts a server; `None` if PostgreSQL is not installed, which the test reports.
pub async fn database() -> Option<Database> {
    let port = cluster()?.port;
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::SeqCst));
    let mut admin = connect(&format!("postgres://postgres@127.0.0.1:{port}/postgres")).await;
    let create: &'static str = format!("CREATE DATABASE {name}").leak();
    sqlx::query(create).execute(&mut admin).await.unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Some(Database { url: format!("postgres://postgres@{address}/{name}"), address, name })
}

impl Database {
    pub fn settings(&self) -> Settings {
        settings(&self.url)
    }

    /// What a statement gives, as one number.
    pub async fn number(&self, statement: &'static str) -> i64 {
        let mut connection = connect(&self.url).await;
        sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
    }

    pub async fn say(&self, statement: &'static str) {
        let mut connection = connect(&self.url).await;
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    }
}

pub fn settings(url: &str) -> Settings {
    let url = Secret::Literal(secrecy::SecretString::from(url.to_owned()));
    let server = Server {
        url,
        password: None,
        ca_file: None,
        max_connections: 10,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(20),
    };
    Settings { place: Place::Server(server), history: days(400) }
}

/// A PgBouncer with its stock configuration, in front of the tests' server; none where it is not
/// installed.
pub async fn pooler(database: &Database) -> Option<(Running, String)> {
    let program = super::support::program("pgbouncer", "pgbouncer")?;
    let folder = tempfile::Builder::new().prefix("certvigil-pgb").tempdir().unwrap().keep();
    let (port, server) = (free_port(), database.address.port());
    let file = folder.join("pgbouncer.ini");
    let text = format!(
        "[databases]\n* = host=127.0.0.1 port={server} user=postgres\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = session\n"
    );
    std::fs::write(&file, text).unwrap();
    if is_root() {
        chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut words = as_nobody();
    words.push(program.display().to_string());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg("-q").arg(&file).stdin(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn().unwrap());
    let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).ok();
    super::support::until("the pooler", listens).await;
    Some((running, format!("postgres://postgres@127.0.0.1:{port}/{}", database.name)))
}

/// The fate of data on a [`Line`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    Flows,
    /// Data is dropped silently.
    Stuck,
    /// Every connection is ended, and none is taken.
    Cut,
}

/// A TCP proxy, that can be cut.
pub struct Line {
    pub address: SocketAddr,
    traffic: watch::Sender<Traffic>,
}

impl Line {
    pub async fn to(target: SocketAddr) -> Arc<Line> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = Arc::new(Line {
            address: listener.local_addr().unwrap(),
            traffic: watch::channel(Traffic::Flows).0,
        });
        let traffic = line.traffic.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *traffic.borrow() == Traffic::Cut {
                    continue;
                }
                let traffic = traffic.clone();
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let ((near_in, near_out), (far_in, far_out)) =
                        (near.into_split(), far.into_split());
                    tokio::join!(
                        pass(near_in, far_out, traffic.clone()),
                        pass(far_in, near_out, traffic)
                    );
                });
            }
        });
        line
    }

    pub fn set(&self, traffic: Traffic) {
        self.traffic.send_replace(traffic);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut traffic: watch::Receiver<Traffic>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let now = *traffic.borrow_and_update();
        match now {
            Traffic::Cut => return,
            Traffic::Stuck => {
                if traffic.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Traffic::Flows => {}
        }
        tokio::select! {
            changed = traffic.changed() => if changed.is_err() { return },
            read = tokio::io::AsyncReadExt::read(&mut from, &mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(bytes) => {
                    // Data received just before is stuck, too.
                    while *traffic.borrow() == Traffic::Stuck {
                        if traffic.changed().await.is_err() { return }
                    }
                    if to.write_all(&buffer[..bytes]).await.is_err() { return }
                }
            },
        }
    }
}
