//! Each fault of mail servers and webhooks against the running service: a pending delivery arrives
//! once, as soon as possible, delays no other, and withholds the heartbeat if it is pending too
//! long.

use axum::{extract::Request, middleware::Next, response::Response};
use certvigil::demo::{
    mailbox::{Mailbox, Terms},
    pages::parts,
    receiver::Answer,
    world::World,
};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{
    daemon::{Beats, Daemon},
    support::{Sim, Tls, days, run, serve, until, webhook, with},
};

/// What stands between the service and its mail server does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Refuses,
    NeverGreets,
    HasNoStartTls,
    RefusesTheSender,
    HangsAfterData,
}

/// A mail server behind something that does wrong.
struct Proxy {
    address: SocketAddr,
    behind: SocketAddr,
    fault: Arc<Mutex<Option<Fault>>>,
    serving: Option<JoinHandle<()>>,
}

impl Proxy {
    async fn start(behind: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut proxy = Proxy { address, behind, fault: Arc::default(), serving: None };
        proxy.serve(listener);
        proxy
    }

    fn serve(&mut self, listener: TcpListener) {
        let (behind, fault) = (self.behind, Arc::clone(&self.fault));
        self.serving = Some(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let fault = *fault.lock().unwrap();
                tokio::spawn(relay(client, behind, fault));
            }
        }));
    }

    async fn set(&mut self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
        if fault == Some(Fault::Refuses) {
            let serving = self.serving.take().unwrap();
            serving.abort();
            drop(serving.await);
        } else if self.serving.is_none() {
            self.serve(TcpListener::bind(self.address).await.unwrap());
        }
    }
}

/// One connection, piece by piece; commands come one at a time, since no pipelining is used.
async fn relay(mut client: TcpStream, behind: SocketAddr, fault: Option<Fault>) {
    if fault == Some(Fault::NeverGreets) {
        return std::future::pending().await;
    }
    let mut server = TcpStream::connect(behind).await.unwrap();
    let (mut from_client, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(length @ 1..) = read else { return };
                let piece = &from_client[..length];
                let command = String::from_utf8_lossy(piece).to_ascii_uppercase();
                let refused = match fault {
                    Some(Fault::RefusesTheSender) if command.starts_with("MAIL FROM") => "550 not from you\r\n",
                    Some(Fault::HangsAfterData) if command.starts_with("DATA") => continue,
                    _ => "",
                };
                if !refused.is_empty() {
                    drop(client.write_all(refused.as_bytes()).await);
                    continue;
                }
                if server.write_all(piece).await.is_err() { return };
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                let mut piece = from_server[..length].to_vec();
                if fault == Some(Fault::HasNoStartTls) {
                    let text = String::from_utf8_lossy(&piece).replace("STARTTLS", "XNOTHING");
                    piece = text.into_bytes();
                }
                if client.write_all(&piece).await.is_err() { return };
            }
        }
    }
}

const RECIPIENTS: [&str; 3] = ["a@acme.example", "b@acme.example", "c@acme.example"];

async fn sim() -> Sim {
    Sim::start(World::with_projects(1, |n| format!("prod-{n}"))).await
}

/// A scan each second, and little patience.
fn config(sim: &Sim, smtp: SocketAddr, more: &str, beats: &Beats) -> String {
    format!(
        "{}{}[notifiers.email.ops]\nto = {RECIPIENTS:?}\n[smtp]\nhost = \"127.0.0.1\"\nport = {}\n\
         from = \"certvigil@acme.example\"\ntimeout = \"1s\"\n{more}[schedule]\ncron = \"* * * * * *\"\n\
         [delivery]\nretry_initial = \"300ms\"\nretry_max = \"2s\"\n[monitoring]\n{}",
        super::support::organization(sim.api_address),
        webhook(sim.hook),
        smtp.port(),
        beats.config(),
    )
}

fn add(sim: &Sim, id: &str) {
    let expires = certvigil::clock::Clock::System.now() + days(5);
    sim.api.world().add(id, Some(id), Some(expires), [1]);
}

