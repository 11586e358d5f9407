//! `format = "alertmanager"`: `POST /api/v2/alerts` of Prometheus' Alertmanager, for each alert.
//!
//! <https://prometheus.io/docs/alerting/latest/alerts_api>: labels identify an alert, so only
//! constant values are labels, and the severity, which routes it. If the severity changes, the same
//! request ends the alert of the previous one. Open alerts have an `endsAt` two scans ahead, and
//! every scan extends it: if certvigil stops, its alerts expire.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use url::Url;

use super::{
    format::{RenderContext, Request},
    incident::{Incident, TO_MUTE},
    rfc3339,
};
use crate::{
    domain::{evaluate::ContentFinding, threshold::Severity},
    message::{Body, CredentialView, Event},
};

const PATH: &str = "api/v2/alerts";
/// Resolved alerts end this far in the past. If Alertmanager's clock is behind and the end lies in
/// its future, a later `endsAt` that it already has takes precedence.
const BEFORE: TimeDelta = TimeDelta::minutes(5);

pub fn call(incident: &Incident<'_>, context: RenderContext<'_>) -> Request {
    let notification = incident.notification;
    let one = |severity: Severity, ends_at: Option<DateTime<Utc>>| {
        let mut details = incident.details();
        // Alertmanager has its own silences, and does not know certvigil's acknowledgements.
        details.remove(TO_MUTE);
        details.insert("summary".to_owned(), incident.summary.clone().into());
        let starts_at = notification.created_at;
        let mut alert = json!({
            "labels": labels(incident, severity),
            "annotations": details,
            // For a known alert, Alertmanager keeps the earlier start. It rejects an alert that
            // starts after its end.
            "startsAt": rfc3339(ends_at.map_or(starts_at, |ends_at| ends_at.min(starts_at))),
        });
        if let Some(page) = &context.style.links.page {
            alert["generatorURL"] = page.as_str().into();
        }
        if let Some(ends_at) = ends_at {
            alert["endsAt"] = rfc3339(ends_at).into();
        }
        alert
    };
    let severity = incident.alert.severity;
    let over = Some(context.now.min(notification.created_at) - BEFORE);
    // A delayed alert lasts from now, like any other.
    let lasts = notification.stale_at.map(|stale_at| stale_at - notification.created_at);
    let ends_at = if incident.over { over } else { lasts.map(|lasts| context.now + lasts) };
    let mut alerts = vec![one(severity, ends_at)];
    // A resolved alert needs no further ends: alerts of earlier severities have already ended.
    let closed = incident.closes().into_iter().filter(|_| !incident.over);
    alerts.extend(closed.map(|closed| one(closed, over)));
    Request::json_to(address(context.url), Value::from(alerts).to_string())
}

/// The configured URL, with the path of the API unless it has it.
fn address(url: &Url) -> Url {
    let mut url = url.clone();
    if !url.path().trim_end_matches('/').ends_with(PATH)
        && let Ok(mut path) = url.path_segments_mut()
    {
        path.pop_if_empty().extend(PATH.split('/'));
    }
    url
}

/// Label names contain only letters, digits and `_`; empty values are omitted.
fn labels(incident: &Incident<'_>, severity: Severity) -> Value {
    let alert = incident.alert;
    let of_content = alert.content_finding().map(|finding| match finding {
        ContentFinding::Mismatch => "CertvigilCertificateMismatch",
        ContentFinding::Unfit => "CertvigilCertificateUnfit",
    });
    let name = of_content.unwrap_or(match alert.event {
        Event::CertificateExpiring
        | Event::CertificateExpired
        | Event::CertificateNotYetValid
        | Event::CertificateUnknownExpiry
        | Event::CertificateMismatch
        | Event::CertificateUnfit
        | Event::CertificateResolved => "CertvigilCertificate",
        Event::ProjectUncovered | Event::ProjectCovered => "CertvigilProjectsUncovered",
        Event::ProjectUnprotected | Event::ProjectProtected => "CertvigilProjectsUnprotected",
        Event::MonitorBlind | Event::MonitorRecovered => "CertvigilBlind",
        Event::AdminKeyExpiring | Event::AdminKeyExpired | Event::AdminKeyResolved => {
            "CertvigilAdminKey"
        }
        Event::ClientIdentityExpiring
        | Event::ClientIdentityExpired
        | Event::ClientIdentityResolved => "CertvigilClientIdentity",
        Event::NotifierFailing | Event::NotifierRecovered => "CertvigilNotifierFailing",
        Event::NotifierUnproven | Event::NotifierProven => "CertvigilNotifierUnproven",
        Event::Drill | Event::DrillEnded => "CertvigilDrill",
        Event::Summary => "CertvigilSummary",
        Event::CertificatesChanged => "CertvigilCertificatesChanged",
        Event::Test => "CertvigilTest",
    });
    let mut labels = json!({
        "alertname": name,
        "severity": severity,
        "service": "certvigil",
    });
    if let Some(organization) = &incident.notification.organization {
        labels["organization"] = organization.as_str().into();
    }
    match &alert.body {
        Body::Certificate(body) => labels["certificate"] = body.certificate.id.as_str().into(),
        Body::Credential(CredentialView { id: Some(id), .. }) => {
            labels["admin_key"] = id.as_str().into();
        }
        Body::Failing(failing) => labels["notifier"] = failing.notifier.as_str().into(),
        Body::Unproven(unproven) => labels["notifier"] = unproven.notifier.as_str().into(),
        Body::Credential(_)
        | Body::Projects(_)
        | Body::Sight(_)
        | Body::Drill(_)
        | Body::Summary(_)
        | Body::Changes(_)
        | Body::Test => {}
    }
    labels
}
