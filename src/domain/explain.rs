//! Why one certificate did or did not alert: everything that the decision rests on, said.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    alert::SentAlert,
    certificate::{Certificate, LifeFrom, OrganizationName},
    compose::{Occasion, Shown},
    evaluate::{Assessment, Evaluation, Unprotected},
    finding::findings,
    listener::Listener,
    notification::{
        CandidateView, CertificateView, Event, Notification, ProjectView, Reason, SuccessorView,
    },
    routing::Routing,
    subject::Subject,
    threshold::Severity,
    words::words,
};

/// How many coming messages are listed for each notifier.
const COMING: usize = 12;

#[derive(Clone, Debug)]
pub struct Explanation {
    pub organization: OrganizationName,
    pub certificate: CertificateView,
    pub created_at: Option<DateTime<Utc>>,
    pub successor: Option<SuccessorView>,
    /// Certificates that could be activated in projects without a successor.
    pub candidates: Vec<CandidateView>,
    /// Projects that list it and have no active certificate, and are reported for that.
    pub unprotected: Vec<ProjectView>,
    /// Whether some list that names it could not be read in the latest scan.
    pub stale: bool,
    /// Whether every project where it is active has a successor.
    pub replaced: bool,
    /// Whether it is active somewhere, or inactive certificates are watched too.
    pub watched: bool,
    /// The stage that it is in.
    pub stage: Option<String>,
    pub severity: Option<Severity>,
    /// Its place in `[[rules]]`, from 0, where a rule gives the ladder; else it is the global one.
    pub ladder_of_rule: Option<usize>,
    /// The rule that ignores it.
    pub ignored_by_rule: Option<usize>,
    /// Where the ladder has shares of its life: how long that is, and from when.
    pub life: Option<(TimeDelta, LifeFrom)>,
    /// From the widest to the tightest.
    pub ladder: Vec<Rung>,
    pub notifiers: Vec<NotifierOutlook>,
}

/// One step of the ladder.
#[derive(Clone, Debug)]
pub struct Rung {
    pub label: String,
    /// When it is reached; `None` where the expiry is not known.
    pub at: Option<DateTime<Utc>>,
    pub severity: Severity,
    /// The repeat interval.
    pub repeat: Option<TimeDelta>,
    pub reached: bool,
}

/// How a notifier is alerted of a certificate.
#[derive(Clone, Debug)]
pub struct NotifierOutlook {
    pub notifier: String,
    pub status: AlertStatus,
    /// The latest alert that it was sent and that is not resolved.
    pub sent: Option<SentAlert>,
    /// The next alerts, if nothing changes.
    pub upcoming: Vec<Coming>,
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
        /// The severity is below the notifier's `min_severity`.
        Severity = "severity",
    }
}

impl AlertStatus {
    /// In words, after the notifier's name.
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
            AlertStatus::Severity => "no alert: the severity is below min_severity of the notifier",
        }
    }
}

/// A future alert.
#[derive(Clone, Debug)]
pub struct Coming {
    pub at: DateTime<Utc>,
    pub event: Event,
    pub reason: Option<Reason>,
    pub stage: Option<String>,
    pub severity: Severity,
    /// How often it is repeated after that, and when for the last time in the forecast.
    pub repeats: usize,
    pub last_repeat: Option<DateTime<Utc>>,
}

/// Explains one certificate. `forecast` is that of its organization.
pub fn explain(
    evaluation: &Evaluation<'_>,
    assessment: &Assessment<'_>,
    listeners: &[Listener],
    forecast: &[Notification],
) -> Explanation {
    let occasion = Occasion::without_scan(evaluation);
    let Shown { certificate, successor, candidates } = occasion.view(assessment, &Routing::all());
    let ruling = &assessment.ruling;
    let (life, from) = assessment.certificate.life();
    Explanation {
        organization: evaluation.organization.clone(),
        created_at: assessment.certificate.created_at,
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
        ladder: rungs(assessment, evaluation.now),
        notifiers: listeners
            .iter()
            .map(|listener| outlook(listener, evaluation, assessment, forecast))
            .collect(),
        certificate,
    }
}

