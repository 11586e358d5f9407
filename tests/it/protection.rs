//! Alerts about projects that lose their last active certificate.

use axum::{extract::Request, middleware::Next, response::Response};
use certvigil::{clock::Clock, demo::world::World, domain::certificate::OrganizationName};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use std::sync::{Arc, Mutex};

use super::{
    daemon::Daemon,
    support::{Service, Sim, days, fits_schema, organization, run, serve, start, webhook, with},
};

/// Three projects; `ca` is active in the first, `shared` is inactive for the organization.
fn world() -> World {
    let mut world = World::with_projects(3, |n| ["chat", "search", "lab"][n - 1].to_owned());
    world.add("cert_ca", Some("ca"), Some(start() + days(400)), 1..=1);
    world.add("cert_shared", Some("shared"), Some(start() + days(500)), []);
    world.add("cert_spare", Some("spare"), Some(start() + days(600)), []);
    for project in ["proj_0001", "proj_0002", "proj_0003"] {
        activate(&mut world, "cert_spare", project, false);
    }
    world
}

fn activate(world: &mut World, id: &str, project: &str, active: bool) {
    let certificate = world.certificate(id).unwrap();
    certificate.projects.insert(project.to_owned(), active);
}

/// The alerts of the messages since the last time, each as event, reason and headline.
/// A little more, so that it reads as this many days wherever it is shown.
fn in_days(n: i64) -> DateTime<Utc> {
    start() + days(n) + TimeDelta::hours(1)
}

async fn scan(service: &Service, sim: &Sim, now: DateTime<Utc>) -> Vec<String> {
    let before = sim.receiver.posts().len();
    service.scan(now).await;
    service.deliver(now).await;
    let posts = sim.receiver.posts();
    let bodies =
        posts[before..].iter().map(|post| serde_json::from_str::<Value>(&post.body).unwrap());
    bodies
        .flat_map(|body| {
            fits_schema(&body);
            body["alerts"].as_array().unwrap().clone()
        })
        .map(|alert| {
            let word = |key: &str| alert[key].as_str().unwrap().to_owned();
            format!("{} {}: {}", word("event"), word("reason"), word("headline"))
        })
        .collect()
}

fn config(sim: &Sim, more: &str) -> String {
    let monitoring = "[monitoring]\nblind_after = \"30d\"\n";
    format!("{}{more}{}{monitoring}", organization(sim.api_address), webhook(sim.hook))
}

type Change = fn(&mut World);

