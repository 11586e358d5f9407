//! What people and services read: every event in every format, within each service's limits, and
//! with nothing in it that somebody wrote into a name to do harm.

use certvigil::{
    clock::Clock,
    config::{Config, NotifierSettings},
    demo::{pages::parts, world::World},
    domain::{
        certificate::{CertificateId, ProjectId},
        rotation::RotationStep,
        text::Name,
    },
    message::{
        Alert, Body, CertificateBody, Event, Named, Notification, ProjectView, SilenceView, sample,
    },
    notify::{email, log, webhook},
};
use chrono::TimeDelta;
use serde_json::Value;
use std::{collections::BTreeSet, path::Path};
use url::Url;

use super::support::{Service, Sim, certvigil, config, days, fits_schema, run, start};

const FORMATS: [&str; 7] =
    ["json", "slack", "teams", "discord", "pagerduty", "opsgenie", "alertmanager"];

/// Where a format has a key.
fn key(format: &str) -> &'static str {
    if ["slack", "teams", "discord"].contains(&format) { "" } else { "key = \"the-key\"\n" }
}

/// A notifier of every kind and format, named after it.
pub fn everybody() -> Config {
    let folder = tempfile::tempdir().unwrap();
    let mut text =
        "timezone = \"Europe/Berlin\"\n[organizations.acme]\nadmin_key = \"sk-admin-x\"\n\
                    [notifiers.email.mail]\nto = [\"ops@acme.example\"]\n[notifiers.log.log]\n\
                    [smtp]\nhost = \"127.0.0.1\"\ntls = \"none\"\n\
                    from = \"certvigil <certvigil@acme.example>\"\n\
                    [http]\npublic_url = \"https://certvigil.acme.example\"\n"
            .to_owned();
    for format in FORMATS {
        text.push_str(&format!(
            "[notifiers.webhook.{format}]\nformat = \"{format}\"\n{}\
             url = \"https://receiver.example/base\"\n",
            key(format)
        ));
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/own.json.j2");
    text.push_str(&format!(
        "[notifiers.webhook.template]\nformat = \"template\"\ntemplate = {own:?}\n\
         url = \"https://receiver.example/base\"\n"
    ));
    config(folder.path(), &text)
}

/// The requests that a webhook of this format would send.
fn calls(config: &Config, format: &str, message: &Notification) -> Vec<(Url, Value)> {
    let Some(NotifierSettings::Webhook(settings)) = config.notifiers.find(format) else {
        panic!("{format}")
    };
    let url = Url::parse("https://receiver.example/base").unwrap();
    let calls = webhook::preview(settings, &url, message, start()).unwrap();
    let read = |call: webhook::format::Request| {
        assert_eq!(call.content_type, "application/json");
        (call.url, serde_json::from_str(&call.body).unwrap())
    };
    calls.into_iter().map(read).collect()
}

/// The first of them.
fn call(config: &Config, format: &str, message: &Notification) -> (Url, Value) {
    calls(config, format, message).remove(0)
}

pub fn mail(config: &Config, message: &Notification) -> email::Rendered {
    let Some(NotifierSettings::Email(settings)) = config.notifiers.find("mail") else { panic!() };
    email::Renderer::new()
        .unwrap()
        .render(settings, settings.routes.first(), message, start())
        .unwrap()
}

/// A sample of every event, and one of several at once.
fn samples() -> Vec<(String, Notification)> {
    let one = |event: &Event| (event.to_string(), sample::of(*event, "ops", start()));
    let digest = ("digest".to_owned(), sample::digest("ops", start()));
    Event::ALL.iter().map(one).chain([digest]).collect()
}

#[test]
fn with_a_link_mails_and_chats_show_it_instead_of_the_command() {
    let config = everybody();
    let mut message = sample::of(Event::CertificateExpiring, "ops", start());
    let command = "certvigil ack ";
    assert!(mail(&config, &message).text.contains(command));
    message.alerts[0].link = Some("TOKEN_of-a-link".to_owned());
    let url = "https://certvigil.acme.example/link/TOKEN_of-a-link";
    let rendered = mail(&config, &message);
    for text in [rendered.text, rendered.html.replace("&#x2f;", "/")] {
        assert!(text.contains(url) && !text.contains(command), "{text}");
    }
    for format in FORMATS {
        let body = call(&config, format, &message).1.to_string();
        let is_chat = ["slack", "teams", "discord"].contains(&format);
        assert_eq!(body.contains(url), is_chat, "{format}: {body}");
        assert!(!(is_chat && body.contains(command)), "{format}: {body}");
    }
}

#[test]
fn every_event_in_every_format_is_as_it_was_looked_at() {
    let config = everybody();
    for format in FORMATS.iter().chain(&["template"]) {
        let mut all = String::new();
        for (name, message) in samples() {
            all.push_str(&format!("===== {name}\n"));
            for (url, body) in calls(&config, format, &message) {
                all.push_str(&format!("POST {url}\n{body:#}\n\n"));
            }
        }
        insta::assert_snapshot!(format!("webhook_{format}"), all);
    }
    let (mut text, mut html, mut lines) = (String::new(), String::new(), String::new());
    for (name, message) in samples() {
        let mail = mail(&config, &message);
        text.push_str(&format!("===== {name}\n{}\n\n{}\n", mail.subject, mail.text));
        html.push_str(&format!("<!-- {name} -->\n{}\n", mail.html));
        lines.push_str(&format!("===== {name}\n{}\n", log::lines(&message, start()).join("\n")));
    }
    insta::assert_snapshot!("mail_text_of_every_event", text);
    insta::assert_snapshot!("mail_html_of_every_event", html);
    insta::assert_snapshot!("log_of_every_event", lines);
}

#[test]
fn every_sample_in_json_fits_the_published_schema() {
    let config = everybody();
    for (_, message) in samples() {
        fits_schema(&call(&config, "json", &message).1);
    }
    fits_schema(&call(&config, "json", &largest()).1);
}

/// As much of everything as a message can hold.
pub fn largest() -> Notification {
    let name = || Name::clean(&"🔑*".repeat(60));
    let id = |n: usize| format!("{}{n:03}", "i".repeat(190));
    let silence = || SilenceView {
        reason: "<b>r</b>".repeat(62),
        by: Some("w".repeat(100)),
        until: start() + days(30),
        ended: false,
    };
    let mut message = sample::of(Event::CertificateExpiring, "ops", start());
    let mut alert = message.alerts.remove(0);
    let certificate = &mut body(&mut alert).certificate;
    certificate.name = name();
    (certificate.ignored, certificate.acknowledged) = (Some(silence()), Some(silence()));
    certificate.active_in.projects_total = 3_000;
    certificate.active_in.without_successor = 3_000;
    let project = |n| ProjectView {
        deactivated: None,
        id: ProjectId::parse(&id(n)).unwrap(),
        name: name(),
        successor_id: None,
        uncovered_from: Some(start() + days(6)),
        unprotected_since: None,
        next: Some(RotationStep::Activate),
        candidate: CertificateId::parse(&id(n)).ok().map(|id| Named { id, name: name() }),
    };
    certificate.active_in.projects = (0..50).map(project).collect();
    let successor = body(&mut alert).successor.as_mut().unwrap();
    (successor.name, successor.ignored) = (name(), Some(silence()));
    successor.acknowledged = Some(silence());
    message.alerts = (0..100)
        .map(|n| {
            let mut alert = alert.clone();
            body(&mut alert).certificate.id = CertificateId::parse(&id(n)).unwrap();
            alert
        })
        .collect();
    message.alerts_total = 120;
    message.scan.as_mut().unwrap().complete = false;
    message
}

/// How services that count as JavaScript does count characters.
fn units(text: &Value) -> usize {
    text.as_str().map_or(0, |text| text.encode_utf16().count())
}

/// Every value of this key, at any depth.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key));
            map.values().for_each(|value| all(value, key, found));
        }
        Value::Array(list) => list.iter().for_each(|value| all(value, key, found)),
        _ => {}
    }
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    all(value, key, &mut found);
    found.into_iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

