//! The claims of `docs/explanation/security.md`, each attacked through the real binary. The guide
//! shows the table that comes of it.

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Redirect},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use certvigil::{
    clock::Clock,
    demo::{admin_api::KEY, receiver::SECRET, world::World},
};
use reqwest::{
    Method, RequestBuilder,
    header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN, SET_COOKIE},
};
use std::{
    ffi::OsStr,
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    daemon::Daemon,
    smtp::{polite, server},
    support::{
        Sim, Tls, as_root, certvigil, organization, raw_server, run, serve, serve_tls, until, with,
    },
    window::{PATHS, TOKEN, demo, guarded, told},
};

const READ_TOKEN: &str = "only-for-prometheus";
const PASSWORD: &str = "hunter2-and-more";

/// A claim of the guide with the attack on it and the result.
type Row = (&'static str, &'static str, String);

/// A server that must receive nothing, with the requests that it received.
#[derive(Clone)]
struct Other {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Other {
    fn router(asked: &Arc<Mutex<Vec<String>>>) -> Router {
        let asked = Arc::clone(asked);
        Router::new().fallback(move |request: Request| {
            asked.lock().unwrap().push(format!("{} {:?}", request.method(), request.headers()));
            async { StatusCode::OK }
        })
    }

    async fn start() -> Other {
        let asked = Arc::default();
        Other { address: serve(Other::router(&asked)).await, asked }
    }

    fn was_asked(&self) -> &'static str {
        if self.asked.lock().unwrap().is_empty() {
            "the other server receives nothing"
        } else {
            "ASKED"
        }
    }
}

/// `exit 3`, and whether the words that say why are there.
fn refused((code, out, err): &(i32, String, String), why: &str) -> String {
    let all = format!("{out}{err}");
    assert!(all.contains(why), "“{why}” is not in: {all}");
    format!("exit {code}")
}

fn world() -> World {
    World::demo(Clock::System.now())
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_shows_what_each_attack_came_to() {
    let mut rows: Vec<Row> = Vec::new();
    rows.extend(on_the_admin_key().await);
    rows.extend(on_secrets_and_files().await);
    rows.extend(on_the_pages().await);
    rows.extend(on_what_is_sent().await);
    let table: String = rows
        .iter()
        .map(|(claim, attack, result)| format!("| {claim} | {attack} | {result} |\n"))
        .collect();
    let guide = include_str!("../../docs/explanation/security.md");
    assert!(
        guide.contains(&table),
        "the table in docs/explanation/security.md has to be:\n{table}"
    );
}

/// `PR_SET_DUMPABLE` of prctl(2): what /proc has of a process belongs to root then.
#[tokio::test(flavor = "multi_thread")]
async fn another_process_of_its_user_reads_neither_memory_nor_environment() {
    if !as_root() {
        return;
    }
    let sim = demo().await;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let binary = folder.path().join("certvigil");
    fs::copy(certvigil(folder.path()).get_program(), &binary).unwrap();
    let mut daemon = Daemon::start_in(folder, &sim.config(), |command| {
        let nobody = as_nobody(&binary, command.get_args());
        let variables: Vec<_> = command
            .get_envs()
            .map(|(name, value)| (name.to_owned(), value.unwrap().to_owned()))
            .collect();
        let folder = command.get_current_dir().unwrap().to_owned();
        *command = nobody;
        command.env_clear().envs(variables).current_dir(folder);
    });
    daemon.ready(200).await;
    let process = format!("/proc/{}", daemon.running.0.id());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    assert!(status.contains("Uid:\t65534"), "it is nobody's: {status}");
    for file in ["environ", "maps", "mem"] {
        let file = format!("{process}/{file}");
        let (code, _, err) = run(as_nobody(Path::new("head"), ["-c1", &file])).await;
        assert!(code == 1 && err.contains("Permission denied"), "{file}: {err}");
    }
    daemon.stop().await;
}

fn as_nobody<A: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(program)
        .args(arguments);
    command
}

