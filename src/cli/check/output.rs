//! A survey for people, for machines, for spreadsheets and for monitoring plugins.

use chrono::{DateTime, Utc};
use comfy_table::Table;
use serde_json::json;

use super::{
    super::{instant, lines},
    survey::{Row, Survey},
};
use crate::domain::{notification::SilenceView, status::Status, threshold::Severity, wording};

pub fn table(survey: &Survey) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let mut header =
        vec!["LEFT", "SEVERITY", "STATUS", "NAME", "ID", "ORGANIZATION", "EXPIRES", "ACTIVE IN"];
    let noted = survey.rows.iter().any(|row| row.note(survey.timezone).is_some());
    header.extend(noted.then_some("NOTE"));
    table.set_header(header);
    for row in &survey.rows {
        let certificate = &row.certificate;
        let mut cells = vec![
            row.time_left(survey.now),
            row.severity().unwrap_or("-").to_owned(),
            row.status.to_string(),
            certificate.name.as_ref().map_or("-", |name| name.as_str()).to_owned(),
            certificate.id.to_string(),
            row.organization.to_string(),
            certificate.expires_at.map_or("-".to_owned(), instant),
            row.scope(),
        ];
        cells.extend(noted.then(|| row.note(survey.timezone).unwrap_or("-".to_owned())));
        table.add_row(cells);
    }
    let mut text =
        if survey.rows.is_empty() { "no certificates\n".to_owned() } else { lines(&table) };
    text.push_str(&format!(
        "\n{} in {}\n",
        wording::count(survey.rows.len(), "certificate"),
        wording::count(survey.projects_read, "project")
    ));
    if !survey.uncovered.is_empty() {
        text.push_str(
            "\nWithout a valid certificate now, so that every API call over mutual TLS fails:\n",
        );
        for (organization, project) in &survey.uncovered {
            text.push_str(&format!("  {organization}: {} ({})\n", project.title(), project.id));
        }
    }
    if !survey.unreadable.is_empty() {
        text.push_str("\nCould not be read, so that certificates there may expire unseen:\n");
        for (organization, fault) in &survey.unreadable {
            text.push_str(&format!("  {organization}: {fault}\n"));
        }
    }
    text
}

pub fn document(survey: &Survey) -> serde_json::Value {
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
                "ignored": row.ignored.as_ref().map(silence),
                "acknowledged": row.acknowledged.as_ref().map(silence),
            })
        })
        .collect();
    let unreadable: Vec<_> = survey
        .unreadable
        .iter()
        .map(|(organization, error)| json!({ "organization": organization, "error": error }))
        .collect();
    let uncovered: Vec<_> = survey
        .uncovered
        .iter()
        .map(|(organization, project)| {
            json!({ "organization": organization, "id": project.id, "name": project.name })
        })
        .collect();
    json!({
        "schema": "certvigil.check/1",
        "checked_at": instant(survey.now),
        "severity": survey.worst(),
        "complete": survey.unreadable.is_empty(),
        "projects_read": survey.projects_read,
        "certificates": certificates,
        "uncovered_projects": uncovered,
        "unreadable": unreadable,
    })
}

fn silence(view: &SilenceView) -> serde_json::Value {
    json!({ "reason": view.reason, "by": view.by, "until": instant(view.until) })
}

pub fn csv(survey: &Survey) -> anyhow::Result<String> {
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
        "note",
    ])?;
    for row in &survey.rows {
        let certificate = &row.certificate;
        let left = certificate.expires_at.map(|expires_at| (expires_at - survey.now).num_seconds());
        writer.write_record([
            row.organization.as_str(),
            certificate.id.as_str(),
            &inert(certificate.name.as_ref().map_or("", |name| name.as_str())),
            row.status.as_str(),
            row.severity().unwrap_or_default(),
            row.reached.as_ref().map_or("", |reached| &reached.label),
            &certificate.valid_at.map(instant).unwrap_or_default(),
            &certificate.expires_at.map(instant).unwrap_or_default(),
            &left.map(|left| left.to_string()).unwrap_or_default(),
            if row.organization_wide { "true" } else { "false" },
            &row.projects.len().to_string(),
            &inert(&row.note(survey.timezone).unwrap_or_default()),
        ])?;
    }
    for (organization, project) in &survey.uncovered {
        let (title, id) = (project.title(), &project.id);
        eprintln!("error: {organization}: {title} ({id}) has no valid certificate");
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
pub fn nagios(survey: &Survey) -> String {
    let status = match survey.worst() {
        Severity::Critical => "CRITICAL",
        Severity::Warning => "WARNING",
        Severity::Info if survey.is_certain() => "OK",
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
    let uncovered = match survey.uncovered.len() {
        0 => String::new(),
        n => format!(", {} without a valid certificate", wording::count(n, "project")),
    };
    let unread = match survey.unreadable.len() {
        0 => String::new(),
        n => format!(", {} could not be read", wording::count(n, "list")),
    };
    let (critical, warning) = (survey.count(Severity::Critical), survey.count(Severity::Warning));
    let mut text = format!(
        "CERTVIGIL {status} - {critical} critical, {warning} warning of {}{}{uncovered}{unread} | \
         certificates={} critical={critical};;0 warning={warning};0 unreadable={} uncovered={};;0\n",
        wording::count(survey.rows.len(), "certificate"),
        plain(&worst),
        survey.rows.len(),
        survey.unreadable.len(),
        survey.uncovered.len(),
    );
    for row in reached {
        let severity = row.severity().unwrap_or_default();
        text.push_str(&format!("{severity}: {}\n", plain(&describe(row, survey.now))));
    }
    for (organization, project) in &survey.uncovered {
        let (title, id) = (project.title(), &project.id);
        let line = format!("critical: {organization} {title} ({id}) has no valid certificate\n");
        text.push_str(&plain(&line));
    }
    for (organization, fault) in &survey.unreadable {
        text.push_str(&plain(&format!("unreadable: {organization}: {fault}\n")));
    }
    text
}

fn describe(row: &Row, now: DateTime<Utc>) -> String {
    let certificate = &row.certificate;
    let state = match (row.status, certificate.expires_at) {
        (Status::UnknownExpiry, _) | (_, None) => "has no known expiry".to_owned(),
        (Status::NotYetValid, _) => "is not yet valid".to_owned(),
        (_, Some(expires_at)) => wording::expiry(expires_at, now),
    };
    format!("{} “{}” ({}) {state}", row.organization, certificate.title(), certificate.id)
}
