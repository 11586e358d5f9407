//! `[messages]`: where they lead to.

use url::Url;

use super::{check::Checker, fault::KeyPath, raw};
use crate::notify::style::Links;

pub fn check(checker: &mut Checker<'_>, raw: &raw::Raw) -> Links {
    // What is wrong with it is said where it is checked.
    let page = raw.http.public_url.as_ref().and_then(|text| Url::parse(text).ok());
    let own = raw.messages.runbook_url.as_ref().and_then(|text| match Url::parse(text) {
        Ok(url) if leads_somewhere(&url) => Some(url),
        Ok(_) | Err(_) => {
            let expected = "an http or https URL without user and fragment";
            checker.fault(&KeyPath::of("messages.runbook_url"), format!("“{text}”"), expected);
            None
        }
    });
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
