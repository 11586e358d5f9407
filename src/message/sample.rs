//! Samples: one notification for each event, as a scan would compose it, for previews and for the
//! check of templates.

mod summary;

use chrono::{DateTime, TimeDelta, Utc};
use std::{collections::BTreeSet, sync::Arc};
use uuid::Uuid;

use super::{
    ActiveIn, Alert, Body, CandidateView, CertificateView, ChangeView, ChangesView, CredentialView,
    DrillView, Event, FailingView, Named, Notification, ProjectName, ProjectView, ProjectsView,
    ReceiverView, ScanView, SightView, SuccessorView, UnprovenReceiverView, UnprovenView,
    UnseenView,
};
use crate::domain::{
    alert::Reason,
    certificate::{AdminKeyId, CertificateId, Dates, OrganizationName, Project, ProjectId},
    change::{Actor, ActorKind, ChangeKind},
    content::{CERT_SIGN, Content, Defect, PublicKey},
    credential::CredentialKind,
    evaluate::ContentFinding,
    rotation::RotationStep,
    text::Name,
    threshold::Severity,
};

/// The successor in samples. Its name contains characters that formats must escape.
const SUCCESSOR_ID: &str = "cert_sample2";
const SUCCESSOR: &str = "prod-ca “2” <next> & \"final\"";

