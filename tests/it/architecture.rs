//! The allowed dependencies between modules, checked against the `use` lines and paths of the
//! sources.

use std::{fs, path::Path};

/// For each room: the rooms of the crate that it may name.
const MAY_KNOW: [(&str, &[&str]); 17] = [
    ("domain", &["domain"]),
    ("admin_api", &["admin_api", "domain", "net", "secret", "clock"]),
    ("store", &["store", "domain", "files", "net", "redact", "secret"]),
    ("view", &["view", "domain"]),
    ("notify", &["notify", "domain", "net", "secret", "logging", "view"]),
    (
        "http",
        &[
            "http",
            "build",
            "clock",
            "descriptors",
            "domain",
            "schedule",
            "secret",
            "store",
            "usecase",
            "view",
        ],
    ),
    (
        "usecase",
        &[
            "admin_api",
            "build",
            "clock",
            "domain",
            "notify",
            "schedule",
            "store",
            "usecase",
            "view",
        ],
    ),
    ("heartbeat.rs", &["net", "secret"]),
    ("schedule.rs", &["domain", "clock"]),
    ("net.rs", &["domain"]),
    ("secret.rs", &["files", "redact"]),
    ("redact.rs", &["domain"]),
    ("files.rs", &[]),
    ("descriptors.rs", &[]),
    ("logging.rs", &["net", "redact"]),
    ("clock.rs", &["domain"]),
    ("build.rs", &[]),
];

pub fn sources(path: &Path, found: &mut Vec<(String, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push((path.display().to_string(), fs::read_to_string(path).unwrap()));
    }
}

/// The rooms that a source names after `crate::`, in `use` lines, braces included, and in paths.
fn rooms(source: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (start, _) in source.match_indices("crate::") {
        let rest = &source[start + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            rooms.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            continue;
        };
        let mut depth = 0;
        let mut word = String::new();
        let mut in_path = false;
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    rooms.push(std::mem::take(&mut word));
                    in_path = false;
                }
                ':' if depth == 0 => in_path = true,
                c if depth == 0 && !in_path && (c.is_alphanumeric() || c == '_') => word.push(c),
                _ => {}
            }
        }
        rooms.push(word);
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

#[test]
fn each_room_knows_only_whom_it_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (room, allowed) in MAY_KNOW {
        let mut found = Vec::new();
        sources(&root.join(room), &mut found);
        assert!(!found.is_empty(), "{room} is gone: this test is out of date");
        for (path, source) in found {
            let beyond = rooms(&source).into_iter().filter(|known| !allowed.contains(&&**known));
            wrong.extend(beyond.map(|known| format!("{path} knows {known}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_domain_is_pure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/domain");
    let mut found = Vec::new();
    sources(&root, &mut found);
    for (path, source) in found {
        for word in ["async ", "tokio", "tracing", "std::fs", "std::net", "std::io", "::now("] {
            assert!(!source.contains(word), "{path} has {word:?}");
        }
    }
}

#[test]
fn a_room_is_found_in_every_spelling() {
    let source =
        "use crate::{domain::{a, b}, net::Pem, store};\nuse crate::clock;\ncrate::notify::x()";
    assert_eq!(rooms(source), ["domain", "net", "store", "clock", "notify"]);
}
