//! One alert in words, as every channel for people shows it: its facts, its projects, what breaks, what to do
//! about it, and how to be quiet about it. The words are made here once; a format only lays them out, and
//! escapes them as its service wants.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use crate::domain::{
    certificate::OrganizationName,
    notification::{
        Alert, CertificateView, Event, Notification, ProjectView, ProjectsView, Reason, ScanView,
        SightView,
    },
    text::unlinked,
    threshold::Severity,
    wording,
};

/// How long the acknowledgement that is proposed lasts.
const QUIET: TimeDelta = TimeDelta::days(7);
/// A list that was read so long before the scan ended, or later, was read by it.
const FRESH: TimeDelta = TimeDelta::hours(1);

/// How an alert is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    Critical,
    Warning,
    Info,
    Resolved,
}

impl Mark {
    pub fn of(alert: &Alert) -> Mark {
        match alert.severity {
            _ if alert.event.is_end() => Mark::Resolved,
            Severity::Critical => Mark::Critical,
            Severity::Warning => Mark::Warning,
            Severity::Info => Mark::Info,
        }
    }

    /// The mark of a message: that of the worst in it.
    pub fn of_all(notification: &Notification) -> Mark {
        notification.alerts.iter().map(Mark::of).min().unwrap_or(Mark::Info)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Mark::Critical => "critical",
            Mark::Warning => "warning",
            Mark::Info => "info",
            Mark::Resolved => "resolved",
        }
    }

    /// For services where a sign is what one sees first.
    pub fn sign(self) -> &'static str {
        match self {
            Mark::Critical => "🔴",
            Mark::Warning => "🟠",
            Mark::Info => "🔵",
            Mark::Resolved => "🟢",
        }
    }
}

/// One alert, in words. Nothing in it is taken for a link; markup is the format's to escape.
#[derive(Clone, Debug)]
pub struct Entry {
    pub headline: String,
    pub mark: Mark,
    /// What breaks, and from when.
    pub consequence: Option<String>,
    /// When a certificate expires, or becomes valid, where that is known.
    pub when: Option<String>,
    /// What it is, in rows of a label and a value.
    pub facts: Vec<(&'static str, String)>,
    pub projects_label: String,
    pub projects: Vec<ProjectLine>,
    /// How many projects there are beside those.
    pub more_projects: usize,
    /// What to do about it, step by step.
    pub advice: Vec<String>,
    /// How to be quiet about it.
    pub quiet: Option<Quiet>,
}

/// A project, and how it stands.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectLine {
    pub name: String,
    pub state: String,
}

/// How to be quiet about an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// With this command, until its day.
    Command(String),
    /// Not at all: no acknowledgement mutes it.
    Never,
}

impl Entry {
    /// The alert, with at most so many of its projects.
    pub fn new(
        notification: &Notification,
        alert: &Alert,
        shown_projects: usize,
        timezone: Tz,
        now: DateTime<Utc>,
    ) -> Entry {
        let mut entry = Entry {
            headline: capitalized(&wording::headline(alert, now)),
            mark: Mark::of(alert),
            consequence: None,
            when: None,
            facts: Vec::new(),
            projects_label: String::new(),
            projects: Vec::new(),
            more_projects: 0,
            advice: Vec::new(),
            quiet: None,
        };
        match (&alert.projects, &alert.certificate, &alert.sight) {
            (Some(projects), ..) => entry.tell_projects(alert, projects, shown_projects),
            (None, Some(certificate), _) => {
                entry.tell_certificate(alert, certificate, shown_projects, timezone, now);
                entry.quiet = quiet(notification.organization.as_ref(), alert, certificate, now);
            }
            (None, None, Some(sight)) => {
                entry.tell_sight(alert, sight, shown_projects, timezone);
            }
            (None, None, None) => {
                entry.advice.push("Nothing: this only shows that messages arrive.".to_owned());
            }
        }
        entry.unlinked()
    }

    fn unlinked(mut self) -> Entry {
        let mut texts: Vec<&mut String> = vec![&mut self.headline, &mut self.projects_label];
        texts.extend(&mut self.consequence);
        texts.extend(self.facts.iter_mut().map(|(_, value)| value));
        texts.extend(&mut self.advice);
        for project in &mut self.projects {
            texts.extend([&mut project.name, &mut project.state]);
        }
        for text in texts {
            *text = unlinked(text);
        }
        self
    }

