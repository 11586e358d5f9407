//! What a scan sends: for each notifier, its messages and ledger entries.

use chrono::{DateTime, Utc};
use std::{collections::BTreeSet, sync::Arc};

use super::super::Failed;
use crate::{
    domain::{
        alert::{Decision, Moment, World, all_open, decide, keep_up},
        compose::Occasion,
        listener::{Grain, Listener},
    },
    notify::Notifier,
    store::{LedgerVersion, MessageKind, Plan, Store, id_at},
};

/// The notifications and ledger entries of each notifier. `local` is the local clock, which the
/// ledger uses.
pub(super) async fn plan(
    occasion: &Occasion<'_>,
    world: &World<'_>,
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
    moment: Moment,
    local: DateTime<Utc>,
) -> Result<Vec<Plan>, Failed> {
    let mut plans = Vec::new();
    for notifier in notifiers {
        let organization = occasion.evaluation.organization;
        let ledger = store.ledger(Some(organization), notifier.name(), local).await;
        let (ledger, version) = ledger.map_err(Failed::during("reading the ledger"))?;
        let listener = Listener {
            name: notifier.name().to_owned(),
            routing: notifier.routing().clone(),
            grain: notifier.grain(),
            ledger,
        };
        let known = store.known_receivers(organization, &listener.name).await;
        let known = known.map_err(Failed::during("reading the receivers"))?;
        plans.extend(plan_of(
            occasion,
            world,
            (&listener, version),
            notifier.receivers(),
            &known,
            moment,
        ));
    }
    Ok(plans)
}

/// The plans of one notifier. A new receiver of a notifier with sent alerts gets all open alerts,
/// not only new ones. Without sent alerts, every open alert is new.
fn plan_of(
    occasion: &Occasion<'_>,
    world: &World<'_>,
    (listener, ledger_version): (&Listener, LedgerVersion),
    receivers: Vec<String>,
    known: &BTreeSet<String>,
    moment: Moment,
) -> Vec<Plan> {
    let Listener { name, routing, grain, ledger } = listener;
    let decisions = decide(world, listener, moment);
    let new_id = || id_at(moment.now);
    let nothing_open = ledger.has_nothing_open();
    let (listening, joined): (Vec<String>, Vec<String>) =
        receivers.into_iter().partition(|receiver| nothing_open || known.contains(receiver));
    let of = |kind, receivers| Plan {
        notifier: name.clone(),
        decisions: Vec::new(),
        messages: Vec::new(),
        kind,
        receivers,
        up_to_date: Vec::new(),
        afresh: false,
        ledger_version,
    };
    let mut plans = Vec::new();
    if !listening.is_empty() {
        decisions.iter().for_each(|decision| log_held_back(occasion, name, decision));
        let (messages, decisions) = occasion.messages(new_id, listener, decisions.clone());
        let kept_up = match grain {
            Grain::Digest | Grain::EachAlert => Vec::new(),
            Grain::EachAlertKeptUp => keep_up(ledger, &decisions),
        };
        let kept_up = occasion.compose(new_id, listener, &kept_up.iter().collect::<Vec<_>>());
        let kept_up = Plan { messages: kept_up, ..of(MessageKind::Refresh, listening.clone()) };
        // With sent alerts, these receivers are up to date, or will be by a delivery in flight.
        let up_to_date = if nothing_open { listening.clone() } else { Vec::new() };
        let news = of(MessageKind::News, listening);
        plans.push(Plan { decisions, messages, up_to_date, ..news });
        plans.push(kept_up);
    }
    if !joined.is_empty() {
        // Without other receivers, their alerts become the ledger of the notifier.
        let alone = plans.is_empty();
        let mut open = all_open(world, routing, moment);
        if alone && *grain != Grain::Digest {
            // It may be the same service under another URL: nothing else closes its open incidents.
            open.extend(
                decisions.into_iter().filter(|one| matches!(one, Decision::Resolve { .. })),
            );
        }
        let (messages, open) = occasion.messages(new_id, &listener.afresh(), open);
        let up_to_date = if messages.is_empty() { joined.clone() } else { Vec::new() };
        let decisions = if alone { open } else { Vec::new() };
        let catch_up = of(MessageKind::CatchUp, joined);
        plans.push(Plan { decisions, messages, up_to_date, afresh: alone, ..catch_up });
    }
    plans
}

/// Logs alerts that flapping suppresses.
fn log_held_back(occasion: &Occasion<'_>, notifier: &str, decision: &Decision) {
    if let Decision::HoldBack { subject, reached } = decision {
        tracing::info!(
            organization = %occasion.evaluation.organization, notifier, %subject,
            stage = reached.label,
            "alert flapping: suppressed for 24 hours"
        );
    }
}
