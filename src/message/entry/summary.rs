//! The text of a summary: the work first, then the state of certvigil, then silences.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::{
    Entry, List, ListItem,
    advice::UNCOVERED,
    facts::{clock_note, instant},
};
use crate::{
    domain::{
        certificate::OrganizationName,
        credential::CredentialKind,
        owner,
        summary::{ProjectState, SummaryState},
        text::Name,
    },
    message::{
        Listed, SummaryCertificate, SummaryCredential, SummaryDeliveries, SummaryProject,
        SummaryScans, SummaryView, wording,
    },
};

/// Maximum number of failing receivers in the text.
const NAMED_RECEIVERS: usize = 5;

impl Entry {
    pub(super) fn describe_summary(
        &mut self,
        summary: &SummaryView,
        shown: usize,
        timezone: Tz,
        now: DateTime<Utc>,
    ) {
        let now = summary.corrected(now);
        let uncovered = summary.projects_in(ProjectState::Uncovered) > 0;
        let unknown: Vec<&str> = summary.unknown().map(|one| one.organization.as_str()).collect();
        self.consequence = match (uncovered, unknown.as_slice()) {
            (true, []) => Some(UNCOVERED.to_owned()),
            (false, []) => None,
            (uncovered, some) => {
                let first = if uncovered { format!("{UNCOVERED}; ") } else { String::new() };
                let some = some.join(", ");
                Some(format!("{first}certificates of {some} may expire unnoticed"))
            }
        };
        let skew = summary.organizations.iter().find_map(|one| one.clock_skew);
        self.facts.extend(skew.and_then(clock_note).map(|note| ("Wrong clock", note)));
        if let [only] = summary.organizations.as_slice() {
            self.facts.push(("Scans", scans(only, summary.since, timezone)));
        }
        if let Some(deliveries) = &summary.deliveries {
            self.describe_deliveries(deliveries);
        }
        if let Some(next) = &summary.next_expiry {
            let name = wording::with_id(next.name.as_ref(), &next.id);
            let fact = format!("{name}, on {}", wording::day(next.expires_at));
            self.facts.push(("Next later expiry", fact));
        }
        let text = Text { summary, timezone, now };
        self.lists = text.lists(shown);
        let mut advise = |needed: bool, step: &str| {
            if needed {
                self.advice.push(step.to_owned());
            }
        };
        advise(
            !unknown.is_empty(),
            "Run certvigil check, which reads the API and names each unreadable list and the cause.",
        );
        advise(
            summary.certificates_due() > 0,
            "Start with the first certificate of the first list. certvigil rotation CERT shows the \
             steps with their requests, and certvigil explain CERT the next alerts.",
        );
        let failed = |one: &SummaryDeliveries| one.failed + one.retrying > 0;
        advise(
            summary.deliveries.as_ref().is_some_and(failed),
            "Run certvigil deliveries --failed, and fix the cause that it shows.",
        );
    }

    fn describe_deliveries(&mut self, deliveries: &SummaryDeliveries) {
        let SummaryDeliveries { alerts_due, alerts_on_time, failed, retrying, .. } = deliveries;
        let alerts = match (*alerts_due, alerts_due.saturating_sub(*alerts_on_time)) {
            (0, _) => "none of new alerts".to_owned(),
            (due, 0) => format!("{due} of new alerts, all on time"),
            (due, late) => format!("{due} of new alerts, {late} late"),
        };
        let failures = match (*failed, *retrying) {
            (0, 0) => "no failed deliveries".to_owned(),
            (1, 0) => "1 failed delivery".to_owned(),
            (failed, 0) => format!("{failed} failed deliveries"),
            (failed, retrying) => format!("{failed} failed, {retrying} retried now"),
        };
        self.facts.push(("Deliveries", format!("{alerts}; {failures}")));
        let named = deliveries.failing.iter().take(NAMED_RECEIVERS);
        let named = named.map(String::as_str).collect::<Vec<_>>().join(", ");
        match deliveries.failing_total.saturating_sub(NAMED_RECEIVERS) {
            0 if named.is_empty() => {}
            0 => self.facts.push(("Failing", named)),
            more => self.facts.push(("Failing", format!("{named} and {more} more"))),
        }
    }
}

