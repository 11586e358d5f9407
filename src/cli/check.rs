//! `certvigil check`: one scan, and every certificate with how it stands.

use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, ValueEnum};
use comfy_table::Table;
use serde_json::json;
use std::{io::IsTerminal, path::Path, sync::Arc};
use tokio::sync::watch;

use super::{Failure, UNKNOWN};
use crate::{
    app, clock,
    config::{Config, Needs},
    deliver,
    domain::{
        certificate::{Certificate, OrganizationName},
        evaluate::evaluate,
        inventory::Inventory,
        threshold::{Reached, Severity, Stage},
        wording,
    },
    scan::{self, Progress, Target},
    store::Store,
};

#[derive(Args)]
pub struct Arguments {
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Keep the scan, and tell the notifiers what is new, as the service does; not beside a running one
    #[arg(long)]
    notify: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Csv,
    Nagios,
}

/// One certificate of one organization.
struct Row {
    organization: OrganizationName,
    certificate: Certificate,
    status: &'static str,
    reached: Option<Reached>,
    organization_wide: bool,
    projects: Vec<String>,
}

/// What all organizations came to.
struct Survey {
    now: DateTime<Utc>,
    rows: Vec<Row>,
    /// Organization, and what could not be read of it.
    unreadable: Vec<(OrganizationName, String)>,
    projects_read: usize,
}

pub async fn main(file: Option<&Path>, arguments: Arguments) -> u8 {
    match check(file, &arguments).await {
        Ok(code) => code,
        Err(failure) => {
            failure.say();
            if arguments.output == Output::Nagios {
                super::print("CERTVIGIL UNKNOWN - the check itself failed, see stderr\n");
            }
            UNKNOWN
        }
    }
}

async fn check(file: Option<&Path>, arguments: &Arguments) -> Result<u8, Failure> {
    let needs = Needs { organizations: true, notifiers: arguments.notify };
    let loaded = super::start(file, needs)?;
    let config = loaded.config;
    let targets: Vec<Target> = config
        .organizations
        .iter()
        .map(|organization| app::target(&config, organization))
        .collect::<anyhow::Result<_>>()?;
    let (progress, watched) = watch::channel(Progress::default());
    let shown = show_progress(watched);
    let surveyed = if arguments.notify {
        keep_and_tell(&config, &targets, &progress).await
    } else {
        look(&targets, &progress).await
    };
    drop(progress);
    drop(shown.await);
    let (survey, undelivered) = surveyed?;
    let text = match arguments.output {
        Output::Table => table(&survey),
        Output::Json => format!("{:#}\n", document(&survey)),
        Output::Csv => csv(&survey)?,
        Output::Nagios => nagios(&survey),
    };
    super::print(&text);
    if undelivered > 0 {
        let what = wording::count(undelivered, "delivery attempt");
        eprintln!("error: {what} failed; certvigil deliveries --failed says why");
    }
    Ok(match survey.worst() {
        Severity::Critical => 2,
        Severity::Warning => 1,
        Severity::Info if survey.unreadable.is_empty() && undelivered == 0 => 0,
        Severity::Info => UNKNOWN,
    })
}

/// Reads every organization at once; keeps nothing.
async fn look(
    targets: &[Target],
    progress: &watch::Sender<Progress>,
) -> anyhow::Result<(Survey, usize)> {
    let scans = targets.iter().map(|target| async move {
        let reading = scan::read(target, progress).await;
        let now = clock::now();
        (target, Inventory::default().merge(reading, &target.selection, now))
    });
    let scanned = futures_util::future::join_all(scans).await;
    let mut survey = Survey::new(clock::now());
    for (target, inventory) in &scanned {
        survey.add(target, inventory);
    }
    Ok((survey, 0))
}

/// Scans, commits and delivers once, as the service does.
async fn keep_and_tell(
    config: &Config,
    targets: &[Target],
    progress: &watch::Sender<Progress>,
) -> anyhow::Result<(Survey, usize)> {
    let notifiers = app::notifiers(config)?;
    let store = Store::open_exclusive(&config.state).await?;
    app::settle_changes(config, &store, &notifiers, clock::now()).await?;
    let give_up_after = config.delivery.give_up_after;
    for target in targets {
        let now = clock::now();
        let report =
            scan::run_once(target, &store, &notifiers, give_up_after, now, now, progress).await?;
        app::say(&report);
    }
    let deliveries = notifiers.iter().map(|notifier| async {
        let notifier = Arc::clone(notifier);
        deliver::run_once(&store, notifier.as_ref(), &config.delivery, clock::now()).await
    });
    let mut failed = 0;
    for report in futures_util::future::join_all(deliveries).await {
        let report = report?;
        failed += report.waiting + report.failed;
    }
    let mut survey = Survey::new(clock::now());
    for target in targets {
        survey.add(target, &store.inventory(target.api.organization()).await?);
    }
    Ok((survey, failed))
}

