//! The HTTP interface of the running service: pages, metrics, the calendar, and their access rules.

use certvigil::{clock::Clock, demo::world::World};
use reqwest::{
    Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    daemon::Daemon,
    support::{Sim, days, program, until},
};

pub const TOKEN: &str = "correct-horse-battery-staple";

pub fn guarded(sim: &Sim) -> String {
    format!("{}[http]\ntoken = \"{TOKEN}\"\n", sim.config())
}

/// A certificate in every state.
pub async fn demo() -> Sim {
    Sim::start(World::demo(Clock::System.now())).await
}

/// A service that has scanned once and told everybody.
pub async fn told(sim: &Sim, text: &str) -> Daemon {
    let daemon = Daemon::start(text);
    until("the webhook", || (!sim.receiver.posts().is_empty()).then_some(())).await;
    until("the mails", || (sim.mailbox.mails().len() == 2).then_some(())).await;
    daemon
}

/// A page without the escapes that its addresses have.
fn plain(page: &str) -> String {
    page.replace("&#x2f;", "/").replace("&amp;", "&")
}

/// All that are kept.
pub async fn acknowledgements(daemon: &Daemon) -> Value {
    let all = daemon.request(Method::GET, "/api/v1/acknowledgements?all=true").bearer_auth(TOKEN);
    all.send().await.unwrap().json().await.unwrap()
}

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

