//! The contract of every notifier, against real receivers: accepted, retried and rejected messages,
//! no hangs, and no leaked secret.

use axum::http::HeaderMap;
use certvigil::{
    clock::Clock,
    demo::{
        mailbox::{Mailbox, Terms},
        pages::parts,
        receiver::{Answer, Receiver, SECRET},
        world::World,
    },
    domain::retry::{FailureReason, Outcome},
    message::Notification,
    notify::Notifier,
    service,
    store::id_at,
};
use chrono::TimeDelta;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::support::{
    Service, Sim, Tls, config, crypto, days, email, fits_schema, raw_server, serve_tls, start,
};

/// The only notifier of a configuration.
pub fn notifier(text: &str) -> Arc<dyn Notifier> {
    crypto();
    let folder = tempfile::tempdir().unwrap();
    let text = format!("[organizations.acme]\nadmin_key = \"sk-admin-x\"\n{text}");
    service::notifiers(&config(folder.path(), &text)).unwrap().remove(0)
}

pub async fn attempt(notifier: &dyn Notifier) -> Outcome {
    let receiver = notifier.receivers().remove(0);
    attempt_for(notifier, &receiver).await
}

async fn attempt_for(notifier: &dyn Notifier, receiver: &str) -> Outcome {
    let now = Clock::System.now();
    let sample = Notification::test(id_at(now), notifier.name(), now);
    // The deadline of the contract: no attempt takes longer than it says.
    let limit = notifier.attempt_limit() + Duration::from_secs(1);
    tokio::time::timeout(limit, notifier.deliver(&sample, receiver, now)).await.unwrap()
}

/// An outcome in a word or two: `delivered`, `retry timeout`, `rejected recipient`.
pub fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Delivered { .. } => "delivered".to_owned(),
        Outcome::Retry { reason, .. } => format!("retry {reason}"),
        Outcome::Rejected { reason, .. } => format!("rejected {reason}"),
    }
}

fn hook(address: SocketAddr) -> String {
    format!(
        "[notifiers.webhook.hook]\nurl = \"http://{address}/hook?token=s3cret-token\"\n\
         secret = \"{SECRET}\"\nkey = \"s3cret-key\"\nheaders = {{ \"X-Team\" = \"s3cret-header\" }}\n"
    )
}

