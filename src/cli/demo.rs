//! `certvigil demo`: the real service with simulated organizations on loopback, and its messages.

use anyhow::Context;
use clap::Args;
use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::{
    clock::Clock,
    config::{Config, Needs, from_text},
    demo::{
        self,
        admin_api::{self, AdminApi},
        mailbox::{Mail, Mailbox, Terms},
        pages::{Shown, parts, router},
        receiver::{self, Post, Receiver},
        world::World,
    },
    domain::text::one_line,
    logging,
    service::{self, Control},
};

#[derive(Args)]
pub struct Arguments {
    /// Scan once, show the received messages, and exit
    #[arg(long)]
    once: bool,
}

/// The time limit for the arrival of a message.
const PATIENCE: Duration = Duration::from_secs(60);
/// The number of lines shown of the webhook's body.
const BODY_LINES: usize = 60;

/// A folder for the demo's database: in the state folder of a container image or of systemd, where
/// other folders may be read-only; otherwise a temporary one.
fn folder() -> anyhow::Result<tempfile::TempDir> {
    let of_state = std::env::var_os("STATE_DIRECTORY").unwrap_or_default();
    let of_state = std::env::split_paths(&of_state).next();
    let parent = of_state.filter(|folder| folder.is_dir()).unwrap_or_else(std::env::temp_dir);
    let made = tempfile::Builder::new().prefix("certvigil-demo-").tempdir_in(&parent);
    made.with_context(|| {
        format!(
            "cannot create a folder for the demo in {} (set TMPDIR to a writable folder)",
            parent.display()
        )
    })
}

pub async fn main(Arguments { once }: Arguments) -> Result<(), Failure> {
    let folder = folder()?;
    let world = World::demo(Clock::System.now());
    let (projects, certificates) = (world.projects.len(), world.certificates.len());
    let api = AdminApi::new(world).serve().await?;
    let partners = AdminApi::new(World::rotations(Clock::System.now()));
    let partners_api = partners.serve().await?;
    let mailbox = Mailbox::start(Terms::default())?;
    let receiver = Receiver::default();
    let hook = receiver.serve().await?;
    let pages = demo::serve(router(Shown { mailbox: mailbox.clone(), receiver: receiver.clone() }));
    let pages = pages.await?;
    let cron = if once { "0 0 1 1 *" } else { "*/15 * * * * *" };
    let http_address = http_address()?;
    // `--once` exits before anyone could open the pages.
    let public_url = match once {
        true => String::new(),
        false => format!("public_url = \"http://{http_address}\""),
    };
    let text = format!(
        r#"
[schedule]
cron = "{cron}"
[organizations.demo]
admin_key = "{key}"
base_url = "http://{api}/v1"
[organizations.partners]
admin_key = "{key}"
base_url = "http://{partners_api}/v1"
audit_log = true
audit_log_addresses = true
[notifiers.email.ops]
to = ["ops@demo.example"]
events = ["changes"]
[smtp]
host = "127.0.0.1"
port = {smtp}
tls = "none"
from = "certvigil <certvigil@demo.example>"
[notifiers.webhook.hook]
url = "http://{hook}/hook"
events = ["changes"]
secret = "{secret}"
[state]
url = "sqlite:demo.db"
[http]
listen = "{http_address}"
{public_url}
[log]
level = "warn"
"#,
        key = admin_api::KEY,
        secret = receiver::SECRET,
        smtp = mailbox.address.port(),
    );
    let path = folder.path().join("demo.toml");
    let config = from_text(&path, &text, Needs::ALL).map_err(Failure::Refused)?.config;
    logging::start(&config.log);
    super::print(&format!(
        "A simulated organization, demo, with {projects} projects and {certificates} certificates: http://{api}/v1\n\
         A second one, partners, in the middle of its rotations: http://{partners_api}/v1\n\
         A mail server: {}\n\
         A webhook receiver that verifies signatures: http://{hook}/hook\n\
         The service runs against them, with its database in a temporary folder.\n\n",
        mailbox.address,
    ))?;
    if let Some(address) = config.http.listen.filter(|_| !once) {
        super::print(&format!("The pages of the service: http://{address}/\n\n"))?;
    }
    let sent = Shown { mailbox, receiver };
    serve(config, once, &partners, &sent, &format!("http://{pages}/")).await
}

