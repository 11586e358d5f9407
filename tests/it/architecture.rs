//! The dependencies between modules: the list in `src/lib.rs`, compared with the code.

use std::{collections::BTreeSet, fs, path::Path};

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

/// The modules of the list in `src/lib.rs`, in its order, each with those that it names.
fn listed(library: &str) -> Vec<(String, BTreeSet<String>)> {
    let list = library.split("with the modules that it names.").nth(1).unwrap();
    let list = list.split("```").nth(1).unwrap();
    let lines = list.lines().filter_map(|line| line.strip_prefix("//! ")?.split_once(':'));
    let names = |text: &str| {
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    lines.map(|(module, known)| (module.to_owned(), names(known))).collect()
}

/// The modules below `src`, with those that each names outside its tests.
fn found(root: &Path) -> Vec<(String, BTreeSet<String>)> {
    let mut modules = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if ["lib", "main"].contains(&name.as_str()) {
            continue;
        }
        let mut files = Vec::new();
        sources(&path, &mut files);
        files.retain(|(path, _)| !path.ends_with("tests.rs"));
        let production = files
            .iter()
            .map(|(_, source)| source.split("#[cfg(test)]\nmod tests {").next().unwrap());
        let mut known: BTreeSet<String> = production.flat_map(rooms).collect();
        known.remove(&name);
        modules.push((name, known));
    }
    modules
}

#[test]
fn the_list_of_modules_is_what_the_code_names_and_has_no_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let listed = listed(&fs::read_to_string(root.join("lib.rs")).unwrap());
    let mut above: BTreeSet<&String> = BTreeSet::new();
    for (module, known) in &listed {
        let below: Vec<&String> = known.iter().filter(|one| !above.contains(one)).collect();
        assert!(below.is_empty(), "{module} names {below:?}, which the list has below it");
        above.insert(module);
    }
    let mut listed = listed;
    listed.sort();
    let mut found = found(&root);
    found.sort();
    assert_eq!(listed, found, "the list in src/lib.rs, and the code");
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
