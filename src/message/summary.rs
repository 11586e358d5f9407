//! The content of a summary: the same fields in the outbox and in the JSON webhook. Times have whole
//! seconds.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use super::{CredentialView, SilenceView, wording};
use crate::domain::{
    certificate::{CertificateId, OrganizationName, ProjectId},
    owner::Team,
    summary::{ProjectState, SummaryState},
    text::Name,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SummaryView {
    /// Time of the previous summary, or since when there are summaries.
    pub since: DateTime<Utc>,
    /// Certificates that expire by this time are listed.
    pub until: DateTime<Utc>,
    /// In the order of the configuration.
    pub organizations: Vec<SummaryScans>,
    /// By state, the most urgent first; without empty ones.
    pub certificates: Vec<Listed<SummaryState, SummaryCertificate>>,
    pub projects: Vec<Listed<ProjectState, SummaryProject>>,
    /// Credentials that expire by `until`, soonest first; at most 50.
    pub credentials: Vec<SummaryCredential>,
    pub credentials_total: usize,
    /// The first expiry after `until`.
    pub next_expiry: Option<SummaryExpiry>,
    /// `None` for receivers that only get the alerts of owners.
    pub deliveries: Option<SummaryDeliveries>,
}

/// The entries in one state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed<S, T> {
    pub state: S,
    pub total: usize,
    /// At most 50.
    pub listed: Vec<T>,
}

