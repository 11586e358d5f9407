//! One alert in words, as every channel for people shows it: its facts, its projects, what breaks, what to do
//! about it, and how to be quiet about it. The words are made here once; a format only lays them out, and
//! escapes them as its service wants.

mod advice;
mod facts;
mod monitor;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use super::style::Style;
use crate::domain::{
    notification::{
        ActiveIn, Alert, Body, CandidateView, CertificateBody, Event, Notification, ProjectView,
        ProjectsView,
    },
    text::unlinked,
    threshold::Severity,
    wording,
};
use advice::{
    Advice, UNCOVERED, UNPROTECTED, activate, advice, consequence, quiet, quiet_projects,
};
pub use facts::{capitalized, caveat, instant, reading, unseen, wrong_clock};
use facts::{late, reason, unknown};

/// How an alert is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    Critical,
    Warning,
    Info,
    Resolved,
}

impl Mark {
    pub fn of(alert: &Alert) -> Mark {
        match alert.severity {
            // Over, and not well.
            _ if alert.ends_badly() => Mark::Warning,
            _ if alert.event.is_end() => Mark::Resolved,
            Severity::Critical => Mark::Critical,
            Severity::Warning => Mark::Warning,
            Severity::Info => Mark::Info,
        }
    }

    /// The mark of a message: that of the worst in it.
    pub fn of_all(notification: &Notification) -> Mark {
        notification.alerts.iter().map(Mark::of).min().unwrap_or(Mark::Info)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Mark::Critical => "critical",
            Mark::Warning => "warning",
            Mark::Info => "info",
            Mark::Resolved => "resolved",
        }
    }

    /// For services where a sign is what one sees first.
    pub fn sign(self) -> &'static str {
        match self {
            Mark::Critical => "🔴",
            Mark::Warning => "🟠",
            Mark::Info => "🔵",
            Mark::Resolved => "🟢",
        }
    }
}

/// One alert, in words. Nothing in it is taken for a link; markup is the format's to escape.
#[derive(Clone, Debug)]
pub struct Entry {
    pub headline: String,
    pub mark: Mark,
    /// What breaks, and from when.
    pub consequence: Option<String>,
    /// When a certificate expires, or becomes valid, where that is known.
    pub when: Option<String>,
    /// Details in rows of a label and a value.
    pub facts: Vec<(&'static str, String)>,
    pub projects_label: String,
    pub projects: Vec<ProjectLine>,
    /// How many projects there are beside those.
    pub more_projects: usize,
    /// In how many projects a certificate has no successor, while it is open.
    pub coverage: Option<String>,
    /// What to do about it, step by step.
    pub advice: Vec<String>,
    /// The last of these steps, worded for any certificate: a digest shows them once.
    pub general_advice: Vec<String>,
    /// Whether a digest shows the general steps elsewhere.
    pub shares_steps: bool,
    /// Where there is more on what to do: the operator's own address.
    pub runbook: Option<String>,
    /// How to be quiet about it.
    pub quiet: Option<Quiet>,
}

/// A project, and how it stands.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectLine {
    pub name: String,
    pub state: String,
}

impl ProjectLine {
    /// Both in a line.
    pub fn line(&self) -> String {
        match self.state.as_str() {
            "" => self.name.clone(),
            state => format!("{}: {state}", self.name),
        }
    }
}

/// How to be quiet about an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// With this command, until its day.
    Command(String),
    /// Not at all, and why.
    Never(&'static str),
}

impl Entry {
    /// The alert, with at most so many of its projects.
    pub fn new(
        notification: &Notification,
        alert: &Alert,
        shown_projects: usize,
        style: &Style,
        now: DateTime<Utc>,
    ) -> Entry {
        let timezone = style.timezone;
        let mut entry = Entry {
            headline: capitalized(&wording::headline(alert, now)),
            mark: Mark::of(alert),
            consequence: None,
            when: None,
            facts: Vec::new(),
            projects_label: String::new(),
            projects: Vec::new(),
            more_projects: 0,
            coverage: None,
            advice: Vec::new(),
            general_advice: Vec::new(),
            shares_steps: false,
            runbook: style.links.runbook(alert.event),
            quiet: None,
        };
        match &alert.body {
            Body::Projects(projects) => {
                entry.tell_projects(alert, projects, shown_projects);
                if alert.event == Event::ProjectUnprotected {
                    entry.quiet = quiet_projects(notification.organization.as_ref(), projects, now);
                }
            }
            Body::Certificate(body) => {
                entry.tell_certificate(alert, body, shown_projects, timezone, now);
                let organization = notification.organization.as_ref();
                entry.quiet = quiet(organization, alert, &body.certificate, now);
            }
            Body::Sight(sight) => entry.tell_sight(alert, sight, shown_projects, timezone),
            Body::Credential(credential) => {
                entry.tell_credential(alert, credential, timezone, now);
            }
            Body::Failing(failing) => {
                entry.tell_failing(alert, failing, shown_projects, timezone);
            }
            Body::Test => {
                entry.advice.push("Nothing: this only shows that messages arrive.".to_owned());
            }
        }
        if let Some(late) = late(alert, timezone, now) {
            entry.facts.push(("Late", late));
        }
        entry.unlinked()
    }