/// A line on the terminal while requests are made; nothing where stderr is no terminal.
fn show_progress(mut watched: watch::Receiver<Progress>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let line = indicatif::ProgressBar::new_spinner();
        line.enable_steady_tick(std::time::Duration::from_millis(120));
        while watched.changed().await.is_ok() {
            let Progress { projects_listed, projects_read, certificates } = *watched.borrow();
            line.set_message(format!(
                "{projects_read} of {projects_listed} projects read, {certificates} certificate entries"
            ));
        }
        line.finish_and_clear();
    })
}

impl Survey {
    fn new(now: DateTime<Utc>) -> Survey {
        Survey { now, rows: Vec::new(), unreadable: Vec::new(), projects_read: 0 }
    }

    fn add(&mut self, target: &Target, inventory: &Inventory) {
        let organization = target.api.organization();
        for assessment in evaluate(inventory, &target.policy, self.now) {
            let active = assessment.is_active();
            let started = assessment.certificate.has_started(self.now);
            let status = match assessment.reached.as_ref().map(|reached| reached.stage) {
                Some(Stage::Expired) => "expired",
                Some(Stage::Within(_)) => "expiring",
                Some(Stage::UnknownExpiry) => "unknown_expiry",
                Some(Stage::NotYetValid) => "not_yet_valid",
                None if !active => "inactive",
                None if !started => "not_yet_valid",
                None => "healthy",
            };
            let projects = assessment.projects.iter().map(|project| project.title().to_owned());
            self.rows.push(Row {
                organization: organization.clone(),
                certificate: assessment.certificate.clone(),
                status,
                organization_wide: assessment.organization_wide,
                projects: projects.collect(),
                reached: assessment.reached,
            });
        }
        self.projects_read += inventory.projects.len() - inventory.unreadable_projects.len();
        for (scope, fault) in inventory.faults() {
            self.unreadable.push((organization.clone(), format!("{scope}: {}", fault.why)));
        }
        // The least time left first; what is active nowhere and what has no end come last.
        self.rows.sort_by_key(|row| {
            let expires_at = row.certificate.expires_at;
            let rank = (row.status == "inactive", expires_at.is_none(), expires_at);
            (rank, row.organization.clone(), row.certificate.id.clone())
        });
    }

    fn worst(&self) -> Severity {
        let severities = self.rows.iter().filter_map(|row| row.reached.as_ref());
        severities.map(|reached| reached.severity).max().unwrap_or(Severity::Info)
    }

    fn count(&self, severity: Severity) -> usize {
        let reached = self.rows.iter().filter_map(|row| row.reached.as_ref());
        reached.filter(|reached| reached.severity == severity).count()
    }
}

impl Row {
    fn time_left(&self, now: DateTime<Utc>) -> String {
        match self.certificate.expires_at {
            None => "unknown".to_owned(),
            Some(expires_at) if expires_at <= now => {
                format!("expired {} ago", wording::span(now - expires_at))
            }
            Some(expires_at) => wording::span(expires_at - now),
        }
    }

    fn severity(&self) -> Option<&'static str> {
        self.reached.as_ref().map(|reached| reached.severity.as_str())
    }

    fn scope(&self) -> String {
        /// How many projects a line names.
        const NAMED: usize = 3;
        if self.organization_wide {
            return format!(
                "the organization ({})",
                wording::count(self.projects.len(), "project")
            );
        }
        let named = self.projects.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        match self.projects.len() {
            0 => "-".to_owned(),
            n if n > NAMED => format!("{named} and {} more", n - NAMED),
            _ => named,
        }
    }
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn table(survey: &Survey) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "LEFT",
        "SEVERITY",
        "STATUS",
        "NAME",
        "ID",
        "ORGANIZATION",
        "EXPIRES",
        "ACTIVE IN",
    ]);
    for row in &survey.rows {
        let certificate = &row.certificate;
        table.add_row([
            row.time_left(survey.now),
            row.severity().unwrap_or("-").to_owned(),
            row.status.to_owned(),
            certificate.name.as_ref().map_or("-", |name| name.as_str()).to_owned(),
            certificate.id.to_string(),
            row.organization.to_string(),
            certificate.expires_at.map_or("-".to_owned(), instant),
            row.scope(),
        ]);
    }
    let mut text = if survey.rows.is_empty() {
        "no certificates\n".to_owned()
    } else {
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    };
    text.push_str(&format!(
        "\n{} in {}\n",
        wording::count(survey.rows.len(), "certificate"),
        wording::count(survey.projects_read, "project")
    ));
    if !survey.unreadable.is_empty() {
        text.push_str("\nCould not be read, so that certificates there may expire unseen:\n");
        for (organization, fault) in &survey.unreadable {
            text.push_str(&format!("  {organization}: {fault}\n"));
        }
    }
    text
}

