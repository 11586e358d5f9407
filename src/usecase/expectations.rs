//! Checks the expectations of `[[tests]]` with the decision logic of the service. Pure: reads
//! neither the API nor the database.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use crate::{
    domain::{
        acknowledgement::Acknowledgements,
        certificate::{OrganizationName, Project},
        day,
        evaluate::{Assessment, Evaluation, evaluate},
        expectation::Expectation,
        finding::findings,
        notifier::NotifierState,
        owner::Owner,
        policy::Policy,
        selection::Selection,
        subject::Subject,
        threshold::{Severity, Stage},
    },
    view::{AlertStatus, status},
};

/// A notifier, or one of its routes.
pub struct Receivers {
    pub state: NotifierState,
    /// The mail addresses; empty for other notifiers.
    pub addresses: Vec<String>,
}

impl Receivers {
    /// Whether a name or an address means them.
    fn has(&self, receiver: &str) -> bool {
        self.state.name == receiver
            || self.addresses.iter().any(|address| address.eq_ignore_ascii_case(receiver))
    }
}

/// The configuration of an organization.
pub struct Configured<'a> {
    pub organization: &'a OrganizationName,
    pub policy: &'a Policy,
    pub selection: &'a Selection,
    /// Whether the audit log is read, and whether with the addresses of users.
    pub audit_log: (bool, bool),
    pub receivers: &'a [Receivers],
    pub timezone: Tz,
}

/// The differences from the expectation, one line each, with the rule that decided.
pub fn check(
    expectation: &Expectation,
    configured: &Configured<'_>,
    now: DateTime<Utc>,
) -> Vec<String> {
    let unknown = unknown(expectation, configured);
    if !unknown.is_empty() {
        return unknown;
    }
    let inventory = expectation.inventory(now);
    let none = Acknowledgements::default();
    let Configured { organization, policy, receivers, timezone, .. } = configured;
    let evaluation = evaluate(organization, &inventory, policy, &none, now);
    let Some(assessment) = expectation.id().and_then(|id| evaluation.assessment(&id)) else {
        return vec!["the certificate has no valid id".to_owned()];
    };
    if assessment.ruling.ladder.has_shares() && expectation.lifetime.is_none() {
        let source = source(&assessment);
        return vec![format!("lifetime: required, because {source} contain shares of it")];
    }
    let (evaluation, assessment, timezone) = (&evaluation, &assessment, *timezone);
    let outcome = Outcome { evaluation, assessment, receivers, timezone };
    let missing = expectation.reaches.iter().filter_map(|one| outcome.missing_alert(one));
    let unexpected = expectation.does_not_reach.iter();
    let unexpected = unexpected.filter_map(|one| outcome.unexpected_alert(one));
    let severity = outcome.other_severity(expectation.severity);
    severity.into_iter().chain(missing).chain(unexpected).collect()
}

/// The projects, receivers and uploaders that the service would not know.
fn unknown(expectation: &Expectation, configured: &Configured<'_>) -> Vec<String> {
    let Configured { selection, receivers, audit_log, .. } = configured;
    let projects = expectation.projects().into_iter();
    let projects = projects.filter(|project| !selection.matches(project)).map(|project| {
        let title = project.title();
        format!("projects: “{title}” is not watched (include_projects, exclude_projects)")
    });
    let named =
        [("reaches", &expectation.reaches), ("does_not_reach", &expectation.does_not_reach)];
    let named = named.into_iter().flat_map(|(key, list)| list.iter().map(move |one| (key, one)));
    let named = named.filter(|(_, one)| !receivers.iter().any(|known| known.has(one)));
    let named = named.map(|(key, one)| {
        format!("{key}: “{one}” is neither a notifier nor the address of a receiver")
    });
    let needs = expectation.uploader.as_ref().and_then(|uploader| match audit_log {
        (false, _) => Some("audit_log"),
        (true, false) if uploader.as_str().contains('@') => Some("audit_log_addresses"),
        (true, _) => None,
    });
    let needs = needs.map(|key| format!("uploader: unknown to the service without {key} = true"));
    projects.chain(named).chain(needs).collect()
}

/// The source of the thresholds: `the thresholds of rules[1]`.
fn source(assessment: &Assessment<'_>) -> String {
    match assessment.ruling.rule {
        Some(rule) => format!("the thresholds of rules[{}]", rule.index),
        None => "the general thresholds".to_owned(),
    }
}

struct Outcome<'a> {
    evaluation: &'a Evaluation<'a>,
    assessment: &'a Assessment<'a>,
    receivers: &'a [Receivers],
    timezone: Tz,
}

