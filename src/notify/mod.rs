//! Notifiers: the channels that send notifications.
//!
//! A notifier renders a notification and sends it to one receiver, once. The domain decides what a
//! failure means, and the outbox when to retry. To add a notifier: a folder here with its settings,
//! its implementation of [`Notifier`] and its rendering; a line in [`all`]; its section in
//! `config/notifiers.rs` and `config/raw.rs`; and a case in the contract tests of all notifiers
//! (`tests/it/notifiers.rs`).

pub mod email;
pub mod log;
pub mod webhook;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use std::{num::NonZeroU32, sync::Arc, time::Duration};

use crate::{
    domain::{
        notifier::{Grouping, NotifierState, Route},
        retry::{FailureReason, Outcome},
    },
    message::Notification,
    secret::SecretError,
};

/// One configured notifier.
pub trait Notifier: Send + Sync {
    fn name(&self) -> &str;

    /// Its receivers, each with its own deliveries and in one route, and the alerts that each route
    /// selects. Receivers are mail addresses, or the host of a webhook with a short hash of its
    /// URL. They are shown to users, so they contain no secrets.
    fn routes(&self) -> Vec<Route>;

    /// The receivers of all routes.
    fn receivers(&self) -> Vec<String> {
        self.routes().into_iter().flat_map(|route| route.receivers).collect()
    }

    /// How the alerts of a scan become notifications.
    fn grouping(&self) -> Grouping;

    /// The maximum number of concurrent deliveries.
    fn concurrency(&self) -> usize;

    /// The maximum number of deliveries that start per minute; `None` for no limit.
    fn max_per_minute(&self) -> Option<NonZeroU32>;

    /// The time limit of one attempt; a longer one is cut off and counts as timed out.
    fn attempt_limit(&self) -> Duration;

    /// The possible reasons of failed attempts.
    fn failures(&self) -> &'static [FailureReason];

    /// The state of each route with an empty ledger, and its receivers.
    fn states(&self) -> Vec<(NotifierState, Vec<String>)> {
        let state = |route: Route| {
            (NotifierState::new(self.name(), &route.routing, self.grouping()), route.receivers)
        };
        self.routes().into_iter().map(state).collect()
    }

    /// Makes one attempt. All attempts of a notification have the same id.
    fn deliver<'a>(
        &'a self,
        notification: &'a Notification,
        receiver: &'a str,
        now: DateTime<Utc>,
    ) -> BoxFuture<'a, Outcome>;
}

/// An error while setting up a notifier or rendering a mail.
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

/// Creates the configured notifiers.
///
/// # Errors
/// If a secret cannot be read, or TLS cannot be set up.
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
