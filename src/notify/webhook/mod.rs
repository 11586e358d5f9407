//! Webhooks: a signed `POST` for each notification, in the format of the receiver, or several
//! requests if the service needs them. Several requests are retried together with the same keys
//! until all succeed.
//!
//! Guarantees: all attempts have the same `webhook-id`; redirects are not followed, so that neither
//! body nor key goes to another host; no error, stored response or `Debug` output contains a
//! secret, which includes the URL. A 2xx means success; `400`, `410`, `413` and `422` are final;
//! everything else is retried.

mod alertmanager;
mod discord;
pub mod format;
mod incident;
pub mod json;
mod opsgenie;
mod pagerduty;
mod slack;
mod teams;
pub mod template;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::{BoxFuture, FutureExt};
use reqwest::{
    Client, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use standardwebhooks::{
    HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook as Signer,
};
use std::{num::NonZeroU32, time::Duration};
use url::Url;
use uuid::Uuid;

use super::Notifier;
use crate::{
    domain::{
        day::rfc3339,
        notifier::{Grouping, Route},
        retry::{FailureReason, Outcome},
        routing::Routing,
        text::{HIDDEN, hide_secret, one_line},
    },
    message::{Notification, style::Style},
    net::{self, Pem},
    notify::NotifierError,
    secret::Secret,
};
use format::{Format, KeyUse, RenderContext, Request};

/// The default number of concurrent deliveries to one webhook.
pub const CONCURRENCY: usize = 4;
/// The time limit of one request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum size of a response that is read, in bytes.
const MAX_ANSWER: usize = 4 * 1024;

#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    pub format: Format,
    pub url: Secret,
    /// Whether no URL is configured, so that the service's own URL is used.
    pub url_by_default: bool,
    /// The format decides its use.
    pub key: Option<Secret>,
    /// Signs the body (Standard Webhooks, symmetric).
    pub signing: Option<Secret>,
    pub headers: Vec<(HeaderName, Secret)>,
    pub ca: Option<Pem>,
    pub concurrency: usize,
    pub max_per_minute: u32,
    pub routing: Routing,
    pub style: Style,
}

/// The requests for a notification, with the routing key hidden.
///
/// # Errors
/// If the operator's template fails.
pub fn preview(
    settings: &Settings,
    url: &Url,
    notification: &Notification,
    now: DateTime<Utc>,
) -> Result<Vec<Request>, String> {
    let style = &settings.style;
    settings.format.requests(notification, RenderContext { url, style, now, routing_key: HIDDEN })
}

/// Checks that a text is a signing secret.
///
/// # Errors
/// The expected form.
pub fn fits_signing(text: &str) -> Result<(), String> {
    Signer::new(text.trim())
        .map(drop)
        .map_err(|_| "a secret in base64 such as \"whsec_…\" (Standard Webhooks)".to_owned())
}

/// The time limit for the body of a response, after its status.
const LISTEN: Duration = Duration::from_secs(1);

/// Shorter values are not hidden: they are not secret, and occur in many responses.
const LONG: usize = 8;

/// The stored and displayed receiver: the host, because the rest of the URL may be secret, and
/// three hexadecimal digits of a hash that distinguish channels of one service. They reveal no
/// secret, but show that the destination has changed.
fn receiver(url: &Url, format: &Format, key: Option<&SecretString>) -> String {
    let key = match format.profile().key {
        // The key selects the receiver.
        KeyUse::Routing | KeyUse::Genie => {
            key.map(|key| key.expose_secret().trim()).unwrap_or_default()
        }
        KeyUse::Bearer | KeyUse::None => "",
    };
    let whole = format!("{} {url} {key}", format.profile().word);
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_URL, whole.as_bytes()).simple();
    format!("{} #{:.3}", url.origin().ascii_serialization(), digest.to_string())
}

