//! The filters of a list: parsing of the query, and links with other filters.

use axum::http::Uri;
use serde::Serialize;
use std::fmt::Display;

use super::{
    super::{problem::Problem, snapshot::Snapshot},
    link,
};
use crate::domain::{text::one_line, threshold::Severity};

/// The number of rows on a page of a list.
pub const ROWS: usize = 50;
/// The longest search text, in characters.
const MAX_TEXT: usize = 100;

/// The filter as given.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Filter {
    pub organization: String,
    pub severity: String,
    /// The status of a certificate, the coverage of a project, or the state of a delivery.
    pub status: String,
    pub q: String,
    pub page: usize,
}

impl Filter {
    /// Parses the query; an unknown organization or severity, or an invalid page, is an error.
    pub fn of(uri: &Uri, snapshot: &Snapshot) -> Result<Filter, Problem> {
        let mut filter = Filter { page: 1, ..Filter::default() };
        for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        {
            let value = one_line(&value, MAX_TEXT);
            match name.as_ref() {
                "organization" => filter.organization = value,
                "severity" => filter.severity = value,
                "status" => filter.status = value,
                "q" => filter.q = value,
                "page" => {
                    let page = value.parse().ok().filter(|page| (1..=1_000_000).contains(page));
                    filter.page = page.ok_or_else(|| wrong("page", &value, "a number from 1"))?;
                }
                // Other programs may add parameters to links.
                _ => {}
            }
        }
        let known =
            |name: &str| snapshot.organizations.iter().any(|one| one.organization.as_str() == name);
        if !filter.organization.is_empty() && !known(&filter.organization) {
            return Err(wrong("organization", &filter.organization, "a configured organization"));
        }
        if !filter.severity.is_empty() && Severity::parse(&filter.severity).is_none() {
            return Err(wrong("severity", &filter.severity, "info, warning or critical"));
        }
        Ok(filter)
    }

    /// Parses the status as one of these words.
    pub fn status<T: Display>(
        &self,
        parse: impl Fn(&str) -> Option<T>,
        all: &[T],
    ) -> Result<Option<T>, Problem> {
        if self.status.is_empty() {
            return Ok(None);
        }
        parse(&self.status).map(Some).ok_or_else(|| {
            let words: Vec<String> = all.iter().map(ToString::to_string).collect();
            wrong("status", &self.status, &format!("one of {}", words.join(", ")))
        })
    }

    pub fn is_of(&self, organization: &str) -> bool {
        self.organization.is_empty() || self.organization == organization
    }

    /// Whether a severity is at least the selected one.
    pub fn is_as_bad(&self, severity: Option<Severity>) -> bool {
        match Severity::parse(&self.severity) {
            None => true,
            Some(least) => severity.is_some_and(|severity| severity >= least),
        }
    }

    /// The search text in lower case.
    pub fn text(&self) -> Option<String> {
        (!self.q.is_empty()).then(|| self.q.to_lowercase())
    }

    /// The URL of the first page of a list with these filters.
    pub fn address(&self, path: &str) -> String {
        self.page_address(path, 1)
    }

    pub fn page_address(&self, path: &str, page: usize) -> String {
        let page = if page > 1 { page.to_string() } else { String::new() };
        let pairs = [
            ("organization", self.organization.as_str()),
            ("severity", &self.severity),
            ("status", &self.status),
            ("q", &self.q),
            ("page", &page),
        ];
        link::asking(path, &pairs)
    }
}

fn wrong(name: &str, found: &str, expected: &str) -> Problem {
    Problem::bad_request(format!("{name}: found “{}”, expected {expected}", one_line(found, 60)))
}

/// A selectable value of a filter.
#[derive(Serialize)]
pub struct Choice {
    pub value: String,
    pub label: String,
}

impl Choice {
    pub fn of(value: &str) -> Choice {
        Choice { value: value.to_owned(), label: value.replace('_', " ") }
    }
}

/// The displayed part of a list.
#[derive(Serialize)]
pub struct Position {
    pub total: usize,
    /// The numbers of the first and the last displayed row, from 1.
    pub first: usize,
    pub last: usize,
    pub before: Option<String>,
    pub after: Option<String>,
}

impl Position {
    /// Cuts a list to the requested page.
    pub fn cut<T>(filter: &Filter, path: &str, all: Vec<T>) -> (Vec<T>, Position) {
        let total = all.len();
        // After the end, show the last page.
        let page = filter.page.min(total.div_ceil(ROWS)).max(1);
        let skipped = (page - 1) * ROWS;
        let rows: Vec<T> = all.into_iter().skip(skipped).take(ROWS).collect();
        let last = skipped + rows.len();
        let position = Position {
            total,
            first: (skipped + 1).min(last),
            last,
            before: (page > 1).then(|| filter.page_address(path, page - 1)),
            after: (last < total).then(|| filter.page_address(path, page + 1)),
        };
        (rows, position)
    }
}
