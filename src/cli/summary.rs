//! `certvigil summary`: shows the current summary, from the database.

use anyhow::anyhow;
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::Path;

use super::{Failure, notify::unknown, state};
use crate::{
    clock::Clock,
    config::{Config, Needs},
    domain::{
        notifier::{Grouping, NotifierState},
        routing::Routing,
    },
    message::{Body, Notification, entry::Entry, style::Style},
    service,
    store::Job,
    usecase::summary::compose,
};

/// The period of a summary before the first one.
const WEEK: TimeDelta = TimeDelta::days(7);
/// The number of entries that a list shows.
const SHOWN: usize = 50;

#[derive(Args)]
pub struct Arguments {
    /// Only what this notifier selects
    notifier: Option<String>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Let the service send the summary now, to every receiver that gets summaries
    #[arg(long, conflicts_with_all = ["notifier", "output"])]
    send: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub async fn main(file: Option<&Path>, arguments: &Arguments) -> Result<(), Failure> {
    let config = super::start(file, Needs::default())?.config;
    let (store, now) = (state::open(&config).await?, Clock::System.now());
    if arguments.send {
        let off = || anyhow!("summaries are off: set summary.cron in the configuration");
        config.summary.as_ref().ok_or_else(off)?;
        store.ask_for(Job::Summary, now).await?;
        return super::print(
            "the service sends the summary within seconds if it runs with this configuration, or \
             at its next start\n",
        );
    }
    let routes = routes(&config, arguments.notifier.as_deref())?;
    let watched = service::jobs(&config, &service::Timing::default(), now).watched;
    let since = store.last_run(Job::Summary).await?.unwrap_or(now - WEEK);
    let summaries = compose(&store, routes, &watched, since, now).await?;
    let messages: Vec<_> =
        summaries.into_iter().map(|(state, _, message)| (state, message.notification)).collect();
    super::print(&match arguments.output {
        Output::Text => {
            let texts = messages.iter().map(|(state, message)| text(&config, state, message, now));
            texts.collect::<Vec<_>>().join("\n")
        }
        Output::Json => {
            let summaries: Vec<Value> =
                messages.iter().map(|(state, message)| document(state, message)).collect();
            let document = json!({ "schema": "certvigil.summary/1", "summaries": summaries });
            format!("{document:#}\n")
        }
    })
}

/// The routes of one notifier, or one route for everything.
fn routes(
    config: &Config,
    notifier: Option<&str>,
) -> Result<Vec<(NotifierState, Vec<String>)>, Failure> {
    let states = match notifier {
        None => vec![NotifierState::new("", &Routing::all(), Grouping::Digest)],
        Some(name) => {
            if config.notifiers.find(name).is_none() {
                return Err(unknown(name, &config.notifiers.names()));
            }
            let states = config.notifiers.notifiers().into_iter();
            states.filter(|state| state.name == name).collect()
        }
    };
    Ok(states.into_iter().map(|state| (state, Vec::new())).collect())
}

fn document(state: &NotifierState, message: &Notification) -> Value {
    let body = message.alerts.first().map(|alert| &alert.body);
    let report = body.and_then(|body| match body {
        Body::Summary(summary) => Some(summary),
        _ => None,
    });
    let notifier = Some(&state.name).filter(|name| !name.is_empty());
    let teams = state.routing.audience.teams();
    json!({ "notifier": notifier, "owners": teams, "report": report })
}

fn text(
    config: &Config,
    state: &NotifierState,
    message: &Notification,
    now: DateTime<Utc>,
) -> String {
    let style = Style { timezone: config.timezone, ..Style::default() };
    let mut out = String::new();
    for alert in &message.alerts {
        let entry = Entry::new(message, alert, SHOWN, &style, now);
        let of = match state.name.as_str() {
            "" => String::new(),
            name => format!(" [{}]", state.routing.audience.title_of(name)),
        };
        out.push_str(&format!("{}{of}\n", entry.headline));
        for (label, value) in &entry.facts {
            out.push_str(&format!("  {label}: {value}\n"));
        }
        for list in &entry.lists {
            out.push_str(&format!("\n{}\n", list.title));
            list.lines().for_each(|line| out.push_str(&format!("  {line}\n")));
        }
    }
    out
}
