//! Reading the Admin API: how often it is asked, how fast, how patiently, and what of its failures
//! is believed.

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, Request, State},
    http::{StatusCode, header::AUTHORIZATION},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use certvigil::{
    demo::{
        admin_api::{AdminApi, KEY},
        world::World,
    },
    domain::{certificate::ProjectId, inventory::Inventory},
    usecase::scan::Report,
};
use proptest::prelude::*;
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

use super::support::{
    Service, Tls, days, organization, raw_answer, raw_server, serve, serve_tls, start,
};

fn world(projects: usize) -> World {
    let mut world = World::with_projects(projects, |n| format!("prod-{n}"));
    world.add("cert_a", Some("prod-ca"), Some(start() + days(5)), 1..=projects);
    world
}

/// What a middleware may do with a request: let it through, or answer itself.
type Trick = Arc<dyn Fn(&str) -> Option<Response> + Send + Sync>;

/// The simulated API with a trick in front of it.
async fn tricked(
    api: &AdminApi,
    trick: impl Fn(&str) -> Option<Response> + Send + Sync + 'static,
) -> SocketAddr {
    async fn play(State(trick): State<Trick>, request: Request, next: Next) -> Response {
        let asked = request.uri().path_and_query().unwrap().to_string();
        match trick(&asked) {
            Some(response) => response,
            None => next.run(request).await,
        }
    }
    let trick: Trick = Arc::new(trick);
    serve(api.router().layer(middleware::from_fn_with_state(trick, play))).await
}

fn status(code: u16) -> Response {
    StatusCode::from_u16(code).unwrap().into_response()
}

async fn service(address: SocketAddr, more: &str) -> Service {
    let text = organization(address);
    Service::start(&format!("{text}{more}[notifiers.log.log]\n")).await
}

async fn inventory(service: &Service) -> Inventory {
    service.store.inventory(service.target.api.organization()).await.unwrap()
}

fn only_fault(report: &Report) -> &str {
    assert_eq!(report.record.faults.len(), 1, "{:#?}", report.record.faults);
    &report.record.faults[0]
}

#[tokio::test]
async fn the_number_of_requests_is_the_minimum() {
    let api = AdminApi::new(world(250));
    let service = service(api.serve().await.unwrap(), "").await;
    let report = service.scan(start()).await;
    let asked = api.take_requests();
    let distinct: BTreeSet<&String> = asked.iter().collect();
    assert_eq!(distinct.len(), asked.len(), "every page once");
    assert_eq!(
        asked.len(),
        3 + 250 + 2 + 1,
        "pages of projects, lists of projects, the organization, its keys, a certificate"
    );
    let lists = asked.iter().filter(|asked| asked.contains("limit=100"));
    assert_eq!(lists.count(), 255, "and one content");
    assert_eq!(report.record.requests, 256);
    assert!(report.record.complete);
    assert_eq!((report.record.projects_read, report.record.certificates), (250, 1));
    assert_eq!(report.notifications, 1);
}

