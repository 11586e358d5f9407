//! `certvigil config check`, `config test`, `config show` and `config schema`.

mod expectations;

use chrono::TimeDelta;
use clap::Subcommand;
use std::path::Path;

use super::Failure;
use crate::{
    clock::Clock,
    config::{Config, Loaded, Needs, load, schema::schema},
    domain::owner,
    redact,
    store::Store,
};
use expectations::Tests;

#[derive(Subcommand)]
pub enum Command {
    /// Validate the configuration, run its tests, and show the schedule
    Check,
    /// Run the tests of the configuration: who gets which alert; uses no network
    Test,
    /// Print the effective configuration without secrets
    Show,
    /// Print the JSON Schema of the configuration, for editors
    Schema,
}

/// The number of upcoming scans shown, to verify a cron expression.
const COMING: usize = 5;
/// Without a confirmation in this time, nothing shows that alerts reach a person.
const CONFIRMED_WITHIN: TimeDelta = TimeDelta::days(90);

pub async fn main(file: Option<&Path>, command: Command) -> Result<(), Failure> {
    let load = |needs| load(file, needs).map_err(Failure::Refused);
    match command {
        Command::Show => show(load(Needs::default())?),
        Command::Schema => print_schema(),
        Command::Check => {
            let loaded = load(Needs::ALL)?;
            super::print(&describe(&loaded))?;
            super::print(&drills(&loaded.config).await)?;
            super::print(&summaries(&loaded.config))?;
            let tests = Tests::run(&loaded.config);
            super::print(&tests.failed_lines())?;
            tests.result()
        }
        Command::Test => {
            let loaded = load(Needs::default())?;
            loaded.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            let tests = Tests::run(&loaded.config);
            super::print(&tests.lines())?;
            tests.result()
        }
    }
}

fn print_schema() -> Result<(), Failure> {
    super::print(&format!("{}\n", serde_json::to_string_pretty(&schema()?)?))
}

fn show(loaded: Loaded) -> Result<(), Failure> {
    let mut effective = toml::Value::try_from(&loaded.effective)?;
    hide_secrets(&mut effective);
    super::print(&toml::to_string(&effective)?)
}

/// The schedule of drills, and a hint if nobody confirmed one lately.
async fn drills(config: &Config) -> String {
    let Some(drill) = &config.drill else {
        return "drills: off; nothing shows that alerts reach a person (set drill.cron)\n"
            .to_owned();
    };
    let names: Vec<&str> = drill.notifiers.iter().map(String::as_str).collect();
    let (when, zone) = (drill.cron.describe(), drill.cron.timezone().name());
    let mut lines = format!("drills: {when} ({zone}), through {}\n", names.join(", "));
    // Before the first start, or for another user, there is nothing to read.
    let Ok(store) = Store::open_beside(&config.state).await else { return lines };
    let Ok(drilled) = store.drilled().await else { return lines };
    let now = Clock::System.now();
    let limit = CONFIRMED_WITHIN.max(drill.cron.longest_gap(now) + drill.confirm_within);
    let confirmed = drilled.iter().filter_map(|one| one.confirmed_at).max();
    if confirmed.is_none_or(|at| now - at > limit) {
        let how = match drilled.as_slice() {
            [] => "wait for the first drill, or run certvigil drill start",
            _ => "see certvigil drill status",
        };
        lines.push_str(&format!(
            "hint: nobody confirmed a drill in the last {} days, so nothing shows that alerts reach \
             a person: {how}\n",
            limit.num_days()
        ));
    }
    lines
}

fn summaries(config: &Config) -> String {
    let Some(summary) = &config.summary else {
        return "summaries: off (set summary.cron)\n".to_owned();
    };
    let names: Vec<&str> = summary.notifiers.iter().map(String::as_str).collect();
    let (when, zone) = (summary.cron.describe(), summary.cron.timezone().name());
    format!("summaries: {when} ({zone}), through {}\n", names.join(", "))
}

/// Hides texts that look like a secret, regardless of their key.
fn hide_secrets(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) if redact::is_like_a_secret(text) => {
            redact::HIDDEN.clone_into(text);
        }
        toml::Value::Array(all) => all.iter_mut().for_each(hide_secrets),
        toml::Value::Table(table) => table.iter_mut().for_each(|(_, value)| hide_secrets(value)),
        _ => {}
    }
}

fn describe(loaded: &Loaded) -> String {
    let mut out = String::new();
    let mut line = |text: String| out.push_str(&format!("{text}\n"));
    match &loaded.file {
        Some(file) => line(format!("{}: configuration valid", file.display())),
        None => line(
            "no configuration file: the built-in defaults and the environment are valid".to_owned(),
        ),
    }
    for warning in &loaded.warnings {
        line(format!("warning: {warning}"));
    }
    let config = &loaded.config;
    for organization in &config.organizations {
        let api = &organization.api;
        line(format!("organization {}: {}", api.organization, api.base_url));
    }
    let notifiers = &config.notifiers;
    for one in &notifiers.email {
        let (name, host, port) = (&one.name, &one.smtp.host, one.smtp.port);
        if let [only] = one.routes.as_slice()
            && only.routing.audience.is_everyone()
        {
            let to = only.addresses().join(", ");
            line(format!("notifier {name}: email to {to} by {host}:{port}"));
            continue;
        }
        line(format!("notifier {name}: email to the owners by {host}:{port}"));
        for route in &one.routes {
            let owners = route.routing.audience.teams().map(owner::names).unwrap_or_default();
            line(format!("  {owners}: {}", route.addresses().join(", ")));
        }
    }
    let webhook = notifiers
        .webhook
        .iter()
        .map(|one| (format!("webhook, {}", one.format.profile().word), &one.name));
    let log = notifiers.log.iter().map(|one| ("log".to_owned(), &one.name));
    for (kind, name) in webhook.chain(log) {
        line(format!("notifier {name}: {kind}"));
    }
    if notifiers.email.is_empty() && notifiers.webhook.is_empty() {
        line(
            "warning: alerts go only to the log: configure an email or webhook notifier".to_owned(),
        );
    }
    if config.heartbeat.is_none() && config.organizations.iter().all(|one| one.heartbeat.is_none())
    {
        line(
            "heartbeat: none; nothing alerts if certvigil stops (set monitoring.heartbeat_url)"
                .to_owned(),
        );
    }
    line(format!("database: {}", config.state.place));
    let cron = &config.schedule.cron;
    line(format!("schedule: {} ({})", cron.describe(), cron.timezone().name()));
    let mut at = Clock::System.now();
    for _ in 0..COMING {
        let Some(next) = cron.next_after(at) else { break };
        let local = next.with_timezone(&cron.timezone());
        line(format!("  {}", local.format("%a %Y-%m-%d %H:%M:%S %Z")));
        at = next;
    }
    out
}
