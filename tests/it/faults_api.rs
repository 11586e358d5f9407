//! Each fault of the Admin API against the running service: it continues, reports unreadable lists,
//! withholds the heartbeat, resolves nothing, and recovers by itself.

use axum::{
    body::Body,
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use certvigil::{clock::Clock, demo::world::World};
use futures_util::stream;
use serde_json::json;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::TcpListener;

use super::{
    daemon::{Beats, Daemon},
    support::{Sim, Tls, days, serve, serve_tls, until},
};

/// What the API answers instead.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Status(u16),
    HangsBefore,
    HangsInside,
    Html,
    Truncated,
    BreaksOff,
    Garbage,
    OtherShape,
    TooLarge,
    Loops,
    LongCursor,
    EmptyWithMore,
    Redirects,
}

/// Each fault with its log message.
const FAULTS: [(Fault, &str); 18] = [
    (Fault::Status(401), "HTTP 401: the admin key is wrong, revoked or expired"),
    (Fault::Status(403), "HTTP 403: the admin key has no permission to read this"),
    (Fault::Status(404), "HTTP 404"),
    (Fault::Status(429), "HTTP 429"),
    (Fault::Status(500), "HTTP 500"),
    (Fault::Status(503), "HTTP 503"),
    (Fault::HangsBefore, "no complete response within api.request_timeout"),
    (Fault::HangsInside, "no complete response within api.request_timeout"),
    (Fault::Html, "the response is not JSON (content type text/html"),
    (Fault::Truncated, "the JSON is incomplete"),
    (Fault::BreaksOff, "the connection failed"),
    (Fault::Garbage, "the response is not JSON"),
    (Fault::OtherShape, "unreadable items: data[0].id: invalid type"),
    (Fault::TooLarge, "the response is larger than 8 MiB"),
    (Fault::Loops, "the list does not advance"),
    (Fault::LongCursor, "last_id has 1000000 bytes"),
    (Fault::EmptyWithMore, "has_more is true, but the page has no items"),
    (Fault::Redirects, "does not follow"),
];

fn answer(fault: Fault) -> Response {
    let json = |body: String| ([("content-type", "application/json")], body).into_response();
    let streamed = |pieces: Vec<Result<&'static str, std::io::Error>>| {
        ([("content-type", "application/json")], Body::from_stream(stream::iter(pieces)))
            .into_response()
    };
    match fault {
        Fault::Status(code) => (
            StatusCode::from_u16(code).unwrap(),
            [("retry-after-ms", "10")],
            axum::Json(json!({ "error": { "message": "as the test has it" } })),
        )
            .into_response(),
        Fault::HangsBefore => unreachable!("it does not answer"),
        Fault::HangsInside => {
            let begun = stream::iter([Ok::<_, Infallible>("{\"data\": [")]);
            let body = Body::from_stream(futures_util::StreamExt::chain(begun, stream::pending()));
            ([("content-type", "application/json")], body).into_response()
        }
        Fault::Html => axum::response::Html("<html>Bad gateway, says a proxy</html>").into_response(),
        Fault::Truncated => json("{\"object\": \"list\", \"data\": [".to_owned()),
        Fault::BreaksOff => streamed(vec![Ok("{\"data\": ["), Err(std::io::Error::other("cut"))]),
        Fault::Garbage => json("\u{1}\u{2}not json".to_owned()),
        Fault::OtherShape => json("{\"data\": [{\"id\": 7}]}".to_owned()),
        Fault::TooLarge => {
            // Endless, in pieces: unread data costs nothing.
            let piece = || Ok::<_, Infallible>(" ".repeat(64 * 1024));
            ([("content-type", "application/json")], Body::from_stream(stream::repeat_with(piece)))
                .into_response()
        }
        Fault::Loops => json(
            json!({ "data": [{ "id": "x", "active": false, "created_at": 1 }], "last_id": "x", "has_more": true })
                .to_string(),
        ),
        Fault::LongCursor => json(
            json!({ "data": [{ "id": "x", "active": false }], "last_id": "x".repeat(1_000_000), "has_more": true })
                .to_string(),
        ),
        Fault::EmptyWithMore => json(json!({ "data": [], "has_more": true }).to_string()),
        Fault::Redirects => {
            (StatusCode::TEMPORARY_REDIRECT, [("location", "http://127.0.0.1:9/")]).into_response()
        }
    }
}

