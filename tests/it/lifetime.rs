//! A certificate's life, walked from 100 days before its end to 3 days after, with a real Admin
//! API, a real mailbox and a real webhook receiver, and the messages counted where they arrive.

use certvigil::demo::{pages::parts, world::World};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::support::{Service, Sim, days, start};

/// What the receivers got: `(day, words)`, with days counted from the start.
struct Walk {
    sim: Sim,
    service: Service,
    heard: Vec<(i64, String)>,
    mails: usize,
}

impl Walk {
    async fn start(world: World) -> Walk {
        let sim = Sim::start(world).await;
        let service = Service::start(&sim.config()).await;
        Walk { sim, service, heard: Vec::new(), mails: 0 }
    }

    /// One day: a scan at noon, deliveries, and the received messages.
    async fn day(&mut self, day: i64) {
        let now = start() + days(day);
        self.service.scan(now).await;
        self.service.deliver(now).await;
        self.listen(day);
    }

    fn listen(&mut self, day: i64) {
        let posts = self.sim.receiver.posts();
        for post in posts.iter().skip(self.heard.len()) {
            let body: Value = serde_json::from_str(&post.body).unwrap();
            let alerts = body["alerts"].as_array().unwrap();
            let words: Vec<String> = alerts
                .iter()
                .map(|alert| {
                    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
                    let event = word(&alert["event"]).replace("certificate.", "");
                    if let Some(projects) = alert["projects_total"].as_u64() {
                        return format!("{projects} {event} {}", word(&alert["reason"]));
                    }
                    let id = word(&alert["certificate"]["id"]);
                    format!("{id} {event} {} {}", word(&alert["stage"]), word(&alert["reason"]))
                })
                .collect();
            self.heard.push((day, words.join("; ")));
        }
        let mails = self.sim.mailbox.mails();
        // Two people, one mail each for every message that the webhook got.
        assert_eq!(mails.len(), 2 * self.heard.len(), "day {day}");
        for mail in &mails[self.mails..] {
            assert!(parts(&mail.data).unwrap().subject.contains(" acme: "));
        }
        self.mails = mails.len();
    }

    fn heard(&self) -> Vec<String> {
        self.heard.iter().map(|(day, words)| format!("{day}: {words}")).collect()
    }
}

fn world(end: DateTime<Utc>) -> World {
    world_of(20, end)
}

/// A certificate that is active in most of so many projects.
fn world_of(projects: usize, end: DateTime<Utc>) -> World {
    let mut world = World::with_projects(projects, |n| format!("prod-{n}"));
    world.add("cert_a", Some("prod-ca"), Some(end), 1..=projects * 4 / 5);
    world
}

#[tokio::test]
async fn a_life_is_reported_in_its_stages_one_message_each_whatever_the_number_of_projects() {
    let mut walk = Walk::start(world_of(150, start() + days(100))).await;
    for day in 0..=103 {
        walk.day(day).await;
    }
    assert_eq!(
        walk.heard(),
        [
            "10: cert_a expiring 90d opened",
            "70: cert_a expiring 30d stage",
            "86: cert_a expiring 14d stage",
            "93: cert_a expiring 7d stage",
            "99: cert_a expiring 1d stage",
            "100: 120 project.uncovered opened; cert_a expired expired stage",
            "101: 120 project.uncovered repeat; cert_a expired expired repeat",
            "102: 120 project.uncovered repeat; cert_a expired expired repeat",
            "103: 120 project.uncovered repeat; cert_a expired expired repeat",
        ]
    );
}

#[tokio::test]
async fn thresholds_that_pass_during_downtime_are_reported_once_and_late() {
    let mut walk = Walk::start(world(start() + days(100))).await;
    for day in (0..=60).chain(95..=96) {
        walk.day(day).await;
    }
    assert_eq!(
        walk.heard(),
        ["10: cert_a expiring 90d opened", "95: cert_a expiring 7d stage"],
        "30d and 14d passed in between"
    );
}

#[tokio::test]
async fn a_renewal_is_reported_once_and_the_ladder_starts_afresh() {
    let mut walk = Walk::start(world(start() + days(100))).await;
    for day in 0..=75 {
        walk.day(day).await;
    }
    walk.sim.api.world().certificate("cert_a").unwrap().expires_at = Some(start() + days(400));
    for day in 76..=320 {
        walk.day(day).await;
    }
    assert_eq!(
        walk.heard(),
        [
            "10: cert_a expiring 90d opened",
            "70: cert_a expiring 30d stage",
            "76: cert_a resolved 30d renewed",
            "310: cert_a expiring 90d opened",
        ]
    );
}

#[tokio::test]
async fn a_replacement_is_reported_once() {
    let mut walk = Walk::start(world(start() + days(100))).await;
    for day in 0..=80 {
        walk.day(day).await;
    }
    {
        let mut world = walk.sim.api.world();
        world.add("cert_b", Some("prod-ca-2"), Some(start() + days(900)), 1..=16);
    }
    walk.day(81).await;
    for active in walk.sim.api.world().certificate("cert_a").unwrap().projects.values_mut() {
        *active = false;
    }
    for day in 82..=110 {
        walk.day(day).await;
    }
    assert_eq!(
        walk.heard(),
        [
            "10: cert_a expiring 90d opened",
            "70: cert_a expiring 30d stage",
            "82: cert_a resolved 30d replaced",
        ]
    );
}

