//! What packages ship beside the program: manual pages and completions, made of the command line and of what is said of
//! each key of the configuration.

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man as Page;
use roff::{Inline, Roff, bold, italic, roman};
use std::path::{Path, PathBuf};

use super::{Arguments, Failure};
use crate::config::keys::{Key, documented};

#[derive(clap::Args)]
pub struct Completions {
    /// The shell that completes
    shell: Shell,
}

#[derive(clap::Args)]
pub struct Man {
    /// Write certvigil(1), a page for each command and certvigil.toml(5) into this folder
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

pub fn completions(arguments: &Completions) -> u8 {
    let mut out = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "certvigil", &mut out);
    said(super::print(&String::from_utf8_lossy(&out)))
}

pub fn man(arguments: &Man) -> u8 {
    said(match &arguments.to {
        Some(folder) => write_all(folder),
        None => main_page().and_then(|page| super::print(&page)),
    })
}

fn said(done: Result<(), Failure>) -> u8 {
    match done {
        Ok(()) => 0,
        Err(failure) => failure.say(),
    }
}

fn write_all(folder: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(Arguments::command(), folder)?;
    // The first page says more than the command line does.
    std::fs::write(folder.join("certvigil.1"), main_page()?)?;
    std::fs::write(folder.join("certvigil.toml.5"), of_the_configuration())?;
    Ok(())
}

/// certvigil(1), as man(7) wants it.
fn main_page() -> Result<String, Failure> {
    let mut out = Vec::new();
    Page::new(Arguments::command()).render(&mut out)?;
    let mut roff = Roff::new();
    section(
        &mut roff,
        "EXIT STATUS",
        &[
            ("0", "Done."),
            ("1", "Failed."),
            ("2", "Wrong usage, or a configuration that is refused; of check and health 3 and 1."),
            (
                "check",
                "As monitoring plugins do: 2 critical, else 1 warning, else 3 unknown, else 0.",
            ),
        ],
    );
    section(
        &mut roff,
        "ENVIRONMENT",
        &[
            ("CERTVIGIL_CONFIG", "The configuration file, where --config does not name one."),
            (
                "CERTVIGIL__SECTION__KEY",
                "Overrides a key of the configuration; a list is a JSON array.",
            ),
            (
                "OPENAI_ADMIN_KEY",
                "The key of the organization \u{201c}default\u{201d}, unless the configuration says otherwise.",
            ),
            (
                "CREDENTIALS_DIRECTORY",
                "Where { credential = \"NAME\" } is looked for; else in the folder secrets beside the configuration file.",
            ),
            ("STATE_DIRECTORY", "Where the state is kept, unless state.url says otherwise."),
            ("RUST_LOG", "Overrides log.level."),
            ("HTTPS_PROXY, NO_PROXY", "How the API and webhooks are reached."),
            ("NO_COLOR", "No colours."),
        ],
    );
    section(
        &mut roff,
        "SIGNALS",
        &[
            ("SIGHUP", "Loads the configuration again, and scans."),
            ("SIGUSR1", "Scans every organization now."),
            ("SIGTERM, SIGINT", "Stops within ten seconds."),
        ],
    );
    section(
        &mut roff,
        "FILES",
        &[
            ("/etc/certvigil/certvigil.toml", "The configuration, looked for first."),
            (
                "certvigil.toml",
                "The configuration in the current folder, looked for next. It is refused where others can change it.",
            ),
            (
                "/etc/certvigil/secrets",
                "Credentials; the Debian package's service is given all of them.",
            ),
            ("/var/lib/certvigil", "The state, of the Debian package's service."),
        ],
    );
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("certvigil.toml"), roman("(5)")]);
    out.extend_from_slice(roff.to_roff().as_bytes());
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn section(roff: &mut Roff, title: &str, rows: &[(&str, &str)]) {
    roff.control("SH", [title]);
    for (name, said) in rows {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*said)]);
    }
}

/// certvigil.toml(5): every key, its default or an example, and what it means.
fn of_the_configuration() -> String {
    let mut roff = Roff::new();
    roff.control(
        "TH",
        ["certvigil.toml", "5", "", concat!("certvigil ", env!("CARGO_PKG_VERSION"))],
    );
    roff.control("SH", ["NAME"]);
    roff.text([roman("certvigil.toml - configuration of certvigil")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "A TOML file. It names only what it changes: every key has a default, or may be left out. Durations are written \
         as people write them (\"90d\", \"12h\", \"1h 30m\"), globs are * and ?. A secret is { env = \"NAME\" }, \
         { file = \"/path\" } or { credential = \"NAME\" }; the last is the file NAME in $CREDENTIALS_DIRECTORY, else in the \
         folder secrets beside the configuration file. certvigil config check says all that is wrong with a \
         file, and certvigil config show what is in force.",
    )]);
    for key in documented() {
        if key.name.is_empty() {
            roff.control("SS", [format!("[{}]", key.table.replace('*', "NAME")).as_str()]);
            roff.text([roman(key.said)]);
        } else {
            roff.control("TP", []);
            roff.text(heading(&key));
            roff.text([roman(key.said)]);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("certvigil"), roman("(1)")]);
    roff.to_roff()
}

fn heading(key: &Key) -> Vec<Inline> {
    let is = if key.has_default { " = " } else { ", as " };
    vec![bold(key.name.as_str()), roman(is), italic(key.value.as_str())]
}
