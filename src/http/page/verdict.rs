//! The one question first: is anything about to break?
//!
//! “No” is said only where everything was read of late and whoever is to be told can be told.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::{
    super::{
        snapshot::Snapshot,
        standing::{CertificateRow, Coverage, Standing},
    },
    filter::Filter,
    frame::Moment,
    link,
};
use crate::domain::{status::Status, threshold::Severity, wording};

/// How many certificates are named.
const NAMED: usize = 5;

#[derive(Serialize)]
pub struct Verdict {
    /// `critical`, `unknown`, `warning` or `calm`.
    pub level: &'static str,
    pub answer: String,
    /// What that rests on, the worst first.
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
        let of =
            |standing: &&std::sync::Arc<Standing>| filter.is_of(standing.organization.as_str());
        let organizations: Vec<&Standing> =
            snapshot.organizations.iter().filter(of).map(AsRef::as_ref).collect();
        let mut breaking: Vec<Point> =
            organizations.iter().filter_map(|one| uncovered(one)).collect();
        let blind: Vec<Point> = organizations.iter().flat_map(|one| sight(snapshot, one)).collect();
        let mut urgent: Vec<(&Standing, &CertificateRow, Severity)> = organizations
            .iter()
            .flat_map(|one| one.certificates.iter().map(|row| (*one, row)))
            .filter_map(|(one, row)| Some((one, row, row.severity?)))
            .collect();
        urgent.sort_by_key(|(_, row, _)| row.urgency());
        let of_severity = |severity: Severity| {
            let all = urgent.iter().filter(move |(_, _, of)| *of == severity);
            all.map(|(standing, row, severity)| expiring(standing, row, *severity))
        };
        breaking.extend(cut(of_severity(Severity::Critical).collect(), "critical"));
        let mut soon = cut(of_severity(Severity::Warning).collect(), "warning");
        soon.extend(organizations.iter().flat_map(|one| credentials(one)));
        soon.extend(outbox(snapshot));
        let critical = soon.iter().filter(|point| point.level == "critical").cloned();
        breaking.extend(critical.collect::<Vec<_>>());
        soon.retain(|point| point.level != "critical");
        let (level, answer) = match (breaking.first(), blind.first(), soon.first()) {
            (Some(worst), _, _) => ("critical", format!("Yes: {}", worst.text)),
            (None, Some(blind), _) => ("unknown", format!("Not known: {}", blind.text)),
            (None, None, Some(first)) => ("warning", format!("Not today, but {}", first.text)),
            (None, None, None) => ("calm", calm(&organizations, snapshot)),
        };
        let points = breaking.into_iter().chain(blind).chain(soon).collect();
        Verdict { level, answer, points }
    }
}

/// The first few, and how many more there are.
fn cut(mut points: Vec<Point>, severity: &'static str) -> Vec<Point> {
    let more = points.len().saturating_sub(NAMED);
    points.truncate(NAMED);
    if more > 0 {
        let href = link::asking("/certificates", &[("severity", severity)]);
        points.push(Point::new(severity, format!("and {more} more"), href));
    }
    points
}

fn uncovered(standing: &Standing) -> Option<Point> {
    let open = |row: &&super::super::standing::ProjectRow| {
        row.coverage == Coverage::Uncovered && !row.ignored
    };
    let mut rows = standing.projects.iter().filter(open);
    let first = rows.next()?;
    let (who, has) = match rows.count() {
        0 => (format!("the project “{}”", first.project.title()), "has"),
        more => (wording::count(more + 1, "project"), "have"),
    };
    let organization = standing.organization.as_str();
    let pairs = [("organization", organization), ("status", Coverage::Uncovered.as_str())];
    Some(Point::new(
        "critical",
        format!("{who} of {organization} {has} no valid certificate now"),
        link::asking("/projects", &pairs),
    ))
}

fn expiring(standing: &Standing, row: &CertificateRow, severity: Severity) -> Point {
    let title = row.view.title();
    let what = match (row.status, row.view.expires_at) {
        (Status::NotYetValid, _) => format!("“{title}” is active, and not yet valid"),
        (_, Some(at)) => format!("“{title}” {}", wording::expiry(at, standing.at)),
        (_, None) => format!("“{title}” is active, and does not say when it expires"),
    };
    let left = match (row.left_alone(), row.status) {
        (0, _) | (_, Status::Expired | Status::NotYetValid | Status::UnknownExpiry) => {
            String::new()
        }
        (left, _) => format!(", with no successor in {}", wording::count(left, "project")),
    };
    let quiet = match row.view.acknowledged {
        Some(_) => " (acknowledged)",
        None => "",
    };
    let href = link::certificate(&row.organization, &row.view.id);
    Point::new(severity.as_str(), format!("{what}{left}{quiet}"), href)
}