#[tokio::test]
async fn an_outage_of_the_api_hides_no_threshold_and_resolves_nothing() {
    let mut walk = Walk::start(world(start() + days(40))).await;
    walk.day(0).await;
    for project in &mut walk.sim.api.world().projects {
        project.broken = Some(403);
    }
    for day in 1..=12 {
        walk.day(day).await;
    }
    let last = walk.sim.receiver.posts().pop().unwrap();
    let body: Value = serde_json::from_str(&last.body).unwrap();
    assert_eq!(body["scan"]["complete"], false);
    assert_eq!(body["scan"]["projects_unreadable"], 20);
    assert_eq!(
        body["scan"]["oldest_read_at"], "2027-02-01T12:00:00Z",
        "the message has the age of the data"
    );
    // And every day that certvigil is blind.
    let mut expected = vec!["0: cert_a expiring 90d opened".to_owned()];
    expected.extend((1..=12).map(|day| match day {
        1 => "1: - monitor.blind blind opened".to_owned(),
        10 => "10: - monitor.blind blind repeat; cert_a expiring 30d stage".to_owned(),
        day => format!("{day}: - monitor.blind blind repeat"),
    }));
    assert_eq!(walk.heard(), expected);
}

#[tokio::test]
async fn a_repeat_of_six_hours_with_a_scan_every_six_hours_repeats_at_each() {
    let mut walk = Walk::start(world(start() + days(1))).await;
    for scan in 0..4 {
        let now = start() + TimeDelta::hours(6 * scan);
        walk.service.scan(now).await;
        walk.service.deliver(now).await;
        walk.listen(scan);
    }
    assert_eq!(
        walk.heard(),
        [
            "0: cert_a expiring 1d opened",
            "1: cert_a expiring 1d repeat",
            "2: cert_a expiring 1d repeat",
            "3: cert_a expiring 1d repeat",
        ]
    );
}

#[tokio::test]
async fn a_new_receiver_gets_what_is_open_and_nobody_else_gets_it_again() {
    let mut walk = Walk::start(world(start() + days(5))).await;
    walk.day(0).await;
    let before = walk.sim.mailbox.mails().len();
    let joined =
        walk.sim.config().replace("\"b@acme.example\"", "\"b@acme.example\", \"c@acme.example\"");
    let now = start() + days(1);
    let service = walk.service.restart(&joined, now).await;
    service.scan(now).await;
    service.deliver(now).await;
    let mails = walk.sim.mailbox.mails();
    let to: Vec<_> = mails[before..].iter().flat_map(|mail| mail.to.clone()).collect();
    assert_eq!(to, ["c@acme.example"]);
    assert_eq!(walk.sim.receiver.posts().len(), 1);

    let added =
        format!("{joined}[notifiers.webhook.second]\nurl = \"http://{}/hook\"\n", walk.sim.hook);
    let now = start() + days(1) + TimeDelta::hours(1);
    let service = service.restart(&added, now).await;
    service.scan(now).await;
    service.deliver(now).await;
    assert_eq!(walk.sim.receiver.posts().len(), 2, "a new notifier gets the open alerts");
    assert_eq!(walk.sim.mailbox.mails().len(), mails.len());
}

#[tokio::test]
async fn the_alerts_of_an_organization_that_is_no_longer_configured_are_resolved() {
    let mut walk = Walk::start(world(start() + days(5))).await;
    walk.day(0).await;
    let renamed = walk.sim.config().replace("[organizations.acme]", "[organizations.other]");
    let now = start() + days(1);
    let service = walk.service.restart(&renamed, now).await;
    service.deliver(now).await;
    let post = walk.sim.receiver.posts().pop().unwrap();
    let body: Value = serde_json::from_str(&post.body).unwrap();
    assert_eq!(body["organization"], "acme");
    assert_eq!(body["alerts"][0]["event"], "certificate.resolved");
    assert_eq!(body["alerts"][0]["reason"], "unwatched");
    assert_eq!(service.store.organizations().await.unwrap(), []);
}

#[tokio::test]
async fn a_receiver_that_replaces_the_only_one_gets_what_is_open() {
    let mut walk = Walk::start(world(start() + days(5))).await;
    walk.day(0).await;
    let other = certvigil::demo::receiver::Receiver::default();
    let moved = other.serve().await.unwrap();
    let hook = walk.sim.hook.to_string();
    let text = walk.sim.config().replace(&hook, &moved.to_string());
    let now = start() + TimeDelta::hours(1);
    let service = walk.service.restart(&text, now).await;
    service.scan(now).await;
    service.deliver(now).await;
    let posts = other.posts();
    assert_eq!(posts.len(), 1);
    let body: Value = serde_json::from_str(&posts[0].body).unwrap();
    assert_eq!(body["alerts"][0]["reason"], "opened");
    let later = now + TimeDelta::hours(1);
    assert_eq!(service.scan(later).await.notifications, 0);
}

#[tokio::test]
async fn a_new_receiver_that_was_not_reached_gets_it_with_the_next_scan() {
    let mut walk = Walk::start(world(start() + days(5))).await;
    walk.day(0).await;
    let joined =
        walk.sim.config().replace("\"b@acme.example\"", "\"b@acme.example\", \"c@acme.example\"");
    let now = start() + TimeDelta::hours(1);
    let service = walk.service.restart(&joined, now).await;
    walk.sim.mailbox.refuse("c@acme.example", Some(550));
    service.scan(now).await;
    service.deliver(now).await;
    walk.sim.mailbox.refuse("c@acme.example", None);
    let later = now + TimeDelta::hours(1);
    assert_eq!(service.scan(later).await.notifications, 1);
    service.deliver(later).await;
    let last = walk.sim.mailbox.mails().pop().unwrap();
    assert_eq!(last.to, ["c@acme.example"]);
    assert_eq!(service.scan(later + TimeDelta::hours(1)).await.notifications, 0);
}
