//! The guides: that every command in them is one, and every link leads somewhere.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{deploy, done, said};
use crate::support::{certvigil, program};

fn guides() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for folder in ["", "guide", "container", "kubernetes", "prometheus"] {
        let entries = std::fs::read_dir(deploy(folder)).unwrap().map(|entry| entry.unwrap().path());
        paths.extend(
            entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")),
        );
    }
    let docs = std::fs::read_dir(root.join("docs")).unwrap();
    paths.extend(docs.map(|entry| entry.unwrap().path()));
    assert!(paths.len() >= 13, "{paths:?}");
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

/// Runs the recipe of the runbook: its certificates are valid as an anchor and as a client.
#[test]
fn the_runbook_makes_an_anchor_and_a_client_that_the_api_accepts() {
    let Some(openssl) = program("openssl", "openssl") else { return };
    let runbook = std::fs::read_to_string(deploy("guide/runbook.md")).unwrap();
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
