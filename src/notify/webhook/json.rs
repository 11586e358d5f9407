//! `format = "json"`: the schema `certvigil.notification/1`, defined in `notification.schema.json`.
//! It changes only by additions.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::rfc3339;
use crate::{
    message::{
        Alert, Body, CandidateView, Notification, ProjectView, ReceiverView, UnprovenReceiverView,
        UnseenView, style::Links, wording,
    },
    view::{Candidate, CertificateDetails, Change, ProjectOfCertificate, Successor},
};

pub const SCHEMA: &str = "certvigil.notification/1";

/// The whole document, which is also the data of templates.
pub fn document(notification: &Notification, links: &Links, now: DateTime<Utc>) -> Value {
    let alerts = notification.alerts.iter().map(|alert| entry(alert, links, now));
    let alerts: Vec<Value> = alerts.collect();
    json!({
        "schema": SCHEMA,
        "id": notification.id,
        "sent_at": rfc3339(now),
        "notifier": notification.notifier,
        "organization": notification.organization,
        "severity": notification.severity,
        "summary": wording::summary(notification, now),
        "scan": notification.scan.as_ref().map(|scan| json!({
            "id": scan.id,
            "finished_at": rfc3339(scan.finished_at),
            "complete": scan.complete,
            "projects_read": scan.projects_read,
            "projects_unreadable": scan.projects_unreadable,
            "oldest_read_at": scan.oldest_reading.map(rfc3339),
            "clock_skew_seconds": scan.clock_skew,
        })),
        "page_url": links.page,
        "alerts": alerts,
        "alerts_total": notification.alerts_total,
    })
}

fn entry(alert: &Alert, links: &Links, now: DateTime<Utc>) -> Value {
    let mut entry = json!({
        "event": alert.event,
        "reason": alert.reason,
        "headline": wording::headline(alert, now),
        "severity": alert.severity,
        "stage": alert.stage,
        "last_stage": alert.last,
        "runbook_url": links.runbook(alert.event),
        "certificate": null,
        "successor": null,
        "candidates": [],
        "due_at": alert.due_at.map(rfc3339),
        "late_seconds": alert.late_by(now).map(|late| late.num_seconds()),
    });
    match &alert.body {
        Body::Certificate(body) => {
            entry["certificate"] = json!(CertificateDetails::of(&body.certificate, now));
            entry["successor"] = json!(body.successor.as_ref().map(Successor::from));
            entry["candidates"] = candidates(&body.candidates);
            if let Some(left) = &body.left_behind {
                entry["left_behind"] = json!({
                    "projects_covered": left.covered,
                    "projects_uncovered": left.uncovered,
                    "projects_unprotected": left.unprotected,
                    "projects": projects(&left.projects),
                });
            }
        }
        Body::Projects(view) => {
            entry["candidates"] = candidates(&view.candidates);
            entry["projects_total"] = view.total.into();
            entry["projects_elsewhere"] = view.elsewhere.into();
            entry["projects_remaining"] = view.remaining.into();
            entry["projects"] = json!(projects(&view.listed));
        }
        Body::Sight(view) => {
            entry["monitor"] = json!({
                "lists_total": view.total,
                "projects_affected": view.projects,
                "lists": view.unseen.iter().map(unseen).collect::<Value>(),
            });
        }
        Body::Credential(view) => {
            let left = view.expires_at.map(|expires_at| (expires_at - now).num_seconds());
            entry[view.kind.as_str()] = json!({
                "id": view.id,
                "name": view.name,
                "expires_at": view.expires_at.map(rfc3339),
                "expires_in_seconds": left,
                "own": view.own,
            });
        }
        Body::Failing(view) => {
            entry["failing_notifier"] = json!({
                "name": view.notifier,
                "receivers_total": view.total,
                "receivers": view.receivers.iter().map(failing_receiver).collect::<Value>(),
            });
        }
        Body::Unproven(view) => {
            entry["unproven_notifier"] = json!({
                "name": view.notifier,
                "receivers_total": view.total,
                "receivers": view.receivers.iter().map(unproven_receiver).collect::<Value>(),
            });
        }
        Body::Drill(view) => {
            entry["drill"] = json!({
                "confirm_by": rfc3339(view.confirm_by),
                "confirmed_at": view.confirmed_at.map(rfc3339),
                "id": alert.link,
                "url": links.answer(alert),
            });
        }
        Body::Summary(view) => entry["report"] = json!(view),
        Body::Changes(view) => {
            entry["changes"] = json!(view.listed.iter().map(Change::from).collect::<Vec<_>>());
            entry["changes_total"] = view.total.into();
        }
        Body::Test => {}
    }
    entry
}

fn failing_receiver(view: &ReceiverView) -> Value {
    json!({
        "receiver": view.receiver,
        "since": rfc3339(view.since),
        "error": view.why,
        "rejected": view.refused,
    })
}

fn unproven_receiver(view: &UnprovenReceiverView) -> Value {
    json!({
        "receiver": view.receiver,
        "drill_at": rfc3339(view.drill_at),
        "confirm_by": rfc3339(view.confirm_by),
        "confirmed_at": view.confirmed_at.map(rfc3339),
    })
}

/// A list that is unreadable for too long.
fn unseen(view: &UnseenView) -> Value {
    json!({
        "list": view.list,
        "project_id": view.project,
        "since": rfc3339(view.since),
        "error": view.why,
    })
}

fn candidates(views: &[CandidateView]) -> Value {
    json!(views.iter().map(Candidate::from).collect::<Vec<_>>())
}

fn projects(listed: &[ProjectView]) -> Vec<ProjectOfCertificate> {
    listed.iter().map(Into::into).collect()
}
