//! Answers of services that do not mean what their status says.

use axum::{Router, routing::any};
use certvigil::{
    demo::{receiver::Answer, world::World},
    domain::delivery::DeliveryState,
    heartbeat::{Heartbeat, Settings, Signal},
    secret::Secret,
    store::Which,
};

use super::support::{Service, Sim, crypto, days, organization, serve, start};

fn world() -> World {
    let mut world = World::with_projects(1, |n| format!("prod-{n}"));
    world.add("cert_a", Some("prod-ca"), Some(start() + days(6)), [1]);
    world
}

fn webhook(sim: &Sim, format: &str, url: &str) -> String {
    format!(
        "{}unprotected = \"off\"\n[notifiers.webhook.hook]\nformat = \"{format}\"\nurl = \"{url}\"\n",
        organization(sim.api_address)
    )
}

#[tokio::test]
async fn an_opsgenie_alert_that_is_not_there_is_closed() {
    let sim = Sim::start(world()).await;
    let text = webhook(&sim, "opsgenie", &format!("http://{}/hook", sim.hook));
    let service = Service::start(&format!("{text}key = \"the-key\"\n")).await;
    service.scan(start()).await;
    service.deliver(start()).await;
    for active in sim.api.world().certificate("cert_a").unwrap().projects.values_mut() {
        *active = false;
    }
    sim.receiver.answer((0..3).map(|_| Answer { status: 404, headers: vec![] }));
    service.scan(start() + days(1)).await;
    service.deliver(start() + days(1)).await;
    let rows = service.store.deliveries(&Which::default(), 10).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.state == DeliveryState::Delivered), "{rows:?}");
}

#[tokio::test]
async fn a_teams_workflow_that_reports_a_failure_has_not_delivered() {
    let sim = Sim::start(world()).await;
    let said = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP \
                error 429";
    let address = serve(Router::new().fallback(any(move || async move { said }))).await;
    let service = Service::start(&webhook(&sim, "teams", &format!("http://{address}/"))).await;
    service.scan(start()).await;
    let report = service.deliver(start()).await.remove(0);
    assert_eq!((report.delivered, report.waiting), (0, 1));
    let rows = service.store.deliveries(&Which::default(), 10).await.unwrap();
    let (outcome, detail) = rows[0].last.clone().unwrap();
    assert_eq!(outcome, "unavailable");
    assert!(detail.contains("message delivery failed"), "{detail}");
}

#[tokio::test]
async fn a_heartbeat_to_an_address_that_the_service_does_not_know_is_none() {
    crypto();
    for (said, counts) in [("OK", true), ("OK (not found)", false)] {
        let address = serve(Router::new().fallback(any(move || async move { said }))).await;
        let url = Secret::Literal(format!("http://{address}/ping").into());
        let heartbeat = Heartbeat::new(&Settings { url, start_fail: false }).unwrap();
        assert_eq!(heartbeat.send(Signal::Well).await, counts, "{said}");
    }
}
