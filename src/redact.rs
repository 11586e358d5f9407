//! Hides configured values that look like a secret. A secret that was pasted into the wrong place must not reach the log
//! or a terminal.

use std::path::Path;

use crate::domain::text::one_line;

/// The text in place of a hidden value.
pub const HIDDEN: &str = "(not shown: it may be a secret)";

/// How many characters of a value are shown.
const SHOWN: usize = 60;
/// How common tokens begin: OpenAI, Slack, GitHub, AWS, Standard Webhooks, JSON Web Tokens.
const PREFIXES: [&str; 9] =
    ["sk-", "xox", "ghp_", "github_pat_", "AKIA", "ASIA", "whsec_", "eyJ", "Bearer "];
/// Letters and digits in one word, as tokens have them, are suspicious from this length on.
const MIXED: usize = 20;
/// In a value that is quoted because it is wrong, they are suspicious earlier: no keyword, zone or duration has them.
const MIXED_IN_A_VALUE: usize = 6;
/// No word of any kind is longer.
const LONGEST_WORD: usize = 32;

/// A wrong value in quotes; a URL without its path, and a suspicious value not at all.
pub fn quoted(value: &str) -> String {
    if let Some((scheme, rest)) = value.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        return match is_suspicious(host, MIXED) || is_suspicious(scheme, MIXED) {
            true => format!("a URL {HIDDEN}"),
            false if host.len() == rest.len() => format!("“{scheme}://{}”", one_line(host, SHOWN)),
            false => format!("“{scheme}://{}…”", one_line(host, SHOWN)),
        };
    }
    match is_suspicious(value, MIXED_IN_A_VALUE) {
        true => format!("a text of {} characters {HIDDEN}", value.chars().count()),
        false => format!("“{}”", one_line(value, SHOWN)),
    }
}

/// The name of an environment variable, or of a key.
pub fn name(name: &str) -> &str {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if plain && !is_suspicious(name, MIXED) { name } else { HIDDEN }
}

/// A path, unless one of its parts looks like a secret.
pub fn path(path: &Path) -> String {
    let mut parts = path.components().map(|part| part.as_os_str().to_string_lossy());
    match parts.any(|part| is_suspicious(&part, MIXED)) || path.to_string_lossy().contains("://") {
        true => HIDDEN.to_owned(),
        false => path.display().to_string(),
    }
}

/// Whether a text looks like a secret.
pub fn is_like_a_secret(text: &str) -> bool {
    is_suspicious(text, MIXED)
}

/// The same, if a word that mixes letters and digits is suspicious from `mixed` characters on.
fn is_suspicious(text: &str, mixed: usize) -> bool {
    let text = text.trim();
    let mut words = text.split(|c: char| !c.is_alphanumeric());
    PREFIXES.iter().any(|prefix| text.starts_with(prefix))
        || words.any(|word| {
            let length = word.chars().count();
            let is_mixed = word.contains(char::is_alphabetic) && word.contains(char::is_numeric);
            length > LONGEST_WORD || (length >= mixed && is_mixed && !is_duration(word))
        })
}

/// `90days`, `1h30m`: numbers with units.
fn is_duration(word: &str) -> bool {
    word.len() <= 12 && humantime::parse_duration(word).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_if_it_may_be_what_belongs_there() {
        for shown in [
            "90days",
            "1h 30m",
            "urgent",
            "Europe/Berlin",
            "*/5 * * * *",
            "prod-*",
            "[::1]:9764",
            "smtp.acme.example",
            "2027-01-12",
            "X-Custom",
            "",
            "Grüße",
        ] {
            assert_eq!(quoted(shown), format!("“{shown}”"));
        }
        for hidden in [
            "hunter2",
            "sk-admin-REALKEY",
            "sk-proj-abc",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "eyJhbGciOi.x.y",
            "Bearer x",
            "0123456789abcdef",
            "correcthorsebatterystaplecorrecthorse",
        ] {
            assert!(!quoted(hidden).contains(hidden), "{}", quoted(hidden));
            assert!(quoted(hidden).contains(HIDDEN));
        }
        assert_eq!(quoted("https://user:pass@host.example/x?y=z"), "“https://host.example…”");
        assert_eq!(quoted("ftp://host.example"), "“ftp://host.example”");
    }

    #[test]
    fn names_and_paths_are_shown_unless_they_look_like_a_secret() {
        assert_eq!(name("OPENAI_ADMIN_KEY"), "OPENAI_ADMIN_KEY");
        assert_eq!(name("prod_eu2"), "prod_eu2");
        for secret in
            ["sk-admin-REALKEY", "https://hooks.example/SECRET", "a b", "AbCdEfGhIj0123456789"]
        {
            assert_eq!(name(secret), HIDDEN);
            assert_eq!(path(Path::new(&format!("/etc/{secret}/x"))) == HIDDEN, secret != "a b");
        }
        assert_eq!(
            path(Path::new("/etc/certvigil/smtp-password2")),
            "/etc/certvigil/smtp-password2"
        );
    }
}
