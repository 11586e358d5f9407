//! The first page: verdict, timeline, and the most urgent entries of each list.

use axum::http::Uri;
use serde::Serialize;

use super::{
    super::{problem::Problem, snapshot::Snapshot},
    Page,
    drills::Drills,
    filter::{Choice, Filter},
    frame::{DisplayTime, Frame},
    instances::Instances,
    rows::{Certificate, Delivery, Project},
    timeline::Timeline,
    verdict::Verdict,
};
use crate::{
    domain::{
        delivery::DeliveryRow,
        notifier,
        punctuality::{OBJECTIVE, Punctuality},
        threshold::Severity,
    },
    message::wording,
    view::{self, Unreadable},
};

/// The number of certificates shown; their list has all of them.
const ROWS: usize = 15;
/// The number of projects shown, and of deliveries.
const FEW: usize = 10;
/// The number of errors shown for an organization.
const FAULTS: usize = 5;

#[derive(Serialize)]
pub struct Overview {
    frame: Frame,
    filter: Filter,
    organizations_known: Vec<Choice>,
    severities: Vec<Choice>,
    verdict: Verdict,
    timeline: Option<Timeline>,
    certificates: Vec<Certificate>,
    certificates_total: usize,
    certificates_href: String,
    projects: Vec<Project>,
    projects_total: usize,
    projects_href: String,
    organizations: Vec<Organization>,
    /// The instances, with PostgreSQL.
    instances: Option<Instances>,
    outbox: Vec<Notifier>,
    punctuality: Option<Objective>,
    failed: Vec<Delivery>,
    latest: Vec<Delivery>,
    /// Whether no organization was scanned yet.
    first_start: bool,
}

impl Page for Overview {
    const TEMPLATE: &'static str = "overview.html";
}

/// Age and completeness of an organization's data.
#[derive(Serialize)]
struct Organization {
    name: String,
    level: &'static str,
    state: String,
    scan: Option<DisplayTime>,
    complete: Option<DisplayTime>,
    next: Option<DisplayTime>,
    projects: String,
    certificates: usize,
    faults: Vec<String>,
    faults_more: usize,
    clock: Option<String>,
    credentials: Vec<String>,
}

/// The punctuality of the last 90 days; `None` if no alert became due.
#[derive(Serialize)]
struct Objective {
    text: String,
    is_met: bool,
}

impl Objective {
    fn of(snapshot: &Snapshot) -> Option<Objective> {
        let punctuality = snapshot.punctuality.of_90_days;
        let Punctuality { on_time, total } = punctuality;
        let limit = snapshot.configured.on_time_within.to_std().unwrap_or_default();
        let text = format!(
            "Last 90 days: {} % of the deliveries of new alerts were on time ({on_time} of \
             {total}), which means within {} after the alert became due. The objective is \
             {OBJECTIVE} %.",
            punctuality.percentage()?,
            humantime::format_duration(limit),
        );
        Some(Objective { text, is_met: punctuality.meets_objective() })
    }
}

/// The pending deliveries of a notifier.
#[derive(Serialize)]
struct Notifier {
    name: String,
    level: &'static str,
    state: String,
    waiting: u64,
    oldest: Option<DisplayTime>,
    /// The failing receivers, each with the start of its failure and the error.
    failing: Vec<(String, DisplayTime, String)>,
    drills: Option<Drills>,
}

pub fn page(snapshot: &Snapshot, frame: Frame, uri: &Uri) -> Result<Overview, Problem> {
    let filter = Filter { status: String::new(), ..Filter::of(uri, snapshot)? };
    let timezone = snapshot.configured.timezone;
    let of: Vec<&view::Overview> = snapshot
        .organizations
        .iter()
        .map(AsRef::as_ref)
        .filter(|one| filter.is_of(one.organization.as_str()))
        .collect();
    let text = filter.text();
    let mut rows: Vec<_> = of.iter().flat_map(|one| &one.certificates).collect();
    rows.retain(|row| {
        filter.is_as_bad(row.severity) && text.as_deref().is_none_or(|text| row.has(text))
    });
    rows.sort_by_key(|row| row.urgency());
    let mut projects: Vec<_> = of.iter().flat_map(|one| &one.projects).collect();
    projects.retain(|row| {
        filter.is_as_bad(row.severity) && text.as_deref().is_none_or(|text| row.has(text))
    });
    projects.sort_by_key(|row| row.urgency());
    let now = snapshot.now;
    let timeline = Timeline::of(rows.iter().copied(), now, timezone);
    let verdict = Verdict::of(snapshot, &filter);
    let title = match verdict.level {
        "calm" => "certvigil".to_owned(),
        level => format!("{level} – certvigil"),
    };
    let delivery = |row| Delivery::of(row, snapshot.at, timezone);
    let its = |row: &&DeliveryRow| filter.is_of(row.organization.as_deref().unwrap_or_default());
    Ok(Overview {
        frame: frame.titled(title),
        organizations_known: choices(snapshot),
        severities: Severity::ALL.iter().map(|one| Choice::of(one.as_str())).collect(),
        verdict,
        timeline,
        certificates_total: rows.len(),
        certificates_href: filter.address("/certificates"),
        certificates: rows
            .iter()
            .take(ROWS)
            .map(|row| Certificate::of(row, now, timezone))
            .collect(),
        projects_total: projects.len(),
        projects_href: filter.address("/projects"),
        projects: projects.iter().take(FEW).map(|row| Project::of(row, now, timezone)).collect(),
        organizations: of.iter().map(|one| organization(snapshot, one)).collect(),
        instances: Instances::of(snapshot),
        outbox: notifiers(snapshot),
        // It covers all organizations.
        punctuality: Objective::of(snapshot).filter(|_| filter.organization.is_empty()),
        failed: snapshot.outbox.failed.iter().filter(its).take(FEW).map(delivery).collect(),
        latest: snapshot.outbox.latest.iter().filter(its).take(FEW).map(delivery).collect(),
        first_start: snapshot.organizations.iter().all(|one| one.scan.is_none()),
        filter,
    })
}

