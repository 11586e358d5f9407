//! Composes notifications from decisions: worst alert first, with coverage and successors; long
//! lists are cut with a count.

mod changes;
mod drills;
mod notifiers;
mod projects;
mod summary;
mod views;

use chrono::{DateTime, TimeDelta, Utc};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};
use uuid::Uuid;

use super::{
    ActiveIn, Alert, Body, CertificateBody, CertificateView, CredentialView, Event, Notification,
    ScanView, SightView,
};
use crate::domain::{
    alert::{Decision, Ledger, Reason, SentAlert},
    credential::CredentialKind,
    evaluate::Evaluation,
    inventory::Inventory,
    notifier::{Grouping, NotifierState},
    routing::Routing,
    subject::Subject,
    threshold::{Reached, Severity, Stage},
};

pub use drills::{of_drill, of_unproven};
pub use notifiers::{Raised, of_notifiers};
pub use summary::SummaryContext;
use views::sight;
pub use views::{acknowledged, ignored};

/// Maximum number of projects that an alert lists; the rest is counted.
const MAX_PROJECTS: usize = 50;
/// Maximum number of candidates that an alert names.
const MAX_CANDIDATES: usize = 3;
/// Maximum number of alerts that a notification lists. An organization has at most 50 certificates,
/// so only a misbehaving API causes more.
const MAX_ALERTS: usize = 100;

/// The data that the notifications of one scan share.
pub struct MessageContext<'a> {
    pub evaluation: &'a Evaluation<'a>,
    /// The inventory before the scan; `None` if nothing can be resolved by comparison.
    pub before: Option<&'a Inventory>,
    /// `None` without a scan: for a forecast, or for a removed organization.
    pub scan: Option<ScanView>,
    /// The time from which later scans have replaced the notifications.
    pub stale_at: Option<DateTime<Utc>>,
    /// The longest delay after the due time that still counts as on time; `None` if punctuality is
    /// not reported.
    pub max_delay: Option<TimeDelta>,
}

/// A notification and its subjects. No later notification about one of them may overtake it; a
/// subject without room in it was not sent.
#[derive(Clone, Debug)]
pub struct Composed {
    pub notification: Notification,
    pub subjects: BTreeSet<Subject>,
}

/// An alert and its subjects.
type AlertWithSubjects = (Alert, Vec<Subject>);

/// Collects the most urgent entries in bounded memory.
struct MostUrgent {
    now: DateTime<Utc>,
    entries: Vec<AlertWithSubjects>,
    total: usize,
}

impl MostUrgent {
    fn extend(&mut self, entries: impl IntoIterator<Item = AlertWithSubjects>) {
        for entry in entries {
            self.total += 1;
            self.entries.push(entry);
            if self.entries.len() >= 8 * MAX_ALERTS {
                self.trim();
            }
        }
    }

    fn trim(&mut self) {
        self.entries.sort_by(|(a, of_a), (b, of_b)| {
            urgency(b, self.now).cmp(&urgency(a, self.now)).then_with(|| of_a.cmp(of_b))
        });
        self.entries.truncate(MAX_ALERTS);
    }

    /// The most urgent entries in order, and the number of all.
    fn finish(mut self) -> (Vec<AlertWithSubjects>, usize) {
        self.trim();
        (self.entries, self.total)
    }
}

impl<'a> MessageContext<'a> {
    /// A context without a scan: for forecasts, explanations, and removed organizations.
    pub fn without_scan(evaluation: &'a Evaluation<'a>) -> MessageContext<'a> {
        MessageContext { evaluation, before: None, scan: None, stale_at: None, max_delay: None }
    }
}

