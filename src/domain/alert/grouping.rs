//! Adapts decisions to the grouping of a notifier: a digest, incidents, or refreshes.

use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

use super::{super::subject::Subject, Decision, Ledger, Reason};
use crate::domain::notifier::{Grouping, NotifierState};

pub(in crate::domain) fn apply_grouping(
    decisions: Vec<Decision>,
    notifier: &NotifierState,
    now: DateTime<Utc>,
) -> Vec<Decision> {
    match notifier.grouping {
        Grouping::Digest => drop_flapping(decisions, &notifier.ledger, now),
        Grouping::EachAlert | Grouping::EachAlertRefreshed => {
            for_incidents(decisions, &notifier.ledger, now)
        }
    }
}

/// Drops the resolution of a flapping alert: its next opening is held back, so it would count as
/// resolved while it is open.
fn drop_flapping(decisions: Vec<Decision>, ledger: &Ledger, now: DateTime<Utc>) -> Vec<Decision> {
    let lasts = |decision: &Decision| match decision {
        Decision::Resolve { subject, sent, .. } => !ledger.would_be_held_back(subject, sent, now),
        Decision::Send { .. } | Decision::Redate { .. } | Decision::HoldBack { .. } => true,
    };
    decisions.into_iter().filter(lasts).collect()
}

/// For services with one incident for each subject: drops the resolution of a subject that also has
/// a new alert. The new alert closes the incident of the corrected one.
fn for_incidents(
    mut decisions: Vec<Decision>,
    ledger: &Ledger,
    now: DateTime<Utc>,
) -> Vec<Decision> {
    let sent = |one: &Decision| matches!(one, Decision::Send { .. }).then(|| one.subject().clone());
    let sent: BTreeSet<Subject> = decisions.iter().filter_map(sent).collect();
    decisions
        .retain(|one| !matches!(one, Decision::Resolve { subject, .. } if sent.contains(subject)));
    drop_flapping(decisions, ledger, now)
}

/// The refreshes for receivers that treat silence as resolved: each open alert that is not sent
/// now, as it was sent. They do not change the ledger. Acknowledged and stale alerts are included,
/// because neither is resolved. `ledger` is the ledger before `decisions`.
pub fn refresh_open(ledger: &Ledger, decisions: &[Decision]) -> Vec<Decision> {
    let mut after = ledger.clone();
    decisions.iter().for_each(|decision| after.learn(decision));
    let sent_now: BTreeSet<&Subject> = decisions
        .iter()
        .filter(|one| matches!(one, Decision::Send { .. }))
        .map(Decision::subject)
        .collect();
    let open = after.open.into_iter().filter(|(subject, _)| !sent_now.contains(subject));
    open.map(|(subject, sent)| Decision::Send {
        subject,
        reason: Reason::Refresh,
        reached: sent.reached(),
        sent,
    })
    .collect()
}
