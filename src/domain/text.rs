//! Makes untrusted text safe to show.
//!
//! Anyone with upload permission chooses the names of certificates and projects. Names are cleaned
//! once, on input, so that no later reader (a header, a log line, a terminal, a table) has to.
//! Escaping for a format (HTML, JSON) is left to the library of that format.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use serde::{Deserialize, Serialize};
use std::fmt;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// The maximum length of a name, in characters. The API states no limit.
const MAX_NAME: usize = 120;

/// The maximum length of the reason for a silence, in characters.
pub const MAX_REASON: usize = 500;

/// A display name: one line, no control or invisible formatting characters, at most 120 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(Box<str>);

impl Name {
    /// Cleans `raw`; `None` if nothing visible is left.
    pub fn clean(raw: &str) -> Option<Name> {
        let text = one_line(raw, MAX_NAME);
        (!text.is_empty()).then(|| Name(text.into_boxed_str()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it contains a text, given in lower case, in any case.
    pub fn has(&self, text: &str) -> bool {
        self.0.to_lowercase().contains(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One line of visible text: white space is collapsed, control and formatting characters (line
/// breaks, bidirectional overrides, zero-width characters) are removed, and the text is cut to
/// `max` characters with an ellipsis.
pub fn one_line(raw: &str, max: usize) -> String {
    if is_plain_line(raw) && raw.len() <= max {
        return raw.to_owned();
    }
    fold(raw, max)
}

fn fold(raw: &str, max: usize) -> String {
    let mut out = String::new();
    let mut count = 0;
    let mut space = false;
    for c in raw.chars() {
        if c.is_whitespace() {
            space = count > 0;
            continue;
        }
        // The group "other": Cc control, Cf format, Co private use, Cn unassigned.
        if c.general_category_group() == GeneralCategoryGroup::Other {
            continue;
        }
        let needed = 1 + usize::from(space);
        if count + needed > max {
            out.pop();
            out.push('…');
            break;
        }
        if std::mem::take(&mut space) {
            out.push(' ');
        }
        out.push(c);
        count += needed;
    }
    out
}

/// Whether a text already is one line of visible ASCII, as nearly all are.
fn is_plain_line(text: &str) -> bool {
    let bytes = text.as_bytes();
    let space = |at: Option<&u8>| at == Some(&b' ');
    bytes.iter().all(|byte| (b' '..=b'~').contains(byte))
        && !space(bytes.first())
        && !space(bytes.last())
        && !bytes.windows(2).any(|two| two == b"  ")
}

/// The replacement of a secret.
pub const HIDDEN: &str = "[hidden]";

/// The minimum length of a secret for hiding its encoded forms: shorter ones occur in many texts by
/// chance.
const SHORTEST_ENCODED: usize = 6;

/// Hides a secret in an untrusted text, in any case, and in base64, hexadecimal and
/// percent-encoding.
pub fn hide_secret(text: &str, secret: &str) -> String {
    let secret = secret.trim();
    if secret.is_empty() {
        return text.to_owned();
    }
    let mut forms = vec![secret.to_owned()];
    if secret.len() >= SHORTEST_ENCODED {
        forms.push(STANDARD_NO_PAD.encode(secret));
        forms.push(URL_SAFE_NO_PAD.encode(secret));
        forms.push(url::form_urlencoded::byte_serialize(secret.as_bytes()).collect());
        forms.push(secret.bytes().map(|byte| format!("{byte:02x}")).collect());
    }
    // Longest first, because a form may contain another.
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    forms.iter().fold(text.to_owned(), |text, form| replace_ignoring_case(&text, form))
}

fn replace_ignoring_case(text: &str, form: &str) -> String {
    // Only ASCII letters change, so that byte positions stay the same.
    let (lower, form) = (text.to_ascii_lowercase(), form.to_ascii_lowercase());
    let mut out = String::with_capacity(text.len());
    let mut end = 0;
    for (at, found) in lower.match_indices(&form) {
        out.push_str(&text[end..at]);
        out.push_str(HIDDEN);
        end = at + found.len();
    }
    out.push_str(&text[end..]);
    out
}

/// Keeps mail and chat programs from turning text into links: inserts an invisible word joiner
/// (U+2060) before each `://`, and before each dot and `@` inside a word.
pub fn unlinked(text: &str) -> String {
    const JOINER: char = '\u{2060}';
    let mut out = String::with_capacity(text.len());
    let mut before = None;
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        let after = chars.clone().next().map(|(_, after)| after);
        let in_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let breaks = match c {
            // Numbers (`1.5`) do not become links.
            '.' => {
                let word = |c: char| !c.is_whitespace() && !c.is_ascii_punctuation();
                before.is_some_and(word) && after.is_some_and(|c| word(c) && !c.is_ascii_digit())
            }
            '@' => before.is_some() && in_word(after),
            ':' => text[index..].starts_with("://"),
            _ => false,
        };
        if breaks {
            out.push(JOINER);
        }
        out.push(c);
        before = Some(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_in_every_encoding() {
        let secret = "Sk-Admin/Key+1";
        let padded = base64::engine::general_purpose::STANDARD.encode(secret);
        let hex: String = secret.bytes().map(|byte| format!("{byte:02X}")).collect();
        let forms = [
            secret.to_owned(),
            secret.to_uppercase(),
            padded.trim_end_matches('=').to_owned(),
            "Sk-Admin%2FKey%2B1".to_owned(),
            "sk-admin%2fkey%2b1".to_owned(),
            hex,
        ];
        for form in forms {
            assert_eq!(hide_secret(&format!("ä {form} ö"), secret), "ä [hidden] ö", "{form}");
        }
        assert_eq!(hide_secret("a text", ""), "a text");
        assert_eq!(hide_secret("abc YWJj", "abc"), "[hidden] YWJj");
    }
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_fast_path_of_one_line_equals_the_slow_path(raw in "[ -~\u{7f}\u{a0}é]{0,12}", max in 1..14usize) {
            prop_assert_eq!(one_line(&raw, max), fold(&raw, max));
        }
    }

    #[test]
    fn untrusted_text_becomes_one_visible_line() {
        let cases = [
            ("prod-ca", "prod-ca", "plain text stays"),
            ("a\r\nBcc: eve@example.org", "a Bcc: eve@example.org", "no second header line"),
            ("\u{202e}gpj.exe\u{2066}", "gpj.exe", "no bidirectional override"),
            ("a\u{0}b\u{1b}[31mc", "ab[31mc", "no control character reaches a terminal"),
            ("  many \t\n spaces  ", "many spaces", "white space is folded"),
            ("z\u{200b}w\u{feff}", "zw", "nothing invisible"),
            ("Zürich 東京 🔑", "Zürich 東京 🔑", "other scripts stay"),
        ];
        for (raw, expected, reason) in cases {
            assert_eq!(one_line(raw, 120), expected, "{reason}");
        }
    }

    #[test]
    fn text_cannot_become_a_link_and_looks_the_same() {
        let cases = [
            ("prod-ca", "prod-ca"),
            ("prod.acme.com", "prod\u{2060}.acme\u{2060}.com"),
            ("http://evil.example/x", "http\u{2060}://evil\u{2060}.example/x"),
            ("www.evil.example", "www\u{2060}.evil\u{2060}.example"),
            ("eve@evil.example", "eve\u{2060}@evil\u{2060}.example"),
            ("on 2027-02-01 at 14:03. It is 1.5 days", "on 2027-02-01 at 14:03. It is 1.5 days"),
            ("Wait. Then go.", "Wait. Then go."),
            ("東京.jp", "東京\u{2060}.jp"),
            ("💩.la e\u{301}.com", "💩\u{2060}.la e\u{301}\u{2060}.com"),
        ];
        for (text, expected) in cases {
            assert_eq!(unlinked(text), expected);
            // A search for the copied name still finds it.
            assert_eq!(one_line(&unlinked(text), 200), text);
        }
    }

    #[test]
    fn a_long_name_is_cut_with_an_ellipsis() {
        let name = Name::clean(&"x".repeat(10_000)).unwrap();
        assert_eq!(name.as_str().chars().count(), MAX_NAME);
        assert!(name.as_str().ends_with('…'));
    }

    #[test]
    fn a_name_without_visible_characters_is_none() {
        assert_eq!(Name::clean(" \u{200b}\r\n"), None);
    }
}
