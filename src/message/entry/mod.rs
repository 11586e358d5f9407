//! One alert in words, as every channel for people shows it: its facts, its projects, what breaks, what to do
//! about it, and how to be quiet about it. The words are made here once; a format only lays them out, and
//! escapes them as its service wants.

mod advice;
mod certificate;
mod facts;
mod monitor;
mod projects;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::style::Style;
use super::{Alert, Body, Event, Notification, ProjectView, wording};
use crate::domain::{text::unlinked, threshold::Severity};
use advice::{quiet, quiet_projects};
use facts::late;
pub use facts::{capitalized, caveat, reading, unseen, wrong_clock};

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
            runbook: style.links.runbook(alert.event),
            quiet: None,
        };
        match &alert.body {
            Body::Projects(projects) => {
                entry.describe_projects(alert, projects, shown_projects);
                if alert.event == Event::ProjectUnprotected {
                    entry.quiet = quiet_projects(notification.organization.as_ref(), projects, now);
                }
            }
            Body::Certificate(body) => {
                entry.describe_certificate(alert, body, shown_projects, timezone, now);
                let organization = notification.organization.as_ref();
                entry.quiet = quiet(organization, alert, &body.certificate, now);
            }
            Body::Sight(sight) => entry.describe_sight(alert, sight, shown_projects, timezone),
            Body::Credential(credential) => {
                entry.describe_credential(alert, credential, timezone, now);
            }
            Body::Failing(failing) => {
                entry.describe_failing(alert, failing, shown_projects, timezone);
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