    fn tell_certificate(
        &mut self,
        alert: &Alert,
        certificate: &CertificateView,
        shown_projects: usize,
        timezone: Tz,
        now: DateTime<Utc>,
    ) {
        let over = alert.event.is_end();
        let active = &certificate.active_in;
        self.consequence = consequence(alert, certificate, now);
        self.facts.push(("Certificate", certificate.title().to_owned()));
        self.facts.push(("Id", certificate.id.to_string()));
        self.when = certificate.expires_at.map(|at| instant(at, timezone));
        let expires = self.when.clone().unwrap_or_else(|| unknown(certificate));
        let expired = certificate.expires_at.is_some_and(|at| at <= now);
        self.facts.push((if expired { "Expired" } else { "Expires" }, expires));
        if let Some(valid_at) = certificate.valid_at.filter(|valid_at| *valid_at > now) {
            let from = instant(valid_at, timezone);
            self.when = Some(format!("from {from}"));
            self.facts.push(("Valid from", from));
        }
        if let Some(why) = told_because(alert) {
            self.facts.push(("Told because", why));
        }
        if let Some(successor) = &alert.successor {
            let name = successor.name.as_ref().map_or(successor.id.as_str(), |name| name.as_str());
            let until =
                successor.expires_at.map(|at| format!(", valid until {}", wording::day(at)));
            let reach =
                if successor.covers_every_project { "every project" } else { "some projects" };
            let until = until.unwrap_or_default();
            let its = [("ignored", &successor.ignored), ("acknowledged", &successor.acknowledged)];
            let its = its.iter().filter_map(|(what, view)| Some((what, view.as_ref()?)));
            let its: String = its
                .filter(|(_, view)| !view.ended)
                .map(|(what, view)| format!(" ({what} {})", wording::silence(view, timezone)))
                .collect();
            self.facts.push(("Successor", format!("“{name}” in {reach}{until}{its}")));
        }
        for (what, view) in
            [("Ignored", &certificate.ignored), ("Acknowledged", &certificate.acknowledged)]
        {
            if let Some(view) = view {
                self.facts.push((what, wording::silence(view, timezone)));
            }
        }
        let here = active.projects_here();
        self.projects_label = match (active.organization, here) {
            // Where it is active no more, that is what the headline says.
            (false, 0) if over => String::new(),
            (true, n) => format!(
                "Active for the whole organization, and so in {}",
                wording::count(n, "project")
            ),
            (false, 0) => "Active in no project".to_owned(),
            (false, n) => format!("Active in {}", wording::count(n, "project")),
        };
        if active.projects_elsewhere > 0 {
            let others = wording::count(active.projects_elsewhere, "other");
            self.projects_label.push_str(&format!(" of yours and {others}"));
        }
        self.list(&active.projects, here, shown_projects, |project| {
            match (&project.successor_id, project.uncovered_from) {
                _ if over => String::new(),
                (Some(successor), _) => format!("{successor} takes over"),
                (None, Some(from)) if from <= now => {
                    format!("no valid certificate since {}", wording::day(from))
                }
                (None, Some(from)) => format!("no valid certificate from {}", wording::day(from)),
                (None, None) => String::new(),
            }
        });
        self.advice = advice(alert, certificate);
    }

    fn tell_projects(&mut self, alert: &Alert, projects: &ProjectsView, shown_projects: usize) {
        let over = alert.event.is_end();
        if !over {
            self.consequence = Some("every API call over mutual TLS fails there now".to_owned());
            if let Some(why) = told_because(alert) {
                self.facts.push(("Told because", why));
            }
        }
        if projects.remaining > 0 {
            let rest = wording::count(projects.remaining, "other project");
            let has = if projects.remaining == 1 { "has" } else { "have" };
            self.facts.push(("Not over", format!("{rest} {has} no valid certificate still")));
        }
        self.projects_label = wording::count(projects.total, "project");
        if projects.elsewhere > 0 {
            let others = wording::count(projects.elsewhere, "other");
            self.projects_label.push_str(&format!(" of yours and {others}"));
        }
        self.list(&projects.listed, projects.total, shown_projects, |project| {
            match (&project.successor_id, project.uncovered_from) {
                (Some(valid), _) => format!("{valid} is valid"),
                (None, Some(from)) => format!("since {}", wording::day(from)),
                (None, None) if over => String::new(),
                (None, None) => "none of its certificates is valid yet".to_owned(),
            }
        });
        if !over {
            let steps = [
                "Activate a valid certificate in each of them, or upload a new one first.",
                "Give the clients certificates that it signed.",
                "Deactivate the certificates that have expired.",
            ];
            self.advice = steps.map(str::to_owned).to_vec();
        }
    }

