//! Errors of the Admin API, with the cause and the remedy.

use std::{fmt, time::Duration};

use super::refusal::Refusal;
use crate::domain::unreadable::{Cause, ReadError};

/// A failed request, or a list that cannot be trusted.
///
/// The message names the request and the remedy. It contains neither the key nor credentials of the
/// host.
#[derive(Clone, Debug)]
pub struct ApiError {
    pub kind: Kind,
    /// Such as `GET /organization/projects`.
    pub request: String,
    /// The `x-request-id` of the failed response, for a support request.
    pub request_id: Option<String>,
    /// The pause that the API requested.
    pub wait: Option<Duration>,
    /// Whether the official clients would retry.
    pub retryable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A response with an unsuccessful HTTP status.
    Refused(Box<Refusal>),
    /// Status and content type of a response that is not JSON, from a server between certvigil and
    /// the API.
    NotFromApi(u16, String),
    /// No response or an incomplete one: the error, and the remedy if known.
    Connection(String, Option<String>),
    Timeout,
    TooLarge,
    /// The content type of a body that is not JSON.
    NotJson(String),
    /// JSON that does not match the schema: the place and the problem.
    Shape(String),
    /// The API repeated this cursor.
    Loop(String),
    EmptyPageWithMore,
    Endless(usize),
    /// An empty list that must have items, with the name of the items.
    EmptyList(&'static str),
}

impl ApiError {
    pub fn new(kind: Kind, request: &str) -> ApiError {
        let retryable = matches!(kind, Kind::Connection(..) | Kind::Timeout);
        ApiError { kind, request: request.to_owned(), request_id: None, wait: None, retryable }
    }

    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The HTTP status of an unsuccessful response.
    pub fn status(&self) -> Option<u16> {
        match &self.kind {
            Kind::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    /// Whether the API refused the admin key or the client certificate.
    pub fn is_refusal(&self) -> bool {
        matches!(&self.kind, Kind::Refused(refusal) if refusal.is_of_credentials())
    }
}

impl From<ApiError> for ReadError {
    fn from(fault: ApiError) -> ReadError {
        let cause = if fault.is_refusal() { Cause::Refused } else { Cause::Failed };
        ReadError { why: fault.to_string().into(), cause }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.request)?;
        match &self.kind {
            Kind::Refused(refusal) => write!(f, "{refusal}")?,
            Kind::NotFromApi(status, content_type) => {
                write!(
                    f,
                    "HTTP {status} with {content_type}: this response is not from the API, but from \
                     a server in between"
                )?;
                // Front ends of the API return 5xx as well, when it is overloaded.
                if *status < 500 {
                    f.write_str(" (a proxy, a firewall or a challenge page); check HTTPS_PROXY and base_url")?;
                }
            }
            Kind::Connection(why, remedy) => {
                write!(f, "the connection failed: {why}")?;
                if let Some(remedy) = remedy {
                    write!(f, ": {remedy}")?;
                }
            }
            Kind::Timeout => f.write_str("no complete response within api.request_timeout")?,
            Kind::TooLarge => f.write_str("the response is larger than 8 MiB")?,
            Kind::NotJson(kind) => write!(
                f,
                "the response is not JSON (content type {kind}); check base_url, and whether a \
                 proxy is in between"
            )?,
            Kind::Shape(why) => write!(f, "the response does not match the API’s schema: {why}")?,
            Kind::Loop(cursor) => {
                write!(f, "the list does not advance: the API repeated the cursor “{cursor}”")?;
            }
            Kind::EmptyPageWithMore => {
                f.write_str("has_more is true, but the page has no items or no cursor")?
            }
            Kind::EmptyList(items) => {
                write!(f, "the list of {items} is empty, although certvigil uses one of them")?
            }
            Kind::Endless(pages) => write!(f, "the list has more than {pages} pages")?,
        }
        if let Some(wait) = self.wait.filter(|_| !self.retryable) {
            let seconds = wait.as_secs();
            write!(
                f,
                " (no retry: the API requested a wait of {seconds} seconds, which is too long)"
            )?;
        }
        match &self.request_id {
            Some(id) => write!(f, " (x-request-id {id})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ApiError {}

/// An error while setting up a client.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Secret(#[from] crate::secret::SecretError),
    /// The expected form.
    #[error("invalid admin key: expected {0}")]
    Key(String),
    #[error(transparent)]
    Client(#[from] reqwest::Error),
}
