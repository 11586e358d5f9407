//! Moving a database sends nothing.

use certvigil::{clock::Clock, demo::world::World};
use chrono::TimeDelta;
use serde_json::{Value, json};
use std::path::Path;

use super::{
    postgres,
    support::{Sim, free_port, run, with},
};

async fn certvigil(folder: &Path, text: &str, arguments: &[&str]) -> (i32, String, String) {
    run(with(folder, text, arguments)).await
}

/// A world with something to tell, and a configuration whose mail server is not there: something
/// waits.
async fn sim() -> (Sim, String) {
    let mut world = World::with_projects(3, |n| format!("prod-{n}"));
    world.add(
        "cert_a",
        Some("it’s \"prod\"-ca"),
        Some(Clock::System.now() + TimeDelta::days(5)),
        1..=2,
    );
    world.add("cert_b", Some("old"), Some(Clock::System.now() + TimeDelta::days(20)), 2..=3);
    let sim = Sim::start(world).await;
    let port = sim.mailbox.address.port();
    let config =
        sim.config().replace(&format!("port = {port}"), &format!("port = {}", free_port()));
    (sim, config)
}

#[tokio::test]
async fn from_a_file_to_a_server_and_back_without_one_message_more() {
    let Some(database) = postgres::database().await else { return };
    let (sim, config) = sim().await;
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let on_file = format!("{config}[state]\nurl = \"sqlite:a.db\"\n");
    let on_server = format!("{config}[state]\nurl = \"{}\"\n", database.url);
    let on_other = format!("{config}[state]\nurl = \"sqlite:b.db\"\n");
    let (code, _, err) = certvigil(place, &on_file, &["check", "--notify"]).await;
    assert_eq!(code, 2, "{err}");
    let (code, _, err) = certvigil(
        place,
        &on_file,
        &["ack", "cert_b", "--until", "2099-01-01", "--reason", "known"],
    )
    .await;
    assert_eq!(code, 0, "{err}");
    let (told, shown) =
        (sim.receiver.posts().len(), certvigil(place, &on_file, &["deliveries"]).await.1);
    assert!(told > 0 && shown.contains("pending"), "{shown}");

    let (code, _, err) = certvigil(place, &on_file, &["state", "export", "one.jsonl"]).await;
    assert_eq!(code, 0, "{err}");
    let mode = std::fs::metadata(place.join("one.jsonl")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&mode) & 0o077, 0, "for nobody else");
    let (code, _, err) = certvigil(place, &on_server, &["state", "import", "one.jsonl"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(!err.contains("hunter"), "{err}");
    let (_, there, _) = certvigil(place, &on_server, &["deliveries"]).await;
    assert_eq!(there, shown, "the operator sees the same");
    let (code, _, err) = certvigil(place, &on_server, &["state", "export", "two.jsonl"]).await;
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = certvigil(place, &on_other, &["state", "import", "two.jsonl"]).await;
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = certvigil(place, &on_other, &["state", "export", "three.jsonl"]).await;
    assert_eq!(code, 0, "{err}");
    let read = |name| std::fs::read_to_string(place.join(name)).unwrap();
    assert_eq!(read("one.jsonl"), read("two.jsonl"));
    assert_eq!(read("one.jsonl"), read("three.jsonl"));

    // It works there and repeats nothing; pending deliveries are retried.
    let (code, _, err) = certvigil(place, &on_server, &["check", "--notify"]).await;
    assert_eq!(code, 2, "{err}");
    assert_eq!(sim.receiver.posts().len(), told, "{err}");
    let end = Clock::System.now() + TimeDelta::days(3);
    sim.api.world().add("cert_new", Some("new"), Some(end), 1..=2);
    certvigil(place, &on_server, &["check", "--notify"]).await;
    assert_eq!(sim.receiver.posts().len(), told + 1, "a new certificate alerts");
    let (_, acks, _) = certvigil(place, &on_server, &["acks"]).await;
    assert!(acks.contains("cert_b"), "{acks}");
}

/// The lines of an export, with another value in the first row of a table.
fn with_value(lines: &[&str], table: &str, column: &str, value: &Value) -> String {
    let mut changed = false;
    let lines = lines.iter().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        if !changed && line["table"] == table {
            changed = true;
            line["row"][column] = value.clone();
        }
        line.to_string()
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    assert!(changed, "there is nothing in {table}");
    text
}

#[tokio::test]
async fn what_is_not_whole_or_not_empty_is_refused_and_nothing_is_written() {
    let (_sim, config) = sim().await;
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let full = format!("{config}[state]\nurl = \"sqlite:a.db\"\n");
    certvigil(place, &full, &["check", "--notify"]).await;
    let (code, ..) = certvigil(place, &full, &["state", "export", "whole.jsonl"]).await;
    assert_eq!(code, 0);
    let (code, _, err) = certvigil(place, &full, &["state", "export", "whole.jsonl"]).await;
    assert!(code == 1 && err.contains("exists"), "{err}");
    let (code, _, err) = certvigil(place, &full, &["state", "import", "whole.jsonl"]).await;
    assert!(code == 1 && err.contains("import needs an empty database"), "{err}");
    let whole = std::fs::read_to_string(place.join("whole.jsonl")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let cut = lines[..lines.len() - 1].join("\n");
    let less = [&lines[..lines.len() - 2], &lines[lines.len() - 1..]].concat().join("\n");
    let cases = [
        ("", "the schema null"),
        ("{\"schema\":\"other/1\"}", "expected “certvigil.state/1”"),
        (&cut, "the file is incomplete"),
        (&less, "rows before this line"),
        (&whole.replace("\"table\":\"scans\"", "\"table\":\"moods\""), "the table \"moods\""),
        (&whole.replace("\"tick\":", "\"tock\":"), "scans.tick"),
        (&whole.replace("\"row\"", "row"), "expected a line of JSON"),
        // Values that certvigil never writes.
        (&with_value(&lines, "scans", "tick", &json!(i64::MAX)), "expected Unix milliseconds"),
        (&with_value(&lines, "deliveries", "seq", &json!(i64::MAX)), "at most 2^53"),
        (&with_value(&lines, "deliveries", "id", &json!("../../etc")), "expected a UUID"),
        (&with_value(&lines, "deliveries", "state", &json!("sent")), "the state of a delivery"),
        (&with_value(&lines, "ledger", "told", &json!("{}")), "expected a sent alert"),
        (
            &with_value(&lines, "ledger", "organization", &json!("a\u{1b}[2Jb")),
            "of an organization",
        ),
        (&with_value(&lines, "notifications", "model", &json!("[[[")), "expected JSON"),
        (&with_value(&lines, "notifications", "summary", &json!("x".repeat(70_000))), "64 KiB"),
        (
            &with_value(&lines, "inventory_parts", "content", &json!("[1]")),
            "cannot import organization acme",
        ),
        (
            &with_value(&lines, "organizations", "inventory", &json!("{}")),
            "cannot import organization acme",
        ),
    ];
    let empty = format!("{config}[state]\nurl = \"sqlite:b.db\"\n");
    for (text, words) in cases {
        std::fs::write(place.join("bad.jsonl"), text).unwrap();
        let (code, _, err) = certvigil(place, &empty, &["state", "import", "bad.jsonl"]).await;
        assert_eq!(code, 1, "{words}");
        assert!(err.contains(words), "{words}: {err}");
        assert!(!err.contains('\u{1b}') && err.len() < 1_000, "{err}");
    }
    let (code, _, err) = certvigil(place, &empty, &["state", "import", "whole.jsonl"]).await;
    assert_eq!(code, 0, "nothing of those was written: {err}");
}
