//! The text of an alert for all formats that people read: facts, projects, consequence, steps and
//! the answer to it. A format only lays it out and escapes it.

mod advice;
mod certificate;
mod changes;
mod facts;
mod list;
mod monitor;
mod projects;
mod summary;

use super::style::Style;
use super::{Alert, Body, Event, Notification, wording};
use crate::domain::{text::unlinked, threshold::Severity};
use advice::{quiet, quiet_projects};
use chrono::{DateTime, Utc};
use facts::late;
pub use facts::{capitalized, caveat, reading, unseen, wrong_clock};
pub use list::{List, ListItem};

/// The mark of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    Critical,
    Warning,
    Info,
    Drill,
    Resolved,
}

impl Mark {
    pub fn of(alert: &Alert) -> Mark {
        match alert.severity {
            // Resolved, but projects lost their coverage or protection.
            _ if alert.loses_coverage() => Mark::Warning,
            _ if alert.event.is_resolution() => Mark::Resolved,
            _ if alert.event == Event::Drill => Mark::Drill,
            Severity::Critical => Mark::Critical,
            Severity::Warning => Mark::Warning,
            Severity::Info => Mark::Info,
        }
    }

    /// The mark of a notification: that of its worst alert.
    pub fn of_all(notification: &Notification) -> Mark {
        notification.alerts.iter().map(Mark::of).min().unwrap_or(Mark::Info)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Mark::Critical => "critical",
            Mark::Warning => "warning",
            Mark::Info => "info",
            Mark::Drill => "drill",
            Mark::Resolved => "resolved",
        }
    }

    /// A colored symbol, for chat services.
    pub fn sign(self) -> &'static str {
        match self {
            Mark::Critical => "🔴",
            Mark::Warning => "🟠",
            Mark::Info => "🔵",
            Mark::Drill => "🟣",
            Mark::Resolved => "🟢",
        }
    }
}

/// The text of one alert. Mail and chat programs cannot turn it into links; formats must escape
/// markup.
#[derive(Clone, Debug)]
pub struct Entry {
    pub headline: String,
    pub mark: Mark,
    /// The consequence, with its time.
    pub consequence: Option<String>,
    /// The expiry of a certificate, or the start of its validity, if known.
    pub when: Option<String>,
    /// Details as label and value.
    pub facts: Vec<(&'static str, String)>,
    pub lists: Vec<List>,
    /// The coverage by successors, for an open alert about a certificate.
    pub coverage: Option<String>,
    /// The steps to take.
    pub advice: Vec<String>,
    /// The last of the steps, worded for any certificate: a digest shows them once.
    pub general_advice: Vec<String>,
    /// The section of the operator's runbook.
    pub runbook: Option<String>,
    pub answer: Option<Answer>,
}

/// How a reader answers an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Silences it until a date.
    Acknowledge {
        command: String,
        /// The URL of a page that does it, too.
        link: Option<String>,
        /// Whether the last threshold of the certificate alerts nevertheless.
        except_last: bool,
    },
    /// Confirms a drill.
    Confirm {
        command: String,
        /// The URL of a page that does it, too.
        link: Option<String>,
    },
    /// It cannot be acknowledged, for this reason.
    Never(&'static str),
}

impl Answer {
    /// The URL of its page, with the text of the link.
    pub fn link(&self) -> Option<(&'static str, &str)> {
        match self {
            Answer::Acknowledge { link, .. } => Some(("Acknowledge until a date…", link.as_ref()?)),
            Answer::Confirm { link, .. } => Some(("Confirm that you read this…", link.as_ref()?)),
            Answer::Never(_) => None,
        }
    }

    /// Its command, with the purpose.
    pub fn command(&self) -> Option<(&'static str, &str)> {
        match self {
            Answer::Acknowledge { command, .. } => {
                Some(("To silence this alert for a while", command))
            }
            Answer::Confirm { command, .. } => Some(("To confirm that you read this", command)),
            Answer::Never(_) => None,
        }
    }
}

impl Entry {
    /// The text of an alert, with at most `shown` items of each list.
    pub fn new(
        notification: &Notification,
        alert: &Alert,
        shown: usize,
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
            lists: Vec::new(),
            coverage: None,
            advice: Vec::new(),
            general_advice: Vec::new(),
            runbook: style.links.runbook(alert.event),
            answer: None,
        };
        match &alert.body {
            Body::Projects(projects) => {
                entry.describe_projects(alert, projects, shown);
                if alert.event == Event::ProjectUnprotected {
                    entry.answer =
                        quiet_projects(notification.organization.as_ref(), projects, now);
                }
            }
            Body::Certificate(body) => {
                entry.describe_certificate(alert, body, shown, timezone, now);
                let organization = notification.organization.as_ref();
                entry.answer = quiet(organization, alert, &body.certificate, now);
            }
            Body::Sight(sight) => entry.describe_sight(alert, sight, shown, timezone),
            Body::Credential(credential) => {
                entry.describe_credential(alert, credential, timezone, now);
            }
            Body::Failing(failing) => entry.describe_failing(alert, failing, shown, timezone),
            Body::Unproven(unproven) => entry.describe_unproven(alert, unproven, shown, timezone),
            Body::Drill(drill) => entry.describe_drill(alert, drill, timezone),
            Body::Summary(summary) => entry.describe_summary(summary, shown, timezone, now),
            Body::Changes(changes) => entry.describe_changes(changes, shown, timezone),
            Body::Test => {
                entry.advice.push("Nothing: this only shows that messages arrive.".to_owned());
            }
        }
        match &mut entry.answer {
            Some(Answer::Acknowledge { link, .. }) if style.links.acknowledge => {
                *link = style.links.answer(alert);
            }
            Some(Answer::Confirm { link, .. }) => *link = style.links.answer(alert),
            Some(Answer::Acknowledge { .. } | Answer::Never(_)) | None => {}
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

    fn unlinked(mut self) -> Entry {
        let mut texts: Vec<&mut String> = vec![&mut self.headline];
        texts.extend(&mut self.consequence);
        texts.extend(self.facts.iter_mut().map(|(_, value)| value));
        texts.extend(&mut self.advice);
        for text in texts {
            *text = unlinked(text);
        }
        self.lists.iter_mut().for_each(List::unlink);
        self
    }
}
