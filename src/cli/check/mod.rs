//! `certvigil check`: one scan, and every certificate with its state.

mod output;

use clap::{Args, ValueEnum};
use std::{collections::BTreeSet, path::Path, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Failure, UNKNOWN, read, state};
use crate::{
    clock::Clock,
    config::{Config, Needs},
    domain::{threshold::Severity, wording},
    heartbeat::Signal,
    notify::Notifier,
    service::{self, Beating, Member, Timing},
    store::{Store, StoreFault},
    usecase::{
        check::Survey,
        deliver,
        scan::{self, Progress, Target},
        watch_notifiers,
    },
};

#[derive(Args)]
pub struct Arguments {
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Store the scan and send new alerts, as the service does; refused while the service runs
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
    let read = read::read(targets).await;
    // Acknowledgements and lost protections are shown if there is a database.
    let store = match state::open(config).await {
        Ok(store) => Some(store),
        Err(StoreFault::Missing(_)) => None,
        Err(error) => {
            tracing::warn!(%error, "acknowledgements and projects without mutual TLS not shown: \
                                    database unavailable");
            None
        }
    };
    Ok(Survey::of(read, store.as_ref(), Clock::System.now(), config.timezone).await?)
}

/// Sends pending deliveries; returns the number of failed attempts.
async fn deliver_all(
    config: &Config,
    store: &Store,
    notifiers: &[Arc<dyn Notifier>],
) -> Result<usize, StoreFault> {
    let never = CancellationToken::new();
    let deliveries = notifiers.iter().map(|notifier| async {
        let policy = &config.delivery;
        deliver::run_once(store, notifier.as_ref(), policy, Clock::System.now(), &never).await
    });
    let mut failed = 0;
    for report in futures_util::future::join_all(deliveries).await {
        let report = report?;
        failed += report.waiting + report.failed;
    }
    Ok(failed)
}

/// Scans, commits and delivers once, as the service does.
async fn scan_and_deliver(config: &Config, targets: &[Target]) -> anyhow::Result<Survey> {
    let (progress, watched) = watch::channel(Progress::default());
    let shown = super::terminal::show_progress(watched);
    let notifiers = service::notifiers(config)?;
    let store = Store::open(&config.state).await?;
    let member = Member::join(config, &store, &notifiers, Clock::System, Timing::default()).await?;
    let give_up_after = config.delivery.give_up_after;
    let (mut failed_scan, mut skew) = (None, None);
    let started_at = Clock::System.now();
    let mut well = BTreeSet::new();
    for target in targets {
        let now = Clock::System.now();
        let when = service::when(&config.schedule, now, config.schedule.cron.latest(now));
        let scanned = async {
            let lease = member.lease(Some(target.api.organization())).await?;
            let held = lease.clone();
            let scanned =
                scan::run_once(target, &store, &notifiers, give_up_after, when, held, &progress)
                    .await;
            store.release(&lease).await?;
            anyhow::Ok(scanned?)
        };
        match scanned.await {
            Ok(report) => {
                service::log_scan(&report);
                skew = skew.or(report.record.clock_skew);
                well.extend(Some(report.record.organization).filter(|_| report.record.complete));
            }
            // The alerts of other organizations are still delivered.
            Err(error) => failed_scan = Some(error),
        }
    }
    drop(progress);
    drop(shown.await);
    let mut failed = deliver_all(config, &store, &notifiers).await?;
    // Report failing notifiers through the others.
    let lease = member.lease(None).await?;
    let now = Clock::System.now();
    let looked =
        watch_notifiers::run_once(&store, &notifiers, give_up_after, started_at, lease, now)
            .await?;
    if looked.notifications > 0 {
        failed += deliver_all(config, &store, &notifiers).await?;
    }
    let late = store.overdue(Clock::System.now() - config.delivery.max).await? > 0;
    for Beating { heartbeat, of, .. } in service::heartbeats(config)? {
        let fine = !late && of.is_subset(&well);
        heartbeat.send(if fine { Signal::Well } else { Signal::Fail }).await;
    }
    if let Some(error) = failed_scan {
        return Err(error);
    }
    let now = Clock::System.now() + skew.unwrap_or_default();
    let mut survey = Survey::stored(targets, &store, now, config.timezone).await?;
    survey.undelivered = failed;
    member.leave().await;
    store.close().await;
    Ok(survey)
}
