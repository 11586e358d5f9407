//! The formats of webhook services: one file for each, and the only list of them.
//!
//! A format turns a notification into one request, or several if incidents of other severities are
//! closed. It respects the limits of the service by cutting with a count, and escapes external text
//! by the rules of the service. To add a format: a file, and its match arms here.

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
    /// A template of the operator.
    Template(Template),
}

/// The number of items that a list of an alert shows, or fewer if that is too long.
pub const SHOWN: [usize; 3] = [5, 2, 1];

/// The built-in formats.
pub const BUILT_IN: [Format; 7] = [
    Format::Json,
    Format::Slack,
    Format::Teams,
    Format::Discord,
    Format::PagerDuty,
    Format::Opsgenie,
    Format::Alertmanager,
];

/// The use of the configured key by a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// No key: the URL itself is the secret.
    None,
    /// An optional bearer token (RFC 6750).
    Bearer,
    /// Required, and sent as `Authorization: GenieKey …`.
    Genie,
    /// Required, and part of the message: it selects the team of the service.
    Routing,
}

/// The properties of a format.
#[derive(Clone, Copy)]
pub struct Profile {
    /// Its name in the configuration.
    pub word: &'static str,
    pub key: KeyUse,
    pub grouping: Grouping,
    /// The default rate per minute.
    pub max_per_minute: u32,
    /// The maximum number of requests for one notification.
    pub max_requests: u32,
    /// The URL of the service, if it is the same for all users.
    pub default_url: Option<&'static str>,
}

/// The context of rendering.
#[derive(Clone, Copy)]
pub struct RenderContext<'a> {
    /// The configured URL.
    pub url: &'a Url,
    pub style: &'a Style,
    pub now: DateTime<Utc>,
    /// The key, for services that expect it in the message.
    pub routing_key: &'a str,
}

/// A request. URL and body may contain a secret.
#[derive(Clone)]
pub struct Request {
    pub url: Url,
    pub content_type: String,
    pub body: String,
    /// Whether it closes an incident: a 404 then counts as success.
    pub closes: bool,
}

impl Request {
    /// A JSON document for the configured URL.
    pub fn json(context: RenderContext<'_>, body: &serde_json::Value) -> Request {
        Request::json_to(context.url.clone(), body.to_string())
    }

    pub fn json_to(url: Url, body: String) -> Request {
        Request { url, content_type: "application/json".to_owned(), body, closes: false }
    }
}

impl Format {
    pub fn profile(&self) -> Profile {
        let of = |word, key| Profile {
            word,
            key,
            grouping: Grouping::Digest,
            max_per_minute: 60,
            max_requests: 1,
            default_url: None,
        };
        match self {
            Format::Json => of("json", KeyUse::Bearer),
            Format::Slack => of("slack", KeyUse::None),
            Format::Teams => of("teams", KeyUse::None),
            Format::Discord => of("discord", KeyUse::None),
            Format::Template(_) => of("template", KeyUse::Bearer),
            Format::PagerDuty => Profile {
                grouping: Grouping::EachAlert,
                max_requests: 3,
                default_url: Some(pagerduty::URL),
                ..of("pagerduty", KeyUse::Routing)
            },
            Format::Opsgenie => Profile {
                grouping: Grouping::EachAlert,
                max_requests: 3,
                default_url: Some(opsgenie::URL),
                ..of("opsgenie", KeyUse::Genie)
            },
            // An Alertmanager is a private service, and receives every open alert with every scan.
            Format::Alertmanager => Profile {
                grouping: Grouping::EachAlertRefreshed,
                max_per_minute: 6_000,
                ..of("alertmanager", KeyUse::Bearer)
            },
        }
    }

    /// Whether people read its messages in a chat, where they follow links.
    pub fn is_chat(&self) -> bool {
        matches!(self, Format::Slack | Format::Teams | Format::Discord)
    }

    /// Whether the text of a successful response reports a failed delivery.
    pub fn is_failure(&self, reply: &str) -> bool {
        // The response of a connector whose message Teams rejected (Microsoft's documentation of
        // webhooks).
        matches!(self, Format::Teams) && reply.contains("message delivery failed")
    }

    /// The requests for a notification, in their order; all of them must succeed.
    ///
    /// # Errors
    /// The error of the operator's template; built-in formats do not fail.
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

/// The length in UTF-16 code units, which some services count. It is never less than the number of
/// characters.
pub fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Cuts a text with an ellipsis to at most `max` UTF-16 code units.
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
    // A backslash at the end would escape the ellipsis.
    let out = out.trim_end_matches('\\');
    format!("{out}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_by_utf16_code_units() {
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
