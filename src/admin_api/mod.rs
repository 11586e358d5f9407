//! The edge to the Admin API: HTTPS in, words of the domain out.
//!
//! Guarantees: only `GET`, to a short list of paths below the base URL; each page of a listing is asked
//! for once, retries apart; a listing ends where the API says so, and in no other way: a cursor that
//! does not advance, an empty page that promises more, a body that is too large or not the promised
//! JSON is an error of that listing. The key goes to the base URL's host alone: redirects are not
//! followed. It does not: decide what an answer means, or remember anything between scans.

mod fault;
mod pace;
mod wire;

use backon::Retryable;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use reqwest::{Client, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    domain::{
        certificate::{OrganizationName, Project, ProjectId},
        inventory::Listed,
        text::one_line,
    },
    net::{self, Pem, header, is_loopback, retry_after},
    secret::Secret,
};
pub use fault::{ApiFault, Kind};
use pace::{LONGEST_WAIT, Pace};
use wire::{ErrorBody, Item, ListedCertificate, ListedProject, Page};

/// The API's largest page.
const LIMIT: &str = "100";
/// The largest body that is read, in bytes. A page of 100 objects has some 50 kB.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// How much of an error's body is read.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// The most pages of the list of projects: a hundred thousand of them.
const MAX_PROJECT_PAGES: usize = 1_000;
/// The most pages of a list of certificates; an organization holds at most 50.
const MAX_CERTIFICATE_PAGES: usize = 100;
/// The first and the longest pause between attempts, as in the official clients.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(8);

/// One organization's access.
#[derive(Clone, Debug)]
pub struct Settings {
    pub organization: OrganizationName,
    pub base_url: Url,
    pub admin_key: Secret,
    pub concurrency: usize,
    pub requests_per_second: u32,
    pub request_timeout: Duration,
    pub max_attempts: u32,
    pub ca: Option<Pem>,
    pub identity: Option<ClientIdentity>,
}

/// The client certificate for organizations that demand one of their API clients.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    pub certificate: Pem,
    pub key: Secret,
}

impl ClientIdentity {
    /// Whether the certificate and this key (PEM) can be used together.
    ///
    /// # Errors
    /// What was expected of the key.
    pub fn fits(&self, key: &str) -> Result<(), String> {
        self.identity(key)
            .and_then(|identity| Client::builder().identity(identity).build())
            .map(drop)
            .map_err(|_| "the private key (PEM) of client_identity.certificate".to_owned())
    }

    fn identity(&self, key: &str) -> reqwest::Result<reqwest::Identity> {
        let mut bundle = self.certificate.0.clone();
        bundle.push(b'\n');
        bundle.extend_from_slice(key.as_bytes());
        reqwest::Identity::from_pem(&bundle)
    }
}

/// A client of one organization's Admin API. Shared by everything that reads it.
pub struct AdminApi {
    settings: Settings,
    client: Client,
    key: Mutex<SecretString>,
    pace: Pace,
    requests: AtomicU64,
}

