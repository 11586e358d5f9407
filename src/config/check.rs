//! Converts written values into typed ones, and collects every problem.

use chrono::TimeDelta;
use secrecy::ExposeSecret;
use std::{
    fmt::Display,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};
use url::Url;

use super::{
    Needs,
    fault::{Fault, KeyPath, mismatch},
    layers::Origins,
    raw::Strings,
};
use crate::{
    domain::{
        selection::{Glob, Globs},
        threshold::Severity,
    },
    files,
    net::{Pem, is_loopback},
    redact::{self, quoted},
    secret::{PLACES, Secret},
};

/// The longest accepted duration: beyond it, times overflow.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 86_400);
/// The largest accepted certificate file, in bytes.
const MAX_PEM: u64 = 1024 * 1024;

/// Collects problems, at most one for each key.
pub struct Checker<'a> {
    pub origins: &'a Origins,
    pub base: &'a Path,
    /// Keys that the layers have refused and removed.
    pub taken_out: Vec<KeyPath>,
    /// The secrets to read and check.
    pub needs: Needs,
    pub faults: Vec<(KeyPath, Fault)>,
    pub warnings: Vec<String>,
}

impl Checker<'_> {
    /// Records a problem, unless the key has one already or is missing only because it was refused.
    pub fn problem(&mut self, path: &KeyPath, problem: impl Display) {
        let known = self.faults.iter().any(|(known, _)| known == path);
        if known || self.taken_out.iter().any(|taken| taken.touches(path)) {
            return;
        }
        let origin = self.origins.of(path);
        let fault = Fault { path: path.to_string(), origin, problem: problem.to_string() };
        self.faults.push((path.clone(), fault));
    }

    /// As [`Checker::problem`], in the form “found …, expected …”.
    pub fn fault(&mut self, path: &KeyPath, found: impl Display, expected: impl Display) {
        self.problem(path, mismatch(found, expected));
    }

    pub fn missing(&mut self, path: &KeyPath, expected: impl Display) {
        self.fault(path, "nothing", expected);
    }

    pub fn duration(&mut self, path: &KeyPath, text: Option<&String>) -> Option<Duration> {
        let text = text?;
        let expected = "a duration such as \"90d\", \"12h\" or \"1h 30m\"";
        match humantime::parse_duration(text) {
            Ok(duration) if duration > MAX_DURATION => {
                self.fault(path, quoted(text), "a duration of at most 100 years");
                None
            }
            Ok(duration) => Some(duration),
            Err(_) => {
                self.fault(path, quoted(text), expected);
                None
            }
        }
    }

    /// A duration above zero.
    pub fn positive(&mut self, path: &KeyPath, text: Option<&String>) -> Option<Duration> {
        let duration = self.duration(path, text)?;
        if duration.is_zero() {
            self.fault(path, "a duration of zero", "a duration above zero");
            return None;
        }
        Some(duration)
    }

    pub fn positive_delta(&mut self, path: &KeyPath, text: Option<&String>) -> Option<TimeDelta> {
        self.positive(path, text).and_then(|duration| TimeDelta::from_std(duration).ok())
    }

    pub fn severity(&mut self, path: &KeyPath, text: Option<&String>) -> Option<Severity> {
        let Some(text) = text else {
            self.missing(path, "\"info\", \"warning\" or \"critical\"");
            return None;
        };
        let severity = Severity::parse(text);
        if severity.is_none() {
            self.fault(path, quoted(text), "\"info\", \"warning\" or \"critical\"");
        }
        severity
    }

    /// A number within inclusive bounds.
    pub fn within<T: PartialOrd + Display + Copy>(
        &mut self,
        path: &KeyPath,
        number: Option<T>,
        least: T,
        most: T,
    ) -> Option<T> {
        let number = number?;
        if number < least || number > most {
            self.fault(path, number, format!("a number from {least} to {most}"));
            return None;
        }
        Some(number)
    }

    /// Globs as written; `left_out` if the key is missing.
    pub fn globs(&mut self, path: &KeyPath, list: Option<&Strings>, left_out: Globs) -> Globs {
        let Some(Strings(list)) = list else {
            return left_out;
        };
        // If the default matches nothing, an empty list is the default.
        if list.is_empty() && !left_out.0.is_empty() {
            self.fault(path, "an empty list", "at least one glob such as \"*\"");
        }
        for (index, glob) in list.iter().enumerate().filter(|(_, glob)| glob.is_empty()) {
            self.fault(&path.index(index), quoted(glob), "a glob such as \"prod-*\"");
        }
        Globs(list.iter().map(|glob| Glob::new(glob)).collect())
    }

    /// A value that a library parses; its own error message is not shown.
    pub fn parsed<T: FromStr>(&mut self, path: &KeyPath, text: &str, expected: &str) -> Option<T> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.fault(path, quoted(text), expected);
        }
        parsed
    }

    /// The name of an organization or notifier.
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

    /// A secret: a literal value in the file causes a warning.
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
                "{origin}: {path}: the secret is written in the configuration; use {PLACES} instead"
            ));
        }
        self.place(path, Some(secret), needed, fits)
    }

    /// A value that may be secret, with its file path resolved. A needed value is read now, so that
    /// a missing or invalid one stops the start.
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

    /// Warns of a URL without TLS to another host.
    pub fn in_the_open(&mut self, path: &KeyPath, url: Option<&Secret>) {
        if read_url(url).is_some_and(|url| url.scheme() == "http" && !is_loopback(&url)) {
            self.warnings.push(format!(
                "{path}: http instead of https: anyone on the network path can read and change the requests"
            ));
        }
    }

    /// The text of a file of at most `max` bytes, read now to find errors early.
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
                self.fault(path, format!("{}: {error}", redact::path(&file)), expected);
                None
            }
        }
    }

    /// A file with certificates in PEM, read now to find errors early.
    pub fn pem(&mut self, path: &KeyPath, file: Option<&PathBuf>) -> Option<Pem> {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let file = self.base.join(file?);
        let shown = redact::path(&file);
        let text = match files::read(&file, MAX_PEM) {
            Ok(text) => text,
            Err(error) => {
                self.fault(path, format!("{shown}: {error}"), "a file with certificates (PEM)");
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

/// The URL in a secret, if it can be read.
pub fn read_url(secret: Option<&Secret>) -> Option<Url> {
    Url::parse(secret?.read().ok()?.expose_secret().trim()).ok()
}
