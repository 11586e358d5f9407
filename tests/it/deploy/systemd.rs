//! The unit: that systemd understands it, and how far it is shut in.

use std::process::Command;

use super::{deploy, done, said, text};
use crate::support::program;

/// What `systemd-analyze security` may say at most: 10 is not shut in at all.
const EXPOSURE: f64 = 1.5;

fn systemd_analyze() -> Option<Command> {
    program("systemd-analyze", "systemd").map(Command::new)
}

#[test]
fn the_unit_is_shut_in() {
    let Some(mut command) = systemd_analyze() else { return };
    let said =
        done(command.args(["security", "--offline=true"]).arg(deploy("systemd/certvigil.service")));
    let overall = said.lines().find(|line| line.contains("Overall exposure level")).unwrap();
    let level = overall.split(": ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(level.parse::<f64>().unwrap() <= EXPOSURE, "{said}");
}

#[test]
fn systemd_accepts_the_unit_without_a_warning() {
    let Some(mut version) = systemd_analyze() else { return };
    let version = done(version.arg("--version"));
    let version: u32 = version.split_whitespace().nth(1).unwrap().parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    // Where the package puts the program, nothing is here.
    let unit = text("systemd/certvigil.service").replace("/usr/bin/certvigil", "/bin/true");
    let path = folder.path().join("certvigil.service");
    std::fs::write(&path, unit).unwrap();
    // Before 253 the package adds what this version needs.
    let knows_the_type = version >= 253;
    if !knows_the_type {
        let drop_ins = folder.path().join("certvigil.service.d");
        std::fs::create_dir(&drop_ins).unwrap();
        std::fs::copy(deploy("systemd/before-253.conf"), drop_ins.join("before-253.conf")).unwrap();
    }
    let (content, said) = said(systemd_analyze().unwrap().args(["verify", "--man=no"]).arg(&path));
    let known = "Failed to parse service type, ignoring: notify-reload";
    let said: Vec<&str> =
        said.lines().filter(|line| knows_the_type || !line.ends_with(known)).collect();
    assert!(content && said.is_empty(), "{said:#?}");
}

#[test]
fn every_credential_of_the_packaged_configuration_is_handed_over() {
    let unit = text("systemd/certvigil.service");
    assert!(unit.contains("LoadCredential=certvigil:/etc/certvigil/secrets\n"), "{unit}");
    let configuration = certvigil::config::keys::uncommented(&text("debian/certvigil.toml"));
    assert!(configuration.matches("credential = ").count() >= 3, "{configuration}");
    assert!(!configuration.contains("file = ") && !configuration.contains("env = "));
}
