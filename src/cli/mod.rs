//! The command line: one file for each command.
//!
//! Exit codes: 0 done, 1 failed, 2 invalid usage or configuration; `check` exits like monitoring
//! plugins. Results go to stdout, everything else to stderr.

mod ack;
mod check;
mod config;
mod deliveries;
#[cfg(feature = "demo")]
mod demo;
mod drill;
mod explain;
mod forecast;
mod health;
mod manual;
mod notify;
mod preview;
mod read;
mod rotation;
mod run;
mod state;
mod summary;
mod terminal;
mod transfer;

use clap::{Parser, Subcommand, ValueEnum};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    config::{Loaded, Needs, load, problem::Refused},
    domain::day::rfc3339,
    logging,
};

/// The exit code of a failed command.
const FAILED: u8 = 1;
/// The exit code for invalid usage or configuration.
const USAGE: u8 = 2;
/// The exit code of `check` for an incomplete result.
const UNKNOWN: u8 = 3;

/// Monitors the mutual TLS certificates of OpenAI organizations and alerts you before one expires.
#[derive(Parser)]
#[command(name = "certvigil", version = crate::build::VERSION, max_term_width = 100, propagate_version = true)]
struct Arguments {
    /// Configuration file [default: /etc/certvigil/certvigil.toml, else ./certvigil.toml]
    #[arg(long, global = true, env = "CERTVIGIL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service
    Run,
    /// Scan once and show every certificate; without --notify, nothing is stored or sent
    ///
    /// Exits as monitoring plugins do: 2 critical, 1 warning, 3 incomplete or invalid
    /// configuration, 0 otherwise.
    Check(check::Arguments),
    /// Show the alerts of the coming scans, if nothing changes
    Forecast(forecast::Arguments),
    /// Show why a certificate did or did not alert, and its upcoming alerts
    Explain(explain::Arguments),
    /// Show the steps that replace a certificate, with their requests; sends none of them
    Rotation(rotation::Arguments),
    /// Silence a certificate or a project until a date; the last threshold and the expiry still
    /// alert
    Ack(ack::Ack),
    /// List acknowledgements
    Acks(ack::Acks),
    /// Withdraw an acknowledgement
    Unack(ack::Unack),
    /// Test the notifiers, or preview their messages
    #[command(subcommand)]
    Notify(notify::Command),
    /// List deliveries: sent, pending and failed
    Deliveries(deliveries::Arguments),
    /// Drills: test alerts that a person at each receiver confirms
    #[command(subcommand)]
    Drill(drill::Command),
    /// Show the summary that the notifiers would send now, or let the service send it
    Summary(summary::Arguments),
    /// Export the database to a file, or import such a file
    #[command(subcommand)]
    State(transfer::Command),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Check whether the service on this host works, for container health checks
    Health(health::Arguments),
    /// Run the service on simulated organizations; needs no key, account or network
    #[cfg(feature = "demo")]
    Demo(demo::Arguments),
    /// Print shell completions
    Completions(manual::Completions),
    /// Print the manual page, or write all manual pages into a folder
    Man(manual::Man),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    // Hides the keys from core dumps and from debuggers of the same user (prctl(2)).
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("warning: cannot turn off core dumps: {error}");
    }
    // The provider of cryptography for the whole process, set before the first connection.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    // One thread: the program mostly waits, and waking another thread costs about the same as the
    // rest of a request.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::from(FAILED);
        }
    };
    // A supervisor may signal the service right after its start: without a handler, SIGHUP kills
    // it.
    let signals = std::env::args_os().any(|argument| argument == "run").then(|| {
        let _entered = runtime.enter();
        run::Signals::new()
    });
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let wrong = if is_check(std::env::args().skip(1)) { UNKNOWN } else { USAGE };
            // Help and version are no errors.
            let code = if error.use_stderr() { wrong } else { 0 };
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    if let Err(why) = crate::descriptors::ensure() {
        eprintln!("error: {why}");
        let failed = if matches!(arguments.command, Command::Check(_)) { UNKNOWN } else { FAILED };
        return ExitCode::from(failed);
    }
    let file = arguments.config.as_deref();
    let code = runtime.block_on(async {
        match run_command(file, arguments.command, signals).await {
            Ok(code) => code,
            Err(failure) => failure.report(),
        }
    });
    // Pending work, such as a hanging connection, must not delay the exit.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn run_command(
    file: Option<&Path>,
    command: Command,
    signals: Option<std::io::Result<run::Signals>>,
) -> Result<u8, Failure> {
    match command {
        Command::Run => return Ok(run::main(file, signals).await),
        Command::Check(arguments) => return Ok(check::main(file, arguments).await),
        Command::Notify(command) => return notify::main(file, command).await,
        Command::Forecast(arguments) => forecast::main(file, &arguments).await?,
        Command::Explain(arguments) => explain::main(file, &arguments).await?,
        Command::Rotation(arguments) => rotation::main(file, &arguments).await?,
        Command::Ack(arguments) => ack::ack(file, &arguments).await?,
        Command::Acks(arguments) => ack::acks(file, &arguments).await?,
        Command::Unack(arguments) => ack::unack(file, &arguments).await?,
        Command::Deliveries(arguments) => deliveries::main(file, &arguments).await?,
        Command::Drill(command) => drill::main(file, command).await?,
        Command::Summary(arguments) => summary::main(file, &arguments).await?,
        Command::State(command) => transfer::main(file, &command).await?,
        Command::Config(command) => config::main(file, command).await?,
        Command::Health(arguments) => health::main(file, &arguments).await?,
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => demo::main(arguments).await?,
        Command::Completions(arguments) => manual::completions(&arguments)?,
        Command::Man(arguments) => manual::man(&arguments)?,
    }
    Ok(0)
}

