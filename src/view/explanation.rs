//! Explains the alerts of one certificate: its thresholds, and the state of each notifier.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use std::collections::BTreeSet;
use utoipa::ToSchema;

use super::seconds;
use crate::{
    domain::{
        alert::Reason,
        certificate::{Certificate, CertificateId, LifeFrom, OrganizationName},
        evaluate::{Assessment, Evaluation},
        finding::findings,
        notifier::NotifierState,
        owner::Audience,
        routing::Routing,
        subject::Subject,
        threshold::Severity,
        words::words,
    },
    message::{
        CandidateView, CertificateBody, CertificateView, Event, Notification, ProjectView,
        SuccessorView, compose::MessageContext, wording,
    },
};

/// Maximum number of upcoming alerts for each notifier.
const UPCOMING: usize = 12;

#[derive(Clone, Debug)]
pub struct Explanation {
    pub organization: OrganizationName,
    pub certificate: CertificateView,
    pub created_at: Option<DateTime<Utc>>,
    /// Why its content could not be read.
    pub content_failure: Option<String>,
    /// Why the audit log could not be read.
    pub audit_log_failure: Option<String>,
    pub successor: Option<SuccessorView>,
    /// Certificates that could be activated in projects without a successor.
    pub candidates: Vec<CandidateView>,
    /// Unprotected projects whose lists contain it.
    pub unprotected: Vec<ProjectView>,
    /// Whether the latest scan could not read a list that contains it.
    pub stale: bool,
    /// Whether every project where it is active has a successor.
    pub replaced: bool,
    /// Whether it is active, or inactive certificates are watched, too.
    pub watched: bool,
    /// Its current stage.
    pub stage: Option<String>,
    pub severity: Option<Severity>,
    /// Index of the rule that gives the ladder; `None` for the global one.
    pub ladder_of_rule: Option<usize>,
    /// Index of the rule that ignores it.
    pub ignored_by_rule: Option<usize>,
    /// The lifetime and its basis, if the ladder has thresholds in percent.
    pub life: Option<(TimeDelta, LifeFrom)>,
    /// Widest threshold first, then the expiry.
    pub ladder: Vec<Step>,
    pub notifiers: Vec<Notifier>,
}

/// A threshold, or the expiry.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Step {
    pub stage: String,
    /// Time at which it is reached; null if the expiry is unknown.
    pub at: Option<DateTime<Utc>>,
    pub severity: Severity,
    /// The repeat interval.
    pub repeat_seconds: Option<i64>,
    pub reached: bool,
}

impl Step {
    pub fn repeat(&self) -> Option<TimeDelta> {
        self.repeat_seconds.and_then(TimeDelta::try_seconds)
    }
}

/// The alerts of a notifier about a certificate.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Notifier {
    pub name: String,
    /// The owners whose alerts this part of its receivers gets, with null for alerts without an
    /// owner; null if the notifier sends all alerts to all its receivers.
    #[serde(rename = "owners", serialize_with = "teams")]
    #[schema(value_type = Option<Vec<Option<String>>>)]
    pub audience: Audience,
    /// Whether it is alerted now, or why not.
    pub status: AlertStatus,
    /// The latest alert sent to it, if that is not resolved.
    pub sent: Option<Sent>,
    /// The next alerts, if nothing changes.
    pub upcoming: Vec<Upcoming>,
}

fn teams<S: serde::Serializer>(audience: &Audience, serializer: S) -> Result<S::Ok, S::Error> {
    audience.teams().serialize(serializer)
}

impl Notifier {
    /// Its name, with the owners.
    pub fn title(&self) -> String {
        self.audience.title_of(&self.name)
    }

    /// Whether an alert is open or upcoming.
    fn has_alerts(&self) -> bool {
        self.sent.is_some() || !self.upcoming.is_empty()
    }

    /// Whether a notification went to it.
    pub fn got(&self, notification: &Notification) -> bool {
        notification.notifier == self.name && notification.audience == self.audience
    }
}

/// An alert that was sent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Sent {
    pub stage: String,
    pub severity: Severity,
    pub at: DateTime<Utc>,
}

