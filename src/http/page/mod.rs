//! The HTML pages.
//!
//! Each page is rendered on the server from one snapshot, without scripts and external resources,
//! and reused until the data changes. Only the template engine escapes external text.

mod certificate;
mod drills;
mod filter;
mod frame;
mod instances;
pub mod link;
mod lists;
mod message_link;
mod overview;
mod rows;
mod runbook;
mod timeline;
mod verdict;

use aws_lc_rs::digest;
use axum::{
    Router,
    body::Bytes,
    extract::{Extension, Form, Path, State},
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use minijinja::{Environment, UndefinedBehavior, syntax::SyntaxConfig, value::Serde};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::LazyLock};
use uuid::Uuid;

use super::{
    Shared, changes,
    guard::{self, Caller},
    problem::Problem,
    snapshot::Snapshot,
};
use crate::{
    domain::{acknowledgement::NewAcknowledgement, day::instant},
    usecase::acknowledge::Target,
};
use frame::Frame;
pub use message_link::router as message_link;

/// The only style sheet. Pages embed it, so that a saved page keeps its look.
const STYLE: &str = include_str!("style.css");
/// The number of cached pages.
const KEPT: usize = 64;

/// The Content-Security-Policy of every response: no scripts, no external resources, no frames
/// (Content Security Policy Level 3).
pub fn policy() -> HeaderValue {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let digest = digest::digest(&digest::SHA256, STYLE.as_bytes());
        let hash = base64(digest.as_ref());
        format!(
            "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; form-action 'self'; base-uri 'none'; \
             frame-ancestors 'none'"
        )
    });
    // The policy is always a valid header value.
    HeaderValue::from_str(&POLICY).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

fn base64(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

/// The templates and the rendered pages.
pub struct Pages {
    templates: Environment<'static>,
    kept: Mutex<CachedPages>,
}

/// The cached pages of one snapshot.
#[derive(Default)]
struct CachedPages {
    of: u64,
    pages: HashMap<String, Bytes>,
}

impl Pages {
    /// # Errors
    /// Never for the built-in templates.
    pub fn new() -> Result<Pages, minijinja::Error> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        templates.set_syntax(syntax);
        templates.add_global("style", minijinja::Value::from_safe_string(STYLE.to_owned()));
        for (name, text) in [
            ("base.html", include_str!("templates/base.html")),
            ("parts.html", include_str!("templates/parts.html")),
            ("overview.html", include_str!("templates/overview.html")),
            ("certificates.html", include_str!("templates/certificates.html")),
            ("certificate.html", include_str!("templates/certificate.html")),
            ("projects.html", include_str!("templates/projects.html")),
            ("deliveries.html", include_str!("templates/deliveries.html")),
            ("link.html", include_str!("templates/link.html")),
            ("confirm.html", include_str!("templates/confirm.html")),
            ("login.html", include_str!("templates/login.html")),
            ("problem.html", include_str!("templates/problem.html")),
            ("runbook.html", include_str!("templates/runbook.html")),
        ] {
            templates.add_template(name, text)?;
        }
        Ok(Pages { templates, kept: Mutex::default() })
    }

    fn render(&self, template: &str, what: impl Serialize) -> Result<Bytes, minijinja::Error> {
        let text = self.templates.get_template(template)?.render(Serde(&what))?;
        Ok(text.into())
    }

    /// The cached page of this snapshot.
    fn kept(&self, snapshot: &Snapshot, key: &str) -> Option<Bytes> {
        let kept = self.kept.lock();
        kept.pages.get(key).filter(|_| kept.of == snapshot.number).cloned()
    }

    fn keep(&self, snapshot: &Snapshot, key: String, page: Bytes) {
        let mut kept = self.kept.lock();
        if kept.of != snapshot.number || kept.pages.len() >= KEPT {
            *kept = CachedPages { of: snapshot.number, pages: HashMap::new() };
        }
        kept.pages.insert(key, page);
    }

    /// The sign-in form.
    pub fn login(&self, status: StatusCode, next: &str, wrong: bool) -> Response {
        #[derive(Serialize)]
        struct Login<'a> {
            next: &'a str,
            wrong: bool,
        }
        html(status, self.render("login.html", Login { next, wrong }))
    }

    pub fn problem(&self, problem: &Problem, caller: Caller) -> Response {
        #[derive(Serialize)]
        struct Failed<'a> {
            frame: Frame,
            status: u16,
            detail: &'a str,
        }
        let status = problem.status();
        let title = status.canonical_reason().unwrap_or("A problem");
        let frame = Frame::bare(caller, title);
        let failed = Failed { frame, status: status.as_u16(), detail: problem.detail() };
        html(status, self.render("problem.html", failed))
    }
}

