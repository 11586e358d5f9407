//! `certvigil forecast`: upcoming notifications, if nothing changes.

mod output;

use chrono::TimeDelta;
use clap::{Args, ValueEnum};
use std::{path::Path, sync::Arc};
use tokio::sync::watch;

use super::{Failure, state};
use crate::{
    clock::Clock,
    config::{Config, Needs},
    domain::inventory::Inventory,
    service,
    store::StoreError,
    usecase::organization::OrganizationState,
    usecase::scan::{self, Progress},
};
use output::Outlook;

/// The longest forecast, in days.
const MAX_DAYS: i64 = 3_650;

#[derive(Args)]
pub struct Arguments {
    /// Number of days to forecast
    #[arg(long, default_value_t = 365, value_name = "N",
          value_parser = clap::value_parser!(i64).range(1..=MAX_DAYS))]
    days: i64,
    /// Use the latest stored scan; sends no API requests
    #[arg(long)]
    from_state: bool,
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Ics,
}

pub async fn main(file: Option<&Path>, arguments: &Arguments) -> Result<(), Failure> {
    let needs = Needs { organizations: !arguments.from_state, ..Needs::default() };
    let config = super::start(file, needs)?.config;
    let now = Clock::System.now();
    // Sent alerts are not repeated, so an existing database is always used.
    let store = match state::open(&config).await {
        Ok(store) => Some(store),
        Err(StoreError::Missing(_)) if !arguments.from_state => {
            eprintln!("no database: assuming that no alert was sent yet");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let mut known = Vec::new();
    for organization in &config.organizations {
        known.push(state::of(&config, organization, store.as_ref(), now).await?);
    }
    if !arguments.from_state {
        read(&config, &mut known).await?;
    }
    let first = match &store {
        // Like a first start, which scans at once.
        None if config.schedule.run_on_start => Some(now),
        _ => config.schedule.cron.next_after(now),
    };
    let first = first.ok_or_else(|| anyhow::anyhow!("the schedule never matches a date"))?;
    let end = now + TimeDelta::days(arguments.days);
    let mut outlook = Outlook::new(&config, now, end);
    for one in &known {
        outlook.add(one, one.forecast(&config.schedule.cron, first, end));
    }
    super::print(&match arguments.output {
        Output::Table => outlook.table(),
        Output::Json => format!("{:#}\n", outlook.document()),
        Output::Ics => outlook.calendar(),
    })
}

/// Reads every organization in parallel and merges it into the stored state; stores nothing.
async fn read(config: &Config, known: &mut [OrganizationState]) -> anyhow::Result<()> {
    let (progress, watched) = watch::channel(Progress::default());
    let shown = super::terminal::show_progress(watched);
    let scans = config.organizations.iter().zip(known).map(|(organization, one)| async {
        let target = service::target(config, organization, &Clock::System)?;
        let before: Arc<Inventory> = Arc::new(std::mem::take(&mut one.inventory));
        let now = Clock::System.now();
        let reading = scan::read(&target, Arc::clone(&before), now, &progress).await;
        one.inventory = before.merge(reading, &target.selection, Clock::System.now());
        anyhow::Ok(())
    });
    let read = futures_util::future::join_all(scans).await;
    drop(progress);
    drop(shown.await);
    read.into_iter().collect()
}
