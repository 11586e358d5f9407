//! `monitor.blind`: lists that stay unreadable alert once, then daily, until they recover.

use certvigil::demo::world::World;
use chrono::TimeDelta;
use serde_json::Value;

use super::support::{Heard, Service, Sim, days, start};

fn hours(n: i64) -> TimeDelta {
    TimeDelta::hours(n)
}

fn world() -> World {
    let mut world = World::with_projects(4, |n| format!("prod-{n}"));
    world.add("cert_a", Some("prod-ca"), Some(start() + days(500)), 1..=4);
    world
}

async fn step(service: &Service, hour: i64) {
    service.scan(start() + hours(hour)).await;
    service.deliver(start() + hours(hour)).await;
}

fn said(
    event: &'static str,
    reason: &'static str,
    summary: &str,
) -> Vec<(&'static str, &'static str, String)> {
    vec![(event, reason, summary.to_owned())]
}

#[tokio::test]
async fn a_project_that_cannot_be_read_for_a_day_is_reported_daily_and_its_end_too() {
    let sim = Sim::start(world()).await;
    let service = Service::start(&sim.config()).await;
    let mut heard = Heard::of(&sim);
    step(&service, 0).await;
    assert_eq!(heard.news(), [], "all is well");
    sim.api.world().projects[1].broken = Some(403);
    for hour in [6, 12, 18] {
        step(&service, hour).await;
        assert_eq!(heard.news(), [], "not for long: {hour}");
    }
    step(&service, 24).await;
    let blind = "project “prod-2” (proj_0002) could not be read for 24 hours";
    assert_eq!(heard.news(), said("monitor.blind", "opened", blind));
    let mails = sim.mailbox.mails();
    let mail = certvigil::demo::pages::parts(&mails[0].data).unwrap();
    assert_eq!(mail.subject, format!("[certvigil] CRITICAL acme: {blind}"));
    for words in [
        "Certificates in 1 project may expire unnoticed.",
        "Last error: GET /organization/projects/proj_0002/certificates: HTTP 403",
        "Unreadable since: Monday 2027-02-01 12:00 UTC",
        "Fix the cause that the error names",
    ] {
        assert!(mail.text.contains(words), "{words}\n{}", mail.text);
    }
    for hour in [30, 36, 42] {
        step(&service, hour).await;
        assert_eq!(heard.news(), [], "once: {hour}");
    }
    step(&service, 48).await;
    let two = "project “prod-2” (proj_0002) could not be read for 2 days";
    assert_eq!(heard.news(), said("monitor.blind", "repeat", two));
    // A restart repeats nothing.
    let service = service.restart(&sim.config(), start() + hours(49)).await;
    step(&service, 54).await;
    assert_eq!(heard.news(), []);
    sim.api.world().projects[1].broken = None;
    step(&service, 60).await;
    let over = "all lists can be read again";
    assert_eq!(heard.news(), said("monitor.recovered", "corrected", over));
    step(&service, 66).await;
    assert_eq!(heard.news(), []);
}

#[tokio::test]
async fn where_nothing_can_be_read_any_more_it_is_one_alert_with_the_longest_unseen_first() {
    let sim = Sim::start(world()).await;
    let service = Service::start(&sim.config()).await;
    let mut heard = Heard::of(&sim);
    step(&service, 0).await;
    // A key that is no longer good: every list fails.
    let text = sim.config().replace("admin_key = \"sk-", "admin_key = \"wrong-");
    let service = service.restart(&text, start()).await;
    for hour in [6, 12, 18] {
        step(&service, hour).await;
        assert_eq!(heard.news(), [], "{hour}");
    }
    step(&service, 24).await;
    let news = heard.news();
    assert_eq!(news.len(), 1);
    assert_eq!(news[0].0, "monitor.blind");
    let posts = sim.receiver.posts();
    let body: Value = serde_json::from_str(&posts.last().unwrap().body).unwrap();
    let monitor = &body["alerts"][0]["monitor"];
    assert_eq!(monitor["projects_affected"], 4, "{monitor:#}");
    assert_eq!(monitor["lists"][0]["since"], "2027-02-01T12:00:00Z");
    assert!(monitor["lists"][0]["error"].as_str().unwrap().contains("401"), "{monitor:#}");
}

