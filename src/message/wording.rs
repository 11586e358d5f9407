//! The text that all formats share: time left, headlines, the summary.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use std::fmt::Display;

use super::{
    Alert, Body, CertificateBody, CertificateView, CredentialView, DrillView, Event, FailingView,
    LeftBehind, Named, Notification, ProjectsView, SightView, SilenceView, UnprovenView,
};
use crate::domain::{
    alert::Reason,
    content::{Defect, PublicKey},
    credential::CredentialKind,
    day,
    evaluate::ContentFinding,
    rotation::RotationStep,
    text::Name,
};

/// A duration, rounded down: `6 days`, `47 hours`, `90 minutes`, `moments`. Never "0 days".
pub fn span(span: TimeDelta) -> String {
    let span = span.abs();
    if span >= TimeDelta::days(2) {
        format!("{} days", span.num_days())
    } else if span >= TimeDelta::hours(2) {
        format!("{} hours", span.num_hours())
    } else if span >= TimeDelta::minutes(2) {
        format!("{} minutes", span.num_minutes())
    } else {
        "moments".to_owned()
    }
}

/// `expires in 6 days` or `expired 2 days ago`.
pub fn expiry(expires_at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if expires_at > now {
        format!("expires in {}", span(expires_at - now))
    } else {
        format!("expired {} ago", span(now - expires_at))
    }
}

/// An alert in one line.
pub fn headline(alert: &Alert, now: DateTime<Utc>) -> String {
    match &alert.body {
        Body::Certificate(body) => of_certificate(alert, body, now),
        Body::Projects(projects) => of_projects(alert, projects),
        Body::Sight(sight) => of_sight(alert, sight, now),
        Body::Credential(credential) => of_credential(alert, credential, now),
        Body::Failing(failing) => of_failing(alert, failing, now),
        Body::Unproven(unproven) => of_unproven(alert, unproven),
        Body::Drill(drill) => of_drill(alert, drill),
        Body::Summary(summary) => summary.headline(now),
        Body::Changes(changes) => match changes.listed.as_slice() {
            [only] if changes.total == 1 => only.headline(),
            _ => count(changes.total, "certificate change"),
        },
        Body::Test => "a test message: no action needed".to_owned(),
    }
}

fn of_certificate(alert: &Alert, body: &CertificateBody, now: DateTime<Utc>) -> String {
    let certificate = &body.certificate;
    let title = certificate.title();
    let what = match alert.event {
        Event::CertificateResolved => {
            let why = alert.reason.map_or(String::new(), |reason| end(reason, alert, certificate));
            let left = body.left_behind.as_ref().map_or(String::new(), left_behind);
            return match (alert.loses_coverage(), alert.content_finding()) {
                (true, _) => format!("“{title}”: {why}{left}"),
                // Other alerts about the certificate may be open.
                (false, Some(ContentFinding::Mismatch)) => {
                    format!("the expiry mismatch of “{title}” is no longer reported: {why}")
                }
                (false, Some(ContentFinding::Unfit)) => {
                    format!("the defect of “{title}” is no longer reported: {why}")
                }
                (false, None) => format!("“{title}” is resolved: {why}{left}"),
            };
        }
        Event::CertificateNotYetValid => match certificate.valid_at {
            Some(valid_at) if valid_at > now => {
                format!("“{title}” is active, but becomes valid in {}", span(valid_at - now))
            }
            _ => format!("“{title}” is active, but was not valid yet at the last scan"),
        },
        Event::CertificateUnknownExpiry => match certificate.strange_expiry {
            Some(_) => format!("“{title}” is active and reports an impossible expiry"),
            None => format!("“{title}” is active and its expiry is unknown"),
        },
        Event::CertificateMismatch => match (own_expiry(certificate), reported_expiry(certificate))
        {
            (Some(own), Some(reported)) => format!(
                "“{title}” expires on {} according to itself, and on {} according to the API",
                day(own),
                day(reported)
            ),
            _ => format!("the API reports another expiry of “{title}” than the certificate has"),
        },
        Event::CertificateUnfit => match certificate.defects.as_slice() {
            [] => format!("“{title}” may not work as a trust anchor"),
            [first, rest @ ..] => {
                let more = match rest.len() {
                    0 => String::new(),
                    more => format!(" (+{more} more)"),
                };
                format!("“{title}” may not work as a trust anchor: {}{more}", self::defect(*first))
            }
        },
        Event::CertificateExpiring
        | Event::CertificateExpired
        | Event::ProjectUncovered
        | Event::ProjectCovered
        | Event::ProjectUnprotected
        | Event::ProjectProtected
        | Event::MonitorBlind
        | Event::MonitorRecovered
        | Event::AdminKeyExpiring
        | Event::AdminKeyExpired
        | Event::AdminKeyResolved
        | Event::ClientIdentityExpiring
        | Event::ClientIdentityExpired
        | Event::ClientIdentityResolved
        | Event::NotifierFailing
        | Event::NotifierRecovered
        | Event::NotifierUnproven
        | Event::NotifierProven
        | Event::Drill
        | Event::DrillEnded
        | Event::Summary
        | Event::CertificatesChanged
        | Event::Test => match certificate.expires_at {
            Some(expires_at) => format!("“{title}” {}", expiry(expires_at, now)),
            None => format!("“{title}”"),
        },
    };
    match alert.reason {
        Some(Reason::IgnoreEnded) => format!("{what}, and is no longer ignored"),
        Some(Reason::AckEnded) => format!("{what}, and is no longer acknowledged"),
        _ => what,
    }
}

