//! `format = "opsgenie"`: the Alert API, with one Opsgenie alert for each alert and severity.
//!
//! <https://docs.opsgenie.com/docs/alert-api>: alerts are created with an alias, and closed by it.
//! Limits: a message of 130 characters, an alias and an entity of 512, a description of 15 000,
//! details of 8000 in total, 20 tags of 50, a source of 100, a note of 25 000.

use serde_json::{Map, Value, json};
use url::Url;

use super::{
    format::{RenderContext, Request, cut, units},
    incident::Incident,
};
use crate::domain::threshold::Severity;

/// For accounts in the EU, the URL is `https://api.eu.opsgenie.com/v2/alerts`.
pub const URL: &str = "https://api.opsgenie.com/v2/alerts";
const MAX_MESSAGE: usize = 130;
const MAX_DESCRIPTION: usize = 15_000;
const MAX_DETAILS: usize = 8_000;
const MAX_ENTITY: usize = 512;
const MAX_SOURCE: usize = 100;
const MAX_NOTE: usize = 25_000;
const MAX_TAG: usize = 50;

pub fn requests(incident: &Incident<'_>, context: RenderContext<'_>) -> Vec<Request> {
    let opened = (!incident.over).then(|| created(incident, context));
    let note = json!({ "source": "certvigil", "note": cut(&incident.summary, MAX_NOTE) });
    let closed = incident.closes().into_iter().map(|severity| {
        let url = closing(context.url, &incident.key_of(severity));
        Request { closes: true, ..Request::json_to(url, note.to_string()) }
    });
    opened.into_iter().chain(closed).collect()
}

fn created(incident: &Incident<'_>, context: RenderContext<'_>) -> Request {
    let certificate = incident.alert.certificate();
    let details = within(incident.details(), MAX_DETAILS);
    let description: Vec<String> = details
        .iter()
        .map(|(name, text)| {
            format!("{}: {}", name.replace('_', " "), text.as_str().unwrap_or_default())
        })
        .collect();
    let tags = [Some("certvigil".to_owned()), Some(incident.alert.event.to_string())];
    let of = incident.notification.organization.as_ref().map(|name| cut(name.as_str(), MAX_TAG));
    let tags: Vec<String> = tags.into_iter().chain([of]).flatten().collect();
    Request::json(
        context,
        &json!({
            "message": cut(&incident.summary, MAX_MESSAGE),
            "alias": incident.key_of(incident.alert.severity),
            "description": cut(&description.join("\n\n"), MAX_DESCRIPTION),
            "details": details,
            "entity": certificate.map(|certificate| cut(certificate.id.as_str(), MAX_ENTITY)),
            "source": cut(&incident.source(), MAX_SOURCE),
            "tags": tags,
            "priority": priority(incident.alert.severity),
        }),
    )
}

/// `…/v2/alerts/{alias}/close?identifierType=alias`
fn closing(alerts: &Url, alias: &str) -> Url {
    let mut url = alerts.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend([alias, "close"]);
    }
    url.query_pairs_mut().append_pair("identifierType", "alias");
    url
}

/// The details that fit into the limit.
fn within(details: Map<String, Value>, max: usize) -> Map<String, Value> {
    let mut left = max;
    let fits = |(name, text): &(String, Value)| {
        let length = units(name) + text.as_str().map_or(0, units);
        let fits = length <= left;
        left -= if fits { length } else { 0 };
        fits
    };
    details.into_iter().filter(fits).collect()
}

fn priority(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "P1",
        Severity::Warning => "P3",
        Severity::Info => "P5",
    }
}