#[tokio::test]
async fn a_project_is_read_while_the_next_page_of_projects_is_on_its_way() {
    async fn hold(State(read): State<Arc<Notify>>, request: Request, next: Next) -> Response {
        let asked = request.uri().to_string();
        if asked.contains("/projects?") && asked.contains("after=") {
            // The second page comes only after a request for a project of the first one.
            read.notified().await;
        } else if asked.contains("/proj_") {
            read.notify_one();
        }
        next.run(request).await
    }
    let api = AdminApi::new(world(101));
    let read = Arc::new(Notify::new());
    let address = serve(api.router().layer(middleware::from_fn_with_state(read, hold))).await;
    let service = service(address, "request_timeout = \"20s\"\n").await;
    assert!(service.scan(start()).await.record.complete);
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_configured() {
    #[derive(Default)]
    struct UnderWay(AtomicUsize, AtomicUsize);
    async fn count(
        State(under_way): State<Arc<UnderWay>>,
        request: Request,
        next: Next,
    ) -> Response {
        let now = under_way.0.fetch_add(1, Ordering::SeqCst) + 1;
        under_way.1.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let response = next.run(request).await;
        under_way.0.fetch_sub(1, Ordering::SeqCst);
        response
    }
    let under_way = Arc::new(UnderWay::default());
    let layer = middleware::from_fn_with_state(Arc::clone(&under_way), count);
    let address = serve(AdminApi::new(world(60)).router().layer(layer)).await;
    let service = service(address, "concurrency = 3\n").await;
    assert!(service.scan(start()).await.record.complete);
    let most = under_way.1.load(Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most}");
}

#[tokio::test]
async fn one_429_makes_everybody_wait() {
    let api = AdminApi::new(world(40));
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let refused: Arc<Mutex<Option<Instant>>> = Arc::default();
    let (seen, at) = (Arc::clone(&times), Arc::clone(&refused));
    let address = tricked(&api, move |asked| {
        let mut at = at.lock().unwrap();
        seen.lock().unwrap().push(Instant::now());
        (asked.contains("proj_0010") && at.is_none()).then(|| {
            *at = Some(Instant::now());
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "2")]).into_response()
        })
    })
    .await;
    let service = service(address, "concurrency = 4\n").await;
    let report = service.scan(start()).await;
    assert!(report.record.complete, "{:?}", report.record.faults);
    let refused = refused.lock().unwrap().unwrap();
    let later = |wait| move |at: &&Instant| **at > refused + Duration::from_millis(wait);
    let times = times.lock().unwrap();
    // Up to three were under way when it came, and may be counted as they arrive.
    let meanwhile =
        times.iter().filter(later(500)).filter(|at| **at < refused + Duration::from_secs(2));
    assert_eq!(meanwhile.count(), 0, "nobody asks while the pause lasts");
    assert!(times.iter().filter(later(2_000)).count() >= 25, "and then all go on");
}

#[tokio::test]
async fn a_wish_to_wait_for_long_fails_its_request_and_nobody_hammers_meanwhile() {
    let api = AdminApi::new(world(100));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let address = tricked(&api, move |asked| {
        asked.contains("/proj_").then(|| {
            count.fetch_add(1, Ordering::SeqCst);
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "600")]).into_response()
        })
    })
    .await;
    let text = format!(
        "{}concurrency = 4\n[schedule]\nscan_timeout = \"3s\"\n[notifiers.log.log]\n",
        organization(address)
    );
    let service = Service::start(&text).await;
    let report = service.scan(start()).await;
    assert_eq!(report.record.projects_unreadable, 100);
    let asked = asked.load(Ordering::SeqCst);
    assert!((1..=8).contains(&asked), "{asked}: the others wait, and are not sent");
    let faults = report.record.faults;
    let said = "(no retry: the API requested a wait of 600 seconds, which is too long)";
    assert!(faults.iter().any(|fault| fault.contains(said)), "{faults:?}");
    assert_eq!(faults.last().unwrap(), "and 50 more", "the stored error has a limit");
}

#[tokio::test]
async fn no_wish_to_wait_is_too_long_to_be_read() {
    let api = AdminApi::new(world(2));
    let address = tricked(&api, |asked| {
        let wish = [("retry-after", "10000000000000000000")];
        asked.contains("/proj_").then(|| (StatusCode::TOO_MANY_REQUESTS, wish).into_response())
    })
    .await;
    let text = organization(address);
    let text = format!("{text}[schedule]\nscan_timeout = \"2s\"\n[notifiers.log.log]\n");
    assert!(!Service::start(&text).await.scan(start()).await.record.complete);
}

