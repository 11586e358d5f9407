//! The output of a check: table, JSON, CSV, and the format of monitoring plugins.

use chrono::{DateTime, Utc};
use comfy_table::{Cell, Table};
use serde::{Serialize, Serializer};
use std::cmp::Reverse;

use super::super::{
    rfc3339,
    terminal::{self, Tint, lines},
};
use crate::{
    domain::{certificate::OrganizationName, status::Status, threshold::Severity},
    message::wording,
    usecase::check::Survey,
    view::{Certificate, CertificateRow, Credential, Project, seconds},
};

pub fn table(survey: &Survey) -> String {
    let mut text = String::new();
    let rows = survey.certificates();
    if rows.is_empty() {
        text.push_str(none(survey));
    } else {
        text.push_str(&certificates(survey, &rows));
    }
    text.push_str(&format!(
        "\n{} in {}{}\n",
        wording::count(rows.len(), "certificate"),
        wording::count(survey.projects_read(), "project"),
        counted(survey),
    ));
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("\n{title}:\n  {}\n", lines.join("\n  ")));
        }
    };
    section(
        "Projects without a valid certificate (every API call over mutual TLS fails)",
        survey.uncovered().into_iter().map(project).collect(),
    );
    let unprotected = survey.unprotected();
    let unprotected = unprotected
        .iter()
        .map(|row| format!("{}{} ({})", project(row), since(row), word(row.severity)));
    section(
        "Projects without an active certificate (mutual TLS is not enforced)",
        unprotected.collect(),
    );
    let ending = survey.credentials().filter(|one| one.severity.is_some());
    let ending = ending.map(|one| format!("{} ({})", credential(one, survey), word(one.severity)));
    section("Keys and client certificates", ending.collect());
    section(
        "Unreadable lists (certificates in them may expire unnoticed)",
        survey.unreadable().iter().map(|(of, fault)| format!("{of}: {fault}")).collect(),
    );
    text
}

/// `acme: chat (proj_1)`.
fn project(row: &Project) -> String {
    format!("{}: {} ({})", row.organization, row.title(), row.id)
}

/// `the admin key “certvigil” that reads acme expires in 3 days`.
fn credential(one: &Credential, survey: &Survey) -> String {
    let expiry = wording::expiry(one.expires_at, survey.now);
    format!("{} {expiry}", one.title())
}

fn word(severity: Option<Severity>) -> &'static str {
    severity.map_or("-", Severity::as_str)
}

/// `, since 2026-11-29`; empty if unknown.
fn since(row: &Project) -> String {
    row.unprotected_since.map_or(String::new(), |since| format!(", since {}", wording::day(since)))
}

/// `5 days`, `expired 3 hours ago`.
fn time_left(row: &CertificateRow, now: DateTime<Utc>) -> String {
    match row.view.expires_at {
        None => "unknown".to_owned(),
        Some(expires_at) if expires_at <= now => {
            format!("expired {} ago", wording::span(now - expires_at))
        }
        Some(expires_at) => wording::span(expires_at - now),
    }
}

/// The reason of its silence, or the next step.
fn note(row: &CertificateRow, survey: &Survey) -> Option<String> {
    let next = || row.next_step().map(|step| format!("next: {step}"));
    let defect = || row.view.defects.first().map(|one| wording::defect(*one).to_owned());
    row.silence(survey.timezone).or_else(defect).or_else(next)
}

