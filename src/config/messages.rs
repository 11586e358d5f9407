//! `[messages]`: the links in messages.

use url::Url;

use super::{
    check::Checker,
    http::{Listen, link, url_schema},
    raw,
    value::Text,
};
use crate::message::style::Links;

/// The URL of a runbook; an event is added as its fragment.
#[derive(Clone, Debug)]
pub struct Link(Url);

impl Text for Link {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = "an http or https URL of at most 200 bytes, without user and fragment";
        link(text, |_| true, expected).map(Link)
    }
    fn schema() -> serde_json::Value {
        url_schema()
    }
}

pub fn check(checker: &mut Checker<'_>, raw: &raw::Raw) -> Links {
    let page = raw.http.public_url.as_ref().map(|url| url.0.clone());
    if page.is_some() && matches!(*raw.http.listen, Listen(None)) {
        checker.warnings.push(
            "http.public_url: messages link to this URL, but http.listen is \"off\": another \
             instance must serve this URL"
                .to_owned(),
        );
    }
    let own = raw.messages.runbook_url.as_ref().map(|url| url.0.clone());
    let built_in = page.as_ref().and_then(|page| page.join("/runbook").ok());
    Links { runbook: own.or(built_in), page, acknowledge: raw.messages.acknowledge_links }
}