/// The scans of an organization since the previous summary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SummaryScans {
    pub organization: OrganizationName,
    pub scans: u64,
    /// Number of scans with unreadable lists.
    pub incomplete: u64,
    /// End of the latest scan; `None` before the first one.
    pub latest_at: Option<DateTime<Utc>>,
    /// Whether the latest scan could read every list.
    pub complete: bool,
    /// Whether the next scan is overdue.
    pub overdue: bool,
    /// Number of lists that are unreadable now.
    pub unreadable_lists: usize,
    /// Whether the list of admin keys is unreadable, so that their expiry is unknown.
    pub admin_keys_unreadable: bool,
    /// How far the API's clock is ahead of this host's, in seconds; `None` if it is close.
    pub clock_skew: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SummaryCertificate {
    pub organization: OrganizationName,
    pub id: CertificateId,
    pub name: Option<Name>,
    pub expires_at: Option<DateTime<Utc>>,
    /// Number of projects where it is active, among those that the notifier selects.
    pub projects_total: usize,
    /// Number of those that wait for the rotation step of its state.
    pub projects_waiting: usize,
    /// Names of the first projects, or ids of those without a name; at most 3.
    pub projects: Vec<String>,
    /// The responsible teams, with null for projects without an owner; empty without configured
    /// owners.
    pub owners: BTreeSet<Option<Team>>,
    pub acknowledged: Option<SilenceView>,
    pub ignored: Option<SilenceView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SummaryProject {
    pub organization: OrganizationName,
    pub id: ProjectId,
    pub name: Option<Name>,
    /// Start of the state, if known.
    pub since: Option<DateTime<Utc>>,
    pub acknowledged: Option<SilenceView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SummaryCredential {
    pub organization: OrganizationName,
    #[serde(flatten)]
    pub credential: CredentialView,
    /// Whether it has reached a threshold.
    pub due: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SummaryExpiry {
    pub organization: OrganizationName,
    pub id: CertificateId,
    pub name: Option<Name>,
    pub expires_at: DateTime<Utc>,
}

/// The deliveries of all notifiers since the previous summary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SummaryDeliveries {
    /// Deliveries of new alerts that ended, and pending ones that are late.
    pub alerts_due: u64,
    pub alerts_on_time: u64,
    /// Number of deliveries that were rejected or given up.
    pub failed: u64,
    /// Number of pending deliveries that have failed.
    pub retrying: u64,
    /// The receivers that fail now, as `receiver (notifier)`; at most 50.
    pub failing: Vec<String>,
    pub failing_total: usize,
}

impl SummaryScans {
    /// Whether certificates may expire unnoticed.
    pub fn is_unknown(&self) -> bool {
        self.latest_at.is_none() || !self.complete || self.overdue || self.unreadable_lists > 0
    }
}

impl SummaryDeliveries {
    /// The worst problem in one clause; `None` without any.
    fn problem(&self) -> Option<String> {
        let late = self.alerts_due.saturating_sub(self.alerts_on_time);
        match (self.failing_total, self.failed + self.retrying, late) {
            (0, 0, 0) => None,
            (0, 0, late) => Some(format!("{late} late {}", deliveries(late))),
            (0, failed, _) => Some(format!("{failed} failed {}", deliveries(failed))),
            (failing, ..) => Some(format!("{} failing", wording::count(failing, "receiver"))),
        }
    }
}

fn deliveries(n: u64) -> &'static str {
    if n == 1 { "delivery" } else { "deliveries" }
}

impl SummaryView {
    /// The number of certificates that need action.
    pub fn certificates_due(&self) -> usize {
        let due = self.certificates.iter().filter(|one| one.state.needs_action());
        due.map(|one| one.total).sum()
    }

    /// The number of projects in a state.
    pub fn projects_in(&self, state: ProjectState) -> usize {
        let of_state = self.projects.iter().filter(|one| one.state == state);
        of_state.map(|one| one.total).sum()
    }

    /// The summary in one line. Incomplete data is never an all-clear.
    pub fn headline(&self, now: DateTime<Utc>) -> String {
        let now = self.corrected(now);
        let is = |n: usize, one: &'static str, many: &'static str| if n == 1 { one } else { many };
        let mut due = Vec::new();
        if let n @ 1.. = self.projects_in(ProjectState::Uncovered) {
            let have = is(n, "has", "have");
            due.push(format!("{} {have} no valid certificate", wording::count(n, "project")));
        }
        if let n @ 1.. = self.certificates_due() {
            let need = is(n, "needs", "need");
            let first = self.first_due().map_or(String::new(), |(title, at)| {
                format!(" (“{title}” {})", wording::expiry(at, now))
            });
            due.push(format!("{} {need} action{first}", wording::count(n, "certificate")));
        }
        if let n @ 1.. = self.projects_in(ProjectState::Unprotected) {
            let does = is(n, "does", "do");
            let projects = wording::count(n, "project");
            due.push(format!("{projects} {does} not enforce mutual TLS"));
        }
        if let n @ 1.. = self.credentials.iter().filter(|one| one.due).count() {
            let need = is(n, "needs", "need");
            due.push(format!("{} {need} to be replaced", wording::count(n, "credential")));
        }
        let problem = self.deliveries.as_ref().and_then(SummaryDeliveries::problem);
        let admin_keys = self.organizations.iter().any(|one| one.admin_keys_unreadable);
        let admin_keys = admin_keys.then(|| "the expiry of admin keys is unknown".to_owned());
        let problem = problem.or(admin_keys);
        if !due.is_empty() {
            due.extend(problem.clone());
        }
        let unknown: Vec<&SummaryScans> = self.unknown().collect();
        let gap = match unknown.as_slice() {
            [] => String::new(),
            [only] if only.latest_at.is_none() => {
                format!("{} has not been scanned", only.organization)
            }
            [only] if only.overdue => format!("the data of {} is old", only.organization),
            [only] => format!("the data of {} is incomplete", only.organization),
            some => format!("the data of {} organizations is incomplete", some.len()),
        };
        let rest = match (due.is_empty(), unknown.is_empty()) {
            (true, true) => self.calm(problem, now),
            (true, false) => format!("{gap}, so certificates may expire unnoticed"),
            (false, true) => due.join(", "),
            (false, false) => format!("{}, and {gap}", due.join(", ")),
        };
        format!("summary: {rest}")
    }

    /// This host's clock, corrected by that of the API.
    pub fn corrected(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let skew = self.organizations.iter().find_map(|one| one.clock_skew);
        let corrected = TimeDelta::try_seconds(skew.unwrap_or_default());
        corrected.and_then(|skew| now.checked_add_signed(skew)).unwrap_or(now)
    }

    fn calm(&self, problem: Option<String>, now: DateTime<Utc>) -> String {
        let listed =
            self.certificates.is_empty() && self.projects.is_empty() && self.credentials.is_empty();
        let calm = if listed { "nothing to do" } else { "no action is due" };
        let soon = self.certificates.iter().filter(|one| one.state != SummaryState::Delete);
        let soon = soon.flat_map(|one| &one.listed);
        let soon = soon.filter_map(|one| Some((title(&one.name, &one.id), one.expires_at?)));
        let later = self.next_expiry.iter();
        let later = later.map(|one| (title(&one.name, &one.id), one.expires_at));
        let next = soon.chain(later).filter(|(_, at)| *at > now).min_by_key(|(_, at)| *at);
        let but = problem.map_or(String::new(), |problem| format!(", but {problem}"));
        match next {
            Some((title, at)) => {
                format!("{calm}{but}; next, “{title}” expires in {}", wording::span(at - now))
            }
            None => format!("{calm}{but}"),
        }
    }

    /// The due certificate that expires first, with its expiry. Certificates that still need a
    /// successor come before replaced ones.
    fn first_due(&self) -> Option<(&str, DateTime<Utc>)> {
        let due = self.certificates.iter().filter(|one| one.state.needs_action());
        let due = due.flat_map(|of| of.listed.iter().map(|one| (of.state, one)));
        let due = due.filter_map(|(state, one)| {
            let is_replaced = state >= SummaryState::Deactivate;
            Some((is_replaced, one.expires_at?, title(&one.name, &one.id)))
        });
        due.min().map(|(_, at, title)| (title, at))
    }

    /// The organizations whose certificates may expire unnoticed.
    pub fn unknown(&self) -> impl Iterator<Item = &SummaryScans> {
        self.organizations.iter().filter(|one| one.is_unknown())
    }
}

fn title<'a>(name: &'a Option<Name>, id: &'a CertificateId) -> &'a str {
    name.as_ref().map_or(id.as_str(), Name::as_str)
}
