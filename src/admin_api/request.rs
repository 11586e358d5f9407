//! One `GET`, tried as often and as patiently as the official clients do it, and what its failures mean.

use backon::Retryable;
use reqwest::{Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::{
    AdminApi, Answers,
    fault::{ApiFault, Kind},
    pace::LONGEST_WAIT,
    wire::ErrorBody,
};
use crate::{
    domain::text::one_line,
    net::{self, header, retry_after},
};

/// The largest body that is read, in bytes. A page of 100 objects has some 50 kB.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// How much of an error's body is read.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// The first and the longest pause between attempts, as in the official clients.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(8);

impl AdminApi {
    /// One `GET`, tried as often and as patiently as the official clients do it.
    pub(super) async fn get<T: serde::de::DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, ApiFault> {
        let mut url = self.settings.base_url.clone();
        url.path_segments_mut()
            .map_err(|()| ApiFault::new(Kind::Shape("base_url has no path".into()), "GET"))?
            .pop_if_empty()
            .extend(path);
        url.query_pairs_mut().extend_pairs(query).finish();
        if query.is_empty() {
            url.set_query(None);
        }
        let request = describe(path);
        let retries = AtomicU32::new(0);
        let pauses = (0..self.settings.max_attempts.saturating_sub(1)).map(|retry| {
            let doubled = FIRST_PAUSE.saturating_mul(1 << retry.min(10)).min(LAST_PAUSE);
            doubled.mul_f64(1.0 - 0.25 * fastrand::f64())
        });
        let body = (|| async {
            let retry = retries.fetch_add(1, Ordering::Relaxed);
            self.attempt(&url, &request, retry).await
        })
        .retry(pauses)
        .when(|fault| fault.retryable)
        .adjust(|fault, pause| pause.map(|pause| fault.wait.unwrap_or(pause)))
        .notify(|fault, pause| {
            tracing::debug!(organization = %self.settings.organization, error = %fault,
                pause_ms = pause.as_millis() as u64, "request failed, and will be tried again");
            if matches!(fault.kind, Kind::Status(429, _)) {
                self.pace.pause(pause);
            }
        })
        .await?;
        parse(&body, &request, &self.lock_key().clone())
    }

    async fn attempt(&self, url: &Url, request: &str, retry: u32) -> Result<Body, ApiFault> {
        let _permit = self.pace.turn().await;
        let key = self.lock_key().clone();
        self.requests.fetch_add(1, Ordering::Relaxed);
        let sent = self
            .client
            .get(url.clone())
            .bearer_auth(key.expose_secret())
            .header("accept", "application/json")
            .header("x-stainless-retry-count", retry)
            .send()
            .await;
        self.count(&sent);
        let sent = sent.map_err(|error| transport(error, request))?;
        if sent.status().is_success() {
            self.skew.note(sent.headers(), crate::clock::now());
            return read_body(sent, MAX_BODY, &key)
                .await
                .map_err(|fault| fault.into_fault(request));
        }
        let mut fault = refused(sent, request, &key).await;
        if matches!(fault.kind, Kind::Status(401, _)) && self.key_has_changed(&key) {
            fault.retryable = true;
            fault.wait = Some(Duration::ZERO);
        }
        if let (Kind::Status(429, _), Some(wait)) = (&fault.kind, fault.wait) {
            self.pace.pause(wait);
        }
        if fault.wait.is_some_and(|wait| wait > LONGEST_WAIT) {
            fault.retryable = false;
        }
        Err(fault)
    }

    fn count(&self, sent: &reqwest::Result<Response>) {
        let how = match sent {
            Ok(response) => response.status().as_str().to_owned(),
            Err(error) if error.is_timeout() => "timeout".to_owned(),
            Err(_) => "connection".to_owned(),
        };
        *self.lock_answers().entry(how).or_default() += 1;
    }

    pub(super) fn lock_answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// After a 401 the key's file is read again: it may have been rotated.
    fn key_has_changed(&self, used: &SecretString) -> bool {
        let Ok(fresh) = self.settings.admin_key.read() else {
            return false;
        };
        let changed = fresh.expose_secret() != used.expose_secret();
        if changed {
            *self.lock_key() = fresh;
        }
        changed
    }

    pub(super) fn lock_key(&self) -> std::sync::MutexGuard<'_, SecretString> {
        self.key.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A request, as its faults name it.
pub(super) fn describe(path: &[&str]) -> String {
    format!("GET /{}", path.join("/"))
}

struct Body {
    content_type: String,
    bytes: Vec<u8>,
}

enum BodyFault {
    TooLarge,
    Transport(reqwest::Error),
}

impl BodyFault {
    fn into_fault(self, request: &str) -> ApiFault {
        match self {
            BodyFault::TooLarge => ApiFault::new(Kind::TooLarge, request),
            BodyFault::Transport(error) => transport(error, request),
        }
    }
}

async fn read_body(
    mut response: Response,
    most: usize,
    key: &SecretString,
) -> Result<Body, BodyFault> {
    let content_type = response.headers().get(reqwest::header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or("missing");
    let content_type = one_line(&hidden(content_type, key), 80);
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyFault::Transport)? {
        if bytes.len() + chunk.len() > most {
            return Err(BodyFault::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body { content_type, bytes })
}

/// Reads a body; what is wrong with it is said without the key, which is hidden before anything is cut.
fn parse<T: serde::de::DeserializeOwned>(
    body: &Body,
    request: &str,
    key: &SecretString,
) -> Result<T, ApiFault> {
    let mut json = serde_json::Deserializer::from_slice(&body.bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        use serde_json::error::Category;
        let place = error.path().to_string();
        let inner = error.inner();
        match inner.classify() {
            Category::Data => {
                Kind::Shape(one_line(&hidden(&format!("{place}: {inner}"), key), 300))
            }
            Category::Eof if body.bytes.is_empty() => Kind::Shape("the body is empty".to_owned()),
            Category::Eof if body.content_type.contains("json") => {
                Kind::Shape("the JSON breaks off".to_owned())
            }
            Category::Io | Category::Syntax | Category::Eof => {
                Kind::NotJson(body.content_type.clone())
            }
        }
    });
    let value = parsed.map_err(|kind| ApiFault::new(kind, request))?;
    json.end().map_err(|_| {
        ApiFault::new(Kind::Shape("there is more behind the JSON".to_owned()), request)
    })?;
    Ok(value)
}

fn transport(error: reqwest::Error, request: &str) -> ApiFault {
    let error = error.without_url();
    let kind =
        if error.is_timeout() { Kind::Timeout } else { Kind::Connection(net::error_chain(&error)) };
    ApiFault::new(kind, request)
}

/// A text of the API's without the key.
pub(super) fn hidden(text: &str, key: &SecretString) -> String {
    match key.expose_secret().trim() {
        "" => text.to_owned(),
        key => text.replace(key, "[hidden]"),
    }
}

/// Reads a body as everything that one may be; gives what is wrong with it.
#[cfg(any(test, fuzzing))]
pub fn read_any(bytes: &[u8], key: &SecretString) -> Vec<String> {
    use super::wire::{ListedAdminKey, ListedCertificate, ListedProject, Page};
    fn wrong<T: serde::de::DeserializeOwned>(bytes: &[u8], key: &SecretString) -> Option<String> {
        let body = Body { content_type: "application/json".to_owned(), bytes: bytes.to_vec() };
        parse::<T>(&body, "GET /x", key).err().map(|fault| fault.to_string())
    }
    let all = [
        wrong::<Page<ListedProject>>(bytes, key),
        wrong::<Page<ListedCertificate>>(bytes, key),
        wrong::<Page<ListedAdminKey>>(bytes, key),
        wrong::<ListedProject>(bytes, key),
        wrong::<ErrorBody>(bytes, key),
    ];
    all.into_iter().flatten().collect()
}

/// What a response that is no success means, as the official clients read it.
async fn refused(response: Response, request: &str, key: &SecretString) -> ApiFault {
    let status = response.status();
    let headers = response.headers().clone();
    // An error's body is for reading; where it cannot be read, the status says enough.
    let body = read_body(response, MAX_ERROR_BODY, key).await.ok();
    let said = body.and_then(|body| serde_json::from_slice::<ErrorBody>(&body.bytes).ok());
    let message = said.and_then(|body| body.error.message).unwrap_or_default();
    let message = one_line(&hidden(&message, key), 200);
    let retryable = match header(&headers, "x-should-retry") {
        Some("true") => true,
        Some("false") => false,
        _ => status.is_server_error() || matches!(status.as_u16(), 408 | 409 | 429),
    };
    ApiFault {
        kind: Kind::Status(status.as_u16(), message),
        request: request.to_owned(),
        request_id: header(&headers, "x-request-id").map(|id| one_line(&hidden(id, key), 80)),
        wait: if retryable && status != StatusCode::UNAUTHORIZED {
            retry_after(&headers, crate::clock::now())
        } else {
            None
        },
        retryable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin_api::wire::{ListedCertificate, Page};
    use proptest::prelude::*;

    fn body(text: &str) -> Body {
        Body { content_type: "application/json".into(), bytes: text.into() }
    }

    fn read(text: &str) -> Result<Page<ListedCertificate>, String> {
        parse(&body(text), "GET /x", &SecretString::default()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn what_is_missing_is_unknown_and_what_is_wrong_is_said_with_its_place() {
        let page = read(
            r#"{"data": [{"id": "c", "name": null, "certificate_details": {}, "active": true, "new": 1}],
                "has_more": false}"#,
        )
        .unwrap();
        let listed = &page.data[0].0;
        assert_eq!((listed.certificate.expires_at, &listed.certificate.name), (None, &None));

        let in_milliseconds = read(
            r#"{"data": [{"id": "c", "certificate_details": {"expires_at": 1800000000000}, "active": true}]}"#,
        )
        .unwrap();
        assert_eq!(in_milliseconds.data[0].0.certificate.expires_at, None);

        let cases = [
            (r#"{"data": [{"id": "c"}]}"#, "data[0]: missing field `active`"),
            (
                r#"{"data": [{"id": "a\nb", "active": true}]}"#,
                "data[0]: id: an id has only visible",
            ),
            (r#"{"data": [{"id": "c", "active": "yes"}]}"#, "data[0].active: invalid type"),
            (r#"{"data": null}"#, "data: invalid type: null"),
            (r#"{"error": {}}"#, "missing field `data`"),
            (r#"{"data": []"#, "the JSON breaks off"),
            ("", "the body is empty"),
            ("<html>", "is not JSON"),
            (r#"{"data": []} tail"#, "more behind the JSON"),
        ];
        for (text, expected) in cases {
            let message = read(text).err().unwrap_or_default();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_the_reading_panic(text in "\\PC{0,200}", seconds in any::<i64>()) {
            drop(read(&text));
            let dated = format!(
                r#"{{"data": [{{"id": "c", "certificate_details": {{"expires_at": {seconds}}}, "active": true}}]}}"#
            );
            prop_assert!(read(&dated).is_ok());
        }
    }
}