words! {
    /// Whether a notifier is alerted now, or why not.
    AlertStatus {
        Alerted = "alerted",
        /// The certificate is in no stage.
        NoStage = "no_stage",
        Ignored = "ignored",
        /// It opened again within a day. The alert is sent when the day has passed.
        Flapping = "flapping",
        Acknowledged = "acknowledged",
        /// The notifier does not select this organization.
        Organization = "organization",
        /// The notifier does not select the projects where the certificate is active.
        Projects = "projects",
        /// Another owner is responsible for the certificate.
        Owner = "owner",
        /// The severity is below the notifier's `min_severity`.
        Severity = "severity",
    }
}

impl AlertStatus {
    /// A phrase to follow the notifier's name.
    pub fn describe(self) -> &'static str {
        match self {
            AlertStatus::Alerted => "alerted",
            AlertStatus::NoStage => "no alert: the certificate is in no stage",
            AlertStatus::Ignored => "no alert: a rule ignores this certificate",
            AlertStatus::Acknowledged => "no alert: the certificate is acknowledged",
            AlertStatus::Flapping => {
                "held back: this alert was raised and resolved repeatedly (flapping), and is \
                 sent within 24 hours unless it is resolved before"
            }
            AlertStatus::Organization => "no alert: the notifier does not select this organization",
            AlertStatus::Projects => {
                "no alert: the certificate is active only in projects that this notifier does not select"
            }
            AlertStatus::Owner => "no alert: another owner is responsible for this certificate",
            AlertStatus::Severity => "no alert: the severity is below min_severity of the notifier",
        }
    }
}

/// A future alert.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Upcoming {
    pub at: DateTime<Utc>,
    pub event: Event,
    pub reason: Option<Reason>,
    pub stage: Option<String>,
    pub severity: Severity,
    /// Number of repeats within the forecast.
    pub repeats: usize,
    pub last_repeat_at: Option<DateTime<Utc>>,
}

impl Upcoming {
    /// In words; `at` formats a time.
    pub fn describe(&self, at: impl Fn(DateTime<Utc>) -> String) -> String {
        let outcome = if self.event.is_resolution() { "resolved" } else { self.severity.as_str() };
        let stage = self.stage.as_deref().unwrap_or_default();
        let reason = self.reason.map_or("", |reason| reason.as_str());
        let repeats = self.last_repeat_at.map_or(String::new(), |last| {
            format!(", then {} until {}", wording::count(self.repeats, "repeat"), at(last))
        });
        format!("{}: {stage}, {outcome} ({reason}){repeats}", at(self.at))
    }
}

impl Sent {
    /// In words; `at` formats a time.
    pub fn describe(&self, at: impl Fn(DateTime<Utc>) -> String, is_pending: bool) -> String {
        let pending = if is_pending { ", not delivered yet" } else { "" };
        format!("{} ({}), {}{pending}", self.stage, self.severity, at(self.at))
    }
}

impl Explanation {
    /// The source of the ladder, as a heading.
    pub fn ladder_source(&self) -> String {
        match self.ladder_of_rule {
            Some(rule) => format!("Thresholds of rules[{rule}], the first matching rule"),
            None => "Default thresholds: no rule matches".to_owned(),
        }
    }

    /// The lifetime of the certificate, if the ladder contains shares of it.
    pub fn describe_lifetime(&self) -> Option<String> {
        let (life, from) = self.life?;
        let life = wording::span(life);
        Some(match from {
            LifeFrom::ValidAt => format!("Lifetime: {life}, counted from valid_at."),
            LifeFrom::CreatedAt => {
                format!("Lifetime: {life}, counted from created_at because valid_at is missing.")
            }
            LifeFrom::Unknown => format!("Lifetime unknown: {life} is assumed."),
        })
    }
}