impl Outcome<'_> {
    fn severity(&self) -> Option<Severity> {
        self.assessment.open().map(|reached| reached.severity)
    }

    fn other_severity(&self, expected: Option<Option<Severity>>) -> Option<String> {
        let (expected, found) = (expected?, self.severity());
        let words = |severity: Option<Severity>| severity.map_or("none", Severity::as_str);
        (found != expected).then(|| {
            let (expected, found) = (words(expected), words(found));
            format!("severity: found {found}, expected {expected}: {}", self.decided())
        })
    }

    /// The receivers with this name or address.
    fn its(&self, receiver: &str) -> impl Iterator<Item = &Receivers> {
        self.receivers.iter().filter(move |one| one.has(receiver))
    }

    /// The most severe alert about the certificate or its projects that receivers get.
    fn alert(&self, receivers: &Receivers) -> Option<(Subject, Severity)> {
        let findings = findings(self.evaluation, &receivers.state.routing).into_iter();
        let id = &self.assessment.certificate.id;
        let its = findings.filter(|finding| match &finding.subject {
            Subject::Certificate(of) => of == id,
            subject => matches!(subject, Subject::Project(_)),
        });
        let alerts = its.map(|finding| (finding.subject, finding.reached.severity));
        // Of the same severity, the one about the certificate.
        alerts.max_by_key(|(subject, severity)| {
            (*severity, matches!(subject, Subject::Certificate(_)))
        })
    }

    /// The line for a receiver without an alert; `None` if it gets one.
    fn missing_alert(&self, receiver: &str) -> Option<String> {
        if self.its(receiver).any(|one| self.alert(one).is_some()) {
            return None;
        }
        let subject = Subject::Certificate(self.assessment.certificate.id.clone());
        let status =
            |one: &Receivers| status(&one.state, self.evaluation, self.assessment, &subject);
        // The routes of a notifier differ in their owners only.
        let mut all = self.its(receiver).map(|one| (one.state.name.as_str(), status(one)));
        let why = all.find(|(_, status)| *status != AlertStatus::Owner);
        Some(format!("{receiver}: expected an alert: {}", self.why_none(why)))
    }

    /// The reason why a notifier gets no alert; `None` if other owners get it.
    fn why_none(&self, status: Option<(&str, AlertStatus)>) -> String {
        match status {
            Some((notifier, AlertStatus::Organization)) => {
                format!("the key “organizations” of {notifier} does not select the organization")
            }
            Some((notifier, AlertStatus::Projects)) => {
                format!("the key “projects” of {notifier} selects none of the projects")
            }
            Some((notifier, AlertStatus::Severity)) => {
                let severity = self.severity().map_or("none", Severity::as_str);
                let decided = self.decided();
                format!("the severity {severity} is below min_severity of {notifier}; {decided}")
            }
            Some((_, AlertStatus::Owner)) | None => self.owners(),
            Some((_, _)) => self.decided(),
        }
    }

    /// The line for a receiver that gets an alert; `None` if it gets none.
    fn unexpected_alert(&self, receiver: &str) -> Option<String> {
        let found = self.its(receiver).find_map(|one| Some((one, self.alert(one)?)));
        let (receivers, (subject, severity)) = found?;
        let why = match subject {
            Subject::Project(_) => "project.uncovered, at the expiry".to_owned(),
            _ => self.decided(),
        };
        let owners = match receivers.state.routing.audience.is_everyone() {
            true => String::new(),
            false => format!("; {}", self.owners()),
        };
        Some(format!("{receiver}: expected no alert, found {severity}: {why}{owners}"))
    }

    /// The rule and threshold that decide on the alert.
    fn decided(&self) -> String {
        let Assessment { certificate, ruling, reached, .. } = self.assessment;
        if let Some((rule, ignore)) = ruling.ignored {
            let until = day::local(ignore.until, self.timezone);
            return format!("rules[{}] ignores it until {until}", rule.index);
        }
        let source = source(self.assessment);
        let Some(reached) = reached else {
            return format!("none of {source} is reached");
        };
        let decided = match reached.stage {
            Stage::Expired => format!("the expiry, with the severity of {source}"),
            _ => format!("{} of {source}", reached.label),
        };
        let end = certificate.expires_at;
        let unlimited = end.and_then(|end| ruling.steps.reached(end, self.evaluation.now));
        match unlimited.is_some_and(|one| one.severity > reached.severity) {
            true => format!("{decided}, limited by monitoring.replaced_severity"),
            false => decided,
        }
    }

    /// The owners in each project: `the owner in chat is payments (owners[0])`.
    fn owners(&self) -> String {
        let Assessment { certificate, projects, .. } = self.assessment;
        let owners = self.evaluation.owners.entries_for(certificate, projects);
        let line = |(project, owner): (&&Project, Option<&Owner>)| match owner {
            Some(Owner { team, index, .. }) => {
                format!("the owner in {} is {team} (owners[{index}])", project.title())
            }
            None => format!("{} has no owner", project.title()),
        };
        projects.iter().zip(owners).map(line).collect::<Vec<_>>().join(", ")
    }
}