/// A notification with one event. Its times are relative to `now`, and its id is nil.
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
            let mut alert = about(event, "7d", expires_at, projects, now);
            if let Body::Certificate(body) = &mut alert.body {
                body.successor = successor(now);
                body.candidates = candidates(true, now);
                body.certificate.next = Some(RotationStep::Activate);
                body.certificate.changes = changes(&body.certificate, now);
                let projects = &mut body.certificate.active_in.projects;
                plan(projects, RotationStep::Activate);
                projects[2].next = Some(RotationStep::MoveClients);
            }
            alert
        }
        Event::CertificateExpired => {
            let expired_at = Some(now - TimeDelta::days(2));
            let mut projects = projects(&[("chat", None, expired_at)]);
            plan(&mut projects, RotationStep::Upload);
            let mut alert = about(event, "expired", expired_at, projects, now);
            if let Body::Certificate(body) = &mut alert.body {
                body.certificate.next = Some(RotationStep::Upload);
            }
            alert
        }
        Event::CertificateNotYetValid => {
            let expires_at = Some(now + TimeDelta::days(700));
            let projects = projects(&[("chat", None, None)]);
            let mut alert = about(event, "not_yet_valid", expires_at, projects, now);
            if let Body::Certificate(body) = &mut alert.body {
                body.certificate.valid_at = Some(now + TimeDelta::days(3));
            }
            alert
        }
        Event::CertificateUnknownExpiry => {
            about(event, "unknown_expiry", None, projects(&[("", None, None)]), now)
        }
        Event::CertificateMismatch => {
            let expires_at = Some(now + TimeDelta::days(40));
            let mut alert = about(
                event,
                ContentFinding::Mismatch.as_str(),
                expires_at,
                projects(&[("chat", None, None)]),
                now,
            );
            if let Body::Certificate(body) = &mut alert.body {
                let reported = Some(now + TimeDelta::days(400));
                let valid_at = body.certificate.valid_at;
                body.certificate.reported = Some(Dates { valid_at, expires_at: reported });
            }
            alert
        }
        Event::CertificateUnfit => {
            let expires_at = Some(now + TimeDelta::days(400));
            let mut alert = about(
                event,
                ContentFinding::Unfit.as_str(),
                expires_at,
                projects(&[("chat", None, None)]),
                now,
            );
            if let Body::Certificate(body) = &mut alert.body {
                body.certificate.defects = vec![Defect::NotCa, Defect::Bundle];
            }
            alert
        }
        Event::CertificateResolved => Alert {
            reason: Some(Reason::Replaced),
            ..about(event, "7d", Some(now + TimeDelta::days(6)), Vec::new(), now)
        },
        Event::CertificatesChanged => {
            let expiring = of(Event::CertificateExpiring, notifier, now);
            let certificate = expiring.alerts.first().and_then(Alert::certificate);
            let listed = certificate.map_or_else(Vec::new, |one| one.changes.clone());
            let body = Body::Changes(ChangesView { total: listed.len(), listed });
            Alert::new(event, None, Severity::Info, body)
        }
        Event::ProjectUncovered => {
            let since = Some(now - TimeDelta::hours(30));
            let listed = [("chat", None, since), ("search", None, since)];
            let mut listed = projects(&listed);
            plan(&mut listed, RotationStep::Activate);
            let mut alert = of_projects(event, Reason::Opened, listed);
            if let Body::Projects(body) = &mut alert.body {
                body.candidates = candidates(false, now);
            }
            alert
        }
        Event::MonitorBlind => {
            let unseen = ["chat", "search"].map(|name| unseen(name, now)).to_vec();
            of_sight(event, Reason::Opened, SightView { total: 2, projects: 2, unseen })
        }
        Event::MonitorRecovered => of_sight(event, Reason::Corrected, SightView::default()),
        Event::AdminKeyExpiring => of_credential(event, CredentialKind::AdminKey, 6, now),
        Event::AdminKeyExpired => of_credential(event, CredentialKind::AdminKey, -2, now),
        Event::AdminKeyResolved => Alert {
            reason: Some(Reason::Replaced),
            ..of_credential(event, CredentialKind::AdminKey, 6, now)
        },
        Event::ClientIdentityExpiring => {
            of_credential(event, CredentialKind::ClientIdentity, 6, now)
        }
        Event::ClientIdentityExpired => {
            of_credential(event, CredentialKind::ClientIdentity, -2, now)
        }
        Event::ClientIdentityResolved => Alert {
            reason: Some(Reason::Renewed),
            ..of_credential(event, CredentialKind::ClientIdentity, 400, now)
        },
        Event::NotifierFailing => of_failing(event, Reason::Opened, now),
        Event::NotifierRecovered => of_failing(event, Reason::Corrected, now),
        Event::NotifierUnproven => of_unproven(event, Reason::Opened, now),
        Event::NotifierProven => of_unproven(event, Reason::Corrected, now),
        Event::Drill | Event::DrillEnded => {
            let confirmed_at = Some(now).filter(|_| event == Event::DrillEnded);
            let confirm_by = now + TimeDelta::days(3);
            let body = Body::Drill(DrillView { confirm_by, confirmed_at });
            Alert::new(event, None, Severity::Info, body)
        }
        Event::Summary => {
            let body =
                summary::sample(now).map_or(Body::Test, |view| Body::Summary(Box::new(view)));
            Alert::new(event, None, Severity::Info, body)
        }
        Event::ProjectCovered => {
            let listed = [("chat", Some(SUCCESSOR_ID), None)];
            of_projects(event, Reason::Replaced, projects(&listed))
        }
        Event::ProjectUnprotected => {
            let mut listed = projects(&[("chat", None, None), ("search", None, None)]);
            plan(&mut listed, RotationStep::Upload);
            for project in &mut listed {
                project.unprotected_since = Some(now - TimeDelta::hours(1));
            }
            let alert = of_projects(event, Reason::Opened, listed);
            Alert { stage: Some("unprotected".to_owned()), last: false, ..alert }
        }
        Event::ProjectProtected => Alert {
            stage: Some("unprotected".to_owned()),
            ..of_projects(event, Reason::Protected, projects(&[("chat", Some(SUCCESSOR_ID), None)]))
        },
    };
    let unreadable = match event {
        Event::CertificateExpired => 1,
        Event::MonitorBlind => 2,
        _ => 0,
    };
    if matches!(
        alert.body,
        Body::Failing(_) | Body::Unproven(_) | Body::Drill(_) | Body::Summary(_)
    ) {
        // These have no organization and no scan.
        return Notification { severity: alert.severity, alerts: vec![alert], ..test };
    }
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
            clock_skew: None,
        }),
        alerts: vec![alert],
        stale_at: Some(now + TimeDelta::hours(12)),
        ..test
    }
}

/// The events of a digest, worst first.
pub const DIGEST: [Event; 4] = [
    Event::ProjectUncovered,
    Event::CertificateExpiring,
    Event::CertificateUnknownExpiry,
    Event::CertificateResolved,
];