/// Who was mailed of a certificate, and how often, by the mails' ids.
fn mailed(mailbox: &Mailbox, id: &str) -> Vec<(String, String)> {
    let mails = mailbox.mails();
    let of = mails.iter().filter(|mail| {
        let text = parts(&mail.data).unwrap().text;
        text.contains(&format!("Id: {id}")) && text.contains("expires in")
    });
    of.map(|mail| {
        let text = String::from_utf8_lossy(&mail.data).into_owned();
        let message = text.lines().find_map(|line| line.strip_prefix("Message-ID: ")).unwrap();
        (mail.to[0].clone(), message.to_owned())
    })
    .collect()
}

fn posted(sim: &Sim, what: &str) -> usize {
    sim.receiver.posts().iter().filter(|post| post.body.contains(what)).count()
}

/// One fault after the other between the service and a mail server.
async fn each_in_turn(faults: &[(Fault, &str)], mailbox: Mailbox, more: &str) {
    let (sim, beats) = (sim().await, Beats::start().await);
    let mut proxy = Proxy::start(mailbox.address).await;
    let mut daemon = Daemon::start(&config(&sim, proxy.address, more, &beats));
    until("the first heartbeat", || (beats.well() > 0).then_some(())).await;
    for (n, (fault, said)) in faults.iter().enumerate() {
        let id = format!("cert_{n:02}");
        let mark = daemon.log().len();
        proxy.set(Some(*fault)).await;
        add(&sim, &id);
        daemon.logged(said, mark).await;
        until("the webhook does not wait", || (posted(&sim, &id) == 1).then_some(())).await;
        let end = daemon
            .logged("a delivery has been pending for longer than delivery.retry_max", mark)
            .await;
        let before = beats.well();
        let end = daemon.logged("scan finished", end).await;
        daemon.logged("scan finished", end).await;
        assert_eq!(
            beats.well(),
            before,
            "{fault:?}: an all clear from a monitor that nobody hears"
        );
        daemon.ready(200).await;
        proxy.set(None).await;
        let all = BTreeSet::from(RECIPIENTS.map(str::to_owned));
        until("all mails", || {
            let told: BTreeSet<String> =
                mailed(&mailbox, &id).into_iter().map(|(to, _)| to).collect();
            (told == all).then_some(())
        })
        .await;
        until("the heartbeat again", || (beats.well() > before).then_some(())).await;
        let mails = mailed(&mailbox, &id);
        assert_eq!(mails.len(), 3, "{fault:?}: once each");
    }
    assert_eq!(posted(&sim, "notifier.failing"), 0, "nothing has failed for an hour");
    assert_eq!(sim.receiver.posts().len(), faults.len());
    daemon.stop().await;
}

#[tokio::test]
async fn each_fault_of_a_mail_server_delays_its_mails_alone() {
    let faults = [
        (Fault::Refuses, "Connection refused"),
        (Fault::NeverGreets, "connecting: no reply within"),
        (Fault::RefusesTheSender, "MAIL FROM: 550 not from you"),
        (Fault::HangsAfterData, "DATA: no reply within 1s"),
    ];
    each_in_turn(&faults, Mailbox::start(Terms::default()).unwrap(), "tls = \"none\"\n").await;
}

#[tokio::test]
async fn a_login_that_is_refused_is_mended_by_a_reload() {
    let tls = Tls::new();
    let login = Some(("certvigil".to_owned(), "the right password".to_owned()));
    let files = (tls.certificate.clone(), tls.key.clone());
    let mailbox = Mailbox::start(Terms { tls: Some(files), login }).unwrap();
    let (sim, beats) = (sim().await, Beats::start().await);
    let file = tls.folder.path().join("password");
    std::fs::write(&file, "the wrong password\n").unwrap();
    let more = format!(
        "tls = \"starttls\"\nca_file = \"{}\"\nusername = \"certvigil\"\npassword = {{ file = \"{}\" }}\n",
        tls.ca.display(),
        file.display()
    );
    let text = config(&sim, mailbox.address, &more, &beats);
    add(&sim, "cert_a");
    let mut daemon = Daemon::start(&text);
    daemon.logged("logging in: 535", 0).await;
    until("the webhook does not wait", || (posted(&sim, "cert_a") == 1).then_some(())).await;
    std::fs::write(&file, "the right password\n").unwrap();
    daemon.reload(&text);
    until("all mails", || (mailed(&mailbox, "cert_a").len() == 3).then_some(())).await;
    until("the heartbeat", || (beats.well() > 0).then_some(())).await;
    daemon.stop().await;
    assert!(!daemon.log().contains(" password\n") && !daemon.log().contains("wrong password"));
}

