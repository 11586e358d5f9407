//! Why one certificate did or did not alert: everything that the decision rests on, said.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    certificate::{Certificate, LifeFrom, OrganizationName},
    compose::{Occasion, Shown},
    evaluate::{Assessment, Evaluation, Unprotected},
    finding::findings,
    ledger::Told,
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
    /// Every project where it is active has a successor.
    pub replaced: bool,
    /// Active somewhere, or watched all the same.
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
    pub notifiers: Vec<Hearing>,
}

/// One step of the ladder.
#[derive(Clone, Debug)]
pub struct Rung {
    pub label: String,
    /// When it is reached; `None` where the expiry is not known.
    pub at: Option<DateTime<Utc>>,
    pub severity: Severity,
    /// After how long it is told again.
    pub repeat: Option<TimeDelta>,
    pub reached: bool,
}

/// What one notifier has to do with it.
#[derive(Clone, Debug)]
pub struct Hearing {
    pub notifier: String,
    pub hears: Hears,
    /// What it was told and is not over.
    pub told: Option<Told>,
    /// What it will be told, if nothing changes; the next ones.
    pub next: Vec<Coming>,
}

words! {
    /// Whether a notifier hears of a certificate now, or why not.
    Hears {
        /// It is in a stage, and told.
        Told = "told",
        /// It is in no stage.
        Nothing = "nothing",
        Ignored = "ignored",
        /// It was opened again within a day, and is told when that is over.
        Damped = "damped",
        Acknowledged = "acknowledged",
        /// The notifier does not ask for this organization.
        Organization = "organization",
        /// The notifier asks for projects in which it is not active.
        Projects = "projects",
        /// The notifier asks for worse.
        Severity = "severity",
    }
}

impl Hears {
    /// In words, after the notifier's name.
    pub fn describe(self) -> &'static str {
        match self {
            Hears::Told => "hears of it",
            Hears::Nothing => "nothing to hear: it is in no stage",
            Hears::Ignored => "hears nothing: it is ignored",
            Hears::Acknowledged => "hears nothing: it is acknowledged",
            Hears::Damped => {
                "hears nothing: it was opened again and again, and is told within 24 hours"
            }
            Hears::Organization => "hears nothing: it does not ask for this organization",
            Hears::Projects => "hears nothing: it asks for projects in which it is not active",
            Hears::Severity => "hears nothing: it asks for worse (min_severity)",
        }
    }
}

/// Something that will be told.
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
    let occasion = Occasion { evaluation, before: None, scan: None, stale_at: None, allowed: None };
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
            .map(|listener| hearing(listener, evaluation, assessment, forecast))
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

/// The ladder of a certificate, from the widest step to its end, as it will be told.
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
    // As it will be told: calmly, where it is replaced.
    if assessment.replaced {
        end.severity = end.severity.min(Severity::Warning);
        end.repeat = None;
    }
    thresholds.chain([end]).collect()
}

fn hearing(
    listener: &Listener,
    evaluation: &Evaluation<'_>,
    assessment: &Assessment<'_>,
    forecast: &[Notification],
) -> Hearing {
    let subject = Subject::Certificate(assessment.certificate.id.clone());
    Hearing {
        notifier: listener.name.clone(),
        hears: hears(listener, evaluation, assessment, &subject),
        told: listener.ledger.open.get(&subject).cloned(),
        next: coming(listener, assessment, forecast),
    }
}

fn hears(
    listener: &Listener,
    evaluation: &Evaluation<'_>,
    assessment: &Assessment<'_>,
    subject: &Subject,
) -> Hears {
    let Listener { routing, ledger, .. } = listener;
    if !routing.hears_of(evaluation.organization) {
        return Hears::Organization;
    }
    if !routing.concerns(&assessment.projects) {
        return Hears::Projects;
    }
    if assessment.reached.is_none() {
        return Hears::Nothing;
    }
    if assessment.open().is_none() {
        return Hears::Ignored;
    }
    let all = findings(evaluation, routing);
    match all.iter().find(|finding| finding.subject == *subject) {
        None => Hears::Severity,
        Some(finding) if finding.muted => Hears::Acknowledged,
        Some(finding)
            if !ledger.open.contains_key(subject)
                && ledger.was_opened_again(finding, evaluation.now) =>
        {
            Hears::Damped
        }
        Some(_) => Hears::Told,
    }
}

/// What a forecast has for one notifier of one certificate; repeats hang on what they repeat.
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
            alert.certificate.as_ref().is_some_and(|one| one.id == assessment.certificate.id)
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