fn has_no_secret(text: &str) {
    for secret in ["s3cret", &SECRET[6..], "hunter2"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}

#[tokio::test]
async fn a_webhooks_status_decides() {
    let receiver = Receiver::default();
    let notifier = notifier(&hook(receiver.serve().await.unwrap()));
    let cases = [
        (200, "delivered"),
        (202, "delivered"),
        (204, "delivered"),
        (302, "retry redirect"),
        (400, "rejected message"),
        (401, "retry login"),
        (403, "retry login"),
        (404, "retry unavailable"),
        (408, "retry unavailable"),
        (410, "rejected gone"),
        (413, "rejected message"),
        (422, "rejected message"),
        (429, "retry rate_limited"),
        (500, "retry unavailable"),
        (503, "retry unavailable"),
    ];
    for (status, expected) in cases {
        receiver.answer([Answer { status, headers: vec![] }]);
        assert_eq!(words(&attempt(notifier.as_ref()).await), expected, "{status}");
    }
    assert_eq!(receiver.posts().len(), cases.len(), "one request for each attempt");
}

#[tokio::test]
async fn a_webhooks_retry_after_is_honoured() {
    let receiver = Receiver::default();
    let notifier = notifier(&hook(receiver.serve().await.unwrap()));
    receiver.answer([Answer { status: 429, headers: vec![("retry-after", "90".to_owned())] }]);
    let outcome = attempt(notifier.as_ref()).await;
    let Outcome::Retry { after, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(after, Some(TimeDelta::seconds(90)));
}

#[tokio::test]
async fn a_webhook_is_signed_and_carries_what_was_configured() {
    let receiver = Receiver::default();
    let notifier = notifier(&hook(receiver.serve().await.unwrap()));
    attempt(notifier.as_ref()).await;
    let post = &receiver.posts()[0];
    assert!(post.signed, "the reference library accepts it");
    let header = |name: &str| post.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("authorization"), "Bearer s3cret-key");
    assert_eq!(header("x-team"), "s3cret-header");
    assert_eq!(header("content-type"), "application/json");
    let body: serde_json::Value = serde_json::from_str(&post.body).unwrap();
    assert_eq!(body["id"], header("webhook-id"));
    assert_eq!(body["alerts"][0]["event"], "test");
    fits_schema(&body);
}

#[tokio::test]
async fn what_a_whole_demo_sends_fits_the_schema() {
    let sim = Sim::start(World::demo(start())).await;
    let service = Service::start(&sim.config()).await;
    service.scan(start()).await;
    service.deliver(start()).await;
    sim.api.world().certificates.clear();
    service.scan(start() + days(1)).await;
    service.deliver(start() + days(1)).await;
    let posts = sim.receiver.posts();
    assert_eq!(posts.len(), 2);
    for post in posts {
        fits_schema(&serde_json::from_str(&post.body).unwrap());
    }
}

#[tokio::test]
async fn a_webhook_that_cannot_be_reached_or_answers_nonsense_is_tried_again() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let nonsense = raw_server(|stream| super::support::raw_answer(stream, b"what?\r\n\r\n")).await;
    let closing = raw_server(|stream| super::support::raw_answer(stream, b"")).await;
    for (address, expected) in
        [(closed, "retry connect"), (nonsense, "retry protocol"), (closing, "retry protocol")]
    {
        let notifier = notifier(&hook(address));
        let outcome = attempt(notifier.as_ref()).await;
        assert_eq!(words(&outcome), expected);
        has_no_secret(&format!("{outcome:?}"));
    }
    let tls = Tls::new();
    let https = serve_tls(Receiver::default().router(), tls.acceptor(false)).await;
    let text = hook(https).replace("http://", "https://");
    let outcome = attempt(notifier(&text).as_ref()).await;
    assert_eq!(words(&outcome), "retry tls", "{outcome:?}");
    let trusted = format!("{text}ca_file = \"{}\"\n", tls.ca.display());
    assert_eq!(words(&attempt(notifier(&trusted).as_ref()).await), "delivered");
}

#[tokio::test]
async fn an_answer_that_repeats_a_secret_does_not_get_it_out() {
    let echo =
        axum::Router::new().fallback(|uri: axum::http::Uri, headers: HeaderMap| async move {
            (axum::http::StatusCode::BAD_REQUEST, format!("{uri} {headers:?}"))
        });
    let address = super::support::serve(echo).await;
    let notifier = notifier(&hook(address));
    let outcome = attempt(notifier.as_ref()).await;
    assert_eq!(words(&outcome), "rejected message");
    let said = format!("{outcome:?}");
    for secret in ["s3cret-key", "s3cret-header", "s3cret-token", &SECRET[6..]] {
        assert!(!said.contains(secret), "{said}");
    }
    has_no_secret(&notifier.receivers().concat());
}

/// The mail section for a server with STARTTLS and login.
fn secured(mailbox: &Mailbox, tls: &Tls, password: &str) -> String {
    email(mailbox, &["ops@acme.example"]).replace(
        "tls = \"none\"\n",
        &format!(
            "tls = \"starttls\"\nusername = \"certvigil\"\npassword = \"{password}\"\nca_file = \"{}\"\n",
            tls.ca.display()
        ),
    )
}

fn secured_mailbox(tls: &Tls) -> Mailbox {
    crypto();
    Mailbox::start(Terms {
        tls: Some((tls.certificate.clone(), tls.key.clone())),
        login: Some(("certvigil".to_owned(), "hunter2".to_owned())),
    })
    .unwrap()
}