pub const PATHS: [&str; 12] = [
    "/",
    "/certificates",
    "/certificates/acme/cert_demo_prod",
    "/projects",
    "/deliveries",
    "/metrics",
    "/calendar.ics",
    "/api/v1/certificates",
    "/api/v1/projects",
    "/api/v1/scans",
    "/api/v1/deliveries",
    "/api/v1/acknowledgements",
];

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_this_machine_reads_everything_and_nobody_writes() {
    let sim = demo().await;
    let mut daemon = told(&sim, &sim.config()).await;
    for path in PATHS {
        let answer = daemon.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{path}: {policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.headers()[name], value, "{path}");
        }
        // A name that points here and is not ours: a page elsewhere that has its name changed under
        // it.
        let other = daemon.request(Method::GET, path).header(HOST, "evil.example");
        assert_eq!(status(other).await, 421, "{path}");
    }
    assert_eq!(
        status(daemon.request(Method::GET, "/healthz").header(HOST, "x.example")).await,
        200
    );
    for (method, path) in [
        (Method::POST, "/api/v1/scans"),
        (Method::POST, "/api/v1/acknowledgements"),
        (Method::DELETE, "/api/v1/acknowledgements/0190d9a4-7b1c-7000-8000-000000000000"),
        (Method::POST, "/scan"),
        (Method::POST, "/certificates/acme/cert_demo_prod/acknowledge"),
    ] {
        let answer = daemon.request(method, path).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{path}");
        let body: Value = answer.json().await.unwrap();
        let why = "writing needs a token: configure http.token";
        assert_eq!((&body["status"], &body["detail"]), (&403.into(), &why.into()));
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_every_path_but_the_health_ones_asks_for_it() {
    let sim = demo().await;
    let mut daemon = told(&sim, &guarded(&sim)).await;
    let get = |path: &str| daemon.request(Method::GET, path);
    for path in PATHS.into_iter().chain(["/api/v1/openapi.json", "/nothing"]) {
        let answer = get(path).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer realm=\"certvigil\"", "{path}");
        for wrong in ["Basic eDp5", TOKEN] {
            assert_eq!(status(get(path).header(AUTHORIZATION, wrong)).await, 401, "{path} {wrong}");
        }
        let expected = if path == "/nothing" { 404 } else { 200 };
        assert_eq!(status(get(path).bearer_auth(TOKEN)).await, expected, "{path}");
    }
    for wrong in ["Bearer correct-horse-battery-stapl", "Bearer "] {
        assert_eq!(status(get("/metrics").header(AUTHORIZATION, wrong)).await, 401, "{wrong}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(status(get(path)).await, 200, "{path}");
    }
    // Only callers with a token get details.
    let plainly = daemon.text("/readyz").await;
    assert!(plainly.contains("\"ready\"") && !plainly.contains("acme"), "{plainly}");
    let detailed = get("/readyz").bearer_auth(TOKEN).send().await.unwrap().text().await.unwrap();
    assert!(detailed.contains("acme"), "{detailed}");
    // A browser is led to the form, and back.
    let led = get("/certificates?q=prod").header(ACCEPT, "text/html").send().await.unwrap();
    assert_eq!(led.status(), StatusCode::SEE_OTHER);
    assert_eq!(led.headers()[LOCATION], "/login?next=%2Fcertificates%3Fq%3Dprod");
    let sign_in = |token: &str| {
        let form = format!("next=%2Fcertificates%3Fq%3Dprod&token={token}");
        let kind = "application/x-www-form-urlencoded";
        daemon.request(Method::POST, "/login").header("content-type", kind).body(form)
    };
    assert_eq!(status(sign_in("wrong")).await, 401);
    assert_eq!(status(sign_in(TOKEN).header(ORIGIN, "https://evil.example")).await, 403);
    let signed_in = sign_in(TOKEN).send().await.unwrap();
    assert_eq!(signed_in.headers()[LOCATION], "/certificates?q=prod");
    let cookie = signed_in.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    for part in ["; HttpOnly", "; SameSite=Lax", "; Path=/", "; Max-Age=604800"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains(TOKEN));
    let cookie = cookie.split(';').next().unwrap();
    let page = get("/").header(COOKIE, cookie).send().await.unwrap().text().await.unwrap();
    let page = plain(&page);
    assert!(page.contains("Sign out"), "{page}");
    // The calendar has a token of its own in its address, which opens nothing else.
    let at = page.find("/calendar.ics?token=").unwrap();
    let feed = page[at..].split('"').next().unwrap();
    assert_eq!(status(get(feed)).await, 200);
    let feed_token = feed.split_once('=').unwrap().1;
    assert_eq!(status(get(&format!("/?token={feed_token}"))).await, 401);
    assert_eq!(status(get("/").bearer_auth(feed_token)).await, 401);
    assert_eq!(status(get(&format!("/calendar.ics?token={TOKEN}"))).await, 401);
    // Requests from another site are refused and change nothing.
    let scan = || daemon.request(Method::POST, "/scan").header(COOKIE, cookie);
    assert_eq!(status(scan().header("sec-fetch-site", "cross-site")).await, 403);
    assert_eq!(status(get("/scan").header(COOKIE, cookie)).await, 405);
    assert_eq!(status(scan().header("sec-fetch-site", "same-origin")).await, 303);
    daemon.logged("scan of all organizations requested over HTTP", 0).await;
    let said =
        "http{caller=\"http.token\" address=127.0.0.1}: certvigil::http::changes: scan of all";
    assert!(daemon.log().contains(said), "{}", daemon.log());
    // Who signs out ends the session, and not only the cookie of this browser.
    let signed_in = sign_in(TOKEN).send().await.unwrap();
    let other = signed_in.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap();
    let out = daemon.request(Method::POST, "/logout").header(COOKIE, other).send().await.unwrap();
    assert!(out.headers()[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(status(get("/").header(COOKIE, other)).await, 401, "signed out");
    assert_eq!(status(get("/").header(COOKIE, cookie)).await, 200, "another browser");
    // Another token ends the sessions.
    let log = daemon.log().len();
    daemon.reload(&guarded(&sim).replace(TOKEN, "quite-another-token-of-24"));
    daemon.logged("configuration reloaded", log).await;
    assert_eq!(status(get("/").header(COOKIE, cookie)).await, 401);
    assert_eq!(status(get(feed)).await, 401);
    assert_eq!(status(get("/").bearer_auth("quite-another-token-of-24")).await, 200);
    daemon.stop().await;
    assert!(!daemon.log().contains(TOKEN), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_an_acknowledgement_and_another_attempt_can_be_asked_for() {
    let sim = demo().await;
    sim.mailbox.refuse("b@acme.example", Some(550));
    let text = format!("{}[schedule]\ncron = \"0 0 1 1 *\"\n", guarded(&sim));
    let mut daemon = Daemon::start(&text);
    until("the mail", || (!sim.mailbox.mails().is_empty()).then_some(())).await;
    let call = async |method: Method, path: &str, body: Option<Value>| {
        let request = daemon.request(method, path).bearer_auth(TOKEN);
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let answer = request.send().await.unwrap();
        let code = answer.status().as_u16();
        (code, answer.json::<Value>().await.unwrap_or(Value::Null))
    };
    let get = async |path: &str| call(Method::GET, path, None).await.1;
    let scans = async || get("/api/v1/scans").await["data"].as_array().unwrap().len();
    assert_eq!(scans().await, 1);
    let (code, begun) = call(Method::POST, "/api/v1/scans", None).await;
    assert_eq!((code, &begun["organizations"]), (202, &json!(["acme"])));
    for _ in 0..500 {
        if scans().await == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(scans().await, 2);

    let wanted = json!({
        "organization": "acme", "certificate": "cert_demo_weeks", "until": "2099-01-01T00:00:00Z",
        "reason": "the new one is on its way", "by": "dana",
    });
    let (code, made) = call(Method::POST, "/api/v1/acknowledgements", Some(wanted.clone())).await;
    assert_eq!(
        (code, &made["by"], &made["ended_at"]),
        (201, &"dana".into(), &Value::Null),
        "{made}"
    );
    let page = "/certificates/acme/cert_demo_weeks";
    let shown = daemon.request(Method::GET, page).bearer_auth(TOKEN).send().await.unwrap();
    let shown = shown.text().await.unwrap();
    assert!(shown.contains("acknowledged by dana, until 2099-01-01"), "{shown}");
    assert!(shown.contains("no alert: the certificate is acknowledged"), "{shown}");
    let one = get("/api/v1/certificates/acme/cert_demo_weeks").await;
    assert_eq!(one["acknowledged"]["by"], "dana");
    assert_eq!(one["notifiers"][0]["status"], "acknowledged");
    for (change, code, detail) in [
        (json!({ "certificate": "cert_none" }), 404, "no certificate cert_none"),
        (json!({ "organization": "none" }), 404, "no organization “none”"),
        (json!({ "until": "2020-01-01T00:00:00Z" }), 422, "until: 2020-01-01 00:00 UTC has passed"),
        (json!({ "reason": " " }), 422, "reason: found an empty reason, expected a text"),
        (json!({ "until": "soon" }), 400, "until: found “soon”, expected a time"),
        (json!({ "until": 5 }), 400, "until"),
        (json!({ "more": 1 }), 400, "unknown field `more`"),
    ] {
        let mut wrong = wanted.clone();
        wrong.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (found, body) = call(Method::POST, "/api/v1/acknowledgements", Some(wrong)).await;
        assert_eq!(found, code, "{change} {body}");
        assert!(body["detail"].as_str().unwrap().contains(detail), "{body}");
    }
    let path = format!("/api/v1/acknowledgements/{}", made["id"].as_str().unwrap());
    assert_eq!(call(Method::DELETE, &path, None).await.0, 204);
    assert_eq!(call(Method::DELETE, &path, None).await.0, 404);
    let listed = get("/api/v1/acknowledgements").await;
    assert_eq!(listed["data"], json!([]));
    let listed = get("/api/v1/acknowledgements?all=true").await;
    assert_eq!(listed["data"][0]["ending"], "withdrawn");

    let failed = get("/api/v1/deliveries?failed=true").await;
    let newest = &failed["data"][0];
    assert_eq!(
        (&newest["state"], &newest["receiver"]),
        (&"rejected".into(), &"b@acme.example".into())
    );
    sim.mailbox.refuse("b@acme.example", None);
    let path = format!("/api/v1/deliveries/{}/retry", newest["id"].as_str().unwrap());
    let (code, again) = call(Method::POST, &path, None).await;
    assert_eq!(code, 200, "{again}");
    let arrived =
        || sim.mailbox.mails().iter().any(|mail| mail.to == ["b@acme.example"]).then_some(());
    until("the mail that was refused", arrived).await;
    let (code, body) = call(Method::POST, &path, None).await;
    assert_eq!(code, 409, "{body}");
    let nothing = "/api/v1/deliveries/0190d9a4-7b1c-7000-8000-000000000000/retry";
    assert_eq!(call(Method::POST, nothing, None).await.0, 404);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_page_answers_no_only_where_everything_was_read() {
    let mut world = World::with_projects(3, |n| format!("prod-{n}"));
    world.add("cert_a", Some("prod-ca"), Some(Clock::System.now() + days(300)), 1..=3);
    let sim = Sim::start(world).await;
    let mut daemon = Daemon::start(&guarded(&sim));
    daemon.ready(200).await;
    let answer = async || {
        let page = daemon.request(Method::GET, "/").bearer_auth(TOKEN).send().await.unwrap();
        let page = page.text().await.unwrap();
        let (_, rest) = page.split_once("<h1 id=\"answer\">").unwrap();
        rest.split_once("</h1>").unwrap().0.to_owned()
    };
    let effect = async |text: &str| {
        for _ in 0..500 {
            if answer().await.starts_with(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} is not {text}", answer().await);
    };
    let scan = async || {
        let scan = daemon.request(Method::POST, "/api/v1/scans").bearer_auth(TOKEN);
        assert_eq!(status(scan).await, 202);
    };
    effect("No. The next expiry is “prod-ca”, in 299 days").await;
    sim.api.world().projects[1].broken = Some(403);
    scan().await;
    effect("Not known: the latest scan could not read 1 list of acme (project proj_0002 “prod-2”)")
        .await;
    sim.api.world().projects[1].broken = None;
    let soon = Clock::System.now() + days(20);
    sim.api.world().certificate("cert_a").unwrap().expires_at = Some(soon);
    scan().await;
    effect("Soon: “prod-ca” expires in 19 days; from then on 3 projects have no valid certificate")
        .await;
    let over = Clock::System.now() - days(3);
    sim.api.world().certificate("cert_a").unwrap().expires_at = Some(over);
    scan().await;
    effect("Yes: 3 projects of acme have no valid certificate now").await;
    daemon.stop().await;
}

/// The answer of the first page, once it begins so.
async fn answers(daemon: &Daemon, text: &str) {
    let mut answer = String::new();
    for _ in 0..500 {
        let page = daemon.text("/").await;
        answer = page.split("<h1 id=\"answer\">").nth(1).unwrap_or_default().to_owned();
        if answer.starts_with(text) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} is not {text}", answer.split("</h1>").next().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_is_old_and_a_notifier_that_does_not_get_through_make_no_all_clear() {
    let mut world = World::with_projects(1, |n| format!("prod-{n}"));
    world.add("cert_a", Some("prod-ca"), Some(Clock::System.now() + days(300)), [1]);
    world.add("cert_b", Some("old-ca"), Some(Clock::System.now() + days(80)), [1]);
    let sim = Sim::start(world).await;
    let dead = super::support::free_port();
    let text =
        format!("{}[notifiers.webhook.dead]\nurl = \"http://127.0.0.1:{dead}/\"\n", sim.config());
    let mut daemon = Daemon::start(&text);
    daemon.ready(200).await;
    answers(&daemon, "Soon: notifier “dead” fails: ").await;
    let page = daemon.text("/certificates/acme/cert_b").await;
    assert!(page.contains("not delivered yet"), "{page}");
    daemon.stop().await;
    // Five days later, with an API that accepts connections and never responds.
    let file = daemon.folder.path().join("certvigil.db");
    let url = format!("sqlite://{}", file.display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let days_ago =
        "UPDATE scans SET tick = tick - 432000000, finished_at = finished_at - 432000000";
    sqlx::query(days_ago).execute(&pool).await.unwrap();
    pool.close().await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = sim
        .config()
        .replace(&sim.api_address.to_string(), &silent.local_addr().unwrap().to_string());
    let folder = std::mem::replace(&mut daemon.folder, tempfile::tempdir().unwrap());
    let mut daemon = Daemon::start_in(folder, &text, |_| {});
    daemon.ready(200).await;
    answers(&daemon, "Not known: the latest data of acme is from ").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_scan_nothing_is_called_well() {
    let sim = demo().await;
    let text = format!("{}[schedule]\nrun_on_start = false\ncron = \"0 0 1 1 *\"\n", sim.config());
    let mut daemon = Daemon::start(&text);
    daemon.ready(200).await;
    let page = daemon.text("/").await;
    assert!(page.contains("Not known: acme has not been scanned yet"), "{page}");
    assert!(page.contains("then reload this page"), "{page}");
    assert_eq!(status(daemon.request(Method::GET, "/certificates/acme/cert_x")).await, 404);
    assert!(daemon.text("/calendar.ics").await.contains("BEGIN:VCALENDAR"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_are_in_the_address_and_a_wrong_one_is_reported() {
    let sim = demo().await;
    let mut daemon = told(&sim, &sim.config()).await;
    let titles = async |path: &str| -> Vec<String> {
        let page = plain(&daemon.text(path).await);
        let links = page
            .split("<th scope=\"row\" role=\"rowheader\"><a href=\"/certificates/acme/")
            .skip(1);
        links.map(|link| link.split('"').next().unwrap().to_owned()).collect()
    };
    assert_eq!(titles("/certificates?q=PROD").await, ["cert_demo_prod", "cert_demo_successor"]);
    let expired = titles("/certificates?status=expired&organization=acme").await;
    assert_eq!(expired, ["cert_demo_expired"]);
    let critical = titles("/certificates?severity=critical").await;
    assert_eq!(
        critical,
        ["cert_demo_expired", "cert_demo_minute", "cert_demo_hours", "cert_demo_prod"],
        "the least time left first"
    );
    assert!(daemon.text("/projects?q=prod-chat-6").await.contains("proj_0006"));
    for (path, said) in [
        ("/certificates?severity=bad", "severity: found “bad”, expected info, warning or critical"),
        (
            "/certificates?organization=x",
            "organization: found “x”, expected a configured organization",
        ),
        (
            "/projects?status=x",
            "status: found “x”, expected one of uncovered, unprotected, ending,",
        ),
        ("/deliveries?page=0", "page: found “0”, expected a number from 1"),
    ] {
        let answer = daemon.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{path}");
        let text = answer.text().await.unwrap();
        assert!(text.contains(said), "{path}: {text}");
    }
    // What others wrote is text, wherever it stands.
    let page = daemon.text("/certificates").await;
    assert!(page.contains("&lt;script&gt;alert(1)&lt;&#x2f;script&gt;"), "{page}");
    assert!(!page.contains("<script"), "{page}");
    daemon.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_fills_the_whole_width_of_the_chart() {
    let sim = demo().await;
    let mut daemon = told(&sim, &sim.config()).await;
    let page = daemon.text("/").await;
    let chart = |page: &str| {
        let rest = page.split("<svg").nth(1).unwrap();
        rest.split("</svg>").next().unwrap().to_owned()
    };
    let wide = |page: &str| chart(page).matches("width=\"100%\" height=\"12\"").count();
    assert_eq!((wide(&page), chart(&page).matches(">expired ").count()), (1, 1), "{page}");
    assert!(page.contains("<li>whole width: expired</li>"), "{page}");
    // A filter that leaves no expired certificate.
    let page = daemon.text("/?q=labs-ca").await;
    assert_eq!(wide(&page), 0, "{page}");
    assert!(!page.contains("whole width: expired"), "{page}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_are_what_prometheus_reads_in_both_formats() {
    let sim = demo().await;
    let mut daemon = told(&sim, &sim.config()).await;
    until("the counters", || {
        let log = daemon.log();
        (log.matches("notification delivered").count() >= 3).then_some(())
    })
    .await;
    let answer = daemon.request(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text().await.unwrap();
    for line in [
        "certvigil_certificate_active_projects{organization=\"acme\",certificate=\"cert_demo_prod\",name=\"prod-ca-2026\"} 12",
        "certvigil_certificates{organization=\"acme\",status=\"expired\"} 1",
        "certvigil_projects{organization=\"acme\",state=\"read\"} 36",
        "certvigil_projects{organization=\"acme\",state=\"unreadable\"} 1",
        "certvigil_scan_duration_seconds_count 1",
        "certvigil_api_requests_total{organization=\"acme\",code=\"200\"} 54",
        "certvigil_api_requests_total{organization=\"acme\",code=\"403\"} 1",
        "certvigil_deliveries_total{notifier=\"ops\",outcome=\"delivered\"} 2",
        "certvigil_outbox_pending{notifier=\"hook\"} 0",
        "certvigil_outbox_oldest_seconds{notifier=\"hook\"} 0",
        "certvigil_alert_lateness_seconds_count 3",
        "certvigil_new_alert_deliveries{window=\"3d\",result=\"on_time\"} 3",
        "certvigil_new_alert_deliveries{window=\"90d\",result=\"missed\"} 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
    let page = daemon.text("/").await;
    let objective = "Last 90 days: 100.00 % of the deliveries of new alerts were on time (3 of 3), \
                     which means within 6h 5m after the alert became due. The objective is 99.9 %.";
    assert!(page.contains(objective), "{page}");
    // Only possible outcomes: a mail cannot be redirected.
    let outcome = |outcome: &str| format!("{{notifier=\"ops\",outcome=\"{outcome}\"}} 0");
    assert!(text.contains(&outcome("recipient")) && !text.contains(&outcome("redirect")), "{text}");
    assert!(text.contains("\ncertvigil_build_info{version=\"0.1.0\",commit=\""), "{text}");
    // No scan was complete: an alert on its age has to come.
    assert!(
        text.contains("certvigil_scan_last_success_timestamp_seconds{organization=\"acme\"} 0\n"),
        "{text}"
    );
    let open =
        daemon.request(Method::GET, "/metrics").header(ACCEPT, "application/openmetrics-text");
    let open = open.send().await.unwrap();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.headers()["content-type"], kind);
    let open = open.text().await.unwrap();
    assert!(open.ends_with("# EOF\n"), "{open}");
    assert!(open.contains("# TYPE certvigil_api_requests counter\n"), "{open}");
    daemon.stop().await;
    let Some(promtool) = program("promtool", "prometheus") else { return };
    let mut checking = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    checking.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = checking.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && said.is_empty(), "{said}\n{text}");
}

/// The events of a calendar, as a library reads them that is not the one that wrote it: the UID,
/// the beginning, the summary, and how many alarms.
fn events(text: &str) -> Vec<(String, String, String, usize)> {
    let mut calendars: Vec<_> = ical::IcalParser::new(text.as_bytes()).collect();
    assert_eq!(calendars.len(), 1);
    let calendar = calendars.remove(0).unwrap();
    let events = calendar.events.iter().map(|event| {
        let value = |name: &str| {
            let property = event.properties.iter().find(|property| property.name == name);
            property.and_then(|property| property.value.clone()).unwrap_or_default()
        };
        for alarm in &event.alarms {
            for needed in ["ACTION", "TRIGGER", "DESCRIPTION", "UID"] {
                assert!(alarm.properties.iter().any(|one| one.name == needed), "{needed}");
            }
        }
        (value("UID"), value("DTSTART"), value("SUMMARY"), event.alarms.len())
    });
    events.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calendar_has_each_expiry_once_under_an_id_that_stays() {
    let now = Clock::System.now();
    let mut world = World::with_projects(4, |n| format!("prod-{n}"));
    world.add("cert_a", Some("prod, ca; \\ one"), Some(now + days(200)), 1..=2);
    world.add("cert_d", Some("soon"), Some(now + days(10)), [4]);
    world.add("cert_b", Some("gone"), Some(now - days(2)), [3]);
    world
        .add("cert_c", Some("nowhere"), Some(now + days(9)), [])
        .projects
        .insert("proj_0001".into(), false);
    let sim = Sim::start(world).await;
    let text =
        guarded(&sim).replace("[http]\n", "[http]\npublic_url = \"https://watch.acme.example\"\n");
    let mut daemon = Daemon::start(&text);
    until("the webhook", || (!sim.receiver.posts().is_empty()).then_some(())).await;
    let fetch = async || {
        let answer = daemon.request(Method::GET, "/calendar.ics").bearer_auth(TOKEN).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/calendar; charset=utf-8");
        answer.text().await.unwrap()
    };
    let text = fetch().await;
    assert!(text.lines().all(|line| line.len() <= 76), "lines are folded\n{text}");
    assert!(text.contains("URL:https://watch.acme.example/certificates/acme/cert_a"), "{text}");
    let found = events(&text);
    let summaries: BTreeSet<&str> =
        found.iter().map(|(_, _, summary, _)| summary.as_str()).collect();
    assert_eq!(
        summaries.into_iter().collect::<Vec<_>>(),
        [
            "acme: project “prod-3” has no valid certificate",
            "acme: project “prod-4” has no valid certificate left",
            "acme: “gone” expired",
            "acme: “prod\\, ca\\; \\\\ one” expires",
            "acme: “soon” expires",
        ],
    );
    let of = |found: &[(String, String, String, usize)], part: &str| {
        found.iter().find(|(_, _, summary, _)| summary.contains(part)).unwrap().clone()
    };
    let (uid, begins, _, alarms) = of(&found, "ca\\; ");
    assert_eq!(begins, (now + days(200)).format("%Y%m%dT%H%M%SZ").to_string());
    assert_eq!(alarms, 6, "five thresholds and the end are ahead");
    assert_eq!(of(&found, "gone").3, 0, "nothing is ahead");
    // Renewed: the same event, at another time.
    sim.api.world().certificate("cert_a").unwrap().expires_at = Some(now + days(300));
    let scan = daemon.request(Method::POST, "/api/v1/scans").bearer_auth(TOKEN);
    assert_eq!(status(scan).await, 202);
    for _ in 0..500 {
        let (same, begins, _, _) = of(&events(&fetch().await), "ca\\; ");
        assert_eq!(same, uid);
        if begins == (now + days(300)).format("%Y%m%dT%H%M%SZ").to_string() {
            daemon.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the event has not moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrapers_token_reads_everything_and_writes_nothing() {
    const SCRAPER: &str = "only-for-prometheus";
    let sim = demo().await;
    let text = format!("{}read_token = \"{SCRAPER}\"\n", guarded(&sim));
    let mut daemon = told(&sim, &text).await;
    for path in ["/", "/certificates", "/metrics", "/api/v1/certificates"] {
        assert_eq!(status(daemon.request(Method::GET, path)).await / 100, 4, "{path}");
        assert_eq!(status(daemon.request(Method::GET, path).bearer_auth(SCRAPER)).await, 200);
    }
    for path in ["/api/v1/scans", "/scan", "/api/v1/acknowledgements"] {
        let write = |token| daemon.request(Method::POST, path).bearer_auth(token);
        assert_eq!(status(write(SCRAPER)).await, 403, "{path}");
        assert_ne!(status(write(TOKEN)).await, 403, "{path}");
    }
    // A browser that signs in with it reads, and is offered nothing to write.
    let sign_in = daemon.request(Method::POST, "/login").body(format!("token={SCRAPER}&next=/"));
    let sign_in = sign_in.header("content-type", "application/x-www-form-urlencoded");
    let signed_in = sign_in.send().await.unwrap();
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let page = daemon.request(Method::GET, "/").header("cookie", cookie).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    assert!(!page.contains("action=\"/scan\""), "{page}");
    let scan = daemon.request(Method::POST, "/scan").header("cookie", cookie);
    assert_eq!(status(scan).await, 403);
    let page = daemon.request(Method::GET, "/").bearer_auth(TOKEN).send().await.unwrap();
    assert!(page.text().await.unwrap().contains("action=\"/scan\""));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_wrong_tokens_block_who_tries_and_nobody_who_is_signed_in() {
    let sim = demo().await;
    let mut daemon = told(&sim, &guarded(&sim)).await;
    let sign_in = |token: &str, from: &str| {
        let form = daemon.request(Method::POST, "/login").body(format!("token={token}"));
        let form = form.header("content-type", "application/x-www-form-urlencoded");
        form.header("x-forwarded-for", from.to_owned())
    };
    let signed_in = sign_in(TOKEN, "192.0.2.1").send().await.unwrap();
    let cookie = signed_in.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap();
    for n in 0..10 {
        let tried = match n % 2 {
            0 => sign_in("wrong", "192.0.2.1"),
            _ => daemon
                .request(Method::GET, "/readyz")
                .bearer_auth("wrong")
                .header("x-forwarded-for", "192.0.2.1"),
        };
        assert_eq!(status(tried).await, if n % 2 == 0 { 401 } else { 200 });
    }
    let blocked = sign_in(TOKEN, "192.0.2.1").send().await.unwrap();
    assert_eq!(blocked.status(), 429, "the right one is not compared either");
    let metrics = daemon.request(Method::GET, "/metrics").bearer_auth(TOKEN);
    let metrics = metrics.header("x-forwarded-for", "192.0.2.1").send().await.unwrap();
    assert_eq!(metrics.status(), 429);
    assert!(metrics.headers().contains_key("retry-after"));
    let page = daemon.request(Method::GET, "/").header(COOKIE, cookie);
    assert_eq!(status(page.header("x-forwarded-for", "192.0.2.1")).await, 200, "signed in before");
    assert_eq!(status(sign_in(TOKEN, "192.0.2.2")).await, 303, "another address");
    daemon.stop().await;
    let log = daemon.log();
    let said: Vec<_> = log.lines().filter(|line| line.contains("login failed")).collect();
    assert_eq!(said.len(), 10, "{log}");
    assert!(said[0].contains("address=192.0.2.1 (via proxy 127.0.0.1)"), "{log}");
    assert!(said[9].contains("this address is blocked for a while"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_the_calendars_address_outlast_a_restart() {
    let sim = demo().await;
    let mut daemon = told(&sim, &guarded(&sim)).await;
    let sign_in = daemon.request(Method::POST, "/login").body(format!("token={TOKEN}"));
    let sign_in = sign_in.header("content-type", "application/x-www-form-urlencoded");
    let signed_in = sign_in.send().await.unwrap();
    let cookie = signed_in.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap();
    let page = daemon.request(Method::GET, "/").header(COOKIE, cookie).send().await.unwrap();
    let page = plain(&page.text().await.unwrap());
    let feed = page[page.find("/calendar.ics?token=").unwrap()..].split('"').next().unwrap();
    daemon.stop().await;
    let folder = std::mem::replace(&mut daemon.folder, tempfile::tempdir().unwrap());
    let mut again = Daemon::start_in(folder, &guarded(&sim), |_| ());
    again.ready(200).await;
    assert_eq!(status(again.request(Method::GET, feed)).await, 200);
    assert_eq!(status(again.request(Method::GET, "/").header(COOKIE, cookie)).await, 200);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_have_limits_and_many_slow_ones_stop_nobody() {
    let sim = demo().await;
    let mut daemon = told(&sim, &guarded(&sim)).await;
    let large = daemon.request(Method::POST, "/api/v1/acknowledgements").bearer_auth(TOKEN);
    let large = large.header("content-type", "application/json").body(vec![b' '; 100_000]);
    assert_eq!(status(large).await, 413);
    let long = daemon.request(Method::GET, &format!("/?q={}", "x".repeat(60_000)));
    let refused = long.bearer_auth(TOKEN).send().await;
    assert!(refused.is_err() || refused.unwrap().status().is_client_error());
    // More connections than there is room for, each with the beginning of a request that never
    // ends.
    let begun = Instant::now();
    let mut slow = Vec::new();
    for n in 0..600 {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.port())).await.unwrap();
        // Every other one sends nothing at all.
        if n % 2 == 0 {
            let head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ";
            stream.write_all(head).await.unwrap();
        }
        slow.push(stream);
    }
    let health = daemon.request(Method::GET, "/healthz").timeout(Duration::from_secs(5));
    assert_eq!(status(health).await, 200, "idle connections keep nobody out");
    // And more, each with a request whose body never comes.
    let mut busy = Vec::new();
    for _ in 0..600 {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.port())).await.unwrap();
        let head = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\
                     Content-Type: application/x-www-form-urlencoded\r\n\r\ntoken=";
        stream.write_all(head).await.unwrap();
        busy.push(stream);
    }
    let health = daemon.request(Method::GET, "/healthz").timeout(Duration::from_secs(5));
    assert_eq!(status(health).await, 200, "requests that do not end keep nobody out");
    drop(busy);
    let mut closed = 0;
    for stream in slow.iter_mut().take(200) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(40), stream.read_to_end(&mut rest));
        // One that made room for another may be reset.
        if read.await.is_ok() {
            closed += 1;
        }
    }
    assert_eq!(closed, 200, "a head that does not end ends the connection");
    drop(slow);
    assert_eq!(status(daemon.request(Method::GET, "/healthz")).await, 200);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    daemon.stop().await;
}

#[tokio::test]
async fn a_listener_for_everybody_without_a_token_is_warned_about() {
    let sim = demo().await;
    for (more, warned) in [("", true), ("token = { env = \"CERTVIGIL_TEST_TOKEN\" }\n", false)] {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{}[http]\nlisten = \"0.0.0.0:9764\"\n{more}", sim.config());
        let mut command = super::support::with(folder.path(), &text, &["config", "check"]);
        command.env_remove("CERTVIGIL__HTTP__LISTEN").env("CERTVIGIL_TEST_TOKEN", TOKEN);
        let (code, out, err) = super::support::run(command).await;
        assert_eq!(code, 0, "{err}");
        let all = format!("{out}{err}");
        assert_eq!(all.contains("is reachable from other machines"), warned, "{all}");
        assert!(!all.contains(TOKEN));
    }
}