#[test]
fn slack_gets_no_more_than_it_takes_and_the_number_of_the_rest() {
    let config = everybody();
    for message in samples().into_iter().map(|(_, message)| message).chain([largest()]) {
        let (_, body) = call(&config, "slack", &message);
        let blocks = body["blocks"].as_array().unwrap();
        assert!(blocks.len() <= 50, "{}", blocks.len());
        for block in blocks {
            let most = if block["type"] == "header" { 150 } else { 3_000 };
            let length: usize =
                texts(block, "text").iter().map(|text| text.encode_utf16().count()).sum();
            assert!((1..=most).contains(&length) || block["type"] == "divider", "{length} {block}");
        }
        let more = texts(&body, "text")
            .into_iter()
            .find(|text| text.contains(" not fit into this message"));
        assert_eq!(more.is_some(), message.alerts_total > 20);
    }
    let (_, body) = call(&config, "slack", &largest());
    assert!(body.to_string().contains("100 more alerts do not fit into this message."));
    assert!(body.to_string().contains("and 2995 more"), "and of the projects");
}

#[test]
fn discord_gets_no_more_than_it_takes_and_the_number_of_the_rest() {
    let config = everybody();
    for message in samples().into_iter().map(|(_, message)| message).chain([largest()]) {
        let (url, body) = call(&config, "discord", &message);
        assert_eq!(url.query(), Some("wait=true"), "so that it answers whether it was kept");
        assert_eq!(body["allowed_mentions"]["parse"], serde_json::json!([]));
        let embeds = body["embeds"].as_array().unwrap();
        assert!((1..=10).contains(&embeds.len()));
        let mut total = 0;
        for embed in embeds {
            let fields = embed["fields"].as_array().cloned().unwrap_or_default();
            assert!(fields.len() <= 25);
            for field in &fields {
                assert!((1..=256).contains(&units(&field["name"])), "{field}");
                assert!((1..=1_024).contains(&units(&field["value"])), "{field}");
                total += units(&field["name"]) + units(&field["value"]);
            }
            assert!(units(&embed["title"]) <= 256);
            assert!(units(&embed["description"]) <= 4_096);
            assert!(units(&embed["footer"]["text"]) <= 2_048);
            total += units(&embed["title"])
                + units(&embed["description"])
                + units(&embed["footer"]["text"]);
        }
        assert!(total <= 6_000, "{total}");
        let shown = embeds.len() - 1;
        let more = certvigil::message::wording::left_out(message.alerts_total - shown);
        let said = body.to_string().contains(&more);
        assert_eq!(said, message.alerts_total > shown, "{more}");
    }
}

