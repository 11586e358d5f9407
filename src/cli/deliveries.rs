//! `certvigil deliveries`: sent, pending and failed deliveries.

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
    domain::{
        delivery::{DeliveryRow, DeliveryState},
        threshold::Severity,
    },
    store::Which,
    view::Delivery,
};

#[derive(Args)]
pub struct Arguments {
    /// List only rejected and given-up deliveries, and pending ones that failed
    #[arg(long)]
    failed: bool,
    /// Maximum number of deliveries, newest first
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    #[arg(long, value_enum, default_value_t = TableOutput::Table)]
    output: TableOutput,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Retry a failed or pending delivery now
    Retry {
        /// The delivery's id, or its first characters (at least 4)
        id: String,
    },
}

pub async fn main(file: Option<&Path>, arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Some(Command::Retry { id }) => retry(file, id).await,
        None => list(file, arguments).await,
    }
}

async fn retry(file: Option<&Path>, id: &str) -> Result<(), Failure> {
    let loaded = super::start(file, Needs::default())?;
    let store = state::open(&loaded.config).await?;
    let now = Clock::System.now();
    let id = store.retry(id, now, now + loaded.config.delivery.give_up_after).await?;
    super::print(&format!("{id}: the service retries this delivery now, or at its next start\n"))?;
    Ok(())
}

async fn list(file: Option<&Path>, arguments: &Arguments) -> Result<(), Failure> {
    let loaded = super::start(file, Needs::default())?;
    let store = state::open(&loaded.config).await?;
    let which = Which { failed: arguments.failed, ..Which::default() };
    let rows = store.deliveries(&which, arguments.limit).await?;
    match arguments.output {
        TableOutput::Json => {
            let deliveries: Vec<_> = rows.into_iter().map(Delivery::from).collect();
            let document = json!({ "schema": "certvigil.deliveries/1", "deliveries": deliveries });
            super::print(&format!("{document:#}\n"))?;
        }
        TableOutput::Table if rows.is_empty() => super::print(none(arguments.failed))?,
        TableOutput::Table => super::print(&terminal::lines(&table(&rows)))?,
    }
    Ok(())
}

fn none(failed: bool) -> &'static str {
    match failed {
        true => "No failed deliveries.\n",
        false => "No deliveries yet. To try every notifier, run certvigil notify test.\n",
    }
}

fn table(rows: &[DeliveryRow]) -> Table {
    let narrow = terminal::is_narrow();
    let mut table = match narrow {
        true => terminal::table(&["WHEN (UTC)", "ID", "STATE", "WHAT"], &["WHEN (UTC)", "ID"]),
        false => terminal::table(
            &["WHEN (UTC)", "ID", "NOTIFIER", "RECEIVER", "STATE", "TRIES", "WHAT", "ANSWER"],
            &["WHEN (UTC)", "ID", "NOTIFIER", "TRIES"],
        ),
    };
    for row in rows {
        let state = match row.next_attempt_at {
            Some(next) if row.state == DeliveryState::Pending && row.attempts > 0 => {
                format!("pending, next try {}", next.format("%Y-%m-%d %H:%M:%S"))
            }
            _ => row.state.to_string(),
        };
        let answer = row.answer();
        let tint = match row.state {
            DeliveryState::Delivered => Tint::Well,
            DeliveryState::Rejected | DeliveryState::GivenUp => Tint::Of(Severity::Critical),
            DeliveryState::Pending if row.last.is_some() => Tint::Of(Severity::Warning),
            DeliveryState::Pending | DeliveryState::Superseded | DeliveryState::Cancelled => {
                Tint::Plain
            }
        };
        let when = Cell::new(row.created_at.format("%Y-%m-%d %H:%M:%S"));
        let id = Cell::new(row.id.to_string().chars().take(8).collect::<String>());
        let state = terminal::cell(state, tint);
        if narrow {
            let DeliveryRow { summary, notifier, receiver, .. } = row;
            let what = format!("{summary}\n{notifier} → {receiver}\n{answer}");
            table.add_row([when, id, state, Cell::new(what.trim_end())]);
        } else {
            table.add_row([
                when,
                id,
                Cell::new(&row.notifier),
                Cell::new(&row.receiver),
                state,
                terminal::number(row.attempts),
                Cell::new(&row.summary),
                Cell::new(answer),
            ]);
        }
    }
    table
}
