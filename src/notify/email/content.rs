//! The data for the mail templates.

use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

use super::{Recipients, Settings};
use crate::{
    domain::{certificate::OrganizationName, text::unlinked, threshold::Severity},
    message::{
        Event, Notification,
        entry::{Answer, Entry, List, Mark, capitalized, reading, unseen, wrong_clock},
        wording,
    },
};

/// The number of alerts shown in full. Mail programs cut off long mails: Gmail does beyond about
/// 100 kB (<https://github.com/hteumeuleu/email-bugs/issues/41>).
const DETAILED: usize = 10;
/// The number of further alerts with one line each; an organization has at most 50 certificates.
const LISTED: usize = 50;
/// The number of projects shown for each alert.
const SHOWN_PROJECTS: usize = 10;
/// The maximum number of repetitions of a sentence in one mail.
const REPEATED: usize = 3;

/// The model of both templates.
#[derive(Serialize)]
pub(super) struct Mail {
    pub subject: String,
    title: String,
    /// The preview text of an inbox.
    preview: String,
    organization: Option<String>,
    mark: &'static str,
    unseen: Option<String>,
    wrong_clock: Option<String>,
    /// One line for each alert, by mark; empty for a single alert.
    overview: Vec<Group>,
    /// The most urgent alerts in full.
    alerts: Vec<Details>,
    /// Steps that many of these alerts share.
    shared: Vec<Shared>,
    /// The number of alerts with a line only, and of alerts without one.
    only_listed: usize,
    left_out: usize,
    reading: Option<String>,
    why: String,
    /// The URL of certvigil's pages.
    page: Option<String>,
    id: String,
}

/// The alerts of one mark.
#[derive(Serialize)]
struct Group {
    mark: &'static str,
    count: usize,
    lines: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    headline: String,
    /// Time, number of projects and coverage.
    detail: String,
    /// The consequence of a critical alert.
    breaks: Option<String>,
}

/// Steps of several alerts.
#[derive(Serialize)]
struct Shared {
    /// The names of the certificates, in quotation marks.
    certificates: Vec<String>,
    steps: Vec<String>,
    runbook: Option<String>,
}

