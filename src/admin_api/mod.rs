//! The Admin API: HTTPS in, domain types out.
//!
//! Guarantees: only `GET`, to a short list of paths below the base URL. Each page of a list is
//! requested once, except for retries. A list is complete only if the API ends it: a cursor that
//! does not advance, an empty page with `has_more`, a body that is too large or not valid JSON is
//! an error of that list. The key goes only to the host of the base URL: redirects are not
//! followed. This module does not interpret data, and remembers only the learned rate between
//! scans.

mod body;
mod error;
mod key;
mod learned;
mod pace;
mod pages;
mod recent;
mod refusal;
mod request;
mod skew;
mod wire;

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use reqwest::{
    Client, Url,
    header::{self, HeaderValue},
};
use secrecy::ExposeSecret;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    clock::Clock,
    domain::{
        certificate::{CertificateId, OrganizationName, Project, ProjectId},
        change::AuditEvent,
        content::Content,
        credential::AdminKey,
        reading::Listed,
        text::Name,
    },
    net::{self, Pem},
    secret::Secret,
    x509,
};
use body::Body;
#[cfg(any(test, fuzzing))]
pub use body::read_any;
pub use error::{ApiError, Kind, SetupError};
use key::Key;
pub use key::fits_admin_key;
use pace::Pace;
use pages::Pages;
pub use pages::Projects;
pub use recent::Recent;
pub use refusal::{MUTUAL_TLS, is_for_mutual_tls};
use request::{LARGE_BODIES, describe};
pub use skew::Skew;
pub use wire::ListedProject;
use wire::{Item, ListedAdminKey, ListedEvent, WithContent};

/// A list of certificates.
pub struct Certificates {
    /// By page; equal pages are shared.
    pub pages: Vec<Arc<Vec<Listed>>>,
    pub odd: UnreadableItems,
    /// Limits the number of long lists in memory.
    _turn: Option<OwnedSemaphorePermit>,
}

/// Unreadable items of a list.
#[derive(Debug, Default)]
pub struct UnreadableItems {
    /// The errors of the first items.
    first: Vec<String>,
    count: usize,
}

impl UnreadableItems {
    /// Adds the unreadable items of a page.
    pub fn add(&mut self, odd: &[String]) {
        let room = SHOWN_ODD.saturating_sub(self.first.len());
        self.first.extend(odd.iter().take(room).cloned());
        self.count += odd.len();
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The errors of the first items and the number of further ones; `None` without any.
    pub fn summary(&self) -> Option<String> {
        let more = match self.count.saturating_sub(self.first.len()) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        (self.count > 0).then(|| format!("unreadable items: {}{more}", self.first.join(", ")))
    }
}

/// The admin keys of an organization.
pub struct AdminKeys {
    pub keys: Vec<AdminKey>,
    /// The names of their owners, by id.
    pub owners: BTreeMap<Name, Name>,
}

/// The state of a project according to the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    Active(Project),
    Archived,
    NotFound,
}

const PROJECTS: &[&str] = &["organization", "projects"];
/// The maximum number of pages of the list of projects: 25,000 projects.
const MAX_PROJECT_PAGES: usize = 250;
/// The maximum number of pages of a list of certificates, of which an organization has at most 50,
/// or of admin keys.
const MAX_PAGES: usize = 100;
/// The maximum number of pages of the audit log that one scan reads: 20,000 events.
const MAX_AUDIT_PAGES: usize = 200;
/// The events of the audit log about certificates.
const AUDIT_EVENTS: [&str; 5] = [
    "certificate.created",
    "certificate.updated",
    "certificate.deleted",
    "certificates.activated",
    "certificates.deactivated",
];
/// Only one list with more pages than this is read at a time, to limit memory.
const LONG_LIST: usize = 5;
/// The number of unreadable items that a message names.
const SHOWN_ODD: usize = 3;

/// The settings of the client of one organization.
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

/// How to read the audit log.
#[derive(Clone, Copy, Debug)]
pub struct AuditSettings {
    /// Whether to keep the e-mail addresses of users.
    pub addresses: bool,
}

/// The client certificate for organizations that require one of API clients.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    pub certificate: Pem,
    pub key: Secret,
}

/// Checks that a client certificate and this private key (PEM) match.
///
/// # Errors
/// The expected form of the key.
pub fn fits_certificate(certificate: &Pem, key: &str) -> Result<(), String> {
    together(certificate, key)
        .and_then(|identity| Client::builder().identity(identity).build())
        .map(drop)
        .map_err(|_| "the private key (PEM) of client_identity.certificate".to_owned())
}

