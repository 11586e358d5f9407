//! `[[tests]]`: imaginary certificates, and who must get alerts about them.

use chrono::TimeDelta;
use lettre::message::Mailbox;
use serde_json::{Value, json};
use std::time::Duration;

use super::{
    check::Checker,
    problem::KeyPath,
    raw,
    value::{List, Text, one_of, unexpected},
};
use crate::{
    domain::{expectation::Expectation, text::Name, threshold::Severity},
    redact::quoted,
};

pub fn check(checker: &mut Checker<'_>, written: Option<&Vec<raw::Test>>) -> Vec<Expectation> {
    let parent = KeyPath::of("tests");
    if written.is_some_and(Vec::is_empty) {
        let expected = "at least one test; to have no tests, remove the key “tests”";
        checker.fault(&parent, "an empty list", expected);
    }
    let written = written.into_iter().flatten().enumerate();
    written.filter_map(|(index, one)| expectation(checker, &parent, index, one)).collect()
}

/// Unknown organizations, projects and receivers only fail the test: a test must not prevent the
/// start of the service.
fn expectation(
    checker: &mut Checker<'_>,
    parent: &KeyPath,
    index: usize,
    raw: &raw::Test,
) -> Option<Expectation> {
    let path = parent.index(index);
    let certificate = raw.certificate.as_deref();
    if certificate.is_none() {
        checker.missing(&path.key("certificate"), "the id or name of a certificate");
    }
    let projects = names(raw.projects.as_ref());
    if projects.is_empty() {
        checker.missing(&path.key("projects"), "the id or name of at least one project");
    }
    if raw.expires_in.is_none() {
        checker.missing(&path.key("expires_in"), REMAINING);
    }
    let (reaches, does_not_reach) =
        (receivers(raw.reaches.as_ref()), receivers(raw.does_not_reach.as_ref()));
    if raw.severity.is_none() && reaches.is_empty() && does_not_reach.is_empty() {
        checker.missing(&path, "severity, reaches or does_not_reach");
    }
    let expires_in = raw.expires_in.as_ref()?.0;
    let lifetime = raw.lifetime.as_ref().map(|lifetime| (lifetime.delta(), &lifetime.text));
    if let Some((_, text)) = lifetime.filter(|(lifetime, _)| *lifetime < expires_in) {
        checker.fault(&path.key("lifetime"), quoted(text), "at least expires_in");
    }
    Some(Expectation {
        index,
        name: raw.name.as_deref().cloned(),
        organization: raw.organization.as_deref().cloned(),
        certificate: certificate?.clone(),
        projects,
        uploader: raw.uploader.as_deref().cloned(),
        expires_in,
        lifetime: lifetime.map(|(lifetime, _)| lifetime),
        has_successor: raw.has_successor.unwrap_or(false),
        severity: raw.severity.as_ref().map(|severity| severity.0),
        reaches,
        does_not_reach,
    })
}

/// Names of notifiers and addresses, in the form of configured ones.
fn receivers(list: Option<&List<Name>>) -> Vec<String> {
    let receiver = |name: Name| match Mailbox::parse(name.as_str()) {
        Ok(mailbox) => mailbox.email.to_string(),
        Err(_) => name.as_str().to_owned(),
    };
    names(list).into_iter().map(receiver).collect()
}

fn names(list: Option<&List<Name>>) -> Vec<Name> {
    list.into_iter().flat_map(|list| &list.0).map(|name| Name::clone(name)).collect()
}

/// The time until an expiry; negative if the certificate has expired.
#[derive(Clone, Copy, Debug)]
pub struct Remaining(TimeDelta);

const REMAINING: &str = "a duration of at most 100 years such as \"6d\", or \"-6d\" for an \
                         expired certificate";

impl Text for Remaining {
    fn parse(text: &str) -> Result<Self, String> {
        let (sign, duration) = match text.strip_prefix('-') {
            Some(duration) => (-1, duration),
            None => (1, text),
        };
        let duration = <Duration as Text>::parse(duration).ok();
        let delta = duration.and_then(|duration| TimeDelta::from_std(duration).ok());
        delta.map_or_else(|| unexpected(text, REMAINING), |delta| Ok(Remaining(delta * sign)))
    }
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^-?([0-9]+ *[a-zA-Zµ]+ *)+$" })
    }
}

/// A severity, or `none` for no alert.
#[derive(Clone, Copy, Debug)]
pub struct Expected(Option<Severity>);

fn severities() -> Vec<&'static str> {
    Severity::ALL.iter().map(|one| one.as_str()).chain(["none"]).collect()
}

impl Text for Expected {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Expected(None)),
            text => match Severity::parse(text) {
                Some(severity) => Ok(Expected(Some(severity))),
                None => unexpected(text, one_of(&severities())),
            },
        }
    }
    fn schema() -> Value {
        json!({ "enum": severities() })
    }
}

/// A name in one line.
impl Text for Name {
    fn parse(text: &str) -> Result<Self, String> {
        Name::clean(text).map_or_else(|| unexpected(text, "a name"), Ok)
    }
}
