//! The edge to the Admin API: HTTPS in, words of the domain out.
//!
//! Guarantees: only `GET`, to a short list of paths below the base URL; each page of a listing is
//! asked for once, retries apart; a listing ends where the API says so, and in no other way: a
//! cursor that does not advance, an empty page that promises more, a body that is too large or not
//! the promised JSON is an error of that listing. The key goes to the base URL's host alone:
//! redirects are not followed. It does not: decide what an answer means, or remember anything
//! between scans but the rate that the API takes.

mod fault;
mod key;
mod learned;
mod pace;
mod recent;
mod refusal;
mod request;
mod skew;
mod wire;

use chrono::TimeDelta;
use reqwest::{
    Client, Url,
    header::{self, HeaderValue},
};
use secrecy::ExposeSecret;
use std::{
    collections::{BTreeMap, HashSet},
    marker::PhantomData,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    domain::{
        certificate::{OrganizationName, Project, ProjectId},
        credential::AdminKey,
        reading::Listed,
        text::one_line,
    },
    net::{self, Pem, is_loopback},
    secret::Secret,
};
pub use fault::{ApiFault, Kind};
use key::Key;
pub use key::fits_admin_key;
use pace::Pace;
pub use recent::Recent;
pub use refusal::{MUTUAL_TLS, is_for_mutual_tls};
#[cfg(any(test, fuzzing))]
pub use request::read_any;
use request::{Body, LARGE_BODIES, describe, hidden};
pub use skew::Skew;
use wire::{Item, ListedAdminKey};
pub use wire::{ListedProject, Page};

/// A list of certificates.
pub struct Certificates {
    /// Page by page. A page that was read before is the same one.
    pub pages: Vec<Arc<Vec<Listed>>>,
    pub odd: OddItems,
    /// Limits how many long lists are in memory at once.
    _turn: Option<OwnedSemaphorePermit>,
}

/// The items of a list that are not understood.
#[derive(Debug, Default)]
pub struct OddItems {
    /// The errors of the first items.
    first: Vec<String>,
    count: usize,
}

impl OddItems {
    /// Adds those of a page.
    pub fn add(&mut self, odd: &[String]) {
        let room = SHOWN_ODD.saturating_sub(self.first.len());
        self.first.extend(odd.iter().take(room).cloned());
        self.count += odd.len();
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first ones and their number; `None` if there are none.
    pub fn summary(&self) -> Option<String> {
        let more = match self.count.saturating_sub(self.first.len()) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        (self.count > 0).then(|| format!("unreadable items: {}{more}", self.first.join(", ")))
    }
}

/// What the API says of one project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    Active(Project),
    Archived,
    NotFound,
}

const PROJECTS: &[&str] = &["organization", "projects"];
/// The API's largest page.
const LIMIT: &str = "100";
/// The most pages of the list of projects: 25,000 of them.
const MAX_PROJECT_PAGES: usize = 250;
/// The most pages of a list of certificates, of which an organization holds at most 50, or of admin
/// keys.
const MAX_PAGES: usize = 100;
/// A list of more pages than this is read while no other such list is, so that the memory for lists
/// is limited.
const LONG_LIST: usize = 5;
/// The longest cursor, in bytes. The API's cursors are ids.
const MAX_CURSOR: usize = 500;
/// How many unreadable items of a list a message names.
const SHOWN_ODD: usize = 3;

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

/// Whether a client certificate and this key (PEM) can be used together.
///
/// # Errors
/// What was expected of the key.
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

/// A client of one organization's Admin API. Shared by everything that reads it.
pub struct AdminApi {
    settings: Settings,
    client: Client,
    key: Mutex<Arc<Key>>,
    pace: Pace,
    requests: AtomicU64,
    /// How the requests since the last time were answered.
    answers: Mutex<Answers>,
    skew: Skew,
    /// Limits how many large answers are in memory at once.
    large_bodies: Semaphore,
    long_lists: Arc<Semaphore>,
}