/// A notification with several alerts.
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
        // A certificate without a name.
        Event::CertificateUnknownExpiry => ("cert_sample5", ""),
        Event::CertificateMismatch => ("cert_sample7", "api-ca"),
        Event::CertificateUnfit => ("cert_sample8", "leaf"),
        Event::CertificateResolved => ("cert_sample6", "old-ca"),
        Event::ProjectUncovered
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
        | Event::Test => ("cert_sample9", "ca"),
    };
    let mild = matches!(
        event,
        Event::CertificateNotYetValid
            | Event::CertificateUnknownExpiry
            | Event::CertificateMismatch
            | Event::CertificateUnfit
    );
    let severity = if mild { Severity::Warning } else { Severity::Critical };
    let valid_at = Some(now - TimeDelta::days(359));
    let body = CertificateId::parse(id).ok().map(|id| {
        Body::from(CertificateView {
            id,
            name: Name::clean(name),
            valid_at,
            expires_at,
            strange_expiry: None,
            content: content(name, valid_at, expires_at),
            defects: Vec::new(),
            duplicate_of: None,
            reported: None,
            carries_certvigil: false,
            owners: BTreeSet::new(),
            changes: Vec::new(),
            active_in: ActiveIn {
                organization: false,
                projects_total: projects.len(),
                projects_elsewhere: 0,
                elsewhere_without_successor: 0,
                without_successor: projects.iter().filter(|one| one.successor_id.is_none()).count(),
                projects,
            },
            next: None,
            ignored: None,
            acknowledged: None,
        })
    });
    let body = body.unwrap_or(Body::Test);
    Alert {
        stage: Some(stage.to_owned()),
        last: event == Event::CertificateExpired,
        ..Alert::new(event, Some(Reason::Stage), severity, body)
    }
}

/// An upload by a user, and an activation by a service account.
fn changes(certificate: &CertificateView, now: DateTime<Utc>) -> Vec<ChangeView> {
    let named = Named { id: certificate.id.clone(), name: certificate.name.clone() };
    let actor = |kind, id: &str, name: Option<&str>, email: Option<&str>| {
        let name = name.and_then(Name::clean);
        let email = email.and_then(Name::clean);
        Name::clean(id).map(|id| Actor { kind, id, name, email }).into_iter().collect()
    };
    let upload = ChangeView {
        kind: ChangeKind::Uploaded,
        certificate: named,
        at: now - TimeDelta::days(358),
        logged: true,
        organization: false,
        projects: Vec::new(),
        projects_total: 0,
        actors: actor(ActorKind::User, "user_sample", None, Some("dana@acme.example")),
    };
    let projects = certificate.active_in.projects.iter();
    let projects = projects.map(|one| ProjectName { id: one.id.clone(), name: one.name.clone() });
    let activation = ChangeView {
        kind: ChangeKind::Activated,
        at: now - TimeDelta::days(357),
        projects: projects.collect(),
        projects_total: certificate.active_in.projects_total,
        actors: actor(ActorKind::ServiceAccount, "sa_sample", Some("terraform"), None),
        ..upload.clone()
    };
    vec![activation, upload]
}

/// The content of a certificate that signs itself.
fn content(
    name: &str,
    valid_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
) -> Option<Arc<Content>> {
    let hex = |length: usize| vec!["5A"; length].join(":");
    let subject = format!("CN={name},O=Acme");
    Some(Arc::new(Content {
        issuer: subject.clone(),
        subject,
        serial: "0102030405".to_owned(),
        fingerprint: hex(32),
        key: PublicKey { kind: "EC".to_owned(), bits: Some(256), sha256: hex(32) },
        signature: "ecdsa-with-SHA256".to_owned(),
        subject_key_id: Some(hex(20)),
        authority_key_id: None,
        is_ca: true,
        key_usage: Some(vec![CERT_SIGN.to_owned()]),
        not_before: valid_at?,
        not_after: expires_at?,
        certificates: 1,
    }))
}

fn of_projects(event: Event, reason: Reason, listed: Vec<ProjectView>) -> Alert {
    let (total, candidates) = (listed.len(), Vec::new());
    let body = ProjectsView { total, elsewhere: 0, remaining: 0, listed, candidates };
    Alert {
        stage: Some("uncovered".to_owned()),
        last: true,
        ..Alert::new(event, Some(reason), Severity::Critical, Body::Projects(body))
    }
}

fn of_sight(event: Event, reason: Reason, sight: SightView) -> Alert {
    Alert {
        stage: Some("blind".to_owned()),
        last: true,
        ..Alert::new(event, Some(reason), Severity::Critical, Body::Sight(sight))
    }
}

