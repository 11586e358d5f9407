//! The runbook that messages link to, as a page.

use minijinja::Value;
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};
use serde::Serialize;
use std::sync::LazyLock;

use super::{Frame, guard::Caller};

const TEXT: &str = include_str!("../../../docs/how-to/runbook.md");

#[derive(Serialize)]
pub struct Page {
    frame: Frame,
    text: Value,
}

impl super::Page for Page {
    const TEMPLATE: &'static str = "runbook.html";
}

pub fn page(caller: Caller) -> Page {
    static HTML: LazyLock<String> = LazyLock::new(|| rendered(TEXT));
    // The text is built in and contains nothing external.
    let text = Value::from_safe_string(HTML.clone());
    Page { frame: Frame::bare(caller, "What to do"), text }
}

/// Renders Markdown as HTML, with the heading ids that GitHub generates.
fn rendered(markdown: &str) -> String {
    let mut events: Vec<Event<'_>> = Parser::new_ext(markdown, Options::ENABLE_TABLES).collect();
    let mut heading: Option<(usize, String)> = None;
    for at in 0..events.len() {
        match (&events[at], &mut heading) {
            (Event::Start(Tag::Heading { .. }), _) => heading = Some((at, String::new())),
            (Event::Text(text) | Event::Code(text), Some((_, title))) => title.push_str(text),
            (Event::End(TagEnd::Heading(_)), Some((start, title))) => {
                let name = anchor(title);
                let start = *start;
                if let Event::Start(Tag::Heading { id, .. }) = &mut events[start] {
                    *id = Some(CowStr::from(name));
                }
                heading = None;
            }
            _ => {}
        }
    }
    let mut out = String::with_capacity(2 * markdown.len());
    html::push_html(&mut out, events.into_iter());
    // Screen readers need the scope of column headers.
    out.replace("<th>", "<th scope=\"col\">")
}

/// The heading id that GitHub generates: lower case, no punctuation, hyphens for spaces.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_have_the_ids_that_github_generates() {
        assert_eq!(
            rendered("## `Outbox stuck`, now\n"),
            "<h2 id=\"outbox-stuck-now\"><code>Outbox stuck</code>, now</h2>\n"
        );
    }
}
