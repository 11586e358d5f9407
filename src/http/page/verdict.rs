//! The verdict of the first page: is anything about to break?
//!
//! The answer is “No” only if every list was read recently and every notifier works.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use std::{cmp::Reverse, sync::Arc};

use super::{
    super::{Configured, snapshot::Snapshot},
    drills,
    filter::Filter,
    frame::DisplayTime,
    link,
};
use crate::{
    domain::{notifier, status::Status, threshold::Severity},
    message::wording,
    view::{CertificateRow, Coverage, Overview, Project},
};

/// The number of certificates that are named.
const NAMED: usize = 5;

#[derive(Serialize)]
pub struct Verdict {
    /// `critical`, `unknown`, `warning` or `calm`.
    pub level: &'static str,
    pub answer: String,
    /// The reasons, the worst first.
    pub points: Vec<Point>,
}

#[derive(Clone, Serialize)]
pub struct Point {
    pub level: &'static str,
    pub text: String,
    pub href: String,
}

impl Point {
    fn new(level: &'static str, text: String, href: String) -> Point {
        Point { level, text, href }
    }
}

impl Verdict {
    pub fn of(snapshot: &Snapshot, filter: &Filter) -> Verdict {
        let of = |overview: &&Arc<Overview>| filter.is_of(overview.organization.as_str());
        let organizations: Vec<&Overview> =
            snapshot.organizations.iter().filter(of).map(AsRef::as_ref).collect();
        let mut breaking: Vec<Point> =
            organizations.iter().filter_map(|one| uncovered(one)).collect();
        let unprotected = organizations.iter().filter_map(|one| unprotected(one));
        let blind: Vec<Point> = organizations.iter().flat_map(|one| sight(snapshot, one)).collect();
        let rows = || organizations.iter().flat_map(|one| &one.certificates);
        let mut urgent: Vec<(&CertificateRow, Severity)> =
            rows().filter_map(|row| Some((row, severity(row, snapshot.now)?))).collect();
        urgent.sort_by_key(|(row, severity)| (Reverse(*severity), row.urgency()));
        let of_severity = |severity: Severity| {
            let all = urgent.iter().filter(|(_, of)| *of == severity);
            let all = all.map(|(row, _)| expiring(row, severity, snapshot.now)).collect();
            cut(all, severity.as_str(), filter)
        };
        breaking.extend(of_severity(Severity::Critical));
        let mut soon = of_severity(Severity::Warning);
        soon.extend(unprotected);
        soon.extend(organizations.iter().flat_map(|one| credentials(one, snapshot.now)));
        soon.extend(outbox(snapshot));
        soon.extend(unproven(snapshot));
        soon.extend(instances(snapshot));
        let (critical, soon): (Vec<Point>, Vec<Point>) =
            soon.into_iter().partition(|point| point.level == "critical");
        breaking.extend(critical);
        let (level, answer) = match (breaking.first(), blind.first(), soon.first()) {
            (Some(worst), _, _) => ("critical", format!("Yes: {}", worst.text)),
            (None, Some(blind), _) => ("unknown", format!("Not known: {}", blind.text)),
            (None, None, Some(first)) => ("warning", format!("Soon: {}", first.text)),
            (None, None, None) => ("calm", calm(rows(), snapshot.now)),
        };
        let points = breaking.into_iter().chain(blind).chain(soon).collect();
        Verdict { level, answer, points }
    }
}

/// The severity of the stage, but at least a warning if the certificate expires within a day and
/// leaves a project without a successor. Thresholds and ignore rules do not hide that.
fn severity(row: &CertificateRow, now: DateTime<Utc>) -> Option<Severity> {
    let within_a_day = |at: DateTime<Utc>| at > now && at - now < TimeDelta::days(1);
    let breaks = row.left_alone() > 0 && row.view.expires_at.is_some_and(within_a_day);
    row.severity.max(breaks.then_some(Severity::Warning))
}

/// The first points, and the number of further ones.
fn cut(mut points: Vec<Point>, severity: &'static str, filter: &Filter) -> Vec<Point> {
    let more = points.len().saturating_sub(NAMED);
    points.truncate(NAMED);
    if more > 0 {
        let pairs = [("organization", filter.organization.as_str()), ("severity", severity)];
        let href = link::asking("/certificates", &pairs);
        points.push(Point::new(severity, format!("and {more} more"), href));
    }
    points
}

