//! `format = "discord"`: embeds.
//!
//! In external text, all special characters of Discord's Markdown are escaped. `allowed_mentions`
//! prevents mentions.
//!
//! Limits (<https://docs.discord.com/developers/resources/message#embed-object-embed-limits>): 10
//! embeds; a title of 256 characters, a description of 4096, 25 fields with a name of 256 and a
//! value of 1024, a footer of 2048, and 6000 in all embeds together. With `wait=true`, the response
//! reports whether the message was saved
//! (<https://docs.discord.com/developers/resources/webhook#execute-webhook>).

use serde_json::{Value, json};

use super::format::{RenderContext, Request, SHOWN, cut, units};
use crate::message::{
    Notification,
    entry::{Answer, Entry, Mark, caveat, reading},
    wording,
};

const MAX_EMBEDS: usize = 10;
const MAX_TITLE: usize = 256;
const MAX_DESCRIPTION: usize = 4_096;
const MAX_VALUE: usize = 1_024;
const MAX_TOTAL: usize = 6_000;
/// Reserved for the last embed.
const LAST_WORDS: usize = 900;
/// The maximum length of an item of a list: five then fit into a field.
const MAX_ITEM: usize = 190;

pub fn call(notification: &Notification, context: RenderContext<'_>) -> Request {
    let mut url = context.url.clone();
    if url.query_pairs().all(|(key, _)| key != "wait") {
        url.query_pairs_mut().append_pair("wait", "true");
    }
    Request::json_to(url, body(notification, context).to_string())
}

pub fn body(notification: &Notification, context: RenderContext<'_>) -> Value {
    let mut embeds = Vec::new();
    let mut left = MAX_TOTAL - LAST_WORDS;
    for alert in &notification.alerts {
        let entry = |shown| Entry::new(notification, alert, shown, context.style, context.now);
        // Prefer the full form, then the short one; otherwise only count the alert.
        let full = SHOWN.iter().map(|shown| full(notification, &entry(*shown)));
        let short = std::iter::once_with(|| short(notification, &entry(0)));
        let fitting = full.chain(short).find(|embed| length(embed) <= left);
        let Some(embed) = fitting.filter(|_| embeds.len() + 1 < MAX_EMBEDS) else { break };
        left -= length(&embed);
        embeds.push(embed);
    }
    embeds.push(last(notification, context, embeds.len()));
    json!({ "embeds": embeds, "allowed_mentions": { "parse": [] } })
}

fn full(notification: &Notification, entry: &Entry) -> Value {
    let facts = entry.facts.iter().map(|(label, value)| format!("{label}: {}", escaped(value)));
    let breaks = entry.consequence.iter().map(|text| format!("**What breaks:** {}", escaped(text)));
    let description: Vec<String> = breaks.chain(facts).collect();
    let mut fields = Vec::new();
    let mut field = |name: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            fields.push(json!({
                "name": cut(&escaped(name), MAX_TITLE),
                "value": cut(&lines.join("\n"), MAX_VALUE),
            }));
        }
    };
    for list in &entry.lists {
        let lines = list.lines().map(|line| format!("• {}", cut(&escaped(&line), MAX_ITEM)));
        field(&list.title, lines.collect());
    }
    field("What to do", entry.numbered_advice().map(|step| escaped(&step)).collect());
    if let Some(url) = &entry.runbook {
        field("Runbook", vec![url.clone()]);
    }
    let answer = entry.answer.as_ref();
    if let Some((purpose, command)) = answer.and_then(Answer::command) {
        let link = answer.and_then(Answer::link);
        let link = link.map(|(label, url)| format!("[{label}]({url})"));
        field(purpose, vec![link.unwrap_or_else(|| format!("`{command}`"))]);
    }
    json!({
        "title": title(notification, entry),
        "description": cut(&description.join("\n"), MAX_DESCRIPTION),
        "color": colour(entry.mark),
        "fields": fields,
        "timestamp": super::rfc3339(notification.created_at),
    })
}

fn short(notification: &Notification, entry: &Entry) -> Value {
    let breaks = entry.consequence.as_deref().map(escaped).unwrap_or_default();
    json!({
        "title": title(notification, entry),
        "description": cut(&breaks, MAX_VALUE),
        "color": colour(entry.mark),
    })
}

/// Unreadable lists, the number of omitted alerts, and the time of the scan.
fn last(notification: &Notification, context: RenderContext<'_>, shown: usize) -> Value {
    let scan = notification.scan.as_ref();
    let more = notification.alerts_total.saturating_sub(shown);
    let more = (more > 0).then(|| wording::left_out(more));
    let caveat = scan.and_then(caveat).map(|text| format!("⚠ {text}"));
    let reading = scan.map(|scan| reading(scan, context.style.timezone));
    let lines: Vec<String> = more.into_iter().chain(caveat).chain(reading).collect();
    let (organization, notifier) = (notification.organization.as_ref(), &notification.notifier);
    let of = organization.map_or(String::new(), |name| format!("{name} · "));
    json!({
        "description": cut(&escaped(&lines.join("\n")), LAST_WORDS / 2),
        "color": colour(Mark::of_all(notification)),
        "footer": {
            "text": cut(&format!("{of}certvigil, notifier “{notifier}” · {}", notification.id), LAST_WORDS / 3),
        },
    })
}

fn title(notification: &Notification, entry: &Entry) -> String {
    let of = notification.organization.as_ref().map_or(String::new(), |name| format!("{name}: "));
    let title = format!("{of}{}", entry.headline);
    cut(&format!("{} {}", entry.mark.sign(), escaped(&title)), MAX_TITLE)
}

/// The length that counts towards the limit of all embeds.
fn length(embed: &Value) -> usize {
    let of = |value: &Value| value.as_str().map_or(0, units);
    let fields = embed["fields"].as_array().into_iter().flatten();
    let fields: usize = fields.map(|field| of(&field["name"]) + of(&field["value"])).sum();
    of(&embed["title"]) + of(&embed["description"]) + fields
}

/// Escapes the special characters of Markdown.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\*_~`|<>[]()#@".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn colour(mark: Mark) -> u32 {
    match mark {
        Mark::Critical => 0xB4_23_18,
        Mark::Warning => 0xD4_8A_00,
        Mark::Info => 0x05_50_AE,
        Mark::Drill => 0x66_39_BA,
        Mark::Resolved => 0x1A_7F_37,
    }
}
