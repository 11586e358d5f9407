//! The facts of an alert as text: reason, times, and the quality of the data.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::{
    domain::alert::Reason,
    message::{Alert, CertificateView, Event, ScanView, wording},
};

/// A list that was read at most this long before the end of the scan counts as read by it.
const FRESH: TimeDelta = TimeDelta::hours(1);

/// Why the alert is sent now; `None` for a resolution, whose headline gives the reason.
pub(super) fn reason(alert: &Alert) -> Option<String> {
    let stage = alert.stage.as_deref()?;
    let of_its_end = match alert.event {
        Event::CertificateExpiring | Event::AdminKeyExpiring | Event::ClientIdentityExpiring => {
            Some(format!("threshold {stage} reached"))
        }
        Event::CertificateExpired | Event::AdminKeyExpired | Event::ClientIdentityExpired => {
            Some("expired".to_owned())
        }
        Event::CertificateNotYetValid
        | Event::CertificateUnknownExpiry
        | Event::CertificateMismatch
        | Event::CertificateUnfit => None,
        Event::ProjectUncovered
        | Event::ProjectUnprotected
        | Event::MonitorBlind
        | Event::NotifierFailing
        | Event::NotifierUnproven => None,
        Event::CertificateResolved
        | Event::ProjectCovered
        | Event::ProjectProtected
        | Event::MonitorRecovered
        | Event::AdminKeyResolved
        | Event::ClientIdentityResolved
        | Event::NotifierRecovered
        | Event::NotifierProven
        | Event::Drill
        | Event::DrillEnded
        | Event::Summary
        | Event::CertificatesChanged
        | Event::Test => return None,
    };
    Some(match (alert.reason?, of_its_end) {
        (Reason::Stage | Reason::Refresh | Reason::Opened, Some(stage)) => stage,
        (Reason::Stage, None) => "new alert".to_owned(),
        (Reason::Refresh, None) => return None,
        (Reason::Opened, None) => "new alert".to_owned(),
        (Reason::Repeat, Some(stage)) => format!("reminder: {stage}"),
        (Reason::Repeat, None) => "reminder".to_owned(),
        (Reason::IgnoreEnded, _) => "the ignore rule has ended".to_owned(),
        (Reason::AckEnded, _) => "the acknowledgement has ended".to_owned(),
        (
            Reason::Replaced
            | Reason::Deactivated
            | Reason::Deleted
            | Reason::Protected
            | Reason::Renewed
            | Reason::Archived
            | Reason::Corrected
            | Reason::PolicyChanged
            | Reason::Ignored
            | Reason::Reassigned
            | Reason::Unwatched,
            _,
        ) => return None,
    })
}

/// The text for an unknown expiry.
pub(super) fn unknown(certificate: &CertificateView) -> String {
    match certificate.strange_expiry {
        None => "unknown: the API reports no expiry".to_owned(),
        Some(given) => format!(
            "unknown: the API reports {given}, which is not a time in Unix seconds before the year 10000"
        ),
    }
}

/// The scan, its time and its size: `Complete scan, Monday 2027-02-01 11:59 UTC, 41 projects.`
pub fn reading(scan: &ScanView, timezone: Tz) -> String {
    let how = if scan.complete { "Complete" } else { "Incomplete" };
    let all = scan.projects_read + scan.projects_unreadable;
    let projects = match scan.projects_unreadable {
        0 => wording::count(all, "project"),
        _ => format!("{} of {}", scan.projects_read, wording::count(all, "project")),
    };
    format!("{how} scan, {}, {projects}.", instant(scan.finished_at, timezone))
}

/// The lateness of an alert and its due time; `None` if it is on time.
pub(super) fn late(alert: &Alert, timezone: Tz, now: DateTime<Utc>) -> Option<String> {
    let (late, due_at) = alert.late_by(now).zip(alert.due_at)?;
    Some(format!(
        "due {} ago, on {}: certvigil was stopped, could not read the list, or could not deliver",
        wording::span(late),
        instant(due_at, timezone)
    ))
}

/// The limits of the data: unreadable lists, and a wrong clock. `None` without any.
pub fn caveat(scan: &ScanView) -> Option<String> {
    let caveats: Vec<String> = [unseen(scan), wrong_clock(scan)].into_iter().flatten().collect();
    (!caveats.is_empty()).then(|| caveats.join(" "))
}

/// The note that this host's clock differs from the API's.
pub fn wrong_clock(scan: &ScanView) -> Option<String> {
    clock_note(scan.clock_skew?)
}

/// The same for a skew in seconds.
pub(super) fn clock_note(skew: i64) -> Option<String> {
    let direction = if skew > 0 { "behind" } else { "ahead of" };
    let by = wording::span(TimeDelta::try_seconds(skew)?);
    Some(format!(
        "The clock of this certvigil host is {by} {direction} the API’s. All times here use the \
         API’s clock. Correct the host’s clock."
    ))
}

/// Unreadable lists and the consequence; `None` without any.
pub fn unseen(scan: &ScanView) -> Option<String> {
    if scan.complete {
        return None;
    }
    let unreadable = match scan.projects_unreadable {
        0 => "Some lists could not be read: certificates in them".to_owned(),
        1 => "1 project could not be read: its certificates".to_owned(),
        n => format!("{n} projects could not be read: their certificates"),
    };
    // The age of old data.
    let old = scan.oldest_reading.filter(|at| scan.finished_at - at > FRESH);
    let rests = old.map_or(String::new(), |at| {
        format!(" The oldest data in use is from {}.", wording::day(at))
    });
    Some(format!("{unreadable} may expire unnoticed.{rests}"))
}

/// `Sunday 2026-11-29 14:03 UTC`, and the same in the configured zone.
pub fn instant(at: DateTime<Utc>, timezone: Tz) -> String {
    let utc = at.format("%A %Y-%m-%d %H:%M UTC");
    if timezone == Tz::UTC {
        return utc.to_string();
    }
    let local = at.with_timezone(&timezone);
    let form = if local.date_naive() == at.date_naive() { "%H:%M %Z" } else { "%A %H:%M %Z" };
    format!("{utc} ({} in {})", local.format(form), timezone.name())
}

pub fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_shows_the_local_day_only_if_it_differs() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let cases = [
            ("2026-11-29T14:03:00Z", Tz::UTC, "Sunday 2026-11-29 14:03 UTC"),
            (
                "2026-11-29T14:03:00Z",
                Tz::Europe__Berlin,
                "Sunday 2026-11-29 14:03 UTC (15:03 CET in Europe/Berlin)",
            ),
            (
                "2026-11-29T23:30:00Z",
                Tz::Europe__Berlin,
                "Sunday 2026-11-29 23:30 UTC (Monday 00:30 CET in Europe/Berlin)",
            ),
        ];
        for (text, timezone, expected) in cases {
            assert_eq!(instant(at(text), timezone), expected);
        }
    }
}