    /// The steps, numbered.
    pub fn numbered_advice(&self) -> impl Iterator<Item = String> {
        self.advice.iter().enumerate().map(|(index, step)| format!("{}. {step}", index + 1))
    }

    /// How many projects there are beside those that are listed, in words; nothing where there are none.
    pub fn more(&self) -> Option<String> {
        (self.more_projects > 0).then(|| format!("and {} more", self.more_projects))
    }

    fn unlinked(mut self) -> Entry {
        let mut texts: Vec<&mut String> = vec![&mut self.headline, &mut self.projects_label];
        texts.extend(&mut self.consequence);
        texts.extend(self.facts.iter_mut().map(|(_, value)| value));
        texts.extend(&mut self.advice);
        for project in &mut self.projects {
            texts.extend([&mut project.name, &mut project.state]);
        }
        for text in texts {
            *text = unlinked(text);
        }
        self
    }

    fn tell_certificate(
        &mut self,
        alert: &Alert,
        body: &CertificateBody,
        shown_projects: usize,
        timezone: Tz,
        now: DateTime<Utc>,
    ) {
        let certificate = &body.certificate;
        let over = alert.event.is_end();
        let active = &certificate.active_in;
        self.consequence = consequence(alert, body, now);
        if matches!(alert.event, Event::CertificateExpiring | Event::CertificateExpired) {
            self.coverage = coverage(active);
        }
        self.facts.push(("Certificate", certificate.title().to_owned()));
        self.facts.push(("Id", certificate.id.to_string()));
        self.when = certificate.expires_at.map(|at| instant(at, timezone));
        let expires = self.when.clone().unwrap_or_else(|| unknown(certificate));
        let expired = certificate.expires_at.is_some_and(|at| at <= now);
        self.facts.push((if expired { "Expired" } else { "Expires" }, expires));
        if let Some(valid_at) = certificate.valid_at.filter(|valid_at| *valid_at > now) {
            let from = instant(valid_at, timezone);
            if alert.event == Event::CertificateNotYetValid {
                self.when = Some(format!("from {from}"));
            }
            self.facts.push(("Valid from", from));
        }
        if let Some(why) = reason(alert) {
            self.facts.push(("Reason", why));
        }
        if let Some(successor) = &body.successor {
            let name = successor.name.as_ref().map_or(successor.id.as_str(), |name| name.as_str());
            let until =
                successor.expires_at.map(|at| format!(", valid until {}", wording::day(at)));
            let reach =
                if successor.covers_every_project { "every project" } else { "some projects" };
            let until = until.unwrap_or_default();
            let its = [("ignored", &successor.ignored), ("acknowledged", &successor.acknowledged)];
            let its = its.iter().filter_map(|(what, view)| Some((what, view.as_ref()?)));
            let its: String = its
                .filter(|(_, view)| !view.ended)
                .map(|(what, view)| format!(" ({what} {})", wording::silence(view, timezone)))
                .collect();
            let id = match &successor.name {
                Some(_) => format!(" ({})", successor.id),
                None => String::new(),
            };
            self.facts.push(("Successor", format!("“{name}”{id} in {reach}{until}{its}")));
        }
        if let [_, _, ..] = body.candidates.as_slice() {
            let titles: Vec<String> = body.candidates.iter().map(CandidateView::title).collect();
            self.facts.push(("Candidates", titles.join(", ")));
        }
        for (what, view) in
            [("Ignored", &certificate.ignored), ("Acknowledged", &certificate.acknowledged)]
        {
            if let Some(view) = view {
                self.facts.push((what, wording::silence(view, timezone)));
            }
        }
        let here = active.projects_here();
        self.projects_label = match (active.organization, here) {
            // Where it is active no more, that is what the headline says.
            (false, 0) if over => String::new(),
            (true, n) => format!(
                "Active for the whole organization, and so in {}",
                wording::count(n, "project")
            ),
            (false, 0) => "Active in no project".to_owned(),
            (false, n) => format!("Active in {}", wording::count(n, "project")),
        };
        if active.projects_elsewhere > 0 {
            let others = wording::count(active.projects_elsewhere, "other");
            self.projects_label.push_str(&format!(" of yours and {others}"));
        }
        if let Some(left) = &body.left_behind {
            self.projects_label =
                format!("Was active in {}", wording::count(left.total(), "project"));
            self.list(&left.projects, left.total(), shown_projects, after_its_end);
            self.advise(advice(alert, body));
            return;
        }
        self.list(&active.projects, here, shown_projects, |project| {
            match (&project.successor_id, project.uncovered_from) {
                _ if over => String::new(),
                (Some(successor), _) => format!("{successor} takes over"),
                (None, Some(from)) if from <= now => {
                    format!("no valid certificate since {}", wording::day(from))
                }
                (None, Some(from)) => format!("no valid certificate from {}", wording::day(from)),
                (None, None) => String::new(),
            }
        });
        self.advise(advice(alert, body));
    }

