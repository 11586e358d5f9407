//! A notification as a mail: the same said in HTML and in plain text, by one template each.
//!
//! No text from outside is markup: the HTML template escapes everything, and headers are encoded by the
//! mail library.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use lettre::{
    Message,
    message::{
        MultiPart,
        header::{HeaderName, HeaderValue},
    },
};
use minijinja::{Environment, UndefinedBehavior, Value, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;
use uuid::Uuid;

use super::{
    Settings,
    entry::{Entry, RESOLVED, capitalized, colour, instant},
};
use crate::domain::{
    certificate::OrganizationName,
    notification::{Notification, ScanView},
    threshold::Severity,
    wording,
};

/// How many alerts a mail shows in full.
const SHOWN_ALERTS: usize = 50;

pub struct Renderer {
    templates: Environment<'static>,
}

impl Renderer {
    /// # Errors
    /// Never for the templates that are built in.
    pub fn new() -> Result<Renderer, minijinja::Error> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        templates.set_syntax(syntax);
        templates.add_template("mail.html", include_str!("mail.html.j2"))?;
        templates.add_template("mail.txt", include_str!("mail.txt.j2"))?;
        Ok(Renderer { templates })
    }

    /// The mail, with all its headers.
    ///
    /// # Errors
    /// Where a template fails, or the mail library refuses an address.
    pub fn message(
        &self,
        settings: &Settings,
        notification: &Notification,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Message> {
        let mail = Mail::new(settings, notification, now);
        let model = Value::from(Serde(&mail));
        let html = self.templates.get_template("mail.html")?.render(model.clone())?;
        let text = self.templates.get_template("mail.txt")?.render(model)?;
        let domain = settings.smtp.from.email.domain();
        let mut message = Message::builder()
            .from(settings.smtp.from.clone())
            .subject(&mail.subject)
            .message_id(Some(format!("<{}@{domain}>", notification.id)))
            .date(now.into());
        for mailbox in &settings.to {
            message = message.to(mailbox.clone());
        }
        for mailbox in &settings.cc {
            message = message.cc(mailbox.clone());
        }
        let mut message = message.multipart(MultiPart::alternative_plain_html(text, html))?;
        let headers = message.headers_mut();
        let mut header = |name: &'static str, value: String| {
            let name = HeaderName::new_from_ascii_str(name);
            headers.insert_raw(HeaderValue::new(name, value));
        };
        // RFC 3834, and what Exchange calls the same: no out-of-office answers.
        header("Auto-Submitted", "auto-generated".into());
        header("X-Auto-Response-Suppress", "All".into());
        if let Some(organization) = &notification.organization {
            header("List-Id", format!("<{organization}.certvigil.{domain}>"));
            if let Some(root) = root(organization, notification) {
                header("References", format!("<{root}@{domain}>"));
                header("In-Reply-To", format!("<{root}@{domain}>"));
            }
        }
        if notification.severity == Severity::Critical && !mail.resolved {
            header("Importance", "high".into());
        }
        Ok(message)
    }
}

/// The same for every mail whose worst certificate is this one, so that they thread.
fn root(organization: &OrganizationName, notification: &Notification) -> Option<Uuid> {
    let worst = notification.alerts.iter().find_map(|alert| alert.certificate.as_ref())?;
    let thread = format!("certvigil/{organization}/{}", worst.id);
    Some(Uuid::new_v5(&Uuid::NAMESPACE_OID, thread.as_bytes()))
}

/// What the templates are given.
#[derive(Serialize)]
struct Mail {
    subject: String,
    title: String,
    organization: Option<String>,
    severity: &'static str,
    colour: &'static str,
    resolved: bool,
    alerts: Vec<Entry>,
    more_alerts: usize,
    reading: Option<String>,
    incomplete: Option<String>,
    why: String,
    id: String,
}

impl Mail {
    fn new(settings: &Settings, notification: &Notification, now: DateTime<Utc>) -> Mail {
        let summary = wording::summary(notification, now);
        let organization = notification.organization.as_ref().map(ToString::to_string);
        let subject = match &organization {
            Some(organization) => format!("[certvigil] {organization}: {summary}"),
            None => format!("[certvigil] {summary}"),
        };
        let alerts: Vec<Entry> = notification
            .alerts
            .iter()
            .take(SHOWN_ALERTS)
            .map(|alert| Entry::new(alert, settings.timezone, now))
            .collect();
        let resolved = notification.alerts.iter().all(|alert| alert.event.is_end());
        let about = match &organization {
            Some(organization) => asked(settings, organization),
            None => "this test".to_owned(),
        };
        Mail {
            subject,
            title: capitalized(&summary),
            organization,
            severity: if resolved { "resolved" } else { notification.severity.as_str() },
            colour: if resolved { RESOLVED } else { colour(notification.severity) },
            resolved,
            more_alerts: notification.alerts_total.saturating_sub(alerts.len()),
            alerts,
            reading: notification.scan.as_ref().map(|scan| reading(scan, settings.timezone)),
            incomplete: notification.scan.as_ref().and_then(incomplete),
            why: format!(
                "certvigil’s notifier “{}” mails {} {about}.",
                notification.notifier,
                settings
                    .to
                    .iter()
                    .chain(&settings.cc)
                    .map(|mailbox| mailbox.email.to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            id: notification.id.to_string(),
        }
    }
}

/// What the notifier asks for, in words.
fn asked(settings: &Settings, organization: &str) -> String {
    let what = match settings.routing.min_severity {
        Severity::Info => "everything",
        Severity::Warning => "what is warning or critical",
        Severity::Critical => "what is critical",
    };
    let some = if settings.routing.projects.is_all() { "" } else { ", for some of its projects" };
    format!("{what} about the organization {organization}{some}")
}

fn reading(scan: &ScanView, timezone: Tz) -> String {
    let how = if scan.complete { "completely" } else { "incompletely" };
    let projects = wording::count(scan.projects_read, "project");
    format!("Read {how} on {}: {projects}.", instant(scan.finished_at, timezone))
}

fn incomplete(scan: &ScanView) -> Option<String> {
    if scan.complete {
        return None;
    }
    let unreadable = match scan.projects_unreadable {
        0 => "Not everything could be read".to_owned(),
        n => format!("{} could not be read", wording::count(n, "project")),
    };
    // What was read a while ago says so; what was never read has nothing to say.
    let old = scan.oldest_reading.filter(|at| scan.finished_at - at > FRESH);
    let rests = old.map_or(String::new(), |at| {
        format!(
            " What is said here of the rest is what was last known of it, on {}.",
            wording::day(at)
        )
    });
    Some(format!("{unreadable}: certificates there may expire unseen.{rests}"))
}

/// A list that was read so long before the scan ended, or later, was read by it.
const FRESH: TimeDelta = TimeDelta::hours(1);
