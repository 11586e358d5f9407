//! The admin key can do anything in the organization: it goes to the configured host alone, with
//! `GET` and a short list of paths, and into nothing that somebody may read.

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use certvigil::demo::{
    admin_api::KEY,
    world::{AdminKey, World},
};
use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
};

use super::{
    daemon::{Beats, Daemon},
    support::{Sim, days, run, serve, until, with},
    window::{PATHS, TOKEN},
};

/// An API that repeats the key wherever possible: in names, errors, headers and its list of keys.
async fn indiscreet(sim: &Sim, asked: Arc<Mutex<BTreeSet<String>>>) -> std::net::SocketAddr {
    let expires = certvigil::clock::Clock::System.now() + days(5);
    {
        let mut world = sim.api.world();
        world.add("cert_b", Some(&format!("called {KEY}")), Some(expires), [1]);
        world.admin_keys.push(AdminKey {
            id: "key_1".to_owned(),
            name: Some("certvigil".to_owned()),
            redacted_value: KEY.to_owned(),
            owner: ("user_1".to_owned(), "dana".to_owned()),
            expires_at: Some(expires),
        });
    }
    let elsewhere = {
        let asked = Arc::clone(&asked);
        let note = move |request: Request| {
            let key = format!("{:?}", request.headers().get(AUTHORIZATION));
            asked.lock().unwrap().insert(format!("elsewhere with {key}"));
            async { StatusCode::OK }
        };
        serve(Router::new().fallback(note)).await
    };
    let meddle = move |request: Request, next: Next| {
        let path = request.uri().path().to_owned();
        asked.lock().unwrap().insert(format!("{} {path}", request.method()));
        async move {
            let echo = || {
                let body =
                    format!("{{\"error\": {{\"message\": \"your key {KEY} is not enough\"}}}}");
                (StatusCode::FORBIDDEN, [("x-request-id", KEY)], body).into_response()
            };
            let response: Response = match path.as_str() {
                "/v1/organization/projects/proj_0002/certificates" => echo(),
                "/v1/organization/projects/proj_0003/certificates" => {
                    let there = format!("http://{elsewhere}/{KEY}");
                    (StatusCode::TEMPORARY_REDIRECT, [("location", there)]).into_response()
                }
                "/v1/organization/projects/proj_0004/certificates" => {
                    format!("{{\"data\": [{{\"id\": \"c\", \"active\": \"{KEY}\"}}]}}")
                        .into_response()
                }
                _ => next.run(request).await,
            };
            response
        }
    };
    serve(sim.api.router().layer(axum::middleware::from_fn(meddle))).await
}

#[tokio::test]
async fn the_key_is_in_nothing_that_somebody_may_read_whatever_the_api_repeats() {
    let mut world = World::with_projects(5, |n| format!("prod-{n}"));
    world.add(
        "cert_a",
        Some("first"),
        Some(certvigil::clock::Clock::System.now() + days(5)),
        1..=5,
    );
    let (sim, beats) = (Sim::start(world).await, Beats::start().await);
    let asked: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let api = indiscreet(&sim, Arc::clone(&asked)).await;
    let text = format!(
        "{}[http]\ntoken = \"{TOKEN}\"\n[schedule]\ncron = \"* * * * * *\"\nscan_timeout = \"1s\"\n[monitoring]\nblind_after = \"3s\"\n{}",
        sim.config().replace(&sim.api_address.to_string(), &api.to_string()),
        beats.config()
    );
    let mut daemon = Daemon::start_in(tempfile::tempdir().unwrap(), &text, |command| {
        command.env("RUST_LOG", "debug,certvigil=trace,reqwest=trace");
    });
    until("the alerts", || (sim.receiver.posts().len() >= 2).then_some(())).await;
    until("the mails", || (sim.mailbox.mails().len() >= 4).then_some(())).await;
    daemon.logged("list unreadable", 0).await;
    let mut outputs = vec![("readyz", daemon.ready(200).await.to_string())];
    for path in PATHS {
        let answer = daemon.request(reqwest::Method::GET, path).bearer_auth(TOKEN).send().await;
        let answer = answer.unwrap();
        let headers = format!("{:?}", answer.headers());
        outputs.push((path, format!("{headers}{}", answer.text().await.unwrap())));
    }
    daemon.stop().await;
    outputs.push(("the log", daemon.log()));
    outputs.extend(sim.receiver.posts().into_iter().map(|post| ("a webhook", post.body)));
    for mail in sim.mailbox.mails() {
        let parts = certvigil::demo::pages::parts(&mail.data).unwrap();
        outputs.push(("a mail", format!("{}{}{}", parts.subject, parts.text, parts.html)));
    }
    let state = std::fs::read(daemon.folder.path().join("certvigil.db")).unwrap();
    outputs.push(("the state", String::from_utf8_lossy(&state).into_owned()));
    for arguments in [
        &["config", "show"][..],
        &["config", "check"],
        &["check"],
        &["check", "--output", "json"],
        &["forecast", "--from-state"],
        &["explain", "cert_a"],
        &["deliveries", "--output", "json"],
        &["notify", "preview", "ops", "--format", "html"],
    ] {
        let mut command = with(daemon.folder.path(), &text, arguments);
        command.env("RUST_LOG", "debug,certvigil=trace,reqwest=trace");
        let (_, out, err) = run(command).await;
        outputs.push(("a command", format!("{out}{err}")));
    }
    // The name that somebody gave a certificate is theirs to choose: that is no word of ours.
    let named = format!("called {KEY}");
    for (what, output) in &outputs {
        let ours = output.replace(&named, "").replace("called [hidden]", "");
        assert!(!ours.contains(TOKEN), "{what}");
        assert!(
            !ours.contains(KEY),
            "{what}: {}",
            &ours[ours.find(KEY).unwrap().saturating_sub(300)..]
        );
    }
    let asked = asked.lock().unwrap();
    let projects =
        (1..=5).map(|n| format!("GET /v1/organization/projects/proj_000{n}/certificates"));
    let listed = [
        "projects",
        "certificates",
        "certificates/cert_a",
        "certificates/cert_b",
        "admin_api_keys",
    ]
    .map(|list| format!("GET /v1/organization/{list}"));
    assert_eq!(
        *asked,
        projects.chain(listed).collect::<BTreeSet<_>>(),
        "GET to these paths, and nobody else"
    );
}

#[tokio::test]
async fn a_key_file_that_others_may_read_is_warned_about() {
    let sim = Sim::start(World::with_projects(1, |n| format!("prod-{n}"))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, KEY).unwrap();
    let text = sim.config().replace(&format!("\"{KEY}\""), "{ file = \"key\" }");
    for (mode, warned) in [(0o600, false), (0o644, true)] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let (code, out, _) = run(with(folder.path(), &text, &["config", "check"])).await;
        assert_eq!(code, 0);
        let warning = "organizations.acme.admin_key: key: everyone can read it (mode 0644)";
        assert_eq!(out.contains(warning), warned, "{out}");
    }
}
