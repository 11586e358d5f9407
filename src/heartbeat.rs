//! The edge to whoever watches that certvigil itself is alive: an address that is asked for when
//! all is well, and that somebody else misses when it is not (healthchecks.io, Cronitor, Uptime
//! Kuma, and the like).

use backon::{ExponentialBuilder, Retryable};
use reqwest::Client;
use secrecy::ExposeSecret;
use std::time::Duration;
use url::Url;

use crate::{net, secret::Secret};

/// For one request and its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer is read, in bytes.
const MAX_ANSWER: usize = 256;
/// How often it is tried, beside the first time.
const RETRIES: usize = 2;
/// The longest that a signal can take: its attempts, and the pauses between them.
pub const LONGEST: Duration = Duration::from_secs(40);

#[derive(Clone, Debug)]
pub struct Settings {
    /// Often a secret by itself.
    pub url: Secret,
    /// Whether `/start` and `/fail` below it are asked for, too.
    pub start_fail: bool,
}

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A scan begins.
    Start,
    /// All was read, and nothing waits for too long.
    Well,
    /// Something was not read, or waits for too long.
    Fail,
}

pub struct Heartbeat {
    url: Url,
    start_fail: bool,
    client: Client,
}

impl Heartbeat {
    /// # Errors
    /// Where the address cannot be read, or TLS cannot be set up.
    pub fn new(settings: &Settings) -> anyhow::Result<Heartbeat> {
        let address = settings.url.read()?;
        let url = Url::parse(address.expose_secret().trim());
        let url = url.map_err(|_| anyhow::anyhow!("heartbeat_url is not a URL"))?;
        let mut builder = Client::builder()
            .user_agent(net::USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .timeout(TIMEOUT);
        if net::is_loopback(&url) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(reqwest::Error::without_url)?;
        Ok(Heartbeat { url, start_fail: settings.start_fail, client })
    }

    /// Asks for the address of the signal. Gives whether it was answered with a success; a signal
    /// that is not wanted is none.
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
            // healthchecks.io answers so for an address that it does not know.
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