fn of_projects(alert: &Alert, projects: &ProjectsView) -> String {
    let (who, one) = match projects.listed.as_slice() {
        [only] if projects.total == 1 => (format!("project “{}”", only.title()), true),
        _ => (count(projects.total, "project"), false),
    };
    let (has, is) = if one { ("has", "is") } else { ("have", "are") };
    let (does, enforces) = if one { ("does", "enforces") } else { ("do", "enforce") };
    match (alert.event, alert.reason) {
        (Event::ProjectUncovered, _) => format!("{who} {has} no valid certificate"),
        (Event::ProjectUnprotected, _) => {
            match projects.listed.iter().all(|one| one.unprotected_since.is_some()) {
                true => format!("{who} no longer {enforces} mutual TLS"),
                false => format!("{who} {does} not enforce mutual TLS"),
            }
        }
        (_, Some(Reason::Archived)) => format!("{who} {is} archived or no longer watched"),
        (_, Some(Reason::Unwatched)) => format!("{who} {is} no longer watched"),
        (_, Some(Reason::Reassigned)) => format!("{who} {is} no longer assigned to you"),
        (Event::ProjectProtected, Some(Reason::Ignored)) => {
            format!("{who} {does} not enforce mutual TLS and {is} in unprotected_ignore now")
        }
        (Event::ProjectProtected, Some(Reason::PolicyChanged)) => {
            format!(
                "{who} {does} not enforce mutual TLS; certvigil is now configured not to report this"
            )
        }
        (Event::ProjectProtected, _) => format!("{who} {enforces} mutual TLS again"),
        (_, Some(Reason::Deactivated)) => {
            format!(
                "{who} {has} no active certificate any more and no longer {enforces} mutual TLS"
            )
        }
        (_, Some(Reason::Ignored)) => {
            format!("{who} {has} no valid certificate; a rule ignores the expired certificates now")
        }
        _ => format!("{who} {has} a valid certificate again"),
    }
}

/// The state of the projects in which a certificate was active, as the end of a sentence.
fn left_behind(left: &LeftBehind) -> String {
    let projects = |n: usize| match (n == left.total(), n) {
        (true, 1) => "its project".to_owned(),
        (true, n) => format!("its {n} projects"),
        (false, n) => format!("{n} of its {} projects", left.total()),
    };
    let mut parts = Vec::new();
    if left.unprotected > 0 {
        let verb = if left.unprotected == 1 { "enforces" } else { "enforce" };
        parts.push(format!("{} no longer {verb} mutual TLS", projects(left.unprotected)));
    }
    if left.uncovered > 0 {
        let verb = if left.uncovered == 1 { "has" } else { "have" };
        parts.push(format!("{} {verb} no valid certificate", projects(left.uncovered)));
    }
    if parts.is_empty() {
        let verb = if left.covered == 1 { "has" } else { "have" };
        parts.push(format!("{} {verb} another valid certificate", projects(left.covered)));
    }
    format!(", and {}", parts.join(", "))
}

