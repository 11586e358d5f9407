//! A `GET` with the retries of the official clients, and the meaning of its failures.

use backon::Retryable;
use bytes::{Bytes, BytesMut};
use reqwest::{Response, StatusCode, Url, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

use super::{
    AdminApi, Answers,
    fault::{ApiFault, Kind},
    key::Key,
    pace::LONGEST_WAIT,
    refusal::{self, Refusal, Shown},
    wire::{ErrorBody, IdOnly, Item, Page, RawPage},
};
use crate::{
    domain::text::{hide_secret, one_line},
    net::{self, header, retry_after},
};

/// The largest accepted body, in bytes. A page of 100 objects has about 50 kB.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// Only a few bodies larger than this are read at a time, to limit memory.
const LARGE_BODY: usize = 512 * 1024;
/// How many large bodies are read at once.
pub(super) const LARGE_BODIES: usize = 2;
/// How much of an error body is read.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// The first and the longest pause between attempts, as in the official clients.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(8);

impl AdminApi {
    /// A `GET` with the retries of the official clients; returns the parsed body.
    pub(super) async fn get<T: serde::de::DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, ApiFault> {
        self.parse(&self.body(path, query).await?, path)
    }

    /// A `GET`; returns the raw body.
    pub(super) async fn body(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Body, ApiFault> {
        let mut url = self.settings.base_url.clone();
        url.path_segments_mut()
            .map_err(|()| ApiFault::new(Kind::Shape("base_url has no path".into()), "GET"))?
            .pop_if_empty()
            .extend(path);
        url.query_pairs_mut().extend_pairs(query).finish();
        if query.is_empty() {
            url.set_query(None);
        }
        let retries = AtomicU32::new(0);
        let pauses = (0..self.settings.max_attempts.saturating_sub(1)).map(|retry| {
            let doubled = FIRST_PAUSE.saturating_mul(1 << retry.min(10)).min(LAST_PAUSE);
            doubled.mul_f64(1.0 - 0.25 * fastrand::f64())
        });
        (|| async {
            let retry = retries.fetch_add(1, Ordering::Relaxed);
            self.attempt(&url, path, retry).await
        })
        .retry(pauses)
        .when(|fault| fault.retryable)
        .adjust(|fault, pause| pause.map(|pause| fault.wait.unwrap_or(pause)))
        .notify(|fault, pause| {
            tracing::debug!(organization = %self.settings.organization, error = %fault,
                pause_ms = pause.as_millis() as u64, "request failed, will be retried");
            if fault.status() == Some(429) {
                self.pace.pause(pause);
            }
        })
        .await
    }

    /// Parses a page of a list. Unreadable items do not affect the others.
    pub(super) fn parse_page<T: Item>(
        &self,
        body: &Body,
        path: &[&str],
    ) -> Result<Page<T>, ApiFault> {
        let page = page(body, &self.key().secret);
        page.map_err(|kind| ApiFault::new(kind, &describe(path)))
    }

    /// Parses the body of a request for this path.
    pub(super) fn parse<T: serde::de::DeserializeOwned>(
        &self,
        body: &Body,
        path: &[&str],
    ) -> Result<T, ApiFault> {
        let parsed = parse(body, &self.key().secret);
        parsed.map_err(|kind| ApiFault::new(kind, &describe(path)))
    }

    async fn attempt(&self, url: &Url, path: &[&str], retry: u32) -> Result<Body, ApiFault> {
        let turn = self.pace.turn().await;
        let key = self.key();
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut request = reqwest::Request::new(reqwest::Method::GET, url.clone());
        let headers = request.headers_mut();
        headers.insert(reqwest::header::AUTHORIZATION, key.bearer.clone());
        headers.insert("x-stainless-retry-count", HeaderValue::from(retry));
        let sent = self.client.execute(request).await;
        self.count(&sent);
        let sent = sent.map_err(|error| transport(error, path, self.shown()))?;
        turn.answered(sent.status() == StatusCode::TOO_MANY_REQUESTS);
        if sent.status().is_success() {
            self.skew.note(sent.headers());
            let read = read_body(sent, MAX_BODY, Some(&self.large_bodies)).await;
            return read.map_err(|fault| fault.into_fault(path, self.shown()));
        }
        let mut fault = refused(sent, path, self.shown(), &key.secret).await;
        if fault.status() == Some(401) && self.key_has_changed(&key) {
            fault.retryable = true;
            fault.wait = Some(Duration::ZERO);
        }
        if let (Some(429), Some(wait)) = (fault.status(), fault.wait) {
            self.pace.pause(wait);
        }
        if fault.wait.is_some_and(|wait| wait > LONGEST_WAIT) {
            fault.retryable = false;
        }
        Err(fault)
    }

    fn shown(&self) -> Shown<'_> {
        Shown { base_url: &self.settings.base_url, certificate: self.settings.identity.is_some() }
    }

    fn count(&self, sent: &reqwest::Result<Response>) {
        let status = sent.as_ref().map(Response::status);
        let how = match &status {
            Ok(status) => status.as_str(),
            Err(error) if error.is_timeout() => "timeout",
            Err(_) => "connection",
        };
        let mut answers = self.lock_answers();
        match answers.get_mut(how) {
            Some(count) => *count += 1,
            None => drop(answers.insert(how.to_owned(), 1)),
        }
    }

    pub(super) fn lock_answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// After a 401 the file of the key is read again: the key may have been rotated.
    fn key_has_changed(&self, used: &Key) -> bool {
        let fresh = self.settings.admin_key.read().map_err(anyhow::Error::from).and_then(Key::new);
        let Ok(fresh) = fresh else {
            return false;
        };
        let changed = fresh.secret.expose_secret() != used.secret.expose_secret();
        if changed {
            *self.lock_key() = Arc::new(fresh);
        }
        changed
    }

    pub(super) fn key(&self) -> Arc<Key> {
        Arc::clone(&self.lock_key())
    }

    fn lock_key(&self) -> std::sync::MutexGuard<'_, Arc<Key>> {
        self.key.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The name of a request in errors.
pub(super) fn describe(path: &[&str]) -> String {
    format!("GET /{}", path.join("/"))
}

pub(super) struct Body {
    content_type: Option<HeaderValue>,
    pub bytes: Bytes,
}

impl Body {
    /// The content type, if it is not JSON.
    fn foreign_type(&self) -> Option<String> {
        let content_type = self.content_type.as_ref()?.to_str().ok()?;
        (!content_type.contains("json")).then(|| content_type.to_owned())
    }
}

enum BodyFault {
    TooLarge,
    Transport(reqwest::Error),
}

impl BodyFault {
    fn into_fault(self, path: &[&str], shown: Shown<'_>) -> ApiFault {
        match self {
            BodyFault::TooLarge => ApiFault::new(Kind::TooLarge, &describe(path)),
            BodyFault::Transport(error) => transport(error, path, shown),
        }
    }
}

/// Reads a body of up to `most` bytes. `large` limits how many large bodies are read at once.
async fn read_body(
    mut response: Response,
    most: usize,
    large: Option<&Semaphore>,
) -> Result<Body, BodyFault> {
    let content_type = response.headers().get(reqwest::header::CONTENT_TYPE).cloned();
    let mut bytes = Bytes::new();
    let mut rest = BytesMut::new();
    let mut turn = None;
    while let Some(chunk) = response.chunk().await.map_err(BodyFault::Transport)? {
        let length = bytes.len() + rest.len() + chunk.len();
        if length > most {
            return Err(BodyFault::TooLarge);
        }
        if let Some(large) = large.filter(|_| length > LARGE_BODY && turn.is_none()) {
            turn = large.acquire().await.ok();
        }
        // Most bodies arrive in one piece.
        match bytes.is_empty() {
            true => bytes = chunk,
            false => rest.extend_from_slice(&chunk),
        }
    }
    if !rest.is_empty() {
        let mut all = BytesMut::with_capacity(bytes.len() + rest.len());
        all.extend_from_slice(&bytes);
        all.extend_from_slice(&rest);
        bytes = all.freeze();
    }
    Ok(Body { content_type, bytes })
}

/// Parses a body. Errors hide the key, before they are shortened.
fn parse<T: serde::de::DeserializeOwned>(body: &Body, key: &SecretString) -> Result<T, Kind> {
    // The position of an error is computed only for invalid bodies: tracking it takes longer than
    // everything else.
    serde_json::from_slice(&body.bytes).or_else(|_| parse_with_care(body, key))
}

/// Parses a page, item by item if it is not as expected.
fn page<T: Item>(body: &Body, key: &SecretString) -> Result<Page<T>, Kind> {
    if let Ok(page) = serde_json::from_slice::<RawPage<T>>(&body.bytes) {
        return Ok(page.into());
    }
    let raw: RawPage<Box<RawValue>> = parse(body, key)?;
    let (mut data, mut odd, mut last_id) = (Vec::new(), Vec::new(), None);
    for (place, item) in raw.data.iter().enumerate() {
        let id = serde_json::from_str::<IdOnly>(item.get()).ok().map(|only| only.id);
        let mut json = serde_json::Deserializer::from_str(item.get());
        match serde_path_to_error::deserialize::<_, T>(&mut json) {
            Ok(item) => data.push(item),
            Err(error) => {
                let field = match error.path().to_string().as_str() {
                    "." => String::new(),
                    field => format!(".{field}"),
                };
                let named = id.as_deref().map(|id| format!(" ({})", one_line(id, 60)));
                let why =
                    format!("data[{place}]{field}{}: {}", named.unwrap_or_default(), error.inner());
                odd.push(one_line(&hidden(&why, key), 300));
                data.extend(id.as_deref().and_then(T::with_id_only));
            }
        }
        last_id = id;
    }
    Ok(Page {
        is_empty: raw.data.is_empty(),
        data: Arc::new(data),
        odd: odd.into(),
        last_id: raw.last_id.or(last_id),
        has_more: raw.has_more,
    })
}

fn parse_with_care<T: serde::de::DeserializeOwned>(
    body: &Body,
    key: &SecretString,
) -> Result<T, Kind> {
    let content_type = || {
        let value = body.content_type.as_ref().and_then(|value| value.to_str().ok());
        one_line(&hidden(value.unwrap_or("missing"), key), 80)
    };
    let mut json = serde_json::Deserializer::from_slice(&body.bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        use serde_json::error::Category;
        let place = error.path().to_string();
        let inner = error.inner();
        match inner.classify() {
            Category::Data => {
                Kind::Shape(one_line(&hidden(&format!("{place}: {inner}"), key), 300))
            }
            Category::Eof if body.bytes.is_empty() => Kind::Shape("the body is empty".to_owned()),
            Category::Eof if content_type().contains("json") => {
                Kind::Shape("the JSON is incomplete".to_owned())
            }
            Category::Io | Category::Syntax | Category::Eof => Kind::NotJson(content_type()),
        }
    })?;
    json.end().map_err(|_| Kind::Shape("extra data after the JSON".to_owned()))?;
    Ok(value)
}

fn transport(error: reqwest::Error, path: &[&str], shown: Shown<'_>) -> ApiFault {
    let error = error.without_url();
    let kind = match error.is_timeout() {
        true => Kind::Timeout,
        false => {
            let remedy = tls_alert(&error).and_then(|alert| refusal::of_alert(alert, shown));
            Kind::Connection(net::error_chain(&error), remedy)
        }
    };
    ApiFault::new(kind, &describe(path))
}

/// The TLS alert of the server, if it sent one.
fn tls_alert(error: &(dyn std::error::Error + 'static)) -> Option<rustls::AlertDescription> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error contains the TLS error without exposing it as its source.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let inner: Option<&(dyn std::error::Error + 'static)> = inner.map(|inner| inner as _);
        let tls = inner.and_then(|inner| inner.downcast_ref()).or(error.downcast_ref());
        if let Some(rustls::Error::AlertReceived(alert)) = tls {
            return Some(*alert);
        }
        next = inner.or(error.source());
    }
    None
}