#[tokio::test]
async fn it_retries_as_the_official_clients_do() {
    let always = |code: u16, should: Option<&'static str>| {
        move || match should {
            Some(should) => {
                (StatusCode::from_u16(code).unwrap(), [("x-should-retry", should)]).into_response()
            }
            None => status(code),
        }
    };
    let cases = [
        (408, None, true),
        (409, None, true),
        (429, None, true),
        (500, None, true),
        (503, None, true),
        (400, None, false),
        (403, None, false),
        (422, None, false),
        (302, None, false),
        (500, Some("false"), false),
        (400, Some("true"), true),
    ];
    let tried = cases.map(|(code, should, retried)| async move {
        let api = AdminApi::new(world(1));
        let answer = always(code, should);
        let first = Mutex::new(true);
        let address = tricked(&api, move |asked| {
            let refuse = asked.contains("proj_0001") && std::mem::take(&mut *first.lock().unwrap());
            refuse.then(&answer)
        })
        .await;
        let service = service(address, "").await;
        let report = service.scan(start()).await;
        assert_eq!(report.record.complete, retried, "{code} {should:?}");
        let requests = if retried { 6 } else { 5 };
        assert_eq!(report.record.requests, requests, "{code} {should:?}");
    });
    futures_util::future::join_all(tried).await;
}

#[tokio::test]
async fn attempts_are_counted_and_end() {
    let counts: Arc<Mutex<Vec<String>>> = Arc::default();
    async fn note(
        State(counts): State<Arc<Mutex<Vec<String>>>>,
        request: Request,
        next: Next,
    ) -> Response {
        if request.uri().path().contains("proj_0001") {
            let count = request.headers()["x-stainless-retry-count"].to_str().unwrap().to_owned();
            counts.lock().unwrap().push(count);
            let headers = [("retry-after-ms", "1"), ("x-request-id", "req_abc")];
            return (StatusCode::BAD_GATEWAY, headers, "<html>").into_response();
        }
        next.run(request).await
    }
    let layer = middleware::from_fn_with_state(Arc::clone(&counts), note);
    let address = serve(AdminApi::new(world(2)).router().layer(layer)).await;
    let service = service(address, "max_attempts = 4\n").await;
    let report = service.scan(start()).await;
    assert_eq!(*counts.lock().unwrap(), ["0", "1", "2", "3"]);
    assert_eq!(
        only_fault(&report),
        "project proj_0001 “prod-1”: GET /organization/projects/proj_0001/certificates: HTTP 502 with \
         text/plain; charset=utf-8: this response is not from the API, but from a server in between (x-request-id req_abc)"
    );
    assert_eq!((report.record.projects_read, report.record.projects_unreadable), (1, 1));
}

/// A body that never ends.
fn endless() -> Response {
    let chunk = vec![b' '; 64 * 1024];
    let stream = futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
    ([("content-type", "application/json")], Body::from_stream(stream)).into_response()
}

fn list(items: serde_json::Value, more: bool, last: Option<&str>) -> Response {
    Json(json!({ "object": "list", "data": items, "has_more": more, "first_id": null, "last_id": last }))
        .into_response()
}

