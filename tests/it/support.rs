//! What the tests share: the simulated world, a service with its own state, certificates, raw
//! servers.

use axum::Router;
use certvigil::{
    clock::Clock,
    config::{Config, Needs, from_text},
    demo::{
        admin_api::{AdminApi, KEY},
        mailbox::{Mailbox, Terms},
        receiver::{Receiver, SECRET},
        world::World,
    },
    domain::{alert::Reason, certificate::OrganizationName},
    message::Event,
    notify::Notifier,
    service::{self, Timing},
    store::{LEASE, Lease, LeaseOutcome, Store, StoreError},
    usecase::{
        deliver,
        scan::{self, Progress, Report, Target},
        watch_notifiers,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

/// Noon on a Monday.
pub fn start() -> DateTime<Utc> {
    "2027-02-01T12:00:00Z".parse().unwrap()
}

pub fn days(n: i64) -> TimeDelta {
    TimeDelta::days(n)
}

/// One provider of cryptography for the process, as the binary has it.
pub fn crypto() {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

/// A configuration in `folder`, with the sections that a test cares about.
pub fn config(folder: &Path, text: &str) -> Config {
    let loaded = from_text(&folder.join("certvigil.toml"), text, Needs::ALL);
    loaded.unwrap_or_else(|refused| panic!("{refused}")).config
}

pub fn organization(api: SocketAddr) -> String {
    format!(
        "[organizations.acme]\nadmin_key = \"{KEY}\"\nbase_url = \"http://{api}/v1\"\n\
         requests_per_second = 0\n"
    )
}

pub fn email(mailbox: &Mailbox, to: &[&str]) -> String {
    let port = mailbox.address.port();
    format!(
        "[notifiers.email.ops]\nto = {to:?}\n[smtp]\nhost = \"127.0.0.1\"\nport = {port}\n\
         tls = \"none\"\nfrom = \"certvigil <certvigil@acme.example>\"\ntimeout = \"5s\"\n"
    )
}

pub fn webhook(hook: SocketAddr) -> String {
    format!("[notifiers.webhook.hook]\nurl = \"http://{hook}/hook\"\nsecret = \"{SECRET}\"\n")
}

/// What a commit takes.
pub async fn lease(store: &Store, of: Option<&OrganizationName>) -> Lease {
    match store.take(of, None, LEASE, start()).await.unwrap() {
        LeaseOutcome::Acquired(lease) => lease,
        other => panic!("{other:?}"),
    }
}

/// The service's parts, stepped by hand along a clock of the test.
pub struct Service {
    pub folder: TempDir,
    pub config: Config,
    pub target: Target,
    pub notifiers: Vec<Arc<dyn Notifier>>,
    pub store: Store,
}

/// A process that another test has forked holds the lock until it runs its program.
async fn open(config: &Config) -> Store {
    let begun = std::time::Instant::now();
    loop {
        match Store::open(&config.state).await {
            Err(StoreError::InUse(_)) if begun.elapsed().as_secs() < 5 => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            opened => return opened.unwrap(),
        }
    }
}

impl Service {
    pub async fn start(text: &str) -> Service {
        Service::start_in(tempfile::tempdir().unwrap(), text).await
    }

    pub async fn start_in(folder: TempDir, text: &str) -> Service {
        crypto();
        let config = config(folder.path(), &format!("{text}[state]\nurl = \"sqlite:state.db\"\n"));
        let target = service::target(&config, &config.organizations[0], &Clock::System).unwrap();
        let notifiers = service::notifiers(&config).unwrap();
        let store = open(&config).await;
        Service { folder, config, target, notifiers, store }
    }

    /// Restarts it on the same database with this configuration.
    pub async fn restart(self, text: &str, now: DateTime<Utc>) -> Service {
        let Service { folder, store, .. } = self;
        drop(store);
        let service = Service::start_in(folder, text).await;
        service::settle_changes(&service.config, &service.store, &service.notifiers, now)
            .await
            .unwrap();
        service
    }

    pub async fn scan(&self, now: DateTime<Utc>) -> Report {
        let (progress, _) = tokio::sync::watch::channel(Progress::default());
        let give_up_after = self.config.delivery.give_up_after;
        scan::run_once(
            &self.target,
            &self.store,
            &self.notifiers,
            give_up_after,
            service::when(&self.config.schedule, now, now),
            lease(&self.store, Some(self.target.api.organization())).await,
            &progress,
        )
        .await
        .unwrap()
    }

    /// Sends drills and summaries, and checks the notifiers, as one instance does for all.
    pub async fn check(
        &self,
        started_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> watch_notifiers::Report {
        let (store, notifiers) = (&self.store, &self.notifiers);
        let jobs = service::jobs(&self.config, &Timing::default(), now);
        let lease = lease(store, None).await;
        let report = jobs.run_once(store, notifiers, started_at, lease, now).await;
        report.drill.unwrap();
        report.summaries.unwrap();
        report.notifiers.unwrap()
    }

    /// A minute after the scan that `now` was the start of.
    pub async fn deliver(&self, now: DateTime<Utc>) -> Vec<deliver::Report> {
        let now = now + TimeDelta::minutes(1);
        let mut reports = Vec::new();
        let never = CancellationToken::new();
        for notifier in &self.notifiers {
            let policy = &self.config.delivery;
            let pass = deliver::run_once(&self.store, notifier.as_ref(), policy, now, &never).await;
            reports.push(pass.unwrap());
        }
        reports
    }
}

/// The simulated world with everything in it.
pub struct Sim {
    pub api: AdminApi,
    pub api_address: SocketAddr,
    pub mailbox: Mailbox,
    pub receiver: Receiver,
    pub hook: SocketAddr,
}

impl Sim {
    pub async fn start(world: World) -> Sim {
        let api = AdminApi::new(world);
        let api_address = api.serve().await.unwrap();
        let receiver = Receiver::default();
        let hook = receiver.serve().await.unwrap();
        let mailbox = Mailbox::start(Terms::default()).unwrap();
        Sim { api, api_address, mailbox, receiver, hook }
    }

    /// A configuration of it: mail to two people, a signed webhook, the log.
    pub fn config(&self) -> String {
        let mut text = organization(self.api_address);
        text.push_str(&email(&self.mailbox, &["a@acme.example", "b@acme.example"]));
        text.push_str(&webhook(self.hook));
        text
    }
}

/// The alerts of the webhook since the last time: of each message's first one the event and the
/// reason, and its summary.
pub struct Heard<'a>(&'a Sim, usize);

impl Heard<'_> {
    pub fn of(sim: &Sim) -> Heard<'_> {
        Heard(sim, sim.receiver.posts().len())
    }

    pub fn news(&mut self) -> Vec<(&'static str, &'static str, String)> {
        let posts = self.0.receiver.posts();
        let new = posts[self.1..].iter().map(|post| {
            let body: serde_json::Value = serde_json::from_str(&post.body).unwrap();
            fits_schema(&body);
            let alert = &body["alerts"][0];
            let event = Event::parse(alert["event"].as_str().unwrap()).unwrap();
            let reason = Reason::parse(alert["reason"].as_str().unwrap()).unwrap();
            (event.as_str(), reason.as_str(), body["summary"].as_str().unwrap().to_owned())
        });
        let new = new.collect();
        self.1 = posts.len();
        new
    }
}

/// Serves a router over HTTP on a free port.
pub async fn serve(router: Router) -> SocketAddr {
    certvigil::demo::serve(router).await.unwrap()
}

/// A server of raw sockets: `talk` has each connection to itself.
pub async fn raw_server<F, Fut>(talk: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream));
        }
    });
    address
}

