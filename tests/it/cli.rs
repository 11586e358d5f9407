//! The real binary, from the outside: exit codes, outputs, signals, and the state between two runs.

use certvigil::{clock::Clock, demo::world::World};
use chrono::TimeDelta;
use serde_json::Value;
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::support::{Sim, certvigil, raw_server, run, until, with};

fn signal(child: &Child, name: &str) {
    // The shell has it built in; the program is not on every machine.
    let kill = format!("kill {name} {}", child.id());
    let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(sent.success());
}

/// Waits for the end of a child; the limit is that of the contract, and some for a slow machine.
async fn end(mut child: Child) -> (i32, String) {
    let begin = Instant::now();
    let status = until("the end", || child.try_wait().unwrap()).await;
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    }
    (status.code().unwrap_or(-1), said)
}

fn spawn(mut command: Command) -> Child {
    command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// One certificate in each of these numbers of days (and an hour).
fn world(days: &[i64]) -> World {
    let mut world = World::with_projects(3, |n| format!("prod-{n}"));
    let now = Clock::System.now();
    for (n, days) in days.iter().enumerate() {
        let expires_at = now + TimeDelta::days(*days) + TimeDelta::hours(1);
        world.add(&format!("cert_{n}"), Some(&format!("ca-{n}")), Some(expires_at), 1..=3);
    }
    world
}

#[tokio::test]
async fn check_exits_as_monitoring_plugins_do() {
    let unknown = {
        let mut world = world(&[200]);
        world.add("cert_x", Some("no-end"), None, [1]);
        world
    };
    let unreadable = |days: &[i64]| {
        let mut world = world(days);
        world.projects[1].broken = Some(403);
        world
    };
    let cases = [
        (world(&[]), 0, "nothing at all"),
        (world(&[200]), 0, "healthy"),
        (world(&[80]), 0, "info"),
        (world(&[200, 20]), 1, "warning"),
        (unknown, 1, "an unknown end is a warning"),
        (world(&[20, 5]), 2, "critical"),
        (world(&[200, 5]), 1, "a certificate with a successor is a warning"),
        (world(&[-5]), 2, "expired"),
        (unreadable(&[200]), 3, "something could not be read"),
        (unreadable(&[20]), 1, "a warning comes before unknown"),
        (unreadable(&[5]), 2, "critical comes before all"),
    ];
    for (world, expected, reason) in cases {
        let sim = Sim::start(world).await;
        let folder = tempfile::tempdir().unwrap();
        for output in ["table", "json", "csv", "nagios"] {
            let command = with(folder.path(), &sim.config(), &["check", "--output", output]);
            let (code, out, err) = run(command).await;
            assert_eq!(code, expected, "{reason}, {output}\n{out}\n{err}");
        }
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "it writes nothing");
        assert!(
            sim.receiver.posts().is_empty() && sim.mailbox.mails().is_empty(),
            "and sends nothing"
        );
    }
    let sim = Sim::start(world(&[200])).await;
    let folder = tempfile::tempdir().unwrap();
    let mut full = with(folder.path(), &sim.config(), &["check"]);
    full.stdout(std::fs::File::create("/dev/full").unwrap()).stderr(Stdio::null());
    let code = tokio::task::spawn_blocking(move || full.status().unwrap().code()).await.unwrap();
    assert_eq!(code, Some(3), "an undelivered alert is no all clear");
    let (code, _, err) = run(with(folder.path(), "x = 1\n", &["check"])).await;
    assert_eq!(code, 3, "{err}");
    let (code, _, _) = run(with(folder.path(), "", &["check", "--output", "xml"])).await;
    assert_eq!(code, 3, "wrong usage");
}

#[tokio::test]
async fn check_names_the_rules_that_apply_to_no_certificate() {
    let ignore = "ignore = { reason = \"retired\", until = 2099-01-01 }";
    let rules = format!(
        "[[rules]]\ncertificates = [\"ca-0\"]\n{ignore}\n[[rules]]\ncertificates = [\"old-*\"]\n{ignore}\n"
    );
    let said = async |world: World| {
        let sim = Sim::start(world).await;
        let folder = tempfile::tempdir().unwrap();
        run(with(folder.path(), &format!("{}{rules}", sim.config()), &["check"])).await.2
    };
    let err = said(world(&[200])).await;
    let warnings: Vec<&str> =
        err.lines().filter(|line| line.contains("matches no certificate")).collect();
    assert_eq!(warnings, ["warning: rules[1] matches no certificate"]);
    let mut unread = world(&[200]);
    unread.projects[1].broken = Some(403);
    assert!(
        !said(unread).await.contains("matches no certificate"),
        "the rule may match unread certificates"
    );
}