#[tokio::test]
async fn every_failure_of_a_listing_is_reported_and_leaves_the_last_good_state() {
    let html = || ([("content-type", "text/html")], "<html>Sign in</html>").into_response();
    let one = || json!([{ "id": "cert_x", "name": null, "created_at": 1, "certificate_details": {}, "active": true }]);
    type Answer = Box<dyn Fn() -> Response + Send + Sync>;
    let cases: Vec<(&str, Answer)> = vec![
        ("HTTP 401: the admin key is wrong, revoked or expired", Box::new(|| status(401))),
        ("HTTP 403: the admin key has no permission", Box::new(|| status(403))),
        ("HTTP 404", Box::new(|| status(404))),
        ("the response is not JSON (content type text/html)", Box::new(html)),
        (
            "the JSON is incomplete",
            Box::new(|| ([("content-type", "application/json")], "{\"data\": [").into_response()),
        ),
        ("missing field `data`", Box::new(|| Json(json!({ "object": "list" })).into_response())),
        ("larger than 8 MiB", Box::new(endless)),
        (
            "the API repeated the cursor “cert_x”",
            Box::new(move || list(one(), true, Some("cert_x"))),
        ),
        ("has_more is true, but the page has no items", Box::new(|| list(json!([]), true, None))),
        (
            "has_more is true, but the page has no items",
            Box::new(|| list(json!([]), true, Some("cert_x"))),
        ),
        (
            "data[0] (c): missing field `active`",
            Box::new(|| list(json!([{ "id": "c" }]), false, None)),
        ),
        ("does not follow", Box::new(|| (StatusCode::FOUND, [("location", "/")]).into_response())),
    ];
    for (expected, answer) in cases {
        let api = AdminApi::new(world(3));
        let broken = Arc::new(AtomicUsize::new(0));
        let is_broken = Arc::clone(&broken);
        let address = tricked(&api, move |asked| {
            let hit =
                asked.contains("proj_0002/certificates") && is_broken.load(Ordering::SeqCst) > 0;
            hit.then(&answer)
        })
        .await;
        let service = service(address, "").await;
        service.scan(start()).await;
        let good = inventory(&service).await;
        broken.store(1, Ordering::SeqCst);
        let report = service.scan(start() + days(1) / 2).await;
        let fault = only_fault(&report);
        assert!(
            fault.starts_with("project proj_0002 “prod-2”: GET /organization/projects/proj_0002"),
            "{fault}"
        );
        assert!(fault.contains(expected), "{expected}: {fault}");
        assert!(!report.record.complete);
        assert_eq!(report.notifications, 0, "{expected}: nothing is resolved");
        let id = ProjectId::parse("proj_0002").unwrap();
        let now = inventory(&service).await;
        assert_eq!(now.listings[&id], good.listings[&id], "{expected}");
        assert_eq!(now.certificates, good.certificates, "{expected}");
    }
}

#[tokio::test]
async fn a_refused_project_list_is_an_error_of_that_list_and_nothing_is_forgotten() {
    let api = AdminApi::new(world(3));
    let broken = Arc::new(AtomicUsize::new(0));
    let is_broken = Arc::clone(&broken);
    let address = tricked(&api, move |asked| {
        (asked.contains("/organization/") && is_broken.load(Ordering::SeqCst) > 0)
            .then(|| status(401))
    })
    .await;
    let service = service(address, "").await;
    service.scan(start()).await;
    let good = inventory(&service).await;
    broken.store(1, Ordering::SeqCst);
    let report = service.scan(start() + days(1)).await;
    assert!(
        !report.record.complete && report.record.faults.len() == 5,
        "{:?}",
        report.record.faults
    );
    assert!(
        report.record.faults[0]
            .starts_with("the list of projects: GET /organization/projects: HTTP 401")
    );
    let now = inventory(&service).await;
    assert_eq!((now.projects, now.certificates), (good.projects, good.certificates));
}

#[tokio::test]
async fn connections_that_fail_hang_or_break_off_are_errors_and_not_empty_lists() {
    let cases: [(&str, &'static [u8]); 3] = [
        ("the connection failed", b""),
        ("the connection failed", b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"data\": ["),
        ("the connection failed", b"nonsense\r\n\r\n"),
    ];
    for (expected, answer) in cases {
        let address = raw_server(move |stream| raw_answer(stream, answer)).await;
        let service = service(address, "max_attempts = 2\n").await;
        let report = service.scan(start()).await;
        assert!(report.record.faults[0].contains(expected), "{:?}", report.record.faults);
        assert!(!report.record.complete);
    }
    // Silence, before the answer and inside of it.
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"data\": ["] {
        let address = raw_server(move |mut stream| async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(answer).await.unwrap();
            std::future::pending::<()>().await;
        })
        .await;
        let service = service(address, "max_attempts = 1\nrequest_timeout = \"300ms\"\n").await;
        let report = service.scan(start()).await;
        let fault = &report.record.faults[0];
        assert!(fault.contains("no complete response within api.request_timeout"), "{fault}");
    }
}