/// Explains one certificate; `forecast` is the forecast of its organization.
pub fn explain(
    evaluation: &Evaluation<'_>,
    assessment: &Assessment<'_>,
    notifiers: &[NotifierState],
    forecast: &[Notification],
) -> Explanation {
    let context = MessageContext::without_scan(evaluation);
    let CertificateBody { certificate, successor, candidates, .. } =
        context.view(assessment, &Routing::all());
    let ruling = &assessment.ruling;
    let (life, from) = assessment.certificate.life();
    Explanation {
        organization: evaluation.organization.clone(),
        created_at: assessment.certificate.created_at,
        content_failure: content_failure(evaluation, &certificate.id),
        audit_log_failure: audit_log_failure(evaluation),
        successor,
        candidates,
        unprotected: unprotected(evaluation, assessment.certificate),
        stale: evaluation.is_stale(&certificate.id),
        replaced: assessment.replaced,
        watched: assessment.is_active() || evaluation.policy.include_inactive,
        stage: assessment.reached.as_ref().map(|reached| reached.label.clone()),
        severity: assessment.reached.as_ref().map(|reached| reached.severity),
        ladder_of_rule: ruling.rule.map(|rule| rule.index),
        ignored_by_rule: ruling.ignored.map(|(rule, _)| rule.index),
        life: ruling.ladder.has_shares().then_some((life, from)),
        ladder: steps(evaluation, assessment),
        notifiers: outlooks(notifiers, evaluation, assessment, forecast),
        certificate,
    }
}

fn content_failure(evaluation: &Evaluation<'_>, id: &CertificateId) -> Option<String> {
    let known = evaluation.inventory.contents.get(id)?;
    known.failure().map(|failure| failure.why.clone())
}

fn audit_log_failure(evaluation: &Evaluation<'_>) -> Option<String> {
    let audit_log = evaluation.inventory.changes.audit_log.as_ref()?;
    audit_log.unreadable.as_ref().map(|unreadable| unreadable.why.to_string())
}

/// The unprotected projects whose lists contain a certificate: it was probably active there.
fn unprotected(evaluation: &Evaluation<'_>, certificate: &Certificate) -> Vec<ProjectView> {
    let listing = evaluation.inventory.projects_that_list(&certificate.id);
    let unprotected = listing.iter().filter_map(|project| evaluation.unprotected(&project.id));
    unprotected.map(ProjectView::unprotected).collect()
}

/// The ladder of a certificate: widest threshold first, then the expiry.
pub fn steps(evaluation: &Evaluation<'_>, assessment: &Assessment<'_>) -> Vec<Step> {
    let ruling = &assessment.ruling.steps;
    let step = |stage: &str, lead: TimeDelta, severity: Severity, repeat: Option<TimeDelta>| {
        let at = assessment.certificate.expires_at.map(|expires_at| seconds(expires_at - lead));
        let (severity, repeat) = evaluation.policy.limited(assessment.replaced, severity, repeat);
        Step {
            stage: stage.to_owned(),
            at,
            severity,
            repeat_seconds: repeat.map(|repeat| repeat.num_seconds()),
            reached: at.is_some_and(|at| at <= evaluation.now),
        }
    };
    let thresholds =
        ruling.as_slice().iter().map(|one| step(&one.label, one.lead, one.severity, one.repeat));
    let expired = &ruling.expired;
    let end = step("expired", TimeDelta::zero(), expired.severity, expired.repeat);
    thresholds.chain([end]).collect()
}

/// The alerts of each notifier. Owners without an alert are left out, and owners of a notifier that
/// does not select the certificate share one entry.
fn outlooks(
    notifiers: &[NotifierState],
    evaluation: &Evaluation<'_>,
    assessment: &Assessment<'_>,
    forecast: &[Notification],
) -> Vec<Notifier> {
    let all = notifiers.iter().map(|one| outlook(one, evaluation, assessment, forecast));
    let all = all.filter(|one| one.status != AlertStatus::Owner || one.has_alerts());
    let mut all: Vec<Notifier> = all.collect();
    for one in all.iter_mut().filter(|one| !one.has_alerts()) {
        if matches!(one.status, AlertStatus::Organization | AlertStatus::Projects) {
            one.audience = Audience::Everyone;
        }
    }
    let mut shown = BTreeSet::new();
    all.retain(|one| shown.insert((one.name.clone(), one.audience.key())));
    all
}

fn outlook(
    notifier: &NotifierState,
    evaluation: &Evaluation<'_>,
    assessment: &Assessment<'_>,
    forecast: &[Notification],
) -> Notifier {
    let subject = Subject::Certificate(assessment.certificate.id.clone());
    Notifier {
        name: notifier.name.clone(),
        audience: notifier.routing.audience.clone(),
        status: status(notifier, evaluation, assessment, &subject),
        sent: notifier.ledger.open.get(&subject).map(|sent| Sent {
            stage: sent.label.clone(),
            severity: sent.severity,
            at: seconds(sent.at),
        }),
        upcoming: upcoming(notifier, assessment, forecast),
    }
}

