//! The log notifier: one line for each alert, on a target that no level hides.

use chrono::{DateTime, Utc};
use futures_util::future::{BoxFuture, FutureExt};
use std::{num::NonZeroU32, time::Duration};

use super::Notifier;
use crate::{
    domain::{
        day,
        notifier::{Grouping, Route},
        retry::{FailureReason, Outcome},
        routing::Routing,
        threshold::Severity,
    },
    logging,
    message::{Alert, Body, ChangeView, Notification, wording},
};

#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    pub routing: Routing,
}

pub struct Log {
    settings: Settings,
}

impl Log {
    pub fn new(settings: Settings) -> Log {
        Log { settings }
    }
}

impl Notifier for Log {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn routes(&self) -> Vec<Route> {
        let receivers = vec!["log".to_owned()];
        vec![Route { routing: self.settings.routing.clone(), receivers }]
    }

    fn grouping(&self) -> Grouping {
        Grouping::Digest
    }

    fn concurrency(&self) -> usize {
        1
    }

    fn max_per_minute(&self) -> Option<NonZeroU32> {
        None
    }

    fn attempt_limit(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn failures(&self) -> &'static [FailureReason] {
        &[FailureReason::Timeout, FailureReason::Unavailable, FailureReason::Internal]
    }

    fn deliver<'a>(
        &'a self,
        notification: &'a Notification,
        _receiver: &'a str,
        now: DateTime<Utc>,
    ) -> BoxFuture<'a, Outcome> {
        let dropped = logging::dropped_lines();
        let mut lines = 0;
        for alert in &notification.alerts {
            for headline in headlines(alert, now) {
                line(&self.settings.name, notification, alert, &headline);
                lines += 1;
            }
        }
        let outcome = match logging::dropped_lines() == dropped {
            true => Outcome::Delivered { answer: wording::count(lines, "line") },
            false => {
                let detail = "log blocked: nobody reads stderr";
                Outcome::retry(FailureReason::Unavailable, detail)
            }
        };
        async move { outcome }.boxed()
    }
}

/// The log lines without fields.
pub fn lines(notification: &Notification, now: DateTime<Utc>) -> Vec<String> {
    let of_alert = |alert: &Alert| {
        let severity = alert.severity;
        headlines(alert, now).into_iter().map(move |line| format!("{severity}: {line}"))
    };
    notification.alerts.iter().flat_map(of_alert).collect()
}

/// The headline of an alert, or of each change.
fn headlines(alert: &Alert, now: DateTime<Utc>) -> Vec<String> {
    match &alert.body {
        Body::Changes(changes) => changes.listed.iter().map(ChangeView::headline).collect(),
        _ => vec![wording::headline(alert, now)],
    }
}

fn line(notifier: &str, notification: &Notification, alert: &Alert, headline: &str) {
    let certificate = alert.certificate();
    let organization = notification.organization.as_ref().map(|name| name.as_str());
    let expires_at = certificate.and_then(|certificate| certificate.expires_at).map(day::rfc3339);
    let projects = match (certificate, alert.projects()) {
        (Some(certificate), _) => Some(certificate.active_in.projects_total),
        (None, projects) => projects.map(|projects| projects.total),
    };
    let is_drill = matches!(alert.body, Body::Drill(_));
    let confirm = alert.link.as_ref().filter(|_| is_drill);
    let confirm = confirm.map(|id| format!("certvigil drill confirm {id}"));
    macro_rules! say {
        ($level:ident) => {
            tracing::$level!(
                target: logging::ALERTS,
                notification = %notification.id,
                notifier,
                organization,
                event = alert.event.as_str(),
                reason = alert.reason.map(|reason| reason.as_str()),
                severity = alert.severity.as_str(),
                stage = alert.stage.as_deref(),
                certificate = certificate.map(|certificate| certificate.id.as_str()),
                expires_at = expires_at.as_deref(),
                projects,
                confirm,
                "{headline}"
            )
        };
    }
    match alert.severity {
        Severity::Critical => say!(error),
        Severity::Warning => say!(warn),
        Severity::Info => say!(info),
    }
}