/// The address of the pages: the default port, or a free one.
fn http_address() -> std::io::Result<SocketAddr> {
    let usual = TcpListener::bind(("127.0.0.1", 9764));
    usual.or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?.local_addr()
}

async fn serve(
    config: Config,
    once: bool,
    partners: &AdminApi,
    sent: &Shown,
    pages: &str,
) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let (scan_now, scans) = mpsc::channel(1);
    let control = Control { scans, ..Control::until(stop.clone()) };
    let service = tokio::spawn(service::run(config, control));
    tokio::pin!(service);
    let story = async {
        let mail = arrived(|| sent.mail(" demo: ")).await?;
        let post = arrived(|| {
            sent.receiver.posts().into_iter().find(|post| post.body.contains("\"demo\""))
        })
        .await?;
        super::print(&shown(&mail, &post)?)?;
        // The project must be scanned with its certificate before it loses it.
        arrived(|| sent.mail(" partners: ")).await?;
        partners.world().lose_protection(Clock::System.now());
        // A full channel means that a scan is requested already.
        scan_now.try_send(()).ok();
        let lost = arrived(|| sent.mail("no longer enforces mutual TLS")).await?;
        super::print(&format!(
            "\n===== Then the last active certificate of a project is deactivated =====\n{}",
            text(&lost)?
        ))
    };
    tokio::select! {
        shown = story => shown?,
        ended = &mut service => {
            ended??;
            return Err(anyhow::anyhow!("the service stopped unexpectedly").into());
        }
    }
    if !once {
        super::print(&format!(
            "\nThe service keeps running and scans every 15 seconds. “watch-me-expire” expires within two \
             minutes.\nOpen {pages} to see every message; mails look as in a mail program.\n\
             Press Ctrl-C to stop.\n"
        ))?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted?,
            ended = &mut service => { ended??; }
        }
    }
    stop.cancel();
    if !service.is_finished() {
        service.await??;
    }
    Ok(())
}

/// Waits for a message.
async fn arrived<T>(look: impl Fn() -> Option<T>) -> Result<T, Failure> {
    let look = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, look).await;
    Ok(found.map_err(|_| anyhow::anyhow!("no message arrived within {PATIENCE:?}"))?)
}

/// The text of a mail.
fn text(mail: &Mail) -> anyhow::Result<String> {
    let read =
        parts(&mail.data).ok_or_else(|| anyhow::anyhow!("the received message is not a mail"))?;
    Ok(format!("Subject: {}\n\n{}\n", read.subject, read.text.trim_end()))
}

fn shown(mail: &Mail, post: &Post) -> anyhow::Result<String> {
    let mut text =
        format!("===== The mail that arrived for {} =====\n{}", mail.to.join(", "), text(mail)?);
    text.push_str("\n===== The webhook request that arrived =====\n");
    for name in ["content-type", "webhook-id", "webhook-timestamp", "webhook-signature"] {
        let value = post.headers.get(name).and_then(|value| value.to_str().ok());
        text.push_str(&format!("{name}: {}\n", one_line(value.unwrap_or("missing"), 100)));
    }
    let signed = if post.signed { "accepts" } else { "refuses" };
    text.push_str(&format!("(the reference library {signed} the signature)\n\n"));
    let body: serde_json::Value = serde_json::from_str(&post.body)?;
    let body = format!("{body:#}");
    let lines: Vec<&str> = body.lines().collect();
    for line in lines.iter().take(BODY_LINES) {
        text.push_str(&format!("{line}\n"));
    }
    if lines.len() > BODY_LINES {
        text.push_str(&format!("… and {} lines more\n", lines.len() - BODY_LINES));
    }
    Ok(text)
}
