//! `certvigil drill`: the confirmations of each receiver, and a drill on request.

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use comfy_table::{Cell, Table};
use serde_json::json;
use std::path::Path;

use super::{
    Failure, TableOutput, state,
    terminal::{self, Tint},
};
use crate::{
    clock::Clock,
    config::Needs,
    domain::{day::rfc3339, drill::Drilled, threshold::Severity},
    store::Job,
    usecase::{
        drill::Settings,
        follow_link::{self, OpenedLink},
    },
};

#[derive(Subcommand)]
pub enum Command {
    /// List the latest drill and confirmation of each receiver
    Status(Status),
    /// Start a drill now
    Start,
    /// Confirm a drill
    Confirm {
        /// The ID from the message of the drill, or its link
        id: String,
    },
}

#[derive(Args)]
pub struct Status {
    #[arg(long, value_enum, default_value_t = TableOutput::Table)]
    output: TableOutput,
}

pub async fn main(file: Option<&Path>, command: Command) -> Result<(), Failure> {
    let loaded = super::start(file, Needs::default())?;
    let (store, now) = (state::open(&loaded.config).await?, Clock::System.now());
    let settings = loaded.config.drill.as_ref();
    match command {
        Command::Status(arguments) => {
            let drilled = store.drilled().await?;
            status(&arguments, settings, &drilled, now)?;
        }
        Command::Start => {
            let off = || anyhow!("drills are off: set drill.cron in the configuration");
            settings.ok_or_else(off)?;
            store.ask_for(Job::Drill, now).await?;
            super::print(
                "the service starts this drill within seconds if it runs with this configuration, or at its \
                 next start\n",
            )?;
        }
        Command::Confirm { id } => {
            // Messages with a link do not contain the ID itself.
            let id = id.rsplit('/').next().unwrap_or_default();
            let link = match follow_link::open(&store, id, now).await? {
                OpenedLink::Confirm(link) => link,
                OpenedLink::Acknowledge(_) => {
                    return Err(anyhow!("this is the link of an alert, not of a drill").into());
                }
            };
            let by = link.by.clone();
            follow_link::confirm(&store, link, now).await?;
            super::print(&format!("confirmed: messages reach {by}\n"))?;
        }
    }
    Ok(())
}

fn status(
    arguments: &Status,
    settings: Option<&Settings>,
    drilled: &[Drilled],
    now: DateTime<Utc>,
) -> Result<(), Failure> {
    let next = settings.and_then(|settings| settings.cron.next_after(now));
    if arguments.output == TableOutput::Json {
        let receivers = drilled.iter().map(|one| {
            json!({
                "notifier": one.notifier,
                "receiver": one.receiver,
                "state": state(one, now).0,
                "drill_at": rfc3339(one.sent_at),
                "confirm_by": one.unconfirmed.map(|one| rfc3339(one.until)),
                "confirmed_at": one.confirmed_at.map(rfc3339),
            })
        });
        let document = json!({
            "schema": "certvigil.drills/1",
            "next_at": next.map(rfc3339),
            "receivers": receivers.collect::<Vec<_>>(),
        });
        super::print(&format!("{document:#}\n"))?;
        return Ok(());
    }
    match drilled {
        [] => super::print("No drills yet.\n")?,
        drilled => super::print(&terminal::lines(&table(drilled, now)))?,
    }
    let next = match next {
        Some(next) => format!("Next drill: {}\n", next.format("%Y-%m-%d %H:%M UTC")),
        None => "Drills are off: set drill.cron in the configuration.\n".to_owned(),
    };
    super::print(&next)?;
    Ok(())
}

/// The state of a receiver, with its color.
fn state(drilled: &Drilled, now: DateTime<Utc>) -> (&'static str, Tint) {
    match drilled.unconfirmed {
        None => ("confirmed", Tint::Well),
        Some(_) if drilled.is_unproven(now) => ("unproven", Tint::Of(Severity::Warning)),
        Some(_) => ("unconfirmed", Tint::Plain),
    }
}

fn table(drilled: &[Drilled], now: DateTime<Utc>) -> Table {
    let columns = ["NOTIFIER", "RECEIVER", "STATE", "DRILL (UTC)", "CONFIRM BY", "CONFIRMED"];
    let mut table = terminal::table(&columns, &["NOTIFIER", "STATE", "DRILL (UTC)"]);
    let time = |at: Option<DateTime<Utc>>| {
        Cell::new(at.map_or("-".to_owned(), |at| at.format("%Y-%m-%d %H:%M").to_string()))
    };
    for one in drilled {
        let (word, tint) = state(one, now);
        table.add_row([
            Cell::new(&one.notifier),
            Cell::new(&one.receiver),
            terminal::cell(word.to_owned(), tint),
            time(Some(one.sent_at)),
            time(one.unconfirmed.map(|one| one.until)),
            time(one.confirmed_at),
        ]);
    }
    table
}
