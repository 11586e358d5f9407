//! The guides: that every command in them is one, and every link leads somewhere.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{done, said};
use crate::support::{certvigil, program};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn guides() -> Vec<(PathBuf, String)> {
    let root = root();
    let mut paths = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    paths.push(root.join("SECURITY.md"));
    for folder in ["", "tutorial", "how-to", "reference", "explanation"] {
        let entries = std::fs::read_dir(root.join("docs").join(folder)).unwrap();
        let entries = entries.map(|entry| entry.unwrap().path());
        paths.extend(entries.filter(|path| path.extension().is_some_and(|kind| kind == "md")));
    }
    assert!(paths.len() >= 25, "{paths:?}");
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// As Markdown names a heading.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for (path, text) in guides() {
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let to = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(to.exists(), "{}: {link} leads nowhere", path.display());
            if !part.is_empty() {
                let known = anchors(&std::fs::read_to_string(&to).unwrap());
                assert!(known.iter().any(|anchor| anchor == part), "{}: {link}", path.display());
            }
            links += 1;
        }
    }
    assert!(links > 30, "{links}");
}

/// The log messages in the table of faults are those of the program; `…` stands for a value.
#[test]
fn the_table_of_faults_quotes_the_log() {
    let mut files = Vec::new();
    crate::architecture::sources(&root().join("src"), &mut files);
    // A string may continue on the next line.
    let lines = files.iter().flat_map(|(_, text)| text.split("\\\n"));
    let source: String = lines.map(str::trim_start).collect();
    let table = std::fs::read_to_string(root().join("docs/reference/faults.md")).unwrap();
    let mut quoted = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let log = row.split('|').nth(3).unwrap();
        for message in log.split('`').skip(1).step_by(2) {
            // SQLite's own words, and the status that comes before every refusal.
            let parts = message.split('…').flat_map(|part| part.split(": "));
            let parts = parts.map(|part| part.trim_matches([' ', ';', ',']));
            for part in parts.filter(|part| {
                part.contains(' ') && !part.starts_with("HTTP ") && *part != "database is locked"
            }) {
                assert!(source.contains(part), "“{part}” is in no log message: {row}");
                quoted += 1;
            }
        }
    }
    assert!(quoted > 25, "{quoted}");
}

/// Runs the recipe of the runbook: its certificates are valid as an anchor and as a client.
#[test]
fn the_runbook_makes_an_anchor_and_a_client_that_the_api_accepts() {
    let Some(openssl) = program("openssl", "openssl") else { return };
    let runbook = std::fs::read_to_string(root().join("docs/how-to/runbook.md")).unwrap();
    let block = runbook.split("```sh").find(|block| block.contains("openssl req -x509")).unwrap();
    let recipe = block.split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        done(command.args(arguments).current_dir(folder.path()))
    };
    run(Path::new("sh"), &["-e", "-c", recipe]);
    let text = |file| run(&openssl, &["x509", "-in", file, "-noout", "-text"]);
    let (ca, client) = (text("ca.pem"), text("client.pem"));
    for (certificate, expected) in [
        (&ca, "CA:TRUE"),
        (&ca, "Certificate Sign, CRL Sign"),
        (&client, "Digital Signature"),
        (&client, "TLS Web Client Authentication"),
        (&client, "X509v3 Authority Key Identifier"),
    ] {
        assert!(certificate.contains(expected), "{expected}\n{certificate}");
    }
    let verified =
        ["verify", "-purpose", "sslclient", "-x509_strict", "-CAfile", "ca.pem", "client.pem"];
    assert!(run(&openssl, &verified).contains("client.pem: OK"));
}

/// What ends a command.
const END: [&str; 6] = ["#", "|", ">", ">>", "&&", "&"];

/// Options of certvigil; others that follow its name are of whoever starts it.
const OPTIONS: [&str; 2] = ["--config", "--version"];

/// The commands of certvigil in a text's blocks of shell.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for block in text.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap().replace("\\\n", " ");
        for line in
            block.lines().flat_map(|line| line.split(" | ").chain(line.split(" && ").skip(1)))
        {
            let said = line.split_whitespace();
            let words: Vec<&str> = said.take_while(|word| !END.contains(word)).collect();
            // Within a container, it is the last that is named so.
            let at = match words.first() {
                Some(&"kubectl") => words.iter().position(|word| *word == "--").map(|at| at + 1),
                Some(&"docker") => words.iter().rposition(|word| *word == "certvigil"),
                Some(&"sudo") => Some(1),
                Some(&"certvigil") => Some(0),
                _ => None,
            };
            if let Some(at) = at
                && words.get(at) == Some(&"certvigil")
                && words
                    .get(at + 1)
                    .is_some_and(|word| !word.starts_with("--") || OPTIONS.contains(word))
            {
                found.push(words[at + 1..].join(" "));
            }
        }
    }
    found
}

#[test]
fn every_command_of_certvigil_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for (path, text) in guides() {
        for command in commands(&text) {
            // A text in quotes is one word, and a day is a day.
            let mut words: Vec<String> = Vec::new();
            for (n, part) in command.split('"').enumerate() {
                if n % 2 == 1 {
                    words.push(part.to_owned());
                } else {
                    words.extend(part.split_whitespace().map(str::to_owned));
                }
            }
            // All that stands before it is read first.
            let (content, said) = said(certvigil(folder.path()).args(&words).arg("--help"));
            assert!(content, "{}: certvigil {command}: {said}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}