impl MessageContext<'_> {
    /// Composes the notifications for `decisions`, and returns the decisions for the ledger: an
    /// alert without room in the notifications was not sent, so the next scan sends it. `new_id`
    /// creates the id of each notification.
    pub fn messages(
        &self,
        new_id: impl Fn() -> Uuid,
        notifier: &NotifierState,
        mut decisions: Vec<Decision>,
    ) -> (Vec<Composed>, Vec<Decision>) {
        let routing = &notifier.routing;
        let sent: Vec<&Decision> = decisions.iter().filter(|one| one.is_sent(routing)).collect();
        let messages = self.compose(new_id, notifier, &sent);
        let subjects: BTreeSet<&Subject> =
            messages.iter().flat_map(|message| &message.subjects).collect();
        decisions.retain(|one| !one.is_sent(routing) || subjects.contains(one.subject()));
        (messages, decisions)
    }

    /// Composes the notifications for `decisions`: at most one for a digest, else one for each
    /// alert.
    pub fn compose(
        &self,
        new_id: impl Fn() -> Uuid,
        notifier: &NotifierState,
        decisions: &[&Decision],
    ) -> Vec<Composed> {
        let now = self.evaluation.now;
        let mut most_urgent = MostUrgent { now, entries: Vec::new(), total: 0 };
        let routing = &notifier.routing;
        most_urgent.extend(decisions.iter().filter_map(|one| self.of_certificate(routing, one)));
        most_urgent.extend(self.of_projects(notifier, decisions));
        most_urgent.extend(decisions.iter().filter_map(|one| self.of_sight(one)));
        most_urgent.extend(decisions.iter().filter_map(|one| self.of_credential(one)));
        let (mut entries, total) = most_urgent.finish();
        let mut closed: BTreeMap<&Subject, BTreeSet<Severity>> = BTreeMap::new();
        for decision in decisions {
            let closes = closes(&notifier.ledger, decision);
            if !closes.is_empty() {
                closed.entry(decision.subject()).or_default().extend(closes);
            }
        }
        for (alert, subjects) in &mut entries {
            let closes = subjects.iter().filter_map(|subject| closed.get(subject));
            alert.closes = Some(closes.flatten().copied().collect());
        }
        match notifier.grouping {
            Grouping::Digest if entries.is_empty() => Vec::new(),
            Grouping::Digest => vec![self.message(new_id(), notifier, entries, total)],
            Grouping::EachAlert | Grouping::EachAlertRefreshed => entries
                .into_iter()
                // The shared incident stays open until the last project is resolved.
                .filter(|(alert, _)| {
                    alert.projects().is_none_or(|projects| projects.remaining == 0)
                })
                .map(|entry| self.message(new_id(), notifier, vec![entry], 1))
                .collect(),
        }
    }

    fn message(
        &self,
        id: Uuid,
        notifier: &NotifierState,
        entries: Vec<AlertWithSubjects>,
        total: usize,
    ) -> Composed {
        let (alerts, subjects): (Vec<Alert>, Vec<Vec<Subject>>) = entries.into_iter().unzip();
        let severity = alerts.iter().map(|alert| alert.severity).max();
        let notification = Notification {
            id,
            created_at: self.evaluation.now,
            notifier: notifier.name.clone(),
            audience: notifier.routing.audience.clone(),
            organization: Some(self.evaluation.organization.clone()),
            severity: severity.unwrap_or(Severity::Info),
            scan: self.scan.clone(),
            alerts,
            alerts_total: total,
            stale_at: self.stale_at,
        };
        Composed { notification, subjects: subjects.into_iter().flatten().collect() }
    }

    /// The due time of a first alert, and the latest time that counts as on time.
    fn punctuality(
        &self,
        reason: Reason,
        sent: &SentAlert,
    ) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        // A refresh repeats an alert that was sent before.
        let due_at = sent.due_at.filter(|_| reason != Reason::Refresh);
        let timely_until = due_at.zip(self.max_delay).map(|(due_at, max_delay)| due_at + max_delay);
        (due_at, timely_until)
    }

    fn raised(
        &self,
        event: Event,
        reason: Reason,
        reached: &Reached,
        sent: &SentAlert,
        body: Body,
    ) -> Alert {
        let (due_at, timely_until) = self.punctuality(reason, sent);
        Alert {
            stage: Some(reached.label.clone()),
            last: reached.last,
            due_at,
            timely_until,
            ..Alert::new(event, Some(reason), reached.severity, body)
        }
    }

    fn of_certificate(&self, routing: &Routing, decision: &Decision) -> Option<AlertWithSubjects> {
        let (Subject::Certificate(id) | Subject::Mismatch(id) | Subject::Fitness(id)) =
            decision.subject()
        else {
            return None;
        };
        let of_its_end = matches!(decision.subject(), Subject::Certificate(_));
        let alert = match decision {
            Decision::Redate { .. } | Decision::HoldBack { .. } => return None,
            Decision::Send { reason, reached, sent, .. } => {
                let assessment = self.evaluation.assessment(id)?;
                let body = Body::Certificate(Box::new(self.view(&assessment, routing)));
                let reached_now = assessment.reached.as_ref();
                let last = of_its_end && reached_now.is_some_and(|reached| reached.last);
                let event = Event::from(reached.stage);
                Alert { last, ..self.raised(event, *reason, reached, sent, body) }
            }
            Decision::Resolve { reason, sent, .. } => {
                let certificate = match self.evaluation.assessment(id) {
                    Some(assessment) => self.view(&assessment, routing).certificate,
                    None => CertificateView {
                        id: id.clone(),
                        name: sent.name.clone(),
                        valid_at: None,
                        expires_at: sent.expires_at,
                        strange_expiry: None,
                        content: None,
                        defects: Vec::new(),
                        duplicate_of: None,
                        reported: None,
                        carries_certvigil: false,
                        owners: BTreeSet::new(),
                        changes: self.changes_of(id, routing),
                        active_in: ActiveIn::default(),
                        next: None,
                        ignored: None,
                        acknowledged: None,
                    },
                };
                let is_gone =
                    matches!(reason, Reason::Replaced | Reason::Deactivated | Reason::Deleted);
                let left_behind =
                    (is_gone && of_its_end).then(|| self.left_behind(id, routing)).flatten();
                let (successor, candidates) = (None, Vec::new());
                let body = CertificateBody { certificate, successor, candidates, left_behind };
                let body = Body::Certificate(Box::new(body));
                resolution(Event::CertificateResolved, *reason, sent, body)
            }
        };
        Some((alert, vec![decision.subject().clone()]))
    }

    /// The alert about unreadable lists, or its resolution.
    fn of_sight(&self, decision: &Decision) -> Option<AlertWithSubjects> {
        let alert = match decision {
            // A refresh may be about lists that are readable again.
            Decision::Send { subject: Subject::Sight, reason, reached, sent } => {
                let body = Body::Sight(sight(self.evaluation.blind.as_ref()?));
                Alert {
                    last: true,
                    ..self.raised(Event::MonitorBlind, *reason, reached, sent, body)
                }
            }
            Decision::Resolve { subject: Subject::Sight, reason, sent } => {
                let total = self.evaluation.inventory.faults().count();
                let body = Body::Sight(SightView { total, ..SightView::default() });
                resolution(Event::MonitorRecovered, *reason, sent, body)
            }
            Decision::Send { .. }
            | Decision::Resolve { .. }
            | Decision::Redate { .. }
            | Decision::HoldBack { .. } => return None,
        };
        Some((alert, vec![Subject::Sight]))
    }

    /// The alert about an admin key or the client certificate, or its resolution.
    fn of_credential(&self, decision: &Decision) -> Option<AlertWithSubjects> {
        use CredentialKind::{AdminKey, ClientIdentity};
        let subject = decision.subject();
        let (kind, id) = match subject {
            Subject::AdminKey(id) => (AdminKey, Some(id.clone())),
            Subject::ClientIdentity => (ClientIdentity, None),
            Subject::Certificate(_)
            | Subject::Mismatch(_)
            | Subject::Fitness(_)
            | Subject::Project(_)
            | Subject::Protection(_)
            | Subject::Sight
            | Subject::Notifier(_)
            | Subject::Proof(_)
            | Subject::Drill
            | Subject::Summary => {
                return None;
            }
        };
        let credential = self.evaluation.credential(subject);
        let body = |sent: &SentAlert| {
            Body::Credential(CredentialView {
                kind,
                id,
                name: credential.and_then(|one| one.name()).or(sent.name.as_ref()).cloned(),
                expires_at: credential.map(|one| one.expires_at).or(sent.expires_at),
                own: credential.is_none_or(|one| one.is_own()),
            })
        };
        let alert = match decision {
            Decision::Redate { .. } | Decision::HoldBack { .. } => return None,
            Decision::Send { reason, reached, sent, .. } => {
                let event = match (kind, reached.stage == Stage::Expired) {
                    (AdminKey, false) => Event::AdminKeyExpiring,
                    (AdminKey, true) => Event::AdminKeyExpired,
                    (ClientIdentity, false) => Event::ClientIdentityExpiring,
                    (ClientIdentity, true) => Event::ClientIdentityExpired,
                };
                self.raised(event, *reason, reached, sent, body(sent))
            }
            Decision::Resolve { reason, sent, .. } => {
                let event = match kind {
                    AdminKey => Event::AdminKeyResolved,
                    ClientIdentity => Event::ClientIdentityResolved,
                };
                resolution(event, *reason, sent, body(sent))
            }
        };
        Some((alert, vec![subject.clone()]))
    }
}