fn of_sight(alert: &Alert, sight: &SightView, now: DateTime<Utc>) -> String {
    if alert.event.is_resolution() {
        let complete = sight.total == 0;
        return match alert.reason {
            Some(Reason::Unwatched) => {
                "the unreadable lists are no longer watched for this notifier".to_owned()
            }
            Some(Reason::PolicyChanged) => {
                "the lists are still unreadable, but not longer than the new blind_after".to_owned()
            }
            _ if complete => "all lists can be read again".to_owned(),
            _ => "the lists of this alert can be read again, or are no longer watched".to_owned(),
        };
    }
    let what = match sight.unseen.as_slice() {
        [only] if sight.total == 1 => only.list.clone(),
        _ => count(sight.total, "list"),
    };
    match sight.unseen.first() {
        Some(longest) => format!("{what} could not be read for {}", span(now - longest.since)),
        None => format!("{what} could not be read"),
    }
}

fn of_credential(alert: &Alert, credential: &CredentialView, now: DateTime<Utc>) -> String {
    let name = credential.name.as_ref().map(|name| name.as_str());
    let name = name.or(credential.id.as_ref().map(|id| id.as_str())).unwrap_or_default();
    let what = match credential.kind {
        CredentialKind::ClientIdentity => "certvigil’s client certificate".to_owned(),
        CredentialKind::AdminKey if credential.own => {
            format!("certvigil’s admin key “{name}”")
        }
        CredentialKind::AdminKey => format!("the admin key “{name}”"),
    };
    if !alert.event.is_resolution() {
        let when = credential.expires_at.map(|expires_at| expiry(expires_at, now));
        return format!("{what} {}", when.unwrap_or_else(|| "expires".to_owned()));
    }
    let why = match (alert.reason, credential.expires_at) {
        (Some(Reason::Renewed), Some(until)) => format!("it now expires on {}", day(until)),
        (Some(Reason::Replaced), _) => "certvigil now uses another key".to_owned(),
        (Some(Reason::Deleted), _) => "it was deleted".to_owned(),
        (Some(Reason::Corrected), _) => "its expiry has changed".to_owned(),
        (Some(Reason::PolicyChanged), _) => "other thresholds apply to it now".to_owned(),
        _ => "it is no longer watched".to_owned(),
    };
    format!("{what} is resolved: {why}")
}

fn of_failing(alert: &Alert, failing: &FailingView, now: DateTime<Utc>) -> String {
    let name = &failing.notifier;
    if alert.event.is_resolution() {
        return match alert.reason {
            Some(Reason::Unwatched) => format!("notifier “{name}” is no longer configured"),
            _ => format!("notifier “{name}” works again"),
        };
    }
    match failing.receivers.first() {
        Some(one) if one.refused => format!("a receiver rejected a message of notifier “{name}”"),
        Some(one) => {
            format!("notifier “{name}” has failed for {}", span(now - one.since))
        }
        None => format!("notifier “{name}” fails"),
    }
}

fn of_unproven(alert: &Alert, unproven: &UnprovenView) -> String {
    let name = &unproven.notifier;
    match (alert.event.is_resolution(), alert.reason) {
        (true, Some(Reason::Unwatched)) => format!("notifier “{name}” no longer has drills"),
        (true, _) => format!("notifier “{name}” has no unproven receivers any more"),
        (false, _) => {
            let (who, have) = match unproven.total {
                1 => ("1 receiver".to_owned(), "has"),
                n => (format!("{n} receivers"), "have"),
            };
            format!("{who} of notifier “{name}” {have} not confirmed a drill in time")
        }
    }
}

