//! Collects the problems of rules across keys, and reads files and secrets.

use secrecy::ExposeSecret;
use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
};
use url::Url;

use super::{
    Needs,
    layers::Origins,
    problem::{Fault, KeyPath, mismatch},
};
use crate::{
    files,
    net::{Pem, is_loopback},
    redact::{self, quoted},
    secret::{SECRET_FORMS, Secret},
};

/// The largest accepted certificate file, in bytes.
const MAX_PEM: u64 = 1024 * 1024;

/// Collects problems, at most one for each key.
pub struct Checker<'a> {
    pub origins: &'a Origins,
    pub base: &'a Path,
    /// Keys that were already rejected and removed when the layers were read.
    pub rejected: Vec<KeyPath>,
    /// The secrets to read and check.
    pub needs: Needs,
    pub faults: Vec<(KeyPath, Fault)>,
    pub warnings: Vec<String>,
}

impl Checker<'_> {
    /// Records a problem, unless the key already has one or is missing because it was rejected.
    pub fn problem(&mut self, path: &KeyPath, problem: impl Display) {
        let known = self.faults.iter().any(|(known, _)| known == path);
        if known || self.is_rejected(path) {
            return;
        }
        let origin = self.origins.of(path);
        let fault = Fault { path: path.to_string(), origin, problem: problem.to_string() };
        self.faults.push((path.clone(), fault));
    }

    /// Whether a key was rejected, or one above or below it: its value is a default.
    pub fn is_rejected(&self, path: &KeyPath) -> bool {
        self.rejected.iter().any(|rejected| rejected.touches(path))
    }

    /// Records a problem in the form “found …, expected …”.
    pub fn fault(&mut self, path: &KeyPath, found: impl Display, expected: impl Display) {
        self.problem(path, mismatch(found, expected));
    }

    pub fn missing(&mut self, path: &KeyPath, expected: impl Display) {
        self.fault(path, "nothing", expected);
    }

    /// Checks the name of an organization or notifier.
    pub fn name(&mut self, path: &KeyPath, name: &str) {
        let fine = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if name.is_empty() || name.len() > 64 || !fine {
            self.fault(
                path,
                format!("the name {}", quoted(name)),
                "1 to 64 characters of a-z, 0-9 and _",
            );
        }
    }

    /// Checks a secret. A literal value in the file causes a warning.
    pub fn secret(
        &mut self,
        path: &KeyPath,
        secret: Option<&Secret>,
        needed: bool,
        fits: impl Fn(&str) -> Result<(), String>,
    ) -> Option<Secret> {
        let secret = secret?;
        if matches!(secret, Secret::Literal(_)) && self.origins.is_from_file(path) {
            let origin = self.origins.of(path);
            self.warnings.push(format!(
                "{origin}: {path}: the secret is written in the configuration; use {SECRET_FORMS} instead"
            ));
        }
        self.place(path, Some(secret), needed, fits)
    }

    /// Resolves the path of a value that may be secret. Reads a needed value now, so that a missing
    /// or invalid one stops the start.
    pub fn place(
        &mut self,
        path: &KeyPath,
        secret: Option<&Secret>,
        needed: bool,
        fits: impl Fn(&str) -> Result<(), String>,
    ) -> Option<Secret> {
        let secret = secret?.clone().relative_to(self.base);
        if let (Some(file), Some(exposure)) = (secret.file(), secret.exposure()) {
            let file = file.display();
            self.warnings.push(format!("{path}: {file}: {exposure}; run chmod 600"));
        }
        if needed {
            match secret.read() {
                Err(fault) => self.problem(path, fault),
                Ok(value) => {
                    if let Err(expected) = fits(value.expose_secret()) {
                        self.fault(path, "an invalid value (not shown)", expected);
                    }
                }
            }
        }
        Some(secret)
    }

    /// Warns about a URL without TLS to another host.
    pub fn warn_about_plain_http(&mut self, path: &KeyPath, url: Option<&Secret>) {
        if read_url(url).is_some_and(|url| url.scheme() == "http" && !is_loopback(&url)) {
            self.warnings.push(format!(
                "{path}: http instead of https: anyone on the network path can read and change the requests"
            ));
        }
    }

    /// Reads a text file of at most `max` bytes now, to find errors early.
    pub fn text(
        &mut self,
        path: &KeyPath,
        file: &Path,
        max: u64,
        expected: &str,
    ) -> Option<String> {
        let file = self.base.join(file);
        match files::read_text(&file, max) {
            Ok(text) => Some(text),
            Err(error) => {
                self.unreadable(path, &redact::path(&file), &error, expected);
                None
            }
        }
    }

    /// A file that cannot be read, and its expected content.
    fn unreadable(&mut self, path: &KeyPath, file: &str, error: &io::Error, expected: &str) {
        self.problem(path, format!("cannot read {file}: {error}; expected {expected}"));
    }

    /// Reads a PEM file with certificates now, to find errors early.
    pub fn pem(&mut self, path: &KeyPath, file: Option<&PathBuf>) -> Option<Pem> {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let file = self.base.join(file?);
        let shown = redact::path(&file);
        let text = match files::read(&file, MAX_PEM) {
            Ok(text) => text,
            Err(error) => {
                self.unreadable(path, &shown, &error, "a file with certificates (PEM)");
                return None;
            }
        };
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        if certificates.is_ok_and(|certificates| !certificates.is_empty()) {
            return Some(Pem(text));
        }
        self.fault(
            path,
            format!("{shown} without a valid certificate"),
            "a file with certificates (PEM)",
        );
        None
    }
}

/// The URL in a secret, if it is readable and valid.
pub fn read_url(secret: Option<&Secret>) -> Option<Url> {
    Url::parse(secret?.read().ok()?.expose_secret().trim()).ok()
}
