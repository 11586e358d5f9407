//! The files in `deploy/`, tested without a cluster.

mod container;
mod debian;
mod guides;
mod kubernetes;
mod manual;
mod prometheus;
mod systemd;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A file or a folder below `deploy/`.
fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn text(path: &str) -> String {
    let path = deploy(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a command to its end; all that it says, and whether it was content.
fn said(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (status.success(), said.concat())
}

/// The same, of one that has to be content.
fn done(command: &mut Command) -> String {
    let (content, said) = said(command);
    assert!(content, "{command:?}: {said}");
    said
}
