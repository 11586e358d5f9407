//! Compares the findings with the ledger.

use chrono::{DateTime, TimeDelta, Utc};
use std::{collections::BTreeSet, sync::OnceLock};

use super::{
    super::{
        active::Active,
        certificate::same_expiry,
        evaluate::{Evaluation, WEEKLY},
        finding::{Finding, RECENT, findings},
        inventory::Inventory,
        listener::Listener,
        notification::Reason,
        routing::Routing,
        subject::{ProjectKind, Subject},
        threshold::{Reached, Stage},
    },
    Decision, Ledger, Moment, Told,
    grouping::for_grain,
    resolution::end,
};

/// An expired certificate repeats as configured for so long, and then weekly.
const INSISTENT: TimeDelta = TimeDelta::days(7);

/// What there is to compare: the organization before this scan and after it.
pub enum World<'a> {
    Watched {
        before: &'a Inventory,
        /// The active certificates before the scan; computed only if something ended.
        was_active: OnceLock<Active<'a>>,
        after: &'a Evaluation<'a>,
    },
    /// The organization is no longer configured, which resolves all its alerts.
    Unwatched,
}

impl<'a> World<'a> {
    pub fn watched(before: &'a Inventory, after: &'a Evaluation<'a>) -> World<'a> {
        World::Watched { before, was_active: OnceLock::new(), after }
    }
}

/// Decides the alerts of one notifier.
pub fn reconcile(
    world: &World<'_>,
    routing: &Routing,
    ledger: &Ledger,
    moment: Moment,
) -> Vec<Decision> {
    let findings = match world {
        World::Watched { after, .. } => findings(after, routing),
        World::Unwatched => Vec::new(),
    };
    let ends = |subject: &Subject, told: &Told| end(subject, told, world);
    let mut decisions = compare_all(&findings, ends, ledger, moment);
    for kind in ProjectKind::ALL {
        tell_projects_together(kind, &mut decisions, &findings, ledger, moment);
    }
    decisions
}

/// Compares the findings with the ledger; `end` gives the reason of a resolution, or says that the
/// data is stale.
pub(in crate::domain) fn compare_all(
    findings: &[Finding],
    end: impl Fn(&Subject, &Told) -> Option<Reason>,
    ledger: &Ledger,
    moment: Moment,
) -> Vec<Decision> {
    let open: BTreeSet<&Subject> = findings.iter().map(|finding| &finding.subject).collect();
    let news = findings.iter().flat_map(|finding| compare(finding, ledger, moment));
    let ends = ledger.open.iter().filter(|(subject, _)| !open.contains(subject)).filter_map(
        |(subject, told)| {
            let subject = subject.clone();
            let reason = end(&subject, told)?;
            let reason = match reason {
                // What a clock that was ahead opened never was. A clock that has gone back without a witness may be
                // wrong itself, and ends nothing.
                Reason::PolicyChanged | Reason::Corrected if told.at > moment.now => {
                    moment.clock_is_certain.then_some(Reason::Corrected)?
                }
                reason => reason,
            };
            Some(Decision::End { subject, reason, told: told.clone() })
        },
    );
    let mut decisions = Vec::with_capacity(findings.len());
    decisions.extend(news.chain(ends));
    decisions
}

/// All uncovered projects are one alert, and so are all unprotected ones: an alert about one of
/// them is sent for all, so that the list is complete and the repeats coincide.
fn tell_projects_together(
    kind: ProjectKind,
    decisions: &mut Vec<Decision>,
    findings: &[Finding],
    ledger: &Ledger,
    moment: Moment,
) {
    let of_project = |subject: &Subject| kind.of(subject).is_some();
    let told: BTreeSet<Subject> = decisions
        .iter()
        .filter(|one| matches!(one, Decision::Tell { .. }) && of_project(one.subject()))
        .map(|one| one.subject().clone())
        .collect();
    if told.is_empty() {
        return;
    }
    // Noted and held-back projects belong to the list, too.
    decisions.retain(|one| {
        let quiet = matches!(one, Decision::Note { .. } | Decision::Damp { .. });
        !(quiet && of_project(one.subject()))
    });
    let rest = findings
        .iter()
        .filter(|one| of_project(&one.subject) && !one.muted && !told.contains(&one.subject));
    decisions.extend(rest.map(|finding| tell(finding, ledger, Reason::Repeat, moment)));
}

/// All open alerts, for a new receiver: the ends of silences do not matter to it.
pub fn all_open(world: &World<'_>, routing: &Routing, moment: Moment) -> Vec<Decision> {
    let mut open = reconcile(world, routing, &Ledger::default(), moment);
    for decision in &mut open {
        if let Decision::Tell { reason, .. } = decision {
            *reason = Reason::Opened;
        }
    }
    open
}

/// Decides the alerts of a listener.
pub fn decide(world: &World<'_>, listener: &Listener, moment: Moment) -> Vec<Decision> {
    let decisions = reconcile(world, &listener.routing, &listener.ledger, moment);
    for_grain(decisions, listener, moment.now)
}

fn tell(finding: &Finding, ledger: &Ledger, reason: Reason, moment: Moment) -> Decision {
    Decision::Tell {
        subject: finding.subject.clone(),
        reason,
        reached: finding.reached.clone(),
        told: ledger.sent(finding, moment),
    }
}

/// The decisions for one finding: at most one, or two where an alert takes the place of a false one.
fn compare(finding: &Finding, ledger: &Ledger, moment: Moment) -> Vec<Decision> {
    if finding.muted {
        return Vec::new();
    }
    let told = ledger.open.get(&finding.subject);
    let last = ledger.latest(&finding.subject);
    let silence = finding
        .silence_ended
        .filter(|(ended, _)| last.is_none_or(|last| last.at < *ended))
        // Where nothing is open, it may never have been silenced for this notifier.
        .filter(|(ended, _)| told.is_some() || moment.now - *ended < RECENT)
        .map(|(_, reason)| reason);
    let mut corrected = None;
    let reason = match told {
        None => silence.unwrap_or(Reason::Opened),
        Some(told) if !same_expiry(told.expires_at, finding.expires_at) => {
            silence.unwrap_or(Reason::Stage)
        }
        Some(told) if finding.reached.stage > told.stage => silence.unwrap_or(Reason::Stage),
        // Within a stage, too: a successor has disappeared, or a rule is stricter.
        Some(told) if finding.reached.severity > told.severity => silence.unwrap_or(Reason::Stage),
        // A clock that was ahead dated it.
        Some(told) if told.at > moment.now => {
            if !moment.clock_is_certain {
                return Vec::new();
            }
            let subject = finding.subject.clone();
            if told.stage == finding.reached.stage {
                let told = ledger.sent(finding, moment);
                return vec![Decision::Note { subject, told }];
            }
            let told = told.clone();
            corrected = Some(Decision::End { subject, reason: Reason::Corrected, told });
            Reason::Opened
        }
        Some(told) => match silence {
            Some(reason) => reason,
            None => {
                // What counts is the stage that it is in, also where a calmer ladder took it back there.
                let repeat = repeat(&finding.reached, finding.expires_at, moment.tick);
                let due = repeat.is_some_and(|repeat| moment.is_due(told, repeat));
                return due
                    .then(|| tell(finding, ledger, Reason::Repeat, moment))
                    .into_iter()
                    .collect();
            }
        },
    };
    if silence.is_none() && ledger.was_opened_again(finding, moment.now) {
        let (subject, reached) = (finding.subject.clone(), finding.reached.clone());
        return vec![Decision::Damp { subject, reached }];
    }
    let mut decision = tell(finding, ledger, reason, moment);
    if let Decision::Tell { told, .. } = &mut decision {
        // The end of a silence is not the same opening again.
        told.again = silence.is_none() && ledger.was_told(finding, moment.now);
        told.due_at = Some(ledger.due_at(finding, moment));
    }
    corrected.into_iter().chain([decision]).collect()
}

/// The repeat interval of a stage, for a scan of `tick`.
pub(in crate::domain) fn repeat(
    reached: &Reached,
    expires_at: Option<DateTime<Utc>>,
    tick: DateTime<Utc>,
) -> Option<TimeDelta> {
    let long_over = reached.stage == Stage::Expired
        && expires_at.is_some_and(|expires_at| tick - expires_at > INSISTENT);
    reached.repeat.map(|repeat| if long_over { repeat.max(WEEKLY) } else { repeat })
}
