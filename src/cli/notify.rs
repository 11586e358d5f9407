//! `certvigil notify test`: sends a test message like any notification, and prints the replies.
//! `certvigil notify preview` is in its own file.

use clap::Subcommand;
use std::path::Path;

use super::{Failure, preview};
use crate::{
    clock::Clock, config::Needs, domain::retry::Outcome, message::Notification, notify::Notifier,
    service, store::id_at,
};

#[derive(Subcommand)]
pub enum Command {
    /// Send a test message to all notifiers, or to one, and print the replies
    Test {
        /// The notifier's name
        name: Option<String>,
    },
    /// Preview the message about open alerts, or a sample; sends nothing
    Preview(preview::Arguments),
}

pub async fn main(file: Option<&Path>, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Test { name } => test(file, name.as_deref()).await,
        Command::Preview(arguments) => preview::show(file, &arguments).await.map(|()| 0),
    }
}

/// The error for an unknown notifier, with the known ones.
pub fn unknown(name: &str, names: &[&str]) -> Failure {
    let name = crate::domain::text::one_line(name, 64);
    let names = names.join(", ");
    Failure::Usage(format!("no notifier “{name}” is configured; configured notifiers: {names}"))
}

async fn test(file: Option<&Path>, name: Option<&str>) -> Result<u8, Failure> {
    let needs = Needs { notifiers: true, ..Needs::default() };
    let loaded = super::start(file, needs)?;
    let notifiers = service::notifiers(&loaded.config)?;
    if let Some(name) = name
        && notifiers.iter().all(|notifier| notifier.name() != name)
    {
        let names: Vec<&str> = notifiers.iter().map(|notifier| notifier.name()).collect();
        return Err(unknown(name, &names));
    }
    let mut code = 0;
    for notifier in notifiers.iter().filter(|one| name.is_none_or(|name| name == one.name())) {
        for receiver in notifier.receivers() {
            let (worse, line) = try_one(notifier.as_ref(), &receiver).await;
            code = code.max(worse);
            super::print(&line)?;
        }
    }
    Ok(code)
}

/// Sends a test message; returns the exit code and the line to print.
async fn try_one(notifier: &dyn Notifier, receiver: &str) -> (u8, String) {
    let now = Clock::System.now();
    let sample = Notification::test(id_at(now), notifier.name(), now);
    let limit = notifier.attempt_limit();
    let sent = tokio::time::timeout(limit, notifier.deliver(&sample, receiver, now)).await;
    let (code, line) = match sent {
        Ok(Outcome::Delivered { answer }) => (0, format!("accepted ({answer})")),
        Ok(Outcome::Retry { reason, detail, .. }) => {
            (super::FAILED, format!("failed, {reason}: {detail}"))
        }
        Ok(Outcome::Rejected { reason, detail }) => {
            (super::FAILED, format!("rejected, {reason}: {detail}"))
        }
        Err(_) => (super::FAILED, format!("failed, timeout: not finished within {limit:?}")),
    };
    (code, format!("{}: {receiver}: {line}\n", notifier.name()))
}