#[tokio::test]
async fn when_the_scans_time_is_up_what_was_read_counts() {
    async fn hang(request: Request, next: Next) -> Response {
        if request.uri().path().contains("proj_0002") {
            std::future::pending::<()>().await;
        }
        next.run(request).await
    }
    let address = serve(AdminApi::new(world(3)).router().layer(middleware::from_fn(hang))).await;
    let text = format!(
        "{}[schedule]\nscan_timeout = \"2s\"\n[notifiers.log.log]\n",
        organization(address)
    );
    let service = Service::start(&text).await;
    let report = service.scan(start()).await;
    assert!(
        only_fault(&report).contains("proj_0002 “prod-2”: the scan reached schedule.scan_timeout")
    );
    assert_eq!(report.record.projects_read, 2);
    assert_eq!(report.notifications, 1);
}

#[tokio::test]
async fn a_project_that_is_gone_is_no_failure_and_one_that_is_not_is() {
    let api = AdminApi::new(world(3));
    let gone = Arc::new(Mutex::new("nothing"));
    let is_gone = Arc::clone(&gone);
    let address =
        tricked(&api, move |asked| asked.contains(*is_gone.lock().unwrap()).then(|| status(404)))
            .await;
    let service = service(address, "").await;
    // A complete list names the project: 404 below it is a lost route or a missing permission.
    for below in ["proj_0002", "proj_0002/certificates"] {
        *gone.lock().unwrap() = below;
        let report = service.scan(start()).await;
        assert!(only_fault(&report).contains("HTTP 404"), "{below}");
    }
    *gone.lock().unwrap() = "nothing";
    // certvigil requests a project that the list no longer names: an archived one is gone.
    api.world().projects[1].archived = true;
    let report = service.scan(start()).await;
    assert!(report.record.complete, "{report:?}");
    assert_eq!(report.record.projects_read, 2);
    // Not found is gone when a scan five minutes later agrees.
    api.world().projects.remove(2);
    let report = service.scan(start()).await;
    assert!(only_fault(&report).contains("no longer in the list of projects"), "{report:?}");
    assert!(report.needs_confirmation);
    let report = service.scan(start() + chrono::TimeDelta::minutes(6)).await;
    assert!(report.record.complete && !report.needs_confirmation, "{report:?}");
    assert_eq!(report.record.projects_read, 1);
    // An empty list of projects is never believed.
    api.world().projects.clear();
    for hour in 1..4 {
        let report = service.scan(start() + chrono::TimeDelta::hours(hour)).await;
        assert!(report.record.faults[0].contains("always has a default project"), "{report:?}");
    }
}

#[tokio::test]
async fn an_organization_without_any_project_was_not_read_even_at_first() {
    let api = AdminApi::new(world(0));
    let address = api.serve().await.unwrap();
    let text = format!("{}[notifiers.log.log]\n", organization(address));
    let report = Service::start(&text).await.scan(start()).await;
    assert!(!report.record.complete && !report.record.has_read(), "{report:?}");
    assert!(report.record.faults[0].contains("the list is empty"), "{report:?}");
}

#[tokio::test]
async fn a_key_that_was_rotated_is_read_again_after_a_401() {
    let api = AdminApi::new(world(5));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "sk-admin-old\n").unwrap();
    let address = api.serve().await.unwrap();
    let text = organization(address).replace(
        &format!("admin_key = \"{KEY}\""),
        &format!("admin_key = {{ file = \"{}\" }}", file.display()),
    );
    let service = Service::start(&format!("{text}[notifiers.log.log]\n")).await;
    let report = service.scan(start()).await;
    assert!(report.record.faults[0].contains("HTTP 401"), "{:?}", report.record.faults);
    assert!(!report.record.faults[0].contains("sk-admin"));
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    assert!(service.scan(start()).await.record.complete, "without a restart");
}

