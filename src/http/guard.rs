//! Access control.
//!
//! Guarantees: tokens are compared in constant time and appear in no response. A browser holds a
//! session instead of the token. A request from another site or without a token changes nothing,
//! except that of a signed link.
//! Without configured tokens, a site whose name points to this machine (DNS rebinding) can read
//! only the health status. The response to a wrong token is delayed, and its address is logged;
//! after too many, that address is blocked for a while. Log lines of writes contain the caller and
//! address.

use axum::{
    Extension, Router,
    extract::{Form, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use chrono::TimeDelta;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::time::{Duration, Instant};
use tracing::Instrument;
use url::{Host, Url};

use super::{
    Configured, Shared,
    attempts::{Origin, Peer},
    changes,
    problem::Problem,
    session::{self, Key, Session},
};
use crate::store;

/// The delay of the response to a wrong token.
const WRONG: Duration = Duration::from_millis(300);
const COOKIE: &str = "certvigil_session";

/// The caller of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// No token is configured: anyone may read, and nobody may write.
    Anybody,
    /// Has the read-only token.
    Reader,
    /// Has the token.
    Trusted,
}

impl Caller {
    /// The configuration key of the caller's token.
    fn token(self) -> &'static str {
        match self {
            Caller::Anybody => "none",
            Caller::Reader => "http.read_token",
            Caller::Trusted => "http.token",
        }
    }
}

/// The configured tokens with their callers. The first one protects the calendar's URL.
fn tokens(configured: &Configured) -> impl Iterator<Item = (&SecretString, Caller)> {
    let token = configured.token.iter().map(|token| (token, Caller::Trusted));
    token.chain(configured.read_token.iter().map(|token| (token, Caller::Reader)))
}

/// Whether reading needs no token.
fn is_open(configured: &Configured) -> bool {
    tokens(configured).next().is_none()
}

/// The secret in the calendar's URL; empty without a configured token.
pub fn feed(key: &Key, configured: &Configured) -> String {
    tokens(configured).next().map(|(token, _)| key.feed(token)).unwrap_or_default()
}

/// Rejects requests without access.
pub async fn check(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let configured = shared.service.configured.borrow().clone();
    let (mut parts, body) = request.into_parts();
    let writes = !parts.method.is_safe();
    let caller = match identify(&shared, &configured, &parts).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let caller = match caller {
        Some(Caller::Reader) if writes => {
            let why = "this token is read-only: writing needs http.token";
            return Problem::new(StatusCode::FORBIDDEN, why).into_response();
        }
        Some(caller) => caller,
        None if !is_open(&configured) => return refused(&parts),
        None if writes => {
            let why = "writing needs a token: configure http.token";
            return Problem::new(StatusCode::FORBIDDEN, why).into_response();
        }
        None if !is_here(&parts.headers, &configured) => {
            let why = "unknown host name: configure http.public_url or http.token";
            return Problem::new(StatusCode::MISDIRECTED_REQUEST, why).into_response();
        }
        None => Caller::Anybody,
    };
    parts.extensions.insert(caller);
    let span = match writes {
        // Log lines of the request carry the caller and address.
        true => tracing::info_span!("http", caller = caller.token(), address = %origin(&parts)),
        false => tracing::Span::none(),
    };
    next.run(Request::from_parts(parts, body)).instrument(span).await
}

/// Whether the caller may see health details.
pub async fn may_read(shared: &Shared, parts: &Parts) -> bool {
    let configured = shared.service.configured.borrow().clone();
    match is_open(&configured) {
        true => is_here(&parts.headers, &configured),
        false => matches!(identify(shared, &configured, parts).await, Ok(Some(_))),
    }
}

fn origin(parts: &Parts) -> Origin {
    // Without a peer, the request did not arrive over a connection.
    let peer = parts.extensions.get().copied().unwrap_or(Peer([0, 0, 0, 0].into()));
    Origin::new(peer, &parts.headers)
}

