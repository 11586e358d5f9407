//! Notifications of drills, and about receivers that do not confirm them. They belong to no
//! organization.

use chrono::{DateTime, Utc};
use std::collections::BTreeSet;
use uuid::Uuid;

use super::{
    Composed, MAX_PROJECTS,
    notifiers::{Raised, about_notifiers},
};
use crate::{
    domain::{
        drill::{Drilled, Unproven},
        notifier::{Grouping, NotifierState},
        subject::Subject,
        threshold::Severity,
    },
    message::{Alert, Body, DrillView, Event, Notification, UnprovenReceiverView, UnprovenView},
};

/// A drill, or its end if `drilled` is given. Services with incidents get it as critical, so that
/// it wakes the same people as an expired certificate.
pub fn of_drill(
    id: Uuid,
    notifier: &NotifierState,
    confirm_by: DateTime<Utc>,
    over: Option<&Drilled>,
    now: DateTime<Utc>,
) -> Composed {
    let has_incidents = notifier.grouping != Grouping::Digest;
    let severity = if has_incidents { Severity::Critical } else { Severity::Info };
    let confirmed_at = over.filter(|one| one.unconfirmed.is_none());
    let confirmed_at = confirmed_at.and_then(|one| one.confirmed_at);
    let event = if over.is_some() { Event::DrillEnded } else { Event::Drill };
    let body = Body::Drill(DrillView { confirm_by, confirmed_at });
    let closes = over.is_some().then_some(severity).into_iter().collect();
    let alert = Alert { closes: Some(closes), ..Alert::new(event, None, severity, body) };
    Composed {
        notification: Notification {
            id,
            created_at: now,
            notifier: notifier.name.clone(),
            audience: notifier.routing.audience.clone(),
            organization: None,
            severity,
            scan: None,
            alerts: vec![alert],
            alerts_total: 1,
            stale_at: has_incidents.then_some(confirm_by),
        },
        subjects: BTreeSet::from([Subject::Drill]),
    }
}

/// The notifications about unproven receivers: one for a digest, else one for each notifier.
pub fn of_unproven(
    new_id: impl Fn() -> Uuid,
    notifier: &NotifierState,
    raised: &Raised<'_>,
    unproven: &[Unproven<'_>],
) -> Vec<Composed> {
    about_notifiers(new_id, notifier, raised, |subject, is_over| {
        let Subject::Proof(name) = subject else { return None };
        let found = unproven.iter().find(|one| one.notifier == name).filter(|_| !is_over);
        let receivers = found.map_or(&[][..], |one| &one.receivers);
        let view = |one: &&Drilled| {
            let unconfirmed = one.unconfirmed?;
            Some(UnprovenReceiverView {
                receiver: one.receiver.clone(),
                drill_at: unconfirmed.since,
                confirm_by: unconfirmed.until,
                confirmed_at: one.confirmed_at,
            })
        };
        let event = if is_over { Event::NotifierProven } else { Event::NotifierUnproven };
        let body = Body::Unproven(UnprovenView {
            notifier: name.clone(),
            total: receivers.len(),
            receivers: receivers.iter().filter_map(view).take(MAX_PROJECTS).collect(),
        });
        Some((event, body))
    })
}
