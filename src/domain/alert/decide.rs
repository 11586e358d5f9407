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
        routing::Routing,
        subject::{ProjectKind, Subject},
        threshold::{Reached, Stage},
    },
    Decision, Ledger, Reason, ScanTime, SentAlert,
    grouping::apply_grouping,
    resolution::end,
};
use crate::domain::notifier::NotifierState;

/// After this time, an expired certificate repeats at most weekly.
const FULL_REPEATS_FOR: TimeDelta = TimeDelta::days(7);

/// An organization before and after a scan.
pub enum Transition<'a> {
    Watched {
        before: &'a Inventory,
        /// The active certificates before the scan; computed only if an alert is resolved.
        was_active: OnceLock<Active<'a>>,
        after: &'a Evaluation<'a>,
    },
    /// The organization is no longer configured, which resolves all its alerts.
    Unwatched,
}

impl<'a> Transition<'a> {
    pub fn watched(before: &'a Inventory, after: &'a Evaluation<'a>) -> Transition<'a> {
        Transition::Watched { before, was_active: OnceLock::new(), after }
    }
}

/// Compares the findings that a notifier selects with its ledger.
pub fn reconcile(
    transition: &Transition<'_>,
    routing: &Routing,
    ledger: &Ledger,
    moment: ScanTime,
) -> Vec<Decision> {
    let findings = match transition {
        Transition::Watched { after, .. } => findings(after, routing),
        Transition::Unwatched => Vec::new(),
    };
    let ends = |subject: &Subject, sent: &SentAlert| end(subject, sent, transition, routing);
    let mut decisions = compare_all(&findings, ends, ledger, moment);
    for kind in ProjectKind::ALL {
        send_projects_together(kind, &mut decisions, &findings, ledger, moment);
    }
    decisions
}

/// Compares findings with the ledger. `end` returns the reason of a resolution, or `None` while the
/// data is stale.
pub(in crate::domain) fn compare_all(
    findings: &[Finding],
    end: impl Fn(&Subject, &SentAlert) -> Option<Reason>,
    ledger: &Ledger,
    moment: ScanTime,
) -> Vec<Decision> {
    let open: BTreeSet<&Subject> = findings.iter().map(|finding| &finding.subject).collect();
    let news = findings.iter().flat_map(|finding| compare(finding, ledger, moment));
    let ends = ledger.open.iter().filter(|(subject, _)| !open.contains(subject)).filter_map(
        |(subject, sent)| {
            let subject = subject.clone();
            let reason = end(&subject, sent)?;
            let reason = match reason {
                // A clock that was ahead opened the alert too early: it is resolved as corrected.
                // An uncertain clock may itself be wrong, and resolves nothing.
                Reason::PolicyChanged | Reason::Corrected if sent.at > moment.now => {
                    moment.clock_is_certain.then_some(Reason::Corrected)?
                }
                reason => reason,
            };
            Some(Decision::Resolve { subject, reason, sent: sent.clone() })
        },
    );
    let mut decisions = Vec::with_capacity(findings.len());
    decisions.extend(news.chain(ends));
    decisions
}

/// All uncovered projects share one alert, and so do all unprotected ones: an alert about one of
/// them is sent for all, so that the list is complete and the repeats coincide.
fn send_projects_together(
    kind: ProjectKind,
    decisions: &mut Vec<Decision>,
    findings: &[Finding],
    ledger: &Ledger,
    moment: ScanTime,
) {
    let of_project = |subject: &Subject| kind.of(subject).is_some();
    let sent: BTreeSet<Subject> = decisions
        .iter()
        .filter(|one| matches!(one, Decision::Send { .. }) && of_project(one.subject()))
        .map(|one| one.subject().clone())
        .collect();
    if sent.is_empty() {
        return;
    }
    // Redated and held-back projects belong to the list, too.
    decisions.retain(|one| {
        let quiet = matches!(one, Decision::Redate { .. } | Decision::HoldBack { .. });
        !(quiet && of_project(one.subject()))
    });
    let rest = findings
        .iter()
        .filter(|one| of_project(&one.subject) && !one.muted && !sent.contains(&one.subject));
    decisions.extend(rest.map(|finding| send(finding, ledger, Reason::Repeat, moment)));
}

/// All open alerts, for a new receiver. The reason is `opened` even if a silence has ended, because
/// the receiver knows no earlier alert.
pub fn all_open(transition: &Transition<'_>, routing: &Routing, moment: ScanTime) -> Vec<Decision> {
    let mut open = reconcile(transition, routing, &Ledger::default(), moment);
    for decision in &mut open {
        if let Decision::Send { reason, .. } = decision {
            *reason = Reason::Opened;
        }
    }
    open
}

/// [`reconcile`], adapted to the grouping of the notifier.
pub fn decide(
    transition: &Transition<'_>,
    notifier: &NotifierState,
    moment: ScanTime,
) -> Vec<Decision> {
    let decisions = reconcile(transition, &notifier.routing, &notifier.ledger, moment);
    apply_grouping(decisions, notifier, moment.now)
}

fn send(finding: &Finding, ledger: &Ledger, reason: Reason, moment: ScanTime) -> Decision {
    Decision::Send {
        subject: finding.subject.clone(),
        reason,
        reached: finding.reached.clone(),
        sent: ledger.sent(finding, moment),
    }
}

/// At most one decision, or two if a new alert replaces a wrong one.
fn compare(finding: &Finding, ledger: &Ledger, moment: ScanTime) -> Vec<Decision> {
    if finding.muted {
        return Vec::new();
    }
    let sent = ledger.open.get(&finding.subject);
    let last = ledger.latest(&finding.subject);
    let silence = finding
        .silence_ended
        .filter(|(ended, _)| last.is_none_or(|last| last.at < *ended))
        // Without an open alert, an old silence may not have affected this notifier.
        .filter(|(ended, _)| sent.is_some() || moment.now - *ended < RECENT)
        .map(|(_, reason)| reason);
    let mut corrected = None;
    let reason = match sent {
        None => silence.unwrap_or(Reason::Opened),
        Some(sent) if !same_expiry(sent.expires_at, finding.expires_at) => {
            silence.unwrap_or(Reason::Stage)
        }
        Some(sent) if finding.reached.stage > sent.stage => silence.unwrap_or(Reason::Stage),
        // Within the same stage: a successor was removed, or a rule became stricter.
        Some(sent) if finding.reached.severity > sent.severity => silence.unwrap_or(Reason::Stage),
        // The ledger entry comes from a clock that was ahead.
        Some(sent) if sent.at > moment.now => {
            if !moment.clock_is_certain {
                return Vec::new();
            }
            let subject = finding.subject.clone();
            if sent.stage == finding.reached.stage {
                let sent = ledger.sent(finding, moment);
                return vec![Decision::Redate { subject, sent }];
            }
            let sent = sent.clone();
            corrected = Some(Decision::Resolve { subject, reason: Reason::Corrected, sent });
            Reason::Opened
        }
        Some(sent) => match silence {
            Some(reason) => reason,
            None => {
                // The current stage decides, even if a changed ladder made it less urgent than the
                // sent one.
                let repeat = repeat(&finding.reached, finding.expires_at, moment.tick);
                let due = repeat.is_some_and(|repeat| moment.is_due(sent, repeat));
                return due
                    .then(|| send(finding, ledger, Reason::Repeat, moment))
                    .into_iter()
                    .collect();
            }
        },
    };
    if silence.is_none() && ledger.is_flapping(finding, moment.now) {
        let (subject, reached) = (finding.subject.clone(), finding.reached.clone());
        return vec![Decision::HoldBack { subject, reached }];
    }
    let mut decision = send(finding, ledger, reason, moment);
    if let Decision::Send { sent, .. } = &mut decision {
        // An alert at the end of a silence does not count as flapping.
        sent.again = silence.is_none() && ledger.was_sent(finding, moment.now);
        sent.due_at = Some(ledger.due_at(finding, moment));
    }
    corrected.into_iter().chain([decision]).collect()
}

/// The repeat interval of a stage, for a scan scheduled at `tick`.
pub fn repeat(
    reached: &Reached,
    expires_at: Option<DateTime<Utc>>,
    tick: DateTime<Utc>,
) -> Option<TimeDelta> {
    let long_expired = reached.stage == Stage::Expired
        && expires_at.is_some_and(|expires_at| tick - expires_at > FULL_REPEATS_FOR);
    reached.repeat.map(|repeat| if long_expired { repeat.max(WEEKLY) } else { repeat })
}
