//! The decisions in the form that a notifier needs: a digest, incidents, or refreshes.

use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

use super::{super::subject::Subject, Decision, Ledger, Reason};
use crate::domain::notifier::{Grouping, NotifierState};

/// Adapts the decisions to the grouping of a notifier.
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

/// A flapping alert is not resolved in between: it would count as resolved for a day, although its
/// reason is there.
fn drop_flapping(decisions: Vec<Decision>, ledger: &Ledger, now: DateTime<Utc>) -> Vec<Decision> {
    let lasts = |decision: &Decision| match decision {
        Decision::Resolve { subject, sent, .. } => !ledger.is_flipping(subject, sent, now),
        Decision::Send { .. } | Decision::Redate { .. } | Decision::HoldBack { .. } => true,
    };
    decisions.into_iter().filter(lasts).collect()
}

/// The same for a service that opens and closes an incident for each subject: an alert that takes the place of a
/// corrected one closes its incident, too.
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

/// The refreshes: open alerts without a decision now, as they were sent, for receivers that treat
/// an alert without a refresh as resolved. They are sent, and not learnt. Acknowledged and stale
/// ones are among them, because neither is resolved. `ledger` is the one before the decisions.
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
