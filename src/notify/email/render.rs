//! Renders a notification as a mail, with the same content in HTML and plain text.
//!
//! External text is never markup: the HTML template escapes everything, the mail library encodes
//! headers, and texts that look like links are not linked.

use chrono::{DateTime, Utc};
use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
};
use minijinja::{Environment, UndefinedBehavior, Value, syntax::SyntaxConfig, value::Serde};
use uuid::Uuid;

use super::{Recipients, Settings, content::Mail};
use crate::{
    domain::certificate::OrganizationName,
    message::{Alert, Notification, entry::Mark},
    notify::NotifierError,
};

pub struct Renderer {
    templates: Environment<'static>,
}

/// The subject and both bodies of a mail.
pub struct Rendered {
    pub subject: String,
    pub html: String,
    pub text: String,
}

impl Renderer {
    /// # Errors
    /// Never for the built-in templates.
    pub fn new() -> Result<Renderer, minijinja::Error> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        templates.set_syntax(syntax);
        templates.add_template("mail.html", include_str!("mail.html.j2"))?;
        templates.add_template("mail.txt", include_str!("mail.txt.j2"))?;
        Ok(Renderer { templates })
    }

    /// `recipients` are those that the mail names.
    ///
    /// # Errors
    /// If a template fails.
    pub fn render(
        &self,
        settings: &Settings,
        recipients: Option<&Recipients>,
        notification: &Notification,
        now: DateTime<Utc>,
    ) -> Result<Rendered, minijinja::Error> {
        let mail = Mail::new(settings, recipients, notification, now);
        let model = Value::from(Serde(&mail));
        let html = self.templates.get_template("mail.html")?.render(model.clone())?;
        let text = self.templates.get_template("mail.txt")?.render(model)?;
        Ok(Rendered { html, text, subject: mail.subject })
    }

    /// The mail with all headers.
    ///
    /// # Errors
    /// If a template fails, or the mail library rejects an address.
    pub fn message(
        &self,
        settings: &Settings,
        notification: &Notification,
        recipient: &Address,
        now: DateTime<Utc>,
    ) -> Result<Message, NotifierError> {
        // Its address may belong to other recipients now.
        let recipients = settings.route(&notification.audience);
        let recipients = recipients.filter(|one| one.has(recipient));
        let Rendered { subject, html, text } =
            self.render(settings, recipients, notification, now)?;
        let domain = settings.smtp.from.email.domain();
        let mut message = Message::builder()
            .from(settings.smtp.from.clone())
            .subject(&subject)
            .message_id(Some(format!("<{}@{domain}>", notification.id)))
            .date(now.into());
        match recipients {
            Some(recipients) => {
                for mailbox in &recipients.to {
                    message = message.to(mailbox.clone());
                }
                for mailbox in &recipients.cc {
                    message = message.cc(mailbox.clone());
                }
            }
            None => message = message.to(Mailbox::new(None, recipient.clone())),
        }
        let mut message = message.multipart(MultiPart::alternative_plain_html(text, html))?;
        let headers = message.headers_mut();
        let mut header = |name: &'static str, value: String| {
            let name = HeaderName::new_from_ascii_str(name);
            headers.insert_raw(HeaderValue::new(name, value));
        };
        // Prevents out-of-office replies: RFC 3834, and the header of Exchange.
        header("Auto-Submitted", "auto-generated".into());
        header("X-Auto-Response-Suppress", "All".into());
        if let Some(organization) = &notification.organization {
            header("List-Id", format!("<{organization}.certvigil.{domain}>"));
            if let Some(root) = root(organization, notification) {
                header("References", format!("<{root}@{domain}>"));
                header("In-Reply-To", format!("<{root}@{domain}>"));
            }
        }
        if Mark::of_all(notification) == Mark::Critical {
            header("Importance", "high".into());
        }
        Ok(message)
    }
}

/// The thread of a mail: its most urgent certificate; without one, the alert about projects.
fn root(organization: &OrganizationName, notification: &Notification) -> Option<Uuid> {
    let of_certificate = notification.alerts.iter().find_map(Alert::certificate);
    let about = match of_certificate {
        Some(worst) => worst.id.to_string(),
        None => notification.alerts.first()?.key(),
    };
    let thread = format!("certvigil/{organization}/{about}");
    Some(Uuid::new_v5(&Uuid::NAMESPACE_OID, thread.as_bytes()))
}
