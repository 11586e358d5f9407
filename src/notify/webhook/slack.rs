//! `format = "slack"`: Block Kit, for an incoming webhook.
//!
//! External text is only in plain text and in text elements of rich text, where Slack interprets no
//! markup, mentions or links; the fallback is escaped by the rules of its formatting page.
//!
//! Limits (<https://docs.slack.dev/reference/block-kit/blocks>): 50 blocks; a header of 150
//! characters, a text of 3000. Rich text has no documented limit; certvigil limits a block to 3000,
//! too, and gives each list of a summary its own block.

use serde_json::{Value, json};

use super::format::{RenderContext, cut, units};
use crate::{
    domain::text::unlinked,
    message::{
        Notification,
        entry::{Answer, Entry, Mark, caveat, reading},
        wording,
    },
};

const MAX_HEADER: usize = 150;
const MAX_TEXT: usize = 3_000;
/// Two blocks for each alert and five others stay within 50.
const SHOWN_ALERTS: usize = 20;
const SHOWN_PROJECTS: usize = 5;
/// The maximum lengths of a fact and of a line of a list: one alert then fits into its block.
const MAX_FACT: usize = 250;
const MAX_LINE: usize = 200;

pub fn body(notification: &Notification, context: RenderContext<'_>) -> Value {
    let mark = Mark::of_all(notification);
    let summary = wording::summary(notification, context.now);
    let title = match &notification.organization {
        Some(organization) => format!("{organization}: {summary}"),
        None => summary,
    };
    let title = unlinked(&title);
    let plain =
        |text: &str| json!({ "type": "plain_text", "text": cut(text, MAX_TEXT), "emoji": false });
    let header = cut(&format!("{} {title}", mark.sign()), MAX_HEADER);
    let mut blocks = vec![json!({
        "type": "header",
        "text": { "type": "plain_text", "text": header, "emoji": false },
    })];
    let caveat = notification.scan.as_ref().and_then(caveat);
    blocks.extend(
        caveat.map(|text| json!({ "type": "section", "text": plain(&format!("⚠ {text}")) })),
    );
    for alert in notification.alerts.iter().take(SHOWN_ALERTS) {
        let entry = Entry::new(notification, alert, SHOWN_PROJECTS, context.style, context.now);
        blocks.push(json!({ "type": "divider" }));
        blocks.extend(rich_text(&entry));
    }
    let shown = notification.alerts.len().min(SHOWN_ALERTS);
    if let more @ 1.. = notification.alerts_total.saturating_sub(shown) {
        let text = wording::left_out(more);
        blocks.push(json!({ "type": "section", "text": plain(&text) }));
    }
    let read = notification.scan.as_ref().map(|scan| reading(scan, context.style.timezone));
    let foot = format!(
        "{}Message {} for the notifier “{}”",
        read.map_or(String::new(), |read| format!("{read} ")),
        notification.id,
        notification.notifier
    );
    blocks.push(json!({ "type": "context", "elements": [plain(&foot)] }));
    json!({ "text": cut(&escaped(&title), MAX_TEXT), "mrkdwn": false, "blocks": blocks })
}

/// Escapes `&`, `<` and `>`, as Slack requires for its own text format.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A block of rich text up to its limit; an ellipsis marks omitted content.
struct RichText {
    elements: Vec<Value>,
    /// The current section. Line breaks are explicit.
    section: Vec<Value>,
    left: usize,
    is_cut: bool,
}

impl RichText {
    fn new() -> RichText {
        RichText { elements: Vec::new(), section: Vec::new(), left: MAX_TEXT, is_cut: false }
    }

    fn fits(&mut self, text: &str) -> bool {
        let length = units(text);
        // The ellipsis always fits.
        self.is_cut |= length + 1 >= self.left;
        if !self.is_cut {
            self.left -= length;
        }
        !self.is_cut
    }

    fn plain(&mut self, text: &str) {
        if self.fits(text) {
            self.section.push(json!({ "type": "text", "text": text }));
        }
    }

    fn styled(&mut self, style: &str, text: &str) {
        if self.fits(text) {
            self.section.push(json!({ "type": "text", "text": text, "style": { style: true } }));
        }
    }

    fn end_section(&mut self) {
        if !self.section.is_empty() {
            let section = std::mem::take(&mut self.section);
            self.elements.push(json!({ "type": "rich_text_section", "elements": section }));
        }
    }

    fn list(&mut self, style: &str, items: impl Iterator<Item = String>) {
        self.end_section();
        let fitting: Vec<Value> = items
            .filter(|item| self.fits(item))
            .map(|item| {
                json!({ "type": "rich_text_section", "elements": [{ "type": "text", "text": item }] })
            })
            .collect();
        if !fitting.is_empty() {
            let list = json!({ "type": "rich_text_list", "style": style, "elements": fitting });
            self.elements.push(list);
        }
    }

    fn into_block(mut self) -> Value {
        if self.is_cut {
            self.section.push(json!({ "type": "text", "text": "…" }));
        }
        self.end_section();
        json!({ "type": "rich_text", "elements": self.elements })
    }
}

/// One block, or one for each list if there are several.
fn rich_text(entry: &Entry) -> Vec<Value> {
    let mut blocks = Vec::new();
    let mut text = RichText::new();
    text.styled("bold", &format!("{} {}", entry.mark.sign(), entry.headline));
    let breaks = entry.consequence.as_deref().map(|consequence| ("What breaks", consequence));
    let facts = entry.facts.iter().map(|(label, value)| (*label, value.as_str()));
    for (label, value) in breaks.into_iter().chain(facts) {
        text.styled("bold", &format!("\n{label}: "));
        text.plain(&cut(value, MAX_FACT));
    }
    for list in &entry.lists {
        if entry.lists.len() > 1 {
            blocks.push(std::mem::replace(&mut text, RichText::new()).into_block());
        }
        text.styled("bold", &format!("\n{}\n", list.title));
        text.list("bullet", list.lines().map(|line| cut(&line, MAX_LINE)));
    }
    if !entry.advice.is_empty() {
        text.styled("bold", "\nWhat to do\n");
        text.list("ordered", entry.advice.iter().cloned());
    }
    if let Some(url) = &entry.runbook
        && text.fits(url)
    {
        text.section.push(json!({ "type": "text", "text": "\nRunbook: " }));
        text.section.push(json!({ "type": "link", "url": url }));
    }
    let answer = entry.answer.as_ref();
    let link = answer.and_then(Answer::link).filter(|(_, url)| text.fits(url));
    if let Some((label, url)) = link {
        text.section.push(json!({ "type": "text", "text": "\n" }));
        text.section.push(json!({ "type": "link", "url": url, "text": label }));
    } else if let Some((label, command)) = answer.and_then(Answer::command) {
        text.styled("bold", &format!("\n{label}: "));
        text.styled("code", command);
    }
    blocks.push(text.into_block());
    blocks
}
