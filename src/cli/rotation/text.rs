//! A rotation as text: the five steps, their progress, and the requests for the next ones.

use std::fmt::Write;

use super::{Page, STEPS};
use crate::{
    domain::{
        certificate::Certificate,
        rotation::{
            RotationStep,
            plan::{Place, PlaceProgress, Progress},
        },
    },
    message::wording,
};

/// The number of candidates listed.
const CANDIDATES: usize = 5;

impl Page<'_> {
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        let old = self.plan.certificate;
        let expires = old.expires_at.map(|at| format!("it {}", wording::expiry(at, self.now)));
        let expires = expires.unwrap_or("its expiry is unknown".to_owned());
        writeln!(
            out,
            "Rotation of {} of the organization {}: {expires}",
            title(old),
            self.organization()
        )?;
        self.candidates(&mut out)?;
        for (index, step) in STEPS.into_iter().enumerate() {
            writeln!(out, "\n{}. {}", index + 1, self.heading(step))?;
            for one in self.plan.places.iter() {
                if let Some(line) = self.line(step, one) {
                    writeln!(out, "   {}: {line}", place(one.place))?;
                }
            }
            for request in self.requests(step) {
                writeln!(out, "\n     {}", request.command(&self.api))?;
            }
        }
        writeln!(
            out,
            "\nThe requests need a key with the scope api.mtls.write in OPENAI_ADMIN_KEY. certvigil does not send these requests.\n\
             certvigil cannot see filters (CEL) on trust anchors: check them yourself."
        )?;
        Ok(out)
    }

    fn candidates(&self, out: &mut String) -> std::fmt::Result {
        if self.plan.places.iter().all(|one| one.candidate.is_none()) {
            return Ok(());
        }
        let candidates = &self.plan.candidates;
        writeln!(out, "Candidates, most likely first (choose one with --successor)")?;
        for one in candidates.iter().take(CANDIDATES) {
            writeln!(out, "   {}{}", title(one), until(one))?;
        }
        if let more @ 1.. = candidates.len().saturating_sub(CANDIDATES) {
            writeln!(out, "   and {more} more")?;
        }
        Ok(())
    }

    /// A step with its progress.
    fn heading(&self, step: RotationStep) -> String {
        let plan = &self.plan;
        let progress = plan.progress(step);
        let places = plan.places.len();
        let ready = plan.places.iter().filter(|one| one.can_deactivate).count();
        let what = match step {
            RotationStep::Upload => "Upload the successor",
            RotationStep::Activate => "Activate the successor, and keep the old certificate active",
            RotationStep::MoveClients => {
                "Move the clients to certificates that the successor signed"
            }
            RotationStep::Deactivate => "Deactivate the old certificate",
            RotationStep::Delete => "Delete the old certificate",
        };
        let how = match (step, progress) {
            (RotationStep::Upload, Progress::Done) => match plan.successor() {
                Some(one) => format!("done: {}{}", title(one), until(one)),
                None => "done".to_owned(),
            },
            (RotationStep::Upload, _) => {
                "next: no uploaded certificate is valid in time and expires later".to_owned()
            }
            (RotationStep::Activate, Progress::Next) => "next".to_owned(),
            (RotationStep::MoveClients, Progress::Unseen) => {
                let key = match plan.clients_pass() {
                    Some(true) => {
                        "The successor has the same name and key: clients need no change, unless a \
                         filter of the successor rejects them"
                    }
                    Some(false) => {
                        "The successor has another name or key: issue client certificates that it \
                         signs"
                    }
                    None => {
                        "If the successor has the same name and key as the old certificate, clients \
                         need no change"
                    }
                };
                format!("next. certvigil cannot see clients: check your own logs. {key}")
            }
            (RotationStep::MoveClients, Progress::Done) if plan.expired && places > 0 => {
                "done: it has expired, so no client can use it".to_owned()
            }
            (RotationStep::MoveClients, Progress::Done) if places > 0 => {
                "clients need no change, unless a filter of the successor rejects them: the \
                 successor has the same name and key"
                    .to_owned()
            }
            (RotationStep::Deactivate, Progress::Next) => {
                let after = match plan.progress(RotationStep::MoveClients) {
                    Progress::Done => "next",
                    _ => "after the clients have moved",
                };
                match ready == places {
                    true => after.to_owned(),
                    false => format!("{after}, where the successor is active"),
                }
            }
            (RotationStep::Delete, Progress::Next) => "next".to_owned(),
            (RotationStep::Delete, Progress::Unseen) => {
                "it is not active anywhere. If another certificate replaced it, name that \
                 certificate with --successor"
                    .to_owned()
            }
            (_, Progress::Done) => "done".to_owned(),
            (_, Progress::Later) => "later".to_owned(),
            (_, Progress::Next | Progress::Unseen) => "next".to_owned(),
        };
        let unwatched = step == RotationStep::Deactivate
            && !self.watches_all
            && plan.places.iter().any(|one| matches!(one.place, Place::Organization));
        let note = match unwatched {
            true => {
                "\n   certvigil does not watch every project of this organization: first check \
                 that the successor is active for the organization."
            }
            false => "",
        };
        format!("{what}: {how}{note}")
    }

    /// The progress of a step in one place; `None` if the heading is enough.
    fn line(&self, step: RotationStep, one: &PlaceProgress<'_>) -> Option<String> {
        match step {
            RotationStep::Activate => Some(match (one.successor, one.candidate) {
                (Some(successor), _) => format!("{} is active", successor.id),
                (None, Some(candidate)) => format!("activate {}", candidate.id),
                (None, None) => "nothing to activate yet".to_owned(),
            }),
            RotationStep::Deactivate if !one.is_read => Some(
                "not yet: the certificate list of the project or organization is unreadable"
                    .to_owned(),
            ),
            RotationStep::Deactivate if !one.can_deactivate => Some(match one.successor {
                Some(successor) => format!("not yet: {} is active but not valid yet", successor.id),
                None => "not yet: no other active certificate expires later".to_owned(),
            }),
            RotationStep::Deactivate
            | RotationStep::Upload
            | RotationStep::MoveClients
            | RotationStep::Delete => None,
        }
    }
}

fn title(certificate: &Certificate) -> String {
    wording::with_id(certificate.name.as_ref(), &certificate.id)
}

fn until(certificate: &Certificate) -> String {
    certificate.expires_at.map_or(String::new(), |at| format!(", expires {}", wording::day(at)))
}

fn place(place: Place<'_>) -> String {
    match place {
        Place::Organization => "the organization".to_owned(),
        Place::Project(project) => format!("{} ({})", project.title(), project.id),
    }
}
