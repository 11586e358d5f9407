//! `[http]`: listener, tokens and external URL.

use std::net::SocketAddr;
use url::Url;

use super::{
    check::Checker,
    problem::{KeyPath, mismatch},
    raw,
    value::{Text, unexpected},
};
use crate::{domain::text::one_line, http::Settings, redact::quoted};

/// The shortest token, in bytes: a shorter one can be guessed.
const SHORT: usize = 16;
/// The longest token, in bytes: it must fit into a header.
const LONG: usize = 1_024;
/// The longest URL, in bytes: every message contains it.
pub const LONGEST_URL: usize = 200;

/// The address of the listener, if any.
#[derive(Clone, Copy, Debug)]
pub struct Listen(pub Option<SocketAddr>);

impl Text for Listen {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = "an address with a port such as \"127.0.0.1:9764\", or \"off\"";
        match text {
            "off" => Ok(Listen(None)),
            text => match text.parse() {
                Ok(address) => Ok(Listen(Some(address))),
                Err(_) => unexpected(text, expected),
            },
        }
    }
}

/// A scheme, host and port.
#[derive(Clone, Debug)]
pub struct Origin(pub Url);

impl Text for Origin {
    fn parse(text: &str) -> Result<Self, String> {
        let expected =
            "an http or https URL of at most 200 bytes, without path, user, query and fragment";
        link(text, |url| url.path() == "/" && url.query().is_none(), expected).map(Origin)
    }
    fn schema() -> serde_json::Value {
        url_schema()
    }
}

pub fn url_schema() -> serde_json::Value {
    serde_json::json!({ "type": "string", "pattern": "^https?://" })
}

/// Parses a URL that messages may contain.
///
/// # Errors
/// The problem.
pub fn link(text: &str, fits: impl Fn(&Url) -> bool, expected: &str) -> Result<Url, String> {
    let plain = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    };
    match Url::parse(text) {
        Ok(url) if plain(&url) && fits(&url) && text.len() <= LONGEST_URL => Ok(url),
        Ok(_) | Err(_) => Err(mismatch(quoted(&one_line(text, LONGEST_URL)), expected)),
    }
}

pub fn check(checker: &mut Checker<'_>, raw: &raw::Http) -> Settings {
    let path = KeyPath::of("http");
    let Listen(listen) = *raw.listen;
    let needed = checker.needs.http;
    let token = checker.secret(&path.key("token"), raw.token.as_ref(), needed, fits_header);
    let read_token = raw.read_token.as_ref();
    let read_token = checker.secret(&path.key("read_token"), read_token, needed, fits_header);
    if let Some(address) = listen.filter(|address| !address.ip().is_loopback())
        && token.is_none()
        && read_token.is_none()
    {
        checker.warnings.push(format!(
            "http.listen: {address} is reachable from other machines without encryption and \
             without http.token: anyone on the network can read everything except secrets"
        ));
    }
    let public_url = raw.public_url.as_ref().map(|url| url.0.clone());
    Settings { listen, token, read_token, public_url }
}

/// Checks a bearer token (RFC 6750, section 2.1) that can also be typed into a form.
fn fits_header(token: &str) -> Result<(), String> {
    if (SHORT..=LONG).contains(&token.len()) && token.chars().all(|c| c.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(format!(
            "a token of {SHORT} to {LONG} visible ASCII characters without spaces (run openssl \
             rand -hex 32)"
        ))
    }
}