/// The caller of a request, by its token, session or calendar URL.
///
/// # Errors
/// If the address is blocked after too many wrong tokens, or the database fails.
async fn identify(
    shared: &Shared,
    configured: &Configured,
    parts: &Parts,
) -> Result<Option<Caller>, Problem> {
    if is_open(configured) {
        return Ok(None);
    }
    // RFC 6750, section 2.1; schemes are case-insensitive (RFC 9110, section 11.1). A header with
    // another scheme may be intended for a proxy.
    let given = parts.headers.get(header::AUTHORIZATION).and_then(|given| given.to_str().ok());
    let bearer = given.and_then(|text| text.split_once(' '));
    if let Some((_, given)) = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
        let known = whose(shared, configured, given.trim(), origin(parts)).await?;
        return Ok(known.map(|(_, caller)| caller));
    }
    if let Some((_, caller)) = session(shared, configured, &parts.headers).await? {
        return Ok(Some(caller));
    }
    let feed = asked_feed(&parts.uri).filter(|_| parts.uri.path() == "/calendar.ics");
    let mut known = tokens(configured);
    Ok(feed
        .and_then(|given| known.find(|(token, _)| shared.key.fits(&given, &shared.key.feed(token))))
        .map(|(_, caller)| caller))
}

/// The matching token with its caller. A wrong token is counted, logged and answered with a delay.
///
/// # Errors
/// If the address is blocked; the token is not compared then.
async fn whose<'a>(
    shared: &Shared,
    configured: &'a Configured,
    given: &str,
    origin: Origin,
) -> Result<Option<(&'a SecretString, Caller)>, Problem> {
    if let Some(wait) = shared.attempts.blocked(origin, Instant::now()) {
        return Err(Problem::too_many(wait, format!("too many wrong tokens from {origin}")));
    }
    let known = tokens(configured).find(|(token, _)| shared.key.fits(given, token.expose_secret()));
    if known.is_none() {
        shared.attempts.failed(origin, Instant::now());
        match shared.attempts.blocked(origin, Instant::now()) {
            None => tracing::warn!(address = %origin, "login failed: wrong token"),
            Some(_) => tracing::warn!(
                address = %origin,
                "login failed: wrong token (after too many failures, this address is blocked for a \
                 while)"
            ),
        }
        tokio::time::sleep(WRONG).await;
    }
    Ok(known)
}

