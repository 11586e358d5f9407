//! The output of a check: table, JSON, CSV, and the format of monitoring plugins.

use chrono::{DateTime, Utc};
use comfy_table::{Cell, Table};
use serde_json::json;

use super::{
    super::{
        instant,
        terminal::{self, Tint, lines},
    },
    survey::{Row, Survey, Unprotected},
};
use crate::domain::{notification::SilenceView, status::Status, threshold::Severity, wording};

pub fn table(survey: &Survey) -> String {
    let mut text = String::new();
    if survey.rows.is_empty() {
        text.push_str(none(survey));
    } else {
        text.push_str(&certificates(survey));
    }
    text.push_str(&format!(
        "\n{} in {}{}\n",
        wording::count(survey.rows.len(), "certificate"),
        wording::count(survey.projects_read, "project"),
        counted(survey),
    ));
    if !survey.uncovered.is_empty() {
        text.push_str(
            "\nProjects without a valid certificate (every API call over mutual TLS fails):\n",
        );
        for (organization, project) in &survey.uncovered {
            text.push_str(&format!("  {organization}: {} ({})\n", project.title(), project.id));
        }
    }
    if !survey.unprotected.is_empty() {
        text.push_str("\nProjects without an active certificate (mutual TLS is not enforced):\n");
        for (organization, one) in &survey.unprotected {
            let (title, id, since) = (one.project.title(), &one.project.id, since(one));
            text.push_str(&format!("  {organization}: {title} ({id}){since} ({})\n", one.severity));
        }
    }
    let ending = survey.credentials.iter().filter(|one| one.severity.is_some());
    let ending: Vec<String> = ending
        .map(|one| {
            let (organization, what) = (&one.organization, one.title());
            let severity = one.severity.map_or("", Severity::as_str);
            let expiry = wording::expiry(one.expires_at, survey.now);
            format!("  {organization}: {what} {expiry} ({severity})\n")
        })
        .collect();
    if !ending.is_empty() {
        text.push_str("\nKeys and client certificates:\n");
        text.push_str(&ending.concat());
    }
    if !survey.unreadable.is_empty() {
        text.push_str("\nUnreadable lists (certificates in them may expire unnoticed):\n");
        for (organization, fault) in &survey.unreadable {
            text.push_str(&format!("  {organization}: {fault}\n"));
        }
    }
    text
}

/// `, since 2026-11-29`; empty if unknown.
fn since(unprotected: &Unprotected) -> String {
    unprotected.since.map_or(String::new(), |since| format!(", since {}", wording::day(since)))
}

/// The reason for an empty table.
fn none(survey: &Survey) -> &'static str {
    match (survey.unreadable.is_empty(), survey.projects_read) {
        (false, _) => "no certificates found, but some lists could not be read\n",
        (true, 0) => {
            "no certificates and no projects: check include_projects and exclude_projects \
             (certvigil config check shows them)\n"
        }
        (true, _) => "no certificates: nothing can expire. The next scan finds new ones\n",
    }
}

/// `: 2 critical, 1 warning`; empty without alerts.
fn counted(survey: &Survey) -> String {
    let all = [Severity::Critical, Severity::Warning, Severity::Info];
    let counts = all.map(|severity| (survey.count(severity), severity.as_str()));
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, word)| format!("{count} {word}")).collect();
    if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) }
}

/// The certificates, in as many columns as fit.
fn certificates(survey: &Survey) -> String {
    if terminal::is_narrow() {
        return lines(&narrow(survey));
    }
    let noted = survey.rows.iter().any(|row| row.note(survey.timezone).is_some());
    let mut header =
        vec!["LEFT", "SEVERITY", "STATUS", "NAME", "ID", "ORGANIZATION", "EXPIRES", "ACTIVE IN"];
    header.extend(noted.then_some("NOTE"));
    let texts = |row: &Row| {
        let certificate = &row.certificate;
        let mut texts = vec![
            row.time_left(survey.now),
            row.severity().unwrap_or("-").to_owned(),
            row.status.to_string(),
            certificate.name.as_ref().map_or("-", |name| name.as_str()).to_owned(),
            certificate.id.to_string(),
            row.organization.to_string(),
            certificate.expires_at.map_or("-".to_owned(), instant),
            row.scope(),
        ];
        texts.extend(noted.then(|| row.note(survey.timezone).unwrap_or("-".to_owned())));
        texts
    };
    if !terminal::is_one() {
        return terminal::plain(&header, || survey.rows.iter().map(texts));
    }
    let whole = ["LEFT", "SEVERITY", "STATUS", "ORGANIZATION", "EXPIRES"];
    let mut table = terminal::table(&header, &whole);
    for row in &survey.rows {
        let coloured = ["LEFT", "SEVERITY", "STATUS"];
        let tinted = header.iter().zip(texts(row)).map(|(column, text)| {
            let tint = if coloured.contains(column) { tint(row) } else { Tint::Plain };
            terminal::cell(text, tint)
        });
        table.add_row(tinted);
    }
    lines(&table)
}

/// The same in four columns, of several lines.
fn narrow(survey: &Survey) -> Table {
    let header = ["LEFT", "SEVERITY", "CERTIFICATE", "ACTIVE IN"];
    let mut table = terminal::table(&header, &["LEFT", "SEVERITY"]);
    for row in &survey.rows {
        let (certificate, tint) = (&row.certificate, tint(row));
        let expires = certificate.expires_at.map(|at| format!("\n{}", wording::day(at)));
        let left = format!("{}{}", row.time_left(survey.now), expires.unwrap_or_default());
        let note = row.note(survey.timezone).map(|note| format!("\n{note}")).unwrap_or_default();
        let (title, id, organization) = (certificate.title(), &certificate.id, &row.organization);
        table.add_row([
            terminal::cell(left, tint),
            terminal::cell(row.severity().unwrap_or(row.status.as_str()), tint),
            Cell::new(format!("{title}\n{id} of {organization}{note}")),
            Cell::new(row.scope()),
        ]);
    }
    table
}