/// The organizations that the filter offers.
pub fn choices(snapshot: &Snapshot) -> Vec<Choice> {
    let names = snapshot.organizations.iter().map(|one| one.organization.as_str());
    names.map(|name| Choice { value: name.to_owned(), label: name.to_owned() }).collect()
}

fn organization(snapshot: &Snapshot, overview: &view::Overview) -> Organization {
    let timezone = snapshot.configured.timezone;
    let moment = |at| DisplayTime::new(at, snapshot.at, timezone);
    let watched = snapshot.status.organizations.get(&overview.organization);
    let scan = overview.scan.as_ref();
    let scanning = watched.is_some_and(|watched| watched.scanning);
    let fault = watched.and_then(|watched| watched.fault.clone());
    let overdue = watched.is_some_and(|watched| watched.overdue_at < snapshot.at);
    let (level, state) = match (scan, fault) {
        (_, Some(fault)) => ("critical", format!("the latest scan was not saved: {fault}")),
        _ if overdue => ("critical", "scan overdue".to_owned()),
        (None, None) if scanning => ("unknown", "first scan in progress".to_owned()),
        (None, None) => ("unknown", "not scanned yet".to_owned()),
        (Some(scan), None) if scan.complete => ("calm", "complete".to_owned()),
        (Some(_), None) => ("unknown", "incomplete".to_owned()),
    };
    let state = if scanning && scan.is_some() { format!("{state}; scanning now") } else { state };
    let read = overview.projects_read();
    let unreadable = overview.projects.len() - read;
    let read = wording::count(read, "project");
    let fault = |(scope, one): &(String, Unreadable)| {
        format!("{scope}: {} (since {})", one.error, moment(one.since).local)
    };
    Organization {
        name: overview.organization.to_string(),
        level,
        state,
        scan: scan.map(|scan| moment(scan.finished_at)),
        complete: overview.complete_at.map(moment),
        next: snapshot.configured.cron.next_after(snapshot.at).map(moment),
        projects: match unreadable {
            0 => format!("{read} read"),
            n => format!("{read} read, {n} unreadable"),
        },
        certificates: overview.certificates.len(),
        faults: overview.faults.iter().take(FAULTS).map(fault).collect(),
        faults_more: overview.faults.len().saturating_sub(FAULTS),
        clock: scan.and_then(|scan| scan.clock_skew).map(|skew| {
            let way = if skew.num_seconds() > 0 { "behind" } else { "ahead of" };
            format!(
                "the clock of this host is {} {way} the API’s; certvigil uses the API’s clock",
                wording::span(skew)
            )
        }),
        credentials: overview
            .credentials
            .iter()
            .map(|row| {
                let expiry = wording::expiry(row.expires_at, snapshot.now);
                format!("{} {expiry}", row.title())
            })
            .collect(),
    }
}

fn notifiers(snapshot: &Snapshot) -> Vec<Notifier> {
    let timezone = snapshot.configured.timezone;
    let moment = |at| DisplayTime::new(at, snapshot.at, timezone);
    let one = |name: &str| {
        let waiting = snapshot.outbox.waiting.iter().find(|one| one.notifier == name);
        let failures = snapshot.outbox.failures.iter().filter(|one| one.notifier == name);
        let failing: Vec<_> = failures
            .map(|one| (one.receiver.clone(), moment(one.since), one.detail.clone()))
            .collect();
        let broken = snapshot.status.outbox.get(name);
        let mut stuck = snapshot.outbox.failures.iter().filter(|one| one.notifier == name);
        let is_stuck = stuck.any(|one| one.taken_at.is_none());
        let (level, state) = match (broken, waiting) {
            (Some(fault), _) => ("critical", format!("blocked: {fault}")),
            (None, _) if is_stuck => ("warning", "failing".to_owned()),
            (None, _) if !failing.is_empty() => {
                ("info", "works again; a message was rejected".to_owned())
            }
            (None, Some(_)) => ("info", "sending".to_owned()),
            (None, None) => ("calm", "no pending deliveries".to_owned()),
        };
        Notifier {
            name: name.to_owned(),
            level,
            state,
            waiting: waiting.map_or(0, |one| one.count),
            oldest: waiting.map(|one| moment(one.since)),
            failing,
            drills: Drills::of(snapshot, name),
        }
    };
    notifier::names(&snapshot.configured.notifiers).into_iter().map(one).collect()
}
