//! An explanation as text: the certificate, its projects, its ladder, the notifiers, and the sent
//! notifications.

use chrono::{DateTime, TimeDelta, Utc};
use std::fmt::Write;

use super::{
    super::terminal::{self, lines},
    Page,
};
use crate::{
    domain::{day, owner},
    message::{ProjectView, wording},
    store::SentNotification,
    view::{Explanation, change_lines, content_lines},
};

impl Page<'_> {
    fn at(&self, at: DateTime<Utc>) -> String {
        let utc = at.format("%Y-%m-%d %H:%M UTC").to_string();
        if self.config.timezone == chrono_tz::UTC {
            return utc;
        }
        format!("{utc} ({})", day::local(at, self.config.timezone))
    }

    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        self.certificate(&mut out)?;
        self.content(&mut out)?;
        self.changes(&mut out)?;
        self.projects(&mut out)?;
        self.ladder(&mut out)?;
        self.notifiers(&mut out)?;
        self.history(&mut out)?;
        Ok(out)
    }

    fn certificate(&self, out: &mut String) -> std::fmt::Result {
        let Explanation { certificate, organization, .. } = &self.explanation;
        writeln!(
            out,
            "“{}” ({}) in organization {organization}",
            certificate.title(),
            certificate.id
        )?;
        let mut line = |label: &str, text: String| writeln!(out, "  {label:<13}{text}");
        match (certificate.expires_at, certificate.strange_expiry) {
            (Some(at), _) => {
                line("expiry", format!("{}: it {}", self.at(at), wording::expiry(at, self.now)))?;
            }
            (None, Some(given)) => {
                let why = "which is not a time in Unix seconds before the year 10000";
                line("expiry", format!("unknown: the API reports {given}, {why}"))?;
            }
            (None, None) => line("expiry", "unknown: the API reports no expiry".to_owned())?,
        }
        let since =
            certificate.valid_at.map_or("not reported by the API".to_owned(), |at| self.at(at));
        line("valid from", since)?;
        match &self.scan {
            Some(scan) => {
                let how = if scan.complete { "complete" } else { "incomplete" };
                line("latest scan", format!("{}, {how}", self.at(scan.finished_at)))?;
            }
            None => line("latest scan", "none".to_owned())?,
        }
        if self.explanation.stale {
            let doubt = "the latest scan could not read a list with this certificate, so the data may be old";
            line("stale", doubt.to_owned())?;
        }
        match (&self.explanation.stage, self.explanation.severity) {
            (Some(stage), Some(severity)) => line("stage", format!("{stage}, {severity}"))?,
            _ => line("stage", self.why_none().to_owned())?,
        }
        if !certificate.owners.is_empty() {
            line("owner", owner::names(&certificate.owners))?;
        }
        if let Some(next) = certificate.next {
            let proposed = certificate.active_in.projects.iter().find(|one| one.next == Some(next));
            let candidate = proposed.and_then(|one| one.candidate.as_ref());
            line("next step", wording::next_step(next, candidate))?;
        }
        for candidate in &self.explanation.candidates {
            let what = match candidate.is_successor {
                true => "is the successor in other projects",
                false => "is uploaded",
            };
            let until = candidate.expires_at.map(|at| format!(", expires {}", wording::day(at)));
            line(
                "candidate",
                format!("{} {what}{}", candidate.title(), until.unwrap_or_default()),
            )?;
        }
        if let Some(view) = &certificate.ignored {
            let rule = self.explanation.ignored_by_rule;
            let rule = rule.map_or(String::new(), |rule| format!(" (rules[{rule}])"));
            line("ignored", format!("{}{rule}", wording::silence(view, self.config.timezone)))?;
        }
        if let Some(view) = &certificate.acknowledged {
            line("acknowledged", wording::silence(view, self.config.timezone))?;
        }
        Ok(())
    }

    fn content(&self, out: &mut String) -> std::fmt::Result {
        let lines = content_lines(&self.explanation.certificate, self.config.timezone);
        if let Some(why) = &self.explanation.content_failure {
            writeln!(out, "\nIts content could not be read: {why}")?;
        }
        if !lines.is_empty() {
            writeln!(out, "\nThe certificate itself")?;
        }
        for (label, value) in lines {
            writeln!(out, "  {label:<16}{value}")?;
        }
        Ok(())
    }

    fn changes(&self, out: &mut String) -> std::fmt::Result {
        let lines = change_lines(&self.explanation.certificate.changes);
        if let Some(why) = &self.explanation.audit_log_failure {
            writeln!(out, "\nThe audit log was not read completely: {why}")?;
        }
        if !lines.is_empty() {
            writeln!(out, "\nChanges, latest first")?;
        }
        for (at, text) in lines {
            writeln!(out, "  {}: {text}", self.at(at))?;
        }
        Ok(())
    }

    fn why_none(&self) -> &'static str {
        if self.explanation.watched {
            "none: no threshold reached yet"
        } else {
            "none: not active in any project"
        }
    }

    fn projects(&self, out: &mut String) -> std::fmt::Result {
        let active = &self.explanation.certificate.active_in;
        let scope = if active.organization { "the organization, and so in " } else { "" };
        writeln!(out, "\nActive in {scope}{}", wording::count(active.projects_total, "project"))?;
        let state = |project: &ProjectView| match (&project.successor_id, project.uncovered_from) {
            (Some(successor), _) => format!("{successor} takes over"),
            (None, Some(from)) if from <= self.now => {
                format!("no valid certificate since {}", self.at(from))
            }
            (None, Some(from)) => format!("no valid certificate from {}", self.at(from)),
            (None, None) => "the expiry of its last valid certificate is unknown".to_owned(),
        };
        for project in &active.projects {
            let next = project.next.map_or(String::new(), |next| {
                format!("; next: {}", wording::next_step(next, project.candidate.as_ref()))
            });
            writeln!(out, "  {} ({}): {}{next}", project.title(), project.id, state(project))?;
        }
        let more = active.projects_total - active.projects.len();
        if more > 0 {
            writeln!(out, "  and {more} more")?;
        }
        for project in &self.explanation.unprotected {
            let since = project.unprotected_since.map(|at| format!(" since {}", self.at(at)));
            writeln!(
                out,
                "  Not active in {} ({}), which has no active certificate{}: mutual TLS is off \
                 in this project",
                project.title(),
                project.id,
                since.unwrap_or_default()
            )?;
        }
        if self.explanation.replaced {
            writeln!(
                out,
                "  Every project has a successor, so alerts about this certificate are less \
                 severe and not repeated."
            )?;
        }
        Ok(())
    }

    fn ladder(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n{}", self.explanation.ladder_source())?;
        if let Some(lifetime) = self.explanation.describe_lifetime() {
            writeln!(out, "  {lifetime}")?;
        }
        let mut table = terminal::table(&[], &[]);
        for step in &self.explanation.ladder {
            let week = TimeDelta::days(7);
            let weekly = if step.stage == "expired" { ", weekly after a week" } else { "" };
            let repeat = match step.repeat() {
                None => String::new(),
                Some(repeat) if repeat >= week => {
                    format!("repeats every {}", wording::span(repeat))
                }
                Some(repeat) => format!("repeats every {}{weekly}", wording::span(repeat)),
            };
            table.add_row([
                format!(" {}", step.stage),
                step.at.map_or("-".to_owned(), |at| self.at(at)),
                step.severity.to_string(),
                if step.reached { "reached" } else { "" }.to_owned(),
                repeat,
            ]);
        }
        out.push_str(&lines(&table));
        Ok(())
    }

    fn notifiers(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nNotifiers")?;
        for outlook in &self.explanation.notifiers {
            let known = match &outlook.sent {
                Some(sent) => {
                    let mut its = self.notifications.iter();
                    let latest = its.find(|one| outlook.got(&one.notification));
                    let is_pending = latest.is_some_and(SentNotification::is_pending);
                    format!("; last alert: {}", sent.describe(|at| self.at(at), is_pending))
                }
                None => "; no open alert".to_owned(),
            };
            writeln!(out, "  {}: {}{known}", outlook.title(), outlook.status.describe())?;
            let recipients = self.config.notifiers.recipients(&outlook.name, &outlook.audience);
            if let Some(recipients) = recipients {
                writeln!(out, "    to {}", recipients.addresses().join(", "))?;
            }
            if outlook.upcoming.is_empty() {
                writeln!(out, "    no upcoming alerts, if nothing changes")?;
            }
            for coming in &outlook.upcoming {
                writeln!(out, "    next {}", coming.describe(|at| self.at(at)))?;
            }
        }
        Ok(())
    }

    fn history(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nSent notifications, newest first")?;
        let mut table = terminal::table(&[], &[]);
        for sent in &self.notifications {
            let Some(alert) = self.alert(sent) else { continue };
            let states: Vec<String> =
                sent.deliveries.iter().map(|(state, n)| format!("{n} {state}")).collect();
            table.add_row([
                format!(" {}", self.at(sent.notification.created_at)),
                sent.notification.audience.title_of(&sent.notification.notifier),
                alert.event.to_string(),
                alert.stage.clone().unwrap_or_default(),
                alert.reason.map_or(String::new(), |reason| reason.to_string()),
                states.join(", "),
            ]);
        }
        if table.is_empty() {
            writeln!(out, "  none")?;
        } else {
            out.push_str(&lines(&table));
        }
        Ok(())
    }
}