/// Whether a notifier is alerted now, or why not.
pub fn status(
    notifier: &NotifierState,
    evaluation: &Evaluation<'_>,
    assessment: &Assessment<'_>,
    subject: &Subject,
) -> AlertStatus {
    let NotifierState { routing, ledger, .. } = notifier;
    if !routing.selects(evaluation.organization) {
        return AlertStatus::Organization;
    }
    if !evaluation.concerns(routing, assessment) {
        return match routing.concerns(&assessment.projects) {
            true => AlertStatus::Owner,
            false => AlertStatus::Projects,
        };
    }
    if assessment.reached.is_none() {
        return AlertStatus::NoStage;
    }
    if assessment.open().is_none() {
        return AlertStatus::Ignored;
    }
    let all = findings(evaluation, routing);
    match all.iter().find(|finding| finding.subject == *subject) {
        None => AlertStatus::Severity,
        Some(finding) if finding.muted => AlertStatus::Acknowledged,
        Some(finding)
            if !ledger.open.contains_key(subject)
                && ledger.is_flapping(finding, evaluation.now) =>
        {
            AlertStatus::Flapping
        }
        Some(_) => AlertStatus::Alerted,
    }
}

/// The alerts of a forecast about one certificate for one notifier; repeats are counted at the
/// alert that they repeat.
fn upcoming(
    notifier: &NotifierState,
    assessment: &Assessment<'_>,
    forecast: &[Notification],
) -> Vec<Upcoming> {
    let alerts = forecast
        .iter()
        .filter(|notification| {
            notification.notifier == notifier.name
                && notification.audience == notifier.routing.audience
        })
        .flat_map(|notification| {
            notification.alerts.iter().map(|alert| (notification.created_at, alert))
        })
        .filter(|(_, alert)| {
            alert.certificate().is_some_and(|one| one.id == assessment.certificate.id)
        });
    let mut next: Vec<Upcoming> = Vec::new();
    for (at, alert) in alerts {
        let full = next.len() == UPCOMING;
        match next.last_mut() {
            Some(last)
                if alert.reason == Some(Reason::Repeat)
                    && last.stage == alert.stage
                    && last.severity == alert.severity =>
            {
                last.repeats += 1;
                last.last_repeat_at = Some(seconds(at));
            }
            _ if full => break,
            _ => next.push(Upcoming {
                at: seconds(at),
                event: alert.event,
                reason: alert.reason,
                stage: alert.stage.clone(),
                severity: alert.severity,
                repeats: 0,
                last_repeat_at: None,
            }),
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        acknowledgement::Acknowledgements,
        evaluate::evaluate,
        inventory::{
            Inventory,
            tests::{everything, reading, start},
        },
        policy::Policy,
        threshold::tests::ladder,
    };

    #[test]
    fn the_shown_ladder_has_the_severity_and_repeat_of_each_alert() {
        for (successor, replaced_severity) in
            [(false, Severity::Info), (true, Severity::Warning), (true, Severity::Info)]
        {
            let lists = [("c", 40, true), ("successor", 400, successor)];
            let reading = reading(&[("", Ok(&[])), ("p", Ok(&lists))]);
            let inventory = Inventory::default().merge(reading, &everything(), start());
            let policy = Policy { replaced_severity, ..Policy::new(ladder(&[30, 7, 1])) };
            let organization = OrganizationName::parse("acme").unwrap();
            let none = Acknowledgements::default();
            let at = |days| start() + TimeDelta::days(days);
            let evaluated = |now| evaluate(&organization, &inventory, &policy, &none, now);
            let evaluation = evaluated(at(0));
            let assessment = evaluation.assessments().next().unwrap();
            assert_eq!(assessment.replaced, successor);
            let shown = steps(&evaluation, &assessment);
            assert_eq!(shown.len(), 4);
            for (step, day) in shown.iter().zip([20, 35, 39, 41]) {
                let evaluation = evaluated(at(day));
                let reached = evaluation.assessments().next().unwrap().reached.unwrap();
                let alerted = (reached.label, reached.severity, reached.repeat);
                let shown = (step.stage.clone(), step.severity, step.repeat());
                assert_eq!(shown, alerted, "day {day}, successor: {successor}");
            }
        }
    }
}