    fn advise(&mut self, advice: Advice) {
        (self.advice, self.general_advice) = (advice.steps, advice.general);
    }

    fn tell_projects(&mut self, alert: &Alert, projects: &ProjectsView, shown_projects: usize) {
        let over = alert.event.is_end();
        let unprotected =
            matches!(alert.event, Event::ProjectUnprotected | Event::ProjectProtected);
        if alert.ends_badly() {
            self.consequence = Some(UNPROTECTED.to_owned());
        }
        if !over {
            let breaks = if unprotected { UNPROTECTED } else { UNCOVERED };
            self.consequence = Some(breaks.to_owned());
            if let Some(why) = reason(alert) {
                self.facts.push(("Reason", why));
            }
        }
        if projects.remaining > 0 {
            let rest = wording::count(projects.remaining, "other project");
            let has = if projects.remaining == 1 { "has" } else { "have" };
            let what = if unprotected { "active" } else { "valid" };
            self.facts.push(("Not over", format!("{rest} still {has} no {what} certificate")));
        }
        self.projects_label = wording::count(projects.total, "project");
        if projects.elsewhere > 0 {
            let others = wording::count(projects.elsewhere, "other");
            self.projects_label.push_str(&format!(" of yours and {others}"));
        }
        self.list(&projects.listed, projects.total, shown_projects, |project| {
            let since = project.uncovered_from.or(project.unprotected_since);
            match (&project.successor_id, since) {
                (Some(valid), _) => format!("{valid} is valid"),
                (None, Some(from)) => format!("since {}", wording::day(from)),
                (None, None) if over => String::new(),
                (None, None) if unprotected => "never seen with an active certificate".to_owned(),
                (None, None) => "none of its certificates is valid yet".to_owned(),
            }
        });
        if over {
            return;
        }
        self.advice = activate(&projects.candidates, &projects.listed, false, None);
        if unprotected {
            if self.advice.is_empty() {
                let first = "Upload a certificate, and activate it in each of these projects or \
                             for the whole organization.";
                self.advice.push(first.to_owned());
            }
            let steps = [
                "Look up in the organization’s audit log who deactivated the last certificate, and why.",
                "Add the projects to unprotected_ignore in the configuration, if mutual TLS is off on purpose.",
            ];
            self.advice.extend(steps.map(str::to_owned));
        } else {
            if self.advice.is_empty() {
                let first =
                    "Upload a new CA certificate, and activate it in each of these projects.";
                self.advice.push(first.to_owned());
            }
            let steps = [
                "Issue client certificates that the new CA certificate signs, and give them to the clients.",
                "Deactivate the certificates that have expired.",
            ];
            self.advice.extend(steps.map(str::to_owned));
        }
    }

    fn list(
        &mut self,
        projects: &[ProjectView],
        total: usize,
        shown: usize,
        state: impl Fn(&ProjectView) -> String,
    ) {
        for project in projects.iter().take(shown) {
            let name = match &project.name {
                Some(name) => format!("{name} ({})", project.id),
                None => project.id.to_string(),
            };
            self.projects.push(ProjectLine { name, state: state(project) });
        }
        self.more_projects = total.saturating_sub(self.projects.len());
    }
}

/// `no successor in 2 projects`.
fn coverage(active: &ActiveIn) -> Option<String> {
    match (active.projects_here(), active.without_successor) {
        (0, _) => None,
        (1, 0) => Some("its project has a successor".to_owned()),
        (_, 0) => Some("a successor is active in every project".to_owned()),
        (n, without) if n == without => Some("no successor".to_owned()),
        (_, without) => Some(format!("no successor in {}", wording::count(without, "project"))),
    }
}

/// How a project stands after a certificate was deactivated, deleted or replaced there.
fn after_its_end(project: &ProjectView) -> String {
    match (&project.successor_id, project.unprotected_since, project.uncovered_from) {
        (_, Some(_), _) => "no longer enforces mutual TLS".to_owned(),
        (Some(valid), ..) => format!("{valid} is valid"),
        (None, None, Some(from)) => format!("no valid certificate since {}", wording::day(from)),
        (None, None, None) => "no valid certificate".to_owned(),
    }
}