#[tokio::test]
async fn https_with_an_own_authority_and_a_client_certificate() {
    let tls = Tls::new();
    let api = AdminApi::new(world(2));
    let address = serve_tls(api.router(), tls.acceptor(true)).await;
    let base = organization(address).replace("http://", "https://");
    let ca = format!("ca_file = \"{}\"\n", tls.ca.display());
    let identity = format!(
        "client_identity = {{ certificate = \"{}\", key = {{ file = \"{}\" }} }}\n",
        tls.certificate.display(),
        tls.key.display()
    );
    let with = |more: String| format!("{base}max_attempts = 1\n{more}[notifiers.log.log]\n");
    let trusted = Service::start(&with(format!("{ca}{identity}"))).await;
    let report = trusted.scan(start()).await;
    assert!(report.record.complete, "{:?}", report.record.faults);
    let untrusted = Service::start(&with(identity)).await;
    let report = untrusted.scan(start()).await;
    assert!(report.record.faults[0].contains("certificate"), "{:?}", report.record.faults);
    let anonymous = Service::start(&with(ca)).await;
    assert!(!anonymous.scan(start()).await.record.complete, "the server demands a certificate");
}

#[tokio::test]
async fn only_what_is_selected_is_read() {
    let mut world = world(6);
    world.projects[2].name = Some("sandbox-x".to_owned());
    world.projects[3].archived = true;
    let api = AdminApi::new(world);
    let more = "include_projects = [\"prod-*\", \"proj_0003\"]\nexclude_projects = [\"sandbox-*\", \"proj_0006\"]\n";
    let service = service(api.serve().await.unwrap(), more).await;
    let report = service.scan(start()).await;
    assert!(report.record.complete);
    let inventory = inventory(&service).await;
    let read: Vec<&str> = inventory.projects.keys().map(ProjectId::as_str).collect();
    assert_eq!(read, ["proj_0001", "proj_0002", "proj_0005"]);
}

#[tokio::test]
async fn the_key_goes_nowhere_but_to_the_configured_host() {
    let seen: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
    let other = {
        let seen = Arc::clone(&seen);
        serve(Router::new().fallback(move |request: Request| {
            let key =
                request.headers().get(AUTHORIZATION).map(|key| key.to_str().unwrap().to_owned());
            seen.lock().unwrap().push(key);
            async { status(200) }
        }))
        .await
    };
    let target = format!("http://{other}/v1/organization/projects");
    let api = AdminApi::new(world(1));
    let address = tricked(&api, move |_| {
        Some((StatusCode::TEMPORARY_REDIRECT, [("location", target.clone())]).into_response())
    })
    .await;
    let service = service(address, "").await;
    assert!(!service.scan(start()).await.record.complete);
    assert!(seen.lock().unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However a server cuts its pages, every project is read exactly once.
    #[test]
    fn every_page_is_read_once_whatever_its_size(
        sizes in proptest::collection::vec(1..60usize, 1..8),
        says_last in any::<bool>(),
        empty_end in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let total: usize = sizes.iter().sum();
            let pages = Arc::new(sizes.clone());
            let projects = move |Query(query): Query<HashMap<String, String>>| {
                let pages = Arc::clone(&pages);
                async move {
                    let after: usize = query.get("after").map_or(0, |id| id[1..].parse::<usize>().unwrap() + 1);
                    let mut start = 0;
                    let size = pages.iter().copied().find(|size| { let here = start == after; start += size; here }).unwrap_or(0);
                    let data: Vec<_> = (after..after + size).map(|n| json!({ "id": format!("p{n}"), "created_at": 1 })).collect();
                    let last = data.last().map(|last| last["id"].clone());
                    let end = after + size >= pages.iter().sum();
                    // A server may end with an empty page of which it cannot say that there is
                    // more.
                    let more = match (end, empty_end) {
                        (false, _) => json!(true),
                        (true, true) if size > 0 => json!(null),
                        (true, _) => json!(false),
                    };
                    Json(json!({ "object": "list", "data": data, "has_more": more,
                        "last_id": if says_last { json!(last) } else { json!(null) } }))
                }
            };
            let empty = || async { Json(json!({ "object": "list", "data": [], "has_more": false })) };
            let router = Router::new()
                .route("/v1/organization/projects", get(projects))
                .route("/v1/organization/projects/{id}/certificates", get(empty))
                .route("/v1/organization/certificates", get(empty));
            let service = service(serve(router).await, "").await;
            let report = service.scan(start()).await;
            assert!(report.record.complete, "{:?}", report.record.faults);
            assert_eq!(report.record.projects_read, total);
        });
    }
}