/// The session of a signed-in browser, with the caller of its token.
///
/// # Errors
/// If the database fails, so that a revocation would be unknown.
async fn session(
    shared: &Shared,
    configured: &Configured,
    headers: &HeaderMap,
) -> Result<Option<(Session, Caller)>, Problem> {
    let now = shared.service.clock.now();
    for cookie in cookies(headers) {
        for (token, caller) in tokens(configured) {
            if let Some(session) = shared.key.session(token, cookie, now)
                && !shared.reading.has_session_ended(session.id).await?
            {
                return Ok(Some((session, caller)));
            }
        }
    }
    Ok(None)
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

fn refused(parts: &Parts) -> Response {
    let accept = parts.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let path = parts.uri.path();
    let is_page =
        !path.starts_with("/api/") && accept.is_some_and(|accept| accept.contains("text/html"));
    if is_page && parts.method.is_safe() {
        let next = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let query: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
        return Redirect::to(&format!("/login?{query}")).into_response();
    }
    let why = "a token is required: Authorization: Bearer … with the value of http.token";
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, why).into_response();
    let challenge = HeaderValue::from_static("Bearer realm=\"certvigil\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// Domains outside the public DNS, which no site on the internet can have (RFC 6761, RFC 6762, RFC
/// 8375; `internal` is reserved by ICANN; Kubernetes uses `svc` for its services).
const PRIVATE: [&str; 5] = [".localhost", ".local", ".home.arpa", ".internal", ".svc"];

/// Whether the `Host` is an IP address, or a name that no other site can point to this machine.
fn is_here(headers: &HeaderMap, configured: &Configured) -> bool {
    let Some(asked) = headers.get(header::HOST).and_then(|value| value.to_str().ok()) else {
        return true;
    };
    let Ok(asked) = Url::parse(&format!("http://{asked}/")) else { return false };
    let public = configured.public_url.as_ref().and_then(Url::host);
    match asked.host() {
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
        Some(Host::Domain(name)) => {
            !name.contains('.')
                || PRIVATE.iter().any(|end| name.ends_with(end))
                || public == asked.host()
        }
        None => false,
    }
}

/// Rejects writes that another site made a browser send (OWASP, Cross-Site Request Forgery
/// Prevention).
pub async fn same_site(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let configured = shared.service.configured.borrow().clone();
    if !request.method().is_safe() && is_cross_site(request.headers(), &configured) {
        let why = "request from another site rejected";
        return Problem::new(StatusCode::FORBIDDEN, why).into_response();
    }
    next.run(request).await
}

fn is_cross_site(headers: &HeaderMap, configured: &Configured) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // Fetch Metadata, section 2.2: `none` means that a person started the request.
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

/// The routes for signing in and out.
pub fn login() -> Router<Shared> {
    Router::new()
        .route("/login", get(form).post(sign_in))
        .route("/logout", post(sign_out))
        .method_not_allowed_fallback(super::problem::method_not_allowed)
}

async fn form(State(shared): State<Shared>, Query(query): Query<Destination>) -> Response {
    let next = local(query.next.as_deref());
    if is_open(&shared.service.configured.borrow()) {
        return Redirect::to(next).into_response();
    }
    shared.pages.login(StatusCode::OK, next, false)
}

async fn sign_in(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Form(form): Form<SignIn>,
) -> Response {
    let configured = shared.service.configured.borrow().clone();
    let next = local(form.next.as_deref());
    if is_open(&configured) {
        return Redirect::to(next).into_response();
    }
    let origin = Origin::new(peer, &headers);
    let token = match whose(&shared, &configured, form.token.trim(), origin).await {
        Ok(Some((token, _))) => token,
        Ok(None) => return shared.pages.login(StatusCode::UNAUTHORIZED, next, true),
        Err(problem) => return shared.pages.problem(&problem, Caller::Anybody),
    };
    let now = shared.service.clock.now();
    let session = Session { id: store::id_at(now), until: now + session::SESSION_LENGTH };
    signed_in(&configured, &shared.key.cookie(token, session), session::SESSION_LENGTH, next)
}

/// Revokes the session, also for copies of its cookie.
async fn sign_out(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let configured = shared.service.configured.borrow().clone();
    let ended = async {
        match session(&shared, &configured, &headers).await? {
            Some((session, _)) => changes::end_session(&shared, session).await,
            None => Ok(()),
        }
    };
    match ended.await {
        Ok(()) => signed_in(&configured, "", TimeDelta::zero(), "/login"),
        Err(problem) => shared.pages.problem(&problem, Caller::Anybody),
    }
}

fn signed_in(configured: &Configured, value: &str, lasts: TimeDelta, next: &str) -> Response {
    // RFC 6265, section 4.1.2. With Lax, links from mails work while signed in.
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

/// A path on this server, or `/` for any other destination.
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

    #[test]
    fn the_destination_after_signing_in_is_on_this_server() {
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
            on_time_within: TimeDelta::zero(),
            organizations: vec![],
            notifiers: vec![],
            give_up_after: TimeDelta::days(1),
            retry_max: TimeDelta::days(1),
            token: None,
            read_token: None,
            public_url: public_url.map(|url| Url::parse(url).unwrap()),
            links: true,
            drilled: None,
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
    fn writes_from_another_site_are_rejected() {
        let configured = configured(Some("https://certvigil.acme.example"));
        let host = ("host", "127.0.0.1:9764");
        for (pairs, cross, why) in [
            (vec![host], false, "no browser"),
            (vec![host, ("sec-fetch-site", "same-origin")], false, "its own page"),
            (vec![host, ("sec-fetch-site", "cross-site")], true, "another site"),
            (vec![host, ("sec-fetch-site", "same-site")], true, "another subdomain"),
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
    fn without_tokens_only_private_or_configured_host_names_are_accepted() {
        let configured = configured(Some("https://certvigil.acme.example"));
        for (host, here) in [
            ("127.0.0.1:9764", true),
            ("[::1]:9764", true),
            ("localhost", true),
            ("certvigil.acme.example", true),
            ("certvigil:9764", true),
            ("certvigil.monitoring.svc.cluster.local:9764", true),
            ("evil.example:9764", false),
            ("internal.evil.example", false),
            ("localhost.evil.example", false),
            ("a b", false),
        ] {
            assert_eq!(is_here(&headers(&[("host", host)]), &configured), here, "{host}");
        }
    }
}