/// The parts of a URL that may be secret, and that a response may repeat.
fn parts_of(url: &Url) -> Vec<SecretString> {
    let segments = url.path_segments().into_iter().flatten().map(str::to_owned);
    let values = url.query_pairs().map(|(_, value)| value.into_owned());
    let user = Some(url.username());
    let whole = [user, url.password(), url.query(), Some(url.path())].into_iter().flatten();
    let parts = whole.map(str::to_owned).chain(segments).chain(values);
    // Longest first, so that hiding a part leaves nothing of a longer one.
    let mut parts: Vec<String> = parts.filter(|part| part.len() >= LONG).collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    parts.into_iter().map(SecretString::from).collect()
}

pub struct Webhook {
    settings: Settings,
    receiver: String,
    client: Client,
    url: Url,
    headers: HeaderMap,
    /// The key, for services that expect it in the message.
    routing_key: SecretString,
    signer: Option<Signer>,
    /// Values to hide in responses.
    secrets: Vec<SecretString>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Webhook {
    /// # Errors
    /// If a secret is unreadable or invalid, or TLS cannot be set up.
    pub fn new(settings: Settings) -> Result<Webhook, NotifierError> {
        let name = &settings.name;
        let not_fitting =
            |what: &str| NotifierError::Invalid { name: name.clone(), what: what.to_owned() };
        let address = settings.url.read()?;
        let url = Url::parse(address.expose_secret().trim()).map_err(|_| not_fitting("url"))?;
        let key = settings.key.as_ref().map(Secret::read).transpose()?;
        let receiver = receiver(&url, &settings.format, key.as_ref());
        let mut secrets = parts_of(&url);
        secrets.push(address);
        let mut headers = HeaderMap::new();
        let mut header = |name: HeaderName, text: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| not_fitting(name.as_str()))?;
            value.set_sensitive(true);
            headers.insert(name, value);
            Ok::<_, NotifierError>(())
        };
        for (name, secret) in &settings.headers {
            let value = secret.read()?;
            header(name.clone(), value.expose_secret())?;
            if value.expose_secret().len() >= LONG {
                secrets.push(value);
            }
        }
        let mut routing_key = SecretString::default();
        if let Some(key) = key {
            let value = key.expose_secret().trim();
            match settings.format.profile().key {
                KeyUse::Bearer => header(AUTHORIZATION, &format!("Bearer {value}"))?,
                KeyUse::Genie => header(AUTHORIZATION, &format!("GenieKey {value}"))?,
                KeyUse::None => {}
                KeyUse::Routing => routing_key = SecretString::from(value.to_owned()),
            }
            secrets.push(key);
        }
        let signer = match &settings.signing {
            Some(signing) => {
                let secret = signing.read()?;
                let signer = Signer::new(secret.expose_secret().trim());
                secrets.push(secret);
                Some(signer.map_err(|_| not_fitting("secret"))?)
            }
            None => None,
        };
        let client = net::client(&url, TIMEOUT, settings.ca.as_ref())?;
        let client = client.build().map_err(reqwest::Error::without_url)?;
        Ok(Webhook { settings, receiver, client, url, headers, routing_key, signer, secrets })
    }

    async fn attempt(&self, notification: &Notification, now: DateTime<Utc>) -> Outcome {
        let context = RenderContext {
            url: &self.url,
            style: &self.settings.style,
            now,
            routing_key: self.routing_key.expose_secret(),
        };
        let requests = match self.settings.format.requests(notification, context) {
            Ok(requests) => requests,
            Err(why) => return Outcome::retry(FailureReason::Internal, why),
        };
        let id = notification.id.to_string();
        let mut outcome = Outcome::retry(FailureReason::Internal, "the message has no request");
        for request in requests {
            outcome = self.send(request, &id, now).await;
            if !matches!(outcome, Outcome::Delivered { .. }) {
                break;
            }
        }
        outcome
    }

    async fn send(&self, request: Request, id: &str, now: DateTime<Utc>) -> Outcome {
        let timestamp = now.timestamp();
        let mut builder = self
            .client
            .post(request.url)
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, request.content_type)
            .header(HEADER_WEBHOOK_ID, id)
            .header(HEADER_WEBHOOK_TIMESTAMP, timestamp);
        if let Some(signer) = &self.signer {
            match signer.sign(id, timestamp, request.body.as_bytes()) {
                Ok(signature) => builder = builder.header(HEADER_WEBHOOK_SIGNATURE, signature),
                Err(error) => return Outcome::retry(FailureReason::Internal, error.to_string()),
            }
        }
        match builder.body(request.body).send().await {
            Ok(response) if request.closes && response.status() == StatusCode::NOT_FOUND => {
                let answer = "HTTP 404: the receiver has no open incident to close".to_owned();
                Outcome::Delivered { answer }
            }
            Ok(response) => self.outcome(response, now).await,
            Err(error) => self.failure(error.without_url()),
        }
    }

    async fn outcome(&self, response: Response, now: DateTime<Utc>) -> Outcome {
        let status = response.status();
        let after = net::retry_after(response.headers(), now)
            .and_then(|after| TimeDelta::from_std(after).ok());
        // The status decides; do not wait for a slow body.
        let reply = tokio::time::timeout(LISTEN, self.reply(response)).await.unwrap_or_default();
        let detail = match reply.as_str() {
            "" => format!("HTTP {status}"),
            reply => format!("HTTP {status}: {reply}"),
        };
        let reason = match status.as_u16() {
            200..=299 if self.settings.format.is_failure(&reply) => FailureReason::Unavailable,
            200..=299 => return Outcome::Delivered { answer: detail },
            400 | 413 | 422 => {
                return Outcome::Rejected { reason: FailureReason::Message, detail };
            }
            410 => return Outcome::Rejected { reason: FailureReason::Gone, detail },
            300..=399 => {
                let detail = format!("HTTP {status}: certvigil does not follow redirects");
                return Outcome::retry(FailureReason::Redirect, detail);
            }
            401 | 403 => FailureReason::Login,
            429 => FailureReason::RateLimited,
            _ => FailureReason::Unavailable,
        };
        Outcome::Retry { reason, detail, after }
    }

    /// The start of the response in one line, with secrets hidden.
    async fn reply(&self, response: Response) -> String {
        let text = net::text_up_to(response, MAX_ANSWER).await;
        let hidden = self
            .secrets
            .iter()
            .fold(text, |text, secret| hide_secret(&text, secret.expose_secret()));
        one_line(&hidden, 200)
    }

    fn failure(&self, error: reqwest::Error) -> Outcome {
        let detail = net::error_chain(&error);
        let reason = if error.is_timeout() {
            FailureReason::Timeout
        } else if detail.contains("certificate") || detail.contains("tls") {
            FailureReason::Tls
        } else if error.is_connect() {
            FailureReason::Connect
        } else {
            FailureReason::Protocol
        };
        Outcome::retry(reason, detail)
    }
}

impl Notifier for Webhook {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn routes(&self) -> Vec<Route> {
        let receivers = vec![self.receiver.clone()];
        vec![Route { routing: self.settings.routing.clone(), receivers }]
    }

    fn grouping(&self) -> Grouping {
        self.settings.format.profile().grouping
    }

    fn concurrency(&self) -> usize {
        self.settings.concurrency
    }

    fn max_per_minute(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.settings.max_per_minute)
    }

    fn attempt_limit(&self) -> Duration {
        TIMEOUT * self.settings.format.profile().max_requests + Duration::from_secs(5)
    }

    fn failures(&self) -> &'static [FailureReason] {
        use FailureReason as Why;
        &[
            Why::Connect,
            Why::Timeout,
            Why::Tls,
            Why::Login,
            Why::Message,
            Why::RateLimited,
            Why::Unavailable,
            Why::Redirect,
            Why::Gone,
            Why::Protocol,
            Why::Internal,
        ]
    }

    fn deliver<'a>(
        &'a self,
        notification: &'a Notification,
        _receiver: &'a str,
        now: DateTime<Utc>,
    ) -> BoxFuture<'a, Outcome> {
        self.attempt(notification, now).boxed()
    }
}
