//! Notifiers: the channels that send messages.
//!
//! A notifier renders one notification and hands it to one receiver, once. What a failure means for
//! the delivery is the domain's business, when it is tried again is the outbox's. To add a kind: a
//! folder here with its settings, its implementation of [`Notifier`] and its rendering; a line in
//! [`all`]; its section in `config/notifiers.rs` and `config/raw.rs`; and a case in the contract
//! that every notifier passes (`tests/it/notifiers.rs`).

pub mod email;
pub mod log;
pub mod webhook;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use std::{num::NonZeroU32, sync::Arc, time::Duration};

use crate::{
    domain::{
        notifier::Grouping,
        retry::{FailureReason, Outcome},
        routing::Routing,
    },
    message::Notification,
    secret::SecretError,
};

/// One configured notifier.
pub trait Notifier: Send + Sync {
    /// Its configured name.
    fn name(&self) -> &str;

    /// The receivers, each with its own delivery: mail addresses, or the host of a webhook with a
    /// mark for the rest of its URL. Shown to users, so without secrets.
    fn receivers(&self) -> Vec<String>;

    /// The alerts that it selects.
    fn routing(&self) -> &Routing;

    /// How it wants what a scan has to say.
    fn grouping(&self) -> Grouping;

    /// How many deliveries may be under way at once.
    fn concurrency(&self) -> usize;

    /// How many deliveries may begin within a minute; `None` where that does not matter.
    fn max_per_minute(&self) -> Option<NonZeroU32>;

    /// The longest that one attempt can take. An attempt that is cut off then counts as timed out.
    fn attempt_limit(&self) -> Duration;

    /// Why its attempts can fail.
    fn failures(&self) -> &'static [FailureReason];

    /// Makes one attempt. Every attempt of a notification carries the same id.
    fn deliver<'a>(
        &'a self,
        notification: &'a Notification,
        receiver: &'a str,
        now: DateTime<Utc>,
    ) -> BoxFuture<'a, Outcome>;
}

/// Why a notifier cannot be set up, or a mail not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum NotifierError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("webhook {name}: invalid {what}")]
    Invalid { name: String, what: String },
    #[error("invalid smtp.host")]
    ServerName(#[from] rustls::pki_types::InvalidDnsNameError),
    #[error("cannot read the certificates of smtp.ca_file")]
    Authorities(#[from] rustls::pki_types::pem::Error),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Client(#[from] reqwest::Error),
    #[error(transparent)]
    Template(#[from] minijinja::Error),
    #[error(transparent)]
    Mail(#[from] lettre::error::Error),
}

/// Makes the configured notifiers.
///
/// # Errors
/// Where a secret cannot be read any more, or TLS cannot be set up.
pub fn all(
    email: &[email::Settings],
    webhook: &[webhook::Settings],
    log: &[log::Settings],
) -> Result<Vec<Arc<dyn Notifier>>, NotifierError> {
    let mut notifiers: Vec<Arc<dyn Notifier>> = Vec::new();
    for settings in email {
        notifiers.push(Arc::new(email::Email::new(settings.clone())?));
    }
    for settings in webhook {
        notifiers.push(Arc::new(webhook::Webhook::new(settings.clone())?));
    }
    for settings in log {
        notifiers.push(Arc::new(log::Log::new(settings.clone())));
    }
    Ok(notifiers)
}

/// Checks that a secret is a valid HTTP header value (RFC 9110, section 5.5).
///
/// # Errors
/// The expected form.
pub fn header_value(value: &str) -> Result<(), String> {
    reqwest::header::HeaderValue::from_str(value)
        .map(drop)
        .map_err(|_| "one line of visible ASCII characters".to_owned())
}