#[tokio::test]
async fn check_shows_the_same_in_four_outputs() {
    let mut world = World::demo(Clock::System.now());
    world.certificate("cert_demo_weeks").unwrap().name = Some("=cmd|' /C calc'!A0".to_owned());
    let sim = Sim::start(world).await;
    let folder = tempfile::tempdir().unwrap();
    let check =
        |output: &'static str| with(folder.path(), &sim.config(), &["check", "--output", output]);
    let (_, table, _) = run(check("table")).await;
    assert!(table.starts_with("LEFT") || table.starts_with(" LEFT"), "{table}");
    for expected in [
        "expired 3 days ago",
        "legacy-batch-ca",
        "unknown_expiry",
        "not_yet_valid",
        "unknown_activity",
        "healthy",
        "the organization (37 projects)",
        "15 certificates in 36 projects",
        "acme: project proj_0037 “prod-secretive-37”: GET /organization/projects/proj_0037/certificates: HTTP 403",
    ] {
        assert!(table.contains(expected), "{expected}\n{table}");
    }
    let (_, json, _) = run(check("json")).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["schema"], "certvigil.check/1");
    assert_eq!((&json["complete"], &json["severity"]), (&false.into(), &"critical".into()));
    assert_eq!(json["certificates"].as_array().unwrap().len(), 15);
    assert_eq!(json["certificates"][0]["id"], "cert_demo_expired", "the least time left first");
    assert_eq!(json["unreadable"][0]["organization"], "acme");
    let (_, csv, _) = run(check("csv")).await;
    assert_eq!(csv.lines().count(), 16, "{csv}");
    assert!(csv.contains("'=cmd|"), "no formula for a spreadsheet: {csv}");
    let (_, nagios, _) = run(check("nagios")).await;
    let first = nagios.lines().next().unwrap();
    assert!(
        first.starts_with(
            "CERTVIGIL CRITICAL - 4 critical, 6 warning of 15 certificates, acme “legacy-batch-ca”"
        ),
        "{first}"
    );
    assert_eq!(nagios.matches('|').count(), 1, "the bar is the format's: {nagios}");
}

#[tokio::test]
async fn with_nothing_but_a_key_it_works() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = certvigil(folder.path());
    command.args(["config", "check"]).env("OPENAI_ADMIN_KEY", "sk-admin-x");
    let (code, out, err) = run(command).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("organization default: https://api.openai.com/v1"), "{out}");
    assert!(out.contains("notifier log: log") && out.contains("database: certvigil.db"), "{out}");
    let mut without = certvigil(folder.path());
    without.arg("run");
    let (code, _, err) = run(without).await;
    assert_eq!(code, 2);
    assert!(
        err.contains(
            "organizations.default.admin_key: environment variable OPENAI_ADMIN_KEY is not set"
        ),
        "{err}"
    );

    // The whole service, against a base URL of this machine.
    let sim = Sim::start(world(&[5])).await;
    let mut command = certvigil(folder.path());
    command
        .arg("run")
        .env("OPENAI_ADMIN_KEY", certvigil::demo::admin_api::KEY)
        .env(
            "CERTVIGIL__ORGANIZATIONS__DEFAULT__BASE_URL",
            format!("http://{}/v1", sim.api_address),
        )
        .env("CERTVIGIL__LOG__FORMAT", "json")
        .env("CERTVIGIL__LOG__LEVEL", "off")
        .env("STATE_DIRECTORY", folder.path());
    let child = spawn(command);
    until("a scan", || {
        sim.api.take_requests().iter().any(|asked| asked.contains("proj_0003")).then_some(())
    })
    .await;
    let state = certvigil::store::Settings {
        place: certvigil::store::Place::File(folder.path().join("certvigil.db")),
        history: TimeDelta::days(1),
    };
    loop {
        if let Ok(store) = certvigil::store::Store::open_beside(&state).await
            && let Ok(rows) = store.deliveries(&certvigil::store::Which::default(), 9).await
            && rows.iter().any(|row| row.settled_at.is_some())
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    signal(&child, "-TERM");
    let (code, err) = end(child).await;
    assert_eq!(code, 0, "{err}");
    let lines: Vec<Value> = err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "no level hides the alert, and off hides the rest: {err}");
    assert_eq!(lines[0]["certificate"], "cert_0");
    assert_eq!(
        (&lines[0]["level"], &lines[0]["event"]),
        (&"ERROR".into(), &"certificate.expiring".into())
    );
}

