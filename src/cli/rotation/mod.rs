//! `certvigil rotation`: the progress of replacing a certificate, and the next requests. It reads
//! the API now and sends only `GET`.

mod request;
mod text;

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::Args;
use std::path::Path;

use super::{Failure, TextOutput, read, rfc3339, state};
use crate::{
    clock::Clock,
    config::Needs,
    domain::{
        acknowledgement::Acknowledgements,
        certificate::{Certificate, OrganizationName},
        coverage,
        evaluate::{Assessment, Evaluation, evaluate},
        rotation::{
            RotationStep,
            plan::{Place, PlaceProgress, Plan, Progress},
        },
    },
    message::wording,
    usecase::organization::OrganizationState,
};
use request::{Api, Request};

#[derive(Args)]
pub struct Arguments {
    /// The certificate to replace: its id, or its name if unique
    certificate: String,
    /// The successor; by default an active certificate that expires later, else the most likely
    /// candidate
    #[arg(long, value_name = "CERT")]
    successor: Option<String>,
    /// The organization, if several have this certificate
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
    #[arg(long, value_enum, default_value_t = TextOutput::Text)]
    output: TextOutput,
}

pub async fn main(file: Option<&Path>, arguments: &Arguments) -> Result<(), Failure> {
    let needs = Needs { organizations: true, ..Needs::default() };
    let loaded = super::start(file, needs)?;
    super::print_source(&loaded);
    let config = loaded.config;
    let targets = read::targets(&config)?;
    let name = arguments.organization.as_deref();
    let asked = targets
        .iter()
        .filter(|one| name.is_none_or(|name| one.api.organization().as_str() == name));
    // Contents that the service has read are not requested again.
    let store = state::open(&config).await.ok();
    let read = read::read(asked, store.as_ref()).await.map_err(anyhow::Error::from)?;
    let now = Clock::System.now() + read.iter().find_map(|one| one.skew).unwrap_or_default();
    let known: Vec<OrganizationState> = read
        .iter()
        .map(|one| OrganizationState {
            organization: one.target.api.organization().clone(),
            policy: one.target.policy.clone(),
            before: one.inventory.clone(),
            inventory: one.inventory.clone(),
            acknowledgements: Acknowledgements::default(),
            notifiers: Vec::new(),
        })
        .collect();
    for one in &known {
        for (scope, fault) in one.inventory.faults() {
            eprintln!("warning: {}: {scope} could not be read: {}", one.organization, fault.why);
        }
    }
    let (of, certificate) = state::find(&known, &arguments.certificate, name)?;
    let evaluation =
        evaluate(&of.organization, &of.inventory, &of.policy, &of.acknowledgements, now);
    let assessment = evaluation
        .assessment(&certificate.id)
        .context("the certificate is not in the inventory")?;
    let successor = match &arguments.successor {
        Some(text) => {
            let only = std::slice::from_ref(of);
            let (_, successor) = state::find(only, text, None).context("--successor")?;
            can_take_over(successor, &assessment, now)?;
            Some(successor)
        }
        None => None,
    };
    let settings = config.organizations.iter().find(|one| one.api.organization == of.organization);
    let settings = settings.context("the organization is not configured")?;
    let target = read.iter().find(|one| *one.target.api.organization() == of.organization);
    let page = Page {
        evaluation: &evaluation,
        plan: evaluation.plan(&assessment, successor),
        api: Api {
            base: settings.api.base_url.clone(),
            shows_certificate: settings.api.identity.is_some(),
        },
        watches_all: target.is_some_and(|one| one.target.selection.is_everything()),
        now,
    };
    super::print(&match arguments.output {
        TextOutput::Text => page.text()?,
        TextOutput::Json => format!("{:#}\n", page.document()),
    })
}

/// Rejects a certificate that cannot be the successor.
fn can_take_over(
    successor: &Certificate,
    assessment: &Assessment<'_>,
    now: DateTime<Utc>,
) -> anyhow::Result<()> {
    let old = assessment.certificate;
    anyhow::ensure!(successor.id != old.id, "--successor: a certificate does not replace itself");
    let end = old.expires_at.unwrap_or(now);
    let margin = assessment.ruling.steps.widest();
    anyhow::ensure!(
        coverage::outlives(successor, end, margin, now),
        "--successor: “{}” ({}) {} and cannot take over on {}: it must be valid then, and expire \
         more than {} later (the first threshold)",
        successor.title(),
        successor.id,
        successor.expires_at.map_or("has no known expiry".to_owned(), |at| format!(
            "expires on {}",
            wording::day(at)
        )),
        wording::day(end.max(now)),
        wording::span(margin),
    );
    Ok(())
}

struct Page<'a> {
    evaluation: &'a Evaluation<'a>,
    plan: Plan<'a>,
    api: Api,
    /// Whether every project of the organization is watched.
    watches_all: bool,
    now: DateTime<Utc>,
}

/// The steps in order.
const STEPS: [RotationStep; 5] = [
    RotationStep::Upload,
    RotationStep::Activate,
    RotationStep::MoveClients,
    RotationStep::Deactivate,
    RotationStep::Delete,
];

impl Page<'_> {
    fn organization(&self) -> &OrganizationName {
        self.evaluation.organization
    }

    /// The requests of a step that are safe now.
    fn requests(&self, step: RotationStep) -> Vec<Request> {
        let plan = &self.plan;
        match step {
            RotationStep::Upload if plan.progress(step) == Progress::Next => {
                vec![Request::upload(plan.certificate)]
            }
            RotationStep::Activate => {
                let places = plan.places.iter();
                places
                    .filter_map(|one| Some(Request::activate(one.place, one.candidate?)))
                    .collect()
            }
            RotationStep::Deactivate => {
                let places = plan.places.iter().filter(|one| one.can_deactivate);
                places.map(|one| Request::deactivate(one.place, plan.certificate)).collect()
            }
            RotationStep::Delete if plan.progress(step) == Progress::Next => {
                vec![Request::delete(plan.certificate)]
            }
            RotationStep::Upload | RotationStep::MoveClients | RotationStep::Delete => Vec::new(),
        }
    }

    fn document(&self) -> serde_json::Value {
        let certificate = |one: &Certificate| {
            serde_json::json!({
                "id": one.id, "name": one.name, "expires_at": one.expires_at.map(rfc3339),
            })
        };
        let steps = STEPS.map(|step| {
            let requests = self.requests(step);
            let requests: Vec<_> = requests.iter().map(|one| one.document(&self.api)).collect();
            serde_json::json!({
                "step": step, "progress": self.plan.progress(step), "requests": requests,
            })
        });
        let place = |one: &PlaceProgress<'_>| {
            let project = match one.place {
                Place::Organization => None,
                Place::Project(project) => Some(project),
            };
            serde_json::json!({
                "project_id": project.map(|project| &project.id),
                "project_name": project.and_then(|project| project.name.as_ref()),
                "successor_id": one.successor.map(|one| &one.id),
                "candidate_id": one.candidate.map(|one| &one.id),
                "read": one.is_read,
            })
        };
        serde_json::json!({
            "schema": "certvigil.rotation/1",
            "read_at": rfc3339(self.now),
            "organization": self.organization(),
            "complete": self.plan.is_complete,
            "certificate": certificate(self.plan.certificate),
            "candidates": self.plan.candidates.iter().map(|one| certificate(one)).collect::<Vec<_>>(),
            "active_in": self.plan.places.iter().map(place).collect::<Vec<_>>(),
            "steps": steps,
        })
    }
}
