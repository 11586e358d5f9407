//! `/calendar.ics`: upcoming expiries, for calendar subscriptions (RFC 5545, RFC 7986).
//!
//! Each active certificate with a known expiry has an event, with alarms at its future thresholds.
//! Each project has one if it has no valid certificate, or will have none after a certificate that
//! has reached a threshold; without alarms, because hundreds may share a day. UIDs are constant, so
//! that a calendar moves the event when a certificate is renewed.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use icalendar::{Alarm, Calendar, Component, Event, EventLike, Trigger};
use uuid::Uuid;

use super::{Configured, Shared, page::link, problem::Problem, snapshot::Snapshot};
use crate::{
    domain::{
        status::Status,
        text::{one_line, unlinked},
    },
    message::wording,
    view::{CertificateRow, Coverage, Overview, Project, Step},
};

/// The maximum number of events of each kind for an organization; the soonest are kept.
const MAX_EVENTS: usize = 500;
/// Older and later events are omitted.
const PAST: TimeDelta = TimeDelta::days(400);
const AHEAD: TimeDelta = TimeDelta::days(20 * 366);
/// The length of an event.
const LASTS: TimeDelta = TimeDelta::minutes(15);

pub async fn calendar(State(shared): State<Shared>) -> Result<Response, Problem> {
    let snapshot = shared.keeper.snapshot().await?;
    let kind = "text/calendar; charset=utf-8";
    let name = "inline; filename=\"certvigil.ics\"";
    let headers = [(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, text(&snapshot)).into_response())
}

fn text(snapshot: &Snapshot) -> String {
    let configured = &snapshot.configured;
    let mut calendar = Calendar::empty();
    calendar.append_property(("VERSION", "2.0"));
    calendar.append_property(("PRODID", "-//certvigil//expiries//EN"));
    calendar.append_property(("CALSCALE", "GREGORIAN"));
    calendar.append_property(("METHOD", "PUBLISH"));
    // The refresh interval (RFC 7986, section 5.7).
    calendar.append_property(
        icalendar::Property::new("REFRESH-INTERVAL", "PT1H")
            .add_parameter("VALUE", "DURATION")
            .done(),
    );
    calendar.append_property(("X-PUBLISHED-TTL", "PT1H"));
    calendar.name("certvigil: upcoming expiries").timezone(configured.timezone.name());
    let now = snapshot.now;
    for overview in &snapshot.organizations {
        let certificates = overview.certificates.iter().filter(|row| is_shown(row));
        let events = certificates.filter_map(|row| expiry(overview, row, configured, now));
        calendar.extend(events.take(MAX_EVENTS));
        let projects = overview.projects.iter().filter(|row| is_left(row));
        let events = projects.filter_map(|row| uncovered(overview, row, configured, now));
        calendar.extend(events.take(MAX_EVENTS));
    }
    calendar.done().to_string()
}

/// An inactive certificate has no effect; an ignored one is silenced.
fn is_shown(row: &CertificateRow) -> bool {
    row.status != Status::Inactive && row.view.ignored.is_none()
}

/// A project without severity has only ignored certificates.
fn is_left(row: &Project) -> bool {
    row.severity.is_some() && matches!(row.coverage, Coverage::Uncovered | Coverage::Ending)
}

/// Whether a calendar can display the time. A certificate without expiry has one in the year 9999
/// (RFC 5280, section 4.1.2.5).
fn is_near(at: &DateTime<Utc>, now: DateTime<Utc>) -> bool {
    *at > now - PAST && *at < now + AHEAD
}

fn expiry(
    overview: &Overview,
    row: &CertificateRow,
    configured: &Configured,
    now: DateTime<Utc>,
) -> Option<Event> {
    let expires_at = row.view.expires_at.filter(|at| is_near(at, now))?;
    let title = row.view.title();
    let active = &row.view.active_in;
    let mut lines = vec![format!(
        "{title} ({}) is active in {}.",
        row.view.id,
        wording::count(active.projects_total, "project")
    )];
    lines.push(match (&row.successor, row.left_alone()) {
        (_, 0) if active.projects_total > 0 => "A successor is active in every project.".to_owned(),
        (Some(successor), left) => format!(
            "Its successor “{}” is not active in {}.",
            successor.title(),
            wording::count(left, "project")
        ),
        (None, _) => "No project has a successor.".to_owned(),
    });
    if let Some(silence) = &row.view.acknowledged {
        lines.push(format!("Acknowledged {}", wording::silence(silence, configured.timezone)));
    }
    let verb = if expires_at > now { "expires" } else { "expired" };
    let summary = format!("{}: “{title}” {verb}", overview.organization);
    let key = format!("{}/certificate/{}", overview.organization, row.view.id);
    let mut event = event(&key, &summary, &lines, expires_at, now);
    alarms(&mut event, &key, &summary, &row.steps, now);
    address(&mut event, configured, &link::certificate(&row.organization, &row.view.id));
    Some(event.done())
}

fn uncovered(
    overview: &Overview,
    row: &Project,
    configured: &Configured,
    now: DateTime<Utc>,
) -> Option<Event> {
    let title = row.title();
    let is_now = row.coverage == Coverage::Uncovered;
    // If no certificate was ever valid, there is no such time: use today.
    let today = || now.date_naive().and_hms_opt(0, 0, 0).map(|midnight| midnight.and_utc());
    let from = row.uncovered_from.or_else(|| today().filter(|_| is_now));
    let from = from.filter(|at| is_near(at, now))?;
    let left = if is_now { "" } else { " left" };
    let summary =
        format!("{}: project “{title}” has no valid certificate{left}", overview.organization);
    let lines = [
        format!("Project {title} ({}).", row.id),
        if is_now {
            "Every API call of this project over mutual TLS fails until a valid certificate is \
             activated."
        } else {
            "From this time on, every API call of this project over mutual TLS fails, unless \
             another certificate is activated before."
        }
        .to_owned(),
    ];
    let key = format!("{}/project/{}", overview.organization, row.id);
    let mut event = event(&key, &summary, &lines, from, now);
    if let Some(id) = &row.ended_by {
        address(&mut event, configured, &link::certificate(&row.organization, id));
    }
    Some(event.done())
}

fn event(
    key: &str,
    summary: &str,
    lines: &[String],
    at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Event {
    let uid = Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes());
    let mut event = Event::new();
    event
        .uid(&format!("{uid}@certvigil"))
        .timestamp(now)
        // Names are external text, and calendars turn text that looks like a URL into a link.
        .summary(&unlinked(&one_line(summary, 200)))
        .description(&unlinked(&lines.join("\n")))
        .starts(at)
        .ends(at + LASTS);
    // The event does not block time (RFC 5545, section 3.8.2.7).
    event.add_property("TRANSP", "TRANSPARENT");
    event
}

/// Adds an alarm at each future threshold.
fn alarms(event: &mut Event, key: &str, summary: &str, steps: &[Step], now: DateTime<Utc>) {
    for step in steps {
        let Some(at) = step.at.filter(|at| *at > now) else { continue };
        let text = one_line(&format!("{summary} ({}, {})", step.stage, step.severity), 200);
        let mut alarm = Alarm::display(&unlinked(&text), Trigger::from(at));
        // Without a UID, the alarm would get a new one each time (RFC 9074, section 4).
        let key = format!("{key}/{}", step.stage);
        alarm.uid(&Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).to_string());
        event.alarm(alarm.done());
    }
}

fn address(event: &mut Event, configured: &Configured, path: &str) {
    let url = configured.public_url.as_ref().and_then(|url| url.join(path).ok());
    if let Some(url) = url {
        event.url(url.as_str());
    }
}
