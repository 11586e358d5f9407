//! `certvigil state export` and `state import`: the whole database in a file, and back into an
//! empty one.

use anyhow::Context;
use clap::Subcommand;
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{Failure, state};
use crate::{config::Needs, store::Store};

#[derive(Subcommand)]
pub enum Command {
    /// Export the database to a new file
    Export {
        /// The file; - for stdout
        file: PathBuf,
    },
    /// Import an export into an empty database
    Import {
        /// The file; - for stdin
        file: PathBuf,
    },
}

pub async fn main(file: Option<&Path>, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Export { file: to } => export(file, to).await,
        Command::Import { file: from } => import(file, from).await,
    }
}

fn is_a_stream(file: &Path) -> bool {
    file.as_os_str() == "-"
}

async fn export(file: Option<&Path>, to: &Path) -> Result<(), Failure> {
    let loaded = super::start(file, Needs::default())?;
    let store = state::open(&loaded.config).await?;
    if store.is_worked_on(&loaded.config.state).await? {
        tracing::warn!(
            "certvigil is running on this database: alerts that it sends from now on are not in \
             the export and would be sent again after an import (stop certvigil before you move \
             the database)"
        );
    }
    let rows = if is_a_stream(to) {
        let mut out = BufWriter::new(io::stdout());
        let rows = store.export(&mut out).await?;
        out.flush().context("cannot write to stdout")?;
        rows
    } else {
        // The file appears only when complete, and only its owner can read it.
        let folder = match to.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let written = || format!("cannot write {}", to.display());
        let made = tempfile::NamedTempFile::new_in(folder).with_context(written)?;
        let mut out = BufWriter::new(made);
        let rows = store.export(&mut out).await?;
        let made =
            out.into_inner().map_err(io::IntoInnerError::into_error).with_context(written)?;
        made.as_file().sync_all().with_context(written)?;
        made.persist_noclobber(to).map_err(|error| error.error).with_context(written)?;
        rows
    };
    store.close().await;
    eprintln!("{rows} rows written to {}", to.display());
    Ok(())
}

async fn import(file: Option<&Path>, from: &Path) -> Result<(), Failure> {
    let loaded = super::start(file, Needs::default())?;
    let mut lines: Box<dyn io::BufRead> = if is_a_stream(from) {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let opened = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
        Box::new(BufReader::new(opened))
    };
    let store = Store::open(&loaded.config.state).await?;
    eprintln!("database: {}", loaded.config.state.place);
    let rows = store.import(&mut lines).await.with_context(|| format!("{}", from.display()))?;
    store.close().await;
    eprintln!(
        "{rows} rows imported from {}. Do not start certvigil on the old database again: it \
         would send the deliveries pending there a second time",
        from.display()
    );
    Ok(())
}
