//! The output of a forecast: table, JSON and calendar.

use chrono::{DateTime, TimeDelta, Utc};
use comfy_table::Cell;
use icalendar::{Calendar, Component, Event, EventLike};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

use super::super::{
    rfc3339,
    terminal::{self, Tint, lines},
};
use crate::{
    config::Config,
    domain::{alert::Reason, day, evaluate::evaluate, threshold::Severity},
    message::{Alert, Notification, compose, wording},
    usecase::organization::OrganizationState,
};

/// The upcoming notifications of all organizations.
pub struct Outlook<'a> {
    config: &'a Config,
    now: DateTime<Utc>,
    until: DateTime<Utc>,
    messages: Vec<Notification>,
    /// Current silences and unreadable lists, which explain missing alerts.
    notes: Vec<String>,
    /// The number of known certificates.
    known: usize,
}

/// Printed without any certificate.
const NOTHING_KNOWN: &str = "no certificates known; to see unreadable lists, run certvigil check\n";

/// A line of the table, and the repeats that follow it.
struct Row {
    severity: Severity,
    /// Whether it is a resolution.
    over: bool,
    cells: [String; 6],
    repeats: usize,
    last_repeat: Option<DateTime<Utc>>,
}

impl<'a> Outlook<'a> {
    pub fn new(config: &'a Config, now: DateTime<Utc>, until: DateTime<Utc>) -> Outlook<'a> {
        Outlook { config, now, until, messages: Vec::new(), notes: Vec::new(), known: 0 }
    }

    pub fn add(&mut self, known: &OrganizationState, messages: Vec<Notification>) {
        self.messages.extend(messages);
        self.messages.sort_by_key(|message| message.created_at);
        let OrganizationState { organization, policy, inventory, acknowledgements, .. } = known;
        let evaluation = evaluate(organization, inventory, policy, acknowledgements, self.now);
        self.known += evaluation.assessments().len();
        for assessment in evaluation.assessments() {
            let certificate = assessment.certificate;
            let title = format!("{organization}: “{}” ({})", certificate.title(), certificate.id);
            let ignored = compose::ignored(&assessment).filter(|view| !view.ended);
            let acknowledged =
                compose::acknowledged(&assessment, self.now).filter(|view| !view.ended);
            let silences = [("ignored", ignored), ("acknowledged", acknowledged)];
            for (what, view) in silences {
                let line = view.map(|view| {
                    format!("{title} is {what} {}", wording::silence(&view, self.config.timezone))
                });
                self.notes.extend(line);
            }
        }
        for (scope, fault) in inventory.faults() {
            let note = format!("{organization}: {scope} could not be read: {}", fault.why);
            self.notes.push(note);
        }
    }

    fn local(&self, at: DateTime<Utc>) -> String {
        day::local(at, self.config.timezone)
    }

    pub fn table(&self) -> String {
        let mut rows: Vec<Row> = Vec::new();
        let mut latest: BTreeMap<(String, String, String), usize> = BTreeMap::new();
        for message in &self.messages {
            for alert in &message.alerts {
                let key = (
                    message.audience.ledger_of(&message.notifier),
                    message.organization.as_ref().map_or(String::new(), ToString::to_string),
                    alert.certificate().map_or(String::new(), |one| one.id.to_string()),
                );
                if alert.reason == Some(Reason::Repeat)
                    && let Some(row) = latest.get(&key).and_then(|row| rows.get_mut(*row))
                    && row.severity == alert.severity
                {
                    row.repeats += 1;
                    row.last_repeat = Some(message.created_at);
                    continue;
                }
                if !alert.event.is_resolution() {
                    latest.insert(key, rows.len());
                }
                rows.push(self.row(message, alert));
            }
        }
        let until = self.local(self.until);
        let mut text = if rows.is_empty() {
            match self.known {
                0 => NOTHING_KNOWN.to_owned(),
                _ => format!("no alerts until {until}, if nothing changes\n"),
            }
        } else {
            let narrow = terminal::is_narrow();
            let mut table = match narrow {
                true => terminal::table(&["WHEN", "SEVERITY", "WHAT"], &["WHEN", "SEVERITY"]),
                false => terminal::table(
                    &["WHEN", "NOTIFIER", "SEVERITY", "ORGANIZATION", "WHAT", "WHY"],
                    &["WHEN", "NOTIFIER", "SEVERITY", "ORGANIZATION"],
                ),
            };
            for row in &rows {
                let mut cells = row.cells.clone();
                if let Some(last) = row.last_repeat {
                    let times = wording::count(row.repeats, "repeat");
                    cells[5].push_str(&format!(", then {times} until {}", self.local(last)));
                }
                let tint = if row.over { Tint::Well } else { Tint::Of(row.severity) };
                let [when, notifier, severity, organization, what, why] = cells;
                let severity = terminal::cell(severity, tint);
                if narrow {
                    let more = format!("{what}\n{organization} → {notifier}: {why}");
                    table.add_row([Cell::new(when), severity, Cell::new(more)]);
                } else {
                    table.add_row([
                        Cell::new(when),
                        Cell::new(notifier),
                        severity,
                        Cell::new(organization),
                        terminal::cell(what, tint),
                        Cell::new(why),
                    ]);
                }
            }
            let messages = wording::count(self.messages.len(), "message");
            format!("{}\n{messages} until {until}, if nothing changes\n", lines(&table))
        };
        if !self.notes.is_empty() {
            text.push('\n');
            self.notes.iter().for_each(|note| text.push_str(&format!("{note}\n")));
        }
        text
    }

    fn row(&self, message: &Notification, alert: &Alert) -> Row {
        let over = alert.event.is_resolution();
        let why = [alert.stage.as_deref(), alert.reason.map(Reason::as_str)];
        Row {
            severity: alert.severity,
            over,
            cells: [
                self.local(message.created_at),
                message.audience.title_of(&message.notifier),
                if over { "resolved" } else { alert.severity.as_str() }.to_owned(),
                message.organization.as_ref().map_or(String::new(), ToString::to_string),
                wording::headline(alert, message.created_at),
                why.into_iter().flatten().collect::<Vec<_>>().join(", "),
            ],
            repeats: 0,
            last_repeat: None,
        }
    }

    pub fn document(&self) -> Value {
        let messages: Vec<Value> = self
            .messages
            .iter()
            .map(|message| {
                let alerts: Vec<Value> = message.alerts.iter().map(entry).collect();
                json!({
                    "at": rfc3339(message.created_at),
                    "organization": message.organization,
                    "notifier": message.notifier,
                    "owners": message.audience.teams(),
                    "severity": message.severity,
                    "summary": wording::summary(message, message.created_at),
                    "alerts": alerts,
                    "alerts_total": message.alerts_total,
                })
            })
            .collect();
        json!({
            "schema": "certvigil.forecast/1",
            "made_at": rfc3339(self.now),
            "until": rfc3339(self.until),
            "timezone": self.config.timezone.name(),
            "messages": messages,
            "notes": self.notes,
        })
    }

    /// A calendar (RFC 5545) with an event for each message that is not a repeat.
    pub fn calendar(&self) -> String {
        let mut calendar = Calendar::empty();
        calendar.append_property(("VERSION", "2.0"));
        calendar.append_property(("PRODID", "-//certvigil//forecast//EN"));
        calendar.name("certvigil forecast").timezone(self.config.timezone.name());
        for message in &self.messages {
            if message.alerts.iter().all(|alert| alert.reason == Some(Reason::Repeat)) {
                continue;
            }
            let at = message.created_at;
            let organization = message.organization.as_ref().map_or("", |name| name.as_str());
            // Stable ids for calendars (RFC 7986, section 5.3): a ledger gets one message per
            // organization and scan.
            let ledger = message.audience.ledger_of(&message.notifier);
            let key = format!("{organization}/{ledger}/{}", rfc3339(at));
            let uid = Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes());
            let lines: Vec<String> = message
                .alerts
                .iter()
                .map(|alert| format!("{}: {}", alert.severity, wording::headline(alert, at)))
                .collect();
            let event = Event::new()
                .uid(&format!("{uid}@certvigil"))
                .timestamp(self.now)
                .summary(&format!(
                    "{organization}: {} → {}",
                    wording::summary(message, at),
                    message.audience.title_of(&message.notifier)
                ))
                .description(&lines.join("\n"))
                .starts(at)
                .ends(at + TimeDelta::minutes(15))
                .done();
            calendar.push(event);
        }
        calendar.done().to_string()
    }
}

fn entry(alert: &Alert) -> Value {
    let certificate = alert.certificate().map(|one| {
        json!({
            "id": one.id,
            "name": one.name,
            "expires_at": one.expires_at.map(rfc3339),
            "projects_total": one.active_in.projects_total,
            "projects_without_successor": one.active_in.without_successor,
        })
    });
    let projects = alert.projects().map(|view| {
        let listed: Vec<Value> =
            view.listed.iter().map(|one| json!({ "id": one.id, "name": one.name })).collect();
        json!({ "total": view.total, "listed": listed })
    });
    json!({
        "event": alert.event,
        "reason": alert.reason,
        "severity": alert.severity,
        "stage": alert.stage,
        "certificate": certificate,
        "projects": projects,
    })
}
