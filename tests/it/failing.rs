//! `notifier.failing`: a notifier that does not deliver is reported through the others.

use certvigil::{
    demo::{receiver::Answer, world::World},
    usecase::watch_notifiers,
};
use chrono::TimeDelta;
use serde_json::Value;

use super::support::{Service, Sim, days, fits_schema, start};

async fn sim() -> Sim {
    let mut world = World::with_projects(1, |n| format!("prod-{n}"));
    world.add("cert_a", Some("prod-ca"), Some(start() + days(5)), 1..=1);
    Sim::start(world).await
}

/// A check and its result, `minutes` after the start.
async fn look(service: &Service, minutes: i64) -> watch_notifiers::Report {
    let now = start() + TimeDelta::minutes(minutes);
    let report = service.check(start(), now).await;
    service.deliver(now - TimeDelta::minutes(1)).await;
    report
}

fn subjects(sim: &Sim, to: &str) -> Vec<String> {
    let mails = sim.mailbox.mails();
    let of = mails.iter().filter(|mail| mail.to == [to]);
    of.map(|mail| certvigil::demo::pages::parts(&mail.data).unwrap().subject).collect()
}

#[tokio::test]
async fn after_an_hour_the_others_get_one_alert_then_daily_ones_and_a_resolution() {
    let sim = sim().await;
    let service = Service::start(&sim.config()).await;
    let away = || Answer { status: 503, headers: vec![] };
    sim.receiver.answer((0..1_000).map(|_| away()));
    service.scan(start()).await;
    service.deliver(start()).await;
    assert_eq!(look(&service, 59).await.failing, [], "not yet an hour");
    let report = look(&service, 62).await;
    assert_eq!(report.notifications, 1);
    assert_eq!(report.failing[0].0, "hook");
    assert!(report.failing[0].1.starts_with("unavailable: HTTP 503"), "{report:?}");
    let before = subjects(&sim, "a@acme.example");
    // From its first attempt, which took a moment, to the time of the mail.
    let subject = before.last().unwrap();
    assert!(
        ["60", "61"].iter().any(|minutes| *subject
            == format!("[certvigil] WARNING: notifier “hook” has failed for {minutes} minutes")),
        "{subject}"
    );
    assert_eq!(look(&service, 120).await.notifications, 0, "once");
    assert_eq!(look(&service, 24 * 60 + 62).await.notifications, 1, "daily");
    let posts = sim.receiver.posts();
    assert!(
        posts.iter().all(|post| !post.body.contains("notifier.failing")),
        "never through itself"
    );
    // It accepts the pending deliveries.
    drop(sim.receiver.take_answers());
    service.deliver(start() + days(2)).await;
    let report = look(&service, 2 * 24 * 60 + 5).await;
    assert_eq!((report.failing.len(), report.notifications), (0, 1));
    let all = subjects(&sim, "a@acme.example");
    assert_eq!(all.last().unwrap(), "[certvigil] RESOLVED: notifier “hook” works again");
    assert_eq!(look(&service, 3 * 24 * 60).await.notifications, 0);
    assert_eq!(subjects(&sim, "a@acme.example").len(), all.len());
}

#[tokio::test]
async fn a_refusal_for_good_is_reported_at_once_with_the_recipient_and_the_answer() {
    let sim = sim().await;
    let service = Service::start(&sim.config()).await;
    sim.mailbox.refuse("b@acme.example", Some(550));
    service.scan(start()).await;
    service.deliver(start()).await;
    let report = look(&service, 2).await;
    assert_eq!(report.notifications, 1);
    let body: Value = serde_json::from_str(&sim.receiver.posts().last().unwrap().body).unwrap();
    fits_schema(&body);
    assert_eq!(
        (&body["organization"], &body["summary"]),
        (&Value::Null, &"a receiver rejected a message of notifier “ops”".into())
    );
    let failing = &body["alerts"][0]["failing_notifier"];
    assert_eq!((&failing["name"], &failing["receivers_total"]), (&"ops".into(), &1.into()));
    let receiver = &failing["receivers"][0];
    assert_eq!(
        (&receiver["receiver"], &receiver["rejected"]),
        (&"b@acme.example".into(), &true.into())
    );
    assert!(receiver["error"].as_str().unwrap().contains("not this recipient"), "{receiver:#}");
    // It is configured no longer.
    let other = sim.config().replace(", \"b@acme.example\"", "");
    let service = service.restart(&other, start() + TimeDelta::minutes(5)).await;
    look(&service, 6).await;
    let body: Value = serde_json::from_str(&sim.receiver.posts().last().unwrap().body).unwrap();
    assert_eq!(body["alerts"][0]["event"], "notifier.recovered");
}