/// Changes between daily scans, and the alerts that follow.
struct Story {
    title: &'static str,
    config: &'static str,
    steps: &'static [(Change, &'static [&'static str])],
}

const LOST: &str = "project.unprotected opened: project “chat” no longer enforces mutual TLS";
const AGAIN: &str = "project.protected protected: project “chat” enforces mutual TLS again";

const STORIES: [Story; 16] = [
    Story {
        title: "the last certificate is deactivated, and activated again",
        config: "",
        steps: &[
            (|_| (), &[]),
            (|world| activate(world, "cert_ca", "proj_0001", false), &[LOST]),
            (|_| (), &[]),
            (|world| activate(world, "cert_ca", "proj_0001", true), &[AGAIN]),
        ],
    },
    Story {
        title: "the last certificate is deleted",
        config: "",
        steps: &[
            (|_| (), &[]),
            (|world| world.certificates.retain(|one| one.id != "cert_ca"), &[LOST]),
        ],
    },
    Story {
        title: "it moves to the organization in one scan",
        config: "",
        steps: &[
            (|_| (), &[]),
            (
                |world| {
                    activate(world, "cert_ca", "proj_0001", false);
                    world.certificate("cert_ca").unwrap().organization_wide = true;
                },
                &[],
            ),
        ],
    },
    Story {
        title: "it moves to another project",
        config: "",
        steps: &[
            (|_| (), &[]),
            (
                |world| {
                    activate(world, "cert_ca", "proj_0001", false);
                    activate(world, "cert_ca", "proj_0002", true);
                },
                &[LOST],
            ),
        ],
    },
    Story {
        title: "the project is archived",
        config: "",
        steps: &[
            (|_| (), &[]),
            (|world| activate(world, "cert_ca", "proj_0001", false), &[LOST]),
            (
                |world| world.projects[0].archived = true,
                &["project.protected archived: project “chat” is archived or no longer watched"],
            ),
        ],
    },
    Story {
        title: "nothing is lost on the word of an unread list",
        config: "",
        steps: &[
            (|_| (), &[]),
            (|world| world.projects[0].broken = Some(500), &[]),
            (
                |world| {
                    world.projects[0].broken = None;
                    activate(world, "cert_ca", "proj_0001", false);
                },
                &[LOST],
            ),
        ],
    },
    Story {
        title: "a project that never had a certificate",
        config: "",
        steps: &[(|_| (), &[]), (|_| (), &[])],
    },
    Story {
        title: "a project that is expected to have one, from the first scan on",
        config: "expect_mtls = [\"sea*\"]\n",
        steps: &[
            (|_| (), &["project.unprotected opened: project “search” does not enforce mutual TLS"]),
            (
                |world| activate(world, "cert_spare", "proj_0002", true),
                &["project.protected protected: project “search” enforces mutual TLS again"],
            ),
        ],
    },
    Story {
        title: "a project that turned it off on purpose",
        config: "unprotected_ignore = [\"chat\"]\n",
        steps: &[(|_| (), &[]), (|world| activate(world, "cert_ca", "proj_0001", false), &[])],
    },
    Story {
        title: "no notifier selects it",
        config: "unprotected = \"off\"\n",
        steps: &[(|_| (), &[]), (|world| activate(world, "cert_ca", "proj_0001", false), &[])],
    },
    Story {
        title: "an organization loses what all its projects inherit",
        config: "",
        steps: &[
            (|world| world.certificate("cert_shared").unwrap().organization_wide = true, &[]),
            (
                |world| world.certificate("cert_shared").unwrap().organization_wide = false,
                // The first has a certificate of its own.
                &["project.unprotected opened: 2 projects no longer enforce mutual TLS"],
            ),
            (
                |world| activate(world, "cert_ca", "proj_0001", false),
                &["project.unprotected opened: 3 projects no longer enforce mutual TLS"],
            ),
            (
                |world| activate(world, "cert_spare", "proj_0002", true),
                &["project.protected protected: project “search” enforces mutual TLS again"],
            ),
        ],
    },
    Story {
        title: "an expired certificate is active: the door is locked, for everybody",
        config: "",
        steps: &[
            (
                |world| {
                    world.certificate("cert_ca").unwrap().expires_at = Some(start() - days(1));
                },
                &[
                    "project.uncovered opened: project “chat” has no valid certificate",
                    "certificate.expired opened: “ca” expired 24 hours ago",
                ],
            ),
            (
                |world| activate(world, "cert_ca", "proj_0001", false),
                &[
                    LOST,
                    "certificate.resolved deactivated: “ca”: it is no longer active anywhere, and its project no \
                     longer enforces mutual TLS",
                ],
            ),
        ],
    },
    Story {
        title: "a certificate that is not yet valid locks it, too",
        config: "",
        steps: &[
            (
                |world| {
                    world.certificate("cert_ca").unwrap().valid_at =
                        Some(start() + days(90) + TimeDelta::hours(1));
                },
                &[
                    "project.uncovered opened: project “chat” has no valid certificate",
                    "certificate.not_yet_valid opened: “ca” is active, but becomes valid in 90 days",
                ],
            ),
            (
                |world| activate(world, "cert_ca", "proj_0001", false),
                &[
                    LOST,
                    "certificate.resolved deactivated: “ca”: it is no longer active anywhere, and its project no \
                     longer enforces mutual TLS",
                ],
            ),
        ],
    },
    Story {
        title: "an expiring certificate is replaced, and deactivated",
        config: "",
        steps: &[
            (
                |world| {
                    world.certificate("cert_ca").unwrap().expires_at = Some(in_days(20));
                },
                &["certificate.expiring opened: “ca” expires in 20 days"],
            ),
            (
                |world| {
                    activate(world, "cert_spare", "proj_0001", true);
                    activate(world, "cert_ca", "proj_0001", false);
                },
                &[
                    "certificate.resolved replaced: “ca” is resolved: replaced by a successor in every project, and \
                   its project has another valid certificate",
                ],
            ),
        ],
    },
    Story {
        title: "an expiring certificate is deactivated, and another is active that is no successor",
        config: "",
        steps: &[
            (
                |world| {
                    world.certificate("cert_ca").unwrap().expires_at = Some(in_days(20));
                    world.certificate("cert_spare").unwrap().expires_at = Some(in_days(50));
                    activate(world, "cert_spare", "proj_0001", true);
                },
                &[
                    "certificate.expiring opened: “ca” expires in 20 days",
                    "certificate.expiring opened: “spare” expires in 50 days",
                ],
            ),
            (
                |world| activate(world, "cert_ca", "proj_0001", false),
                &[
                    "certificate.resolved deactivated: “ca” is resolved: it is no longer active anywhere, and its \
                   project has another valid certificate",
                ],
            ),
        ],
    },
    Story {
        title: "an expiring certificate is deleted without a successor",
        config: "unprotected = \"warning\"\n",
        steps: &[
            (
                |world| {
                    world.certificate("cert_ca").unwrap().expires_at = Some(in_days(20));
                },
                &["certificate.expiring opened: “ca” expires in 20 days"],
            ),
            (
                |world| world.certificates.retain(|one| one.id != "cert_ca"),
                &[
                    LOST,
                    "certificate.resolved deleted: “ca”: it was deleted, and its project no longer enforces mutual TLS",
                ],
            ),
        ],
    },
];

#[tokio::test]
async fn each_transition_is_reported_once_and_in_these_words() {
    for story in STORIES {
        let sim = Sim::start(world()).await;
        let service = Service::start(&config(&sim, story.config)).await;
        for (day, (change, expected)) in story.steps.iter().enumerate() {
            change(&mut sim.api.world());
            let now = start() + TimeDelta::days(i64::try_from(day).unwrap());
            let told = scan(&service, &sim, now).await;
            assert_eq!(told, *expected, "{}, day {day}", story.title);
        }
    }
}

#[tokio::test]
async fn it_stays_open_over_a_restart_is_repeated_weekly_and_a_later_notifier_gets_it() {
    let sim = Sim::start(world()).await;
    let text = config(&sim, "");
    let service = Service::start(&text).await;
    scan(&service, &sim, start()).await;
    activate(&mut sim.api.world(), "cert_ca", "proj_0001", false);
    assert_eq!(scan(&service, &sim, start() + days(1)).await, [LOST]);
    let other = Sim::start(World::default()).await;
    let both = format!("{text}[notifiers.webhook.later]\nurl = \"http://{}/hook\"\n", other.hook);
    let service = service.restart(&both, start() + days(2)).await;
    for day in 2..9 {
        let told = scan(&service, &sim, start() + days(day)).await;
        let reminder = "project.unprotected repeat: project “chat” no longer enforces mutual TLS";
        let expected = if day == 8 { vec![reminder] } else { vec![] };
        assert_eq!(told, expected, "day {day}");
    }
    assert!(other.receiver.posts()[0].body.contains("project.unprotected"));
    // A reload that ignores it ends it.
    let ignoring =
        text.replace("requests_per_second", "unprotected_ignore = [\"chat\"]\nrequests_per_second");
    let service = service.restart(&ignoring, start() + days(9)).await;
    assert_eq!(
        scan(&service, &sim, start() + days(9)).await,
        [
            "project.protected ignored: project “chat” does not enforce mutual TLS and is in unprotected_ignore now"
        ]
    );
}

#[tokio::test]
async fn what_flaps_is_reported_once_in_a_day() {
    let sim = Sim::start(world()).await;
    let service = Service::start(&config(&sim, "")).await;
    let mut told = Vec::new();
    for hour in 0..12 {
        activate(&mut sim.api.world(), "cert_ca", "proj_0001", hour % 2 == 0);
        told.extend(scan(&service, &sim, start() + TimeDelta::hours(hour)).await);
    }
    let lost = told.iter().filter(|one| one.starts_with("project.unprotected")).count();
    assert!(lost <= 2, "{told:#?}");
}

/// The organization's list is unreadable while a project loses its last certificate: told when it
/// can be read, and not forgotten.
#[tokio::test]
async fn a_loss_behind_an_unreadable_list_is_reported_when_it_is_certain() {
    let sim = Sim::start(world()).await;
    let broken = Arc::new(Mutex::new(false));
    let api = serve(sim.api.router().layer(axum::middleware::from_fn({
        let broken = Arc::clone(&broken);
        move |request: Request, next: Next| {
            let is_broken =
                *broken.lock().unwrap() && request.uri().path() == "/v1/organization/certificates";
            async move {
                match is_broken {
                    true => Response::builder().status(403).body("{}".into()).unwrap(),
                    false => next.run(request).await,
                }
            }
        }
    })))
    .await;
    let text = format!("{}{}", organization(api), webhook(sim.hook));
    let service = Service::start(&text).await;
    assert_eq!(scan(&service, &sim, start()).await, [""; 0]);
    *broken.lock().unwrap() = true;
    activate(&mut sim.api.world(), "cert_ca", "proj_0001", false);
    for hour in [1, 2] {
        let told = scan(&service, &sim, start() + TimeDelta::hours(hour)).await;
        assert_eq!(told, [""; 0], "it may be active for the organization");
    }
    *broken.lock().unwrap() = false;
    assert_eq!(scan(&service, &sim, start() + TimeDelta::hours(3)).await, [LOST]);
}

/// A certificate that moves while the lists are read is seen in neither of them.
#[tokio::test]
async fn a_swap_between_two_requests_is_no_loss() {
    let sim = Sim::start(world()).await;
    let swap = Arc::new(Mutex::new(false));
    let world_of = sim.api.clone();
    let api = serve(sim.api.router().layer(axum::middleware::from_fn({
        let swap = Arc::clone(&swap);
        move |request: Request, next: Next| {
            let world = world_of.clone();
            let of_chat = request.uri().path().ends_with("/projects/proj_0001/certificates");
            let now = of_chat && std::mem::take(&mut *swap.lock().unwrap());
            async move {
                if !now {
                    return next.run(request).await;
                }
                // Answered as it is between deactivating one and activating the other.
                activate(&mut world.world(), "cert_ca", "proj_0001", false);
                let answer = next.run(request).await;
                activate(&mut world.world(), "cert_spare", "proj_0001", true);
                answer
            }
        }
    })))
    .await;
    let text = format!("{}{}", organization(api), webhook(sim.hook));
    let service = Service::start(&text).await;
    assert_eq!(scan(&service, &sim, start()).await, [""; 0]);
    *swap.lock().unwrap() = true;
    assert_eq!(scan(&service, &sim, start() + days(1)).await, [""; 0]);
    assert!(!*swap.lock().unwrap(), "it was swapped");
    assert_eq!(scan(&service, &sim, start() + days(2)).await, [""; 0]);
}

#[tokio::test]
async fn excluded_projects_are_resolved_with_that_reason_and_forgotten() {
    let sim = Sim::start(world()).await;
    let text = config(&sim, "");
    let service = Service::start(&text).await;
    scan(&service, &sim, start()).await;
    activate(&mut sim.api.world(), "cert_ca", "proj_0001", false);
    assert_eq!(scan(&service, &sim, start() + days(1)).await, [LOST]);
    let excluding =
        text.replace("requests_per_second", "exclude_projects = [\"chat\"]\nrequests_per_second");
    let service = service.restart(&excluding, start() + days(2)).await;
    assert_eq!(
        scan(&service, &sim, start() + days(2)).await,
        ["project.protected archived: project “chat” is archived or no longer watched"]
    );
    let service = service.restart(&text, start() + days(3)).await;
    assert_eq!(scan(&service, &sim, start() + days(3)).await, [""; 0], "it has none, as before");
}

#[tokio::test]
async fn a_state_that_never_knew_of_losses_begins_without_one() {
    let sim = Sim::start(world()).await;
    activate(&mut sim.api.world(), "cert_ca", "proj_0002", true);
    let text = config(&sim, "");
    let service = Service::start(&text).await;
    scan(&service, &sim, start()).await;
    activate(&mut sim.api.world(), "cert_ca", "proj_0001", false);
    assert_eq!(scan(&service, &sim, start() + days(1)).await, [LOST]);
    // As the previous version wrote it: without lost protections and their alerts.
    let url = format!("sqlite:{}", service.config.state.place);
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    for statement in [
        "UPDATE organizations SET inventory = json_remove(inventory, '$.protection_lost')",
        "DELETE FROM ledger",
        "DELETE FROM deliveries",
        "DELETE FROM notifications",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    pool.close().await;
    let service = service.restart(&text, start() + days(2)).await;
    assert_eq!(scan(&service, &sim, start() + days(2)).await, [""; 0], "it was so before");
    activate(&mut sim.api.world(), "cert_ca", "proj_0002", false);
    let lost = "project.unprotected opened: project “search” no longer enforces mutual TLS";
    assert_eq!(scan(&service, &sim, start() + days(3)).await, [lost]);
}

#[tokio::test]
async fn an_acknowledged_project_is_quiet_until_its_date_or_until_it_is_protected() {
    let sim = Sim::start(world()).await;
    let text = config(&sim, "");
    let now = Clock::System.now();
    let service = Service::start(&text).await;
    scan(&service, &sim, now - days(2)).await;
    activate(&mut sim.api.world(), "cert_ca", "proj_0001", false);
    assert_eq!(scan(&service, &sim, now - days(1)).await, [LOST]);
    let folder = service.folder.path().to_owned();
    let file = format!("{text}[state]\nurl = \"sqlite:state.db\"\n");
    let command = |arguments: &[&str]| run(with(&folder, &file, arguments));
    let until = (now + days(20)).format("%Y-%m-%d").to_string();
    let ack = |project| {
        ["ack", "--project", project, "--until", &until, "--reason", "moving", "--by", "dana"]
    };
    let (code, _, err) = command(&ack("search")).await;
    assert!(code == 1 && err.contains("has no open alert for missing mutual TLS"), "{err}");
    let (code, _, err) = command(&ack("nobody")).await;
    assert!(code == 1 && err.contains("no project “nobody”"), "{err}");
    let (code, out, err) = command(&ack("chat")).await;
    assert!(code == 0 && out.contains("the project “chat” (proj_0001) is acknowledged"), "{err}");
    let (_, out, _) = command(&["acks"]).await;
    assert!(
        out.contains("project") && out.contains("proj_0001") && out.contains("moving"),
        "{out}"
    );
    for day in [6, 13] {
        assert_eq!(
            scan(&service, &sim, now + days(day)).await,
            [""; 0],
            "no reminder on day {day}"
        );
    }
    let silence_ended =
        "project.unprotected ack_ended: project “chat” no longer enforces mutual TLS";
    assert_eq!(scan(&service, &sim, now + days(21)).await, [silence_ended]);

    // One that is taken back is over, and so is one of a project that is protected again.
    command(&ack("chat")).await;
    let (code, _, err) = command(&["unack", "--project", "chat"]).await;
    assert_eq!(code, 0, "{err}");
    command(&ack("chat")).await;
    activate(&mut sim.api.world(), "cert_ca", "proj_0001", true);
    assert_eq!(scan(&service, &sim, now + days(22)).await, [AGAIN]);
    let acme = OrganizationName::parse("acme").unwrap();
    let kept = service.store.all_acknowledgements(&acme).await.unwrap();
    assert!(kept.iter().all(|one| one.ended.is_some() || one.until < now + days(22)), "{kept:?}");
}

#[tokio::test]
async fn check_pages_and_metrics_show_it() {
    let sim = Sim::start(world()).await;
    let text = format!("{}[state]\nurl = \"sqlite:state.db\"\n", config(&sim, ""));
    let folder = tempfile::tempdir().unwrap();
    run(with(folder.path(), &text, &["check", "--notify"])).await;
    activate(&mut sim.api.world(), "cert_ca", "proj_0001", false);
    // The database knows the earlier state; check does not change it.
    let expected = [
        ("table", "acme: chat (proj_0001), since "),
        (
            "json",
            "\"unprotected_projects\": [\n    {\n      \"organization\": \"acme\",\n      \"id\": \"proj_0001\"",
        ),
        ("nagios", "critical: acme: chat (proj_0001) does not enforce mutual TLS, since "),
        ("csv", "error: acme: chat (proj_0001) does not enforce mutual TLS, since "),
    ];
    for (output, expected) in expected {
        let (code, out, err) =
            run(with(folder.path(), &text, &["check", "--output", output])).await;
        assert_eq!(code, 2, "{output}: {out}{err}");
        assert!(format!("{out}{err}").contains(expected), "{output}: {out}{err}");
    }
    run(with(folder.path(), &text, &["check", "--notify"])).await;
    let (_, out, err) = run(with(folder.path(), &text, &["explain", "ca"])).await;
    let said = "Not active in chat (proj_0001), which has no active certificate since ";
    assert!(out.contains(said), "{out}{err}");
    let mut daemon = Daemon::start_in(folder, &text, |_| ());
    daemon.ready(200).await;
    let page = daemon.text("/").await;
    let answer = "Yes: the project “chat” of acme does not enforce mutual TLS";
    assert!(page.contains(answer), "{page}");
    assert!(daemon.text("/projects?status=unprotected").await.contains("mutual TLS is off"));
    let page = daemon.text("/certificates/acme/cert_ca").await;
    assert!(page.contains("No certificate is active in chat"), "{page}");
    let metrics = daemon.text("/metrics").await;
    assert!(metrics.contains("certvigil_projects{organization=\"acme\",state=\"unprotected\"} 1"));
    let (_, projects) = daemon.get("/api/v1/projects?coverage=unprotected").await.unwrap();
    assert_eq!(projects["data"][0]["id"], "proj_0001");
    assert!(projects["data"][0]["unprotected_since"].is_string());
    let new = serde_json::json!({
        "organization": "acme", "project": "proj_0001", "until": "2099-01-01", "reason": "x",
    });
    let refused = daemon.request(reqwest::Method::POST, "/api/v1/acknowledgements").json(&new);
    assert_eq!(refused.send().await.unwrap().status(), 403, "nobody writes without a token");
    daemon.stop().await;
}
