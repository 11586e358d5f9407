//! Samples: one message for each event, as a scan would make them. For looking at what would be sent, and
//! for trying a template before it is needed.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{
    certificate::{CertificateId, OrganizationName, ProjectId},
    notification::{
        ActiveIn, Alert, CertificateView, Event, Notification, ProjectView, ProjectsView, Reason,
        ScanView, SightView, SuccessorView, UnseenView,
    },
    text::Name,
    threshold::Severity,
};

/// What takes over in a sample; its name holds what a format has to escape.
const SUCCESSOR_ID: &str = "cert_sample2";
const SUCCESSOR: &str = "prod-ca “2” <next> & \"final\"";

/// A message of one event, for a notifier; its instants are counted from `now`, and its id is nil.
pub fn of(event: Event, notifier: &str, now: DateTime<Utc>) -> Notification {
    let test = Notification::test(Uuid::nil(), notifier, now);
    let alert = match event {
        Event::Test => return test,
        Event::CertificateExpiring => {
            let expires_at = Some(now + TimeDelta::days(6) + TimeDelta::hours(5));
            let projects = projects(&[
                ("chat", None, expires_at),
                ("search", None, expires_at),
                ("batch", Some(SUCCESSOR_ID), None),
            ]);
            Alert { successor: successor(now), ..about(event, "7d", expires_at, projects, now) }
        }
        Event::CertificateExpired => {
            let expired_at = Some(now - TimeDelta::days(2));
            let projects = projects(&[("chat", None, expired_at)]);
            about(event, "expired", expired_at, projects, now)
        }
        Event::CertificateNotYetValid => {
            let expires_at = Some(now + TimeDelta::days(700));
            let projects = projects(&[("chat", None, None)]);
            let mut alert = about(event, "not_yet_valid", expires_at, projects, now);
            if let Some(certificate) = &mut alert.certificate {
                certificate.valid_at = Some(now + TimeDelta::days(3));
            }
            alert
        }
        Event::CertificateUnknownExpiry => {
            about(event, "unknown_expiry", None, projects(&[("", None, None)]), now)
        }
        Event::CertificateResolved => Alert {
            reason: Some(Reason::Replaced),
            ..about(event, "7d", Some(now + TimeDelta::days(6)), Vec::new(), now)
        },
        Event::ProjectUncovered => {
            let since = Some(now - TimeDelta::hours(30));
            let listed = [("chat", None, since), ("search", None, since)];
            of_projects(event, Reason::Opened, projects(&listed))
        }
        Event::MonitorBlind => Alert {
            sight: Some(SightView {
                total: 2,
                projects: 2,
                unseen: ["chat", "search"].map(|name| unseen(name, now)).to_vec(),
            }),
            ..of_sight(event, Reason::Opened)
        },
        Event::MonitorRecovered => of_sight(event, Reason::Corrected),
        Event::ProjectCovered => {
            let listed = [("chat", Some(SUCCESSOR_ID), None)];
            of_projects(event, Reason::Replaced, projects(&listed))
        }
    };
    let unreadable = match event {
        Event::CertificateExpired => 1,
        Event::MonitorBlind => 2,
        _ => 0,
    };
    Notification {
        organization: OrganizationName::parse("acme").ok(),
        severity: alert.severity,
        scan: Some(ScanView {
            id: Uuid::nil(),
            finished_at: now - TimeDelta::seconds(4),
            complete: unreadable == 0,
            projects_read: 41 - unreadable,
            projects_unreadable: unreadable,
            oldest_reading: Some(now - TimeDelta::seconds(9)),
        }),
        alerts: vec![alert],
        stale_at: Some(now + TimeDelta::hours(12)),
        ..test
    }
}

/// The events of a digest, the worst first.
pub const DIGEST: [Event; 4] = [
    Event::ProjectUncovered,
    Event::CertificateExpiring,
    Event::CertificateUnknownExpiry,
    Event::CertificateResolved,
];

/// Several of them in one message.
pub fn digest(notifier: &str, now: DateTime<Utc>) -> Notification {
    let mut all = of(Event::CertificateExpiring, notifier, now);
    all.alerts = DIGEST.iter().flat_map(|event| of(*event, notifier, now).alerts).collect();
    all.alerts_total = all.alerts.len();
    all
}