#[tokio::test]
async fn an_organization_that_was_never_read_is_reported_too() {
    let sim = Sim::start(world()).await;
    let text = sim.config().replace("admin_key = \"sk-", "admin_key = \"wrong-");
    let service = Service::start(&text).await;
    let mut heard = Heard::of(&sim);
    step(&service, 0).await;
    let news = heard.news();
    assert_eq!((news.len(), news[0].0, news[0].1), (1, "monitor.blind", "opened"), "{news:?}");
    assert!(news[0].2.starts_with("2 lists could not be read"), "{news:?}");
    step(&service, 6).await;
    assert_eq!(heard.news(), [], "once");
}

#[tokio::test]
async fn excluded_or_patiently_watched_lists_are_reported_no_more_and_nothing_is_forecast() {
    let sim = Sim::start(world()).await;
    sim.api.world().projects[3].broken = Some(500);
    let text = format!("{}max_attempts = 1\n", "[api]\n") + &sim.config();
    let service = Service::start(&text).await;
    let mut heard = Heard::of(&sim);
    for hour in [0, 12, 24] {
        step(&service, hour).await;
    }
    assert_eq!(heard.news()[0].0, "monitor.blind");
    let longer = format!("{text}[monitoring]\nblind_after = \"10d\"\n");
    let service = service.restart(&longer, start() + hours(25)).await;
    step(&service, 36).await;
    let allowed = "the lists are still unreadable, but not longer than the new blind_after";
    assert_eq!(heard.news(), said("monitor.recovered", "policy_changed", allowed));
    let service = service.restart(&text, start() + hours(37)).await;
    step(&service, 72).await;
    assert_eq!(heard.news()[0].0, "monitor.blind", "as long as it was");
    let excluded = text.replace("base_url", "exclude_projects = [\"prod-4\"]\nbase_url");
    let service = service.restart(&excluded, start() + hours(73)).await;
    step(&service, 84).await;
    assert_eq!(heard.news(), [], "an alert reopened within a day is not resolved at once");
    step(&service, 97).await;
    let over = "all lists can be read again";
    assert_eq!(heard.news(), said("monitor.recovered", "corrected", over));
}

#[tokio::test]
async fn no_recovery_is_reported_while_a_list_is_unreadable() {
    let sim = Sim::start(world()).await;
    sim.api.world().projects[0].broken = Some(403);
    let service = Service::start(&sim.config()).await;
    let mut heard = Heard::of(&sim);
    for hour in [0, 12] {
        step(&service, hour).await;
    }
    // The first list recovers after its alert; another one fails for a short time.
    step(&service, 24).await;
    assert_eq!(heard.news()[0].0, "monitor.blind");
    sim.api.world().projects[0].broken = None;
    sim.api.world().projects[1].broken = Some(403);
    step(&service, 30).await;
    let some = "the lists of this alert can be read again, or are no longer watched";
    assert_eq!(heard.news(), said("monitor.recovered", "corrected", some));
    // It is blind again, and the webhook does not ask for this organization any more.
    for hour in [42, 54] {
        step(&service, hour).await;
    }
    assert_eq!(heard.news()[0].0, "monitor.blind");
    let other = sim
        .config()
        .replace("[notifiers.webhook.hook]", "[notifiers.webhook.hook]\norganizations = [\"x\"]");
    let service = service.restart(&other, start() + hours(55)).await;
    step(&service, 60).await;
    assert_eq!(heard.news(), [], "an alert reopened within a day is not resolved at once");
    step(&service, 79).await;
    let unwatched = "the unreadable lists are no longer watched for this notifier";
    assert_eq!(heard.news(), said("monitor.recovered", "unwatched", unwatched));
}