fn of_drill(alert: &Alert, drill: &DrillView) -> String {
    match (alert.event.is_resolution(), drill.confirmed_at) {
        (false, _) => {
            format!("confirm by {} that you read this test alert", day(drill.confirm_by))
        }
        (true, Some(at)) => format!("the drill has ended: it was confirmed on {}", day(at)),
        (true, None) => "the drill has ended: nobody confirmed it".to_owned(),
    }
}

fn end(reason: Reason, alert: &Alert, certificate: &CertificateView) -> String {
    match (reason, alert.content_finding()) {
        (Reason::Corrected, Some(ContentFinding::Mismatch)) => {
            return "the API reports the certificate’s own expiry now".to_owned();
        }
        (Reason::Corrected, Some(ContentFinding::Unfit)) => {
            return "certvigil sees no defect any more".to_owned();
        }
        (Reason::PolicyChanged, Some(_)) => {
            return "certvigil is configured not to read the content of certificates".to_owned();
        }
        (Reason::Deactivated, Some(_)) if certificate.active_in.projects_total == 0 => {
            return "the certificate is no longer active anywhere".to_owned();
        }
        (Reason::Deleted, Some(_)) => return "the certificate was deleted".to_owned(),
        _ => {}
    }
    // It may be active in projects that the notifier does not select.
    if certificate.active_in.projects_total > 0 {
        match reason {
            Reason::Replaced => {
                return "replaced by a successor in the projects reported to you".to_owned();
            }
            Reason::Deactivated => {
                return "it is no longer active in the projects reported to you".to_owned();
            }
            Reason::Archived => return "the projects reported to you are archived".to_owned(),
            _ => {}
        }
    }
    match reason {
        Reason::Renewed => match certificate.expires_at {
            Some(until) => format!("it was renewed and now expires on {}", day(until)),
            None => "it was renewed".to_owned(),
        },
        Reason::Replaced => "replaced by a successor in every project".to_owned(),
        Reason::Deactivated => "it is no longer active anywhere".to_owned(),
        Reason::Deleted => "it was deleted".to_owned(),
        Reason::Protected => "a certificate is active again".to_owned(),
        Reason::Archived => "its projects are archived or no longer watched".to_owned(),
        Reason::Corrected => match (certificate.expires_at, alert.stage.as_deref()) {
            (_, Some("not_yet_valid")) => "it is valid now".to_owned(),
            (Some(until), Some("unknown_expiry")) => {
                format!("its expiry is known now: {}", day(until))
            }
            (Some(until), _) => format!("the date was corrected, and it expires on {}", day(until)),
            (None, _) => "its data is consistent now".to_owned(),
        },
        Reason::PolicyChanged => {
            "the configuration has changed: other thresholds or dates apply to it".to_owned()
        }
        Reason::Ignored => match &certificate.ignored {
            Some(ignored) => {
                format!("a rule ignores it until {} ({})", day(ignored.until), ignored.reason)
            }
            None => "a rule ignores it".to_owned(),
        },
        Reason::Reassigned => "it is no longer assigned to you".to_owned(),
        Reason::Unwatched => "it is no longer watched for this notifier".to_owned(),
        Reason::Opened
        | Reason::Stage
        | Reason::Repeat
        | Reason::IgnoreEnded
        | Reason::AckEnded
        | Reason::Refresh => reason.as_str().to_owned(),
    }
}

/// The algorithm and size of a key: `RSA, 2048 bits`.
pub fn key(key: &PublicKey) -> String {
    match key.bits {
        Some(bits) => format!("{}, {bits} bits", key.kind),
        None => key.kind.clone(),
    }
}

/// The expiry of the certificate itself.
pub fn own_expiry(certificate: &CertificateView) -> Option<DateTime<Utc>> {
    certificate.content.as_ref().map(|content| content.not_after)
}

/// The expiry that the API reports.
pub fn reported_expiry(certificate: &CertificateView) -> Option<DateTime<Utc>> {
    certificate.reported.map_or(certificate.expires_at, |reported| reported.expires_at)
}

