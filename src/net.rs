//! Shared code of all network clients.

use chrono::{DateTime, Utc};
use reqwest::{Client, ClientBuilder, header::HeaderMap};
use std::{error::Error, time::Duration};
use url::{Host, Url};

/// Sent with every HTTP request.
pub const USER_AGENT: &str = concat!("certvigil/", env!("CARGO_PKG_VERSION"));

/// Reads at most `max` bytes of a response body as text; an error ends the text.
pub async fn text_up_to(mut response: reqwest::Response, max: usize) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= max {
            bytes.truncate(max);
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A PEM file with at least one certificate (RFC 7468).
#[derive(Clone)]
pub struct Pem(pub Vec<u8>);

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pem({} bytes)", self.0.len())
    }
}

/// Creates a client for the host of `url` without redirects or automatic retries. Requests to a
/// loopback address bypass a proxy.
///
/// # Errors
/// If `ca` has no certificates.
pub fn client(url: &Url, timeout: Duration, ca: Option<&Pem>) -> reqwest::Result<ClientBuilder> {
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(timeout)
        .timeout(timeout)
        .pool_idle_timeout(Duration::from_secs(30));
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    if let Some(ca) = ca {
        builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(&ca.0)?);
    }
    Ok(builder)
}

pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Checks that a text is an http or https URL.
///
/// # Errors
/// The expected form.
pub fn fits_url(text: &str) -> Result<(), String> {
    match Url::parse(text.trim()) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => Ok(()),
        _ => Err("an http or https URL".to_owned()),
    }
}

/// An error and its sources in one line.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    crate::domain::text::one_line(&text, 300)
}

/// A header's value without surrounding spaces; `None` unless it is visible ASCII.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// The pause in `retry-after-ms`, or else in `Retry-After` (seconds or HTTP date; RFC 9110, section
/// 10.2.3). Ignores invalid values and times in the past.
pub fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let positive =
        |seconds: f64| Duration::try_from_secs_f64(seconds).ok().filter(|wait| !wait.is_zero());
    let milliseconds = header(headers, "retry-after-ms").and_then(|text| text.parse::<f64>().ok());
    if let Some(wait) = milliseconds.and_then(|milliseconds| positive(milliseconds / 1000.0)) {
        return Some(wait);
    }
    let text = header(headers, "retry-after")?;
    if let Ok(seconds) = text.parse::<f64>() {
        return positive(seconds);
    }
    let at = DateTime::<Utc>::from(httpdate::parse_http_date(text).ok()?);
    (at - now).to_std().ok().filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn retry_after_is_parsed_like_in_the_official_clients() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let date = httpdate::fmt_http_date((now + chrono::TimeDelta::seconds(90)).into());
        let cases = [
            (headers(&[("retry-after-ms", "1500"), ("retry-after", "9")]), Some(1_500)),
            (headers(&[("retry-after", "9")]), Some(9_000)),
            (headers(&[("retry-after", "0.25")]), Some(250)),
            (headers(&[("retry-after", &date)]), Some(90_000)),
            (headers(&[("retry-after", "0")]), None),
            (headers(&[("retry-after", "-5")]), None),
            (headers(&[("retry-after", "NaN")]), None),
            (headers(&[("retry-after", "soon")]), None),
            (headers(&[]), None),
        ];
        for (headers, expected) in cases {
            let wait = retry_after(&headers, now).map(|wait| wait.as_millis());
            assert_eq!(wait, expected, "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn retry_after_never_panics_or_is_zero(text in "[ -~]{0,40}") {
            let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", text.parse().unwrap());
            let wait = retry_after(&headers, now);
            prop_assert!(wait.is_none_or(|wait| !wait.is_zero()));
        }
    }
}
