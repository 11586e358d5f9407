//! `GET` requests with the retries of the official clients, and their errors.

use backon::Retryable;
use chrono::{DateTime, Utc};
use reqwest::{Response, StatusCode, Url, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{
    AdminApi,
    body::{Body, BodyError, page, parse, read_body},
    error::{ApiError, Kind, SetupError},
    key::Key,
    pace::LONGEST_WAIT,
    refusal::{self, Refusal, RefusalContext},
    wire::{ErrorBody, Item, Page},
};
use crate::{
    domain::text::{hide_secret, one_line},
    net::{self, header, retry_after},
};

/// The largest accepted body, in bytes. A page of 100 objects has about 50 kB.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// How many large bodies are read at once.
pub(super) const LARGE_BODIES: usize = 2;
/// The largest error body that is read, in bytes.
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
    ) -> Result<T, ApiError> {
        self.parse(&self.body(path, query).await?, path)
    }

    /// A `GET`; returns the raw body.
    pub(super) async fn body(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Body, ApiError> {
        let mut url = self.settings.base_url.clone();
        url.path_segments_mut()
            .map_err(|()| ApiError::new(Kind::Shape("base_url has no path".into()), "GET"))?
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
                pause_ms = pause.as_millis() as u64, "API request failed, will be retried");
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
    ) -> Result<Page<T>, ApiError> {
        let page = page(body, &self.key().secret);
        page.map_err(|kind| ApiError::new(kind, &describe(path)))
    }

    pub(super) fn parse<T: serde::de::DeserializeOwned>(
        &self,
        body: &Body,
        path: &[&str],
    ) -> Result<T, ApiError> {
        let parsed = parse(body, &self.key().secret);
        parsed.map_err(|kind| ApiError::new(kind, &describe(path)))
    }

    async fn attempt(&self, url: &Url, path: &[&str], retry: u32) -> Result<Body, ApiError> {
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
            self.skew.note(sent.headers(), self.clock.now());
            let read = read_body(sent, MAX_BODY, Some(&self.large_bodies)).await;
            return read.map_err(|fault| body_fault(fault, path, self.shown()));
        }
        let mut fault = refused(sent, path, self.shown(), &key.secret, self.clock.now()).await;
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

    fn shown(&self) -> RefusalContext<'_> {
        RefusalContext {
            base_url: &self.settings.base_url,
            certificate: self.settings.identity.is_some(),
        }
    }

    fn count(&self, sent: &reqwest::Result<Response>) {
        let status = sent.as_ref().map(Response::status);
        let how = match &status {
            Ok(status) => status.as_str(),
            Err(error) if error.is_timeout() => "timeout",
            Err(_) => "connection",
        };
        let mut answers = self.answers.lock();
        match answers.get_mut(how) {
            Some(count) => *count += 1,
            None => drop(answers.insert(how.to_owned(), 1)),
        }
    }

    /// Reads the key again after a 401, because it may have been rotated.
    fn key_has_changed(&self, used: &Key) -> bool {
        let fresh = self.settings.admin_key.read().map_err(SetupError::from).and_then(Key::new);
        let Ok(fresh) = fresh else {
            return false;
        };
        let changed = fresh.secret.expose_secret() != used.secret.expose_secret();
        if changed {
            *self.key.lock() = Arc::new(fresh);
        }
        changed
    }

    pub(super) fn key(&self) -> Arc<Key> {
        Arc::clone(&self.key.lock())
    }
}

/// The name of a request in errors.
pub(super) fn describe(path: &[&str]) -> String {
    format!("GET /{}", path.join("/"))
}

fn body_fault(fault: BodyError, path: &[&str], shown: RefusalContext<'_>) -> ApiError {
    match fault {
        BodyError::TooLarge => ApiError::new(Kind::TooLarge, &describe(path)),
        BodyError::Transport(error) => transport(error, path, shown),
    }
}

fn transport(error: reqwest::Error, path: &[&str], shown: RefusalContext<'_>) -> ApiError {
    let error = error.without_url();
    let kind = match error.is_timeout() {
        true => Kind::Timeout,
        false => {
            let remedy = tls_alert(&error).and_then(|alert| refusal::of_alert(alert, shown));
            Kind::Connection(net::error_chain(&error), remedy)
        }
    };
    ApiError::new(kind, &describe(path))
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

/// Hides the key in a text of the API.
pub(super) fn hidden(text: &str, key: &SecretString) -> String {
    hide_secret(text, key.expose_secret())
}

/// The error of an unsuccessful response. Retried in the same cases as in the official clients.
async fn refused(
    response: Response,
    path: &[&str],
    shown: RefusalContext<'_>,
    key: &SecretString,
    now: DateTime<Utc>,
) -> ApiError {
    let status = response.status();
    let headers = response.headers().clone();
    // Without a readable body, the status is enough.
    let body = read_body(response, MAX_ERROR_BODY, None).await.ok();
    let foreign = body.as_ref().and_then(|body| body.foreign_type());
    let parsed = body.and_then(|body| serde_json::from_slice::<ErrorBody>(&body.bytes).ok());
    let code = status.as_u16();
    let foreign = foreign.map(|content_type| one_line(&hidden(&content_type, key), 80));
    let kind = match foreign {
        Some(content_type) if !status.is_redirection() && code != 429 => {
            Kind::NotFromApi(code, content_type)
        }
        Some(_) | None => {
            let (message, word) = parsed.map(|body| body.error.parts()).unwrap_or_default();
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
    ApiError {
        kind,
        request: describe(path),
        request_id: header(&headers, "x-request-id").map(|id| one_line(&hidden(id, key), 80)),
        wait: if retryable && status != StatusCode::UNAUTHORIZED {
            retry_after(&headers, now)
        } else {
            None
        },
        retryable,
    }
}