    fn tell_sight(&mut self, alert: &Alert, sight: &SightView, shown: usize, timezone: Tz) {
        if alert.event.is_end() {
            return;
        }
        self.consequence = Some(match sight.projects {
            0 => "certificates may expire unseen".to_owned(),
            n => format!("certificates of {} may expire unseen", wording::count(n, "project")),
        });
        if let Some(why) = told_because(alert) {
            self.facts.push(("Told because", why));
        }
        if let Some(longest) = sight.unseen.first() {
            self.facts.push(("Unseen since", instant(longest.since, timezone)));
            self.facts.push(("Last error", longest.why.clone()));
        }
        self.projects_label = format!("Not read: {}", wording::count(sight.total, "list"));
        for unseen in sight.unseen.iter().take(shown) {
            let state = format!("since {}: {}", wording::day(unseen.since), unseen.why);
            self.projects.push(ProjectLine { name: capitalized(&unseen.list), state });
        }
        self.more_projects = sight.total.saturating_sub(self.projects.len());
        let steps = [
            "Mend what the error says: a 401 wants another admin key, a 403 one that may read this, a timeout \
             or a failed connection the way to the API.",
            "Run certvigil check: it shows what can be read, and sends nothing.",
            "Until then, look at the certificates of these projects by hand.",
        ];
        self.advice = steps.map(str::to_owned).to_vec();
    }

    fn list(
        &mut self,
        projects: &[ProjectView],
        total: usize,
        shown: usize,
        state: impl Fn(&ProjectView) -> String,
    ) {
        for project in projects.iter().take(shown) {
            let name = match &project.name {
                Some(name) => format!("{name} ({})", project.id),
                None => project.id.to_string(),
            };
            self.projects.push(ProjectLine { name, state: state(project) });
        }
        self.more_projects = total.saturating_sub(self.projects.len());
    }
}

/// Why it is told now, in words; nothing of an end, whose headline says it.
fn told_because(alert: &Alert) -> Option<String> {
    let stage = alert.stage.as_deref()?;
    let of_its_end = match alert.event {
        Event::CertificateExpiring => Some(format!("the threshold {stage}")),
        Event::CertificateExpired => Some("its end".to_owned()),
        Event::CertificateNotYetValid | Event::CertificateUnknownExpiry => None,
        Event::ProjectUncovered | Event::MonitorBlind => None,
        Event::CertificateResolved
        | Event::ProjectCovered
        | Event::MonitorRecovered
        | Event::Test => return None,
    };
    Some(match (alert.reason?, of_its_end) {
        (Reason::Stage | Reason::Refresh, Some(stage)) => format!("it has reached {stage}"),
        (Reason::Stage, None) => "this is new".to_owned(),
        (Reason::Refresh, None) => return None,
        (Reason::Opened, Some(stage)) => {
            format!("it has reached {stage}, and this notifier was not told of it before")
        }
        (Reason::Opened, None) => "this notifier was not told of it before".to_owned(),
        (Reason::Repeat, Some(stage)) => format!("a reminder: it has reached {stage}"),
        (Reason::Repeat, None) => "a reminder".to_owned(),
        (Reason::IgnoreEnded, _) => "the rule that ignored it has ended".to_owned(),
        (Reason::AckEnded, _) => "its acknowledgement has ended".to_owned(),
        (
            Reason::Replaced
            | Reason::Deactivated
            | Reason::Deleted
            | Reason::Renewed
            | Reason::Archived
            | Reason::Corrected
            | Reason::PolicyChanged
            | Reason::Ignored
            | Reason::Unwatched,
            _,
        ) => return None,
    })
}

