//! `[http]`: listener, tokens and external URL.

use crate::redact::quoted;
use std::net::SocketAddr;
use url::Url;

use super::{check::Checker, fault::KeyPath, raw};
use crate::http::Settings;

/// The shortest token, in bytes: a shorter one can be guessed.
const SHORT: usize = 16;
/// The longest external URL, in bytes: every message contains it.
const LONGEST_URL: usize = 200;
/// The longest token, in bytes: it must fit into a header.
const LONG: usize = 1_024;

pub fn check(checker: &mut Checker<'_>, raw: &raw::Http) -> Option<Settings> {
    let path = KeyPath::of("http");
    let text = raw.listen.as_deref()?;
    let listen = match listens(text) {
        Ok(listen) => listen,
        Err(expected) => {
            checker.fault(&path.key("listen"), quoted(text), expected);
            return None;
        }
    };
    let needed = checker.needs.http;
    let token = checker.secret(&path.key("token"), raw.token.as_ref(), needed, fits_header);
    let read_token = raw.read_token.as_ref();
    let read_token = checker.secret(&path.key("read_token"), read_token, needed, fits_header);
    let public_url = raw.public_url.as_ref().and_then(|text| match Url::parse(text) {
        Ok(url) if is_origin(&url) && text.len() <= LONGEST_URL => Some(url),
        Ok(_) | Err(_) => {
            let expected =
                "an http or https URL of at most 200 bytes, without path, user, query and fragment";
            let found = crate::domain::text::one_line(text, LONGEST_URL);
            checker.fault(&path.key("public_url"), quoted(&found), expected);
            None
        }
    });
    if let Some(address) = listen.filter(|address| !address.ip().is_loopback())
        && token.is_none()
        && read_token.is_none()
    {
        checker.warnings.push(format!(
            "http.listen: {address} is reachable from other machines without encryption and \
             without http.token: anyone on the network can read everything except secrets"
        ));
    }
    Some(Settings { listen, token, read_token, public_url })
}

/// The address of the listener, if any.
///
/// # Errors
/// The expected value.
pub fn listens(text: &str) -> Result<Option<SocketAddr>, &'static str> {
    match text {
        "off" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| "an address with a port such as \"127.0.0.1:9764\", or \"off\""),
    }
}

/// A bearer token (RFC 6750, section 2.1) that a person can type into a form, too.
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

fn is_origin(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.host().is_some()
        && url.path() == "/"
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}