async fn on_the_admin_key() -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let check = |text: String| run(with(folder.path(), &text, &["check"]));
    let mut rows: Vec<Row> = Vec::new();

    let sim = demo().await;
    let methods: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&methods);
    let note = middleware::from_fn(move |request: Request, next: Next| {
        noted.lock().unwrap().push(request.method().to_string());
        next.run(request)
    });
    check(organization(serve(sim.api.router().layer(note)).await)).await;
    let mut methods = methods.lock().unwrap().clone();
    methods.dedup();
    rows.push((
        "The API is only read",
        "a scan of everything",
        format!("only `{}`", methods.join(" ")),
    ));

    let other = Other::start().await;
    let there = format!("http://{}/v1/organization/projects", other.address);
    let redirect = Router::new().fallback(move || async move { Redirect::temporary(&there) });
    let ran = check(organization(serve(redirect).await)).await;
    let result = format!("{}; {}", refused(&ran, "HTTP 307"), other.was_asked());
    rows.push((
        "The key goes to the configured API only",
        "the API redirects to another server",
        result,
    ));

    let asked = Arc::default();
    let acceptor = Tls::new().acceptor(false);
    let address = serve_tls(Other::router(&asked), acceptor).await;
    let ran = check(organization(address).replace("http:", "https:")).await;
    let result =
        format!("{}; {}", refused(&ran, "certificate"), Other { address, asked }.was_asked());
    rows.push((
        "The API's certificate is checked",
        "a server with a self-signed certificate",
        result,
    ));

    let text = organization(other.address).replace(&other.address.to_string(), "api.example");
    let ran = check(text).await;
    rows.push((
        "The key is not sent in the clear",
        "`base_url = \"http://api.example/v1\"`",
        format!("{}; refused", refused(&ran, "base_url")),
    ));

    let local = folder.path().join("certvigil.toml");
    fs::write(&local, organization(other.address)).unwrap();
    fs::set_permissions(&local, fs::Permissions::from_mode(0o666)).unwrap();
    let mut command = certvigil(folder.path());
    command.arg("check");
    let result = refused(&run(command).await, "not loaded, because other users can change it");
    rows.push((
        "Other users cannot redirect the key",
        "a world-writable `./certvigil.toml` with another `base_url`",
        format!("{result}; {}", other.was_asked()),
    ));

    let endless = raw_server(|mut stream| async move {
        // An answer before the request is another fault.
        drop(stream.read(&mut [0; 4_096]).await);
        drop(
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"data\":[")
                .await,
        );
        while stream.write_all(&[b' '; 65_536]).await.is_ok() {}
    })
    .await;
    let text = format!("{}max_attempts = 1\n", organization(endless));
    let result = refused(&check(text).await, "MiB");
    rows.push((
        "Responses of the API have limits",
        "an endless response",
        format!("{result}; reported as an error"),
    ));
    rows
}

async fn on_secrets_and_files() -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let config_check = |text: String| run(with(folder.path(), &text, &["config", "check"]));
    let mut rows: Vec<Row> = Vec::new();

    let text = format!("[organizations.acme]\nadmin_key = {{ env = \"{KEY}\" }}\n");
    let ran = config_check(text).await;
    assert!(!format!("{}{}", ran.1, ran.2).contains(KEY), "{ran:?}");
    rows.push((
        "A secret in the wrong place is not printed",
        "`admin_key = { env = \"sk-admin-…\" }`",
        format!("{}; not printed", refused(&ran, "admin_key")),
    ));

    assert!(Command::new("mkfifo").arg(folder.path().join("key")).status().unwrap().success());
    let text = "[organizations.acme]\nadmin_key = { file = \"key\" }\n".to_owned();
    let ran = config_check(text).await;
    let result = format!("{}; not opened", refused(&ran, "not a regular file"));
    rows.push(("Secrets are read from regular files", "a FIFO in a secret's place", result));

    let sim = demo().await;
    let text = format!("{}[state]\nurl = \"sqlite:state.db\"\n", sim.config());
    let scan = |text: &str| {
        let command = with(folder.path(), text, &["check", "--notify"]);
        let mut open = Command::new("sh");
        open.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(command.get_program());
        open.args(command.get_args()).current_dir(folder.path()).env_clear();
        open.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        run(open)
    };
    scan(&text).await;
    let modes = ["state.db", "state.db.lock"].map(|name| {
        let metadata = fs::metadata(folder.path().join(name)).unwrap();
        format!("{:o}", metadata.permissions().mode() & 0o777)
    });
    rows.push((
        "Only the owner can read database and lock",
        "a start with umask 0",
        format!("modes {}", modes.join(" and ")),
    ));

    let victim = folder.path().join("victim");
    fs::write(&victim, "as it was").unwrap();
    fs::remove_file(folder.path().join("state.db.lock")).unwrap();
    symlink(&victim, folder.path().join("state.db.lock")).unwrap();
    let ran = scan(&text).await;
    assert_eq!(fs::read_to_string(&victim).unwrap(), "as it was");
    fs::remove_file(folder.path().join("state.db.lock")).unwrap();
    let result = format!("{}; its target is unchanged", refused(&ran, "state.db.lock"));
    rows.push((
        "Files of other users are not overwritten",
        "a symbolic link in the lock's place",
        result,
    ));

    let (code, export, err) = run(with(folder.path(), &text, &["state", "export", "-"])).await;
    assert_eq!(code, 0, "{err}");
    let changed = export.replacen("\"tick\":", "\"tick\":99999", 1);
    assert!(changed != export, "no scan is exported");
    fs::write(folder.path().join("changed"), changed).unwrap();
    let elsewhere = text.replace("state.db", "other.db");
    let ran = run(with(folder.path(), &elsewhere, &["state", "import", "changed"])).await;
    let result = format!("{}; nothing is imported", refused(&ran, "changed"));
    rows.push(("An invalid export is refused", "an export with a changed time", result));
    rows
}

