//! The page of a certificate: its explanation, as in `certvigil explain`, and the form to
//! acknowledge it.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use super::{
    super::{Shared, problem::Problem, snapshot::Snapshot},
    Page,
    frame::{DisplayTime, Frame},
    link,
    rows::Certificate,
    timeline::Timeline,
};
use crate::{
    domain::{owner, status::Status},
    message::{ProjectView, wording},
    store::SentNotification,
    view::{
        CertificateRow, Explanation, Notifier as Outlook, Step as Threshold, change_lines,
        content_lines,
    },
};

#[derive(Serialize)]
pub struct CertificatePage {
    frame: Frame,
    row: Certificate,
    timeline: Option<Timeline>,
    valid_from: Option<DisplayTime>,
    strange_expiry: Option<i64>,
    /// Label and value of each line.
    content: Vec<(&'static str, String)>,
    content_failure: Option<String>,
    changes: Vec<(DisplayTime, String)>,
    audit_log_failure: Option<String>,
    scan: Option<(DisplayTime, bool)>,
    /// Its owners in words; empty without configured owners.
    owners: String,
    why_no_stage: &'static str,
    organization_wide: bool,
    projects: Vec<ProjectLine>,
    /// Whether it may be active in an unreadable list.
    unread: bool,
    projects_total: usize,
    projects_more: usize,
    /// Names and ids of projects that list it and have no active certificate.
    unprotected: Vec<(String, String)>,
    replaced: bool,
    ladder_of: String,
    life: Option<String>,
    ladder: Vec<Step>,
    notifiers: Vec<Notifier>,
    sent_alerts: Vec<SentAlert>,
    /// The id of its active acknowledgement.
    acknowledgement: Option<String>,
    acknowledge: String,
    here: String,
    today: String,
}

impl Page for CertificatePage {
    const TEMPLATE: &'static str = "certificate.html";
}

#[derive(Serialize)]
struct ProjectLine {
    title: String,
    id: String,
    /// The successor in this project: the URL of its page, and its id.
    takes_over: Option<(String, String)>,
    fate: String,
    next: Option<String>,
    severity: &'static str,
}

#[derive(Serialize)]
struct Step {
    label: String,
    at: Option<DisplayTime>,
    severity: &'static str,
    reached: bool,
    repeat: String,
}

#[derive(Serialize)]
struct Notifier {
    name: String,
    status: &'static str,
    sent: String,
    upcoming: Vec<String>,
}

#[derive(Serialize)]
struct SentAlert {
    at: DisplayTime,
    notifier: String,
    event: String,
    stage: String,
    reason: String,
    deliveries: String,
}

pub async fn page(
    shared: &Shared,
    snapshot: &Snapshot,
    frame: Frame,
    organization: &str,
    id: &str,
) -> Result<CertificatePage, Problem> {
    let (overview, row) = snapshot.certificate(organization, id)?;
    let (now, timezone) = (snapshot.now, snapshot.configured.timezone);
    let explained = shared.explain(row, now).await?;
    let explanation = &explained.explanation;
    let moment = |at| DisplayTime::new(at, now, timezone);
    let active = &explanation.certificate.active_in;
    let acknowledgements = shared.reading.acknowledgements(&row.organization).await?;
    let acknowledgement = acknowledgements.of_certificate(&row.view.id);
    let holds = acknowledgement.filter(|one| one.holds(now));
    let href = link::certificate(organization, id);
    Ok(CertificatePage {
        frame: frame.titled(format!("{} – certvigil", row.view.title())),
        timeline: Timeline::of(std::iter::once(row), now, timezone),
        valid_from: row.view.valid_at.map(moment),
        strange_expiry: row.view.strange_expiry,
        content: content_lines(&row.view, timezone),
        content_failure: explanation.content_failure.clone(),
        changes: change_lines(&row.view.changes)
            .into_iter()
            .map(|(at, text)| (moment(at), text))
            .collect(),
        audit_log_failure: explanation.audit_log_failure.clone(),
        scan: overview.scan.as_ref().map(|scan| (moment(scan.finished_at), scan.complete)),
        owners: owner::names(&row.view.owners),
        why_no_stage: match (explanation.watched, row.status, row.view.expires_at) {
            (true, _, Some(_)) => "none: no threshold reached yet",
            (true, _, None) => "none: not active in any project, and the expiry is unknown",
            (false, Status::UnknownActivity, _) => "none: not active in any readable project",
            (false, _, _) => "none: not active in any project",
        },
        organization_wide: active.organization,
        projects: active.projects.iter().map(|one| project(one, row, now, timezone)).collect(),
        unread: row.status == Status::UnknownActivity,
        projects_total: active.projects_total,
        projects_more: active.projects_total - active.projects.len(),
        unprotected: explanation
            .unprotected
            .iter()
            .map(|one| (one.title().to_owned(), one.id.to_string()))
            .collect(),
        replaced: explanation.replaced,
        ladder_of: explanation.ladder_source(),
        life: explanation.describe_lifetime(),
        ladder: explanation.ladder.iter().map(|one| step(one, now, timezone)).collect(),
        notifiers: explanation
            .notifiers
            .iter()
            .map(|one| notifier(one, &explained.notifications, now, timezone))
            .collect(),
        sent_alerts: explained
            .notifications
            .iter()
            .filter_map(|one| sent_alert(one, explanation, now, timezone))
            .collect(),
        acknowledgement: holds.map(|one| one.id.to_string()),
        acknowledge: format!("{href}/acknowledge"),
        here: href,
        today: moment(now).day,
        row: Certificate::of(row, now, timezone),
    })
}

fn project(
    view: &ProjectView,
    row: &CertificateRow,
    now: DateTime<Utc>,
    timezone: Tz,
) -> ProjectLine {
    let (mut takes_over, mut severity) = (None, "");
    let fate = match (&view.successor_id, view.uncovered_from) {
        (Some(successor), _) => {
            let href = link::certificate(&row.organization, successor);
            takes_over = Some((href, successor.to_string()));
            "takes over".to_owned()
        }
        (None, Some(from)) => {
            let moment = DisplayTime::new(from, now, timezone).local;
            // Another certificate may cover the project for a while without being a successor.
            let carried = row.view.expires_at.is_some_and(|at| from > at.max(now));
            severity = if carried { "warning" } else { "critical" };
            match (carried, from <= now) {
                (true, _) => format!("no successor; other certificates are valid until {moment}"),
                (false, true) => format!("no valid certificate since {moment}"),
                (false, false) => format!("no valid certificate from {moment}"),
            }
        }
        (None, None) => {
            severity = "warning";
            "the expiry of its last valid certificate is unknown".to_owned()
        }
    };
    let (title, id) = (view.title().to_owned(), view.id.to_string());
    let next = view.next.map(|step| wording::next_step(step, view.candidate.as_ref()));
    ProjectLine { title, id, takes_over, fate, next, severity }
}

fn step(threshold: &Threshold, now: DateTime<Utc>, timezone: Tz) -> Step {
    Step {
        label: threshold.stage.clone(),
        at: threshold.at.map(|at| DisplayTime::new(at, now, timezone)),
        severity: threshold.severity.as_str(),
        reached: threshold.reached,
        repeat: threshold
            .repeat()
            .map_or(String::new(), |repeat| format!("every {}", wording::span(repeat))),
    }
}

fn notifier(
    outlook: &Outlook,
    notifications: &[SentNotification],
    now: DateTime<Utc>,
    timezone: Tz,
) -> Notifier {
    let mut its = notifications.iter().filter(|one| outlook.got(&one.notification));
    let is_pending = its.next().is_some_and(SentNotification::is_pending);
    let local = |at| DisplayTime::new(at, now, timezone).local;
    Notifier {
        name: outlook.title(),
        status: outlook.status.describe(),
        sent: match &outlook.sent {
            Some(sent) => sent.describe(local, is_pending),
            None => "no open alert".to_owned(),
        },
        upcoming: outlook.upcoming.iter().map(|coming| coming.describe(local)).collect(),
    }
}

fn sent_alert(
    sent: &SentNotification,
    explanation: &Explanation,
    now: DateTime<Utc>,
    timezone: Tz,
) -> Option<SentAlert> {
    let notification = &sent.notification;
    let alert = notification.alerts.iter().find(|alert| {
        alert.certificate().is_some_and(|one| one.id == explanation.certificate.id)
    })?;
    let deliveries: Vec<String> =
        sent.deliveries.iter().map(|(state, n)| format!("{n} {state}")).collect();
    Some(SentAlert {
        at: DisplayTime::new(notification.created_at, now, timezone),
        notifier: notification.audience.title_of(&notification.notifier),
        event: alert.event.to_string(),
        stage: alert.stage.clone().unwrap_or_default(),
        reason: alert.reason.map_or(String::new(), |reason| reason.to_string()),
        deliveries: deliveries.join(", "),
    })
}
