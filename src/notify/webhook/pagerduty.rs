//! `format = "pagerduty"`: the Events API v2. One event opens an incident for each alert and
//! severity; others close the incidents of other severities.
//!
//! <https://developer.pagerduty.com/docs/send-alert-event>: a summary of at most 1024 characters, a
//! `dedup_key` of 255, 512 kB in total; `trigger` opens an alert and `resolve` closes it with the
//! same key; another `trigger` is added to an open alert.

use serde_json::{Value, json};

use super::{
    format::{RenderContext, Request, cut},
    incident::Incident,
    rfc3339,
};
use crate::domain::threshold::Severity;

pub const URL: &str = "https://events.pagerduty.com/v2/enqueue";
const MAX_SUMMARY: usize = 1_024;

pub fn requests(incident: &Incident<'_>, context: RenderContext<'_>) -> Vec<Request> {
    let opened =
        (!incident.over).then(|| event(incident, context, "trigger", incident.alert.severity));
    let closed =
        incident.closes().into_iter().map(|severity| event(incident, context, "resolve", severity));
    opened.into_iter().chain(closed).map(|event| Request::json(context, &event)).collect()
}

fn event(incident: &Incident<'_>, context: RenderContext<'_>, action: &str, of: Severity) -> Value {
    let certificate = incident.alert.certificate();
    let mut event = json!({
        "routing_key": context.routing_key,
        "event_action": action,
        "dedup_key": incident.key_of(of),
        "client": "certvigil",
        "payload": {
            "summary": cut(&incident.summary, MAX_SUMMARY),
            "source": incident.source(),
            "severity": severity(of),
            "timestamp": rfc3339(incident.notification.created_at),
            "class": incident.alert.event,
            "custom_details": incident.details(),
        },
    });
    // The schema requires strings here, and allows no null.
    if let Some(certificate) = certificate {
        event["payload"]["component"] = certificate.id.as_str().into();
    }
    if let Some(organization) = &incident.notification.organization {
        event["payload"]["group"] = organization.as_str().into();
    }
    if let Some(page) = &context.style.links.page {
        event["client_url"] = page.as_str().into();
    }
    if let Some(runbook) = &incident.entry.runbook {
        event["links"] = json!([{ "href": runbook, "text": "What to do" }]);
    }
    event
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}