/// The reason for an empty table.
fn none(survey: &Survey) -> &'static str {
    match (survey.is_complete(), survey.projects_read()) {
        (false, _) => "no certificates found, but some lists could not be read\n",
        (true, 0) => {
            "no certificates and no projects: see include_projects and exclude_projects in the \
             output of “certvigil config check”\n"
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
fn certificates(survey: &Survey, rows: &[&CertificateRow]) -> String {
    if terminal::is_narrow() {
        return lines(&narrow(survey, rows));
    }
    let noted = rows.iter().any(|row| note(row, survey).is_some());
    let mut header =
        vec!["LEFT", "SEVERITY", "STATUS", "NAME", "ID", "ORGANIZATION", "EXPIRES", "ACTIVE IN"];
    header.extend(noted.then_some("NOTE"));
    let texts = |row: &&CertificateRow| {
        let certificate = &row.view;
        let mut texts = vec![
            time_left(row, survey.now),
            word(row.severity).to_owned(),
            row.status.to_string(),
            certificate.name.as_ref().map_or("-", |name| name.as_str()).to_owned(),
            certificate.id.to_string(),
            row.organization.to_string(),
            certificate.expires_at.map_or("-".to_owned(), rfc3339),
            row.scope(),
        ];
        texts.extend(noted.then(|| note(row, survey).unwrap_or("-".to_owned())));
        texts
    };
    if !terminal::is_one() {
        return terminal::plain(&header, || rows.iter().map(texts));
    }
    let whole = ["LEFT", "SEVERITY", "STATUS", "ORGANIZATION", "EXPIRES"];
    let mut table = terminal::table(&header, &whole);
    for row in rows {
        let coloured = ["LEFT", "SEVERITY", "STATUS"];
        let tinted = header.iter().zip(texts(row)).map(|(column, text)| {
            let tint = if coloured.contains(column) { tint(row) } else { Tint::Plain };
            terminal::cell(text, tint)
        });
        table.add_row(tinted);
    }
    lines(&table)
}

/// The certificates in four columns with several lines each, for narrow terminals.
fn narrow(survey: &Survey, rows: &[&CertificateRow]) -> Table {
    let header = ["LEFT", "SEVERITY", "CERTIFICATE", "ACTIVE IN"];
    let mut table = terminal::table(&header, &["LEFT", "SEVERITY"]);
    for row in rows {
        let (certificate, tint) = (&row.view, tint(row));
        let expires = certificate.expires_at.map(|at| format!("\n{}", wording::day(at)));
        let left = format!("{}{}", time_left(row, survey.now), expires.unwrap_or_default());
        let note = note(row, survey).map(|note| format!("\n{note}")).unwrap_or_default();
        let (title, id, organization) = (certificate.title(), &certificate.id, &row.organization);
        table.add_row([
            terminal::cell(left, tint),
            terminal::cell(row.severity.map_or(row.status.as_str(), Severity::as_str), tint),
            Cell::new(format!("{title}\n{id} of {organization}{note}")),
            Cell::new(row.scope()),
        ]);
    }
    table
}

fn tint(row: &CertificateRow) -> Tint {
    match (row.severity, row.status) {
        (Some(severity), _) => Tint::Of(severity),
        (None, Status::Healthy) => Tint::Well,
        (None, Status::UnknownActivity | Status::UnknownExpiry) => Tint::Unknown,
        (None, Status::Inactive | Status::Expired | Status::Expiring | Status::NotYetValid) => {
            Tint::Plain
        }
    }
}

/// The schema `certvigil.check/1`.
#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    checked_at: DateTime<Utc>,
    severity: Severity,
    complete: bool,
    projects_read: usize,
    certificates: Certificates<'a>,
    uncovered_projects: Vec<&'a Project>,
    unprotected_projects: Vec<&'a Project>,
    unreadable: Vec<Unreadable<'a>>,
    credentials: Vec<&'a Credential>,
}

/// Converts each certificate when it is written, to limit memory with thousands of them.
struct Certificates<'a>(&'a Survey);

impl Serialize for Certificates<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = self.0.certificates();
        serializer.collect_seq(rows.into_iter().map(|row| Certificate::of(row, self.0.now)))
    }
}

#[derive(Serialize)]
struct Unreadable<'a> {
    organization: &'a OrganizationName,
    error: String,
}

