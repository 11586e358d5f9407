//! The rows of the tables, in words.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use super::{frame::DisplayTime, link};
use crate::{
    domain::{
        delivery::{DeliveryRow, DeliveryState},
        status::Status,
    },
    message::wording,
    view::{self, CertificateRow, Coverage},
};

/// A certificate in a list.
#[derive(Serialize)]
pub struct Certificate {
    pub href: String,
    pub title: String,
    pub id: String,
    pub organization: String,
    /// `critical`, `warning`, `info`, or empty.
    pub severity: &'static str,
    /// The severity, or else `calm`, `unknown` or `none`.
    pub level: &'static str,
    pub status: String,
    pub stage: Option<String>,
    pub expires: Option<DisplayTime>,
    pub expired: bool,
    pub scope: String,
    pub successor: String,
    pub successor_href: String,
    /// Whether a needed successor is missing.
    pub alone: bool,
    /// The recommended next step.
    pub next: Option<String>,
    pub silence: Option<String>,
    pub stale: bool,
}

impl Certificate {
    pub fn of(row: &CertificateRow, now: DateTime<Utc>, timezone: Tz) -> Certificate {
        let view = &row.view;
        let expired = view.expires_at.is_some_and(|at| at <= now);
        let (successor, alone) = successor(row);
        Certificate {
            href: link::certificate(&row.organization, &view.id),
            title: view.title().to_owned(),
            id: view.id.to_string(),
            organization: row.organization.to_string(),
            severity: row.severity.map_or("", |severity| severity.as_str()),
            level: match (row.severity, row.status) {
                (Some(severity), _) => severity.as_str(),
                (None, Status::UnknownActivity | Status::UnknownExpiry) => "unknown",
                (None, Status::Healthy) => "calm",
                (
                    None,
                    Status::Inactive | Status::Expired | Status::Expiring | Status::NotYetValid,
                ) => "none",
            },
            status: status(row.status).to_owned(),
            stage: row.stage.clone(),
            expires: view.expires_at.map(|at| DisplayTime::new(at, now, timezone)),
            expired,
            scope: row.scope(),
            successor,
            successor_href: row
                .successor
                .as_ref()
                .map(|one| link::certificate(&row.organization, &one.id))
                .unwrap_or_default(),
            alone,
            next: row.next_step(),
            silence: row.silence(timezone),
            stale: row.stale,
        }
    }
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Expired => "expired",
        Status::Expiring => "expiring",
        Status::UnknownExpiry => "expiry unknown",
        Status::NotYetValid => "not yet valid",
        Status::UnknownActivity => "activity unknown",
        Status::Inactive => "not active",
        Status::Healthy => "healthy",
    }
}

/// The successor in words, and whether a needed one is missing.
fn successor(row: &CertificateRow) -> (String, bool) {
    if row.view.active_in.projects_total == 0 || row.view.expires_at.is_none() {
        return (String::new(), false);
    }
    let (left, needed) = (row.left_alone(), row.severity.is_some());
    let without = || wording::count(left, "project");
    match &row.successor {
        Some(successor) if left == 0 => (successor.title().to_owned(), false),
        Some(successor) => (format!("{}; none in {}", successor.title(), without()), needed),
        None => ("none".to_owned(), needed),
    }
}

/// A project in a list.
#[derive(Serialize)]
pub struct Project {
    pub title: String,
    pub id: String,
    pub organization: String,
    /// The severity, or else `calm`, `unknown` or `none`.
    pub level: &'static str,
    pub coverage: &'static str,
    pub uncovered: Option<DisplayTime>,
    pub ended_by: Option<(String, String)>,
    pub certificates: usize,
    pub unreadable: Option<String>,
    pub read: Option<DisplayTime>,
}

impl Project {
    pub fn of(row: &view::Project, now: DateTime<Utc>, timezone: Tz) -> Project {
        let moment = |at| DisplayTime::new(at, now, timezone);
        Project {
            title: row.title().to_owned(),
            id: row.id.to_string(),
            organization: row.organization.to_string(),
            level: match (row.severity, row.coverage) {
                (Some(severity), _) => severity.as_str(),
                (None, Coverage::Unknown) => "unknown",
                (None, Coverage::Covered) => "calm",
                (
                    None,
                    Coverage::Uncovered | Coverage::Unprotected | Coverage::Ending | Coverage::None,
                ) => "none",
            },
            coverage: match row.coverage {
                Coverage::Uncovered if row.ignored => "no valid certificate (ignored)",
                Coverage::Uncovered => "no valid certificate",
                Coverage::Unprotected if row.acknowledged => {
                    "mutual TLS is off: no certificate is active (acknowledged)"
                }
                Coverage::Unprotected => "mutual TLS is off: no certificate is active",
                Coverage::Ending => "valid, but expires soon",
                Coverage::Unknown => "unknown: never read",
                Coverage::Covered => "valid",
                Coverage::None => "no certificate is active",
            },
            uncovered: row.uncovered_from.map(moment),
            ended_by: row
                .ended_by
                .as_ref()
                .map(|id| (link::certificate(&row.organization, id), id.to_string())),
            certificates: row.certificates,
            unreadable: row
                .unreadable
                .as_ref()
                .map(|one| format!("unreadable since {}: {}", moment(one.since).local, one.error)),
            read: row.read_at.map(moment),
        }
    }
}

/// A delivery in a list.
#[derive(Serialize)]
pub struct Delivery {
    pub id: String,
    pub at: DisplayTime,
    pub organization: Option<String>,
    pub notifier: String,
    pub receiver: String,
    pub summary: String,
    pub state: String,
    /// `critical`, `warning` or empty.
    pub severity: &'static str,
    pub attempts: u32,
    pub next: Option<DisplayTime>,
    pub answer: String,
    pub late: Option<String>,
    /// Whether it can be retried.
    pub retryable: bool,
}

impl Delivery {
    pub fn of(row: &DeliveryRow, now: DateTime<Utc>, timezone: Tz) -> Delivery {
        let moment = |at| DisplayTime::new(at, now, timezone);
        let failed = row.attempts > 0 && row.last.is_some();
        let (state, severity, retryable) = match row.state {
            DeliveryState::Pending if failed => ("not delivered yet", "warning", true),
            DeliveryState::Pending => ("pending", "", false),
            DeliveryState::Delivered => ("delivered", "", false),
            DeliveryState::Rejected => ("rejected", "critical", true),
            DeliveryState::GivenUp => ("given up", "critical", true),
            DeliveryState::Superseded => ("superseded", "", false),
            DeliveryState::Cancelled => ("cancelled", "", false),
        };
        Delivery {
            id: row.id.to_string(),
            at: moment(row.created_at),
            organization: row.organization.clone(),
            notifier: row.notifier.clone(),
            receiver: row.receiver.clone(),
            summary: row.summary.clone(),
            state: state.to_owned(),
            severity,
            attempts: row.attempts,
            next: row.next_attempt_at.filter(|_| failed).map(moment),
            answer: row.answer(),
            // An alert of the first possible scan is on time.
            late: row.late.filter(|late| late.num_minutes() > 0).map(wording::span),
            retryable,
        }
    }
}