fn about(
    event: Event,
    stage: &str,
    expires_at: Option<DateTime<Utc>>,
    projects: Vec<ProjectView>,
    now: DateTime<Utc>,
) -> Alert {
    let (id, name) = match event {
        Event::CertificateExpiring => ("cert_sample1", "prod-ca"),
        Event::CertificateExpired => ("cert_sample3", "batch-ca"),
        Event::CertificateNotYetValid => ("cert_sample4", "next-ca"),
        // It has no name, as may be.
        Event::CertificateUnknownExpiry => ("cert_sample5", ""),
        Event::CertificateResolved => ("cert_sample6", "old-ca"),
        Event::ProjectUncovered
        | Event::ProjectCovered
        | Event::MonitorBlind
        | Event::MonitorRecovered
        | Event::Test => ("cert_sample7", "ca"),
    };
    let mild = matches!(event, Event::CertificateNotYetValid | Event::CertificateUnknownExpiry);
    let severity = if mild { Severity::Warning } else { Severity::Critical };
    Alert {
        event,
        reason: Some(Reason::Stage),
        severity,
        severity_before: None,
        stage: Some(stage.to_owned()),
        last: event == Event::CertificateExpired,
        certificate: CertificateId::parse(id).ok().map(|id| CertificateView {
            id,
            name: Name::clean(name),
            valid_at: Some(now - TimeDelta::days(359)),
            expires_at,
            strange_expiry: None,
            active_in: ActiveIn {
                organization: false,
                projects_total: projects.len(),
                projects_elsewhere: 0,
                elsewhere_without_successor: 0,
                without_successor: projects.iter().filter(|one| one.successor_id.is_none()).count(),
                projects,
            },
            ignored: None,
            acknowledged: None,
        }),
        successor: None,
        projects: None,
        sight: None,
    }
}

fn of_projects(event: Event, reason: Reason, listed: Vec<ProjectView>) -> Alert {
    Alert {
        event,
        reason: Some(reason),
        severity: Severity::Critical,
        severity_before: None,
        stage: Some("uncovered".to_owned()),
        last: true,
        certificate: None,
        successor: None,
        projects: Some(ProjectsView { total: listed.len(), elsewhere: 0, remaining: 0, listed }),
        sight: None,
    }
}

fn of_sight(event: Event, reason: Reason) -> Alert {
    Alert {
        stage: Some("blind".to_owned()),
        projects: None,
        sight: Some(SightView::default()),
        ..of_projects(event, reason, Vec::new())
    }
}

fn unseen(name: &str, now: DateTime<Utc>) -> UnseenView {
    UnseenView {
        list: format!("project “{name}” (proj_{name})"),
        project: ProjectId::parse(&format!("proj_{name}")).ok(),
        since: now - TimeDelta::hours(26),
        why: "HTTP 403: the admin key has no permission to read this".to_owned(),
    }
}

/// A project's name, the certificate that takes over there, or else from when it has none.
type Fate<'a> = (&'a str, Option<&'a str>, Option<DateTime<Utc>>);

fn projects(list: &[Fate<'_>]) -> Vec<ProjectView> {
    let view = |(index, fate): (usize, &Fate<'_>)| {
        let (name, successor, uncovered_from) = fate;
        Some(ProjectView {
            id: ProjectId::parse(&format!("proj_sample{}", index + 1)).ok()?,
            name: Name::clean(name),
            successor_id: successor.and_then(|id| CertificateId::parse(id).ok()),
            uncovered_from: *uncovered_from,
        })
    };
    list.iter().enumerate().filter_map(view).collect()
}

fn successor(now: DateTime<Utc>) -> Option<SuccessorView> {
    Some(SuccessorView {
        id: CertificateId::parse(SUCCESSOR_ID).ok()?,
        name: Name::clean(SUCCESSOR),
        expires_at: Some(now + TimeDelta::days(371)),
        covers_every_project: false,
        ignored: None,
        acknowledged: None,
    })
}
