//! `[notifiers.webhook.NAME]`.

use url::Url;

use super::{
    check::{Checker, read_url},
    fault::KeyPath,
    notifiers::routing,
    raw,
};
use crate::{
    net::fits_url,
    notify::{
        header_value,
        style::Style,
        webhook::{
            self,
            format::{Format, Key},
            template::Template,
        },
    },
    redact::quoted,
    secret::{PLACES, Secret},
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
    let format = format(checker, path, raw);
    let default_url = format.as_ref().and_then(Format::default_url);
    let default_url = default_url.map(|url| Secret::Literal(url.to_owned().into()));
    let url = raw.url.as_ref().or(default_url.as_ref());
    let word = raw.format.as_deref().unwrap_or_default();
    let known = webhook::format::BUILT_IN.iter().find(|known| known.word() == word);
    if raw.url.is_none() && known.is_none_or(|known| known.default_url().is_none()) {
        checker.missing(&path.key("url"), format!("a URL, {PLACES}"));
    }
    // URLs and headers may be secret but often are not: a literal value causes no warning.
    let needed = checker.needs.notifiers;
    let url = checker.place(&path.key("url"), url, needed, fits_url);
    checker.in_the_open(&path.key("url"), url.as_ref());
    if matches!(format, Some(Format::Alertmanager)) {
        below_a_path(checker, &path.key("url"), url.as_ref());
    }
    match format.as_ref().map(Format::key) {
        Some(Key::Routing) if raw.key.is_none() => {
            checker.missing(&path.key("key"), "the integration key of the PagerDuty service");
        }
        Some(Key::Genie) if raw.key.is_none() => {
            checker.missing(&path.key("key"), "the API key of the Opsgenie integration");
        }
        Some(Key::None) if raw.key.is_some() => {
            checker.fault(
                &path.key("key"),
                "a key",
                "no key: the URL of this service is the secret",
            );
        }
        Some(Key::Routing | Key::Genie | Key::Bearer | Key::None) | None => {}
    }
    let routing = routing!(checker, path, raw);
    let headers = raw.headers.iter().filter_map(|(header, value)| {
        let path = path.key("headers").key(header);
        let parsed: Option<reqwest::header::HeaderName> =
            checker.parsed(&path, header, "the name of an HTTP header");
        let name = parsed?;
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
    let concurrency = checker.within(
        &path.key("concurrency"),
        Some(raw.concurrency.unwrap_or(webhook::CONCURRENCY)),
        1,
        64,
    );
    let max_per_minute = checker.within(
        &path.key("max_per_minute"),
        raw.max_per_minute.or(format.as_ref().map(Format::max_per_minute)),
        1,
        6_000,
    );
    let key = checker.secret(&path.key("key"), raw.key.as_ref(), needed, header_value);
    let signing = raw.secret.as_ref();
    let signing = checker.secret(&path.key("secret"), signing, needed, webhook::fits_signing);
    let ca = checker.pem(&path.key("ca_file"), raw.ca_file.as_ref());
    Some(webhook::Settings {
        name: name.to_owned(),
        format: format?,
        url: url?,
        url_by_default: raw.url.is_none(),
        key,
        signing,
        headers,
        ca,
        concurrency: concurrency?,
        max_per_minute: max_per_minute?,
        routing,
        style: style.clone(),
    })
}

/// Warns of an unexpected path in an Alertmanager URL, such as that of another API version.
fn below_a_path(checker: &mut Checker<'_>, path: &KeyPath, url: Option<&Secret>) {
    let is_usual = |url: &Url| ["", "/api/v2/alerts"].contains(&url.path().trim_end_matches('/'));
    if read_url(url).is_some_and(|url| !is_usual(&url)) {
        checker.warnings.push(format!(
            "{path}: certvigil appends /api/v2/alerts to the path of this URL, which is right \
             only for an Alertmanager with --web.route-prefix"
        ));
    }
}

/// The format, with the template compiled and tried.
fn format(checker: &mut Checker<'_>, path: &KeyPath, raw: &raw::Webhook) -> Option<Format> {
    let word = raw.format.as_deref().unwrap_or("json");
    if word == "template" {
        let Some(file) = &raw.template else {
            checker.missing(&path.key("template"), "a template file");
            return None;
        };
        let content_type = raw.content_type.clone();
        let content_type = content_type.unwrap_or_else(|| "application/json".to_owned());
        if header_value(&content_type).is_err() || !content_type.contains('/') {
            let expected = "a content type such as \"application/json\"";
            let found = crate::domain::text::one_line(&content_type, 100);
            checker.fault(&path.key("content_type"), quoted(&found), expected);
            return None;
        }
        let path = path.key("template");
        let expected = "a template file (minijinja) of at most 256 KiB";
        let source = checker.text(&path, file, MAX_TEMPLATE, expected)?;
        return match Template::new(source, content_type) {
            Ok(template) => Some(Format::Template(template)),
            Err(why) => {
                let expected = "a template that renders every message (config/examples has one)";
                checker.fault(&path, format!("{}: {why}", file.display()), expected);
                None
            }
        };
    }
    let of_templates =
        [("template", raw.template.is_some()), ("content_type", raw.content_type.is_some())];
    for (key, _) in of_templates.into_iter().filter(|(_, given)| *given) {
        checker.fault(
            &path.key(key),
            format!("{key} with the format “{word}”"),
            "format = \"template\"",
        );
    }
    let built_in = webhook::format::BUILT_IN.into_iter().find(|known| known.word() == word);
    if built_in.is_none() {
        let words =
            webhook::format::BUILT_IN.map(|known| format!("\"{}\"", known.word())).join(", ");
        checker.fault(&path.key("format"), quoted(word), format!("{words} or \"template\""));
    }
    built_in
}
