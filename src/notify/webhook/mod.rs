//! Webhooks: a signed `POST` for each notification, in the format that the receiver wants; a few
//! where the service needs more. Those are repeated as a whole, under the same keys, until all are
//! accepted.
//!
//! Guarantees: the same `webhook-id` on every attempt; a redirect is not followed, so that neither
//! the body nor a key goes to another host; no secret (the address included) is in an error, an
//! answer that is kept, or `Debug`. A 2xx accepts. `400`, `413` and `422` are final, and so is
//! `410`; everything else is worth another attempt.

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

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
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
use crate::message::style::Style;
use crate::{
    domain::{
        notifier::Grouping,
        retry::{FailureReason, Outcome},
        routing::Routing,
        text::{HIDDEN, hide_secret, one_line},
    },
    message::Notification,
    net::{self, Pem},
    notify::NotifierError,
    secret::Secret,
};
use format::{Format, Key, RenderContext, Request};

/// How many deliveries to one webhook may be under way, unless configured.
pub const CONCURRENCY: usize = 4;
/// For one request and its answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How much of an answer is read.
const MAX_ANSWER: usize = 4 * 1024;

#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    pub format: Format,
    pub url: Secret,
    /// Whether that is the service's own address, since none is configured.
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

/// The requests that a message would be, without the key where the message itself has one.
///
/// # Errors
/// Where the address cannot be read, or the operator's template fails.
pub fn preview(
    settings: &Settings,
    url: &Url,
    notification: &Notification,
    now: DateTime<Utc>,
) -> Result<Vec<Request>, String> {
    let style = &settings.style;
    settings.format.requests(notification, RenderContext { url, style, now, routing_key: HIDDEN })
}

/// An instant for machines (RFC 3339).
fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Whether a text is a signing secret.
///
/// # Errors
/// The expected form.
pub fn fits_signing(text: &str) -> Result<(), String> {
    Signer::new(text.trim())
        .map(drop)
        .map_err(|_| "a secret in base64 such as \"whsec_…\" (Standard Webhooks)".to_owned())
}

/// How long the words of an answer are waited for, once its status is there.
const LISTEN: Duration = Duration::from_secs(1);

/// Shorter values are not secret and occur in every response.
const LONG: usize = 8;

/// The stored and shown receiver: the host, because the rest of the URL may be secret, and three
/// hexadecimal digits that distinguish channels of one service. They are too few to reveal a
/// secret, and enough to detect a new destination without sent alerts.
fn receiver(url: &Url, format: &Format, key: Option<&SecretString>) -> String {
    let key = match format.key() {
        // It selects the receiver.
        Key::Routing | Key::Genie => key.map(|key| key.expose_secret().trim()).unwrap_or_default(),
        Key::Bearer | Key::None => "",
    };
    let whole = format!("{} {url} {key}", format.word());
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_URL, whole.as_bytes()).simple();
    format!("{} #{:.3}", url.origin().ascii_serialization(), digest.to_string())
}

/// The parts of an address that may be secret by themselves, as an answer may repeat them.
fn parts_of(url: &Url) -> Vec<SecretString> {
    let segments = url.path_segments().into_iter().flatten().map(str::to_owned);
    let values = url.query_pairs().map(|(_, value)| value.into_owned());
    let user = Some(url.username());
    let whole = [user, url.password(), url.query(), Some(url.path())].into_iter().flatten();
    let parts = whole.map(str::to_owned).chain(segments).chain(values);
    // The longest first, so that no part of a longer one is left over.
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
    /// Of a service that wants its key in the message.
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
    /// Where a secret cannot be read or does not fit, or TLS cannot be set up.
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
            match settings.format.key() {
                Key::Bearer => header(AUTHORIZATION, &format!("Bearer {value}"))?,
                Key::Genie => header(AUTHORIZATION, &format!("GenieKey {value}"))?,
                Key::None => {}
                Key::Routing => routing_key = SecretString::from(value.to_owned()),
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
        // A slow body changes nothing: the accepted message is recorded at once.
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

    /// The beginning of the answer in one line, without anything that is secret.
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

    fn receivers(&self) -> Vec<String> {
        vec![self.receiver.clone()]
    }

    fn routing(&self) -> &Routing {
        &self.settings.routing
    }

    fn grouping(&self) -> Grouping {
        self.settings.format.grouping()
    }

    fn concurrency(&self) -> usize {
        self.settings.concurrency
    }

    fn max_per_minute(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.settings.max_per_minute)
    }

    fn attempt_limit(&self) -> Duration {
        TIMEOUT * self.settings.format.most_requests() + Duration::from_secs(5)
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
