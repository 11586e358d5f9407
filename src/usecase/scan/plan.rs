//! The notifications and ledger entries of a scan for each notifier.

use chrono::{DateTime, Utc};
use std::{collections::BTreeSet, sync::Arc};

use super::super::Failed;
use crate::{
    domain::{
        alert::{Decision, ScanTime, Transition, all_open, decide, refresh_open},
        notifier::{Grouping, NotifierState},
    },
    message::compose::MessageContext,
    notify::Notifier,
    store::{LedgerVersion, MessageKind, Plan, Store, id_at},
};

/// `local` is the local clock, which the ledger uses.
pub(super) async fn plan(
    context: &MessageContext<'_>,
    transition: &Transition<'_>,
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    moment: ScanTime,
    local: DateTime<Utc>,
) -> Result<Vec<Plan>, Failed> {
    let mut plans = Vec::new();
    let organization = context.evaluation.organization;
    for (mut state, receivers) in notifiers.iter().flat_map(|notifier| notifier.states()) {
        let ledger = store.ledger(Some(organization), &state.ledger_name(), local).await;
        let (ledger, version) = ledger.map_err(Failed::during("reading the ledger"))?;
        state.ledger = ledger;
        let audience = &state.routing.audience;
        let known = store.known_receivers(organization, &state.name, audience).await;
        let known = known.map_err(Failed::during("reading the receivers"))?;
        let of = (&state, version);
        plans.extend(notice(context, transition, of, receivers.clone(), moment));
        plans.extend(plan_of(context, transition, of, receivers, &known, moment));
    }
    Ok(plans)
}

/// The plans of one route. A new receiver gets all open alerts; without open alerts in the
/// ledger, all receivers get the same.
fn plan_of(
    context: &MessageContext<'_>,
    transition: &Transition<'_>,
    (state, ledger_version): (&NotifierState, LedgerVersion),
    receivers: Vec<String>,
    known: &BTreeSet<String>,
    moment: ScanTime,
) -> Vec<Plan> {
    let NotifierState { name, routing, grouping, ledger } = state;
    let decisions = decide(transition, state, moment);
    let new_id = || id_at(moment.now);
    let nothing_open = ledger.has_nothing_open();
    let (listening, joined): (Vec<String>, Vec<String>) =
        receivers.into_iter().partition(|receiver| nothing_open || known.contains(receiver));
    let of = |kind, receivers| Plan {
        notifier: name.clone(),
        ledger: state.ledger_name(),
        decisions: Vec::new(),
        messages: Vec::new(),
        kind,
        receivers,
        up_to_date: Vec::new(),
        withdraws_ledger: false,
        ledger_version,
    };
    let mut plans = Vec::new();
    if !listening.is_empty() {
        decisions.iter().for_each(|decision| log_held_back(context, name, decision));
        let (messages, decisions) = context.messages(new_id, state, decisions.clone());
        let kept_up = match grouping {
            Grouping::Digest | Grouping::EachAlert => Vec::new(),
            Grouping::EachAlertRefreshed => refresh_open(ledger, &decisions),
        };
        let kept_up = context.compose(new_id, state, &kept_up.iter().collect::<Vec<_>>());
        let kept_up = Plan { messages: kept_up, ..of(MessageKind::Refresh, listening.clone()) };
        // With open alerts, known receivers are up to date, or will be after their pending
        // deliveries.
        let up_to_date = if nothing_open { listening.clone() } else { Vec::new() };
        let news = of(MessageKind::News, listening);
        plans.push(Plan { decisions, messages, up_to_date, ..news });
        plans.push(kept_up);
    }
    if !joined.is_empty() {
        // Without other receivers, their alerts become the ledger of the notifier.
        let alone = plans.is_empty();
        let mut open = all_open(transition, routing, moment);
        if alone && *grouping != Grouping::Digest {
            // It may be the same service under another URL: nothing else closes its open incidents.
            open.extend(
                decisions.into_iter().filter(|one| matches!(one, Decision::Resolve { .. })),
            );
        }
        let (messages, open) = context.messages(new_id, &state.with_empty_ledger(), open);
        let up_to_date = if messages.is_empty() { joined.clone() } else { Vec::new() };
        let decisions = if alone { open } else { Vec::new() };
        let catch_up = of(MessageKind::CatchUp, joined);
        plans.push(Plan { decisions, messages, up_to_date, withdraws_ledger: alone, ..catch_up });
    }
    plans
}

/// The notice of changes, for every receiver.
fn notice(
    context: &MessageContext<'_>,
    transition: &Transition<'_>,
    (state, ledger_version): (&NotifierState, LedgerVersion),
    receivers: Vec<String>,
    moment: ScanTime,
) -> Option<Plan> {
    if matches!(transition, Transition::Unwatched) {
        return None;
    }
    let notice = context.notice(id_at(moment.now), state)?;
    Some(Plan { ledger_version, ..Plan::notice(state, receivers, notice) })
}

fn log_held_back(context: &MessageContext<'_>, notifier: &str, decision: &Decision) {
    if let Decision::HoldBack { subject, reached } = decision {
        tracing::info!(
            organization = %context.evaluation.organization, notifier, %subject,
            stage = reached.label,
            "alert flapping: suppressed for 24 hours"
        );
    }
}
