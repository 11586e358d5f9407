//! The sent alerts of one notifier about one organization: the only memory of alerts.

use chrono::{DateTime, Utc};
use std::collections::BTreeMap;

use super::{
    super::{certificate::same_expiry, finding::Finding, subject::Subject},
    Decision, FLAPPING_WINDOW, ScanTime, SentAlert,
};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// The open alerts.
    pub open: BTreeMap<Subject, SentAlert>,
    /// For each subject the latest sent alert, open or resolved, and those of the last day, oldest
    /// first.
    pub past: BTreeMap<Subject, Vec<SentAlert>>,
    /// Alerts that no receiver accepted.
    pub undelivered: BTreeMap<Subject, SentAlert>,
}

impl Ledger {
    /// The ledger entry for an alert about a finding.
    pub(super) fn sent(&self, finding: &Finding, moment: ScanTime) -> SentAlert {
        let open = self.open.get(&finding.subject);
        // This alert may supersede the resolution of the past one, whose incident then is still
        // open.
        let past = self.latest(&finding.subject);
        let past = past.filter(|past| same_expiry(past.expires_at, finding.expires_at));
        SentAlert {
            earlier_severities: open.or(past).map(SentAlert::severities).unwrap_or_default(),
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

    pub fn has_nothing_open(&self) -> bool {
        self.open.is_empty()
    }

    /// The latest sent alert about a subject, open or resolved.
    pub fn latest(&self, subject: &Subject) -> Option<&SentAlert> {
        self.past.get(subject)?.last()
    }

    /// The due time of an alert that is sent now. An alert that no receiver accepted keeps its
    /// first due time. A finding that began after the previous decision is due since its beginning;
    /// an older one could not be known earlier and is due now.
    pub(super) fn due_at(&self, finding: &Finding, moment: ScanTime) -> DateTime<Utc> {
        let undelivered = self
            .undelivered
            .get(&finding.subject)
            .filter(|undelivered| undelivered.is_same(finding));
        let began = finding.since.filter(|since| moment.decided_at.is_some_and(|at| *since > at));
        let due_at = undelivered.and_then(|undelivered| undelivered.due_at).or(began);
        due_at.map_or(moment.now, |due_at| due_at.min(moment.now))
    }

    /// Whether the same alert was sent before.
    pub(super) fn was_sent(&self, finding: &Finding, now: DateTime<Utc>) -> bool {
        self.same(finding, now).next().is_some()
    }

    /// Whether the same alert was opened again within the last day (flapping).
    pub fn is_flapping(&self, finding: &Finding, now: DateTime<Utc>) -> bool {
        self.same(finding, now).any(|sent| sent.flips(now))
    }

    /// Whether the alert would be held back as flapping if it opened again now.
    pub(super) fn would_be_held_back(
        &self,
        subject: &Subject,
        sent: &SentAlert,
        now: DateTime<Utc>,
    ) -> bool {
        let past = self.past.get(subject).into_iter().flatten();
        past.filter(|past| {
            past.stage == sent.stage && same_expiry(past.expires_at, sent.expires_at)
        })
        .any(|past| past.flips(now))
    }

    fn same(&self, finding: &Finding, now: DateTime<Utc>) -> impl Iterator<Item = &SentAlert> {
        let past = self.past.get(&finding.subject).into_iter().flatten();
        // Entries after `now` come from a clock that was ahead.
        past.filter(move |sent| sent.is_same(finding) && sent.at <= now)
    }

    /// Applies a decision.
    pub fn learn(&mut self, decision: &Decision) {
        let subject = decision.subject().clone();
        match decision {
            Decision::Send { sent, .. } | Decision::Redate { sent, .. } => {
                let past = self.past.entry(subject.clone()).or_default();
                past.retain(|old| old.at > sent.at - FLAPPING_WINDOW);
                past.push(sent.clone());
                self.open.insert(subject, sent.clone());
            }
            Decision::Resolve { .. } => drop(self.open.remove(&subject)),
            Decision::HoldBack { .. } => {}
        }
    }
}