#[test]
fn teams_gets_no_more_than_it_takes_and_the_number_of_the_rest() {
    let config = everybody();
    for message in samples().into_iter().map(|(_, message)| message).chain([largest()]) {
        let (_, body) = call(&config, "teams", &message);
        assert!(body.to_string().len() <= 20_000, "{}", body.to_string().len());
        let card = &body["attachments"][0]["content"];
        let shown = card["body"].as_array().unwrap().iter();
        let shown = shown.filter(|element| element["type"] == "Container").count();
        assert!(shown >= 1);
        let more = certvigil::message::wording::left_out(message.alerts_total - shown);
        assert_eq!(body.to_string().contains(&more), message.alerts_total > shown, "{more}");
    }
}

#[test]
fn pagerduty_and_opsgenie_are_given_no_more_than_they_take() {
    let config = everybody();
    for message in samples().into_iter().map(|(_, message)| message).chain([largest()]) {
        let (_, event) = call(&config, "pagerduty", &message);
        assert!(event.to_string().len() <= 512 * 1_024);
        assert!((1..=1_024).contains(&units(&event["payload"]["summary"])));
        let key = event["dedup_key"].as_str().unwrap();
        assert!(key.starts_with("certvigil:"));
        assert!((1..=255).contains(&key.len()), "{key}");
        assert!(["trigger", "resolve"].contains(&event["event_action"].as_str().unwrap()));
        let (url, alert) = call(&config, "opsgenie", &message);
        if message.alerts[0].event.is_resolution() {
            let path = format!("/base/{key}/close");
            assert_eq!((url.path(), url.query()), (&*path, Some("identifierType=alias")));
            assert!(units(&alert["note"]) <= 25_000);
            continue;
        }
        assert_eq!(alert["alias"], key, "the same rule");
        assert!((1..=130).contains(&units(&alert["message"])));
        assert!(units(&alert["description"]) <= 15_000);
        assert!(units(&alert["entity"]) <= 512 && units(&alert["source"]) <= 100);
        let tags = alert["tags"].as_array().unwrap();
        assert!(tags.len() <= 20 && tags.iter().all(|tag| units(tag) <= 50));
        let details = alert["details"].as_object().unwrap();
        let length: usize =
            details.iter().map(|(name, text)| name.encode_utf16().count() + units(text)).sum();
        assert!(length <= 8_000, "{length}");
    }
}

