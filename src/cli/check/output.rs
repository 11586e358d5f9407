//! A survey for people, for machines, for spreadsheets and for monitoring plugins.

use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::Table;
use serde_json::json;

use super::survey::{Row, Survey};
use crate::domain::{threshold::Severity, wording};

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

pub fn table(survey: &Survey) -> String {
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