/// Runs the service until the receivers have had so many messages, and stops it.
async fn run_until(folder: &Path, sim: &Sim, posts: usize, mails: usize) -> String {
    let child = spawn(with(folder, &sim.config(), &["run"]));
    until("the messages", || {
        (sim.receiver.posts().len() >= posts && sim.mailbox.mails().len() >= mails).then_some(())
    })
    .await;
    // Wait for the end of the scan on start, which follows the last project's request.
    until("a scan", || {
        sim.api.take_requests().iter().any(|asked| asked.contains("proj_0003")).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    signal(&child, "-TERM");
    let (code, err) = end(child).await;
    assert_eq!(code, 0, "{err}");
    err
}

#[tokio::test]
async fn two_runs_in_a_row_send_nothing_the_second_time() {
    let sim = Sim::start(world(&[-1, 5, 20, 80])).await;
    let folder = tempfile::tempdir().unwrap();
    let err = run_until(folder.path(), &sim, 1, 2).await;
    assert!(err.contains("scan finished") && err.contains("certvigil stopped"), "{err}");
    run_until(folder.path(), &sim, 1, 2).await;
    assert_eq!(sim.receiver.posts().len(), 1, "one message for four certificates");
    assert_eq!(sim.mailbox.mails().len(), 2, "one for each recipient");
    let body: Value = serde_json::from_str(&sim.receiver.posts()[0].body).unwrap();
    assert_eq!(body["alerts"].as_array().unwrap().len(), 4);
    assert!(sim.receiver.posts()[0].signed);

    let (code, out, err) = run(with(folder.path(), &sim.config(), &["deliveries"])).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.matches("delivered").count(), 3, "{out}");
    assert!(
        out.contains("a@acme.example")
            && out.contains("250 OK")
            && err.contains("database: state.db")
            || err.contains("certvigil.db"),
        "{out}{err}"
    );
}

#[tokio::test]
async fn check_notify_reports_once_and_exits_as_check_does() {
    let sim = Sim::start(world(&[5])).await;
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let (code, _, err) = run(with(folder.path(), &sim.config(), &["check", "--notify"])).await;
        assert_eq!(code, 2, "{err}");
        assert_eq!((sim.receiver.posts().len(), sim.mailbox.mails().len()), (1, 2));
    }
}

#[tokio::test]
async fn a_second_instance_is_refused_and_the_first_goes_on() {
    let sim = Sim::start(world(&[5])).await;
    let folder = tempfile::tempdir().unwrap();
    let mut first = spawn(with(folder.path(), &sim.config(), &["run"]));
    until("the first message", || (!sim.receiver.posts().is_empty()).then_some(())).await;
    let (code, _, err) = run(with(folder.path(), &sim.config(), &["run"])).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("certvigil.db is in use by another certvigil"), "{err}");
    let (code, _, err) = run(with(folder.path(), &sim.config(), &["deliveries"])).await;
    assert_eq!(code, 0, "commands work next to the service: {err}");
    assert!(first.try_wait().unwrap().is_none());
    signal(&first, "-INT");
    assert_eq!(end(first).await.0, 0);
}

#[tokio::test]
async fn it_stops_in_time_while_everything_hangs() {
    let black_hole = raw_server(|_stream| std::future::pending::<()>()).await;
    let sim = Sim::start(world(&[5])).await;
    let text = sim
        .config()
        .replace(
            &format!("port = {}", sim.mailbox.address.port()),
            &format!("port = {}", black_hole.port()),
        )
        .replace("timeout = \"5s\"", "timeout = \"60s\"");
    let more = format!(
        "{text}[organizations.hangs]\nadmin_key = \"x\"\nbase_url = \"http://{black_hole}\"\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let child = spawn(with(folder.path(), &more, &["run"]));
    until("a webhook beside a mail server that hangs", || {
        (!sim.receiver.posts().is_empty()).then_some(())
    })
    .await;
    let begin = Instant::now();
    signal(&child, "-TERM");
    let (code, err) = end(child).await;
    assert_eq!(code, 0, "{err}");
    assert!(begin.elapsed() < Duration::from_secs(10), "the contract: {:?}", begin.elapsed());
}

#[tokio::test]
async fn notify_test_shows_what_each_receiver_answered() {
    let sim = Sim::start(world(&[])).await;
    sim.mailbox.refuse("b@acme.example", Some(550));
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = run(with(folder.path(), &sim.config(), &["notify", "test"])).await;
    assert_eq!(code, 1, "{err}");
    assert!(out.contains("ops: a@acme.example: accepted (250 OK)"), "{out}");
    assert!(out.contains("ops: b@acme.example: rejected, recipient: RCPT TO: "), "{out}");
    assert!(
        out.contains(&format!("hook: http://{} #", sim.hook))
            && out.contains(": accepted (HTTP 204 No Content)"),
        "{out}"
    );
    let (code, _, err) = run(with(folder.path(), &sim.config(), &["notify", "test", "hook"])).await;
    assert_eq!(code, 0, "{err}");
    let (code, _, err) =
        run(with(folder.path(), &sim.config(), &["notify", "test", "nobody"])).await;
    assert_eq!(code, 2);
    assert!(
        err.contains("no notifier “nobody” is configured; configured notifiers: ops, hook"),
        "{err}"
    );
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "it needs no state");
}