impl std::fmt::Debug for AdminApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminApi").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl AdminApi {
    /// Sends nothing yet.
    ///
    /// # Errors
    /// Where a secret cannot be read, or the certificates do not make a client.
    pub fn new(settings: Settings) -> anyhow::Result<AdminApi> {
        let mut builder = Client::builder()
            .user_agent(net::USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(settings.request_timeout)
            .timeout(settings.request_timeout)
            .pool_idle_timeout(Duration::from_secs(30))
            .retry(reqwest::retry::never());
        if is_loopback(&settings.base_url) {
            builder = builder.no_proxy();
        }
        if let Some(ca) = &settings.ca {
            builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(&ca.0)?);
        }
        if let Some(identity) = &settings.identity {
            let key = identity.key.read()?;
            builder = builder.identity(identity.identity(key.expose_secret())?);
        }
        Ok(AdminApi {
            client: builder.build().map_err(reqwest::Error::without_url)?,
            key: Mutex::new(settings.admin_key.read()?),
            pace: Pace::new(settings.requests_per_second, settings.concurrency),
            requests: AtomicU64::new(0),
            settings,
        })
    }

    pub fn organization(&self) -> &OrganizationName {
        &self.settings.organization
    }

    /// How many listings are worth reading at once.
    pub fn concurrency(&self) -> usize {
        self.settings.concurrency
    }

    /// Requests sent since the start, retries included.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The pages of the list of projects, each as it comes; archived ones only if asked for.
    pub fn projects(
        &self,
        archived: bool,
    ) -> impl Stream<Item = Result<Vec<Project>, ApiFault>> + '_ {
        let asked: &[_] = if archived { &[("include_archived", "true")] } else { &[] };
        self.pages(&["organization", "projects"], asked, MAX_PROJECT_PAGES).map_ok(
            move |page: Vec<ListedProject>| {
                let wanted = page.into_iter().filter(|listed| archived || !listed.archived);
                wanted.map(|listed| listed.project).collect()
            },
        )
    }

    /// Every certificate that the project lists; `None` where the project itself is gone or archived,
    /// which is asked once more when its list is not found.
    ///
    /// # Errors
    /// Where the list could not be read to its end.
    pub async fn project_certificates(
        &self,
        id: &ProjectId,
        archived: bool,
    ) -> Result<Option<Vec<Listed>>, ApiFault> {
        let path = ["organization", "projects", id.as_str(), "certificates"];
        let fault = match self.certificates(&path).await {
            Ok(listed) => return Ok(Some(listed)),
            Err(fault) if fault.is_not_found() => fault,
            Err(fault) => return Err(fault),
        };
        match self.get::<ListedProject>(&path[..3], &[]).await {
            Ok(project) if project.archived && !archived => Ok(None),
            Err(gone) if gone.is_not_found() => Ok(None),
            Ok(_) | Err(_) => Err(fault),
        }
    }

    /// Every certificate of the organization, with whether it is active for all projects.
    ///
    /// # Errors
    /// Where the list could not be read to its end.
    pub async fn organization_certificates(&self) -> Result<Vec<Listed>, ApiFault> {
        self.certificates(&["organization", "certificates"]).await
    }

    async fn certificates(&self, path: &[&str]) -> Result<Vec<Listed>, ApiFault> {
        let pages = self.pages::<ListedCertificate>(path, &[], MAX_CERTIFICATE_PAGES);
        let listed: Vec<Vec<ListedCertificate>> = pages.try_collect().await?;
        Ok(listed.into_iter().flatten().map(|one| one.0).collect())
    }

    /// The pages of a list, following `last_id` while `has_more` is not false, as the official clients.
    fn pages<T: Item + Send + 'static>(
        &self,
        path: &[&str],
        asked: &'static [(&'static str, &'static str)],
        most: usize,
    ) -> impl Stream<Item = Result<Vec<T>, ApiFault>> + '_ {
        struct Cursor {
            after: Option<String>,
            seen: HashSet<String>,
        }
        let path: Vec<String> = path.iter().map(|segment| (*segment).to_owned()).collect();
        let start = Cursor { after: None, seen: HashSet::new() };
        stream::try_unfold(Some(start), move |cursor| {
            let path = path.clone();
            async move {
                let Some(Cursor { after, mut seen }) = cursor else {
                    return Ok(None);
                };
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                let mut query = vec![("limit", LIMIT)];
                query.extend(asked);
                query.extend(after.iter().map(|after| ("after", after.as_str())));
                let page: Page<T> = self.get(&path, &query).await?;
                let fault = |kind| Err(ApiFault::new(kind, &describe(&path)));

                let last = page.data.last().map(|last| last.id().to_owned());
                let next = match (page.has_more, last.is_some(), page.last_id.or(last)) {
                    (Some(false), _, _) | (None, false, _) => return Ok(Some((page.data, None))),
                    (Some(true), false, _) | (_, _, None) => return fault(Kind::EmptyPageWithMore),
                    (_, true, Some(next)) => next,
                };
                if !seen.insert(next.clone()) {
                    return fault(Kind::Loop(one_line(&next, 80)));
                }
                if seen.len() >= most {
                    return fault(Kind::Endless(most));
                }
                Ok(Some((page.data, Some(Cursor { after: Some(next), seen }))))
            }
        })
        .boxed()
    }

    /// One `GET`, tried as often and as patiently as the official clients do it.
    async fn get<T: serde::de::DeserializeOwned>(
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
        parse(&body, &request)
    }

    async fn attempt(&self, url: &Url, request: &str, retry: u32) -> Result<Body, ApiFault> {
        let permit = self.pace.turn().await;
        let _permit = permit.map_err(|left| ApiFault::new(Kind::AskedToWait(left), request))?;
        let key = self.lock_key().clone();
        self.requests.fetch_add(1, Ordering::Relaxed);
        let sent = self
            .client
            .get(url.clone())
            .bearer_auth(key.expose_secret())
            .header("accept", "application/json")
            .header("x-stainless-retry-count", retry)
            .send()
            .await
            .map_err(|error| transport(error, request))?;
        if sent.status().is_success() {
            return read_body(sent, MAX_BODY).await.map_err(|fault| fault.into_fault(request));
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

    fn lock_key(&self) -> std::sync::MutexGuard<'_, SecretString> {
        self.key.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn describe(path: &[&str]) -> String {
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

async fn read_body(mut response: Response, most: usize) -> Result<Body, BodyFault> {
    let content_type = response.headers().get(reqwest::header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or("missing");
    let content_type = one_line(content_type, 80);
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyFault::Transport)? {
        if bytes.len() + chunk.len() > most {
            return Err(BodyFault::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body { content_type, bytes })
}

fn parse<T: serde::de::DeserializeOwned>(body: &Body, request: &str) -> Result<T, ApiFault> {
    let mut json = serde_json::Deserializer::from_slice(&body.bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        use serde_json::error::Category;
        let place = error.path().to_string();
        let inner = error.inner();
        match inner.classify() {
            Category::Data => Kind::Shape(one_line(&format!("{place}: {inner}"), 300)),
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

/// What a response that is no success means, as the official clients read it.
async fn refused(response: Response, request: &str, key: &SecretString) -> ApiFault {
    let status = response.status();
    let headers = response.headers().clone();
    // An error's body is for reading; where it cannot be read, the status says enough.
    let body = read_body(response, MAX_ERROR_BODY).await.ok();
    let said = body.and_then(|body| serde_json::from_slice::<ErrorBody>(&body.bytes).ok());
    let message = said.and_then(|body| body.error.message).unwrap_or_default();
    let message = one_line(&message.replace(key.expose_secret(), "[hidden]"), 200);
    let retryable = match header(&headers, "x-should-retry") {
        Some("true") => true,
        Some("false") => false,
        _ => status.is_server_error() || matches!(status.as_u16(), 408 | 409 | 429),
    };
    ApiFault {
        kind: Kind::Status(status.as_u16(), message),
        request: request.to_owned(),
        request_id: header(&headers, "x-request-id").map(|id| one_line(id, 80)),
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
    use proptest::prelude::*;

    fn body(text: &str) -> Body {
        Body { content_type: "application/json".into(), bytes: text.into() }
    }

    fn read(text: &str) -> Result<Page<ListedCertificate>, String> {
        parse(&body(text), "GET /x").map_err(|fault| fault.to_string())
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
