//! One reply of a mail server (RFC 5321, section 4.2). The code decides; the text is for people, in
//! any encoding.

use std::fmt;

use crate::domain::text::one_line;

/// The maximum length of a reply's text, in characters.
const MAX_TEXT: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    /// The text of each line.
    pub lines: Vec<String>,
}

/// One line of a reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub code: u16,
    pub is_last: bool,
    pub text: String,
}

impl Line {
    /// Parses `250-text` or `250 text`; the text may be missing. `None` if it is not a reply.
    pub fn parse(raw: &[u8]) -> Option<Line> {
        let line = raw.trim_ascii_end();
        let (digits, rest) = line.split_at_checked(3)?;
        let code: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let is_last = match rest.first() {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return None,
        };
        let text = rest.get(1..).unwrap_or_default();
        (200..600).contains(&code).then(|| Line {
            code,
            is_last,
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }
}

impl Reply {
    /// Whether the command succeeded or continues.
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// Whether the error is permanent.
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// The code and the enhanced status (RFC 3463), without a text that may repeat a secret.
    pub fn status(&self) -> String {
        let first = self.lines.first().map(String::as_str).unwrap_or_default();
        let enhanced = first.split(' ').next().filter(|word| {
            let parts: Vec<&str> = word.split('.').collect();
            let is_number = |part: &&str| {
                (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
            };
            parts.len() == 3 && parts.iter().all(is_number)
        });
        match enhanced {
            Some(enhanced) => format!("{} {enhanced}", self.code),
            None => self.code.to_string(),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{} {}", self.code, self.lines.join(" "));
        f.write_str(one_line(&text, MAX_TEXT).trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_lines_are_parsed_by_their_code() {
        type Expected = Option<(u16, bool, &'static str)>;
        let cases: [(&[u8], Expected); 9] = [
            (b"250 OK\r\n", Some((250, true, "OK"))),
            (b"250-mx\r\n", Some((250, false, "mx"))),
            (b"250\r\n", Some((250, true, ""))),
            (b"250 \r\n", Some((250, true, ""))),
            (b"250 Nachricht \xfcbernommen\r\n", Some((250, true, "Nachricht \u{fffd}bernommen"))),
            (b"2500\r\n", None),
            (b"120 wait\r\n", None),
            (b"ok\r\n", None),
            (b"", None),
        ];
        for (raw, expected) in cases {
            let line = Line::parse(raw).map(|line| (line.code, line.is_last, line.text));
            let expected = expected.map(|(code, last, text)| (code, last, text.to_owned()));
            assert_eq!(line, expected, "{}", String::from_utf8_lossy(raw));
        }
    }

    #[test]
    fn the_status_omits_text_that_may_contain_a_secret() {
        let reply = |text: &str| Reply { code: 535, lines: vec![text.to_owned()] };
        assert_eq!(reply("5.7.8 AUTH PLAIN AGh1bnRlcjI=").status(), "535 5.7.8");
        assert_eq!(reply("AGh1bnRlcjI= is wrong").status(), "535");
        assert_eq!(reply("").status(), "535");
    }
}