/// The scans of an organization: `84 since 2026-11-23, all complete; the latest on Monday 2026-11-30
/// 07:00 UTC`.
fn scans(scans: &SummaryScans, since: DateTime<Utc>, timezone: Tz) -> String {
    let Some(latest) = scans.latest_at else { return "no scan yet".to_owned() };
    let how = match (scans.scans, scans.incomplete) {
        (0, _) => String::new(),
        (_, 0) => ", all complete".to_owned(),
        (all, incomplete) if all == incomplete => ", none complete".to_owned(),
        (_, incomplete) => format!(", {incomplete} incomplete"),
    };
    let unreadable = match (scans.unreadable_lists, scans.complete) {
        (0, true) => String::new(),
        (0, false) => "; the latest is incomplete".to_owned(),
        (1, _) => "; 1 list is unreadable now".to_owned(),
        (n, _) => format!("; {n} lists are unreadable now"),
    };
    let admin_keys = match scans.admin_keys_unreadable {
        true => "; the list of admin keys is unreadable, so their expiry is unknown",
        false => "",
    };
    let overdue = if scans.overdue { "; the next one is overdue" } else { "" };
    format!(
        "{} since {}{how}; the latest on {}{unreadable}{admin_keys}{overdue}",
        scans.scans,
        wording::day(since),
        instant(latest, timezone)
    )
}

/// Renders the lists of a summary.
struct Text<'a> {
    summary: &'a SummaryView,
    timezone: Tz,
    now: DateTime<Utc>,
}