async fn on_the_pages() -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut world = world();
    let hostile = "<script>alert(1)</script>\r\nBcc: evil@evil.example\u{1b}[2J @everyone";
    world.certificate("cert_demo_weeks").unwrap().name = Some(hostile.to_owned());
    let sim = Sim::start(world).await;

    let mut open = told(&sim, &sim.config()).await;
    let scan = open.request(Method::POST, "/api/v1/scans").bearer_auth(TOKEN);
    let result = format!("HTTP {}", status(scan).await);
    rows.push(("Writing needs a configured token", "a scan is requested", result));
    let rebound = open.request(Method::GET, "/").header(HOST, "evil.example");
    let result = format!("HTTP {}", status(rebound).await);
    rows.push(("Unknown host names are refused (DNS rebinding)", "`Host: evil.example`", result));
    let mut pages = 0;
    for path in PATHS {
        let answer = open.request(Method::GET, path).send().await.unwrap();
        let is_page = answer.headers()[CONTENT_TYPE].to_str().unwrap().starts_with("text/html");
        let text = answer.text().await.unwrap();
        assert!(!text.contains('\u{1b}'), "{path}");
        assert!(!is_page || !text.contains("<script"), "{path}");
        pages += usize::from(is_page);
    }
    assert!(!open.log().contains('\u{1b}'));
    rows.push((
        "Names are text everywhere",
        "a certificate named `<script>…`, with a line break, `Bcc:` and an escape sequence",
        format!("no script in {pages} pages, no escape sequence in the log, no `Bcc` in the mail",),
    ));
    for mail in sim.mailbox.mails() {
        let text = String::from_utf8_lossy(&mail.data).into_owned();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.to_lowercase().contains("\nbcc:"), "{head}");
        assert!(mail.to.iter().all(|to| !to.contains("evil")), "{:?}", mail.to);
    }
    open.stop().await;

    let text = format!("{}read_token = \"{READ_TOKEN}\"\n", guarded(&sim));
    let mut daemon = Daemon::start(&text);
    daemon.ready(200).await;
    let write = daemon.request(Method::POST, "/api/v1/scans").bearer_auth(READ_TOKEN);
    let result = format!("HTTP {}", status(write).await);
    rows.push((
        "The read-only token cannot write",
        "a scan is requested with `http.read_token`",
        result,
    ));

    let sign_in = |token: &str| {
        let form = daemon.request(Method::POST, "/login").body(format!("token={token}&next=/"));
        form.header("content-type", "application/x-www-form-urlencoded")
    };
    let signed_in = sign_in(TOKEN).send().await.unwrap();
    let cookie = signed_in.headers()[SET_COOKIE].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let forged = daemon.request(Method::POST, "/scan").header(COOKIE, cookie);
    let result = format!("HTTP {}", status(forged.header(ORIGIN, "https://evil.example")).await);
    rows.push((
        "Another site cannot write",
        "a form of another site with the session cookie",
        result,
    ));

    let sign_out = daemon.request(Method::POST, "/logout").header(COOKIE, cookie);
    assert_eq!(status(sign_out).await, 303);
    let stolen = daemon.request(Method::GET, "/api/v1/certificates").header(COOKIE, cookie);
    let result = format!("HTTP {}", status(stolen).await);
    rows.push(("Signing out ends a session", "its cookie is reused", result));

    let large = daemon.request(Method::POST, "/api/v1/acknowledgements").bearer_auth(TOKEN);
    let large = large.header("content-type", "application/json").body(vec![b' '; 100_000]);
    let result = format!("HTTP {}", status(large).await);
    rows.push(("Requests have limits", "a body of 100,000 bytes", result));

    let mut slow = Vec::new();
    for _ in 0..600 {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.port())).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ").await.unwrap();
        slow.push(stream);
    }
    let health = daemon.request(Method::GET, "/healthz").timeout(Duration::from_secs(10));
    let result = format!("`/healthz` answers {}", status(health).await);
    rows.push((
        "Unfinished requests do not block others",
        "600 connections with unfinished requests",
        result,
    ));
    drop(slow);

    let tried = (0..11).map(|_| status(sign_in("wrong")));
    let tried = futures_util::future::join_all(tried).await;
    assert_eq!(tried.iter().filter(|status| **status == 401).count(), 10, "{tried:?}");
    let result = format!("HTTP {}", status(sign_in(TOKEN)).await);
    rows.push(("Tokens cannot be guessed", "the correct token after eleven wrong ones", result));

    daemon.stop().await;
    let mut kept = daemon.log();
    kept.push_str(&all_files(daemon.folder.path()));
    for secret in [KEY, TOKEN, READ_TOKEN, SECRET] {
        assert!(!kept.contains(secret), "{secret}");
    }
    rows.push((
        "Database and log contain no secret",
        "a search for the key, both tokens and the webhook's secret",
        "not found".to_owned(),
    ));
    rows
}