/// A text of the API without the key.
pub(super) fn hidden(text: &str, key: &SecretString) -> String {
    hide_secret(text, key.expose_secret())
}

/// Parses a body as every type; returns the errors.
#[cfg(any(test, fuzzing))]
pub fn read_any(bytes: &[u8], key: &SecretString) -> Vec<String> {
    use super::wire::{ListedAdminKey, ListedProject};
    use crate::domain::reading::Listed;
    fn body(bytes: &[u8]) -> Body {
        let content_type = Some(HeaderValue::from_static("application/json"));
        Body { content_type, bytes: Bytes::copy_from_slice(bytes) }
    }
    fn wrong<T: serde::de::DeserializeOwned>(bytes: &[u8], key: &SecretString) -> Option<String> {
        let fault = parse::<T>(&body(bytes), key).err();
        fault.map(|kind| ApiFault::new(kind, "GET /x").to_string())
    }
    fn wrong_page<T: Item>(bytes: &[u8], key: &SecretString) -> Option<String> {
        match page::<T>(&body(bytes), key) {
            Ok(page) if page.odd.is_empty() => None,
            Ok(page) => Some(page.odd.join("; ")),
            Err(kind) => Some(ApiFault::new(kind, "GET /x").to_string()),
        }
    }
    let all = [
        wrong_page::<ListedProject>(bytes, key),
        wrong_page::<Listed>(bytes, key),
        wrong_page::<ListedAdminKey>(bytes, key),
        wrong::<ListedProject>(bytes, key),
        wrong::<ErrorBody>(bytes, key),
    ];
    all.into_iter().flatten().collect()
}