impl Text<'_> {
    fn lists(&self, shown: usize) -> Vec<List> {
        let summary = self.summary;
        let projects = |states: &[ProjectState]| -> Vec<List> {
            let of_states = summary.projects.iter().filter(|one| states.contains(&one.state));
            of_states.map(|one| self.projects(one, shown)).collect()
        };
        let certificates = |silenced: bool| -> Vec<List> {
            let is_silenced = |state| state > SummaryState::Later;
            let of_kind = summary.certificates.iter();
            let of_kind = of_kind.filter(|one| is_silenced(one.state) == silenced);
            of_kind.map(|one| self.certificates(one, shown)).collect()
        };
        let mut lists = projects(&[ProjectState::Uncovered, ProjectState::Unprotected]);
        lists.extend(certificates(false));
        if !summary.credentials.is_empty() {
            let total = summary.credentials_total;
            let title = format!("Credentials that expire by {}", wording::day(summary.until));
            let items = summary.credentials.iter().map(|one| self.credential(one));
            lists.push(List::new(title, total, shown, items));
        }
        if summary.organizations.len() > 1 {
            let item = |one: &SummaryScans| ListItem {
                name: one.organization.to_string(),
                state: scans(one, summary.since, self.timezone),
            };
            let mut organizations: Vec<&SummaryScans> = summary.organizations.iter().collect();
            // Incomplete ones first: chats show only some.
            organizations.sort_by_key(|one| !one.is_unknown());
            let total = organizations.len();
            let items = organizations.into_iter().map(item);
            lists.push(List::new("Scans".to_owned(), total, shown, items));
        }
        lists.extend(projects(&[ProjectState::Acknowledged]));
        lists.extend(certificates(true));
        lists
    }

    fn certificates(&self, one: &Listed<SummaryState, SummaryCertificate>, shown: usize) -> List {
        let title = match one.state {
            SummaryState::Upload => "Upload a successor",
            SummaryState::Activate => "Activate the successor",
            SummaryState::MoveClients => "Move the clients to the successor",
            SummaryState::Deactivate => "Deactivate the old certificate",
            SummaryState::Review => "Other open alerts",
            SummaryState::Delete => "Delete unused certificates when convenient",
            SummaryState::Later => {
                &format!("Expire by {}, without an alert so far", wording::day(self.summary.until))
            }
            SummaryState::Acknowledged => "Acknowledged certificates",
            SummaryState::Ignored => "Ignored certificates",
        };
        let items = one.listed.iter().map(|each| self.certificate(one.state, each));
        List::new(format!("{title} ({})", one.total), one.total, shown, items)
    }

    fn certificate(&self, state: SummaryState, one: &SummaryCertificate) -> ListItem {
        let when = |at: DateTime<Utc>| {
            let (day, span) = (wording::day(at), wording::span(at - self.now));
            match at > self.now {
                true => format!("expires on {day} (in {span})"),
                false => format!("expired on {day} ({span} ago)"),
            }
        };
        let mut parts = vec![one.expires_at.map_or("unknown expiry".to_owned(), when)];
        // The least important part is last: chats cut long lines.
        let silence = one.acknowledged.as_ref().or(one.ignored.as_ref());
        parts.extend(silence.map(|silence| wording::silence(silence, self.timezone)));
        if !one.owners.is_empty() {
            parts.push(format!("owner: {}", owner::names(&one.owners)));
        }
        parts.extend(projects(one).filter(|_| state != SummaryState::Delete));
        ListItem {
            name: self.name(&one.organization, one.name.as_ref(), &one.id),
            state: parts.join("; "),
        }
    }

    fn projects(&self, one: &Listed<ProjectState, SummaryProject>, shown: usize) -> List {
        let title = match one.state {
            ProjectState::Uncovered => "Projects without a valid certificate",
            ProjectState::Unprotected => "Projects that do not enforce mutual TLS",
            ProjectState::Acknowledged => "Acknowledged projects that do not enforce mutual TLS",
        };
        let item = |project: &SummaryProject| {
            let since = project.since.map(|at| format!("since {}", wording::day(at)));
            let silence = project.acknowledged.as_ref();
            let silence = silence.map(|silence| wording::silence(silence, self.timezone));
            ListItem {
                name: self.name(&project.organization, project.name.as_ref(), &project.id),
                state: since.into_iter().chain(silence).collect::<Vec<_>>().join("; "),
            }
        };
        let items = one.listed.iter().map(item);
        List::new(format!("{title} ({})", one.total), one.total, shown, items)
    }

    fn credential(&self, one: &SummaryCredential) -> ListItem {
        let credential = &one.credential;
        let name = match (credential.kind, &credential.id) {
            (CredentialKind::AdminKey, Some(id)) => {
                format!("Admin key {}", wording::with_id(credential.name.as_ref(), id))
            }
            (CredentialKind::AdminKey, None) => "Admin key".to_owned(),
            (CredentialKind::ClientIdentity, _) => "Client certificate of certvigil".to_owned(),
        };
        let expiry = credential.expires_at.map(|at| wording::expiry(at, self.now));
        ListItem { name: self.of(&one.organization, name), state: expiry.unwrap_or_default() }
    }

    fn name(
        &self,
        organization: &OrganizationName,
        name: Option<&Name>,
        id: &impl std::fmt::Display,
    ) -> String {
        self.of(organization, wording::with_id(name, id))
    }

    /// Puts the organization in front if there are several.
    fn of(&self, organization: &OrganizationName, name: String) -> String {
        match self.summary.organizations.len() {
            1 => name,
            _ => format!("{organization}: {name}"),
        }
    }
}

/// `in payments, search, chat and 3 more`, or `in 2 of 5 projects: payments, search` if only some
/// wait for the step of its state; `None` without projects.
fn projects(one: &SummaryCertificate) -> Option<String> {
    let waiting = one.projects_waiting;
    let is_some = waiting > 0 && waiting < one.projects_total;
    let total = if is_some { waiting } else { one.projects_total };
    let names: Vec<&str> = one.projects.iter().take(total).map(String::as_str).collect();
    let text = match (names.as_slice(), total.saturating_sub(names.len())) {
        ([], _) => return None,
        (names, 0) => names.join(", "),
        (names, more) => format!("{} and {more} more", names.join(", ")),
    };
    Some(match is_some {
        true => format!("in {waiting} of {} projects: {text}", one.projects_total),
        false => format!("in {text}"),
    })
}