#[test]
fn a_mail_of_very_many_alerts_is_not_cut_off_by_mail_programs_and_shows_how_many_there_are() {
    let config = everybody();
    let mail = mail(&config, &largest());
    // 60 of the largest possible headlines have their size; names of usual length leave room to
    // spare.
    assert!(mail.html.len() < 230_000, "{}", mail.html.len());
    let usual = {
        let mut message = largest();
        for alert in &mut message.alerts {
            let body = body(alert);
            body.successor = None;
            let certificate = &mut body.certificate;
            certificate.name = Name::clean("internal-ca-of-the-search-team-2026");
            (certificate.ignored, certificate.acknowledged) = (None, None);
            for project in &mut certificate.active_in.projects {
                project.id = ProjectId::parse("proj_abcdefghijklmnopqrst").unwrap();
                project.name = Name::clean("search-ranking-production-eu");
            }
        }
        message
    };
    let usual = self::mail(&config, &usual);
    assert!(usual.html.len() < 100_000, "{}", usual.html.len());
    for said in [&mail.html, &mail.text, &usual.html, &usual.text] {
        assert!(said.contains("60 more alerts do not fit into this mail"));
        assert!(said.contains("and 2990 more"), "projects");
        assert!(said.contains("Details of 50 more alerts"));
    }
    assert!(mail.subject.contains("(+119 more)"), "{}", mail.subject);
}

#[test]
fn a_digest_repeats_no_sentence_more_than_three_times() {
    let config = everybody();
    let samples = samples().into_iter().map(|(_, message)| message);
    for sample in samples.filter(|message| message.alerts[0].certificate().is_some()) {
        let mut message = sample;
        let alert = message.alerts[0].clone();
        let named = |n: usize| {
            let mut alert = alert.clone();
            let certificate = &mut body(&mut alert).certificate;
            certificate.id = CertificateId::parse(&format!("cert_{n}")).unwrap();
            certificate.name = Name::clean(&format!("ca-{n}"));
            alert
        };
        message.alerts = (0..12).map(named).collect();
        message.alerts_total = 12;
        let mail = mail(&config, &message);
        // The overview has every alert, the details the first ten.
        assert_eq!(mail.text.matches("ca-11").count(), 1, "{}", mail.text);
        let mut counts = std::collections::BTreeMap::<&str, usize>::new();
        for sentence in mail.text.lines().flat_map(|line| line.split(". ")) {
            let sentence = sentence.trim().trim_start_matches(|c: char| c.is_ascii_digit());
            if sentence.ends_with('.') && sentence.split(' ').count() > 5 {
                *counts.entry(sentence).or_default() += 1;
            }
        }
        let often: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 3).collect();
        assert!(often.is_empty(), "{often:#?}\n{}", mail.text);
        if matches!(alert.event, Event::CertificateExpiring | Event::CertificateExpired) {
            let next = "Next steps for “ca-0”, “ca-1”, ";
            assert!(mail.text.contains(next) && mail.html.contains(next), "{}", mail.text);
        }
    }
}