/// The unprotected projects whose lists name a certificate: it was probably active there.
fn unprotected(evaluation: &Evaluation<'_>, certificate: &Certificate) -> Vec<ProjectView> {
    let listing = evaluation.inventory.projects_that_list(&certificate.id);
    let unprotected = listing.iter().filter_map(|project| evaluation.unprotected(&project.id));
    let view = |one: &Unprotected<'_>| ProjectView {
        unprotected_since: one.since,
        ..ProjectView::of(one.project)
    };
    unprotected.map(view).collect()
}

/// The ladder of a certificate from the widest threshold to the expiry, with the effective
/// severities.
pub fn rungs(assessment: &Assessment<'_>, now: DateTime<Utc>) -> Vec<Rung> {
    let steps = &assessment.ruling.steps;
    let rung = |label: &str, lead: TimeDelta, severity, repeat: Option<TimeDelta>| {
        let at = assessment.certificate.expires_at.map(|expires_at| expires_at - lead);
        Rung {
            label: label.to_owned(),
            at,
            severity,
            repeat,
            reached: at.is_some_and(|at| at <= now),
        }
    };
    let thresholds = steps
        .as_slice()
        .iter()
        .map(|step| rung(&step.label, step.lead, step.severity, step.repeat));
    let expired = &steps.expired;
    let mut end = rung("expired", TimeDelta::zero(), expired.severity, expired.repeat);
    // The severity is limited and repeats stop if it is replaced.
    if assessment.replaced {
        end.severity = end.severity.min(Severity::Warning);
        end.repeat = None;
    }
    thresholds.chain([end]).collect()
}

fn outlook(
    listener: &Listener,
    evaluation: &Evaluation<'_>,
    assessment: &Assessment<'_>,
    forecast: &[Notification],
) -> NotifierOutlook {
    let subject = Subject::Certificate(assessment.certificate.id.clone());
    NotifierOutlook {
        notifier: listener.name.clone(),
        status: status(listener, evaluation, assessment, &subject),
        sent: listener.ledger.open.get(&subject).cloned(),
        upcoming: coming(listener, assessment, forecast),
    }
}

fn status(
    listener: &Listener,
    evaluation: &Evaluation<'_>,
    assessment: &Assessment<'_>,
    subject: &Subject,
) -> AlertStatus {
    let Listener { routing, ledger, .. } = listener;
    if !routing.selects(evaluation.organization) {
        return AlertStatus::Organization;
    }
    if !routing.concerns(&assessment.projects) {
        return AlertStatus::Projects;
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
                && ledger.was_opened_again(finding, evaluation.now) =>
        {
            AlertStatus::Flapping
        }
        Some(_) => AlertStatus::Alerted,
    }
}

/// The alerts of a forecast about one certificate for one notifier; repeats are counted at the
/// alert that they repeat.
fn coming(
    listener: &Listener,
    assessment: &Assessment<'_>,
    forecast: &[Notification],
) -> Vec<Coming> {
    let alerts = forecast
        .iter()
        .filter(|notification| notification.notifier == listener.name)
        .flat_map(|notification| {
            notification.alerts.iter().map(|alert| (notification.created_at, alert))
        })
        .filter(|(_, alert)| {
            alert.certificate().is_some_and(|one| one.id == assessment.certificate.id)
        });
    let mut next: Vec<Coming> = Vec::new();
    for (at, alert) in alerts {
        let full = next.len() == COMING;
        match next.last_mut() {
            Some(last)
                if alert.reason == Some(Reason::Repeat)
                    && last.stage == alert.stage
                    && last.severity == alert.severity =>
            {
                last.repeats += 1;
                last.last_repeat = Some(at);
            }
            _ if full => break,
            _ => next.push(Coming {
                at,
                event: alert.event,
                reason: alert.reason,
                stage: alert.stage.clone(),
                severity: alert.severity,
                repeats: 0,
                last_repeat: None,
            }),
        }
    }
    next
}
