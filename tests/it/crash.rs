//! Kills between any two lines: nothing is lost, and only deliveries in flight are repeated, with
//! the same id.

use certvigil::{
    clock::Clock,
    demo::world::World,
    domain::{
        notifier::{Grouping, Route},
        retry::{FailureReason, Outcome},
    },
    message::Notification,
    notify::Notifier,
    usecase::deliver,
};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::{BoxFuture, FutureExt};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use super::support::{Service, Sim, certvigil, days, start, until};

fn world(days: i64) -> World {
    let mut world = World::with_projects(3, |n| format!("prod-{n}"));
    world.add("cert_a", Some("prod-ca"), Some(start() + TimeDelta::days(days)), 1..=3);
    world
}

/// Where a worker dies in the middle of an attempt.
#[derive(Clone, Copy)]
enum Death {
    BeforeSending,
    BetweenSendingAndRecording,
}

/// A notifier at which the worker hangs, until it is killed.
struct Dying {
    inner: Arc<dyn Notifier>,
    death: Death,
    reached: tokio::sync::Notify,
}

impl Notifier for Dying {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn routes(&self) -> Vec<Route> {
        self.inner.routes()
    }
    fn grouping(&self) -> Grouping {
        self.inner.grouping()
    }
    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }
    fn max_per_minute(&self) -> Option<std::num::NonZeroU32> {
        self.inner.max_per_minute()
    }
    fn attempt_limit(&self) -> Duration {
        self.inner.attempt_limit()
    }
    fn failures(&self) -> &'static [FailureReason] {
        self.inner.failures()
    }

    fn deliver<'a>(
        &'a self,
        notification: &'a Notification,
        receiver: &'a str,
        now: DateTime<Utc>,
    ) -> BoxFuture<'a, Outcome> {
        async move {
            match self.death {
                Death::BeforeSending => {}
                Death::BetweenSendingAndRecording => {
                    self.inner.deliver(notification, receiver, now).await;
                }
            }
            self.reached.notify_one();
            std::future::pending().await
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_worker_that_dies_in_an_attempt_leaves_it_to_the_next_start() {
    for (death, expected) in [(Death::BeforeSending, 1), (Death::BetweenSendingAndRecording, 2)] {
        let sim = Sim::start(world(5)).await;
        let service = Service::start(&sim.config()).await;
        service.scan(start()).await;
        let dying = Dying {
            inner: Arc::clone(&service.notifiers[1]),
            death,
            reached: tokio::sync::Notify::new(),
        };
        let policy = &service.config.delivery;
        let never = tokio_util::sync::CancellationToken::new();
        let now = start() + TimeDelta::minutes(1);
        tokio::select! {
            _ = deliver::run_once(&service.store, &dying, policy, now, &never) => panic!("it cannot end"),
            () = dying.reached.notified() => {}
        }
        let service = service.restart(&sim.config(), now).await;
        assert_eq!(
            service.scan(start() + TimeDelta::minutes(2)).await.notifications,
            0,
            "a committed alert is delivered"
        );
        service.deliver(start() + TimeDelta::minutes(2)).await;
        service.deliver(start() + TimeDelta::minutes(3)).await;
        let posts = sim.receiver.posts();
        assert_eq!(posts.len(), expected);
        let ids: BTreeSet<_> =
            posts.iter().map(|post| post.headers["webhook-id"].clone()).collect();
        assert_eq!(ids.len(), 1, "recognisable by its id");
        assert_eq!(sim.mailbox.mails().len(), 2, "the other notifier has its own way");
    }
}

#[tokio::test]
async fn a_scan_that_dies_before_its_commit_is_decided_again_and_one_after_it_is_not() {
    let sim = Sim::start(world(5)).await;
    let service = Service::start(&sim.config()).await;
    // Before: it has read, and nothing of it is kept.
    let (progress, _) = tokio::sync::watch::channel(Default::default());
    certvigil::usecase::scan::read(&service.target, Arc::default(), start(), &progress).await;
    let service = service.restart(&sim.config(), start()).await;
    assert_eq!(service.scan(start()).await.notifications, 2, "a mail and a webhook");
    // After the commit it is in the outbox, and nothing is repeated.
    let service = service.restart(&sim.config(), start()).await;
    assert_eq!(service.scan(start() + TimeDelta::minutes(1)).await.notifications, 0);
    service.deliver(start() + TimeDelta::minutes(1)).await;
    assert_eq!((sim.receiver.posts().len(), sim.mailbox.mails().len()), (1, 2));
}

#[tokio::test]
async fn what_was_given_up_is_raised_again_by_the_next_scan_under_a_new_id() {
    let sim = Sim::start(world(5)).await;
    let service =
        Service::start(&format!("{}[delivery]\ngive_up_after = \"1h\"\n", sim.config())).await;
    service.scan(start()).await;
    let broken = certvigil::demo::receiver::Answer { status: 503, headers: vec![] };
    sim.receiver.answer(vec![broken; 2]);
    service.deliver(start()).await;
    service.deliver(start() + days(1)).await;
    let first = sim.receiver.posts();
    assert_eq!(first.len(), 2);
    assert_eq!(first[0].headers["webhook-id"], first[1].headers["webhook-id"]);
    let report = service.scan(start() + days(1)).await;
    assert_eq!(report.notifications, 1, "only the webhook: the mail was delivered");
    service.deliver(start() + days(1)).await;
    let posts = sim.receiver.posts();
    assert_eq!(posts.len(), 3);
    assert_ne!(posts[0].headers["webhook-id"], posts[2].headers["webhook-id"]);
}

/// `kill -9` at random moments of scan, commit and delivery: more than two hundred, to four
/// services at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_at_random_moments_loses_nothing_and_repeats_only_with_the_same_id() {
    const SERVICES: usize = 4;
    let killed: Vec<_> = (0..SERVICES).map(|_| tokio::spawn(kill_again_and_again())).collect();
    let mut repeated = 0;
    for one in killed {
        repeated += one.await.unwrap();
    }
    eprintln!("{} kills: {repeated} messages came twice", SERVICES * KILLS);
}

