//! `format = "slack"`: Block Kit, for an incoming webhook.
//!
//! What others wrote stands in plain text and in the text elements of rich text alone, which Slack takes
//! for no markup, mention or link; the fallback is escaped as its formatting page says.
//!
//! Limits (<https://docs.slack.dev/reference/block-kit/blocks>): 50 blocks; a header of 150 characters, any
//! text of 3000. For rich text none is given: a block of it is held to the 3000 of a text.

use serde_json::{Value, json};

use super::format::{Setting, cut, units};
use crate::{
    domain::{notification::Notification, text::unlinked, wording},
    notify::entry::{Entry, Mark, Quiet, reading, unseen},
};

const MAX_HEADER: usize = 150;
const MAX_TEXT: usize = 3_000;
/// Two blocks each, and five for the rest, are within 50.
const SHOWN_ALERTS: usize = 20;
const SHOWN_PROJECTS: usize = 5;

pub fn body(notification: &Notification, setting: Setting<'_>) -> Value {
    let mark = Mark::of_all(notification);
    let summary = wording::summary(notification, setting.now);
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
    let unseen = notification.scan.as_ref().and_then(unseen);
    blocks.extend(
        unseen.map(|text| json!({ "type": "section", "text": plain(&format!("⚠ {text}")) })),
    );
    for alert in notification.alerts.iter().take(SHOWN_ALERTS) {
        let entry = Entry::new(notification, alert, SHOWN_PROJECTS, setting.timezone, setting.now);
        blocks.push(json!({ "type": "divider" }));
        blocks.push(block(&entry));
    }
    let shown = notification.alerts.len().min(SHOWN_ALERTS);
    if let more @ 1.. = notification.alerts_total.saturating_sub(shown) {
        let text = format!("And {more} more, which this message has no room for.");
        blocks.push(json!({ "type": "section", "text": plain(&text) }));
    }
    let read = notification.scan.as_ref().map(|scan| reading(scan, setting.timezone));
    let foot = format!(
        "{}Message {} for the notifier “{}”",
        read.map_or(String::new(), |read| format!("{read} ")),
        notification.id,
        notification.notifier
    );
    blocks.push(json!({ "type": "context", "elements": [plain(&foot)] }));
    json!({ "text": cut(&escaped(&title), MAX_TEXT), "mrkdwn": false, "blocks": blocks })
}

/// `&`, `<` and `>` are all that Slack wants escaped in its own text.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A block of rich text that grows up to its limit; what does not fit is left out, and said.
struct RichText {
    elements: Vec<Value>,
    left: usize,
    is_cut: bool,
}

impl RichText {
    fn fits(&mut self, text: &str) -> bool {
        // The ellipsis always fits.
        let length = units(text);
        self.is_cut |= length + 1 >= self.left;
        if !self.is_cut {
            self.left -= length;
        }
        !self.is_cut
    }

    fn section(&mut self, parts: &[(&str, Value)]) {
        let fitting: Vec<Value> = parts
            .iter()
            .filter(|(text, _)| !text.is_empty() && self.fits(text))
            .map(|(text, style)| json!({ "type": "text", "text": text, "style": style }))
            .collect();
        if !fitting.is_empty() {
            self.elements.push(json!({ "type": "rich_text_section", "elements": fitting }));
        }
    }

    fn list(&mut self, style: &str, items: impl Iterator<Item = String>) {
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
}

fn block(entry: &Entry) -> Value {
    let bold = json!({ "bold": true });
    let none = json!({});
    let code = json!({ "code": true });
    let mut text = RichText { elements: Vec::new(), left: MAX_TEXT, is_cut: false };
    let headline = format!("{} {}\n", entry.mark.sign(), entry.headline);
    text.section(&[(&headline, bold.clone())]);
    if let Some(consequence) = &entry.consequence {
        let consequence = format!("{consequence}\n");
        text.section(&[("What breaks: ", bold.clone()), (&consequence, none.clone())]);
    }
    for (label, value) in &entry.facts {
        let (label, value) = (format!("{label}: "), format!("{value}\n"));
        text.section(&[(&label, bold.clone()), (&value, none.clone())]);
    }
    if !entry.projects_label.is_empty() {
        text.section(&[(&entry.projects_label, bold.clone())]);
        let lines = entry.projects.iter().map(|project| match project.state.as_str() {
            "" => project.name.clone(),
            state => format!("{}: {state}", project.name),
        });
        let more = (entry.more_projects > 0).then(|| format!("and {} more", entry.more_projects));
        text.list("bullet", lines.chain(more));
    }
    if !entry.advice.is_empty() {
        text.section(&[("What to do", bold.clone())]);
        text.list("ordered", entry.advice.iter().cloned());
    }
    if let Some(Quiet::Command(command)) = &entry.quiet {
        text.section(&[("Quiet for a while: ", bold), (command, code)]);
    }
    if text.is_cut {
        let cut = json!([{ "type": "text", "text": "…" }]);
        text.elements.push(json!({ "type": "rich_text_section", "elements": cut }));
    }
    json!({ "type": "rich_text", "elements": text.elements })
}