/// The meaning of an unsuccessful response, as in the official clients.
async fn refused(
    response: Response,
    path: &[&str],
    shown: Shown<'_>,
    key: &SecretString,
) -> ApiFault {
    let status = response.status();
    let headers = response.headers().clone();
    // The body of an error is informative; without it the status is enough.
    let body = read_body(response, MAX_ERROR_BODY, None).await.ok();
    let foreign = body.as_ref().and_then(|body| body.foreign_type());
    let said = body.and_then(|body| serde_json::from_slice::<ErrorBody>(&body.bytes).ok());
    let code = status.as_u16();
    let foreign = foreign.map(|content_type| one_line(&hidden(&content_type, key), 80));
    let kind = match foreign {
        Some(content_type) if !status.is_redirection() && code != 429 => {
            Kind::NotFromApi(code, content_type)
        }
        Some(_) | None => {
            let (message, word) = said.map(|body| body.error.parts()).unwrap_or_default();
            let message = hidden(&message, key);
            Kind::Refused(Refusal::new(code, &message, word.as_deref(), path, shown).into())
        }
    };
    let is_temporary = matches!(&kind, Kind::Refused(refusal) if refusal.is_temporary());
    let retryable = match header(&headers, "x-should-retry") {
        Some("true") => true,
        Some("false") => false,
        _ => is_temporary || status.is_server_error() || matches!(code, 408 | 409 | 429),
    };
    ApiFault {
        kind,
        request: describe(path),
        request_id: header(&headers, "x-request-id").map(|id| one_line(&hidden(id, key), 80)),
        wait: if retryable && status != StatusCode::UNAUTHORIZED {
            retry_after(&headers, crate::clock::now())
        } else {
            None
        },
        retryable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reading::Listed;
    use proptest::prelude::*;

    fn body(text: &str) -> Body {
        let content_type = Some(HeaderValue::from_static("application/json"));
        Body { content_type, bytes: Bytes::copy_from_slice(text.as_bytes()) }
    }

    fn read(text: &str) -> Result<Page<Listed>, String> {
        let parsed = page(&body(text), &SecretString::default());
        parsed.map_err(|kind| ApiFault::new(kind, "GET /x").to_string())
    }

    #[test]
    fn what_is_missing_is_unknown_and_what_is_wrong_is_said_with_its_place() {
        let page = read(
            r#"{"data": [{"id": "c", "name": null, "certificate_details": {}, "active": true, "new": 1}],
                "has_more": false}"#,
        )
        .unwrap();
        let listed = &page.data[0];
        assert_eq!((listed.certificate.expires_at, &listed.certificate.name), (None, &None));

        let in_milliseconds = read(
            r#"{"data": [{"id": "c", "certificate_details": {"expires_at": 1800000000000}, "active": true}]}"#,
        )
        .unwrap();
        assert_eq!(in_milliseconds.data[0].certificate.expires_at, None);

        let odd = [
            (r#"{"id": "c"}"#, "data[1] (c): missing field `active`"),
            (r#"{"id": "a\nb", "active": true}"#, "data[1] (a b): id: an id has only visible"),
            (r#"{"id": "", "active": true}"#, "data[1] (): id: an id must not be empty"),
            (r#"{"id": 7, "active": true}"#, "data[1].id: invalid type: integer `7`"),
            (r#"{"id": "c", "active": "yes"}"#, "data[1].active (c): invalid type"),
            (
                r#"{"id": "c", "active": true, "certificate_details": {"expires_at": "soon"}}"#,
                "data[1].certificate_details.expires_at (c): invalid type",
            ),
            (r#"null"#, "data[1]: invalid type: null"),
            (r#"[[]]"#, "data[1]"),
        ];
        for (item, expected) in odd {
            let fine = |id| format!(r#"{{"id": "{id}", "active": true}}"#);
            let text = format!(r#"{{"data": [{}, {item}, {}]}}"#, fine("a"), fine("b"));
            let page = read(&text).unwrap();
            let ids: Vec<&str> = page.data.iter().map(|one| one.certificate.id.as_str()).collect();
            assert_eq!(ids, ["a", "b"], "the others are read");
            assert!(page.odd[0].starts_with(expected), "{}", page.odd[0]);
        }

        let many = vec![r#"{"id": "c", "active": true}"#; 101].join(",");
        let cases = [
            (&*format!(r#"{{"data": [{many}]}}"#), "more items than the 100"),
            (r#"{"data": null}"#, "data: invalid type: null"),
            (r#"{"error": {}}"#, "missing field `data`"),
            (r#"{"data": []"#, "the JSON is incomplete"),
            ("", "the body is empty"),
            ("<html>", "is not JSON"),
            (r#"{"data": []} tail"#, "extra data after the JSON"),
        ];
        for (text, expected) in cases {
            let message = read(text).err().unwrap_or_default();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_the_reading_panic(text in "\\PC{0,200}", seconds in any::<i64>()) {
            drop(read(&text));
            let dated = format!(
                r#"{{"data": [{{"id": "c", "certificate_details": {{"expires_at": {seconds}}}, "active": true}}]}}"#
            );
            prop_assert!(read(&dated).is_ok());
        }
    }
}
