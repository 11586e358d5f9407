//! The text of an alert about a certificate.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::{
    Entry, List,
    advice::{Advice, advice, blindness, consequence},
    facts::{instant, reason, unknown},
};
use crate::{
    domain::{change::ChangeKind, owner},
    message::{
        ActiveIn, Alert, CandidateView, CertificateBody, ChangeView, Event, ProjectView, wording,
    },
};

impl Entry {
    pub(super) fn describe_certificate(
        &mut self,
        alert: &Alert,
        body: &CertificateBody,
        shown: usize,
        timezone: Tz,
        now: DateTime<Utc>,
    ) {
        let certificate = &body.certificate;
        let over = alert.event.is_resolution();
        let active = &certificate.active_in;
        let own = blindness(alert, certificate, now);
        self.consequence = match (consequence(alert, body, now), own) {
            (Some(consequence), Some(own)) => Some(format!("{consequence}. {own}")),
            (consequence, own) => consequence.or(own),
        };
        if matches!(alert.event, Event::CertificateExpiring | Event::CertificateExpired) {
            self.coverage = coverage(active);
        }
        self.facts.push(("Certificate", certificate.title().to_owned()));
        self.facts.push(("Id", certificate.id.to_string()));
        self.when = certificate.expires_at.map(|at| instant(at, timezone));
        let expires = self.when.clone().unwrap_or_else(|| unknown(certificate));
        let expired = certificate.expires_at.is_some_and(|at| at <= now);
        self.facts.push((if expired { "Expired" } else { "Expires" }, expires));
        let reported = wording::reported_expiry(certificate);
        if let Some(reported) = reported.filter(|at| Some(*at) != certificate.expires_at) {
            self.facts.push(("API reports", wording::day(reported)));
        }
        if let [_, _, ..] = certificate.defects.as_slice() {
            let why: Vec<&str> = certificate.defects.iter().copied().map(wording::defect).collect();
            self.facts.push(("Defects", why.join("; ")));
        }
        if let Some(twin) = certificate.duplicate_of.as_ref().filter(|_| !over) {
            self.facts.push(("Duplicate of", wording::with_id(twin.name.as_ref(), &twin.id)));
        }
        if let Some(content) = certificate.content.as_ref().filter(|_| !over) {
            self.facts.push(("Subject", content.subject.clone()));
            self.facts.push(("Fingerprint", format!("SHA-256 {}", content.fingerprint)));
        }
        self.name_changes(&certificate.changes, over);
        if let Some(valid_at) = certificate.valid_at.filter(|valid_at| *valid_at > now) {
            let from = instant(valid_at, timezone);
            if alert.event == Event::CertificateNotYetValid {
                self.when = Some(format!("from {from}"));
            }
            self.facts.push(("Valid from", from));
        }
        if !certificate.owners.is_empty() {
            self.facts.push(("Owner", owner::names(&certificate.owners)));
        }
        if let Some(why) = reason(alert) {
            self.facts.push(("Reason", why));
        }
        if let Some(successor) = &body.successor {
            let name = successor.name.as_ref().map_or(successor.id.as_str(), |name| name.as_str());
            let from = successor.valid_at.filter(|at| *at > now);
            let from = from.map_or(String::new(), |at| format!(" from {}", wording::day(at)));
            let until =
                successor.expires_at.map(|at| format!(", valid{from} until {}", wording::day(at)));
            let reach =
                if successor.covers_every_project { "every project" } else { "some projects" };
            let until = until.unwrap_or_default();
            let its = [("ignored", &successor.ignored), ("acknowledged", &successor.acknowledged)];
            let its = its.iter().filter_map(|(what, view)| Some((what, view.as_ref()?)));
            let its: String = its
                .filter(|(_, view)| !view.ended)
                .map(|(what, view)| format!(" ({what} {})", wording::silence(view, timezone)))
                .collect();
            let id = match &successor.name {
                Some(_) => format!(" ({})", successor.id),
                None => String::new(),
            };
            self.facts.push(("Successor", format!("“{name}”{id} in {reach}{until}{its}")));
        }
        if let [_, _, ..] = body.candidates.as_slice() {
            let titles: Vec<String> = body.candidates.iter().map(CandidateView::title).collect();
            self.facts.push(("Candidates", titles.join(", ")));
        }
        for (what, view) in
            [("Ignored", &certificate.ignored), ("Acknowledged", &certificate.acknowledged)]
        {
            if let Some(view) = view {
                self.facts.push((what, wording::silence(view, timezone)));
            }
        }
        let here = active.projects_here();
        let mut title = match (active.organization, here) {
            // The headline already reports that the certificate is inactive.
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
            title.push_str(&format!(" of yours and {others}"));
        }
        if let Some(left) = &body.left_behind {
            let (total, all) = (left.total(), &left.projects);
            let title = format!("Was active in {}", wording::count(total, "project"));
            self.lists.push(List::of_projects(title, total, shown, all, after_its_end));
            self.advise(advice(alert, body, now));
            return;
        }
        let state = |project: &ProjectView| match (&project.successor_id, project.uncovered_from) {
            _ if over => String::new(),
            (Some(successor), _) => format!("{successor} takes over"),
            (None, Some(from)) if from <= now => {
                format!("no valid certificate since {}", wording::day(from))
            }
            (None, Some(from)) => format!("no valid certificate from {}", wording::day(from)),
            (None, None) => String::new(),
        };
        if !title.is_empty() {
            self.lists.push(List::of_projects(title, here, shown, &active.projects, state));
        }
        self.advise(advice(alert, body, now));
    }

    /// Who uploaded and activated it according to the audit log; of a resolved alert, the latest
    /// change.
    fn name_changes(&mut self, changes: &[ChangeView], over: bool) {
        let mut logged = changes.iter().filter(|one| one.logged);
        let shown: Vec<&ChangeView> = match over {
            true => logged.next().into_iter().collect(),
            false => [ChangeKind::Uploaded, ChangeKind::Activated]
                .iter()
                .filter_map(|kind| logged.clone().find(|one| one.kind == *kind))
                .collect(),
        };
        for change in shown {
            let label = match change.kind {
                ChangeKind::Uploaded => "Uploaded",
                ChangeKind::Renamed => "Renamed",
                ChangeKind::Activated => "Activated",
                ChangeKind::Deactivated => "Deactivated",
                ChangeKind::Deleted => "Deleted",
            };
            let fact = format!("{} {}", wording::day(change.at), change.details());
            self.facts.push((label, fact.trim_end().to_owned()));
        }
    }

    fn advise(&mut self, advice: Advice) {
        (self.advice, self.general_advice) = (advice.steps, advice.general);
    }
}

/// `no successor in 2 projects`.
fn coverage(active: &ActiveIn) -> Option<String> {
    match (active.projects_here(), active.without_successor) {
        (0, _) => None,
        (1, 0) => Some("its project has a successor".to_owned()),
        (_, 0) => Some("a successor is active in every project".to_owned()),
        (n, without) if n == without => Some("no successor".to_owned()),
        (_, without) => Some(format!("no successor in {}", wording::count(without, "project"))),
    }
}

/// The state of a project in which a certificate was deactivated, deleted or replaced.
fn after_its_end(project: &ProjectView) -> String {
    match (&project.successor_id, project.unprotected_since, project.uncovered_from) {
        (_, Some(_), _) => "no longer enforces mutual TLS".to_owned(),
        (Some(valid), ..) => format!("{valid} is valid"),
        (None, None, Some(from)) => format!("no valid certificate since {}", wording::day(from)),
        (None, None, None) => "no valid certificate".to_owned(),
    }
}
