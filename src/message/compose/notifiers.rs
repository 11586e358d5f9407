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

/// Decisions about notifiers.
#[derive(Clone, Copy, Debug)]
pub struct Raised<'a> {
    pub decisions: &'a [Decision],
    /// The time until the notifications are out of date.
    pub stale_at: DateTime<Utc>,
    pub now: DateTime<Utc>,
}

/// The notifications about failing and recovered notifiers: one for a digest, else one for each.
pub fn of_notifiers(
    new_id: impl Fn() -> Uuid,
    notifier: &NotifierState,
    raised: &Raised<'_>,
    failing: &[Failing<'_>],
) -> Vec<Composed> {
    about_notifiers(new_id, notifier, raised, |subject, is_over| {
        let Subject::Notifier(name) = subject else { return None };
        let found = failing.iter().find(|one| one.notifier == name).filter(|_| !is_over);
        let receivers = found.map_or(&[][..], |one| &one.receivers);
        let event = if is_over { Event::NotifierRecovered } else { Event::NotifierFailing };
        let body = Body::Failing(FailingView {
            notifier: name.clone(),
            total: receivers.len(),
            receivers: receivers
                .iter()
                .take(MAX_PROJECTS)
                .map(|failure| ReceiverView {
                    receiver: failure.receiver.clone(),
                    since: failure.since,
                    why: failure.detail.clone(),
                    refused: failure.refused,
                })
                .collect(),
        });
        Some((event, body))
    })
}

/// The notifications for decisions about notifiers. `view` returns the event and the body of an
/// alert, or of its resolution.
pub(super) fn about_notifiers(
    new_id: impl Fn() -> Uuid,
    notifier: &NotifierState,
    raised: &Raised<'_>,
    view: impl Fn(&Subject, bool) -> Option<(Event, Body)>,
) -> Vec<Composed> {
    let sent = raised.decisions.iter().filter(|one| one.is_sent(&notifier.routing));
    let mut entries: Vec<(Alert, Subject)> = sent
        .filter_map(|decision| {
            let subject = decision.subject();
            let (event, body) = view(subject, matches!(decision, Decision::Resolve { .. }))?;
            let alert = match decision {
                Decision::Send { reason, reached, sent, .. } => Alert {
                    stage: Some(reached.label.clone()),
                    last: true,
                    due_at: sent.due_at,
                    ..Alert::new(event, Some(*reason), reached.severity, body)
                },
                Decision::Resolve { reason, sent, .. } => Alert {
                    stage: Some(sent.label.clone()),
                    ..Alert::new(event, Some(*reason), sent.severity, body)
                },
                Decision::Redate { .. } | Decision::HoldBack { .. } => return None,
            };
            let closes = Some(closes(&notifier.ledger, decision));
            Some((Alert { closes, ..alert }, subject.clone()))
        })
        .collect();
    entries.sort_by_key(|(alert, _)| alert.event.is_resolution());
    let message = |entries: &[(Alert, Subject)]| Composed {
        notification: Notification {
            id: new_id(),
            created_at: raised.now,
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
            stale_at: Some(raised.stale_at),
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