fn uncovered(overview: &Overview) -> Option<Point> {
    let open = |row: &&Project| row.coverage == Coverage::Uncovered && !row.ignored;
    let rows: Vec<&Project> = overview.projects.iter().filter(open).collect();
    let (who, is_one) = who(&rows)?;
    let organization = overview.organization.as_str();
    let has = if is_one { "has" } else { "have" };
    let text = format!("{who} of {organization} {has} no valid certificate now");
    Some(Point::new("critical", text, projects(organization, Coverage::Uncovered)))
}

/// The projects that do not enforce mutual TLS.
fn unprotected(overview: &Overview) -> Option<Point> {
    let open = |row: &&Project| row.coverage == Coverage::Unprotected && !row.acknowledged;
    let rows: Vec<&Project> = overview.projects.iter().filter(open).collect();
    let severity = rows.iter().filter_map(|row| row.severity).max()?;
    let (who, is_one) = who(&rows)?;
    let organization = overview.organization.as_str();
    let does = if is_one { "does" } else { "do" };
    let text = format!(
        "{who} of {organization} {does} not enforce mutual TLS: no certificate is active there"
    );
    Some(Point::new(severity.as_str(), text, projects(organization, Coverage::Unprotected)))
}

/// The project or the number of projects in words, and whether it is a single one.
fn who(rows: &[&Project]) -> Option<(String, bool)> {
    match rows {
        [] => None,
        [only] => Some((format!("the project “{}”", only.title()), true)),
        more => Some((wording::count(more.len(), "project"), false)),
    }
}

fn projects(organization: &str, coverage: Coverage) -> String {
    let pairs = [("organization", organization), ("status", coverage.as_str())];
    link::asking("/projects", &pairs)
}

fn expiring(row: &CertificateRow, severity: Severity, now: DateTime<Utc>) -> Point {
    let title = row.view.title();
    let what = match (row.status, row.view.expires_at) {
        (Status::NotYetValid, _) => format!("“{title}” is active but not yet valid"),
        (_, Some(at)) => format!("“{title}” {}", wording::expiry(at, now)),
        (_, None) => format!("“{title}” is active and its expiry is unknown"),
    };
    let many = |n: usize| wording::count(n, "project");
    let left = match (row.breaks, row.left_alone(), row.status) {
        (_, _, Status::NotYetValid | Status::UnknownExpiry) | (0, 0, _) => String::new(),
        (0, _, Status::Expired) => String::new(),
        (1, _, Status::Expired) => ", and 1 project has no valid certificate".to_owned(),
        (n, _, Status::Expired) => format!(", and {} have no valid certificate", many(n)),
        (0, left, _) => format!(", with no successor in {}", many(left)),
        (1, _, _) => "; from then on 1 project has no valid certificate".to_owned(),
        (n, _, _) => format!("; from then on {} have no valid certificate", many(n)),
    };
    let quiet = match (&row.view.acknowledged, &row.view.ignored) {
        (_, Some(_)) => " (ignored)",
        (Some(_), None) => " (acknowledged)",
        (None, None) => "",
    };
    let href = link::certificate(&row.organization, &row.view.id);
    Point::new(severity.as_str(), format!("{what}{left}{quiet}"), href)
}

/// Missing or old data of an organization.
fn sight(snapshot: &Snapshot, overview: &Overview) -> Vec<Point> {
    let name = overview.organization.as_str();
    let point = |text: String| Point::new("unknown", text, "#organizations".to_owned());
    let watched = snapshot.status.organizations.get(&overview.organization);
    let mut points = Vec::new();
    let timezone = snapshot.configured.timezone;
    if let Some(fault) = watched.and_then(|watched| watched.fault.as_ref()) {
        points.push(point(format!("the latest scan of {name} was not saved: {fault}")));
    }
    if let Some(at) = watched.map(|watched| watched.overdue_at).filter(|at| *at < snapshot.at) {
        let at = DisplayTime::new(at, snapshot.at, timezone);
        points.push(point(format!("the scan of {name} has been overdue since {}", at.local)));
    }
    let Some(scan) = &overview.scan else {
        points.push(point(format!("{name} has not been scanned yet")));
        return points;
    };
    let Configured { cron, late, .. } = snapshot.configured.as_ref();
    if points.is_empty() && cron.is_old(scan, *late, snapshot.at) {
        let at = DisplayTime::new(scan.finished_at, snapshot.at, timezone);
        points.push(point(format!(
            "the latest data of {name} is from {}, and the next scan is overdue",
            at.local
        )));
    }
    if !scan.complete || !overview.faults.is_empty() {
        let lists = wording::count(overview.faults.len().max(1), "list");
        let which = match overview.faults.as_slice() {
            [] => String::new(),
            [(scope, _)] => format!(" ({scope})"),
            [(scope, _), more @ ..] => format!(" ({scope} and {} more)", more.len()),
        };
        points.push(point(format!(
            "the latest scan could not read {lists} of {name}{which}: certificates in \
             unreadable lists may expire unnoticed"
        )));
    }
    points
}

