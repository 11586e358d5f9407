//! The complete lists of certificates, projects and deliveries.

use axum::http::Uri;
use serde::Serialize;

use super::{
    super::{Shared, problem::Problem, snapshot::Snapshot},
    Page,
    filter::{Choice, Filter, Position, ROWS},
    frame::Frame,
    overview::choices,
    rows::{Certificate, Delivery, Project},
};
use crate::{
    domain::{delivery::DeliveryState, status::Status, threshold::Severity},
    store::Which,
    view::Coverage,
};

#[derive(Serialize)]
pub struct List<T> {
    frame: Frame,
    filter: Filter,
    organizations_known: Vec<Choice>,
    severities: Vec<Choice>,
    statuses: Vec<Choice>,
    rows: Vec<T>,
    position: Position,
    /// Whether entries may be missing, because a list is unreadable or an organization was not
    /// scanned yet.
    unseen: bool,
}

impl Page for List<Certificate> {
    const TEMPLATE: &'static str = "certificates.html";
}

impl Page for List<Project> {
    const TEMPLATE: &'static str = "projects.html";
}

impl Page for List<Delivery> {
    const TEMPLATE: &'static str = "deliveries.html";
}

fn unseen(snapshot: &Snapshot) -> bool {
    snapshot.organizations.iter().any(|one| one.scan.is_none() || !one.faults.is_empty())
}

fn severities() -> Vec<Choice> {
    Severity::ALL.iter().map(|one| Choice::of(one.as_str())).collect()
}

/// Every certificate, the most urgent first.
pub fn certificates(
    snapshot: &Snapshot,
    frame: Frame,
    uri: &Uri,
) -> Result<List<Certificate>, Problem> {
    let filter = Filter::of(uri, snapshot)?;
    let status = filter.status(Status::parse, Status::ALL)?;
    let text = filter.text();
    let mut rows: Vec<_> =
        snapshot.organizations.iter().flat_map(|one| &one.certificates).collect();
    rows.retain(|row| {
        filter.is_of(row.organization.as_str())
            && filter.is_as_bad(row.severity)
            && status.is_none_or(|status| row.status == status)
            && text.as_deref().is_none_or(|text| row.has(text))
    });
    rows.sort_by_cached_key(|row| row.urgency());
    let (rows, position) = Position::cut(&filter, "/certificates", rows);
    let timezone = snapshot.configured.timezone;
    Ok(List {
        frame: frame.titled("Certificates – certvigil"),
        organizations_known: choices(snapshot),
        severities: severities(),
        statuses: Status::ALL.iter().map(|one| Choice::of(one.as_str())).collect(),
        rows: rows.iter().map(|row| Certificate::of(row, snapshot.now, timezone)).collect(),
        position,
        unseen: unseen(snapshot),
        filter,
    })
}

/// Every project, the most urgent first.
pub fn projects(snapshot: &Snapshot, frame: Frame, uri: &Uri) -> Result<List<Project>, Problem> {
    let filter = Filter::of(uri, snapshot)?;
    let coverage = filter.status(Coverage::parse, Coverage::ALL)?;
    let text = filter.text();
    let mut rows: Vec<_> = snapshot.organizations.iter().flat_map(|one| &one.projects).collect();
    rows.retain(|row| {
        filter.is_of(row.organization.as_str())
            && filter.is_as_bad(row.severity)
            && coverage.is_none_or(|coverage| row.coverage == coverage)
            && text.as_deref().is_none_or(|text| row.has(text))
    });
    rows.sort_by_cached_key(|row| row.urgency());
    let (rows, position) = Position::cut(&filter, "/projects", rows);
    let timezone = snapshot.configured.timezone;
    Ok(List {
        frame: frame.titled("Projects – certvigil"),
        organizations_known: choices(snapshot),
        severities: severities(),
        statuses: Coverage::ALL.iter().map(|one| Choice::of(one.as_str())).collect(),
        rows: rows.iter().map(|row| Project::of(row, snapshot.now, timezone)).collect(),
        position,
        unseen: unseen(snapshot),
        filter,
    })
}

/// The filter value for failed deliveries.
const FAILED: &str = "failed";

/// The latest deliveries.
pub async fn deliveries(
    shared: &Shared,
    snapshot: &Snapshot,
    frame: Frame,
    uri: &Uri,
) -> Result<List<Delivery>, Problem> {
    /// The number of deliveries that a search covers.
    const SEARCHED: usize = 5_000;
    /// The maximum number of pages; `certvigil deliveries` and the API list more.
    const PAGES: usize = 200;
    let filter = Filter::of(uri, snapshot)?;
    let failed = filter.status == FAILED;
    let state = match failed {
        true => None,
        false => filter.status(DeliveryState::parse, DeliveryState::ALL)?,
    };
    let organization = Some(filter.organization.as_str()).filter(|name| !name.is_empty());
    let which = Which { failed, state, organization, ..Which::default() };
    let limit = match filter.text() {
        Some(_) => SEARCHED,
        None => filter.page.min(PAGES) * ROWS + 1,
    };
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let mut rows = shared.reading.deliveries(&which, limit).await?;
    if let Some(text) = filter.text() {
        rows.retain(|row| {
            [&row.notifier, &row.receiver, &row.summary]
                .iter()
                .any(|field| field.to_lowercase().contains(&text))
        });
    }
    let (rows, position) = Position::cut(&filter, "/deliveries", rows);
    let timezone = snapshot.configured.timezone;
    let mut statuses = vec![Choice::of(FAILED)];
    statuses.extend(DeliveryState::ALL.iter().map(|one| Choice::of(one.as_str())));
    Ok(List {
        frame: frame.titled("Deliveries – certvigil"),
        organizations_known: choices(snapshot),
        severities: Vec::new(),
        statuses,
        rows: rows.iter().map(|row| Delivery::of(row, snapshot.at, timezone)).collect(),
        position,
        unseen: false,
        filter,
    })
}
