//! `format = "template"`: the operator's own body, a minijinja template with the document of
//! `format = "json"` as its data.
//!
//! Loading the configuration renders it with a sample of every event, so that errors stop the
//! start. The content type decides the escaping: in JSON each value becomes a JSON value with
//! quotes; in HTML and XML it becomes text.

use chrono::{DateTime, Utc};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, value::Serde};
use std::sync::Arc;

use super::{
    format::{RenderContext, Request},
    json,
};
use crate::message::{Event, Notification, sample, style::Links};

/// The limit of work for one rendering, in instructions of the engine. A loop over a full
/// notification takes some ten thousand.
const FUEL: u64 = 10_000_000;
/// The largest rendered body, in bytes.
const MAX_BODY: usize = 512 * 1024;
/// The name of the only template.
const NAME: &str = "body";

#[derive(Clone)]
pub struct Template {
    engine: Arc<Environment<'static>>,
    pub content_type: String,
    is_json: bool,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Template").field("content_type", &self.content_type).finish_non_exhaustive()
    }
}

impl Template {
    /// Compiles a template and renders it with a sample of every event.
    ///
    /// # Errors
    /// The problem, with its line and the sample.
    pub fn new(source: String, content_type: String) -> Result<Template, String> {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_lowercase();
        let is_json = essence == "application/json" || essence.ends_with("+json");
        let is_markup = essence == "text/html" || essence.ends_with("xml");
        let mut engine = Environment::new();
        engine.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        engine.set_fuel(Some(FUEL));
        engine.set_auto_escape_callback(move |_| match (is_json, is_markup) {
            (true, _) => AutoEscape::Json,
            (false, true) => AutoEscape::Html,
            (false, false) => AutoEscape::None,
        });
        engine.add_template_owned(NAME, source).map_err(|error| words(&error))?;
        let template = Template { engine: Arc::new(engine), content_type, is_json };
        let now = sample_time();
        let samples = Event::ALL.iter().map(|event| sample::of(*event, "sample", now));
        for sample in samples.chain([sample::digest("sample", now)]) {
            template.body(&sample, &Links::default(), now).map_err(|why| {
                let events: Vec<&str> =
                    sample.alerts.iter().map(|alert| alert.event.as_str()).collect();
                format!("{why}, in a sample message with {}", events.join(", "))
            })?;
        }
        Ok(template)
    }

    fn body(
        &self,
        notification: &Notification,
        links: &Links,
        now: DateTime<Utc>,
    ) -> Result<String, String> {
        let document = json::document(notification, links, now);
        let template = self.engine.get_template(NAME).map_err(|error| words(&error))?;
        let body = template.render(Value::from(Serde(document))).map_err(|error| words(&error))?;
        if body.len() > MAX_BODY {
            return Err(format!("the rendered body has {} bytes, more than 512 KiB", body.len()));
        }
        if self.is_json {
            // The usual cause is a value between quotes of the template.
            serde_json::from_str::<serde::de::IgnoredAny>(&body)
                .map_err(|error| format!("the rendered body is not valid JSON ({error})"))?;
        }
        Ok(body)
    }

    /// # Errors
    /// As [`Template::new`], for a notification unlike all samples.
    pub fn call(
        &self,
        notification: &Notification,
        context: RenderContext<'_>,
    ) -> Result<Request, String> {
        let body = self.body(notification, &context.style.links, context.now);
        let body = body.map_err(|why| format!("cannot render the template: {why}"))?;
        Ok(Request {
            url: context.url.clone(),
            content_type: self.content_type.clone(),
            body,
            closes: false,
        })
    }
}

/// An arbitrary constant: samples are not sent.
fn sample_time() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap_or_default()
}

/// The engine's error in one line, with its line in the template.
fn words(error: &minijinja::Error) -> String {
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    let detail = error.detail().map_or(String::new(), |detail| format!(": {detail}"));
    crate::domain::text::one_line(&format!("{line}{}{detail}", error.kind()), 300)
}