fn credentials(overview: &Overview, now: DateTime<Utc>) -> Vec<Point> {
    let rows = overview.credentials.iter().filter_map(|row| Some((row, row.severity?)));
    rows.filter(|(_, severity)| *severity >= Severity::Warning)
        .map(|(row, severity)| {
            let expiry = wording::expiry(row.expires_at, now);
            let text = format!("{} {expiry}", row.title());
            Point::new(severity.as_str(), text, "#organizations".to_owned())
        })
        .collect()
}

/// Failing notifiers, and late or blocked deliveries.
fn outbox(snapshot: &Snapshot) -> Vec<Point> {
    let now = snapshot.at;
    let mut points = Vec::new();
    for name in notifier::names(&snapshot.configured.notifiers) {
        // A receiver that has accepted a later message works again.
        let failing = snapshot.outbox.failures.iter();
        let failing = failing.filter(|one| one.taken_at.is_none());
        let failing = failing.filter(|one| one.notifier == name).min_by_key(|one| one.since);
        let late = |since: DateTime<Utc>| now - since > snapshot.configured.retry_max;
        let waiting = snapshot.outbox.waiting.iter().find(|one| one.notifier == name);
        let text = match (failing, waiting.filter(|one| late(one.since))) {
            (Some(one), _) => {
                format!("notifier “{name}” fails: {}", one.detail)
            }
            (None, Some(waiting)) => format!(
                "{} of the notifier “{name}” {} been pending for {}",
                wording::count(usize::try_from(waiting.count).unwrap_or(usize::MAX), "message"),
                if waiting.count == 1 { "has" } else { "have" },
                wording::span(now - waiting.since)
            ),
            (None, None) => continue,
        };
        points.push(Point::new("warning", text, "#outbox".to_owned()));
    }
    for (notifier, fault) in &snapshot.status.outbox {
        let text = format!("deliveries of the notifier “{notifier}” are blocked: {fault}");
        points.push(Point::new("critical", text, "#outbox".to_owned()));
    }
    points
}

/// A warning if receivers did not confirm a drill in time.
fn unproven(snapshot: &Snapshot) -> Option<Point> {
    let text = match drills::unproven(snapshot).as_slice() {
        [] => return None,
        [only] => format!(
            "nobody confirmed the drill for {} (notifier “{}”): alerts may not reach a person there",
            only.receiver, only.notifier
        ),
        more => format!(
            "{} did not confirm a drill: alerts may not reach a person there",
            wording::count(more.len(), "receiver")
        ),
    };
    Some(Point::new("warning", text, "#outbox".to_owned()))
}

/// A warning if the running instances have different configurations.
fn instances(snapshot: &Snapshot) -> Option<Point> {
    let all = || snapshot.status.instances.iter().filter(|one| one.there);
    let me = all().find(|one| one.me)?;
    if me.in_force && all().all(|one| one.digest == me.digest) {
        return None;
    }
    let text = match me.in_force {
        true => {
            "another instance has an older configuration: it delivers, but does not scan until it \
             is reloaded"
        }
        false => {
            "this instance has an older configuration, shown on this page: it delivers, but does \
             not scan until it is reloaded"
        }
    };
    Some(Point::new("warning", text.to_owned(), "#instances".to_owned()))
}

fn calm<'a>(rows: impl Iterator<Item = &'a CertificateRow> + Clone, now: DateTime<Utc>) -> String {
    let active = rows.filter(|row| row.status != Status::Inactive);
    let ends = active.filter_map(|row| Some((row.view.expires_at?, row)));
    let next = ends.clone().filter(|(at, _)| *at > now).min_by_key(|(at, _)| *at);
    match next {
        Some((at, row)) if at - now < TimeDelta::days(3_650) => {
            let quiet = if row.view.ignored.is_some() { " (ignored)" } else { "" };
            let (title, span) = (row.view.title(), wording::span(at - now));
            format!("No. The next expiry is “{title}”, in {span}{quiet}")
        }
        Some(_) => "No. Nothing expires within ten years".to_owned(),
        None if ends.count() > 0 => {
            "No. All expired certificates are ignored or replaced".to_owned()
        }
        None => "No. No active certificate has an expiry".to_owned(),
    }
}