/// The dates that the API reports, if others are in use: `expires_at 2027-03-01`.
pub fn reported(certificate: &CertificateView) -> Option<String> {
    let reported = certificate.reported?;
    let differs = |name: &str, own: Option<DateTime<Utc>>, reported: Option<DateTime<Utc>>| {
        let reported = reported.map_or("missing".to_owned(), day);
        (own.map(day).as_ref() != Some(&reported)).then(|| format!("{name} {reported}"))
    };
    let parts: Vec<String> = [
        differs("valid_at", certificate.valid_at, reported.valid_at),
        differs("expires_at", certificate.expires_at, reported.expires_at),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Why a certificate may not work as a trust anchor.
pub fn defect(defect: Defect) -> &'static str {
    match defect {
        Defect::Bundle => "the PEM has several certificates, and only the first one counts",
        Defect::NotCa => "it is not a CA (basic constraints)",
        Defect::NoCertSign => "its key usage does not allow it to sign certificates (keyCertSign)",
        Defect::WeakSignature => "it is signed with SHA-1 or MD5",
        Defect::ShortKey => "its RSA key has fewer than 2048 bits",
        Defect::Duplicate => "another active object of the organization has the same certificate",
    }
}

/// `“prod-ca” (cert_abc)`, or the id if there is no name.
pub fn with_id(name: Option<&Name>, id: impl Display) -> String {
    name.map_or_else(|| id.to_string(), |name| format!("“{}” ({id})", name.as_str()))
}

/// The next step of a rotation: `activate “prod-ca-2” (cert_abc)`.
pub fn next_step(step: RotationStep, candidate: Option<&Named>) -> String {
    match (step, candidate) {
        (RotationStep::Upload, _) => "upload a successor".to_owned(),
        (RotationStep::Activate, Some(candidate)) => {
            format!("activate {}", with_id(candidate.name.as_ref(), &candidate.id))
        }
        (RotationStep::Activate, None) => "activate a successor".to_owned(),
        (RotationStep::MoveClients, _) => "move the clients to the successor".to_owned(),
        (RotationStep::Deactivate, _) => "deactivate it".to_owned(),
        (RotationStep::Delete, _) => "delete it: it is not active anywhere".to_owned(),
    }
}

/// The number of alerts that a message leaves out.
pub fn left_out(alerts: usize) -> String {
    match alerts {
        1 => "1 more alert does not fit into this message.".to_owned(),
        n => format!("{n} more alerts do not fit into this message."),
    }
}

/// `2026-11-29`, in UTC.
pub fn day(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d").to_string()
}

/// Author, end and reason of a silence: `by dana, until 2026-12-24 00:00 CET: new CA is on its
/// way`.
pub fn silence(silence: &SilenceView, timezone: Tz) -> String {
    let by = silence.by.as_ref().map_or(String::new(), |by| format!("by {by}, "));
    let until = day::local(silence.until, timezone);
    let ended = if silence.ended { ", which has passed" } else { "" };
    format!("{by}until {until}{ended}: {}", silence.reason)
}

/// The headline of the worst alert, and the number of others: `“prod-ca” expires in 6 days (+2
/// more)`.
pub fn summary(notification: &Notification, now: DateTime<Utc>) -> String {
    let worst = notification.alerts.first().map_or(String::new(), |alert| headline(alert, now));
    match notification.alerts_total.saturating_sub(1) {
        0 => worst,
        more => format!("{worst} (+{more} more)"),
    }
}

/// `1 project` or `3 projects`.
pub fn count(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_rounded_down_and_never_zero() {
        let cases = [
            (TimeDelta::days(6), "6 days"),
            (TimeDelta::days(7) - TimeDelta::seconds(1), "6 days"),
            (TimeDelta::days(2), "2 days"),
            (TimeDelta::days(2) - TimeDelta::seconds(1), "47 hours"),
            (TimeDelta::hours(2), "2 hours"),
            (TimeDelta::minutes(119), "119 minutes"),
            (TimeDelta::seconds(119), "moments"),
            (TimeDelta::seconds(-1), "moments"),
            (TimeDelta::days(-3), "3 days"),
        ];
        for (delta, expected) in cases {
            assert_eq!(span(delta), expected, "{delta}");
        }
    }
}