/// How many requests were answered how: by the status (`200`), or `timeout` or `connection` where
/// there was no answer.
pub type Answers = BTreeMap<String, u64>;

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
            .default_headers(
                [(header::ACCEPT, HeaderValue::from_static("application/json"))]
                    .into_iter()
                    .collect(),
            )
            .retry(reqwest::retry::never());
        if is_loopback(&settings.base_url) {
            builder = builder.no_proxy();
        }
        if let Some(ca) = &settings.ca {
            builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(&ca.0)?);
        }
        if let Some(identity) = &settings.identity {
            let key = identity.key.read()?;
            builder = builder.identity(together(&identity.certificate, key.expose_secret())?);
        }
        Ok(AdminApi {
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

    /// How the requests since the last time were answered, retries included.
    pub fn take_answers(&self) -> Answers {
        std::mem::take(&mut *self.lock_answers())
    }

    /// How far the API's clock is ahead of this machine's, by the answers since the last time;
    /// `None` without any.
    pub fn take_skew(&self) -> Option<TimeDelta> {
        self.skew.take()
    }

    /// The pages of the list of projects, each as it comes; archived ones only if asked for.
    pub fn projects(&self, archived: bool) -> Projects<'_> {
        let asked: &[_] = if archived { &[("include_archived", "true")] } else { &[] };
        Projects(self.pages(PROJECTS, asked, MAX_PROJECT_PAGES))
    }

    /// Every certificate that the project lists; `None` if the API says that the project was
    /// archived meanwhile. A 404 alone says nothing of a project that is listed: it may be a lost
    /// route or a missing permission.
    ///
    /// # Errors
    /// If the list could not be read to its end.
    pub async fn project_certificates(
        &self,
        id: &ProjectId,
        archived: bool,
        recent: &Recent,
    ) -> Result<Option<Certificates>, ApiFault> {
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

    /// What the API says of one project.
    ///
    /// # Errors
    /// If the API does not answer the question.
    pub async fn project(&self, id: &ProjectId) -> Result<Presence, ApiFault> {
        let path = ["organization", "projects", id.as_str()];
        match self.get::<ListedProject>(&path, &[]).await {
            Ok(project) if project.archived => Ok(Presence::Archived),
            Ok(project) => Ok(Presence::Active(project.project)),
            Err(fault) if fault.is_not_found() => Ok(Presence::NotFound),
            Err(fault) => Err(fault),
        }
    }

    /// Every certificate of the organization, with whether it is active for all projects.
    ///
    /// # Errors
    /// Where the list could not be read to its end.
    pub async fn organization_certificates(&self) -> Result<Certificates, ApiFault> {
        self.certificates(&["organization", "certificates"], &Recent::default()).await
    }

    /// The organization's admin keys, each with whether what the API shows of it fits the key in
    /// use.
    ///
    /// # Errors
    /// Where the list could not be read to its end; some keys may not read it.
    pub async fn admin_keys(&self) -> Result<Vec<AdminKey>, ApiFault> {
        let path = ["organization", "admin_api_keys"];
        let mut pages = self.pages::<ListedAdminKey>(&path, &[], MAX_PAGES);
        let (key, mut keys) = (self.key(), Vec::new());
        while let Some(page) = pages.next(|body| self.parse_page(body, &path)).await? {
            if let Some(why) = page.odd.first() {
                return Err(ApiFault::new(Kind::Shape(why.clone()), &describe(&path)));
            }
            let listed = page.data.iter();
            keys.extend(listed.map(|one| one.admin_key(key.secret.expose_secret())));
        }
        if keys.is_empty() {
            // The key in use is one of them.
            return Err(ApiFault::new(Kind::EmptyList("admin keys"), &describe(&path)));
        }
        Ok(keys)
    }

    async fn certificates(&self, path: &[&str], recent: &Recent) -> Result<Certificates, ApiFault> {
        let mut pages = self.pages::<Listed>(path, &[], MAX_PAGES);
        let pages_read = Vec::with_capacity(1);
        let mut listed = Certificates { pages: pages_read, odd: OddItems::default(), _turn: None };
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
        asked: &'static [(&'static str, &'static str)],
        most: usize,
    ) -> Pages<'a, T> {
        let (after, seen, item) = (Some(None), HashSet::new(), PhantomData);
        Pages { api: self, path, asked, most, after, seen, item }
    }
}

/// The pages of the list of projects.
pub struct Projects<'a>(Pages<'a, ListedProject>);

impl Projects<'_> {
    /// The next page; `None` after the last one.
    ///
    /// # Errors
    /// If it could not be read; then there is no next one.
    pub async fn next(&mut self) -> Result<Option<Page<ListedProject>>, ApiFault> {
        let api = self.0.api;
        self.0.next(|body| api.parse_page(body, PROJECTS)).await
    }
}

/// The pages of a list, following `last_id` while `has_more` is not false, as the official clients.
struct Pages<'a, T> {
    api: &'a AdminApi,
    path: &'a [&'a str],
    asked: &'static [(&'static str, &'static str)],
    /// How many there may be.
    most: usize,
    /// Behind what the next one begins; `None` where there is none.
    after: Option<Option<String>>,
    seen: HashSet<String>,
    item: PhantomData<T>,
}

impl<T: Item> Pages<'_, T> {
    async fn next(
        &mut self,
        read: impl FnOnce(&Body) -> Result<Page<T>, ApiFault>,
    ) -> Result<Option<Page<T>>, ApiFault> {
        let Some(after) = self.after.take() else {
            return Ok(None);
        };
        let mut query = vec![("limit", LIMIT)];
        query.extend(self.asked);
        query.extend(after.iter().map(|after| ("after", after.as_str())));
        let page = read(&self.api.body(self.path, &query).await?)?;
        let fault = |kind| Err(ApiFault::new(kind, &describe(self.path)));

        let next = match (page.has_more, page.is_empty, &page.last_id) {
            (Some(false), _, _) | (None, true, _) | (None, _, None) => return Ok(Some(page)),
            (Some(true), true, _) | (Some(true), _, None) => return fault(Kind::EmptyPageWithMore),
            (None | Some(true), false, Some(next)) => next.clone(),
        };
        if next.len() > MAX_CURSOR {
            let why = format!("last_id: {} bytes long, an id has about 30", next.len());
            return fault(Kind::Shape(why));
        }
        if !self.seen.insert(next.clone()) {
            let next = hidden(&next, &self.api.key().secret);
            return fault(Kind::Loop(one_line(&next, 80)));
        }
        if self.seen.len() >= self.most {
            return fault(Kind::Endless(self.most));
        }
        self.after = Some(Some(next));
        Ok(Some(page))
    }
}
