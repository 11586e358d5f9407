//! Signed links: a receiver acknowledges an alert from the message, once, and without signing in.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use certvigil::{
    clock::Clock,
    demo::{pages::parts, world::World},
    domain::certificate::OrganizationName,
    usecase::follow_link::{self, LinkError, OpenedLink},
};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, StatusCode, header::LOCATION};

use super::{
    daemon::Daemon,
    support::{Service, Sim, days, start, until},
    window::{TOKEN, acknowledgements, guarded},
};

fn world(now: DateTime<Utc>) -> World {
    let mut world = World::with_projects(1, |_| "prod".to_owned());
    world.add("cert_a", Some("prod-ca"), Some(now + days(20)), [1]);
    world.add("cert_b", Some("other-ca"), Some(now + days(25)), [1]);
    world
}

fn with_links(text: &str) -> String {
    format!("{text}[http]\npublic_url = \"https://certvigil.acme.example\"\n")
}

/// The tokens in the latest mail to a recipient, in the order of its alerts.
pub fn tokens(sim: &Sim, to: &str) -> Vec<String> {
    let mails = sim.mailbox.mails();
    let mail = mails.iter().rev().find(|mail| mail.to == [to]).unwrap();
    let text = parts(&mail.data).unwrap().text;
    let links = text.split_whitespace().filter_map(|word| word.split_once("/link/"));
    links.map(|(_, token)| token.to_owned()).collect()
}

/// A token with another byte at this place: 0 to 15 are the notification, 16 the alert.
fn changed(token: &str, place: usize) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
    bytes[place] ^= 1;
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The error of a link.
async fn refused(service: &Service, token: &str, now: DateTime<Utc>) -> Option<LinkError> {
    follow_link::open(&service.store, token, now).await.err()
}