/// Names as somebody would choose them to break something.
fn hostile() -> Vec<String> {
    let long = "x".repeat(10_000);
    [
        "a\r\nBcc: eve@evil.example\r\n\r\n<script>alert(1)</script>",
        "<img src=https://evil.example/x.png onerror=alert(1)>",
        "</td></tr></table></body><style>*{display:none}</style>",
        "<!channel> <!here> <@U123> <#C123> <https://evil.example|click>",
        "@everyone @here <@123> <@&456> <t:1800000000>",
        "[click](https://evil.example) ![x](http://evil.example/x.png)",
        "*bold* _italic_ ~struck~ ||spoiler|| `code` # heading > quote",
        "www.evil.example https://evil.example eve@evil.example mailto:eve@evil.example",
        "\u{202e}gpj.exe\u{2066} \u{200b}\u{feff}",
        "a\u{0}b\u{1b}[31mred\u{7}",
        "{{ 7*7 }} {% for x in y %} ${7*7} {{ .Labels }} %s %n",
        "\"}],\"routing_key\":\"evil\",\"x\":[{\"y\":\"\\",
        "=?utf-8?q?=0ABcc:_eve@evil.example?=",
        &long,
        "&lt;b&gt; &amp;amp; &#x3c;",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn body(alert: &mut Alert) -> &mut CertificateBody {
    match &mut alert.body {
        Body::Certificate(body) => body,
        other => panic!("{other:?}"),
    }
}

/// A message in which every name is hostile.
pub fn hostile_message() -> Notification {
    let mut message = sample::of(Event::CertificateExpiring, "ops", start());
    let alert = message.alerts.remove(0);
    for name in hostile() {
        let mut alert = alert.clone();
        let certificate = &mut body(&mut alert).certificate;
        certificate.name = Name::clean(&name);
        certificate.active_in.projects[0].name = Name::clean(&name);
        message.alerts.push(alert);
    }
    message.alerts_total = message.alerts.len();
    message
}

/// A world in which every name is hostile.
fn hostile_world() -> World {
    let names = hostile();
    let mut world = World::with_projects(names.len(), |n| names[n - 1].clone());
    for (n, name) in names.iter().enumerate() {
        let end = start() + days(3) + TimeDelta::hours(n as i64);
        world.add(&format!("cert_{n:02}"), Some(name), Some(end), [n + 1]);
    }
    world
}

#[tokio::test]
async fn no_name_adds_a_header_markup_a_link_or_a_mention_to_anything_or_makes_it_fail() {
    let sim = Sim::start(hostile_world()).await;
    let mut text = sim.config();
    for format in FORMATS.iter().skip(1) {
        text.push_str(&format!(
            "[notifiers.webhook.{format}]\nformat = \"{format}\"\n{}\
             url = \"http://{}/hook/{format}\"\nmax_per_minute = 6000\n",
            key(format),
            sim.hook
        ));
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/own.json.j2");
    text.push_str(&format!(
        "[notifiers.webhook.template]\nformat = \"template\"\ntemplate = {own:?}\n\
         url = \"http://{}/hook/template\"\n",
        sim.hook
    ));
    let service = Service::start(&text).await;
    service.scan(start()).await;
    for report in service.deliver(start()).await {
        assert_eq!((report.waiting, report.failed), (0, 0));
        assert!(report.delivered > 0);
    }

    let mails = sim.mailbox.mails();
    let message = mail_parser::MessageParser::default().parse(&mails[0].data).unwrap();
    let headers: BTreeSet<&str> = message.headers().iter().map(|header| header.name()).collect();
    let expected = [
        "Auto-Submitted",
        "Content-Type",
        "Date",
        "From",
        "Importance",
        "In-Reply-To",
        "List-ID",
        "MIME-Version",
        "Message-ID",
        "References",
        "Subject",
        "To",
        "X-Auto-Response-Suppress",
    ];
    assert_eq!(headers, BTreeSet::from(expected));
    let read = parts(&mails[0].data).unwrap();
    let elements: BTreeSet<String> = read
        .html
        .split('<')
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric()).collect())
        .collect();
    let ours = [
        "", "b", "body", "br", "code", "div", "h1", "h2", "head", "html", "li", "meta", "ol",
        "span", "style", "table", "tbody", "td", "title", "tr", "ul",
    ];
    assert!(elements.iter().all(|name| ours.contains(&name.as_str())), "{elements:?}");
    assert_eq!(read.html.matches("<style").count(), 1);
    for said in [&read.html, &read.text] {
        // The title is no text that a mail program makes links in.
        let body = said.split("</title>").last().unwrap();
        assert!(!body.contains("evil.example") && !body.contains("https://"), "a link: {body}");
        assert!(!body.contains("eve@"), "an address: {body}");
        assert!(!body.contains(['\u{202e}', '\u{1b}', '\u{0}']));
        assert!(body.contains("{{ 7*7 }}"), "harmless text is kept");
        assert!(body.contains(&format!("{}…", "x".repeat(119))), "what is long is cut");
    }

    let posts = sim.receiver.posts();
    let of = |format: &str| {
        let target = format!("/hook/{format}");
        let bodies: Vec<Value> = posts
            .iter()
            .filter(|post| post.target.starts_with(&target))
            .map(|post| serde_json::from_str(&post.body).unwrap())
            .collect();
        assert!(!bodies.is_empty(), "{format}");
        bodies
    };
    let unlinked = |text: &str| {
        assert!(!text.contains("evil.example") && !text.contains("https://"), "a link: {text}");
    };
    for slack in of("slack") {
        let types: BTreeSet<String> = texts(&slack, "type").into_iter().collect();
        let plain = [
            "context",
            "divider",
            "header",
            "plain_text",
            "rich_text",
            "rich_text_list",
            "rich_text_section",
            "section",
            "text",
        ];
        assert!(types.iter().all(|word| plain.contains(&word.as_str())), "{types:?}");
        assert!(!slack["text"].as_str().unwrap().contains('<'));
        assert_eq!(slack["mrkdwn"], false);
        unlinked(&slack.to_string());
    }
    for teams in of("teams") {
        let types: BTreeSet<String> = texts(&teams, "type").into_iter().collect();
        let plain = ["AdaptiveCard", "Container", "RichTextBlock", "TextRun", "message"];
        assert!(types.iter().all(|word| plain.contains(&word.as_str())), "{types:?}");
        unlinked(&teams["attachments"][0]["content"]["body"].to_string());
    }
    for discord in of("discord") {
        for key in ["title", "description", "name", "value"] {
            for text in texts(&discord, key) {
                unlinked(&text);
                // A command of ours, with nothing in it that others wrote.
                if text.starts_with("`certvigil ack cert_") && text.matches('`').count() == 2 {
                    continue;
                }
                let rest = text.replace("**What breaks:**", "");
                let mut before = ' ';
                for c in rest.chars() {
                    let escaped = before == '\\';
                    let means = "*_~|<>[]()#@".contains(c);
                    assert!(!means || escaped, "{c} means something in {text}");
                    before = if escaped && c == '\\' { ' ' } else { c };
                }
            }
        }
    }
    for event in of("pagerduty") {
        assert_eq!(event["routing_key"], "the-key");
        unlinked(event["payload"]["summary"].as_str().unwrap());
        unlinked(&event["payload"]["custom_details"].to_string());
    }
    for alert in of("opsgenie") {
        unlinked(&alert.to_string());
    }
    for alerts in of("alertmanager") {
        unlinked(&alerts[0]["annotations"].to_string());
        let labels = alerts[0]["labels"].as_object().unwrap();
        let names: BTreeSet<&str> = labels.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            BTreeSet::from(["alertname", "certificate", "organization", "service", "severity"])
        );
    }
    assert_eq!(of("template").len(), 1);
    assert_eq!(of("pagerduty").len(), hostile().len(), "one for each certificate");
}

