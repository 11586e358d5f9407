//! `format = "teams"`: an Adaptive Card, for the workflow “When a Teams webhook request is
//! received”.
//!
//! External text is only in text runs, which are not Markdown
//! (<https://adaptivecards.io/explorer/TextRun.html>), unlike text blocks and facts.
//!
//! Limit: 28 kB, as measured by the workflow: it rejected a card of 24 453 bytes as one of 28 897
//! (<https://github.com/MicrosoftDocs/msteams-docs/issues/11274>). Cards therefore stay well below.

use serde_json::{Value, json};

use super::format::{RenderContext, SHOWN, cut};
use crate::{
    domain::text::unlinked,
    message::{
        Notification,
        entry::{Answer, Entry, Mark, capitalized, caveat, reading},
        wording,
    },
};

/// The largest card, in bytes of JSON.
const MAX_CARD: usize = 18_000;
/// Reserved for the end of the card.
const LAST_WORDS: usize = 1_500;
const MAX_LINE: usize = 600;
/// The maximum length of an item of a list.
const MAX_ITEM: usize = 300;

pub fn body(notification: &Notification, context: RenderContext<'_>) -> Value {
    let mark = Mark::of_all(notification);
    let title = capitalized(&wording::summary(notification, context.now));
    let title = unlinked(&match &notification.organization {
        Some(organization) => format!("{organization}: {title}"),
        None => title,
    });
    let mut card = vec![paragraph(&[run(&title).size("large").bolder().colour(mark)])];
    let scan = notification.scan.as_ref();
    if let Some(caveat) = scan.and_then(caveat) {
        card.push(paragraph(&[run(&format!("⚠ {caveat}")).colour(Mark::Warning)]));
    }
    let mut left = MAX_CARD - LAST_WORDS - Value::from(card.clone()).to_string().len();
    let mut shown = 0;
    for alert in &notification.alerts {
        let entry = |shown| Entry::new(notification, alert, shown, context.style, context.now);
        // Prefer the full form, then the short one; otherwise only count the alert.
        let full = SHOWN.iter().map(|shown| full(&entry(*shown)));
        let short = std::iter::once_with(|| short(&entry(0)));
        let fitting = full.chain(short).find(|container| container.to_string().len() < left);
        let Some(container) = fitting else { break };
        left -= container.to_string().len() + 1;
        card.push(container);
        shown += 1;
    }
    if let more @ 1.. = notification.alerts_total.saturating_sub(shown) {
        card.push(paragraph(&[run(&wording::left_out(more))]));
    }
    let read = scan.map(|scan| reading(scan, context.style.timezone)).unwrap_or_default();
    let (notifier, id) = (&notification.notifier, notification.id);
    let foot = format!("{read} Message {id} for the notifier “{notifier}”");
    card.push(paragraph(&[run(foot.trim()).size("small").subtle()]));
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "fallbackText": cut(&title, MAX_LINE),
                "body": card,
                "msteams": { "width": "Full" },
            },
        }],
    })
}

fn short(entry: &Entry) -> Value {
    let headline = run(&format!("{} {}", entry.mark.sign(), entry.headline)).bolder();
    let mut items = vec![paragraph(&[headline])];
    if let Some(consequence) = &entry.consequence {
        items.push(paragraph(&[run("What breaks: ").bolder(), run(consequence)]));
    }
    container(items)
}

fn full(entry: &Entry) -> Value {
    let Value::Array(mut items) = short(entry)["items"].take() else { return Value::Null };
    for (label, value) in &entry.facts {
        items.push(paragraph(&[run(&format!("{label}: ")).subtle(), run(value)]));
    }
    let line = |line: String| paragraph(&[run(&format!("• {}", cut(&line, MAX_ITEM)))]);
    for list in &entry.lists {
        items.push(paragraph(&[run(&list.title).bolder()]));
        items.extend(list.lines().map(line));
    }
    if !entry.advice.is_empty() {
        items.push(paragraph(&[run("What to do").bolder()]));
    }
    items.extend(entry.numbered_advice().map(|step| paragraph(&[run(&step)])));
    if let Some(url) = &entry.runbook {
        let action = json!({ "type": "Action.OpenUrl", "url": url });
        items.push(paragraph(&[run("Runbook").with("selectAction", action)]));
    }
    let answer = entry.answer.as_ref();
    if let Some((label, url)) = answer.and_then(Answer::link) {
        let action = json!({ "type": "Action.OpenUrl", "url": url });
        items.push(paragraph(&[run(label).with("selectAction", action)]));
    } else if let Some((label, command)) = answer.and_then(Answer::command) {
        let command = run(command).monospace();
        items.push(paragraph(&[run(&format!("{label}: ")).bolder(), command]));
    }
    container(items)
}

fn container(mut items: Vec<Value>) -> Value {
    for item in items.iter_mut().skip(1) {
        item["spacing"] = "small".into();
    }
    json!({ "type": "Container", "separator": true, "spacing": "medium", "items": items })
}

fn paragraph(runs: &[Run]) -> Value {
    let inlines: Vec<&Value> = runs.iter().map(|run| &run.0).collect();
    json!({ "type": "RichTextBlock", "inlines": inlines })
}

/// A text run, which contains no markup.
struct Run(Value);

fn run(text: &str) -> Run {
    Run(json!({ "type": "TextRun", "text": cut(text, MAX_LINE) }))
}

impl Run {
    fn with(mut self, key: &str, value: impl Into<Value>) -> Run {
        self.0[key] = value.into();
        self
    }

    fn bolder(self) -> Run {
        self.with("weight", "bolder")
    }

    fn size(self, size: &str) -> Run {
        self.with("size", size)
    }

    fn subtle(self) -> Run {
        self.with("isSubtle", true)
    }

    fn monospace(self) -> Run {
        self.with("fontType", "monospace")
    }

    fn colour(self, mark: Mark) -> Run {
        self.with(
            "color",
            match mark {
                Mark::Critical => "attention",
                Mark::Warning => "warning",
                Mark::Info | Mark::Drill => "accent",
                Mark::Resolved => "good",
            },
        )
    }
}
