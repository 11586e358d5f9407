//! Heartbeats: a URL that is requested after complete scans, so that another service
//! (healthchecks.io, Cronitor, Uptime Kuma) can alert when the requests stop.

use backon::{ExponentialBuilder, Retryable};
use reqwest::Client;
use secrecy::ExposeSecret;
use std::time::Duration;
use url::Url;

use crate::{
    net,
    secret::{Secret, SecretError},
};

/// The time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum size of a response that is read, in bytes.
const MAX_ANSWER: usize = 256;
const RETRIES: usize = 2;
/// The longest duration of [`Heartbeat::send`], with retries and pauses.
pub const LONGEST: Duration = Duration::from_secs(40);

#[derive(Clone, Debug)]
pub struct Settings {
    /// Usually contains a token.
    pub url: Secret,
    /// Whether `/start` and `/fail` are requested as well.
    pub start_fail: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A scan starts.
    Start,
    /// Every list was read, and no delivery is pending too long.
    Well,
    /// A list is unreadable, or a delivery is pending too long.
    Fail,
}

pub struct Heartbeat {
    url: Url,
    start_fail: bool,
    client: Client,
}

/// An error of [`Heartbeat::new`].
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("monitoring.heartbeat_url is not a URL")]
    Url,
    #[error(transparent)]
    Client(#[from] reqwest::Error),
}

impl Heartbeat {
    /// # Errors
    /// If the URL cannot be read, or TLS cannot be set up.
    pub fn new(settings: &Settings) -> Result<Heartbeat, HeartbeatError> {
        let address = settings.url.read()?;
        let url = Url::parse(address.expose_secret().trim());
        let url = url.map_err(|_| HeartbeatError::Url)?;
        let client =
            net::client(&url, TIMEOUT, None)?.build().map_err(reqwest::Error::without_url)?;
        Ok(Heartbeat { url, start_fail: settings.start_fail, client })
    }

    /// Requests the URL of the signal; returns whether the response was a success. A disabled
    /// signal counts as a success.
    pub async fn send(&self, signal: Signal) -> bool {
        let Some(url) = self.address(signal) else {
            return true;
        };
        let attempt = || async {
            let sent = self.client.get(url.clone()).send().await;
            let answer = sent.map_err(|error| net::error_chain(&error.without_url()))?;
            let status = answer.status();
            if !status.is_success() {
                return Err(format!("HTTP {status}"));
            }
            // healthchecks.io returns 200 with this text for an unknown URL.
            match net::text_up_to(answer, MAX_ANSWER).await.contains("(not found)") {
                true => {
                    Err(format!("the heartbeat service does not know this URL (HTTP {status})"))
                }
                false => Ok(()),
            }
        };
        let pauses = ExponentialBuilder::default().with_max_times(RETRIES);
        match attempt.retry(pauses).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(?signal, %error, "heartbeat not sent");
                false
            }
        }
    }

    fn address(&self, signal: Signal) -> Option<Url> {
        let below = match signal {
            Signal::Well => return Some(self.url.clone()),
            Signal::Start => "start",
            Signal::Fail => "fail",
        };
        let mut url = self.url.clone();
        url.path_segments_mut().ok()?.pop_if_empty().push(below);
        Some(url).filter(|_| self.start_fail)
    }
}
