//! `certvigil ack`, `acks` and `unack`: silences a certificate, or a project without mutual TLS,
//! until a date.

use clap::Args;
use serde_json::json;
use std::path::Path;

use super::{Failure, TableOutput, rfc3339, state, terminal};
use crate::{
    clock::Clock,
    config::Needs,
    domain::{
        acknowledgement::{Acknowledgement, NewAcknowledgement, Refusal},
        certificate::{Certificate, OrganizationName, Project},
        day,
        inventory::Inventory,
        subject::Subject,
        text::one_line,
    },
    usecase::acknowledge::{self, AcknowledgeError, Target},
};

#[derive(Args)]
pub struct Ack {
    /// The certificate's id, or its name if unique
    #[arg(required_unless_present = "project")]
    certificate: Option<String>,
    /// A project that does not enforce mutual TLS: its id, or its name if unique
    #[arg(long, value_name = "PROJECT", conflicts_with = "certificate")]
    project: Option<String>,
    /// The end of the acknowledgement: a date (2027-03-01, including that day), a duration (30d,
    /// including the last day), today, tomorrow, or a time (2027-03-01T12:00:00Z)
    #[arg(long, value_name = "DATE")]
    until: String,
    /// The reason, for other operators
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The person who acknowledges
    #[arg(long, value_name = "WHO", env = "USER")]
    by: Option<String>,
    /// The organization, if several have this certificate or project
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
}

#[derive(Args)]
pub struct Unack {
    /// The certificate's id, or its name if unique
    #[arg(required_unless_present = "project")]
    certificate: Option<String>,
    /// A project: its id, or its name if unique
    #[arg(long, value_name = "PROJECT", conflicts_with = "certificate")]
    project: Option<String>,
    /// The organization, if several have this certificate or project
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
}

#[derive(Args)]
pub struct Acks {
    /// Include ended acknowledgements
    #[arg(long)]
    all: bool,
    #[arg(long, value_enum, default_value_t = TableOutput::Table)]
    output: TableOutput,
}

pub async fn ack(file: Option<&Path>, arguments: &Ack) -> Result<(), Failure> {
    let config = super::start(file, Needs::default())?.config;
    let now = Clock::System.now();
    let until = day::until(&arguments.until, now, config.timezone).ok_or_else(|| {
        let found = one_line(&arguments.until, 60);
        Failure::Usage(format!(
            "--until: found “{found}”, expected a date (2027-03-01), a duration (30d), today, \
             tomorrow, or a time (2027-03-01T12:00:00Z)"
        ))
    })?;
    let (store, known) = state::load(&config, now).await?;
    let name = arguments.organization.as_deref();
    let new = NewAcknowledgement {
        id: None,
        until,
        reason: arguments.reason.clone(),
        by: arguments.by.clone(),
    };
    let (of, target, title) = match &arguments.project {
        Some(project) => {
            let (of, project) = state::find_project(&known, project, name)?;
            (of, Target::Project(project.id.to_string()), project_title(project))
        }
        None => {
            let certificate = arguments.certificate.as_deref().unwrap_or_default();
            let (of, certificate) = state::find(&known, certificate, name)?;
            (of, Target::Certificate(certificate.id.to_string()), certificate_title(certificate))
        }
    };
    let organization = &of.organization;
    let stored = acknowledge::acknowledge(&store, organization, &of.policy, &target, &new, now);
    let one = stored.await.map_err(refused)?;
    let until = day::end(one.acknowledgement.until, config.timezone);
    let mut out = format!("{organization}: {title} is acknowledged until {until}");
    if matches!(target, Target::Project(_)) {
        return super::print(&format!("{out} (missing mutual TLS)\n"));
    }
    out.push('\n');
    if one.replaced {
        out.push_str(
            "Every project has a successor. If a project loses its successor, the alert returns.\n",
        );
    }
    if let Some((label, from)) = &one.last_threshold {
        let from = day::local(*from, config.timezone);
        out.push_str(&format!(
            "Warning: this does not silence the last threshold ({label}), which starts on {from}.\n"
        ));
    }
    if one.ignored {
        out.push_str("An ignore rule silences this certificate anyway.\n");
    }
    super::print(&out)
}

fn certificate_title(certificate: &Certificate) -> String {
    format!("“{}” ({})", certificate.title(), certificate.id)
}

fn project_title(project: &Project) -> String {
    format!("the project “{}” ({})", project.title(), project.id)
}

fn refused(error: AcknowledgeError) -> Failure {
    match &error {
        AcknowledgeError::Refused(Refusal::Passed(_)) => {
            Failure::Usage(format!("--until: {error}"))
        }
        AcknowledgeError::Refused(Refusal::NoReason) => {
            Failure::Usage(format!("--reason: {error}"))
        }
        _ => Failure::Failed(error.into()),
    }
}