/// How to be quiet about it for a while; nothing where it is over, or quiet already.
fn quiet(
    organization: Option<&OrganizationName>,
    alert: &Alert,
    certificate: &CertificateView,
    now: DateTime<Utc>,
) -> Option<Quiet> {
    if alert.event.is_end() || certificate.acknowledged.as_ref().is_some_and(|one| !one.ended) {
        return None;
    }
    if alert.last {
        return Some(Quiet::Never);
    }
    // What could mean something to a shell does not stand in a command.
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let id = Some(certificate.id.as_str()).filter(|id| plain(id)).unwrap_or("ID");
    let until = wording::day(now + QUIET);
    Some(Quiet::Command(format!(
        "certvigil ack {id} --organization {} --until {until} --reason \"…\"",
        organization?
    )))
}

fn unknown(certificate: &CertificateView) -> String {
    match certificate.strange_expiry {
        None => "unknown: the API does not say".to_owned(),
        Some(given) => format!(
            "unknown: the API says {given}, which is no time in seconds before the year 10000"
        ),
    }
}

fn consequence(alert: &Alert, certificate: &CertificateView, now: DateTime<Utc>) -> Option<String> {
    let active = &certificate.active_in;
    match alert.event {
        Event::CertificateExpiring | Event::CertificateExpired => {}
        Event::CertificateNotYetValid => {
            return Some("clients with a certificate under it are refused until then".to_owned());
        }
        Event::CertificateUnknownExpiry
        | Event::CertificateResolved
        | Event::ProjectUncovered
        | Event::ProjectCovered
        | Event::MonitorBlind
        | Event::MonitorRecovered
        | Event::Test => return None,
    }
    let first = active.projects.iter().filter_map(|project| project.uncovered_from).min();
    let Some(first) = first else {
        let (open, calm) =
            (active.without_successor, "nothing, once the clients use the successor");
        return match active.projects_here() {
            0 => None,
            _ if open == 0 && active.elsewhere_without_successor > 0 => Some(format!(
                "nothing in your projects, once the clients use the successor; {} no successor",
                match active.elsewhere_without_successor {
                    1 => "one other project has".to_owned(),
                    n => format!("{n} other projects have"),
                }
            )),
            _ if open == 0 => Some(calm.to_owned()),
            _ => Some(format!(
                "that is not known for {}: the API does not say when another certificate there expires",
                wording::count(open, "project")
            )),
        };
    };
    let when = if first <= now {
        "now, and every API call over mutual TLS fails there".to_owned()
    } else {
        format!("from {}, and every API call over mutual TLS fails there then", wording::day(first))
    };
    Some(match (active.without_successor, active.projects_here()) {
        (1, 1) => format!("its project has no valid certificate {when}"),
        (1, total) => format!("one of its {total} projects has no valid certificate {when}"),
        (n, total) if n == total => format!(
            "none of its {n} projects has a successor; the first of them has no valid certificate {when}"
        ),
        (n, total) => format!(
            "{n} of its {total} projects have no successor; the first of them has no valid \
             certificate {when}"
        ),
    })
}