/// What of an organization is not seen.
fn sight(snapshot: &Snapshot, standing: &Standing) -> Vec<Point> {
    let name = standing.organization.as_str();
    let point = |text: String| Point::new("unknown", text, "#organizations".to_owned());
    let watched = snapshot.status.organizations.get(&standing.organization);
    let mut points = Vec::new();
    let timezone = snapshot.configured.timezone;
    if let Some(fault) = watched.and_then(|watched| watched.fault.as_ref()) {
        points.push(point(format!("the latest scan of {name} could not be kept: {fault}")));
    }
    if let Some(at) = watched.map(|watched| watched.overdue_at).filter(|at| *at < snapshot.at) {
        let at = Moment::new(at, snapshot.at, timezone);
        points.push(point(format!("the scan of {name} is overdue since {}", at.local)));
    }
    match &standing.scan {
        None => points.push(point(format!("{name} has not been scanned yet"))),
        Some(scan) if !scan.complete => {
            let lists = wording::count(standing.faults.len().max(1), "list");
            let were = if standing.faults.len() > 1 { "were" } else { "was" };
            points.push(point(format!(
                "{lists} of {name} {were} not read by the latest scan: certificates there may expire unseen"
            )));
        }
        Some(_) => {}
    }
    points
}

fn credentials(standing: &Standing) -> Vec<Point> {
    let rows = standing.credentials.iter().filter_map(|row| Some((row, row.severity?)));
    rows.filter(|(_, severity)| *severity >= Severity::Warning)
        .map(|(row, severity)| {
            let expiry = wording::expiry(row.expires_at, standing.at);
            let what = row.kind.title();
            let text = format!("{what} that reads {} {expiry}", standing.organization);
            Point::new(severity.as_str(), text, "#organizations".to_owned())
        })
        .collect()
}

/// Who is not told.
fn outbox(snapshot: &Snapshot) -> Vec<Point> {
    let now = snapshot.at;
    let mut points = Vec::new();
    for listener in &snapshot.configured.listeners {
        let name = &listener.name;
        let failing = snapshot.outbox.failures.iter().find(|one| one.notifier == *name);
        let late = |since: DateTime<Utc>| now - since > snapshot.configured.retry_max;
        let waiting = snapshot.outbox.waiting.iter().find(|one| one.notifier == *name);
        let text = match (failing, waiting.filter(|one| late(one.since))) {
            (Some(one), _) if one.taken_at.is_none() => {
                format!("the notifier {name} does not get through: {}", one.detail)
            }
            (_, Some(waiting)) => format!(
                "{} of the notifier {name} {} waited for {}",
                wording::count(usize::try_from(waiting.count).unwrap_or(usize::MAX), "message"),
                if waiting.count == 1 { "has" } else { "have" },
                wording::span(now - waiting.since)
            ),
            (Some(_) | None, None) => continue,
        };
        points.push(Point::new("warning", text, "#outbox".to_owned()));
    }
    for (notifier, fault) in &snapshot.status.outbox {
        let text = format!("the outbox of {notifier} cannot be worked on: {fault}");
        points.push(Point::new("critical", text, "#outbox".to_owned()));
    }
    points
}

fn calm(organizations: &[&Standing], snapshot: &Snapshot) -> String {
    let rows = organizations.iter().flat_map(|one| &one.certificates);
    let active = rows.filter(|row| row.status != Status::Inactive);
    let next = active.filter_map(|row| Some((row.view.expires_at?, row)));
    let next = next.filter(|(at, _)| *at > snapshot.at).min_by_key(|(at, _)| *at);
    match next {
        Some((at, row)) if at - snapshot.at < TimeDelta::days(3_650) => format!(
            "No. The next to expire is “{}”, in {}",
            row.view.title(),
            wording::span(at - snapshot.at)
        ),
        Some(_) => "No. Nothing expires within ten years".to_owned(),
        None => "No. There is no active certificate that expires".to_owned(),
    }
}