pub fn json(survey: &Survey) -> serde_json::Result<String> {
    let unreadable = survey.unreadable().into_iter();
    let document = Document {
        schema: "certvigil.check/1",
        checked_at: seconds(survey.now),
        severity: survey.worst(),
        complete: survey.is_complete(),
        projects_read: survey.projects_read(),
        certificates: Certificates(survey),
        uncovered_projects: survey.uncovered(),
        unprotected_projects: survey.unprotected(),
        unreadable: unreadable
            .map(|(organization, error)| Unreadable { organization, error })
            .collect(),
        credentials: survey.credentials().collect(),
    };
    serde_json::to_string_pretty(&document).map(|text| text + "\n")
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
    for row in survey.certificates() {
        let view = &row.view;
        let left = view.expires_at.map(|expires_at| (expires_at - survey.now).num_seconds());
        writer.write_record([
            row.organization.as_str(),
            &inert(view.id.as_str()),
            &inert(view.name.as_ref().map_or("", |name| name.as_str())),
            row.status.as_str(),
            row.severity.map_or("", Severity::as_str),
            row.severity.and(row.stage.as_deref()).unwrap_or_default(),
            &view.valid_at.map(rfc3339).unwrap_or_default(),
            &view.expires_at.map(rfc3339).unwrap_or_default(),
            &left.map(|left| left.to_string()).unwrap_or_default(),
            if view.active_in.organization { "true" } else { "false" },
            &view.active_in.projects_total.to_string(),
            &inert(&note(row, survey).unwrap_or_default()),
        ])?;
    }
    for row in survey.uncovered() {
        eprintln!("error: {} has no valid certificate", project(row));
    }
    for row in survey.unprotected() {
        eprintln!("error: {} does not enforce mutual TLS{}", project(row), since(row));
    }
    for one in survey.credentials().filter(|one| one.severity.is_some()) {
        eprintln!("error: {}", credential(one, survey));
    }
    for (organization, fault) in survey.unreadable() {
        eprintln!("error: {organization}: {fault}");
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// Keeps spreadsheets from treating a text as a formula (OWASP, CSV injection).
///
/// In many locales a semicolon separates cells even inside quotes, and full-width signs start
/// formulas, too.
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
    let mut reached = survey.certificates();
    let certificates = reached.len();
    reached.retain(|row| row.severity.is_some());
    let urgency = |row: &&&CertificateRow| (row.severity, row.view.expires_at.map(Reverse));
    let worst = reached.iter().max_by_key(urgency);
    let worst = worst.map_or(String::new(), |row| format!(", {}", describe(row, survey.now)));
    let (uncovered, unprotected) = (survey.uncovered(), survey.unprotected());
    let unreadable = survey.unreadable();
    let counted = |n: usize, noun: &str, what: &str| match n {
        0 => String::new(),
        n => format!(", {} {what}", wording::count(n, noun)),
    };
    let ending = survey.credentials().filter(|one| one.severity >= Some(Severity::Warning));
    let ending = ending.min_by_key(|one| one.expires_at);
    let ending = ending.map_or(String::new(), |one| format!(", {}", credential(one, survey)));
    let (critical, warning) = (survey.count(Severity::Critical), survey.count(Severity::Warning));
    let mut text = format!(
        "CERTVIGIL {status} - {critical} critical, {warning} warning of {}{}{}{}{}{} | \
         certificates={certificates} critical={critical};;0 warning={warning};0 unreadable={} \
         uncovered={};;0 unprotected={}\n",
        wording::count(certificates, "certificate"),
        plain(&worst),
        counted(uncovered.len(), "project", "without a valid certificate"),
        counted(unprotected.len(), "project", "without mutual TLS"),
        plain(&ending),
        counted(unreadable.len(), "list", "could not be read"),
        unreadable.len(),
        uncovered.len(),
        unprotected.len(),
    );
    let mut line = |what: &str, of: String| text.push_str(&plain(&format!("{what}: {of}\n")));
    for row in reached {
        line(word(row.severity), describe(row, survey.now));
    }
    for row in uncovered {
        line("critical", format!("{} has no valid certificate", project(row)));
    }
    for row in unprotected {
        let what = format!("{} does not enforce mutual TLS{}", project(row), since(row));
        line(word(row.severity), what);
    }
    for one in survey.credentials().filter(|one| one.severity.is_some()) {
        line(word(one.severity), credential(one, survey));
    }
    for (organization, fault) in unreadable {
        line("unreadable", format!("{organization}: {fault}"));
    }
    text
}

fn describe(row: &CertificateRow, now: DateTime<Utc>) -> String {
    let certificate = &row.view;
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
    fn csv_cells_are_not_formulas_in_any_locale() {
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
