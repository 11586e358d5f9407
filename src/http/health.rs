//! Liveness and readiness. Both need no authentication; the details do, like the pages.

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::TimeDelta;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

use super::{ScanStatus, Shared, guard};
use crate::domain::{certificate::OrganizationName, day::rfc3339};

/// The time limit of the database query.
const PATIENCE: Duration = Duration::from_secs(5);
/// The minimum age of a delivery that counts as held back, even if `delivery.retry_max` is shorter.
const SOON: TimeDelta = TimeDelta::minutes(1);
/// The maximum number of errors of a scan in a response.
const MAX_FAULTS: usize = 10;

/// Liveness: the process responds, and no loop hangs.
pub async fn healthz(State(shared): State<Shared>) -> Response {
    match (shared.service.is_alive)() {
        true => answer(StatusCode::OK, json!({ "status": "ok" })),
        false => answer(StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "stalled" })),
    }
}

/// Readiness: the database is readable, scans are saved and not overdue, every organization was
/// read once, and no delivery is blocked or held back. Later unreadable lists are in the response
/// but do not affect readiness: certvigil alerts about them itself.
pub async fn readyz(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let now = shared.service.clock.now();
    let mut reasons = Vec::new();
    let configured = Arc::clone(&shared.service.configured.borrow());
    let held_back = shared.reading.held_back(now - configured.retry_max.max(SOON));
    match tokio::time::timeout(PATIENCE, held_back).await {
        Ok(Ok(held_back)) => {
            let is_configured =
                |name: &String| configured.notifiers.iter().any(|one| one.name == *name);
            let held_back = held_back.into_iter().filter(|one| is_configured(&one.notifier));
            reasons.extend(held_back.map(|one| {
                let (count, since) = (one.count, rfc3339(one.since));
                let name = &one.notifier;
                format!(
                    "deliveries of the notifier {name} pending without an attempt: {count} since \
                     {since}"
                )
            }));
        }
        Ok(Err(error)) => reasons.push(format!("database unavailable: {error}")),
        Err(_) => reasons.push(format!("the database did not answer within {PATIENCE:?}")),
    }
    let status = shared.service.status.borrow().clone();
    for (notifier, fault) in &status.outbox {
        reasons.push(format!("deliveries of the notifier {notifier} are blocked: {fault}"));
    }
    for (organization, watched) in &status.organizations {
        if let Some(fault) = &watched.fault {
            reasons.push(format!("the latest scan of {organization} was not saved: {fault}"));
        }
        if let Some(last) = watched.last.as_ref().filter(|_| watched.never_read) {
            let why = last.faults.first().map(String::as_str).unwrap_or_default();
            reasons.push(format!("the organization {organization} was never read: {why}"));
        }
        if watched.overdue_at < now {
            reasons.push(format!(
                "the scan of {organization} has been overdue since {}",
                rfc3339(watched.overdue_at)
            ));
        }
    }
    let (code, word) = match reasons.is_empty() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    if !guard::may_read(&shared, &parts).await {
        let detail = "details need a token: Authorization: Bearer … with the value of http.token \
                      or http.read_token";
        return answer(code, json!({ "status": word, "detail": detail }));
    }
    let organizations: Value = status.organizations.iter().map(organization).collect();
    answer(code, json!({ "status": word, "reasons": reasons, "organizations": organizations }))
}

fn organization((name, watched): (&OrganizationName, &ScanStatus)) -> Value {
    let last = watched.last.as_ref();
    json!({
        "name": name,
        "last_scan_at": last.map(|last| rfc3339(last.finished_at)),
        "complete": last.map(|last| last.complete),
        "unreadable": last.map(|last| last.faults.iter().take(MAX_FAULTS).collect::<Vec<_>>()),
        "clock_skew_seconds": last.and_then(|last| last.clock_skew),
        "next_scan_by": rfc3339(watched.overdue_at),
    })
}

fn answer(code: StatusCode, body: Value) -> Response {
    (code, Json(body)).into_response()
}