/// How often each service is killed.
const KILLS: usize = 52;

/// A scan every second, and certificates that come one after the other. Gives how many messages
/// came more than once.
async fn kill_again_and_again() -> usize {
    let now = Clock::System.now();
    let mut initial = World::with_projects(4, |n| format!("prod-{n}"));
    initial.add("cert_0000", Some("cert_0000"), Some(now + days(5)), 1..=4);
    let sim = Sim::start(initial).await;
    let folder = tempfile::tempdir().unwrap();
    let text =
        format!("{}[schedule]\ncron = \"* * * * * *\"\n[log]\nlevel = \"error\"\n", sim.config());
    std::fs::write(folder.path().join("c.toml"), text).unwrap();
    let launch = || {
        let mut command = certvigil(folder.path());
        command.args(["--config", "c.toml", "run"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut expected = BTreeSet::from(["cert_0000".to_owned()]);
    for kill in 1..=KILLS {
        let mut child = launch();
        let id = format!("cert_{kill:04}");
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..400))).await;
        sim.api.world().add(&id, Some(&id), Some(now + days(5)), 1..=4);
        expected.insert(id);
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..600))).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut last = launch();
    // For each receiver: the certificates and the ids of their messages.
    let told = || {
        let mut of_webhook: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for post in sim.receiver.posts() {
            let body: Value = serde_json::from_str(&post.body).unwrap();
            for alert in body["alerts"].as_array().unwrap() {
                let certificate = alert["certificate"]["id"].as_str().unwrap().to_owned();
                let id = body["id"].as_str().unwrap().to_owned();
                of_webhook.entry(certificate).or_default().insert(id);
            }
        }
        let mut of_mail: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        for mail in sim.mailbox.mails() {
            let text = String::from_utf8_lossy(&mail.data).into_owned();
            let id =
                text.lines().find_map(|line| line.strip_prefix("Message-ID: ")).unwrap().to_owned();
            let read = certvigil::demo::pages::parts(&mail.data).unwrap();
            // A mail tells ten in full, with their ids, and lists the others by their names: both
            // are the same here.
            let words = read.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for word in words.filter(|word| word.starts_with("cert_")) {
                of_mail
                    .entry((mail.to[0].clone(), word.to_owned()))
                    .or_default()
                    .insert(id.clone());
            }
        }
        (of_webhook, of_mail)
    };
    until("everybody told of everything", || {
        let (of_webhook, of_mail) = told();
        let all = of_webhook.len() == expected.len() && of_mail.len() == 2 * expected.len();
        all.then_some(())
    })
    .await;
    last.kill().unwrap();
    last.wait().unwrap();
    let (of_webhook, of_mail) = told();
    for (certificate, ids) in &of_webhook {
        assert_eq!(ids.len(), 1, "{certificate} arrived in {ids:?}: a repetition has the same id");
    }
    for (who, ids) in &of_mail {
        assert_eq!(ids.len(), 1, "{who:?} arrived in {ids:?}");
    }
    let posts = sim.receiver.posts();
    let distinct: BTreeSet<&str> =
        posts.iter().map(|post| post.headers["webhook-id"].to_str().unwrap()).collect();
    // At most the one that was in flight at a kill.
    let repeated = posts.len() - distinct.len();
    assert!(repeated <= KILLS, "{repeated}");
    repeated
}