fn of_credential(event: Event, kind: CredentialKind, days: i64, now: DateTime<Utc>) -> Alert {
    let of_key = kind == CredentialKind::AdminKey;
    let body = Body::Credential(CredentialView {
        kind,
        id: AdminKeyId::parse("key_sample1").ok().filter(|_| of_key),
        name: Name::clean("certvigil").filter(|_| of_key),
        expires_at: Some(now + TimeDelta::days(days)),
        own: true,
    });
    Alert {
        stage: Some(if days < 0 { "expired" } else { "7d" }.to_owned()),
        ..Alert::new(event, Some(Reason::Stage), Severity::Critical, body)
    }
}

fn of_failing(event: Event, reason: Reason, now: DateTime<Utc>) -> Alert {
    let receiver = ReceiverView {
        receiver: "ops@acme.example".to_owned(),
        since: now - TimeDelta::hours(3),
        why: "connecting: Connection refused".to_owned(),
        refused: false,
    };
    let receivers: Vec<ReceiverView> =
        Some(receiver).filter(|_| !event.is_resolution()).into_iter().collect();
    let (notifier, total) = ("mails".to_owned(), receivers.len());
    let body = Body::Failing(FailingView { notifier, total, receivers });
    Alert {
        stage: Some("failing".to_owned()),
        ..Alert::new(event, Some(reason), Severity::Warning, body)
    }
}

fn of_unproven(event: Event, reason: Reason, now: DateTime<Utc>) -> Alert {
    let receiver = UnprovenReceiverView {
        receiver: "ops@acme.example".to_owned(),
        drill_at: now - TimeDelta::days(4),
        confirm_by: now - TimeDelta::days(1),
        confirmed_at: Some(now - TimeDelta::days(34)),
    };
    let receivers: Vec<UnprovenReceiverView> =
        Some(receiver).filter(|_| !event.is_resolution()).into_iter().collect();
    let (notifier, total) = ("mails".to_owned(), receivers.len());
    let body = Body::Unproven(UnprovenView { notifier, total, receivers });
    Alert {
        stage: Some("unproven".to_owned()),
        ..Alert::new(event, Some(reason), Severity::Warning, body)
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

/// A project's name, its successor, and the start of its time without a valid certificate.
type Fate<'a> = (&'a str, Option<&'a str>, Option<DateTime<Utc>>);

fn projects(list: &[Fate<'_>]) -> Vec<ProjectView> {
    let view = |(index, fate): (usize, &Fate<'_>)| {
        let (name, successor, uncovered_from) = fate;
        let id = ProjectId::parse(&format!("proj_sample{}", index + 1)).ok()?;
        Some(ProjectView {
            successor_id: successor.and_then(|id| CertificateId::parse(id).ok()),
            uncovered_from: *uncovered_from,
            ..ProjectView::of(&Project { id, name: Name::clean(name) })
        })
    };
    list.iter().enumerate().filter_map(view).collect()
}

/// Sets the next step of projects without a successor.
fn plan(projects: &mut [ProjectView], next: RotationStep) {
    for project in projects.iter_mut().filter(|one| one.successor_id.is_none()) {
        project.next = Some(next);
        let candidate = CertificateId::parse(SUCCESSOR_ID).ok();
        let candidate = candidate.filter(|_| next == RotationStep::Activate);
        project.candidate = candidate.map(|id| Named { id, name: Name::clean(SUCCESSOR) });
    }
}

fn candidates(is_successor: bool, now: DateTime<Utc>) -> Vec<CandidateView> {
    let view = |one: SuccessorView| CandidateView {
        id: one.id,
        name: one.name,
        expires_at: one.expires_at,
        is_successor,
        same_key: one.same_key,
    };
    successor(now).map(view).into_iter().collect()
}

fn successor(now: DateTime<Utc>) -> Option<SuccessorView> {
    Some(SuccessorView {
        id: CertificateId::parse(SUCCESSOR_ID).ok()?,
        name: Name::clean(SUCCESSOR),
        valid_at: Some(now - TimeDelta::days(1)),
        expires_at: Some(now + TimeDelta::days(371)),
        covers_every_project: false,
        same_key: Some(false),
        ignored: None,
        acknowledged: None,
    })
}