fn html(status: StatusCode, page: Result<Bytes, minijinja::Error>) -> Response {
    match page {
        Ok(page) => {
            (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
        }
        Err(error) => {
            tracing::error!(error = %format!("{error:#}"), "cannot render a page");
            super::problem::internal()
        }
    }
}

/// A page: its template and data.
trait Page: Serialize {
    const TEMPLATE: &'static str;
}

pub fn router() -> Router<Shared> {
    Router::new()
        .route("/", get(overview))
        .route("/certificates", get(certificates))
        .route("/certificates/{organization}/{id}", get(certificate))
        .route("/certificates/{organization}/{id}/acknowledge", post(acknowledge))
        .route("/acknowledgements/{id}/withdraw", post(withdraw))
        .route("/projects", get(projects))
        .route("/deliveries", get(deliveries))
        .route("/deliveries/{id}/retry", post(retry))
        .route("/runbook", get(runbook))
        .route("/scan", post(scan))
}

/// A page of the current snapshot, rendered or from the cache.
async fn shown<P: Page>(
    shared: &Shared,
    caller: Caller,
    uri: &Uri,
    make: impl AsyncFnOnce(&Snapshot, Frame) -> Result<P, Problem>,
) -> Response {
    let pages = &shared.pages;
    let snapshot = match shared.keeper.snapshot().await {
        Ok(snapshot) => snapshot,
        Err(error) => return pages.problem(&error.into(), caller),
    };
    let key = format!("{caller:?} {uri}");
    if let Some(page) = pages.kept(&snapshot, &key) {
        return html(StatusCode::OK, Ok(page));
    }
    let frame = Frame::of(&snapshot, caller, uri, &shared.key);
    match make(&snapshot, frame).await {
        Ok(page) => {
            let page = pages.render(P::TEMPLATE, page);
            if let Ok(page) = &page {
                pages.keep(&snapshot, key, page.clone());
            }
            html(StatusCode::OK, page)
        }
        Err(problem) => pages.problem(&problem, caller),
    }
}

async fn overview(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    shown(&shared, caller, &uri, async |snapshot, frame| overview::page(snapshot, frame, &uri))
        .await
}

async fn certificates(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    shown(&shared, caller, &uri, async |snapshot, frame| lists::certificates(snapshot, frame, &uri))
        .await
}

async fn projects(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    shown(&shared, caller, &uri, async |snapshot, frame| lists::projects(snapshot, frame, &uri))
        .await
}

async fn deliveries(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Response {
    shown(&shared, caller, &uri, async |snapshot, frame| {
        lists::deliveries(&shared, snapshot, frame, &uri).await
    })
    .await
}

async fn certificate(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    Path((organization, id)): Path<(String, String)>,
) -> Response {
    shown(&shared, caller, &uri, async |snapshot, frame| {
        certificate::page(&shared, snapshot, frame, &organization, &id).await
    })
    .await
}

/// The runbook needs no database, so it is available during an outage.
async fn runbook(State(shared): State<Shared>, Extension(caller): Extension<Caller>) -> Response {
    html(StatusCode::OK, shared.pages.render(runbook::Page::TEMPLATE, runbook::page(caller)))
}

/// Redirects to a page after a write, or shows the error.
fn written(shared: &Shared, caller: Caller, done: Result<(), Problem>, back: &str) -> Response {
    match done {
        // RFC 9110, section 15.4.4: the next request is a GET.
        Ok(()) => Redirect::to(back).into_response(),
        Err(problem) => shared.pages.problem(&problem, caller),
    }
}

#[derive(Deserialize)]
struct AcknowledgeForm {
    until: String,
    reason: String,
    by: Option<String>,
}

/// The page to return to.
#[derive(Deserialize)]
struct From {
    back: Option<String>,
}

async fn acknowledge(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path((organization, id)): Path<(String, String)>,
    Form(asked): Form<AcknowledgeForm>,
) -> Response {
    let timezone = shared.service.configured.borrow().timezone;
    let done = async {
        let until = instant(&asked.until, timezone).ok_or_else(|| {
            Problem::bad_request(
                "until: expected a date such as 2027-03-01; the acknowledgement ends with that day",
            )
        })?;
        let new = NewAcknowledgement { id: None, until, reason: asked.reason, by: asked.by };
        let target = Target::Certificate(id.clone());
        changes::acknowledge(&shared, &organization, target, new).await.map(drop)
    };
    written(&shared, caller, done.await, &link::certificate(&organization, &id))
}

async fn withdraw(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
    Form(from): Form<From>,
) -> Response {
    let done = changes::withdraw(&shared, id).await;
    written(&shared, caller, done, guard::local(from.back.as_deref()))
}

async fn retry(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<Uuid>,
) -> Response {
    written(&shared, caller, changes::retry(&shared, id).await.map(drop), "/deliveries")
}

async fn scan(State(shared): State<Shared>, Extension(caller): Extension<Caller>) -> Response {
    let asked = changes::scan(&shared);
    shared.keeper.invalidate().await;
    written(&shared, caller, asked, "/")
}
