//! `[messages]`: the links in messages.

use crate::redact::quoted;
use url::Url;

use super::{check::Checker, fault::KeyPath, raw};
use crate::notify::style::Links;

/// The longest URL, in bytes: every message contains it.
const MAX: usize = 200;

pub fn check(checker: &mut Checker<'_>, raw: &raw::Raw) -> Links {
    // Its own check reports an invalid URL.
    let page = raw.http.public_url.as_ref().and_then(|text| Url::parse(text).ok());
    let own = raw.messages.runbook_url.as_ref().and_then(|text| match Url::parse(text) {
        Ok(url) if leads_somewhere(&url) && text.len() <= MAX => Some(url),
        Ok(_) | Err(_) => {
            let expected = "an http or https URL of at most 200 bytes, without user and fragment";
            let found = crate::domain::text::one_line(text, MAX);
            checker.fault(&KeyPath::of("messages.runbook_url"), quoted(&found), expected);
            None
        }
    });
    if page.is_some() && raw.http.listen.as_deref() == Some("off") {
        checker.warnings.push(
            "http.public_url: messages link to it, but http.listen is \"off\": another instance \
             must answer there"
                .to_owned(),
        );
    }
    let built_in = page.as_ref().and_then(|page| page.join("/runbook").ok());
    Links { runbook: own.or(built_in), page }
}

fn leads_somewhere(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.host().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none()
}
