//! What the services share that open an incident for each alert, and close it.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    format::{RenderContext, cut},
    instant,
};
use crate::{
    domain::{text::unlinked, threshold::Severity},
    message::{
        Alert, Notification,
        entry::{Entry, ProjectLine, Quiet, unseen, wrong_clock},
        wording,
    },
};

/// How many projects an incident's details list.
const SHOWN_PROJECTS: usize = 20;
/// How long one of its details may be, in UTF-16 code units.
const MAX_DETAIL: usize = 1_000;

/// The name of the detail that says how to mute it.
pub const TO_MUTE: &str = "to_mute_it";

/// The one alert of a message for such a service.
pub struct Incident<'a> {
    pub notification: &'a Notification,
    pub alert: &'a Alert,
    pub entry: Entry,
    /// Constant from the start to the end of the alert, except for its severity.
    key: String,
    /// One line, with the organization.
    pub summary: String,
    /// Whether it ends.
    pub over: bool,
}

/// The longest key that all the services take, in bytes: PagerDuty's `dedup_key`.
const MAX_KEY: usize = 255;

impl<'a> Incident<'a> {
    /// Of the message's first alert: such a message has but one.
    ///
    /// # Errors
    /// Where it has none, which the domain never makes.
    pub fn of(
        notification: &'a Notification,
        context: RenderContext<'_>,
    ) -> Result<Incident<'a>, String> {
        let alert = notification.alerts.first().ok_or("the message has no alert")?;
        let of = notification.organization.as_ref().map(|name| name.as_str());
        // Two notifiers of the same service may select different projects: an alert resolved for
        // one may be open for the other.
        let notifier = &notification.notifier;
        let mut key = match of {
            Some(organization) => format!("certvigil:{notifier}:{organization}:{}", alert.key()),
            None => format!("certvigil:{notifier}:{}", alert.key()),
        };
        if key.len() + ":critical".len() > MAX_KEY {
            key = format!("certvigil:{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()));
        }
        let headline = wording::headline(alert, context.now);
        let summary = unlinked(&match of {
            Some(organization) => format!("{organization}: {headline}"),
            None => headline,
        });
        let entry = Entry::new(notification, alert, SHOWN_PROJECTS, context.style, context.now);
        Ok(Incident { notification, alert, entry, key, summary, over: alert.event.is_end() })
    }

    /// The key of the incident of this severity. Services do not page again for an open incident,
    /// so each severity is its own incident.
    pub fn key_of(&self, severity: Severity) -> String {
        format!("{}:{severity}", self.key)
    }

    /// The severities whose incidents end with this message.
    pub fn closes(&self) -> Vec<Severity> {
        match &self.alert.closes {
            Some(closes) => closes.iter().copied().collect(),
            // A message of an earlier version: closing an incident that is not open changes
            // nothing.
            None if self.over => Severity::ALL.to_vec(),
            None => Vec::new(),
        }
    }

    /// The organization, or a substitute for a test.
    pub fn source(&self) -> String {
        let of = self.notification.organization.as_ref();
        of.map_or("certvigil".to_owned(), |organization| {
            format!("OpenAI organization {organization}")
        })
    }

    /// All that is known, in rows of a name and a text.
    pub fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        let mut detail = |name: &str, text: Option<String>| {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                details.insert(name.to_owned(), cut(&text, MAX_DETAIL).into());
            }
        };
        let Incident { notification, entry, .. } = self;
        detail("what_breaks", entry.consequence.clone());
        for (label, value) in &entry.facts {
            // The same name before and after, for templates.
            let name = if *label == "Expired" { "expires" } else { label };
            detail(&name.to_lowercase().replace(' ', "_"), Some(value.clone()));
        }
        let lines = entry.projects.iter().map(ProjectLine::line);
        let label = Some(entry.projects_label.clone()).filter(|label| !label.is_empty());
        let lines: Vec<String> = label.into_iter().chain(lines).chain(entry.more()).collect();
        detail("projects", Some(lines.join("\n")));
        let steps: Vec<String> = entry.numbered_advice().collect();
        detail("what_to_do", Some(steps.join("\n")));
        detail("runbook_url", entry.runbook.clone());
        if let Some(Quiet::Command(command)) = &entry.quiet {
            detail(TO_MUTE, Some(command.clone()));
        }
        detail("not_seen", notification.scan.as_ref().and_then(unseen));
        detail("clock", notification.scan.as_ref().and_then(wrong_clock));
        detail("read_at", notification.scan.as_ref().map(|scan| instant(scan.finished_at)));
        detail("message", Some(notification.id.to_string()));
        details
    }
}
