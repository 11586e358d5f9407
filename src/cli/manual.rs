//! Manual pages and completions for packages, generated from the command line and the documented
//! configuration keys.

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man as Page;
use roff::{Inline, Roff, bold, italic, roman};
use std::path::{Path, PathBuf};

use super::{Arguments, Failure};
use crate::config::keys::{Key, documented};

#[derive(clap::Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

#[derive(clap::Args)]
pub struct Man {
    /// Write certvigil(1), a page for each command and certvigil.toml(5) into this folder
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

pub fn completions(arguments: &Completions) -> Result<(), Failure> {
    let mut out = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "certvigil", &mut out);
    super::print(&String::from_utf8_lossy(&out))
}

pub fn man(arguments: &Man) -> Result<(), Failure> {
    match &arguments.to {
        Some(folder) => write_all(folder),
        None => super::print(&main_page()?),
    }
}

fn write_all(folder: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(Arguments::command(), folder)?;
    // The main page contains more than the command line.
    std::fs::write(folder.join("certvigil.1"), main_page()?)?;
    std::fs::write(folder.join("certvigil.toml.5"), of_the_configuration())?;
    Ok(())
}

/// certvigil(1) in the format of man(7).
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
            ("2", "Invalid usage or configuration (check exits with 3, health with 1)."),
            ("check", "As monitoring plugins: 2 critical, 1 warning, 3 unknown, 0 otherwise."),
        ],
    );
    section(
        &mut roff,
        "ENVIRONMENT",
        &[
            ("CERTVIGIL_CONFIG", "The configuration file, if --config is not given."),
            (
                "CERTVIGIL__SECTION__KEY",
                "Overrides a key of the configuration; a list is a JSON array.",
            ),
            (
                "OPENAI_ADMIN_KEY",
                "The admin key of the organization \u{201c}default\u{201d}, unless configured otherwise.",
            ),
            (
                "CREDENTIALS_DIRECTORY",
                "The folder of { credential = \"NAME\" }; by default, secrets next to the \
                 configuration file.",
            ),
            ("STATE_DIRECTORY", "The folder of the database, unless state.url is set."),
            ("RUST_LOG", "Overrides log.level."),
            ("HTTPS_PROXY, NO_PROXY", "Proxy settings for the API and webhooks."),
            ("NO_COLOR", "No colours."),
        ],
    );
    section(
        &mut roff,
        "SIGNALS",
        &[
            ("SIGHUP", "Reloads the configuration, then scans."),
            ("SIGUSR1", "Scans every organization now."),
            ("SIGTERM, SIGINT", "Stops within ten seconds."),
        ],
    );
    section(
        &mut roff,
        "FILES",
        &[
            ("/etc/certvigil/certvigil.toml", "The configuration file, searched first."),
            (
                "certvigil.toml",
                "The configuration file searched next. It is refused if other users can change it.",
            ),
            (
                "/etc/certvigil/secrets",
                "Credentials. The service of the Debian package receives all of them.",
            ),
            ("/var/lib/certvigil", "The database of the Debian package's service."),
        ],
    );
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("certvigil.toml"), roman("(5)")]);
    out.extend_from_slice(roff.to_roff().as_bytes());
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn section(roff: &mut Roff, title: &str, rows: &[(&str, &str)]) {
    roff.control("SH", [title]);
    for (name, description) in rows {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*description)]);
    }
}

/// certvigil.toml(5): every key with its default or an example, and its documentation.
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
        "A TOML file. Every key has a default or is optional. Durations are texts such as \"90d\", \"12h\" or \
         \"1h 30m\". Globs use * and ?. A secret is { env = \"NAME\" }, { file = \"/path\" } or \
         { credential = \"NAME\" }; a credential is the file NAME in $CREDENTIALS_DIRECTORY, or in the folder \
         secrets next to the configuration file. certvigil config check lists every problem of a file; \
         certvigil config show prints the effective configuration.",
    )]);
    for key in documented() {
        if key.name.is_empty() {
            roff.control("SS", [format!("[{}]", key.table.replace('*', "NAME")).as_str()]);
            roff.text([roman(key.description)]);
        } else {
            roff.control("TP", []);
            roff.text(heading(&key));
            roff.text([roman(key.description)]);
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