#[tokio::test]
async fn a_mail_arrives_over_starttls_with_a_login() {
    let tls = Tls::new();
    let mailbox = secured_mailbox(&tls);
    let right = notifier(&secured(&mailbox, &tls, "hunter2"));
    let outcome = attempt(right.as_ref()).await;
    assert_eq!(outcome, Outcome::Delivered { answer: "250 OK".to_owned() });
    let mails = mailbox.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].from, "certvigil@acme.example");
    assert_eq!(
        parts(&mails[0].data).unwrap().subject,
        "[certvigil] A test message: no action needed"
    );

    let wrong = attempt(notifier(&secured(&mailbox, &tls, "hunter2-wrong")).as_ref()).await;
    assert_eq!(words(&wrong), "retry login", "the corrected password delivers it");
    has_no_secret(&format!("{wrong:?}"));
    let untrusted = secured(&mailbox, &tls, "hunter2");
    let untrusted = untrusted.lines().filter(|line| !line.starts_with("ca_file"));
    let untrusted = untrusted.collect::<Vec<_>>().join("\n");
    let outcome = attempt(notifier(&untrusted).as_ref()).await;
    assert_eq!(words(&outcome), "retry tls", "{outcome:?}");
    assert_eq!(mailbox.mails().len(), 1);
}

#[tokio::test]
async fn nothing_goes_in_clear_text_where_starttls_is_not_offered() {
    let tls = Tls::new();
    let plain = Mailbox::start(Terms::default()).unwrap();
    let outcome = attempt(notifier(&secured(&plain, &tls, "hunter2")).as_ref()).await;
    let Outcome::Retry { reason: FailureReason::Tls, detail, .. } = &outcome else {
        panic!("{outcome:?}")
    };
    assert!(detail.contains("does not offer STARTTLS"), "{detail}");
    assert!(plain.mails().is_empty());
}

#[tokio::test]
async fn one_refused_recipient_stops_nobody_else() {
    let sim = Sim::start({
        let mut world = World::with_projects(3, |n| format!("prod-{n}"));
        world.add("cert_a", Some("prod-ca"), Some(start() + days(5)), 1..=3);
        world
    })
    .await;
    let three =
        sim.config().replace("\"b@acme.example\"", "\"b@acme.example\", \"c@acme.example\"");
    let service = Service::start(&three).await;
    sim.mailbox.refuse("a@acme.example", Some(550));
    sim.mailbox.refuse("b@acme.example", Some(450));
    service.scan(start()).await;
    let reports = service.deliver(start()).await;
    let report = &reports[0];
    assert_eq!((report.delivered, report.waiting, report.failed), (1, 1, 1));
    sim.mailbox.refuse("b@acme.example", None);
    service.deliver(start() + days(1)).await;
    let mails = sim.mailbox.mails();
    let to: Vec<&str> = mails.iter().map(|mail| mail.to[0].as_str()).collect();
    assert_eq!(
        to,
        ["c@acme.example", "b@acme.example"],
        "and the temporary one is tried again alone"
    );
    let header = |data: &[u8], name: &str| {
        let text = String::from_utf8_lossy(data).into_owned();
        text.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned)).unwrap()
    };
    assert_eq!(header(&mails[0].data, "Message-ID: "), header(&mails[1].data, "Message-ID: "));
    for name in ["a@", "b@", "c@"] {
        assert!(header(&mails[0].data, "To: ").contains(name), "all are named");
    }
    // One receiver is enough: the next scan sends nothing.
    assert_eq!(service.scan(start() + TimeDelta::hours(1)).await.notifications, 0);
}

/// An SMTP server that answers each line as `script` says, and then never again.
async fn scripted(
    greeting: &'static str,
    script: impl Fn(&str) -> Option<&'static str> + Clone + Send + 'static,
) -> SocketAddr {
    raw_server(move |stream: TcpStream| {
        let script = script.clone();
        async move {
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            drop(write.write_all(greeting.as_bytes()).await);
            let mut body = false;
            while let Ok(Some(line)) = lines.next_line().await {
                if body && line != "." {
                    continue;
                }
                match script(&line) {
                    Some(answer) => drop(write.write_all(answer.as_bytes()).await),
                    None => std::future::pending::<()>().await,
                }
                body = line == "DATA";
            }
        }
    })
    .await
}

