//! Mail: one digest for each notification, sent to each recipient in a separate transaction.
//!
//! Guarantees: all recipients and attempts have the same `Message-ID`; each step of the SMTP
//! dialogue has a deadline; a rejected recipient does not affect others; no log, error or `Debug`
//! output contains the password. A message whose final reply is lost may have been accepted: it is
//! rarely retried, with the same `Message-ID`.

mod content;
mod render;
mod reply;
mod session;
mod smtp;

use chrono::{DateTime, Utc};
use futures_util::future::{BoxFuture, FutureExt};
use lettre::{Address, message::Mailbox};
use std::{num::NonZeroU32, time::Duration};

use super::Notifier;
use crate::{
    domain::{
        notifier::{Grouping, Route},
        owner::Audience,
        retry::{FailureReason, Outcome},
        routing::Routing,
        words::words,
    },
    message::{Notification, style::Style},
    net::Pem,
    notify::NotifierError,
    secret::Secret,
};
pub use render::{Rendered, Renderer};

/// The number of concurrent recipients: a stalled server delays the others by one step at most, and
/// is not flooded.
const CONCURRENCY: usize = 4;
/// Connecting, STARTTLS, login, sender, recipient, DATA, message, and one to spare. The final reply
/// has its own time limit.
const STEPS: u32 = 8;

/// The default number of mails per minute, more than most mail servers accept.
pub const MAX_PER_MINUTE: u32 = 600;

#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    /// One, or with owners several.
    pub routes: Vec<Recipients>,
    /// The maximum number of mails per minute; each has one recipient.
    pub max_per_minute: u32,
    pub smtp: Smtp,
    pub style: Style,
}

/// The recipients of the same mails.
#[derive(Clone, Debug)]
pub struct Recipients {
    pub to: Vec<Mailbox>,
    pub cc: Vec<Mailbox>,
    pub routing: Routing,
}

impl Recipients {
    /// The addresses, each once.
    pub fn addresses(&self) -> Vec<String> {
        let mut addresses: Vec<String> = Vec::new();
        for mailbox in self.to.iter().chain(&self.cc) {
            let address = mailbox.email.to_string();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }
}

impl Recipients {
    pub fn has(&self, address: &Address) -> bool {
        self.to.iter().chain(&self.cc).any(|mailbox| mailbox.email == *address)
    }
}

impl Settings {
    /// The recipients of a part of the alerts; `None` if there are none.
    pub fn route(&self, audience: &Audience) -> Option<&Recipients> {
        self.routes.iter().find(|route| route.routing.audience == *audience)
    }
}

/// The mail server.
#[derive(Clone, Debug)]
pub struct Smtp {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    pub login: Option<(String, Secret)>,
    pub auth: Auth,
    pub from: Mailbox,
    pub ca: Option<Pem>,
    /// The time limit of each step of the dialogue.
    pub timeout: Duration,
    pub hello_name: Option<String>,
}

words! {
    /// The authentication (`smtp.auth`).
    Auth {
        /// PLAIN, or LOGIN if the server does not offer PLAIN or rejects it.
        Auto = "auto",
        Plain = "plain",
        Login = "login",
    }
}

words! {
    /// The encryption of the connection (`smtp.tls`).
    Tls {
        /// Starts after the greeting (RFC 3207); certvigil sends nothing if the server does not
        /// offer it.
        StartTls = "starttls",
        /// From the first byte (RFC 8314).
        Implicit = "implicit",
        None = "none",
    }
}

pub struct Email {
    settings: Settings,
    transport: smtp::Transport,
    renderer: Renderer,
}

impl Email {
    /// # Errors
    /// If the password cannot be read, or TLS cannot be set up.
    pub fn new(settings: Settings) -> Result<Email, NotifierError> {
        Ok(Email {
            transport: smtp::Transport::new(settings.smtp.clone())?,
            renderer: Renderer::new()?,
            settings,
        })
    }

    async fn attempt(
        &self,
        notification: &Notification,
        receiver: &str,
        now: DateTime<Utc>,
    ) -> Outcome {
        let Ok(recipient) = receiver.parse::<Address>() else {
            let detail = "the recipient is not an address".to_owned();
            return Outcome::Rejected { reason: FailureReason::Recipient, detail };
        };
        let message = match self.renderer.message(&self.settings, notification, &recipient, now) {
            Ok(message) => message,
            Err(error) => {
                return Outcome::retry(FailureReason::Internal, crate::net::error_chain(&error));
            }
        };
        self.transport.send(&recipient, &message.formatted()).await
    }
}

impl Notifier for Email {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn routes(&self) -> Vec<Route> {
        let routes = self.settings.routes.iter();
        routes
            .map(|one| Route { routing: one.routing.clone(), receivers: one.addresses() })
            .collect()
    }

    fn grouping(&self) -> Grouping {
        Grouping::Digest
    }

    fn concurrency(&self) -> usize {
        CONCURRENCY
    }

    fn max_per_minute(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.settings.max_per_minute)
    }

    fn attempt_limit(&self) -> Duration {
        self.settings.smtp.timeout * STEPS + smtp::final_reply(self.settings.smtp.timeout)
    }

    fn failures(&self) -> &'static [FailureReason] {
        use FailureReason as Why;
        &[
            Why::Connect,
            Why::Timeout,
            Why::Tls,
            Why::Login,
            Why::Sender,
            Why::Recipient,
            Why::Message,
            Why::Protocol,
            Why::Unconfirmed,
            Why::Internal,
        ]
    }

    fn deliver<'a>(
        &'a self,
        notification: &'a Notification,
        receiver: &'a str,
        now: DateTime<Utc>,
    ) -> BoxFuture<'a, Outcome> {
        self.attempt(notification, receiver, now).boxed()
    }
}