fn tint(row: &Row) -> Tint {
    match (row.reached.as_ref(), row.status) {
        (Some(reached), _) => Tint::Of(reached.severity),
        (None, Status::Healthy) => Tint::Well,
        (None, Status::UnknownActivity | Status::UnknownExpiry) => Tint::Unknown,
        (None, Status::Inactive | Status::Expired | Status::Expiring | Status::NotYetValid) => {
            Tint::Plain
        }
    }
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
                    "projects": &*row.projects,
                },
                "ignored": row.ignored.as_ref().map(silence),
                "acknowledged": row.acknowledged.as_ref().map(silence),
                "next_step": row.to_do.as_ref().map(|(step, _)| step),
                "candidate_id": row.to_do.as_ref().and_then(|(_, candidate)| candidate.as_ref().map(|one| &one.id)),
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
    let unprotected: Vec<_> = survey
        .unprotected
        .iter()
        .map(|(organization, one)| {
            json!({
                "organization": organization,
                "id": one.project.id,
                "name": one.project.name,
                "unprotected_since": one.since.map(instant),
                "severity": one.severity,
            })
        })
        .collect();
    let credentials: Vec<_> = survey
        .credentials
        .iter()
        .map(|one| {
            json!({
                "organization": one.organization,
                "kind": one.kind,
                "id": one.id,
                "name": one.name,
                "expires_at": instant(one.expires_at),
                "severity": one.severity,
            })
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
        "unprotected_projects": unprotected,
        "unreadable": unreadable,
        "credentials": credentials,
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
            &inert(certificate.id.as_str()),
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
    for (organization, one) in &survey.unprotected {
        let (title, id, since) = (one.project.title(), &one.project.id, since(one));
        eprintln!("error: {organization}: {title} ({id}) does not enforce mutual TLS{since}");
    }
    for one in survey.credentials.iter().filter(|one| one.severity.is_some()) {
        let expiry = wording::expiry(one.expires_at, survey.now);
        eprintln!("error: {}: {} {expiry}", one.organization, one.title());
    }
    for (organization, fault) in &survey.unreadable {
        eprintln!("error: {organization}: {fault}");
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// A spreadsheet takes a text that begins like a formula for one (OWASP, CSV injection).
///
/// In many locales a semicolon separates cells, whatever stands around it, and full-width signs
/// begin formulas, too.
fn inert(text: &str) -> String {
    let begins = ['=', '+', '-', '@', '＝', '＋', '－', '＠', '\t', '\r'];
    let mut out = String::with_capacity(text.len());
    let mut is_start = true;
    for c in text.chars() {
        if is_start && begins.contains(&c) {
            out.push('\'');
        }
        out.push(c);
        is_start = c == ';' || (is_start && c == ' ');
    }
    out
}

/// One line with performance data, as the Monitoring Plugins guidelines define it; then the
/// details.
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
    let unprotected = match survey.unprotected.len() {
        0 => String::new(),
        n => format!(", {} without mutual TLS", wording::count(n, "project")),
    };
    let unread = match survey.unreadable.len() {
        0 => String::new(),
        n => format!(", {} could not be read", wording::count(n, "list")),
    };
    let ending = survey.credentials.iter().filter(|one| one.severity >= Some(Severity::Warning));
    let ending = match ending.min_by_key(|one| one.expires_at) {
        None => String::new(),
        Some(one) => {
            format!(", {} {}", one.title(), wording::expiry(one.expires_at, survey.now))
        }
    };
    let (critical, warning) = (survey.count(Severity::Critical), survey.count(Severity::Warning));
    let mut text = format!(
        "CERTVIGIL {status} - {critical} critical, {warning} warning of {}{}{uncovered}{unprotected}{}{unread} | \
         certificates={} critical={critical};;0 warning={warning};0 unreadable={} uncovered={};;0 unprotected={}\n",
        wording::count(survey.rows.len(), "certificate"),
        plain(&worst),
        plain(&ending),
        survey.rows.len(),
        survey.unreadable.len(),
        survey.uncovered.len(),
        survey.unprotected.len(),
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
    for (organization, one) in &survey.unprotected {
        let (title, id, since) = (one.project.title(), &one.project.id, since(one));
        let severity = one.severity;
        let line = format!(
            "{severity}: {organization} {title} ({id}) does not enforce mutual TLS{since}\n"
        );
        text.push_str(&plain(&line));
    }
    for one in &survey.credentials {
        if let Some(severity) = one.severity {
            let expiry = wording::expiry(one.expires_at, survey.now);
            text.push_str(&plain(&format!(
                "{severity}: {} {} {expiry}\n",
                one.organization,
                one.title()
            )));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_a_formula_in_no_locale() {
        for (text, expected) in [
            ("prod-ca", "prod-ca"),
            ("=1+1", "'=1+1"),
            ("＝1", "'＝1"),
            ("  @x", "  '@x"),
            ("a;=cmd|x", "a;'=cmd|x"),
            ("a; -1", "a; '-1"),
        ] {
            assert_eq!(inert(text), expected);
        }
    }
}
