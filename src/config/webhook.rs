//! `[notifiers.webhook.NAME]`.

use url::Url;

use super::{
    check::{Checker, read_url},
    problem::{KeyPath, mismatch},
    raw,
    routing::routing,
    value::{Text, one_of, unexpected},
};
use crate::{
    domain::{notifier::Grouping, text::one_line},
    message::style::Style,
    net::fits_url,
    notify::{
        header_value,
        webhook::{
            self,
            format::{Format, KeyUse},
            template::Template,
        },
    },
    redact::quoted,
    secret::{SECRET_FORMS, Secret},
};

/// The largest accepted template, in bytes.
const MAX_TEMPLATE: u64 = 256 * 1024;

pub(super) fn check(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    name: &str,
    raw: &raw::Webhook,
    style: &Style,
) -> Option<webhook::Settings> {
    let written =
        raw.format.as_ref().map_or(FormatName(Some(Format::Json)), |name| (**name).clone());
    let format = format(checker, path, raw, &written);
    let default_url = format.as_ref().and_then(|format| format.profile().default_url);
    let default_url = default_url.map(|url| Secret::Literal(url.to_owned().into()));
    let url = raw.url.as_ref().or(default_url.as_ref());
    if url.is_none() {
        checker.missing(&path.key("url"), format!("a URL, {SECRET_FORMS}"));
    }
    // URLs and headers may be secret but often are not: a literal value causes no warning.
    let needed = checker.needs.notifiers;
    let url = checker.place(&path.key("url"), url, needed, fits_url);
    checker.warn_about_plain_http(&path.key("url"), url.as_ref());
    if matches!(format, Some(Format::Alertmanager)) {
        below_a_path(checker, &path.key("url"), url.as_ref());
    }
    match format.as_ref().map(|format| format.profile().key) {
        Some(KeyUse::Routing) if raw.key.is_none() => {
            checker.missing(&path.key("key"), "the integration key of the PagerDuty service");
        }
        Some(KeyUse::Genie) if raw.key.is_none() => {
            checker.missing(&path.key("key"), "the API key of the Opsgenie integration");
        }
        Some(KeyUse::None) if raw.key.is_some() => {
            checker.fault(
                &path.key("key"),
                "a key",
                "no key: the URL of this service is the secret",
            );
        }
        Some(KeyUse::Routing | KeyUse::Genie | KeyUse::Bearer | KeyUse::None) | None => {}
    }
    let routing = routing(
        &raw.min_severity,
        &raw.organizations,
        &raw.projects,
        raw.send_resolved,
        &raw.events,
    );
    if let Some(format) = &format
        && routing.changes
        && format.profile().grouping != Grouping::Digest
    {
        let found = format!("“changes” with the format “{}”", format.profile().word);
        let expected = "no events: this service opens an incident for each message, and a change \
                        is none";
        checker.fault(&path.key("events"), found, expected);
    }
    let headers = raw.headers.iter().filter_map(|(header, value)| {
        let path = path.key("headers").key(header);
        let Ok(name) = header.parse::<reqwest::header::HeaderName>() else {
            checker.fault(&path, quoted(header), "the name of an HTTP header");
            return None;
        };
        let ours = ["content-type", "content-length", "host", "authorization"];
        let authorization = name == "authorization" && raw.key.is_none();
        let taken = ours.contains(&name.as_str()) || name.as_str().starts_with("webhook-");
        if taken && !authorization {
            checker.fault(&path, quoted(name.as_str()), "a header that certvigil does not set");
        }
        let value = checker.place(&path, Some(value), needed, header_value)?;
        Some((name, value))
    });
    let headers = headers.collect();
    let concurrency = raw.concurrency.map_or(webhook::CONCURRENCY, |most| most.0 as usize);
    let key = checker.secret(&path.key("key"), raw.key.as_ref(), needed, header_value);
    let signing = raw.secret.as_ref();
    let signing = checker.secret(&path.key("secret"), signing, needed, webhook::fits_signing);
    let ca = checker.pem(&path.key("ca_file"), raw.ca_file.as_ref());
    Some(webhook::Settings {
        name: name.to_owned(),
        max_per_minute: match raw.max_per_minute {
            Some(most) => most.0,
            None => format.as_ref()?.profile().max_per_minute,
        },
        format: format?,
        url: url?,
        url_by_default: raw.url.is_none(),
        key,
        signing,
        headers,
        ca,
        concurrency,
        routing,
        style: style.clone(),
    })
}

/// Warns about an unexpected path in an Alertmanager URL, such as that of another API version.
fn below_a_path(checker: &mut Checker<'_>, path: &KeyPath, url: Option<&Secret>) {
    let is_usual = |url: &Url| ["", "/api/v2/alerts"].contains(&url.path().trim_end_matches('/'));
    if read_url(url).is_some_and(|url| !is_usual(&url)) {
        checker.warnings.push(format!(
            "{path}: this URL has a path, and certvigil appends /api/v2/alerts to it: remove the \
             path, unless Alertmanager runs with the same path as --web.route-prefix"
        ));
    }
}

/// A format by its name; `None` for a template.
#[derive(Clone, Debug)]
pub struct FormatName(Option<Format>);

impl Text for FormatName {
    fn parse(text: &str) -> Result<Self, String> {
        match webhook::format::BUILT_IN.into_iter().find(|known| known.profile().word == text) {
            Some(known) => Ok(FormatName(Some(known))),
            None if text == TEMPLATE => Ok(FormatName(None)),
            None => unexpected(text, one_of(&names())),
        }
    }
    fn schema() -> serde_json::Value {
        serde_json::json!({ "enum": names() })
    }
}

const TEMPLATE: &str = "template";

fn names() -> Vec<&'static str> {
    webhook::format::BUILT_IN.iter().map(|known| known.profile().word).chain([TEMPLATE]).collect()
}

/// A media type (RFC 9110, section 8.3).
#[derive(Clone, Debug)]
pub struct ContentType(String);

impl Text for ContentType {
    fn parse(text: &str) -> Result<Self, String> {
        match header_value(text).is_ok() && text.contains('/') {
            true => Ok(ContentType(text.to_owned())),
            false => Err(mismatch(
                quoted(&one_line(text, 100)),
                "a content type such as \"application/json\"",
            )),
        }
    }
}

/// The format; compiles and tests a template.
fn format(
    checker: &mut Checker<'_>,
    path: &KeyPath,
    raw: &raw::Webhook,
    written: &FormatName,
) -> Option<Format> {
    if let Some(built_in) = &written.0 {
        let of_templates =
            [("template", raw.template.is_some()), ("content_type", raw.content_type.is_some())];
        for (key, _) in of_templates.into_iter().filter(|(_, given)| *given) {
            let found = format!("{key} with the format “{}”", built_in.profile().word);
            checker.fault(&path.key(key), found, "format = \"template\"");
        }
        return Some(built_in.clone());
    }
    let path = path.key("template");
    let Some(file) = &raw.template else {
        checker.missing(&path, "a template file");
        return None;
    };
    let content_type = raw.content_type.as_ref().map(|written| written.0.clone());
    let content_type = content_type.unwrap_or_else(|| "application/json".to_owned());
    let expected = "a template file (minijinja) of at most 256 KiB";
    let source = checker.text(&path, file, MAX_TEMPLATE, expected)?;
    match Template::new(source, content_type) {
        Ok(template) => Some(Format::Template(template)),
        Err(why) => {
            let problem = format!(
                "{}: {why}; expected a template that renders every message (for an example, see \
                 config/examples)",
                file.display()
            );
            checker.problem(&path, problem);
            None
        }
    }
}