/// Whether unparsable arguments name the command `check`.
fn is_check(mut arguments: impl Iterator<Item = String>) -> bool {
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--config" => drop(arguments.next()),
            option if option.starts_with('-') => {}
            command => return command == "check",
        }
    }
    false
}

/// Printed without a configuration file and without a key in the environment.
const FIRST_START: &[&str] = &[
    "hint: no configuration file, and no key in the environment. To get started:",
    #[cfg(feature = "demo")]
    "  certvigil demo                                runs a demo, without a key",
    "  OPENAI_ADMIN_KEY=sk-admin-… certvigil check   reads an organization once and stores nothing",
    "  ./certvigil.toml                              names the receivers; config/default.toml \
     documents every key",
];

/// The format of a list.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TableOutput {
    Table,
    Json,
}

/// The format of a page.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TextOutput {
    Text,
    Json,
}

/// The failure of a command, with its exit code.
enum Failure {
    Refused(Refused),
    /// An invalid argument.
    Usage(String),
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(error.into())
    }
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Failure::Refused(_) | Failure::Usage(_) => USAGE,
            Failure::Failed(_) => FAILED,
        }
    }

    /// Prints it to stderr and returns the exit code.
    fn report(&self) -> u8 {
        match self {
            Failure::Refused(refused) => {
                eprintln!("error: {refused}");
                if refused.lacks_everything() {
                    eprintln!("{}", FIRST_START.join("\n"));
                }
            }
            Failure::Usage(error) => eprintln!("error: {error}"),
            Failure::Failed(error) => {
                eprintln!("error: {}", crate::net::error_chain(error.as_ref()));
            }
        }
        self.code()
    }
}

/// Loads the configuration, starts the log, and logs the warnings.
fn start(file: Option<&std::path::Path>, needs: Needs) -> Result<Loaded, Failure> {
    let loaded = load(file, needs).map_err(Failure::Refused)?;
    logging::start(&loaded.config.log);
    log_warnings(&loaded);
    Ok(loaded)
}

/// Prints the configuration file and the API that the admin key is sent to.
fn print_source(loaded: &Loaded) {
    let file = loaded.file.as_ref().map_or("none found, built-in defaults".into(), |file| {
        std::fs::canonicalize(file).unwrap_or(file.clone()).display().to_string()
    });
    eprintln!("configuration: {file}; API: {}", loaded.config.api_origins());
}

fn log_warnings(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
}

/// Removes control sequences (ECMA-48) except colours: texts in the database come from other users.
fn harmless(text: &str) -> Cow<'_, str> {
    let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_control) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let colour = rest.strip_prefix("\u{1b}[").and_then(|codes| {
            let end = codes.find(|c: char| !c.is_ascii_digit() && c != ';')?;
            codes[end..].starts_with('m').then_some("\u{1b}[".len() + end + 1)
        });
        let (kept, skipped) = match colour {
            Some(length) => (&rest[..length], length),
            None if rest.starts_with("\r\n") => ("\r", 1),
            None => ("", rest.chars().next().map_or(1, char::len_utf8)),
        };
        out.push_str(kept);
        rest = &rest[skipped..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Prints to stdout. A closed pipe (`| head`) is not an error.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::{ErrorKind, Write};
    let text = harmless(text);
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Failed(anyhow::Error::new(error).context("cannot write to stdout")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_other_than_colours_are_removed() {
        let cases = [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\u{1b}[38;5;9mred\u{1b}[0m", "\u{1b}[38;5;9mred\u{1b}[0m"),
            ("a\u{1b}]0;title\u{7}b", "a]0;titleb"),
            ("\u{1b}[2Jcleared\u{9b}31m", "[2Jcleared31m"),
            ("over\rwritten\r\n", "overwritten\r\n"),
            ("\u{1b}[", "["),
        ];
        for (text, expected) in cases {
            assert_eq!(harmless(text), expected, "{text:?}");
        }
    }
}