/// What to do about it, step by step.
fn advice(alert: &Alert, certificate: &CertificateView) -> Vec<String> {
    let title = certificate.title();
    let everywhere = certificate.active_in.organization;
    let steps: &[&str] = match alert.event {
        Event::CertificateExpiring | Event::CertificateExpired => {
            let covered = certificate.active_in.without_successor == 0;
            let covered = covered && certificate.active_in.projects_here() > 0;
            if covered && alert.event == Event::CertificateExpired {
                &[
                    "Deactivate {title} {where}, and delete it: each project has a successor.",
                    "Clients that still use what it signed are refused: move them to the successor.",
                ]
            } else if covered {
                &[
                    "Move the clients to certificates that the successor signed.",
                    "Deactivate {title} {where}, and delete it.",
                ]
            } else {
                &[
                    "Upload its successor, a new CA certificate, to the organization.",
                    "Activate the successor {beside}, beside {title}.",
                    "Issue client certificates under the successor, and move the clients: this takes longest.",
                    "Deactivate {title} {where}, and delete it.",
                ]
            }
        }
        Event::CertificateNotYetValid => {
            &["Wait, or keep another certificate active in its projects until then."]
        }
        Event::CertificateUnknownExpiry => &[
            "Look up when {title} expires in the certificate itself: nothing will warn you of it.",
        ],
        Event::CertificateResolved
        | Event::ProjectUncovered
        | Event::ProjectCovered
        | Event::MonitorBlind
        | Event::MonitorRecovered
        | Event::Test => &[],
    };
    let (at, beside) = if everywhere {
        ("for the organization", "for the organization, which all projects inherit")
    } else {
        ("in its projects", "in every project listed here")
    };
    let filled = |step: &&str| {
        let step = step.replace("{where}", at).replace("{beside}", beside);
        // The name last, so that nothing in it is filled in.
        step.replace("{title}", &format!("“{title}”"))
    };
    steps.iter().map(filled).collect()
}

/// How and when it was read: `Read completely on …: 41 projects.`
pub fn reading(scan: &ScanView, timezone: Tz) -> String {
    let how = if scan.complete { "completely" } else { "incompletely" };
    let projects = wording::count(scan.projects_read, "project");
    format!("Read {how} on {}: {projects}.", instant(scan.finished_at, timezone))
}

/// What could not be seen, and what that means; nothing where all could.
pub fn unseen(scan: &ScanView) -> Option<String> {
    if scan.complete {
        return None;
    }
    let unreadable = match scan.projects_unreadable {
        0 => "Some lists could not be read".to_owned(),
        n => format!("{} could not be read", wording::count(n, "project")),
    };
    // What was read a while ago says so; what was never read has nothing to say.
    let old = scan.oldest_reading.filter(|at| scan.finished_at - at > FRESH);
    let rests = old.map_or(String::new(), |at| {
        format!(
            " What is said here of the rest is what was last known of it, on {}.",
            wording::day(at)
        )
    });
    Some(format!("{unreadable}: certificates there may expire unseen.{rests}"))
}

/// `Sunday 2026-11-29 14:03 UTC`, and the same in the configured zone.
pub fn instant(at: DateTime<Utc>, timezone: Tz) -> String {
    let utc = at.format("%A %Y-%m-%d %H:%M UTC");
    if timezone == Tz::UTC {
        return utc.to_string();
    }
    let local = at.with_timezone(&timezone);
    let form = if local.date_naive() == at.date_naive() { "%H:%M %Z" } else { "%A %H:%M %Z" };
    format!("{utc} ({} in {})", local.format(form), timezone.name())
}

pub fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_says_the_day_of_the_zone_only_where_it_is_another() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let cases = [
            ("2026-11-29T14:03:00Z", Tz::UTC, "Sunday 2026-11-29 14:03 UTC"),
            (
                "2026-11-29T14:03:00Z",
                Tz::Europe__Berlin,
                "Sunday 2026-11-29 14:03 UTC (15:03 CET in Europe/Berlin)",
            ),
            (
                "2026-11-29T23:30:00Z",
                Tz::Europe__Berlin,
                "Sunday 2026-11-29 23:30 UTC (Monday 00:30 CET in Europe/Berlin)",
            ),
        ];
        for (text, timezone, expected) in cases {
            assert_eq!(instant(at(text), timezone), expected);
        }
    }

    #[test]
    fn what_could_mean_something_to_a_shell_is_in_no_command() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let mut sample = crate::domain::sample::of(Event::CertificateExpiring, "ops", now);
        let ids = [("cert_abc-1.x", "ack cert_abc-1.x --"), ("cert_$(reboot)", "ack ID --")];
        for (id, expected) in ids {
            let certificate = sample.alerts[0].certificate.as_mut().unwrap();
            certificate.id = crate::domain::certificate::CertificateId::parse(id).unwrap();
            let entry = Entry::new(&sample, &sample.alerts[0], 10, Tz::UTC, now);
            let Some(Quiet::Command(command)) = entry.quiet else { panic!("{entry:?}") };
            assert!(command.contains(expected), "{command}");
        }
    }
}
