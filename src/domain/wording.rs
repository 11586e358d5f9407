//! The sentences that every channel shares: time left, headlines, the summary.

use chrono::{DateTime, TimeDelta, Utc};

use super::notification::{Alert, CertificateView, Event, Notification, Reason};

/// A span in words, rounded down: `6 days`, `47 hours`, `90 minutes`, `moments`. Never "0 days".
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

/// What one alert says, in a line.
pub fn headline(alert: &Alert, now: DateTime<Utc>) -> String {
    let Some(certificate) = &alert.certificate else {
        return "a test message: nothing has happened".to_owned();
    };
    let title = certificate.title();
    match alert.event {
        Event::CertificateResolved => {
            let why = alert.reason.map_or(String::new(), |reason| end(reason, certificate));
            format!("“{title}” is resolved: {why}")
        }
        Event::CertificateNotYetValid => match certificate.valid_at {
            Some(valid_at) if valid_at > now => {
                format!("“{title}” is active, but not valid for another {}", span(valid_at - now))
            }
            _ => format!("“{title}” is active, and was not valid when it was read"),
        },
        Event::CertificateUnknownExpiry => {
            format!("“{title}” is active, and the API does not say when it expires")
        }
        Event::CertificateExpiring | Event::CertificateExpired | Event::Test => {
            match certificate.expires_at {
                Some(expires_at) => format!("“{title}” {}", expiry(expires_at, now)),
                None => format!("“{title}”"),
            }
        }
    }
}

fn end(reason: Reason, certificate: &CertificateView) -> String {
    match reason {
        Reason::Renewed => match certificate.expires_at {
            Some(until) => format!("renewed, it expires on {} now", until.format("%Y-%m-%d")),
            None => "renewed".to_owned(),
        },
        Reason::Replaced => "replaced by a successor in every project".to_owned(),
        Reason::Deactivated => "it is active nowhere any more".to_owned(),
        Reason::Deleted => "it was deleted".to_owned(),
        Reason::Archived => "its projects are archived or no longer watched".to_owned(),
        Reason::Corrected => "what was not known or not yet so is in order now".to_owned(),
        Reason::PolicyChanged => "the thresholds were changed, and it is in none now".to_owned(),
        Reason::Unwatched => "its organization is no longer watched".to_owned(),
        Reason::Opened | Reason::Stage | Reason::Repeat => reason.as_str().to_owned(),
    }
}

/// The worst of it in words, and how many more: `“prod-ca” expires in 6 days (+2 more)`.
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