fn resolution(event: Event, reason: Reason, sent: &SentAlert, body: Body) -> Alert {
    Alert {
        stage: Some(sent.label.clone()),
        ..Alert::new(event, Some(reason), sent.severity, body)
    }
}

/// The severities whose incidents a decision closes: all sent ones for a resolution, the earlier
/// ones if the severity changes.
fn closes(ledger: &Ledger, decision: &Decision) -> BTreeSet<Severity> {
    match decision {
        Decision::Send { subject, reached, sent, .. } => {
            let before = ledger.open.get(subject).map(|before| before.severity);
            let mut closes = match before.is_some_and(|before| before != reached.severity) {
                true => sent.earlier_severities.clone(),
                false => BTreeSet::new(),
            };
            closes.remove(&reached.severity);
            closes
        }
        Decision::Resolve { sent, .. } => sent.severities(),
        Decision::Redate { .. } | Decision::HoldBack { .. } => BTreeSet::new(),
    }
}

/// The order of alerts: open ones before resolved ones, then by severity, then outages, then the
/// expiry closest to now (five hours ahead before three days ago).
fn urgency(alert: &Alert, now: DateTime<Utc>) -> impl Ord {
    let ends = match &alert.body {
        Body::Certificate(body) => body.certificate.expires_at,
        Body::Credential(credential) => credential.expires_at,
        Body::Projects(_)
        | Body::Sight(_)
        | Body::Failing(_)
        | Body::Unproven(_)
        | Body::Drill(_)
        | Body::Summary(_)
        | Body::Changes(_)
        | Body::Test => None,
    };
    let broken = matches!(
        alert.event,
        Event::ProjectUncovered | Event::ProjectUnprotected | Event::MonitorBlind
    );
    let distance = ends.map(|ends| Reverse((ends - now).abs()));
    (!alert.event.is_resolution(), alert.severity, broken, distance)
}
