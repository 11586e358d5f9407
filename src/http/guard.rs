//! Who may ask, and from where.
//!
//! Guarantees: a token is compared in constant time, and is in no answer; a browser holds a signed session and not
//! the token itself; nothing is changed by a request that another site made a browser send, nor by one without a
//! token; and a page of another site that has its name point to this machine (DNS rebinding) reads nothing but how healthy
//! the service is. A wrong token costs a moment, so that nobody tries many.

use anyhow::anyhow;
use aws_lc_rs::{hmac, rand};
use axum::{
    Router,
    extract::{Form, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::{fmt::Write, time::Duration};
use url::{Host, Url};

use super::{Configured, Shared, problem::Problem};
use crate::clock;

/// How long a browser stays signed in.
const SESSION: TimeDelta = TimeDelta::days(7);
/// How long the answer to a wrong token is put off.
const WRONG: Duration = Duration::from_millis(300);
const COOKIE: &str = "certvigil_session";

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// No token is configured: everybody may read, and nobody may write.
    Anybody,
    /// Whoever knows the token that may only read.
    Reader,
    /// Whoever knows the token.
    Trusted,
}

/// The configured tokens with their callers. The calendar's token is derived from the first one.
fn tokens(configured: &Configured) -> impl Iterator<Item = (&SecretString, Caller)> {
    let token = configured.token.iter().map(|token| (token, Caller::Trusted));
    token.chain(configured.read_token.iter().map(|token| (token, Caller::Reader)))
}

/// Compares secrets without saying by its time how much of them was right.
pub struct Key(hmac::Key);

impl Key {
    /// One that nobody knows, for as long as the process lives.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn random() -> anyhow::Result<Key> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
        Ok(Key(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn is_same(&self, given: &str, secret: &str) -> bool {
        let expected = hmac::sign(&self.0, secret.as_bytes());
        hmac::verify(&self.0, given.as_bytes(), expected.as_ref()).is_ok()
    }
}

/// What the token vouches for, in hexadecimal digits. Another token makes another one.
fn signed(token: &SecretString, what: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.expose_secret().as_bytes());
    let mut text = String::new();
    for byte in hmac::sign(&key, what.as_bytes()).as_ref() {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The calendar's token, which stands in its address; empty without a configured token.
pub fn feed(configured: &Configured) -> String {
    tokens(configured).next().map(|(token, _)| feed_token(token)).unwrap_or_default()
}

/// A token that opens the calendar alone.
fn feed_token(token: &SecretString) -> String {
    let mut text = signed(token, "certvigil calendar");
    text.truncate(32);
    text
}

fn session(token: &SecretString, until: DateTime<Utc>) -> String {
    let until = until.timestamp();
    format!("{until}.{}", signed(token, &format!("certvigil session until {until}")))
}

fn is_session(key: &Key, given: &str, token: &SecretString, now: DateTime<Utc>) -> bool {
    let until = given.split_once('.').and_then(|(until, _)| until.parse().ok());
    let Some(until) = until.and_then(|seconds| DateTime::from_timestamp(seconds, 0)) else {
        return false;
    };
    key.is_same(given, &session(token, until)) && until > now
}

/// Lets nobody pass who may not ask.
pub async fn check(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let configured = shared.service.configured.borrow().clone();
    let writes = !request.method().is_safe();
    let mut tokens = tokens(&configured).peekable();
    let is_open = tokens.peek().is_none();
    let known = tokens.find(|(token, _)| knows(&shared.key, token, &request));
    let caller = match known {
        Some((_, Caller::Reader)) if writes => {
            let why = "this token may only read: to write takes http.token";
            return Problem::new(StatusCode::FORBIDDEN, why).into_response();
        }
        Some((_, caller)) => caller,
        None if is_open && writes => {
            let why = "to write takes a token, and none is configured (http.token)";
            return Problem::new(StatusCode::FORBIDDEN, why).into_response();
        }
        None if is_open && shared.loopback && !is_here(request.headers(), &configured) => {
            let why = "this name is not known here: configure http.public_url, or http.token";
            return Problem::new(StatusCode::MISDIRECTED_REQUEST, why).into_response();
        }
        None if is_open => Caller::Anybody,
        None => {
            if request.headers().contains_key(header::AUTHORIZATION) {
                tokio::time::sleep(WRONG).await;
            }
            return refused(&request);
        }
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn knows(key: &Key, token: &SecretString, request: &Request) -> bool {
    let headers = request.headers();
    // RFC 6750, section 2.1; the name of the scheme is taken in any case (RFC 9110, section 11.1). What a proxy asks
    // for itself, and hands on, is of another scheme.
    let given = headers.get(header::AUTHORIZATION).and_then(|given| given.to_str().ok());
    let bearer = given.and_then(|text| text.split_once(' '));
    if let Some((_, given)) = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
        return key.is_same(given.trim(), token.expose_secret());
    }
    let now = clock::now();
    if cookies(headers).any(|cookie| is_session(key, cookie, token, now)) {
        return true;
    }
    request.uri().path() == "/calendar.ics"
        && asked_feed(request.uri()).is_some_and(|given| key.is_same(&given, &feed_token(token)))
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| name.trim() == COOKIE).map(|(_, value)| value.trim())
}

fn asked_feed(uri: &Uri) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.find(|(name, _)| name == "token").map(|(_, value)| value.into_owned())
}

fn refused(request: &Request) -> Response {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let path = request.uri().path();
    let is_page =
        !path.starts_with("/api/") && accept.is_some_and(|accept| accept.contains("text/html"));
    if is_page && request.method().is_safe() {
        let next = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let query: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
        return Redirect::to(&format!("/login?{query}")).into_response();
    }
    let why = "this takes a token: Authorization: Bearer … with that of http.token";
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, why).into_response();
    let challenge = HeaderValue::from_static("Bearer realm=\"certvigil\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// Whether a request was sent to this machine by an address or a name that is its own.
fn is_here(headers: &HeaderMap, configured: &Configured) -> bool {
    let Some(asked) = headers.get(header::HOST).and_then(|value| value.to_str().ok()) else {
        return true;
    };
    let Ok(asked) = Url::parse(&format!("http://{asked}/")) else { return false };
    let public = configured.public_url.as_ref().and_then(Url::host);
    match asked.host() {
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
        Some(Host::Domain(name)) => {
            name == "localhost" || name.ends_with(".localhost") || public == asked.host()
        }
        None => false,
    }
}

/// Refuses what another site made a browser send (OWASP, Cross-Site Request Forgery Prevention).
pub async fn same_site(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let configured = shared.service.configured.borrow().clone();
    if !request.method().is_safe() && is_cross_site(request.headers(), &configured) {
        let why = "another site has sent this";
        return Problem::new(StatusCode::FORBIDDEN, why).into_response();
    }
    next.run(request).await
}

fn is_cross_site(headers: &HeaderMap, configured: &Configured) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // Fetch Metadata, section 2.2: `none` is what a person has begun.
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let Some(origin) = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok()) else {
        return true;
    };
    let public = configured.public_url.as_ref().is_some_and(|url| url.origin() == origin.origin());
    let asked =
        text("host").and_then(|host| Url::parse(&format!("{}://{host}/", origin.scheme())).ok());
    !public && asked.is_none_or(|asked| asked.origin() != origin.origin())
}

#[derive(Deserialize)]
struct Destination {
    next: Option<String>,
}

#[derive(Deserialize)]
struct SignIn {
    token: String,
    next: Option<String>,
}

/// Signing in and out.
pub fn login() -> Router<Shared> {
    Router::new()
        .route("/login", get(form).post(sign_in))
        .route("/logout", post(sign_out))
        .method_not_allowed_fallback(super::problem::method_not_allowed)
}

async fn form(State(shared): State<Shared>, Query(query): Query<Destination>) -> Response {
    let next = local(query.next.as_deref());
    if tokens(&shared.service.configured.borrow()).next().is_none() {
        return Redirect::to(next).into_response();
    }
    shared.pages.login(StatusCode::OK, next, false)
}

async fn sign_in(State(shared): State<Shared>, Form(form): Form<SignIn>) -> Response {
    let configured = shared.service.configured.borrow().clone();
    let next = local(form.next.as_deref());
    let mut tokens = tokens(&configured).peekable();
    if tokens.peek().is_none() {
        return Redirect::to(next).into_response();
    }
    let given = form.token.trim();
    let known = tokens.find(|(token, _)| shared.key.is_same(given, token.expose_secret()));
    let Some((token, _)) = known else {
        tracing::warn!("login failed: wrong token");
        tokio::time::sleep(WRONG).await;
        return shared.pages.login(StatusCode::UNAUTHORIZED, next, true);
    };
    let value = session(token, clock::now() + SESSION);
    signed_in(&configured, &value, SESSION, next)
}

async fn sign_out(State(shared): State<Shared>) -> Response {
    let configured = shared.service.configured.borrow().clone();
    signed_in(&configured, "", TimeDelta::zero(), "/login")
}

fn signed_in(configured: &Configured, value: &str, lasts: TimeDelta, next: &str) -> Response {
    // RFC 6265, section 4.1.2. Lax: who follows a link from a mail is signed in.
    let secure = match &configured.public_url {
        Some(url) if url.scheme() == "https" => "; Secure",
        _ => "",
    };
    let seconds = lasts.num_seconds();
    let cookie =
        format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}");
    let mut response = Redirect::to(next).into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// A path of ours, and nothing that leads elsewhere.
pub fn local(next: Option<&str>) -> &str {
    let ours = |next: &&str| {
        let path = next.split(['?', '#']).next().unwrap_or_default();
        next.starts_with('/')
            && !next.starts_with("//")
            && !next.contains(['\\', '\r', '\n', '\t'])
            && path != "/login"
            && next.is_ascii()
    };
    next.filter(ours).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> SecretString {
        SecretString::from("0123456789abcdef")
    }

    #[test]
    fn a_session_holds_for_its_token_and_its_time_and_cannot_be_made() {
        let (key, token, now) =
            (Key::random().unwrap(), token(), DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let until = now + SESSION;
        let value = session(&token, until);
        assert!(is_session(&key, &value, &token, now));
        let other = SecretString::from("0123456789abcdeX");
        assert!(!is_session(&key, &value, &other, now), "another token");
        assert!(!is_session(&key, &value, &token, until), "it has ended");
        let (_, signature) = value.split_once('.').unwrap();
        let longer = format!("{}.{signature}", until.timestamp() + 1);
        assert!(!is_session(&key, &longer, &token, now), "a later end");
        for nothing in ["", ".", "1", "a.b", "99999999999999999999.x"] {
            assert!(!is_session(&key, nothing, &token, now), "{nothing}");
        }
        assert_ne!(feed_token(&token), signature[..32]);
    }

    #[test]
    fn after_signing_in_one_stays_here() {
        for (next, expected) in [
            (Some("/certificates?q=a"), "/certificates?q=a"),
            (Some("//evil.example/"), "/"),
            (Some("https://evil.example/"), "/"),
            (Some("/\\evil.example"), "/"),
            (Some("/login?next=/"), "/"),
            (Some(""), "/"),
            (None, "/"),
        ] {
            assert_eq!(local(next), expected, "{next:?}");
        }
    }

    fn configured(public_url: Option<&str>) -> Configured {
        Configured {
            timezone: chrono_tz::UTC,
            cron: crate::schedule::Cron::parse("0 * * * *", chrono_tz::UTC).unwrap(),
            late: TimeDelta::zero(),
            organizations: vec![],
            listeners: vec![],
            give_up_after: TimeDelta::days(1),
            retry_max: TimeDelta::days(1),
            token: None,
            read_token: None,
            public_url: public_url.map(|url| Url::parse(url).unwrap()),
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    #[test]
    fn what_another_site_sends_is_refused() {
        let configured = configured(Some("https://certvigil.acme.example"));
        let host = ("host", "127.0.0.1:9764");
        for (pairs, cross, why) in [
            (vec![host], false, "no browser"),
            (vec![host, ("sec-fetch-site", "same-origin")], false, "its own page"),
            (vec![host, ("sec-fetch-site", "cross-site")], true, "another site"),
            (vec![host, ("sec-fetch-site", "same-site")], true, "a neighbour"),
            (
                vec![host, ("origin", "http://127.0.0.1:9764")],
                false,
                "its own page, an older browser",
            ),
            (vec![host, ("origin", "http://127.0.0.1:80")], true, "another port"),
            (vec![host, ("origin", "https://certvigil.acme.example")], false, "behind a proxy"),
            (
                vec![host, ("origin", "https://evil.example")],
                true,
                "another site, an older browser",
            ),
            (vec![host, ("origin", "null")], true, "a frame without an origin"),
        ] {
            assert_eq!(is_cross_site(&headers(&pairs), &configured), cross, "{why}");
        }
    }

    #[test]
    fn without_a_token_only_names_of_its_own_are_answered() {
        let configured = configured(Some("https://certvigil.acme.example"));
        for (host, here) in [
            ("127.0.0.1:9764", true),
            ("[::1]:9764", true),
            ("localhost", true),
            ("certvigil.acme.example", true),
            ("evil.example:9764", false),
            ("localhost.evil.example", false),
            ("a b", false),
        ] {
            assert_eq!(is_here(&headers(&[("host", host)]), &configured), here, "{host}");
        }
    }
}