fn mail_to(address: SocketAddr) -> String {
    format!(
        "[notifiers.email.ops]\nto = [\"ops@acme.example\"]\n[smtp]\nhost = \"127.0.0.1\"\n\
         port = {}\ntls = \"none\"\nfrom = \"c@acme.example\"\ntimeout = \"500ms\"\n",
        address.port()
    )
}

#[tokio::test]
async fn a_mail_server_that_stalls_or_refuses_at_any_step_is_reported_and_tried_again() {
    fn polite(line: &str) -> Option<&'static str> {
        match line.split(' ').next().unwrap_or_default() {
            "EHLO" => Some("250-hi\r\n250 8BITMIME\r\n"),
            "DATA" => Some("354 go\r\n"),
            "QUIT" => Some("221 bye\r\n"),
            _ => Some("250 ok\r\n"),
        }
    }
    // The reply to the step, and the outcome; `None` is no reply.
    let cases: [(&'static str, Option<&'static str>, &str); 12] = [
        ("EHLO", None, "retry timeout"),
        ("EHLO", Some("554 go away\r\n"), "retry connect"),
        ("MAIL", None, "retry timeout"),
        ("MAIL", Some("550 not you\r\n"), "retry sender"),
        ("RCPT", None, "retry timeout"),
        ("RCPT", Some("550 nobody\r\n"), "rejected recipient"),
        ("RCPT", Some("451 later\r\n"), "retry recipient"),
        ("DATA", None, "retry timeout"),
        ("DATA", Some("554 no\r\n"), "retry message"),
        (".", None, "retry unconfirmed"),
        (".", Some("554 spam\r\n"), "retry message"),
        (".", Some("452 full\r\n"), "retry message"),
    ];
    for (step, answer, expected) in cases {
        let address =
            scripted(
                "220 hi\r\n",
                move |line| {
                    if line.starts_with(step) { answer } else { polite(line) }
                },
            )
            .await;
        let outcome = attempt(notifier(&mail_to(address)).as_ref()).await;
        assert_eq!(words(&outcome), expected, "{step} {answer:?}: {outcome:?}");
    }
    let silent = scripted("", |_| None).await;
    assert_eq!(words(&attempt(notifier(&mail_to(silent)).as_ref()).await), "retry timeout");
    let busy = scripted("421 too many\r\n", |_| None).await;
    assert_eq!(words(&attempt(notifier(&mail_to(busy)).as_ref()).await), "retry connect");
    // Accepted, but no reply to QUIT: still delivered.
    let rude =
        scripted("220 hi\r\n", |line| if line == "QUIT" { None } else { polite(line) }).await;
    assert_eq!(words(&attempt(notifier(&mail_to(rude)).as_ref()).await), "delivered");
}

#[tokio::test]
async fn implicit_tls_encrypts_from_the_first_byte() {
    let tls = Tls::new();
    let acceptor = tls.acceptor(false);
    let address = raw_server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            drop(stream.write_all(b"220 hi\r\n").await);
            let mut buffer = [0; 8192];
            let mut body = false;
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                let answer = match () {
                    () if body && !text.ends_with("\r\n.\r\n") => continue,
                    () if text.starts_with("DATA") => "354 go\r\n",
                    () => "250 ok\r\n",
                };
                body = text.starts_with("DATA");
                drop(stream.write_all(answer.as_bytes()).await);
            }
        }
    })
    .await;
    let ca = format!("tls = \"implicit\"\nca_file = \"{}\"\n", tls.ca.display());
    let text = mail_to(address).replace("tls = \"none\"\n", &ca);
    let outcome = attempt(notifier(&text).as_ref()).await;
    assert_eq!(words(&outcome), "delivered", "{outcome:?}");
}

