//! The edge to whoever asks over HTTP: whether the process works, whether it does its work, and how late it was.
//!
//! Nothing here changes anything, and nothing secret is in an answer. A request that cannot be answered from
//! the state says so, and delays no scan.

mod metrics;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{clock, domain::certificate::OrganizationName, store::Store};

/// How long the state may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where requests are taken; `None` where none are.
    pub listen: Option<SocketAddr>,
}

/// How the service's work goes, as its loops report it.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub organizations: BTreeMap<OrganizationName, Watched>,
    /// Why the outbox of a notifier cannot be worked on.
    pub outbox: BTreeMap<String, String>,
}

/// How the scans of one organization go.
#[derive(Clone, Debug)]
pub struct Watched {
    /// By when the next scan has ended, where all goes well.
    pub overdue_at: DateTime<Utc>,
    /// The last one that was kept.
    pub last: Option<Last>,
    /// Why the latest could not be kept.
    pub fault: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Last {
    pub finished_at: DateTime<Utc>,
    pub complete: bool,
    /// What could not be read, in words.
    pub faults: Vec<String>,
    /// How far the API's clock is ahead, in seconds, where that is too much.
    pub clock_skew: Option<i64>,
}

#[derive(Clone)]
struct Shared {
    store: Store,
    status: watch::Receiver<Status>,
}

/// Takes the address, so that one that cannot be had is known before anything else begins.
///
/// # Errors
/// Where it cannot be had.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers requests until `stop`.
///
/// # Errors
/// Where the listener fails.
pub async fn serve(
    listener: TcpListener,
    store: Store,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Shared { store, status });
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// The process works: it has answered.
async fn healthz() -> Response {
    answer(StatusCode::OK, json!({ "status": "ok" }))
}

/// It does its work: the state can be read, what was to be kept was, and no scan is overdue. What could not be read of an
/// organization is said, and makes nothing unready: that is what certvigil itself tells.
async fn readyz(State(shared): State<Shared>) -> Response {
    let now = clock::now();
    let mut reasons = Vec::new();
    match tokio::time::timeout(PATIENCE, shared.store.ping()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => reasons.push(format!("the state cannot be read: {error}")),
        Err(_) => reasons.push(format!("the state has not answered within {PATIENCE:?}")),
    }
    let status = shared.status.borrow().clone();
    for (notifier, fault) in &status.outbox {
        reasons.push(format!("the outbox of {notifier} cannot be worked on: {fault}"));
    }
    for (organization, watched) in &status.organizations {
        if let Some(fault) = &watched.fault {
            reasons.push(format!("the latest scan of {organization} could not be kept: {fault}"));
        }
        if watched.overdue_at < now {
            reasons.push(format!(
                "the scan of {organization} is overdue since {}",
                instant(watched.overdue_at)
            ));
        }
    }
    let (code, word) = match reasons.is_empty() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    let organizations: Value = status.organizations.iter().map(organization).collect();
    answer(code, json!({ "status": word, "reasons": reasons, "organizations": organizations }))
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let lateness = match tokio::time::timeout(PATIENCE, shared.store.lateness()).await {
        Ok(Ok(lateness)) => lateness,
        Ok(Err(error)) => return unavailable(&format!("the state cannot be read: {error}")),
        Err(_) => return unavailable(&format!("the state has not answered within {PATIENCE:?}")),
    };
    match metrics::exposition(lateness) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => unavailable(&error.to_string()),
    }
}

fn unavailable(why: &str) -> Response {
    answer(StatusCode::SERVICE_UNAVAILABLE, json!({ "error": why }))
}

/// How many faults of a scan an answer lists.
const MAX_FAULTS: usize = 10;

fn organization((name, watched): (&OrganizationName, &Watched)) -> Value {
    let last = watched.last.as_ref();
    json!({
        "name": name,
        "last_scan_at": last.map(|last| instant(last.finished_at)),
        "complete": last.map(|last| last.complete),
        "unreadable": last.map(|last| last.faults.iter().take(MAX_FAULTS).collect::<Vec<_>>()),
        "clock_skew_seconds": last.and_then(|last| last.clock_skew),
        "next_scan_by": instant(watched.overdue_at),
    })
}

fn answer(code: StatusCode, body: Value) -> Response {
    (code, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