pub async fn unack(file: Option<&Path>, arguments: &Unack) -> Result<(), Failure> {
    let config = super::start(file, Needs::default())?.config;
    let now = Clock::System.now();
    let (store, known) = state::load(&config, now).await?;
    let name = arguments.organization.as_deref();
    let (of, title, one) = match &arguments.project {
        Some(project) => {
            let (of, project) = state::find_project(&known, project, name)?;
            let one = of.acknowledgements.of_project(&project.id);
            (of, project_title(project), one)
        }
        None => {
            let certificate = arguments.certificate.as_deref().unwrap_or_default();
            let (of, certificate) = state::find(&known, certificate, name)?;
            let title = certificate_title(certificate);
            (of, title, of.acknowledgements.of_certificate(&certificate.id))
        }
    };
    let held = match one {
        Some(one) => store.withdraw(one.id, now).await?,
        None => false,
    };
    if !held {
        return Err(anyhow::anyhow!("{title} is not acknowledged").into());
    }
    super::print(&format!(
        "{}: {title} is no longer acknowledged. If its alert still applies, the next scan sends it \
         again.\n",
        of.organization
    ))
}

/// The kind and the current name of an acknowledged certificate or project.
struct Acknowledged {
    kind: &'static str,
    id: String,
    name: Option<String>,
}

impl Acknowledged {
    fn of(one: &Acknowledgement, inventory: &Inventory) -> Acknowledged {
        match &one.subject {
            Subject::Protection(id) => Acknowledged {
                kind: "project",
                id: id.to_string(),
                name: inventory.projects.get(id).map(|project| project.title().to_owned()),
            },
            Subject::Certificate(id) => Acknowledged {
                kind: "certificate",
                id: id.to_string(),
                name: inventory.certificates.get(id).map(|one| one.title().to_owned()),
            },
            other => Acknowledged { kind: "other", id: other.to_string(), name: None },
        }
    }
}

pub async fn acks(file: Option<&Path>, arguments: &Acks) -> Result<(), Failure> {
    let config = super::start(file, Needs::default())?.config;
    let now = Clock::System.now();
    let store = state::open(&config).await?;
    let mut rows: Vec<(OrganizationName, Acknowledged, Acknowledgement)> = Vec::new();
    for organization in &config.organizations {
        let name = &organization.api.organization;
        let inventory = store.inventory(name).await?;
        for one in acknowledge::list(&store, name, arguments.all, now).await? {
            rows.push((name.clone(), Acknowledged::of(&one, &inventory), one));
        }
    }
    match arguments.output {
        TableOutput::Json => {
            let entries: Vec<_> = rows
                .iter()
                .map(|(organization, what, one)| {
                    let Acknowledged { kind, id, name } = what;
                    json!({
                        "id": one.id,
                        "organization": organization,
                        *kind: { "id": id, "name": name },
                        "reason": one.reason,
                        "by": one.by,
                        "created_at": rfc3339(one.created_at),
                        "until": rfc3339(one.until),
                        "ended_at": one.ended_at(now).map(rfc3339),
                        "ending": one.ended.map(|(_, ending)| ending),
                    })
                })
                .collect();
            let document = json!({
                "schema": "certvigil.acknowledgements/1", "acknowledgements": entries,
            });
            super::print(&format!("{document:#}\n"))
        }
        TableOutput::Table if rows.is_empty() => super::print("No acknowledgements.\n"),
        TableOutput::Table => {
            let mut header =
                vec!["UNTIL", "ORGANIZATION", "KIND", "NAME", "ID", "BY", "SINCE", "REASON"];
            header.extend(arguments.all.then_some("ENDED"));
            let mut table = terminal::table(&header, &["UNTIL", "ORGANIZATION", "SINCE"]);
            for (organization, what, one) in &rows {
                let mut cells = vec![
                    day::local(one.until, config.timezone),
                    organization.to_string(),
                    what.kind.to_owned(),
                    what.name.clone().unwrap_or_else(|| "-".to_owned()),
                    what.id.clone(),
                    one.by.clone().unwrap_or_else(|| "-".to_owned()),
                    day::local(one.created_at, config.timezone),
                    one.reason.clone(),
                ];
                if arguments.all {
                    let why = one.ended.map_or("on its date", |(_, ending)| ending.as_str());
                    let ended = one.ended_at(now);
                    let ended =
                        ended.map(|at| format!("{} {why}", day::local(at, config.timezone)));
                    cells.push(ended.unwrap_or_else(|| "-".to_owned()));
                }
                table.add_row(cells);
            }
            super::print(&terminal::lines(&table))
        }
    }
}
