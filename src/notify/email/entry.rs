//! One alert of a mail, in words: its facts, its projects, what breaks, and what to do about it.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use crate::domain::{
    notification::{Alert, CertificateView, Event, ProjectView, ProjectsView},
    threshold::Severity,
    wording,
};

/// How many projects of an alert a mail shows.
const SHOWN_PROJECTS: usize = 10;

/// One alert, as the templates show it.
#[derive(Serialize)]
pub struct Entry {
    headline: String,
    severity: &'static str,
    colour: &'static str,
    /// What it is, in rows of a label and a value.
    facts: Vec<(&'static str, String)>,
    projects_label: String,
    projects: Vec<(String, String)>,
    more_projects: usize,
    advice: Vec<String>,
}

impl Entry {
    pub fn new(alert: &Alert, timezone: Tz, now: DateTime<Utc>) -> Entry {
        let over = alert.event.is_end();
        let mut entry = Entry {
            headline: capitalized(&wording::headline(alert, now)),
            severity: if over { "resolved" } else { alert.severity.as_str() },
            colour: if over { RESOLVED } else { colour(alert.severity) },
            facts: Vec::new(),
            projects_label: String::new(),
            projects: Vec::new(),
            more_projects: 0,
            advice: Vec::new(),
        };
        if let Some(projects) = &alert.projects {
            entry.tell_projects(alert, projects);
            return entry;
        }
        let Some(certificate) = &alert.certificate else {
            entry.advice.push("Nothing: this only shows that messages arrive.".to_owned());
            return entry;
        };
        entry.tell_certificate(alert, certificate, timezone, now);
        entry
    }

    fn tell_certificate(
        &mut self,
        alert: &Alert,
        certificate: &CertificateView,
        timezone: Tz,
        now: DateTime<Utc>,
    ) {
        let over = alert.event.is_end();
        let active = &certificate.active_in;
        self.facts.push(("Certificate", certificate.title().to_owned()));
        self.facts.push(("Id", certificate.id.to_string()));
        let expires =
            certificate.expires_at.map_or_else(|| unknown(certificate), |at| instant(at, timezone));
        let expired = certificate.expires_at.is_some_and(|at| at <= now);
        self.facts.push((if expired { "Expired" } else { "Expires" }, expires));
        if let Some(valid_at) = certificate.valid_at.filter(|valid_at| *valid_at > now) {
            self.facts.push(("Valid from", instant(valid_at, timezone)));
        }
        if let Some(stage) = &alert.stage {
            let label = if over { "Was in stage" } else { "Stage" };
            self.facts.push((label, stage.clone()));
        }
        if let Some(consequence) = consequence(alert, certificate, now) {
            self.facts.push(("What breaks", consequence));
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
        self.list(&active.projects, here, |project| {
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

    fn tell_projects(&mut self, alert: &Alert, projects: &ProjectsView) {
        let over = alert.event.is_end();
        if !over {
            let breaks = "every API call over mutual TLS fails there now".to_owned();
            self.facts.push(("What breaks", breaks));
        }
        self.projects_label = wording::count(projects.total, "project");
        if projects.elsewhere > 0 {
            let others = wording::count(projects.elsewhere, "other");
            self.projects_label.push_str(&format!(" of yours and {others}"));
        }
        self.list(&projects.listed, projects.total, |project| {
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

    fn list(
        &mut self,
        projects: &[ProjectView],
        total: usize,
        state: impl Fn(&ProjectView) -> String,
    ) {
        for project in projects.iter().take(SHOWN_PROJECTS) {
            let name = match &project.name {
                Some(name) => format!("{name} ({})", project.id),
                None => project.id.to_string(),
            };
            self.projects.push((name, state(project)));
        }
        self.more_projects = total.saturating_sub(self.projects.len());
    }
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
        (n, total) => format!(
            "{n} of its {total} projects have no successor; the first of them has no valid \
             certificate {when}"
        ),
    })
}

/// What to do about it, step by step.
fn advice(alert: &Alert, certificate: &CertificateView) -> Vec<String> {
    let title = certificate.title();
    let steps: &[&str] = match alert.event {
        Event::CertificateExpiring | Event::CertificateExpired => {
            let covered = certificate.active_in.without_successor == 0;
            let covered = covered && certificate.active_in.projects_here() > 0;
            if covered && alert.event == Event::CertificateExpired {
                &[
                    "Deactivate {title} in its projects, and delete it: each of them has a successor.",
                    "Clients that still use what it signed are refused: move them to the successor.",
                ]
            } else if covered {
                &[
                    "Move the clients to certificates that the successor signed.",
                    "Deactivate {title} in its projects, and delete it.",
                ]
            } else {
                &[
                    "Upload a new CA certificate to the organization.",
                    "Activate it in every project listed here, beside {title}.",
                    "Issue the client certificates under it, and move the clients: this takes longest.",
                    "Deactivate {title}, and delete it.",
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
        | Event::Test => &[],
    };
    steps.iter().map(|step| step.replace("{title}", &format!("“{title}”"))).collect()
}

/// The colour of what is over.
pub const RESOLVED: &str = "#1a7f37";

pub fn colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "#b42318",
        Severity::Warning => "#9a6700",
        Severity::Info => "#0550ae",
    }
}

/// `2026-11-29 14:03 UTC`, and the same in the configured zone.
pub fn instant(at: DateTime<Utc>, timezone: Tz) -> String {
    let utc = at.format("%Y-%m-%d %H:%M UTC");
    if timezone == Tz::UTC {
        return utc.to_string();
    }
    let local = at.with_timezone(&timezone);
    format!("{utc} ({} {})", local.format("%Y-%m-%d %H:%M %Z"), timezone.name())
}

pub fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}