/// Answers every request of a connection with these bytes, and closes it.
pub async fn raw_answer(mut stream: TcpStream, answer: &'static [u8]) {
    let mut request = [0; 4096];
    drop(stream.read(&mut request).await);
    drop(stream.write_all(answer).await);
    drop(stream.shutdown().await);
}

/// A certificate authority, and a certificate of it for 127.0.0.1 and localhost, as files.
pub struct Tls {
    pub folder: TempDir,
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Tls {
    pub fn new() -> Tls {
        Tls::until("2050-01-01T00:00:00Z".parse().unwrap())
    }

    /// The same with a certificate that ends then.
    pub fn until(expires_at: DateTime<Utc>) -> Tls {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        crypto();
        let folder = tempfile::tempdir().unwrap();
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let issuer = Issuer::from_params(&ca, &ca_key);
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut parameters = CertificateParams::new(names).unwrap();
        let at = std::time::SystemTime::from(expires_at);
        parameters.not_after = at.into();
        let certificate = parameters.signed_by(&key, &issuer).unwrap();
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Tls {
            ca: write("ca.pem", ca_certificate.pem()),
            certificate: write("server.pem", certificate.pem()),
            key: write("server.key", key.serialize_pem()),
            folder,
        }
    }

    /// A TLS server's side with this certificate; with `clients`, one that demands a certificate of
    /// the same authority of its clients.
    pub fn acceptor(&self, clients: bool) -> tokio_rustls::TlsAcceptor {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let chain = vec![CertificateDer::from_pem_file(&self.certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let builder = rustls::ServerConfig::builder();
        let builder = if clients {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(&self.ca).unwrap()).unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots));
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        Arc::new(builder.with_single_cert(chain, key).unwrap()).into()
    }
}

/// Serves a router over HTTPS.
pub async fn serve_tls(router: Router, acceptor: tokio_rustls::TlsAcceptor) -> SocketAddr {
    struct TlsListener(TcpListener, tokio_rustls::TlsAcceptor);
    impl axum::serve::Listener for TlsListener {
        type Io = tokio_rustls::server::TlsStream<TcpStream>;
        type Addr = SocketAddr;
        async fn accept(&mut self) -> (Self::Io, SocketAddr) {
            loop {
                let Ok((stream, address)) = self.0.accept().await else { continue };
                if let Ok(stream) = self.1.accept(stream).await {
                    return (stream, address);
                }
            }
        }
        fn local_addr(&self) -> std::io::Result<SocketAddr> {
            self.0.local_addr()
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(TlsListener(listener, acceptor), router).await });
    address
}

/// The real binary in its own folder, with a minimal environment.
pub fn certvigil(folder: &Path) -> Command {
    // Measurements are of a release build.
    let binary = std::env::var_os("CERTVIGIL_BINARY");
    let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_certvigil").into());
    let mut command = Command::new(std::path::absolute(binary).unwrap());
    command.current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("CERTVIGIL__HTTP__LISTEN", "off");
    command
}

/// Writes a configuration and gives the binary with it.
pub fn with(folder: &Path, text: &str, arguments: &[&str]) -> Command {
    let file = folder.join("c.toml");
    // One that is there may be being read, by a service that is starting.
    if std::fs::read_to_string(&file).ok().as_deref() != Some(text) {
        std::fs::write(file, text).unwrap();
    }
    let mut command = certvigil(folder);
    command.args(["--config", "c.toml"]).args(arguments);
    command
}

/// Runs it to its end: exit code, stdout, stderr.
pub async fn run(mut command: Command) -> (i32, String, String) {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// A program that a test needs beyond Rust; where it is not there, a line says that the test was
/// skipped. With `CI=true` nothing may be.
pub fn program(name: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "{name} is not there: apt-get install {package}");
        eprintln!("skipped: it needs {name} (apt-get install {package})");
    }
    found
}

/// Whether this is root, which mounts and changes users; else a line says that the test was
/// skipped.
pub fn as_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "this is not root");
        eprintln!("skipped: it needs root, to mount");
    }
    is_root
}

/// A process that ends with the test.
pub struct Running(pub std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A port of 127.0.0.1 that was free a moment ago. Below those that Linux gives to connections, one
/// of which could take it before the program under test does.
pub fn free_port() -> u16 {
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(10_000..32_000)).find(is_free).unwrap()
}

/// Whether a webhook's body is as the published schema says.
pub fn fits_schema(body: &serde_json::Value) {
    let schema = include_str!("../../src/notify/webhook/notification.schema.json");
    let validator = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let errors: Vec<String> = validator.iter_errors(body).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{body:#}");
}

/// Waits until something is so; the limit only ends a test that would never.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3_000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{what}: not within a minute");
}