/// Everything in a folder but its configuration, as text.
fn all_files(folder: &Path) -> String {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|file| file.is_file() && !file.ends_with("c.toml"))
        .map(|file| String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned())
        .collect()
}

async fn on_what_is_sent() -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let test = |text: String| run(with(folder.path(), &text, &["notify", "test"]));
    let mail = |address: SocketAddr, more: &str| {
        format!(
            "[notifiers.email.ops]\nto = [\"ops@acme.example\"]\n[smtp]\nhost = \"127.0.0.1\"\nport = {}\n\
             from = \"c@acme.example\"\ntimeout = \"2s\"\nusername = \"certvigil\"\npassword = \"{PASSWORD}\"\n{more}",
            address.port()
        )
    };
    let mut rows: Vec<Row> = Vec::new();

    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&heard);
    let stripped = server(b"220 mx\r\n", move |line| {
        noted.lock().unwrap().push(line.to_owned());
        polite(line, &["AUTH PLAIN"])
    })
    .await;
    let ran = test(mail(stripped, "tls = \"starttls\"\n")).await;
    let heard = heard.lock().unwrap().join(" ");
    assert!(!heard.contains("AUTH") && !heard.contains("MAIL"), "{heard}");
    rows.push((
        "Mail needs TLS",
        "a man in the middle removes STARTTLS from the mail server's reply",
        format!("{}; neither password nor message is sent", refused(&ran, "STARTTLS")),
    ));

    let repeats = server(b"220 mx\r\n", |line| match line.starts_with("AUTH") {
        true => Some(format!("535 5.7.8 wrong: {line}\r\n").into_bytes()),
        false => polite(line, &["AUTH PLAIN"]),
    })
    .await;
    let ran = test(mail(repeats, "tls = \"none\"\n")).await;
    let said = format!("{}{}", ran.1, ran.2);
    let encoded = BASE64.encode(format!("\0certvigil\0{PASSWORD}"));
    assert!(!said.contains(PASSWORD) && !said.contains(&encoded), "{said}");
    rows.push((
        "Secrets in replies are hidden",
        "a mail server repeats the password in its reply",
        format!("{}; not shown", refused(&ran, "535 5.7.8")),
    ));

    let other = Other::start().await;
    let there = format!("http://{}/", other.address);
    let redirect = serve(
        Router::new().fallback(move || async move { Redirect::temporary(&there).into_response() }),
    )
    .await;
    let text = format!(
        "[notifiers.webhook.hook]\nurl = \"http://{redirect}/\"\nkey = \"{PASSWORD}\"\nsecret = \"{SECRET}\"\n"
    );
    let result = format!("{}; {}", refused(&test(text).await, "307"), other.was_asked());
    rows.push((
        "A webhook goes to its URL only",
        "the receiver redirects to another server",
        result,
    ));

    let sim = demo().await;
    let mut daemon = told(&sim, &sim.config()).await;
    let post = until("a post", || sim.receiver.posts().into_iter().next()).await;
    assert!(post.signed);
    let other_secret =
        standardwebhooks::Webhook::new("whsec_b3RoZXIgc2VjcmV0IGVudGlyZWx5ISE=").unwrap();
    assert!(other_secret.verify(post.body.as_bytes(), &post.headers).is_err());
    let ours = standardwebhooks::Webhook::new(SECRET).unwrap();
    let changed = post.body.replace("expir", "renew");
    assert!(ours.verify(changed.as_bytes(), &post.headers).is_err());
    rows.push((
        "A signature proves sender and content of a webhook",
        "another secret; a changed body",
        "the reference library rejects both".to_owned(),
    ));
    daemon.stop().await;
    rows
}