fn document(survey: &Survey) -> serde_json::Value {
    let certificates: Vec<_> = survey
        .rows
        .iter()
        .map(|row| {
            let certificate = &row.certificate;
            json!({
                "organization": row.organization,
                "id": certificate.id,
                "name": certificate.name,
                "status": row.status,
                "severity": row.severity(),
                "stage": row.reached.as_ref().map(|reached| &reached.label),
                "valid_at": certificate.valid_at.map(instant),
                "expires_at": certificate.expires_at.map(instant),
                "expires_in_seconds":
                    certificate.expires_at.map(|expires_at| (expires_at - survey.now).num_seconds()),
                "active_in": {
                    "organization": row.organization_wide,
                    "projects_total": row.projects.len(),
                    "projects": row.projects,
                },
            })
        })
        .collect();
    let unreadable: Vec<_> = survey
        .unreadable
        .iter()
        .map(|(organization, error)| json!({ "organization": organization, "error": error }))
        .collect();
    json!({
        "schema": "certvigil.check/1",
        "checked_at": instant(survey.now),
        "severity": survey.worst(),
        "complete": survey.unreadable.is_empty(),
        "projects_read": survey.projects_read,
        "certificates": certificates,
        "unreadable": unreadable,
    })
}

fn csv(survey: &Survey) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "organization",
        "id",
        "name",
        "status",
        "severity",
        "stage",
        "valid_at",
        "expires_at",
        "expires_in_seconds",
        "organization_wide",
        "projects",
    ])?;
    for row in &survey.rows {
        let certificate = &row.certificate;
        let left = certificate.expires_at.map(|expires_at| (expires_at - survey.now).num_seconds());
        writer.write_record([
            row.organization.as_str(),
            certificate.id.as_str(),
            &inert(certificate.name.as_ref().map_or("", |name| name.as_str())),
            row.status,
            row.severity().unwrap_or_default(),
            row.reached.as_ref().map_or("", |reached| &reached.label),
            &certificate.valid_at.map(instant).unwrap_or_default(),
            &certificate.expires_at.map(instant).unwrap_or_default(),
            &left.map(|left| left.to_string()).unwrap_or_default(),
            if row.organization_wide { "true" } else { "false" },
            &row.projects.len().to_string(),
        ])?;
    }
    for (organization, fault) in &survey.unreadable {
        eprintln!("error: {organization}: {fault}");
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// A spreadsheet takes a text that begins like a formula for one (OWASP, CSV injection).
fn inert(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() }
}

/// One line and its performance data, as the Monitoring Plugins' guidelines say; then the details.
fn nagios(survey: &Survey) -> String {
    let status = match survey.worst() {
        Severity::Critical => "CRITICAL",
        Severity::Warning => "WARNING",
        Severity::Info if survey.unreadable.is_empty() => "OK",
        Severity::Info => "UNKNOWN",
    };
    // A bar separates the performance data.
    let plain = |text: &str| text.replace('|', "/");
    let reached: Vec<&Row> = survey.rows.iter().filter(|row| row.reached.is_some()).collect();
    let worst = reached
        .iter()
        .max_by_key(|row| {
            let severity = row.reached.as_ref().map(|reached| (reached.severity, reached.stage));
            (severity, row.certificate.expires_at.map(std::cmp::Reverse))
        })
        .map(|row| format!(", {}", describe(row, survey.now)))
        .unwrap_or_default();
    let unread = match survey.unreadable.len() {
        0 => String::new(),
        n => format!(", {} could not be read", wording::count(n, "list")),
    };
    let (critical, warning) = (survey.count(Severity::Critical), survey.count(Severity::Warning));
    let mut text = format!(
        "CERTVIGIL {status} - {critical} critical, {warning} warning of {}{}{unread} | \
         certificates={} critical={critical};;0 warning={warning};0 unreadable={}\n",
        wording::count(survey.rows.len(), "certificate"),
        plain(&worst),
        survey.rows.len(),
        survey.unreadable.len(),
    );
    for row in reached {
        let severity = row.severity().unwrap_or_default();
        text.push_str(&format!("{severity}: {}\n", plain(&describe(row, survey.now))));
    }
    for (organization, fault) in &survey.unreadable {
        text.push_str(&plain(&format!("unreadable: {organization}: {fault}\n")));
    }
    text
}

fn describe(row: &Row, now: DateTime<Utc>) -> String {
    let certificate = &row.certificate;
    let state = match (row.status, certificate.expires_at) {
        ("unknown_expiry", _) | (_, None) => "has no known expiry".to_owned(),
        ("not_yet_valid", _) => "is not yet valid".to_owned(),
        (_, Some(expires_at)) => wording::expiry(expires_at, now),
    };
    format!("{} “{}” ({}) {state}", row.organization, certificate.title(), certificate.id)
}
