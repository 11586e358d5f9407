//! What one notifier was told of one organization: the only memory of alerts.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use super::{
    certificate::same_expiry,
    finding::Finding,
    reconcile::{Decision, Moment},
    subject::Subject,
    text::Name,
    threshold::{Reached, Severity, Stage},
};

/// The same subject, expiry and stage is told as opened again once in so long.
pub const FLIP: TimeDelta = TimeDelta::hours(24);

/// The last thing that one notifier was told of one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub stage: Stage,
    pub label: String,
    pub severity: Severity,
    pub expires_at: Option<DateTime<Utc>>,
    /// The name of that time, for the message that it is over.
    pub name: Option<Name>,
    pub at: DateTime<Utc>,
    /// The scheduled moment of the scan that told it; repeats are counted from there.
    pub tick: DateTime<Utc>,
    /// Whether the same was told, and over, before.
    #[serde(default)]
    pub again: bool,
    /// Since when there was something to tell, where this told it for the first time: what is told later is
    /// late.
    #[serde(default)]
    pub due_at: Option<DateTime<Utc>>,
    /// The severities that were sent before for the same alert. Each may be an open incident.
    #[serde(default)]
    pub earlier_severities: BTreeSet<Severity>,
}

impl Told {
    pub fn of(finding: &Finding, ledger: &Ledger, moment: Moment) -> Told {
        let open = ledger.open.get(&finding.subject);
        // The message that it was resolved may have been replaced by this one.
        let past = ledger.latest(&finding.subject);
        let past = past.filter(|past| same_expiry(past.expires_at, finding.expires_at));
        Told {
            earlier_severities: open.or(past).map(Told::severities).unwrap_or_default(),
            stage: finding.reached.stage,
            label: finding.reached.label.clone(),
            severity: finding.reached.severity,
            expires_at: finding.expires_at,
            name: finding.name.clone(),
            at: moment.now,
            tick: moment.tick,
            again: false,
            due_at: None,
        }
    }

    /// All severities that were sent for this alert.
    pub fn severities(&self) -> BTreeSet<Severity> {
        let mut severities = self.earlier_severities.clone();
        severities.insert(self.severity);
        severities
    }

    /// The stage that was told, as it was told.
    pub fn reached(&self) -> Reached {
        Reached {
            stage: self.stage,
            label: self.label.clone(),
            severity: self.severity,
            repeat: None,
            // What no acknowledgement mutes is not known of it.
            last: false,
        }
    }

    /// Whether it was opened again, and within the last day.
    fn flips(&self, now: DateTime<Utc>) -> bool {
        self.again && self.at > now - FLIP && self.at <= now
    }

    /// Whether it told what there is to tell now.
    pub(super) fn is_same(&self, finding: &Finding) -> bool {
        self.stage == finding.reached.stage
            && self.severity >= finding.reached.severity
            && same_expiry(self.expires_at, finding.expires_at)
    }
}

/// What one notifier was told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// What is not over.
    pub open: BTreeMap<Subject, Told>,
    /// For each subject the latest telling, over or not, and those of the last day, in their order.
    pub past: BTreeMap<Subject, Vec<Told>>,
    /// What was to be told last, and reached nobody.
    pub untold: BTreeMap<Subject, Told>,
}

impl Ledger {
    /// Whether nothing was told that is not over.
    pub fn has_nothing_open(&self) -> bool {
        self.open.is_empty()
    }

    /// The latest telling of a subject, over or not.
    pub fn latest(&self, subject: &Subject) -> Option<&Told> {
        self.past.get(subject)?.last()
    }

    /// Since when there has been something to tell that is told now. What was to be told before, and reached
    /// nobody, has been due since then. Where it began after the last decisions, it is due since its beginning;
    /// what is older could not be known by then.
    pub(super) fn due_at(&self, finding: &Finding, moment: Moment) -> DateTime<Utc> {
        let untold = self.untold.get(&finding.subject).filter(|untold| untold.is_same(finding));
        let began = finding.since.filter(|since| moment.decided_at.is_some_and(|at| *since > at));
        let due_at = untold.and_then(|untold| untold.due_at).or(began);
        due_at.map_or(moment.now, |due_at| due_at.min(moment.now))
    }

    /// Whether the same was told before.
    pub(super) fn was_told(&self, finding: &Finding, now: DateTime<Utc>) -> bool {
        self.same(finding, now).next().is_some()
    }

    /// Whether the same was opened again within the last day: an answer that flips makes no storm.
    pub(super) fn was_opened_again(&self, finding: &Finding, now: DateTime<Utc>) -> bool {
        self.same(finding, now).any(|told| told.flips(now))
    }

    /// Whether what was told would be damped, were it to open again now.
    pub(super) fn is_flipping(&self, subject: &Subject, told: &Told, now: DateTime<Utc>) -> bool {
        let past = self.past.get(subject).into_iter().flatten();
        past.filter(|past| {
            past.stage == told.stage && same_expiry(past.expires_at, told.expires_at)
        })
        .any(|past| past.flips(now))
    }

    fn same(&self, finding: &Finding, now: DateTime<Utc>) -> impl Iterator<Item = &Told> {
        let past = self.past.get(&finding.subject).into_iter().flatten();
        // What a clock that was ahead has noted is not believed.
        past.filter(move |told| told.is_same(finding) && told.at <= now)
    }

    /// What it is after a decision was carried out.
    pub fn learn(&mut self, decision: &Decision) {
        let subject = decision.subject().clone();
        match decision {
            Decision::Tell { told, .. } | Decision::Note { told, .. } => {
                let past = self.past.entry(subject.clone()).or_default();
                past.retain(|old| old.at > told.at - FLIP);
                past.push(told.clone());
                self.open.insert(subject, told.clone());
            }
            Decision::End { .. } => drop(self.open.remove(&subject)),
            Decision::Damp { .. } => {}
        }
    }
}
