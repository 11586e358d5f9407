//! The words that people read: phrases that hide who does what are refused in documentation,
//! configuration comments, templates, and the strings and comments of the program.

use regex::Regex;
use std::path::Path;

/// Phrases that name neither the actor nor the thing. Most have a short plain form: “what is told”
/// is an alert, “who hears of it” a receiver, “what could not be read” an unreadable list.
const PHRASES: [&str; 11] = [
    r"\b(is|are|was|were|be|been|being) (told|said|heard|owed|asked for|spoken)\b",
    r"\b(tells?|says?|hears?) (of|that it|nobody|everybody|somebody|nothing|who|what)\b",
    r"\bwhat (is|was|are|were|could|has|have|had|waits?|comes?|came|they|it|would|can|may|might|must|will|does|did|nobody|somebody)\b",
    r"\bwho(ever)? (is told|hears?|asks?|may|has)\b",
    r"\bwhom\b|\bthereof\b|\bnot to be had\b|\bto be had\b|\blook that\b|\bat once where\b|\ball the same\b",
    r"\bmend(s|ed)?\b|\bhearsay\b|\banew\b|\bfor good\b|\bbut for\b|\bbeside (it|them|that|the)\b",
    r"\b(the )?one of before\b|\bof before\b",
    r"\b(as|so) (little|much|many|far) as\b|\bso that (nobody|none)\b|\bnor is\b|\bis none\b",
    r"\bstands? (in|there|for it)\b|\bgoes by\b|\bcame? to (what|nothing)\b|\bcomes? round\b",
    r"\bis (active|valid|there|known) nowhere\b|\bcannot be (had|worked on)\b",
    r"\b(it|they|that) (is|are) none\b|\bof its own making\b|\bin the open\b",
];

/// Ordinary English that the phrases above would refuse.
const ORDINARY: [&str; 2] = ["what is new", "what is a "];

/// The parts of a text that people read, with their lines.
fn prose(path: &Path, text: &str) -> Vec<(usize, String)> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    match extension {
        "rs" => [strings(text), comments(text)].concat(),
        "md" | "html" | "j2" | "json" => lines.map(|(at, line)| (at, line.to_owned())).collect(),
        _ => lines
            .filter(|(_, line)| line.starts_with('#'))
            .map(|(at, line)| (at, line.to_owned()))
            .collect(),
    }
}

/// A source without its tests.
fn production(source: &str) -> &str {
    source.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// The paragraphs of a source's comments, each with its first line.
fn comments(source: &str) -> Vec<(usize, String)> {
    let mut paragraphs: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (index, line) in production(source).lines().enumerate() {
        let words = line
            .trim_start()
            .strip_prefix("//")
            .map(|rest| rest.trim_start_matches(['/', '!']).trim());
        match (words.filter(|words| !words.is_empty()), is_open) {
            (Some(words), true) => {
                let (_, paragraph) = paragraphs.last_mut().unwrap();
                paragraph.push(' ');
                paragraph.push_str(words);
            }
            (Some(words), false) => paragraphs.push((index + 1, words.to_owned())),
            (None, _) => {}
        }
        is_open = words.is_some_and(|words| !words.is_empty());
    }
    paragraphs
}

/// The strings of a source that have several words, without those of its tests.
fn strings(source: &str) -> Vec<(usize, String)> {
    let string = Regex::new(r#""((?:[^"\\]|\\[\s\S]){12,})""#).unwrap();
    let source = production(source);
    // Comments may have single quotation marks; their lines stay, for the numbers.
    let is_comment = |line: &&str| line.trim_start().starts_with("//");
    let code: Vec<&str> =
        source.lines().map(|line| if is_comment(&line) { "" } else { line }).collect();
    let code = code.join("\n");
    let continued = Regex::new(r"\\\n\s*").unwrap();
    let found = string.captures_iter(&code).filter(|found| found[1].contains(' '));
    found
        .map(|found| {
            let start = found.get(0).map_or(0, |all| all.start());
            let line = code[..start].matches('\n').count() + 1;
            (line, continued.replace_all(&found[1], "").into_owned())
        })
        .collect()
}

fn collect(path: &Path, found: &mut Vec<std::path::PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), found);
        }
    } else {
        found.push(path.to_owned());
    }
}

#[test]
fn people_read_plain_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for place in [
        ".ci",
        "config",
        "deploy",
        "docs",
        "src",
        "build.rs",
        "deny.toml",
        "ARCHITECTURE.md",
        "README.md",
        "SECURITY.md",
        "tests/fuzz/corpus/configuration",
    ] {
        collect(&root.join(place), &mut files);
    }
    let phrases: Vec<Regex> =
        PHRASES.iter().map(|phrase| Regex::new(&format!("(?i){phrase}")).unwrap()).collect();
    let mut refused = Vec::new();
    let mut read = 0;
    // Source files of tests are not read by users.
    for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        for (line, words) in prose(file, &text) {
            read += 1;
            let ordinary = ORDINARY
                .iter()
                .fold(words.to_lowercase(), |text, allowed| text.replace(allowed, ""));
            if phrases.iter().any(|phrase| phrase.is_match(&ordinary)) {
                let file = file.strip_prefix(root).unwrap().display();
                refused.push(format!("{file}:{line}: {words}"));
            }
        }
    }
    assert!(read > 2_000, "{read}");
    assert!(refused.is_empty(), "say it plainly:\n{}", refused.join("\n"));
}

#[test]
fn markdown_wraps_at_100_columns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for place in ["docs", "ARCHITECTURE.md", "README.md", "SECURITY.md", "CHANGELOG.md"] {
        collect(&root.join(place), &mut files);
    }
    let mut long = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "md")) {
        let text = std::fs::read_to_string(file).unwrap();
        let mut is_code = false;
        for (index, line) in text.lines().enumerate() {
            is_code ^= line.trim_start().starts_with("```");
            // Tables and code cannot wrap, nor a single word.
            let wraps = !is_code && !line.starts_with('|') && line.trim().contains(' ');
            if wraps && line.chars().count() > 100 {
                let file = file.strip_prefix(root).unwrap().display();
                long.push(format!("{file}:{}: {line}", index + 1));
            }
        }
    }
    assert!(long.is_empty(), "longer than 100 columns:\n{}", long.join("\n"));
}

#[test]
fn the_phrases_are_found() {
    let source = "// told of\nfn f() { log(\"what is told to \\\n      nobody\"); }\n#[cfg(test)]\nmod tests {\n\"who hears of it\"";
    assert_eq!(strings(source), [(2, "what is told to nobody".to_owned())]);
    let source = "//! One\n//! told.\n//!\nlet a = 1; // not read\n    // Two.\n";
    assert_eq!(comments(source), [(1, "One told.".to_owned()), (5, "Two.".to_owned())]);
    let comment = "key = 1 # not read\n# It is said to whoever asks.\n";
    assert_eq!(prose(Path::new("a.toml"), comment)[0].0, 2);
}