#[tokio::test]
async fn a_failed_delivery_is_shown_and_can_be_tried_again() {
    let sim = Sim::start(world(&[5])).await;
    sim.mailbox.refuse("b@acme.example", Some(550));
    let folder = tempfile::tempdir().unwrap();
    let (_, _, err) = run(with(folder.path(), &sim.config(), &["deliveries"])).await;
    assert!(err.contains("no database at certvigil.db: the first start of the service"), "{err}");
    run(with(folder.path(), &sim.config(), &["check", "--notify"])).await;
    let (_, out, _) =
        run(with(folder.path(), &sim.config(), &["deliveries", "--failed", "--output", "json"]))
            .await;
    let json: Value = serde_json::from_str(&out).unwrap();
    let failed = json["deliveries"].as_array().unwrap();
    assert_eq!(failed.len(), 1, "{out}");
    assert_eq!(
        (&failed[0]["state"], &failed[0]["receiver"]),
        (&"rejected".into(), &"b@acme.example".into())
    );
    let id = failed[0]["id"].as_str().unwrap().to_owned();
    sim.mailbox.refuse("b@acme.example", None);
    // A scan of its own would raise the alert again and supersede this delivery.
    let text = format!("{}[schedule]\nrun_on_start = false\n", sim.config());
    let child = spawn(with(folder.path(), &text, &["run"]));
    let (code, out, err) =
        run(with(folder.path(), &text, &["deliveries", "retry", &id[..8]])).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("the service retries this delivery now"), "{out}");
    let arrived =
        || sim.mailbox.mails().iter().any(|mail| mail.to[0] == "b@acme.example").then_some(());
    let waited = tokio::time::timeout(Duration::from_secs(30), until("the mail", arrived)).await;
    signal(&child, "-TERM");
    let (code, err) = end(child).await;
    assert!(code == 0 && waited.is_ok(), "{code} {err}");
    let (code, _, err) =
        run(with(folder.path(), &sim.config(), &["deliveries", "retry", "ffff0000"])).await;
    assert_eq!(code, 1);
    assert!(err.contains("matches the id ffff0000"), "{err}");
}

#[tokio::test]
async fn no_secret_is_in_any_output() {
    let sim = Sim::start(world(&[5])).await;
    let text = sim
        .config()
        .replace("admin_key = \"sk-admin-simulated\"", "admin_key = \"sk-admin-hunter2\"")
        .replace(
            "timeout = \"5s\"\n",
            "timeout = \"5s\"\nusername = \"u\"\npassword = \"hunter2-mail\"\n",
        )
        .replace("/hook\"\n", "/hook?token=hunter2-url\"\nkey = \"hunter2-key\"\n");
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["config", "show"][..],
        &["config", "check"],
        &["check"],
        &["check", "--notify"],
        &["notify", "test"],
        &["deliveries", "--output", "json"],
        &["deliveries"],
    ] {
        let mut command = with(folder.path(), &text, arguments);
        command.env("RUST_LOG", "trace,hyper=info,h2=info");
        let (_, out, err) = run(command).await;
        assert!(
            !out.contains("hunter2") && !err.contains("hunter2"),
            "{arguments:?}\n{out}\n{err}"
        );
    }
}