#[tokio::test]
async fn a_mail_server_that_drops_starttls_gets_nothing() {
    let tls = Tls::new();
    let terms = Terms { tls: Some((tls.certificate.clone(), tls.key.clone())), login: None };
    let faults = [(
        Fault::HasNoStartTls,
        "the server does not offer STARTTLS: certvigil sends nothing without it",
    )];
    let more = format!("tls = \"starttls\"\nca_file = \"{}\"\n", tls.ca.display());
    each_in_turn(&faults, Mailbox::start(terms).unwrap(), &more).await;
}

#[tokio::test]
async fn of_three_recipients_one_is_refused_for_a_while_and_one_for_good() {
    let (sim, beats) = (sim().await, Beats::start().await);
    let text = config(&sim, sim.mailbox.address, "tls = \"none\"\n", &beats);
    sim.mailbox.refuse(RECIPIENTS[1], Some(450));
    sim.mailbox.refuse(RECIPIENTS[2], Some(550));
    add(&sim, "cert_a");
    let mut daemon = Daemon::start(&text);
    let to = |recipient: &str| {
        mailed(&sim.mailbox, "cert_a").iter().filter(|(to, _)| to == recipient).count()
    };
    until("the first one", || (to(RECIPIENTS[0]) == 1).then_some(())).await;
    daemon.logged("RCPT TO: 450", 0).await;
    daemon.logged("notification not delivered: rejected", 0).await;
    until("the others get the alert", || (posted(&sim, "notifier.failing") == 1).then_some(()))
        .await;
    daemon.logged("notifier failing: the working notifiers, if any, report it", 0).await;
    daemon.logged("a delivery has been pending for longer than delivery.retry_max", 0).await;
    let before = beats.well();
    sim.mailbox.refuse(RECIPIENTS[1], None);
    until("the second one", || (to(RECIPIENTS[1]) == 1).then_some(())).await;
    until("the heartbeat: nothing waits", || (beats.well() > before).then_some(())).await;
    assert_eq!((to(RECIPIENTS[0]), to(RECIPIENTS[2])), (1, 0));
    // The rejecting recipient accepts the next message, and the recovery is reported.
    sim.mailbox.refuse(RECIPIENTS[2], None);
    add(&sim, "cert_b");
    until("its end", || (posted(&sim, "notifier.recovered") == 1).then_some(())).await;
    assert_eq!(posted(&sim, "notifier.failing"), 1);
    daemon.stop().await;
    assert!(!daemon.log().contains("@acme.example"), "no address is logged");
}

#[tokio::test]
async fn a_webhook_that_refuses_for_now_is_tried_again_under_the_same_id_and_delays_no_mail() {
    let (sim, beats) = (sim().await, Beats::start().await);
    let text = config(&sim, sim.mailbox.address, "tls = \"none\"\n", &beats);
    let mut daemon = Daemon::start(&text);
    until("the first heartbeat", || (beats.well() > 0).then_some(())).await;
    let answers: [(Answer, &str); 3] = [
        (
            Answer { status: 429, headers: vec![("retry-after", "3".to_owned())] },
            "HTTP 429 Too Many Requests",
        ),
        (Answer { status: 503, headers: vec![] }, "HTTP 503 Service Unavailable"),
        (
            Answer { status: 307, headers: vec![("location", "http://127.0.0.1:9/".to_owned())] },
            "does not follow",
        ),
    ];
    for (n, (answer, said)) in answers.into_iter().enumerate() {
        let id = format!("cert_{n:02}");
        let mark = daemon.log().len();
        let times = if answer.status == 429 { 1 } else { 1_000 };
        sim.receiver.answer(vec![answer; times]);
        add(&sim, &id);
        daemon.logged(said, mark).await;
        until("the mails do not wait", || (mailed(&sim.mailbox, &id).len() == 3).then_some(()))
            .await;
        daemon.logged("a delivery has been pending for longer than delivery.retry_max", mark).await;
        let before = beats.well();
        drop(sim.receiver.take_answers());
        until("the heartbeat again", || (beats.well() > before).then_some(())).await;
        let posts = sim.receiver.posts();
        let of: Vec<_> = posts.iter().filter(|post| post.body.contains(&id)).collect();
        let ids: BTreeSet<&str> =
            of.iter().map(|post| post.headers["webhook-id"].to_str().unwrap()).collect();
        assert!(of.len() >= 2 && ids.len() == 1, "{said}");
        assert!(times > 1 || of.len() == 2, "when it asked for it: {}", of.len());
    }
    daemon.stop().await;
}