fn together(certificate: &Pem, key: &str) -> reqwest::Result<reqwest::Identity> {
    let mut bundle = certificate.0.clone();
    bundle.push(b'\n');
    bundle.extend_from_slice(key.as_bytes());
    reqwest::Identity::from_pem(&bundle)
}

/// A client of the Admin API of one organization, shared by all its readers.
pub struct AdminApi {
    settings: Settings,
    clock: Clock,
    client: Client,
    key: Mutex<Arc<Key>>,
    pace: Pace,
    requests: AtomicU64,
    /// The results of requests since the last call.
    answers: Mutex<RequestCounts>,
    skew: Skew,
    /// Limits the number of large responses in memory.
    large_bodies: Semaphore,
    long_lists: Arc<Semaphore>,
}

/// Number of requests by status (`200`), or `timeout` or `connection` without a response.
pub type RequestCounts = BTreeMap<String, u64>;

impl std::fmt::Debug for AdminApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminApi").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl AdminApi {
    /// Creates a client; sends nothing yet.
    ///
    /// # Errors
    /// If a secret cannot be read, or the certificates are unusable.
    pub fn new(settings: Settings, clock: Clock) -> Result<AdminApi, SetupError> {
        let accept = [(header::ACCEPT, HeaderValue::from_static("application/json"))];
        let mut builder =
            net::client(&settings.base_url, settings.request_timeout, settings.ca.as_ref())?
                .default_headers(accept.into_iter().collect());
        if let Some(identity) = &settings.identity {
            let key = identity.key.read()?;
            builder = builder.identity(together(&identity.certificate, key.expose_secret())?);
        }
        Ok(AdminApi {
            clock,
            client: builder.build().map_err(reqwest::Error::without_url)?,
            key: Mutex::new(Arc::new(Key::new(settings.admin_key.read()?)?)),
            pace: Pace::new(settings.requests_per_second, settings.concurrency),
            requests: AtomicU64::new(0),
            answers: Mutex::default(),
            skew: Skew::default(),
            large_bodies: Semaphore::new(LARGE_BODIES),
            long_lists: Arc::new(Semaphore::new(1)),
            settings,
        })
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn organization(&self) -> &OrganizationName {
        &self.settings.organization
    }

    /// The number of lists to read concurrently.
    pub fn concurrency(&self) -> usize {
        self.settings.concurrency
    }

    /// Requests sent since the start, including retries.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The results of requests since the last call, including retries.
    pub fn take_answers(&self) -> RequestCounts {
        std::mem::take(&mut *self.answers.lock())
    }

    /// How far the API's clock is ahead of the local one, by the responses since the last call;
    /// `None` without any.
    pub fn take_skew(&self) -> Option<TimeDelta> {
        self.skew.take()
    }

    /// The pages of the list of projects as they arrive, with archived projects on request.
    pub fn projects(&self, archived: bool) -> Projects<'_> {
        let asked: &[_] = if archived { &[("include_archived", "true")] } else { &[] };
        Projects(self.pages(PROJECTS, asked, MAX_PROJECT_PAGES))
    }

    /// Every certificate in the list of the project; `None` if the API reports the project as
    /// archived. A 404 alone proves nothing about a listed project: it may be a lost route or a
    /// missing permission.
    ///
    /// # Errors
    /// If the list could not be read completely.
    pub async fn project_certificates(
        &self,
        id: &ProjectId,
        archived: bool,
        recent: &Recent,
    ) -> Result<Option<Certificates>, ApiError> {
        let path = ["organization", "projects", id.as_str(), "certificates"];
        let fault = match self.certificates(&path, recent).await {
            Ok(listed) => return Ok(Some(listed)),
            Err(fault) if fault.is_not_found() => fault,
            Err(fault) => return Err(fault),
        };
        match self.project(id).await {
            Ok(Presence::Archived) if !archived => Ok(None),
            Ok(_) | Err(_) => Err(fault),
        }
    }

    /// The state of a project according to the API.
    ///
    /// # Errors
    /// If the API does not report it.
    pub async fn project(&self, id: &ProjectId) -> Result<Presence, ApiError> {
        let path = ["organization", "projects", id.as_str()];
        match self.get::<ListedProject>(&path, &[]).await {
            Ok(project) if project.archived => Ok(Presence::Archived),
            Ok(project) => Ok(Presence::Active(project.project)),
            Err(fault) if fault.is_not_found() => Ok(Presence::NotFound),
            Err(fault) => Err(fault),
        }
    }

    /// Every certificate of the organization, and whether it is active for all projects.
    ///
    /// # Errors
    /// If the list could not be read completely.
    pub async fn organization_certificates(&self) -> Result<Certificates, ApiError> {
        self.certificates(&["organization", "certificates"], &Recent::default()).await
    }

    /// The admin keys of the organization, marked if they match the key in use.
    ///
    /// # Errors
    /// If the list could not be read completely; not every key has permission.
    pub async fn admin_keys(&self) -> Result<AdminKeys, ApiError> {
        let path = ["organization", "admin_api_keys"];
        let mut pages = self.pages::<ListedAdminKey>(&path, &[], MAX_PAGES);
        let (key, mut keys, mut owners) = (self.key(), Vec::new(), BTreeMap::new());
        while let Some(page) = pages.next(|body| self.parse_page(body, &path)).await? {
            if let Some(why) = page.odd.first() {
                return Err(ApiError::new(Kind::Shape(why.clone()), &describe(&path)));
            }
            for listed in page.data.iter() {
                keys.push(listed.admin_key(key.secret.expose_secret()));
                owners.extend(listed.owner.clone());
            }
        }
        if keys.is_empty() {
            // The list must contain the key in use.
            return Err(ApiError::new(Kind::EmptyList("admin keys"), &describe(&path)));
        }
        Ok(AdminKeys { keys, owners })
    }

    /// Adds the events of the audit log about certificates to `found`, page by page, so that those
    /// of an interrupted reading remain. With `after`, only those that are later. Returns why events
    /// are missing although the log was read.
    ///
    /// # Errors
    /// If a page could not be read; not every key has permission.
    pub async fn audit_events(
        &self,
        after: Option<DateTime<Utc>>,
        found: &mut Vec<AuditEvent>,
    ) -> Result<Option<String>, ApiError> {
        let path = ["organization", "audit_logs"];
        let after = after.map(|after| after.timestamp().to_string());
        let mut asked: Vec<(&str, &str)> =
            AUDIT_EVENTS.iter().map(|kind| ("event_types[]", *kind)).collect();
        asked.extend(after.iter().map(|after| ("effective_at[gt]", after.as_str())));
        let mut pages = self.pages::<ListedEvent>(&path, &asked, MAX_AUDIT_PAGES + 1);
        let mut odd = UnreadableItems::default();
        for _ in 0..MAX_AUDIT_PAGES {
            let Some(page) = pages.next(|body| self.parse_page(body, &path)).await? else {
                let why = |odd| format!("{}: {odd}", describe(&path));
                return Ok(odd.summary().map(why));
            };
            odd.add(&page.odd);
            found.extend(page.data.iter().filter_map(|listed| listed.event.clone()));
        }
        Ok(Some(format!(
            "{}: the log has more than {MAX_AUDIT_PAGES} pages of events that were not read before; \
             the others are left out",
            describe(&path)
        )))
    }

    /// The content of a certificate, which never changes.
    ///
    /// # Errors
    /// If the API does not return it, or its PEM is unreadable.
    pub async fn content(&self, id: &CertificateId) -> Result<Content, ApiError> {
        let path = ["organization", "certificates", id.as_str()];
        let found: WithContent = self.get(&path, &[("include[]", "content")]).await?;
        let refused = |why: String| ApiError::new(Kind::Shape(why), &describe(&path));
        if found.id != id.as_str() {
            return Err(refused("the answer is about another certificate".to_owned()));
        }
        x509::read_pem(found.certificate_details.content.as_bytes())
            .map_err(|error| refused(format!("certificate_details.content: {error}")))
    }

    async fn certificates(&self, path: &[&str], recent: &Recent) -> Result<Certificates, ApiError> {
        let mut pages = self.pages::<Listed>(path, &[], MAX_PAGES);
        let pages_read = Vec::with_capacity(1);
        let mut listed =
            Certificates { pages: pages_read, odd: UnreadableItems::default(), _turn: None };
        let read = |body: &Body| recent.page(&body.bytes, || self.parse_page(body, path));
        while let Some(page) = pages.next(read).await? {
            listed.pages.push(page.data);
            listed.odd.add(&page.odd);
            if listed.pages.len() == LONG_LIST {
                listed._turn = Arc::clone(&self.long_lists).acquire_owned().await.ok();
            }
        }
        Ok(listed)
    }

    fn pages<'a, T: Item>(
        &'a self,
        path: &'a [&'a str],
        asked: &'a [(&'a str, &'a str)],
        most: usize,
    ) -> Pages<'a, T> {
        Pages::new(self, path, asked, most)
    }
}