#[tokio::test]
async fn the_mail_shows_what_breaks_when_for_whom_and_what_to_do() {
    let mut world = World::with_projects(14, |n| format!("prod-{n}"));
    world.add("cert_old", Some("prod-ca"), Some(start() + days(6)), 1..=14);
    world.add("cert_new", Some("prod-ca-2"), Some(start() + days(400)), 1..=2);
    world.projects[13].broken = Some(403);
    let sim = Sim::start(world).await;
    let zone = format!("timezone = \"Europe/Berlin\"\n{}", sim.config());
    let service = Service::start(&zone).await;
    service.scan(start()).await;
    service.deliver(start()).await;
    let mail = &sim.mailbox.mails()[0];
    let read = parts(&mail.data).unwrap();
    insta::with_settings!({ filters => vec![(r"[0-9a-f]{8}-[0-9a-f-]{27}", "[id]")] }, {
        insta::assert_snapshot!("mail_text", format!("{}\n\n{}", read.subject, read.text.replace("\r\n", "\n")));
        insta::assert_snapshot!("mail_html", read.html.replace("\r\n", "\n"));
    });
    let raw = String::from_utf8_lossy(&mail.data).into_owned();
    for header in [
        "Auto-Submitted: auto-generated",
        "X-Auto-Response-Suppress: All",
        "Importance: high",
        "List-Id: <acme.certvigil.acme.example>",
        "References: <",
        "MIME-Version: 1.0",
        "To: a@acme.example, b@acme.example",
        "From: certvigil <certvigil@acme.example>",
    ] {
        assert!(raw.contains(header), "{header}\n{raw}");
    }
    let longest = raw.lines().map(str::len).max().unwrap();
    assert!(longest <= 998, "RFC 5322, section 2.1.1: {longest}");
}

#[tokio::test]
async fn the_mail_shows_which_projects_are_broken_now_what_is_quiet_and_how_many_others_there_are()
{
    let mut world =
        World::with_projects(5, |n| if n < 3 { format!("lab-{n}") } else { format!("prod-{n}") });
    world.add("cert_a", Some("shared-ca"), Some(start() + days(20)), [1, 3, 4]);
    world.add("cert_b", Some("old-ca"), Some(start() - days(3)), [2, 5]);
    world.add("cert_c", Some("retired-ca"), Some(start() + days(300)), [1]);
    world.add("cert_d", Some("moved-ca"), Some(start() - days(3)), [1]);
    world.add("cert_e", None, None, [1]);
    // A list that loses all its items at once is not believed at first.
    let all = 1..=world.projects.len();
    let spare = world.add("cert_spare", Some("spare"), Some(start() + days(4_000)), all);
    spare.projects.values_mut().for_each(|active| *active = false);
    let sim = Sim::start(world).await;
    let text = format!(
        "{}[[rules]]\ncertificates = [\"retired-*\"]\n\
         ignore = {{ reason = \"OPS-1\", until = 2099-01-01 }}\n",
        sim.config()
            .replace("[notifiers.email.ops]", "[notifiers.email.ops]\nprojects = [\"lab-*\"]")
    );
    let service = Service::start(&text).await;
    service.scan(start()).await;
    service.deliver(start()).await;
    let first = parts(&sim.mailbox.mails()[0].data).unwrap();
    // A day later one project is repaired, and the other certificate deleted.
    sim.api.world().certificate("cert_c").unwrap().projects.insert("proj_0002".into(), true);
    sim.api.world().certificates.retain(|one| one.id != "cert_a");
    service.scan(start() + days(1)).await;
    service.deliver(start() + days(1)).await;
    let second = parts(&sim.mailbox.mails().last().unwrap().data).unwrap();
    insta::with_settings!({ filters => vec![(r"[0-9a-f]{8}-[0-9a-f-]{27}", "[id]")] }, {
        for (name, read) in [("mail_uncovered", first), ("mail_covered", second)] {
            insta::assert_snapshot!(name, format!("{}\n\n{}", read.subject, read.text.replace("\r\n", "\n")));
        }
    });
}
