//! Hides configured values that look like a secret: a secret pasted into the wrong place must not
//! reach the log or a terminal.

use std::path::Path;

use crate::domain::text::one_line;

/// The text in place of a hidden value.
pub const HIDDEN: &str = "(not shown: it may be a secret)";

/// The maximum number of characters shown of a value.
const SHOWN: usize = 60;
/// Prefixes of common tokens: OpenAI, Slack, GitHub, AWS, Standard Webhooks, JSON Web Tokens.
const PREFIXES: [&str; 9] =
    ["sk-", "xox", "ghp_", "github_pat_", "AKIA", "ASIA", "whsec_", "eyJ", "Bearer "];
/// A word with letters and digits is suspicious from this length.
const MIXED: usize = 20;
/// The same limit for an invalid value: no keyword, time zone or duration has such a word.
const MIXED_IN_A_VALUE: usize = 6;
/// Any longer word is suspicious.
const LONGEST_WORD: usize = 32;

/// An invalid value in quotes: a URL without its path, and a suspicious value hidden.
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

/// The name of an environment variable or a key; hidden if it looks like a secret.
pub fn name(name: &str) -> &str {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if plain && !is_suspicious(name, MIXED) { name } else { HIDDEN }
}

/// A path; hidden if one of its parts looks like a secret.
pub fn path(path: &Path) -> String {
    let mut parts = path.components().map(|part| part.as_os_str().to_string_lossy());
    match parts.any(|part| is_suspicious(&part, MIXED)) || path.to_string_lossy().contains("://") {
        true => HIDDEN.to_owned(),
        false => path.display().to_string(),
    }
}

pub fn is_like_a_secret(text: &str) -> bool {
    is_suspicious(text, MIXED)
}

/// `mixed` is the length from which a word with letters and digits is suspicious.
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

/// Whether it is a duration such as `90days` or `1h30m`.
fn is_duration(word: &str) -> bool {
    word.len() <= 12 && humantime::parse_duration(word).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_unless_they_look_like_a_secret() {
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
