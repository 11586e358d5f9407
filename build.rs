//! Makes the program smaller in memory, where the system that it is built on can load it then.

use std::process::Command;

/// The first glibc that reads packed relocations (<https://sourceware.org/glibc/wiki/Release/2.36>).
const PACKED_RELOCATIONS: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    // What it is built for is what it is built on.
    let here = variable("HOST") == variable("TARGET") && variable("CARGO_CFG_TARGET_ENV") == "gnu";
    if here && glibc().is_some_and(|version| version >= PACKED_RELOCATIONS) {
        // Each of some 65 000 relocations takes 24 bytes in memory otherwise, and less than one so (the ELF
        // specification, SHT_RELR).
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of glibc: `ldd (Debian GLIBC 2.36-9) 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("ldd").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let (major, minor) = text.lines().next()?.split_whitespace().last()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
