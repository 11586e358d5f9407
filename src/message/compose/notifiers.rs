//! Notifications about other notifiers. They belong to no organization.

use chrono::{DateTime, Utc};
use std::collections::BTreeSet;
use uuid::Uuid;

use super::{Composed, MAX_PROJECTS, closes};
use crate::{
    domain::{
        alert::Decision,
        failing::Failing,
        notifier::{Grouping, NotifierState},
        subject::Subject,
        threshold::Severity,
    },
    message::{Alert, Body, Event, FailingView, Notification, ReceiverView},
};

/// The notifications about failing and recovered notifiers: one for a digest, else one for each.
pub fn of_notifiers(
    new_id: impl Fn() -> Uuid,
    notifier: &NotifierState,
    decisions: &[Decision],
    failing: &[Failing<'_>],
    stale_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Vec<Composed> {
    let sent = decisions.iter().filter(|one| one.is_sent(&notifier.routing));
    let mut entries: Vec<(Alert, Subject)> = sent
        .filter_map(|decision| {
            let mut alert = alert(decision, failing)?;
            alert.closes = Some(closes(&notifier.ledger, decision));
            Some((alert, decision.subject().clone()))
        })
        .collect();
    entries.sort_by_key(|(alert, _)| alert.event.is_resolution());
    let message = |entries: &[(Alert, Subject)]| Composed {
        notification: Notification {
            id: new_id(),
            created_at: now,
            notifier: notifier.name.clone(),
            audience: notifier.routing.audience.clone(),
            organization: None,
            severity: entries
                .iter()
                .map(|(alert, _)| alert.severity)
                .max()
                .unwrap_or(Severity::Warning),
            scan: None,
            alerts: entries.iter().map(|(alert, _)| alert.clone()).collect(),
            alerts_total: entries.len(),
            stale_at,
        },
        subjects: entries.iter().map(|(_, subject)| subject.clone()).collect::<BTreeSet<_>>(),
    };
    match notifier.grouping {
        Grouping::Digest if entries.is_empty() => Vec::new(),
        Grouping::Digest => vec![message(&entries)],
        Grouping::EachAlert | Grouping::EachAlertRefreshed => {
            entries.chunks(1).map(message).collect()
        }
    }
}

fn alert(decision: &Decision, failing: &[Failing<'_>]) -> Option<Alert> {
    let Subject::Notifier(name) = decision.subject() else {
        return None;
    };
    let view = |failing: Option<&Failing<'_>>| FailingView {
        notifier: name.clone(),
        total: failing.map_or(0, |failing| failing.receivers.len()),
        receivers: failing
            .iter()
            .flat_map(|one| one.receivers.iter())
            .take(MAX_PROJECTS)
            .map(|failure| ReceiverView {
                receiver: failure.receiver.clone(),
                since: failure.since,
                why: failure.detail.clone(),
                refused: failure.refused,
            })
            .collect(),
    };
    match decision {
        Decision::Send { reason, reached, sent, .. } => {
            let failing = failing.iter().find(|one| one.notifier == name);
            Some(Alert {
                stage: Some(reached.label.clone()),
                last: true,
                due_at: sent.due_at,
                ..Alert::new(
                    Event::NotifierFailing,
                    Some(*reason),
                    reached.severity,
                    Body::Failing(view(failing)),
                )
            })
        }
        Decision::Resolve { reason, sent, .. } => Some(Alert {
            stage: Some(sent.label.clone()),
            ..Alert::new(
                Event::NotifierRecovered,
                Some(*reason),
                sent.severity,
                Body::Failing(view(None)),
            )
        }),
        Decision::Redate { .. } | Decision::HoldBack { .. } => None,
    }
}