#[tokio::test]
async fn no_name_adds_a_line_to_the_log() {
    let sim = Sim::start({
        let mut world = hostile_world();
        // The binary has the clock of this machine.
        for certificate in &mut world.certificates {
            certificate.expires_at = Some(Clock::System.now() + days(3));
        }
        world
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "{}[notifiers.log.log]\n[log]\nlevel = \"error\"\n",
        super::support::organization(sim.api_address)
    );
    std::fs::write(folder.path().join("c.toml"), text).unwrap();
    let mut command = certvigil(folder.path());
    command.args(["--config", "c.toml", "check", "--notify", "--output", "json"]);
    let (code, stdout, stderr) = run(command).await;
    assert_eq!(code, 2, "{stderr}");
    let document: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(document["certificates"].as_array().unwrap().len(), hostile().len());
    let alerts: Vec<&str> = stderr.lines().filter(|line| line.contains("expires in")).collect();
    assert_eq!(alerts.len(), hostile().len(), "{stderr}");
    let mut lines = stderr.lines().filter(|line| !line.starts_with("configuration: "));
    assert!(lines.all(|line| line.starts_with("20") || line.contains("certvigil")), "{stderr}");
    assert!(!stderr.contains(['\u{202e}', '\u{0}', '\u{7}']));
    assert!(!stderr.contains("\u{1b}[31mred"), "no colours but the log's own");
}