#[tokio::test]
async fn a_start_makes_nothing_well_that_has_not_been_tried_again() {
    let sim = sim().await;
    let service = Service::start(&sim.config()).await;
    let away = || Answer { status: 503, headers: vec![] };
    sim.receiver.answer((0..1_000).map(|_| away()));
    service.scan(start()).await;
    service.deliver(start()).await;
    assert_eq!(look(&service, 65).await.notifications, 1);
    let now = start() + TimeDelta::minutes(70);
    let service = service.restart(&sim.config(), now).await;
    let report = service.check(now, now).await;
    assert_eq!((report.failing.len(), report.notifications), (0, 0), "neither failing nor well");
}

#[tokio::test]
async fn a_rejected_resolution_and_a_removed_receiver_are_reported_no_more() {
    let sim = sim().await;
    let service = Service::start(&sim.config()).await;
    sim.mailbox.refuse("b@acme.example", Some(550));
    service.scan(start()).await;
    service.deliver(start()).await;
    assert_eq!(look(&service, 2).await.notifications, 1);
    // The recipient accepts mails again, and the webhook rejects the message about it.
    sim.mailbox.refuse("b@acme.example", None);
    let later = start() + days(2);
    sim.api.world().add("cert_b", Some("other"), Some(later + days(5)), 1..=1);
    service.scan(later).await;
    service.deliver(later).await;
    let before = sim.receiver.posts().len();
    sim.receiver.answer((0..1_000).map(|_| Answer { status: 400, headers: vec![] }));
    let day = 24 * 60;
    for minute in 5..30 {
        look(&service, 2 * day + minute).await;
    }
    let posts = sim.receiver.posts();
    let ends = posts[before..].iter().filter(|post| post.body.contains("notifier.recovered"));
    assert_eq!(ends.count(), 1);
    // A delivery in flight to a removed receiver raises no alert.
    let only = sim.config().replace("[notifiers.webhook.hook]", "[notifiers.webhook.other]");
    let service = service.restart(&only, later + days(1)).await;
    let report = look(&service, 3 * day + 120).await;
    assert!(!report.failing.iter().any(|(name, _)| name == "hook"), "{report:?}");
}

#[tokio::test]
async fn a_refusal_is_reported_also_where_the_next_message_is_taken_in_the_same_moment() {
    let sim = sim().await;
    let service = Service::start(&sim.config()).await;
    sim.receiver.answer([Answer { status: 400, headers: vec![] }]);
    service.scan(start()).await;
    service.deliver(start()).await;
    service.scan(start() + TimeDelta::seconds(5)).await;
    service.deliver(start() + TimeDelta::seconds(5)).await;
    assert_eq!(sim.receiver.posts().len(), 2, "alerted again, and delivered");
    let now = start() + TimeDelta::seconds(75);
    assert_eq!(service.check(start(), now).await.failing[0].0, "hook");
    assert_eq!(look(&service, 30).await.failing, [], "and is over");
}

#[tokio::test]
async fn a_notifier_that_rejects_the_alert_about_another_does_not_get_it_at_each_check() {
    let sim = sim().await;
    let service = Service::start(&sim.config()).await;
    for to in ["a@acme.example", "b@acme.example"] {
        sim.mailbox.refuse(to, Some(550));
    }
    service.scan(start()).await;
    let refused = || Answer { status: 400, headers: vec![] };
    sim.receiver.answer((0..1_000).map(|_| refused()));
    service.deliver(start()).await;
    let mut posts = Vec::new();
    for minute in 2..30 {
        look(&service, minute).await;
        posts.push(sim.receiver.posts().len());
    }
    // The certificate, and that the mails do not get through: once each.
    assert_eq!((posts[0], posts.last()), (2, Some(&2)), "{posts:?}");
    // A day later each is reported through the other again.
    look(&service, 24 * 60 + 30).await;
    assert_eq!(sim.receiver.posts().len(), 3);
}
