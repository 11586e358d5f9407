//! The text of an alert about projects.

use super::{
    Entry, List,
    advice::{UNCOVERED, UNPROTECTED, activate},
    facts::reason,
};
use crate::message::{Alert, Event, ProjectView, ProjectsView, wording};

impl Entry {
    pub(super) fn describe_projects(
        &mut self,
        alert: &Alert,
        projects: &ProjectsView,
        shown: usize,
    ) {
        let over = alert.event.is_resolution();
        let unprotected =
            matches!(alert.event, Event::ProjectUnprotected | Event::ProjectProtected);
        if alert.loses_coverage() {
            self.consequence = Some(UNPROTECTED.to_owned());
        }
        if !over {
            let breaks = if unprotected { UNPROTECTED } else { UNCOVERED };
            self.consequence = Some(breaks.to_owned());
            if let Some(why) = reason(alert) {
                self.facts.push(("Reason", why));
            }
        }
        if projects.remaining > 0 {
            let rest = wording::count(projects.remaining, "other project");
            let has = if projects.remaining == 1 { "has" } else { "have" };
            let what = if unprotected { "active" } else { "valid" };
            self.facts.push(("Still open", format!("{rest} still {has} no {what} certificate")));
        }
        let mut title = wording::count(projects.total, "project");
        if projects.elsewhere > 0 {
            let others = wording::count(projects.elsewhere, "other");
            title.push_str(&format!(" of yours and {others}"));
        }
        let state = |project: &ProjectView| {
            let since = project.uncovered_from.or(project.unprotected_since);
            match (&project.successor_id, since) {
                (Some(valid), _) => format!("{valid} is valid"),
                (None, Some(from)) => {
                    let deactivated = project.deactivated.as_ref().filter(|_| !over);
                    let who = deactivated.map(|change| format!("; {}", change.headline()));
                    format!("since {}{}", wording::day(from), who.unwrap_or_default())
                }
                (None, None) if over => String::new(),
                (None, None) if unprotected => "never seen with an active certificate".to_owned(),
                (None, None) => "none of its certificates is valid yet".to_owned(),
            }
        };
        let (total, all) = (projects.total, &projects.listed);
        self.lists.push(List::of_projects(title, total, shown, all, state));
        if over {
            return;
        }
        self.advice = activate(&projects.candidates, &projects.listed, false, None);
        if unprotected {
            if self.advice.is_empty() {
                let first = "Upload a certificate, and activate it in each of these projects or \
                             for the whole organization.";
                self.advice.push(first.to_owned());
            }
            let is_known = projects.listed.iter().all(|project| project.deactivated.is_some());
            let ask = match is_known {
                true => {
                    "Ask who deactivated the last certificate, or the owner of that key, for the reason."
                }
                false => {
                    "Look up in the organization’s audit log who deactivated the last certificate, and why."
                }
            };
            let steps = [
                ask,
                "If mutual TLS is off on purpose, add the projects to unprotected_ignore in the \
                 configuration.",
            ];
            self.advice.extend(steps.map(str::to_owned));
        } else {
            if self.advice.is_empty() {
                let first =
                    "Upload a new CA certificate, and activate it in each of these projects.";
                self.advice.push(first.to_owned());
            }
            let steps = [
                "Issue client certificates that the new CA certificate signs, and give them to the clients.",
                "Deactivate the certificates that have expired.",
            ];
            self.advice.extend(steps.map(str::to_owned));
        }
    }
}
