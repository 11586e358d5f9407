//! Embeds the commit and its date in the program, and packs its relocations if the glibc of the
//! build host can load them.

use std::process::Command;

/// The first glibc that reads packed relocations
/// (<https://sourceware.org/glibc/wiki/Release/2.36>).
const PACKED_RELOCATIONS: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    say_what_it_is_built_from();
    // Not for cross builds: the target's glibc is unknown.
    let here = variable("HOST") == variable("TARGET") && variable("CARGO_CFG_TARGET_ENV") == "gnu";
    if here && glibc().is_some_and(|version| version >= PACKED_RELOCATIONS) {
        // Each of some 65 000 relocations takes 24 bytes in memory otherwise, and less than one so
        // (the ELF specification, SHT_RELR).
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// The commit and its day; the same for everybody who builds the same, whenever that is. Who builds
/// without the repository says them: `CERTVIGIL_COMMIT`, and `SOURCE_DATE_EPOCH`
/// (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn say_what_it_is_built_from() {
    for name in ["CERTVIGIL_COMMIT", "SOURCE_DATE_EPOCH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    // It changes with each commit; where it is not there, it is looked for every time. A repository
    // around this folder is another's.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]);
    let ours = log.as_ref().filter(|_| git(&["rev-parse", "--show-prefix"]).is_none());
    if let Some(log) = ours {
        println!("cargo::rerun-if-changed={log}");
    }
    let given = Some(variable("CERTVIGIL_COMMIT")).filter(|commit| !commit.is_empty());
    let commit =
        given.or_else(|| git(&["rev-parse", "--short=9", "HEAD"]).filter(|_| ours.is_some()));
    let seconds = Some(variable("SOURCE_DATE_EPOCH")).filter(|seconds| !seconds.is_empty());
    let seconds =
        seconds.or_else(|| git(&["show", "-s", "--format=%ct", "HEAD"]).filter(|_| ours.is_some()));
    println!("cargo::rustc-env=CERTVIGIL_BUILT_AT={}", seconds.as_deref().unwrap_or_default());
    let day =
        seconds.and_then(|seconds| said("date", &["-u", "-d", &format!("@{seconds}"), "+%F"]));
    let version = variable("CARGO_PKG_VERSION");
    let parts: Vec<&str> = commit.iter().chain(&day).map(String::as_str).collect();
    let version = match parts.join(", ") {
        parts if parts.is_empty() => version,
        parts => format!("{version} ({parts})"),
    };
    println!("cargo::rustc-env=CERTVIGIL_VERSION={version}");
    println!("cargo::rustc-env=CERTVIGIL_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

fn git(arguments: &[&str]) -> Option<String> {
    // Whoever owns the clone.
    said("git", &[&["-c", "safe.directory=*"], arguments].concat())
}

/// What a program says in its only line; nothing where it is not there, or fails.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}

/// The version of glibc: `ldd (Debian GLIBC 2.36-9) 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("ldd").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let (major, minor) = text.lines().next()?.split_whitespace().last()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
