//! Common code of services that open and close an incident for each alert.

use serde_json::{Map, Value};
use std::iter;
use uuid::Uuid;

use super::{
    format::{RenderContext, cut},
    rfc3339,
};
use crate::{
    domain::{text::unlinked, threshold::Severity},
    message::{
        Alert, Notification,
        entry::{Answer, Entry, unseen, wrong_clock},
        wording,
    },
};

/// The number of projects listed in the details.
const SHOWN_PROJECTS: usize = 20;
/// The maximum length of a detail, in UTF-16 code units.
const MAX_DETAIL: usize = 1_000;

/// The name of the detail with the command that silences the alert.
pub const TO_MUTE: &str = "to_mute_it";

/// The only alert of a notification.
pub struct Incident<'a> {
    pub notification: &'a Notification,
    pub alert: &'a Alert,
    pub entry: Entry,
    /// The constant part of the keys, without the severity.
    key: String,
    /// One line that starts with the organization.
    pub summary: String,
    /// Whether the alert is resolved.
    pub over: bool,
}

/// The longest key that all services accept, in bytes: PagerDuty's `dedup_key`.
const MAX_KEY: usize = 255;

impl<'a> Incident<'a> {
    /// The incident of the first alert: such a notification has only one.
    ///
    /// # Errors
    /// If it has no alert, which never happens.
    pub fn of(
        notification: &'a Notification,
        context: RenderContext<'_>,
    ) -> Result<Incident<'a>, String> {
        let alert = notification.alerts.first().ok_or("the message has no alert")?;
        let of = notification.organization.as_ref().map(|name| name.as_str());
        // The key contains the notifier: two notifiers of the same service may select different
        // projects, so that an alert resolved for one may be open for the other.
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
        Ok(Incident { notification, alert, entry, key, summary, over: alert.event.is_resolution() })
    }

    /// The key of the incident of this severity. Services do not page again for an open incident,
    /// so each severity is its own incident.
    pub fn key_of(&self, severity: Severity) -> String {
        format!("{}:{severity}", self.key)
    }

    /// The severities whose incidents this notification closes.
    pub fn closes(&self) -> Vec<Severity> {
        match &self.alert.closes {
            Some(closes) => closes.iter().copied().collect(),
            // A notification of an earlier version. Closing an incident that is not open changes
            // nothing.
            None if self.over => Severity::ALL.to_vec(),
            None => Vec::new(),
        }
    }

    /// The organization, or `certvigil` without one.
    pub fn source(&self) -> String {
        let of = self.notification.organization.as_ref();
        of.map_or("certvigil".to_owned(), |organization| {
            format!("OpenAI organization {organization}")
        })
    }

    /// All information, by name.
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
            // The name stays the same after the expiry, for templates.
            let name = if *label == "Expired" { "expires" } else { label };
            detail(
                &name.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_"),
                Some(value.clone()),
            );
        }
        let lines =
            entry.lists.iter().flat_map(|one| iter::once(one.title.clone()).chain(one.lines()));
        let lines: Vec<String> = lines.collect();
        detail("projects", Some(lines.join("\n")));
        let steps: Vec<String> = entry.numbered_advice().collect();
        detail("what_to_do", Some(steps.join("\n")));
        detail("runbook_url", entry.runbook.clone());
        match &entry.answer {
            Some(Answer::Acknowledge { command, .. }) => detail(TO_MUTE, Some(command.clone())),
            Some(Answer::Confirm { command, link }) => {
                detail("confirm", Some(link.as_ref().unwrap_or(command).clone()));
            }
            Some(Answer::Never(_)) | None => {}
        }
        detail("not_seen", notification.scan.as_ref().and_then(unseen));
        detail("clock", notification.scan.as_ref().and_then(wrong_clock));
        detail("read_at", notification.scan.as_ref().map(|scan| rfc3339(scan.finished_at)));
        detail("message", Some(notification.id.to_string()));
        details
    }
}
