//! `certvigil check`: one scan, and every certificate with its state.

mod output;

use clap::{Args, ValueEnum};
use std::path::Path;
use tokio::sync::watch;

use super::{Failure, UNKNOWN, read, state};
use crate::{
    clock::Clock,
    config::{Config, Needs},
    domain::threshold::Severity,
    message::wording,
    service::Once,
    store::StoreError,
    usecase::{
        check::Survey,
        scan::{Progress, Target},
    },
};

#[derive(Args)]
pub struct Arguments {
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Store the scan and send new alerts, as the service does; refused while a service uses the
    /// same SQLite file
    #[arg(long)]
    notify: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Csv,
    Nagios,
}

pub async fn main(file: Option<&Path>, arguments: Arguments) -> u8 {
    match check(file, &arguments).await {
        Ok(code) => code,
        Err(failure) => {
            failure.report();
            if arguments.output == Output::Nagios {
                // If printing fails, too, stderr has the error.
                drop(super::print("CERTVIGIL UNKNOWN - the check itself failed, see stderr\n"));
            }
            UNKNOWN
        }
    }
}

async fn check(file: Option<&Path>, arguments: &Arguments) -> Result<u8, Failure> {
    let needs = Needs { organizations: true, notifiers: arguments.notify, ..Needs::default() };
    let loaded = super::start(file, needs)?;
    super::print_source(&loaded);
    let config = loaded.config;
    let targets = read::targets(&config)?;
    let survey = if arguments.notify {
        scan_and_deliver(&config, &targets).await?
    } else {
        look(&config, &targets).await?
    };
    let text = match arguments.output {
        Output::Table => output::table(&survey),
        Output::Json => output::json(&survey)?,
        Output::Csv => output::csv(&survey)?,
        Output::Nagios => output::nagios(&survey),
    };
    super::print(&text)?;
    for index in survey.idle_rules() {
        eprintln!("warning: rules[{index}] matches no certificate");
    }
    if survey.undelivered > 0 {
        let what = wording::count(survey.undelivered, "delivery attempt");
        eprintln!("error: {what} failed; for the reasons, run certvigil deliveries --failed");
    }
    Ok(match survey.worst() {
        Severity::Critical => 2,
        Severity::Warning => 1,
        Severity::Info if survey.is_certain() => 0,
        Severity::Info => UNKNOWN,
    })
}

/// Reads every organization in parallel; stores nothing.
async fn look(config: &Config, targets: &[Target]) -> anyhow::Result<Survey> {
    // Acknowledgements and lost protections are shown if there is a database.
    let store = match state::open(config).await {
        Ok(store) => Some(store),
        Err(StoreError::Missing(_)) => None,
        Err(error) => {
            tracing::warn!(%error, "database unavailable: cannot show acknowledgements, nor which \
                                    projects have lost mutual TLS");
            None
        }
    };
    let read = read::read(targets, store.as_ref()).await?;
    Ok(Survey::of(read, store.as_ref(), Clock::System.now(), config.timezone).await?)
}

/// Scans, commits and delivers once, as the service does.
async fn scan_and_deliver(config: &Config, targets: &[Target]) -> anyhow::Result<Survey> {
    let (progress, watched) = watch::channel(Progress::default());
    let shown = super::terminal::show_progress(watched);
    let mut once = Once::join(config, Clock::System).await?;
    once.scan(targets, &progress).await;
    drop(progress);
    drop(shown.await);
    once.finish(targets).await
}