/// One alert in full.
#[derive(Serialize)]
struct Details {
    headline: String,
    mark: &'static str,
    consequence: Option<String>,
    facts: Vec<(&'static str, String)>,
    lists: Vec<List>,
    advice: Vec<String>,
    /// Whether the last steps are those of [`Mail::shared`].
    shares_steps: bool,
    runbook: Option<String>,
    quiet: Option<String>,
    /// The link to the page that acknowledges it.
    quiet_link: Option<String>,
    /// Whether the command comes with an explanation.
    first_quiet: bool,
    /// Whether the last threshold alerts nevertheless.
    except_last: bool,
    never_quiet: Option<&'static str>,
    /// The command that confirms a drill, and the link to the page that does it, too.
    confirm: Option<String>,
    confirm_link: Option<String>,
}

/// Counts sentences, to limit repetitions.
#[derive(Default)]
struct Sentences(BTreeMap<String, usize>);

impl Sentences {
    fn allow(&mut self, sentence: &str) -> bool {
        let count = self.0.entry(sentence.to_owned()).or_default();
        *count += 1;
        *count <= REPEATED
    }
}

impl Mail {
    pub fn new(
        settings: &Settings,
        recipients: Option<&Recipients>,
        notification: &Notification,
        now: DateTime<Utc>,
    ) -> Mail {
        let summary = wording::summary(notification, now);
        let organization = notification.organization.as_ref().map(ToString::to_string);
        let mark = Mark::of_all(notification).as_str();
        let subject = match (&organization, worst_event(notification)) {
            (Some(organization), _) => {
                format!("[certvigil] {} {organization}: {summary}", mark.to_uppercase())
            }
            (None, Some(Event::Test | Event::Summary)) => {
                format!("[certvigil] {}", capitalized(&summary))
            }
            (None, _) => format!("[certvigil] {}: {summary}", mark.to_uppercase()),
        };
        let style = &settings.style;
        let shown = match worst_event(notification) {
            Some(Event::Summary) => LISTED,
            Some(_) | None => SHOWN_PROJECTS,
        };
        let entry = |alert| Entry::new(notification, alert, shown, style, now);
        let entries: Vec<Entry> =
            notification.alerts.iter().take(DETAILED + LISTED).map(entry).collect();
        let scan = notification.scan.as_ref();
        let mut sentences = Sentences::default();
        let overview = overview(&entries, &mut sentences);
        let preview = entries.first().and_then(|worst| worst.consequence.clone());
        let listed = entries.len();
        let (alerts, shared) = detailed(entries, &overview, &mut sentences);
        Mail {
            subject,
            title: unlinked(&capitalized(&summary)),
            preview: preview.unwrap_or_default(),
            organization,
            mark,
            unseen: scan.and_then(unseen),
            wrong_clock: scan.and_then(wrong_clock),
            overview,
            only_listed: listed.saturating_sub(DETAILED),
            left_out: notification.alerts_total.saturating_sub(listed),
            alerts,
            shared,
            reading: scan.map(|scan| reading(scan, style.timezone)),
            why: why(settings, recipients, notification),
            page: style.links.page.as_ref().map(ToString::to_string),
            id: notification.id.to_string(),
        }
    }
}

fn worst_event(notification: &Notification) -> Option<Event> {
    notification.alerts.first().map(|alert| alert.event)
}

fn overview(entries: &[Entry], sentences: &mut Sentences) -> Vec<Group> {
    if entries.len() < 2 {
        return Vec::new();
    }
    let marks = [Mark::Critical, Mark::Warning, Mark::Info, Mark::Drill, Mark::Resolved];
    let group = |mark: &Mark| {
        let of_mark = entries.iter().filter(|entry| entry.mark == *mark);
        let line = |entry: &Entry| {
            // The headline of an alert about projects contains their number.
            let of_certificate =
                entry.facts.first().is_some_and(|(label, _)| *label == "Certificate");
            let projects = of_certificate && entry.mark != Mark::Resolved;
            let list = entry.lists.first().filter(|_| projects);
            let projects = list.map(|list| list.title.clone());
            // The expiry of a resolved alert does not matter.
            let when = entry.when.clone().filter(|_| entry.mark != Mark::Resolved);
            let breaks = entry.consequence.as_deref().map(capitalized);
            let breaks = breaks.filter(|_| entry.mark == Mark::Critical);
            let breaks = breaks.filter(|sentence| sentences.allow(sentence));
            // The consequence includes the coverage.
            let coverage = entry.coverage.clone().filter(|_| breaks.is_none());
            let detail: Vec<String> = when.into_iter().chain(projects).chain(coverage).collect();
            Line { headline: entry.headline.clone(), detail: detail.join(" · "), breaks }
        };
        let lines: Vec<Line> = of_mark.map(line).collect();
        Group { mark: mark.as_str(), count: lines.len(), lines }
    };
    marks.iter().map(group).filter(|group| group.count > 0).collect()
}

/// The most urgent alerts in full, and the steps that many of them share. Links the runbook of each
/// event only once, which keeps the mail short.
fn detailed(
    mut entries: Vec<Entry>,
    overview: &[Group],
    sentences: &mut Sentences,
) -> (Vec<Details>, Vec<Shared>) {
    entries.truncate(DETAILED);
    let shared = share(&mut entries);
    let lines = overview.iter().flat_map(|group| &group.lines);
    for sentence in lines.filter_map(|line| line.breaks.as_ref()) {
        // The overview contains this sentence.
        for entry in &mut entries {
            entry.consequence.take_if(|one| capitalized(one) == *sentence);
        }
    }
    let mut linked: BTreeSet<String> =
        shared.iter().filter_map(|one| one.runbook.clone()).collect();
    let mut explained = BTreeSet::new();
    let full = |entry: Entry| {
        let shares_steps = shared.iter().any(|one| one.steps == entry.general_advice);
        let mut detailed = Details { shares_steps, ..Details::from(entry) };
        detailed.runbook = detailed.runbook.filter(|url| linked.insert(url.clone()));
        detailed.consequence = detailed.consequence.filter(|sentence| sentences.allow(sentence));
        detailed.never_quiet = detailed.never_quiet.filter(|sentence| sentences.allow(sentence));
        detailed.first_quiet = detailed.quiet.as_ref().is_some_and(|command| {
            command.contains(" --project ") || explained.insert(detailed.except_last)
        });
        detailed
    };
    (entries.into_iter().map(full).collect(), shared)
}

/// Moves steps that more than `REPEATED` alerts share out of these alerts.
fn share(entries: &mut [Entry]) -> Vec<Shared> {
    let mut common: BTreeMap<Vec<String>, Vec<&mut Entry>> = BTreeMap::new();
    for entry in entries.iter_mut().filter(|entry| !entry.general_advice.is_empty()) {
        common.entry(entry.general_advice.clone()).or_default().push(entry);
    }
    let common = common.into_iter().filter(|(_, alerts)| alerts.len() > REPEATED);
    let once = |(steps, alerts): (Vec<String>, Vec<&mut Entry>)| {
        let mut shared = Shared { certificates: Vec::new(), steps, runbook: None };
        for entry in alerts {
            entry.advice.truncate(entry.advice.len() - entry.general_advice.len());
            shared.runbook = shared.runbook.or(entry.runbook.take());
            let name = entry.facts.first().map(|(_, name)| format!("“{name}”"));
            shared.certificates.extend(name);
        }
        shared
    };
    common.map(once).collect()
}

impl From<Entry> for Details {
    fn from(entry: Entry) -> Details {
        let mut details = Details {
            headline: entry.headline,
            mark: entry.mark.as_str(),
            consequence: entry.consequence.map(|text| capitalized(&text)),
            facts: entry.facts,
            lists: entry.lists,
            advice: entry.advice,
            shares_steps: false,
            runbook: entry.runbook,
            quiet: None,
            quiet_link: None,
            first_quiet: false,
            except_last: false,
            never_quiet: None,
            confirm: None,
            confirm_link: None,
        };
        match entry.answer {
            Some(Answer::Acknowledge { command, link, except_last }) => {
                details.quiet = Some(command);
                details.quiet_link = link;
                details.except_last = except_last;
            }
            Some(Answer::Confirm { command, link }) => {
                details.confirm = Some(command);
                details.confirm_link = link;
            }
            Some(Answer::Never(why)) => details.never_quiet = Some(why),
            None => {}
        }
        details
    }
}

/// The reason why the reader receives this mail.
fn why(
    settings: &Settings,
    recipients: Option<&Recipients>,
    notification: &Notification,
) -> String {
    let event = worst_event(notification);
    let about = match (&notification.organization, recipients) {
        (Some(organization), Some(recipients)) => selected(recipients, organization),
        // These recipients are no longer configured.
        (Some(organization), None) => format!("It is about the organization {organization}."),
        (None, _) if event == Some(Event::Test) => "This is a test message.".to_owned(),
        (None, _) if event == Some(Event::Drill) => {
            "Every receiver of this notifier gets its drills.".to_owned()
        }
        (None, _) if event == Some(Event::Summary) => {
            "Summaries include every severity.".to_owned()
        }
        (None, Some(recipients)) if !recipients.routing.audience.is_everyone() => {
            "It also reports failing notifiers and addresses, and unproven receivers, regardless of its filters.".to_owned()
        }
        (None, _) => {
            "It also reports failing notifiers and unproven receivers, regardless of its filters.".to_owned()
        }
    };
    let to = match recipients.map(Recipients::addresses) {
        Some(addresses) => format!(" to {}", addresses.join(", ")),
        None => String::new(),
    };
    format!("Sent by the notifier “{}”{to}. {about}", settings.name)
}

/// The alerts that the notifier selects, in words.
fn selected(recipients: &Recipients, organization: &OrganizationName) -> String {
    let routing = &recipients.routing;
    let what = match routing.min_severity {
        Severity::Info => "all alerts",
        Severity::Warning => "warnings and critical alerts",
        Severity::Critical => "critical alerts",
    };
    let some = if routing.projects.is_all() { "" } else { "some projects of " };
    let changes = if routing.changes { ", and changes of certificates" } else { "" };
    let Some(teams) = routing.audience.teams() else {
        return format!("It sends {what} of {some}the organization {organization}{changes}.");
    };
    let names: Vec<&str> = teams.iter().flatten().map(String::as_str).collect();
    let without = "those without an owner, and those about certvigil itself";
    let whose = match (names.as_slice(), teams.contains(&None)) {
        ([], _) => without.to_owned(),
        ([name], false) => format!("those that concern the team {name}"),
        ([name], true) => format!("those that concern the team {name}, {without}"),
        (names, false) => format!("those that concern the teams {}", names.join(", ")),
        (names, true) => format!("those that concern the teams {}, {without}", names.join(", ")),
    };
    format!("Of {what} of {some}the organization {organization}{changes}, it sends you {whose}.")
}