#[tokio::test]
async fn what_a_webhook_refuses_for_good_is_reported_through_the_others_and_anew_by_the_next_scan()
{
    let (sim, beats) = (sim().await, Beats::start().await);
    let text = config(&sim, sim.mailbox.address, "tls = \"none\"\n", &beats);
    sim.receiver.answer([Answer { status: 400, headers: vec![] }]);
    add(&sim, "cert_a");
    let mut daemon = Daemon::start(&text);
    daemon.logged("notification not delivered: rejected", 0).await;
    until("the alert is raised again", || (posted(&sim, "cert_a") == 2).then_some(())).await;
    let posts = sim.receiver.posts();
    assert_ne!(posts[0].headers["webhook-id"], posts[1].headers["webhook-id"]);
    until("the heartbeat: nothing waits", || (beats.well() > 0).then_some(())).await;
    daemon.stop().await;
}

#[tokio::test]
async fn where_the_only_notifier_refuses_the_heartbeat_is_withheld() {
    let (sim, beats) = (sim().await, Beats::start().await);
    let text = format!(
        "{}{}[schedule]\ncron = \"* * * * * *\"\n[monitoring]\n{}",
        super::support::organization(sim.api_address),
        webhook(sim.hook),
        beats.config()
    );
    let mut daemon = Daemon::start(&text);
    until("the first heartbeat", || (beats.well() > 0).then_some(())).await;
    sim.receiver.answer(vec![Answer { status: 400, headers: vec![] }; 1_000]);
    add(&sim, "cert_a");
    let end = daemon.logged("or every notifier fails", 0).await;
    let before = beats.well();
    let end = daemon.logged("scan finished", end).await;
    daemon.logged("scan finished", end).await;
    assert_eq!(beats.well(), before, "an all clear from a monitor that nobody hears");
    drop(sim.receiver.take_answers());
    until("the heartbeat again", || (beats.well() > before).then_some(())).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_check_withholds_the_heartbeat_if_every_notifier_fails() {
    let (sim, beats) = (sim().await, Beats::start().await);
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "{}{}[monitoring]\n{}",
        super::support::organization(sim.api_address),
        webhook(sim.hook),
        beats.config()
    );
    let check = || run(with(folder.path(), &text, &["check", "--notify"]));
    add(&sim, "cert_a");
    let (_, out, err) = check().await;
    assert_eq!((sim.receiver.posts().len(), beats.well()), (1, 1), "{out}{err}");
    add(&sim, "cert_b");
    sim.receiver.answer(vec![Answer { status: 400, headers: vec![] }; 1_000]);
    let (_, out, err) = check().await;
    assert_eq!(beats.well(), 1, "the only notifier was rejected: {out}{err}");
}

#[tokio::test]
async fn a_webhook_that_answers_nothing_is_given_half_a_minute_and_holds_up_nobody_else() {
    let (sim, beats) = (sim().await, Beats::start().await);
    let silent = Arc::new(Mutex::new(true));
    let hang = {
        let silent = Arc::clone(&silent);
        move |request: Request, next: Next| {
            let hang = std::mem::take(&mut *silent.lock().unwrap());
            async move {
                if hang {
                    std::future::pending::<()>().await;
                }
                let response: Response = next.run(request).await;
                response
            }
        }
    };
    let hook = serve(sim.receiver.router().layer(axum::middleware::from_fn(hang))).await;
    let text = config(&sim, sim.mailbox.address, "tls = \"none\"\n", &beats)
        .replace(&sim.hook.to_string(), &hook.to_string());
    add(&sim, "cert_a");
    let mut daemon = Daemon::start(&text);
    until("the mails", || (mailed(&sim.mailbox, "cert_a").len() == 3).then_some(())).await;
    daemon.logged("a delivery has been pending for longer than delivery.retry_max", 0).await;
    let before = beats.well();
    daemon.logged("reason=\"timeout\"", 0).await;
    assert_eq!(beats.well(), before);
    until("the second attempt", || (posted(&sim, "cert_a") == 1).then_some(())).await;
    until("the heartbeat", || (beats.well() > before).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(posted(&sim, "cert_a"), 1);
    daemon.stop().await;
}