#[tokio::test]
async fn notify_preview_shows_what_would_be_sent_without_sending_it_or_reading_a_secret() {
    let sim = Sim::start(world(&[5])).await;
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "{}[notifiers.webhook.pager]\nformat = \"pagerduty\"\nkey = {{ env = \"NOT_SET\" }}\n\
         [notifiers.webhook.chat]\nformat = \"slack\"\nurl = {{ env = \"NOT_SET_EITHER\" }}\n\
         [notifiers.log.audit]\n",
        sim.config()
    );
    let preview = |arguments: &[&str]| {
        let all: Vec<&str> = ["notify", "preview"].iter().chain(arguments).copied().collect();
        run(with(folder.path(), &text, &all))
    };
    // Without a database the preview uses a sample, and says so.
    let (code, out, err) = preview(&["ops"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("no database at ") && err.contains("yet: showing a sample"), "{err}");
    assert!(
        out.contains("Subject: [certvigil] CRITICAL acme: 2 projects have no valid certificate"),
        "{out}"
    );

    let (code, _, err) = preview(&["ops", "--organization", "other"]).await;
    assert_eq!(code, 2, "{err}");

    // With a database, the open alerts.
    let told = sim.config() + "[state]\nurl = \"sqlite:certvigil.db\"\n";
    let (code, ..) = run(with(folder.path(), &told, &["check", "--notify"])).await;
    assert_eq!(code, 2);
    let (mails, posts) = (sim.mailbox.mails().len(), sim.receiver.posts().len());
    let (code, out, err) = preview(&["ops"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("database: "), "{err}");
    assert!(
        out.contains("Subject: [certvigil] CRITICAL acme: “ca-0” expires in 5 days\n"),
        "{out}"
    );
    assert!(out.contains("To: a@acme.example, b@acme.example\n"), "{out}");
    let (code, out, err) = preview(&["ops", "--format", "html"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("<!doctype html>") && out.contains("“ca-0” expires"), "{out}");
    let (code, out, _) = preview(&["pager", "--format", "json"]).await;
    assert_eq!(code, 0);
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["schema"], "certvigil.preview/1");
    assert_eq!(document["from"], "state");
    let event = &document["messages"][0]["body"];
    assert_eq!(event["dedup_key"], "certvigil:pager:acme:certificate:cert_0:critical");
    assert_eq!(event["routing_key"], "[hidden]");
    let (code, out, _) = preview(&["chat", "--sample", "project.covered"]).await;
    assert_eq!(code, 0);
    assert!(out.starts_with("POST (the configured address)\n"), "{out}");
    assert!(out.contains("“chat” has a valid certificate again"), "{out}");
    let (code, out, _) = preview(&["audit"]).await;
    assert_eq!((code, out.as_str()), (0, "critical: “ca-0” expires in 5 days\n"));

    let (code, out, err) = preview(&["chat", "--format", "html"]).await;
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("only email notifiers have HTML"), "{err}");
    let (code, _, err) = preview(&["ops", "--sample", "certificate.gone"]).await;
    assert_eq!(code, 2);
    assert!(
        err.contains("found “certificate.gone”, expected digest, certificate.expiring, "),
        "{err}"
    );
    let (code, _, err) = preview(&["nobody"]).await;
    assert_eq!(code, 2);
    assert!(
        err.contains("no notifier “nobody” is configured; configured notifiers: ops, "),
        "{err}"
    );
    let (code, _, err) = preview(&["ops", "--organization", "other"]).await;
    assert_eq!(code, 2);
    assert!(err.contains("--organization: no organization “other”"), "{err}");
    assert_eq!((sim.mailbox.mails().len(), sim.receiver.posts().len()), (mails, posts));
}

#[tokio::test]
async fn too_few_file_descriptors_are_named_as_that() {
    let sim = Sim::start(world(&[5])).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.toml"), sim.config()).unwrap();
    for (limit, code) in [("12", 3), ("128", 2)] {
        let mut command = certvigil(folder.path());
        let binary = command.get_program().to_owned();
        let script = "ulimit -n \"$0\"; exec \"$@\"";
        let mut limited = std::process::Command::new("sh");
        limited.args(["-c", script, limit]).arg(binary).args(["--config", "c.toml", "check"]);
        limited.current_dir(folder.path()).env_clear();
        limited.envs(
            command.args([""; 0]).get_envs().filter_map(|(name, value)| Some((name, value?))),
        );
        let (found, _, err) = run(limited).await;
        assert_eq!(found, code, "{limit}: {err}");
        let few = "error: too few file descriptors: the limit is 12, certvigil needs at least 128";
        assert_eq!(err.contains(few), limit == "12", "{err}");
    }
}