/// The simulated API behind something that does wrong, for all requests or for those of one
/// project.
async fn faulty(sim: &Sim) -> (Arc<Mutex<Option<(Fault, &'static str)>>>, SocketAddr) {
    let fault: Arc<Mutex<Option<(Fault, &'static str)>>> = Arc::default();
    let now = Arc::clone(&fault);
    let meddle = move |request: Request, next: Next| {
        let now = *now.lock().unwrap();
        async move {
            match now {
                Some((fault, of)) if request.uri().path().contains(of) => {
                    if fault == Fault::HangsBefore {
                        std::future::pending::<()>().await;
                    }
                    answer(fault)
                }
                _ => next.run(request).await,
            }
        }
    };
    (fault, serve(sim.api.router().layer(axum::middleware::from_fn(meddle))).await)
}

async fn sim() -> Sim {
    let mut world = World::with_projects(3, |n| format!("prod-{n}"));
    let now = Clock::System.now();
    world.add("cert_a", Some("first"), Some(now + days(5)), 1..=3);
    world.add("cert_only", Some("of the second project alone"), Some(now + days(20)), [2]);
    Sim::start(world).await
}

/// A scan each second, so that each fault is met at once.
fn config(sim: &Sim, api: SocketAddr, beats: &Beats) -> String {
    let text = sim.config().replace(&sim.api_address.to_string(), &api.to_string());
    let text = text.replace(
        "requests_per_second",
        "request_timeout = \"1s\"\nmax_attempts = 2\nrequests_per_second",
    );
    let blind = "blind_after = \"5m\"\n";
    format!(
        "{text}[schedule]\ncron = \"* * * * * *\"\nscan_timeout = \"60s\"\n[monitoring]\n{blind}{}",
        beats.config()
    )
}

fn events(sim: &Sim) -> Vec<String> {
    let posts = sim.receiver.posts();
    let bodies = posts.iter().map(|post| serde_json::from_str(&post.body).unwrap());
    let events = bodies.flat_map(|body: serde_json::Value| {
        let alerts = body["alerts"].as_array().unwrap().clone();
        alerts.into_iter().map(|alert| {
            format!(
                "{} {}",
                alert["event"].as_str().unwrap(),
                alert["certificate"]["id"].as_str().unwrap_or_default()
            )
        })
    });
    events.collect()
}

/// Every fault in turn; `of` is what the path of a request has to contain for it.
async fn each_in_turn(of: &'static str) {
    let (sim, beats) = (sim().await, Beats::start().await);
    let (fault, api) = faulty(&sim).await;
    let mut daemon = Daemon::start(&config(&sim, api, &beats));
    until("the first heartbeat", || (beats.well() > 0).then_some(())).await;
    until("the first alerts", || (events(&sim).len() == 2).then_some(())).await;
    for (n, (one, said)) in FAULTS.into_iter().enumerate() {
        *fault.lock().unwrap() = Some((one, of));
        let mark = daemon.log().len();
        let end = daemon.logged("complete=false", mark).await;
        daemon.logged(said, end).await;
        // No heartbeat that a scan under the fault has brought about.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (before, fails) =
            (beats.well(), beats.hits().iter().filter(|hit| hit.ends_with("/fail")).count());
        daemon.logged("complete=false", end).await;
        until("the signal of the failure", || {
            (beats.hits().iter().filter(|hit| hit.ends_with("/fail")).count() > fails).then_some(())
        })
        .await;
        assert_eq!(
            beats.well(),
            before,
            "{one:?} of “{of}”: an all clear from a monitor that cannot see"
        );
        // The service is ready; its body and an alert report the unreadable list.
        let body = daemon.ready(200).await;
        assert_eq!(body["organizations"][0]["complete"], false, "{one:?}");
        assert!(
            body["organizations"][0]["unreadable"].to_string().contains(said),
            "{one:?}: {body:#}"
        );
        // Readable certificates still alert, and unreadable ones do not resolve.
        let known = events(&sim).len();
        if of != "/" {
            let id = format!("cert_new{n:02}");
            let expires = Clock::System.now() + days(3);
            sim.api.world().add(&id, Some("of the first project"), Some(expires), [1]);
            until("the others are seen", || (events(&sim).len() > known).then_some(())).await;
        }
        *fault.lock().unwrap() = None;
        daemon.logged("complete=true", daemon.log().len()).await;
        until("the heartbeat again", || (beats.well() > before).then_some(())).await;
    }
    let events = events(&sim);
    let unwanted: Vec<&String> =
        events.iter().filter(|event| !event.starts_with("certificate.expiring")).collect();
    assert!(unwanted.is_empty(), "nothing is over that cannot be seen: {unwanted:?}");
    let expected = 2 + if of == "/" { 0 } else { FAULTS.len() };
    assert_eq!(events.len(), expected, "each once: {events:?}");
    // Bodies without end were among them.
    assert!(daemon.peak_kib() < 200 * 1_024, "{} KiB", daemon.peak_kib());
    daemon.stop().await;
}

#[tokio::test]
async fn each_fault_of_the_whole_api_is_reported_and_nothing_is_over_for_it() {
    each_in_turn("/").await;
}

#[tokio::test]
async fn each_fault_of_one_project_is_reported_and_hides_nothing_else() {
    each_in_turn("proj_0002/certificates").await;
}

#[tokio::test]
async fn an_api_that_refuses_is_reported_as_blindness_and_its_end_when_it_is_back() {
    let (sim, beats) = (sim().await, Beats::start().await);
    let listen = || async { TcpListener::bind("127.0.0.1:0").await.unwrap() };
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let router = sim.api.router();
    let server = |listener: TcpListener| {
        let router = router.clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let served = axum::serve(listener, router);
            drop(served.with_graceful_shutdown(async { drop(stopped.await) }).await);
        });
        (stop, task)
    };
    let running = server(listener);
    let text =
        config(&sim, address, &beats).replace("\"5m\"", "\"4s\"").replace("\"60s\"", "\"3s\"");
    let mut daemon = Daemon::start(&text);
    until("the first alerts", || (events(&sim).len() == 2).then_some(())).await;
    drop(running.0);
    running.1.abort();
    let end = daemon.logged("Connection refused", 0).await;
    until("that it is blind", || events(&sim).contains(&"monitor.blind ".to_owned()).then_some(()))
        .await;
    let before = beats.well();
    daemon.logged("complete=false", end).await;
    assert_eq!(beats.well(), before);
    let last: serde_json::Value =
        serde_json::from_str(&sim.receiver.posts().last().unwrap().body).unwrap();
    assert_eq!(last["alerts"][0]["monitor"]["projects_affected"], 3);
    assert!(last.to_string().contains("Connection refused"), "{last:#}");
    let _running = server(TcpListener::bind(address).await.unwrap());
    until("that it sees again", || {
        events(&sim).contains(&"monitor.recovered ".to_owned()).then_some(())
    })
    .await;
    until("the heartbeat again", || (beats.well() > before).then_some(())).await;
    assert_eq!(events(&sim).len(), 4, "{:?}", events(&sim));
    daemon.stop().await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_and_an_untrusted_certificate_are_reported_from_the_first_scan_on()
 {
    let tls = Tls::new();
    let (sim, beats) = (sim().await, Beats::start().await);
    let untrusted = serve_tls(sim.api.router(), tls.acceptor(false)).await;
    let cases = [
        ("https://certvigil-test.invalid/v1".to_owned(), "the connection failed"),
        (format!("https://{untrusted}/v1"), "certificate"),
    ];
    for (base, said) in cases {
        let text = config(&sim, sim.api_address, &beats)
            .replace(&format!("http://{}/v1", sim.api_address), &base);
        let mut daemon = Daemon::start(&text);
        let end = daemon.logged("complete=false", 0).await;
        daemon.logged(said, end).await;
        daemon.logged("complete=false", end).await;
        // The operator must notice this right after the setup.
        let body = daemon.ready(503).await;
        assert!(body["reasons"][0].to_string().contains("acme was never read"), "{body:#}");
        assert_eq!(body["organizations"][0]["complete"], false);
        daemon.stop().await;
    }
    assert_eq!((beats.well(), events(&sim).len()), (0, 0));
}