/// Uses a link on a day.
async fn use_link(service: &Service, token: &str, now: DateTime<Utc>) -> Result<(), LinkError> {
    let link = follow_link::open(&service.store, token, now).await?;
    let OpenedLink::Acknowledge(link) = link else { panic!("{link:?}") };
    let policy = service.config.policy.of(&service.config.organizations[0]);
    let (until, reason) = (now + days(7), "under way".to_owned());
    follow_link::use_link(&service.store, &policy, *link, until, reason, now).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_unchanged_link_of_a_recent_message_is_accepted() {
    let sim = Sim::start(world(start())).await;
    let service = Service::start(&with_links(&sim.config())).await;
    service.scan(start()).await;
    service.deliver(start()).await;
    let of_a = tokens(&sim, "a@acme.example");
    let of_b = tokens(&sim, "b@acme.example");
    assert_eq!((of_a.len(), of_b.len()), (2, 2));
    let token = &of_a[0];
    for valid in of_a.iter().chain(&of_b) {
        assert!(refused(&service, valid, start()).await.is_none(), "{valid}");
    }
    // Another installation, and another organization there.
    let other_sim = Sim::start(world(start())).await;
    let text = with_links(&other_sim.config()).replace(".acme]", ".other]");
    let other = Service::start(&text).await;
    other.scan(start()).await;
    other.deliver(start()).await;
    let foreign = tokens(&other_sim, "a@acme.example").remove(0);
    let ours = URL_SAFE_NO_PAD.decode(token).unwrap();
    let theirs = URL_SAFE_NO_PAD.decode(&foreign).unwrap();
    let mixed = |head: &[u8], tail: &[u8]| URL_SAFE_NO_PAD.encode([head, tail].concat());
    let of_other = URL_SAFE_NO_PAD.decode(&of_b[0]).unwrap();
    let cases = [
        ("empty", String::new()),
        ("no token", "acknowledge".to_owned()),
        ("not base64", "%%%%".to_owned()),
        ("the first character is missing", token[1..].to_owned()),
        ("the last character is missing", token[..token.len() - 1].to_owned()),
        ("longer", format!("{token}AAAA")),
        ("padded", format!("{token}=")),
        ("in capitals", token.to_uppercase()),
        ("a space before it", format!(" {token}")),
        ("another notification", changed(token, 3)),
        ("another alert", changed(token, 16)),
        ("an alert that does not exist", mixed(&[&ours[..16], &[99]].concat(), &ours[17..])),
        ("another signature", changed(token, 17)),
        ("the end of the signature", changed(token, 32)),
        ("only zeros", URL_SAFE_NO_PAD.encode([0; 33])),
        ("a signature of zeros", mixed(&ours[..17], &[0; 16])),
        ("the signature of another alert", {
            mixed(&ours[..17], &URL_SAFE_NO_PAD.decode(&of_a[1]).unwrap()[17..])
        }),
        ("the alert of another receiver’s link", {
            mixed(&of_other[..16], &URL_SAFE_NO_PAD.decode(&of_b[1]).unwrap()[17..])
        }),
        ("another installation", foreign.clone()),
        ("the signature of another installation", mixed(&ours[..17], &theirs[17..])),
        ("the message of another installation", mixed(&theirs[..17], &ours[17..])),
    ];
    for (what, forged) in cases {
        let error = refused(&service, &forged, start()).await;
        assert!(matches!(error, Some(LinkError::Unknown)), "{what}: {error:?}");
    }
    let late = refused(&service, token, start() + days(30) + TimeDelta::minutes(1)).await;
    assert!(matches!(late, Some(LinkError::Expired)), "{late:?}");
    let acme = OrganizationName::parse("acme").unwrap();
    assert!(service.store.all_acknowledgements(&acme).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_acknowledges_once_and_only_what_its_message_was_about() {
    let sim = Sim::start(world(start())).await;
    let service = Service::start(&with_links(&sim.config())).await;
    service.scan(start()).await;
    service.deliver(start()).await;
    let (of_a, of_b) = (tokens(&sim, "a@acme.example"), tokens(&sim, "b@acme.example"));
    let acme = OrganizationName::parse("acme").unwrap();
    use_link(&service, &of_a[0], start()).await.unwrap();
    let all = service.store.all_acknowledgements(&acme).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].by.as_deref(), Some("a@acme.example"));
    assert_eq!(all[0].subject.to_string(), "certificate:cert_a");
    let again = use_link(&service, &of_a[0], start()).await.unwrap_err();
    assert!(matches!(again, LinkError::Used), "{again}");
    // Withdrawn, the link must not acknowledge again.
    assert!(service.store.withdraw(all[0].id, start()).await.unwrap());
    let replayed = use_link(&service, &of_a[0], start()).await.unwrap_err();
    assert!(matches!(replayed, LinkError::Used), "{replayed}");
    // The link of another receiver is another link.
    use_link(&service, &of_b[0], start()).await.unwrap();
    // A new expiry: the message was about another one.
    sim.api.world().certificate("cert_b").unwrap().expires_at = Some(start() + days(40));
    service.scan(start() + days(1)).await;
    let changed = use_link(&service, &of_a[1], start() + days(1)).await.unwrap_err();
    assert!(matches!(changed, LinkError::Changed), "{changed}");
    // At the last threshold, nothing can be acknowledged.
    sim.api.world().certificate("cert_b").unwrap().expires_at = Some(start() + days(25));
    service.scan(start() + days(24)).await;
    let last = use_link(&service, &of_a[1], start() + days(24)).await.unwrap_err();
    assert!(last.to_string().contains("last threshold"), "{last}");
    sim.api.world().certificates.retain(|one| one.id != "cert_b");
    service.scan(start() + days(25)).await;
    let gone = use_link(&service, &of_a[1], start() + days(25)).await.unwrap_err();
    assert!(matches!(gone, LinkError::Acknowledge(_)), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_link_needs_no_token_and_only_its_button_acts() {
    let sim = Sim::start(world(Clock::System.now())).await;
    let text = guarded(&sim)
        .replace("[http]\n", "[http]\npublic_url = \"https://certvigil.acme.example\"\n");
    let mut daemon = Daemon::start(&text);
    until("the mails", || (sim.mailbox.mails().len() == 2).then_some(())).await;
    let path = format!("/link/{}", tokens(&sim, "a@acme.example")[0]);
    // As a mail scanner does.
    for _ in 0..3 {
        for method in [Method::HEAD, Method::GET] {
            let answer = daemon.request(method, &path).send().await.unwrap();
            assert_eq!(answer.status(), 200);
        }
    }
    let page = daemon.text(&path).await;
    assert!(page.contains("“prod-ca” expires in 19 days"), "{page}");
    assert!(page.contains("a@acme.example") && !page.contains("<script"), "{page}");
    let post = async |path: &str, form: &str| {
        let request = daemon.request(Method::POST, path).body(form.to_owned());
        request.header("content-type", "application/x-www-form-urlencoded")
    };
    for (form, status) in [
        ("days=8&reason=0", 400),
        ("days=7&reason=3", 400),
        ("days=7", 400),
        ("", 400),
        ("days=-1&reason=0", 422),
    ] {
        let answer = post(&path, form).await.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{form}");
    }
    let elsewhere = post(&path, "days=7&reason=0").await.header("sec-fetch-site", "cross-site");
    assert_eq!(elsewhere.send().await.unwrap().status(), 403);
    assert_eq!(acknowledgements(&daemon).await["data"].as_array().unwrap().len(), 0);
    let forged = format!("/link/{}", changed(&path["/link/".len()..], 20));
    assert_eq!(daemon.request(Method::GET, &forged).send().await.unwrap().status(), 404);
    assert_eq!(post(&forged, "days=7&reason=0").await.send().await.unwrap().status(), 404);

    let done = post(&path, "days=14&reason=1").await.send().await.unwrap();
    assert_eq!(done.status(), StatusCode::SEE_OTHER);
    assert_eq!(done.headers()[LOCATION], path.as_str());
    let page = daemon.text(&path).await;
    assert!(page.contains("Acknowledged until "), "{page}");
    assert!(page.contains("it is no longer used when it expires") && !page.contains("<button"));
    let again = post(&path, "days=30&reason=0").await.send().await.unwrap();
    assert_eq!(again.status(), StatusCode::SEE_OTHER, "a second click");
    // Another receiver sees it, and cannot shorten it.
    let of_b = format!("/link/{}", tokens(&sim, "b@acme.example")[0]);
    let page = daemon.text(&of_b).await;
    assert!(page.contains("already acknowledged until ") && page.contains("a@acme.example"));
    let shorter = post(&of_b, "days=7&reason=0").await.send().await.unwrap();
    assert_eq!(shorter.status(), 409);
    let all = acknowledgements(&daemon).await;
    let all = all["data"].as_array().unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["by"], "a@acme.example");
    let at = daemon.logged("acknowledgement created by the link of a message", 0).await;
    assert!(at > 0);
    let token = daemon.request(Method::GET, "/").bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(token.status(), 200);
    daemon.stop().await;
}