#[tokio::test]
async fn a_name_that_is_no_text_makes_no_list_unreadable() {
    // Half a surrogate pair, an unfinished sequence of bytes, and a name of 10 kB.
    let long = "x".repeat(10_000);
    let names: [&[u8]; 3] = [br#"half \ud83d a pair"#, b"cut \xe2\x82", long.as_bytes()];
    async fn answer(State(names): State<Arc<Vec<Vec<u8>>>>, uri: axum::http::Uri) -> Response {
        let end = (start() + days(5)).timestamp();
        let page = |items: Vec<Vec<u8>>| {
            let mut body = br#"{"object": "list", "has_more": false, "data": ["#.to_vec();
            body.extend(items.join(&b","[..]));
            body.extend(b"]}");
            ([(axum::http::header::CONTENT_TYPE, "application/json")], body).into_response()
        };
        let items = |object: &str| {
            let item = |(n, name): (usize, &Vec<u8>)| {
                let mut item =
                    format!(r#"{{"object": "{object}", "id": "id_{n}", "name": ""#).into_bytes();
                item.extend(name);
                item.extend(
                    format!(
                        r#"", "active": true, "created_at": 1, "certificate_details": {{"expires_at": {end}, "content": "\udc00"}}}}"#
                    )
                    .as_bytes(),
                );
                item
            };
            names.iter().enumerate().map(item).collect::<Vec<_>>()
        };
        if uri.path().ends_with("/projects") {
            page(items("organization.project"))
        } else {
            page(items("organization.certificate"))
        }
    }
    let names = Arc::new(names.map(<[u8]>::to_vec).to_vec());
    let api = super::support::serve(Router::new().fallback(answer).with_state(names)).await;
    let service = service(api, "").await;
    let report = service.scan(start()).await;
    assert!(report.record.complete, "{:?}", report.record.faults);
    let inventory = inventory(&service).await;
    let names: Vec<&str> =
        inventory.certificates.values().map(|certificate| certificate.title()).collect();
    let cut = format!("{}…", "x".repeat(119));
    assert_eq!(names, ["half \u{fffd}\u{fffd}\u{fffd} a pair", "cut \u{fffd}", cut.as_str()]);
}

#[tokio::test]
async fn a_clock_that_steps_back_while_the_api_is_away_resolves_nothing() {
    let api = AdminApi::new(world(1));
    let away = Arc::new(AtomicUsize::new(0));
    let is_away = Arc::clone(&away);
    let address =
        tricked(&api, move |_| (is_away.load(Ordering::SeqCst) > 0).then(|| status(503))).await;
    let service = service(address, "max_attempts = 1\n").await;
    let expires = start() + days(5);
    api.world().add("cert_b", Some("b"), Some(expires), [1]);
    assert!(service.scan(start()).await.notifications > 0);
    let open = async || {
        let organization = service.target.api.organization();
        service.store.ledger(Some(organization), "log", start() + days(1)).await.unwrap().0.open
    };
    let before = open().await;
    assert!(!before.is_empty());
    // No answer tells the time, and the local clock went back to before the stage.
    away.store(1, Ordering::SeqCst);
    let report = service.scan(start() - days(200)).await;
    assert!(!report.record.complete);
    assert_eq!(open().await, before);
}
