//! What each service wants a message as: a file for each format, and one list of them here.
//!
//! A format makes one request out of one message, or a few where an incident of another severity ends. It keeps the service's limits by cutting with a count,
//! and escapes what others wrote as the service's own rules say. To add one: its file, and its arms here.

use chrono::{DateTime, Utc};
use url::Url;

use super::{
    alertmanager, discord, incident::Incident, json, opsgenie, pagerduty, slack, teams,
    template::Template,
};
use crate::{
    domain::notifier::Grouping,
    message::{Notification, style::Style},
};

#[derive(Clone, Debug)]
pub enum Format {
    Json,
    Slack,
    Teams,
    Discord,
    PagerDuty,
    Opsgenie,
    Alertmanager,
    /// The operator's own.
    Template(Template),
}

/// The formats that are built in.
pub const BUILT_IN: [Format; 7] = [
    Format::Json,
    Format::Slack,
    Format::Teams,
    Format::Discord,
    Format::PagerDuty,
    Format::Opsgenie,
    Format::Alertmanager,
];

/// What a key is to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The address itself is the secret.
    None,
    /// A bearer token (RFC 6750), where there is one.
    Bearer,
    /// Demanded, and sent as `Authorization: GenieKey …`.
    Genie,
    /// Required and part of the message: it selects the team of the service.
    Routing,
}

/// What a message is rendered with.
#[derive(Clone, Copy)]
pub struct RenderContext<'a> {
    /// Where messages go.
    pub url: &'a Url,
    pub style: &'a Style,
    pub now: DateTime<Utc>,
    /// The key of a service that wants it in the message.
    pub routing_key: &'a str,
}

/// One request. Its address and its body may hold a secret.
#[derive(Clone)]
pub struct Request {
    pub url: Url,
    pub content_type: String,
    pub body: String,
    /// Whether it closes an incident: then one that is not there (404) is closed.
    pub closes: bool,
}

impl Request {
    /// A JSON document to the configured address.
    pub fn json(context: RenderContext<'_>, body: &serde_json::Value) -> Request {
        Request::json_to(context.url.clone(), body.to_string())
    }

    pub fn json_to(url: Url, body: String) -> Request {
        Request { url, content_type: "application/json".to_owned(), body, closes: false }
    }
}

impl Format {
    pub fn grouping(&self) -> Grouping {
        match self {
            Format::Json
            | Format::Slack
            | Format::Teams
            | Format::Discord
            | Format::Template(_) => Grouping::Digest,
            Format::PagerDuty | Format::Opsgenie => Grouping::EachAlert,
            Format::Alertmanager => Grouping::EachAlertRefreshed,
        }
    }

    pub fn key(&self) -> Key {
        match self {
            Format::PagerDuty => Key::Routing,
            Format::Opsgenie => Key::Genie,
            Format::Slack | Format::Teams | Format::Discord => Key::None,
            Format::Json | Format::Alertmanager | Format::Template(_) => Key::Bearer,
        }
    }

    /// Whether the text of a successful answer says that the message was not delivered.
    pub fn is_failure(&self, reply: &str) -> bool {
        match self {
            // A connector's answer when Teams itself refused the message (Microsoft's documentation of webhooks).
            Format::Teams => reply.contains("message delivery failed"),
            Format::Json
            | Format::Slack
            | Format::Discord
            | Format::PagerDuty
            | Format::Opsgenie
            | Format::Alertmanager
            | Format::Template(_) => false,
        }
    }

    /// Its word in the configuration.
    pub fn word(&self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Slack => "slack",
            Format::Teams => "teams",
            Format::Discord => "discord",
            Format::PagerDuty => "pagerduty",
            Format::Opsgenie => "opsgenie",
            Format::Alertmanager => "alertmanager",
            Format::Template(_) => "template",
        }
    }

    /// The default rate per minute. An Alertmanager is private and needs every open alert in every
    /// scan.
    pub fn max_per_minute(&self) -> u32 {
        match self {
            Format::Alertmanager => 6_000,
            Format::Json
            | Format::Slack
            | Format::Teams
            | Format::Discord
            | Format::PagerDuty
            | Format::Opsgenie
            | Format::Template(_) => 60,
        }
    }

    /// How many requests one message may need.
    pub fn most_requests(&self) -> u32 {
        match self {
            // One for each severity.
            Format::PagerDuty | Format::Opsgenie => 3,
            Format::Json
            | Format::Slack
            | Format::Teams
            | Format::Discord
            | Format::Alertmanager
            | Format::Template(_) => 1,
        }
    }

    /// The service's own address, where it has one for everybody.
    pub fn default_url(&self) -> Option<&'static str> {
        match self {
            Format::PagerDuty => Some(pagerduty::URL),
            Format::Opsgenie => Some(opsgenie::URL),
            Format::Json
            | Format::Slack
            | Format::Teams
            | Format::Discord
            | Format::Alertmanager
            | Format::Template(_) => None,
        }
    }

    /// The requests that say the message, in their order; all of them have to be accepted.
    ///
    /// # Errors
    /// Where the operator's template fails, with why; the built-in formats never do.
    pub fn requests(
        &self,
        notification: &Notification,
        context: RenderContext<'_>,
    ) -> Result<Vec<Request>, String> {
        let one = |call| Ok(vec![call]);
        match self {
            Format::Json => one(Request::json(
                context,
                &json::document(notification, &context.style.links, context.now),
            )),
            Format::Slack => one(Request::json(context, &slack::body(notification, context))),
            Format::Teams => one(Request::json(context, &teams::body(notification, context))),
            Format::Discord => one(discord::call(notification, context)),
            Format::Alertmanager => {
                one(alertmanager::call(&Incident::of(notification, context)?, context))
            }
            Format::Template(template) => one(template.call(notification, context)?),
            Format::PagerDuty => {
                Ok(pagerduty::requests(&Incident::of(notification, context)?, context))
            }
            Format::Opsgenie => {
                Ok(opsgenie::requests(&Incident::of(notification, context)?, context))
            }
        }
    }
}

/// How long a text is to services that count in UTF-16 code units, as JavaScript does. Where a service
/// counts characters, this is never fewer.
pub fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// The text, cut with an ellipsis to at most `max` UTF-16 code units.
pub fn cut(text: &str, max: usize) -> String {
    if units(text) <= max {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.len_utf16();
        if used > max {
            break;
        }
        out.push(c);
    }
    // A cut escape would escape the ellipsis.
    let out = out.trim_end_matches('\\');
    format!("{out}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_within_what_the_service_counts() {
        let cases = [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("🔑🔑🔑", 6, "🔑🔑🔑"),
            ("🔑🔑🔑", 5, "🔑🔑…"),
            ("ab\\*c", 4, "ab…"),
            ("", 0, ""),
        ];
        for (text, max, expected) in cases {
            assert_eq!(cut(text, max), expected, "{text} {max}");
            assert!(units(&cut(text, max)) <= max);
        }
    }
}
