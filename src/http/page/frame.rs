//! The frame of every page: navigation, freshness and access.

use axum::http::Uri;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use super::{
    super::{
        guard::{self, Caller},
        session::Key,
        snapshot::Snapshot,
    },
    link,
};
use crate::{domain::day, message::wording};

#[derive(Serialize)]
pub struct Frame {
    pub title: String,
    /// The first segment of the path, which identifies the page.
    pub section: String,
    /// Whether the caller may write.
    pub trusted: bool,
    /// Whether the caller has the read-only token.
    pub reader: bool,
    /// The time of the data.
    pub made_at: Option<DisplayTime>,
    pub version: &'static str,
    /// The URL for calendar subscriptions.
    pub calendar: String,
    pub timezone: String,
}

/// A time in all formats of the pages.
#[derive(Clone, Debug, Serialize)]
pub struct DisplayTime {
    /// RFC 3339.
    pub iso: String,
    /// In the configured zone.
    pub local: String,
    /// The day in the configured zone.
    pub day: String,
    /// In UTC.
    pub utc: String,
    /// `in 6 days`, `2 days ago`.
    pub distance: String,
}

impl DisplayTime {
    pub fn new(at: DateTime<Utc>, now: DateTime<Utc>, timezone: Tz) -> DisplayTime {
        let local = at.with_timezone(&timezone);
        let span = wording::span(at - now);
        DisplayTime {
            iso: day::rfc3339(at),
            local: day::local(at, timezone),
            day: local.format("%Y-%m-%d").to_string(),
            utc: at.format("%Y-%m-%d %H:%M UTC").to_string(),
            distance: if at > now { format!("in {span}") } else { format!("{span} ago") },
        }
    }
}

impl Frame {
    pub fn of(snapshot: &Snapshot, caller: Caller, uri: &Uri, key: &Key) -> Frame {
        let configured = &snapshot.configured;
        let feed = guard::feed(key, configured);
        let path = link::asking("/calendar.ics", &[("token", &feed)]);
        let calendar = match &configured.public_url {
            Some(url) => url.join(&path).map_or(path, |url| url.to_string()),
            None => path,
        };
        let section = uri.path().split('/').nth(1).unwrap_or_default().to_owned();
        Frame {
            made_at: Some(DisplayTime::new(snapshot.at, snapshot.at, configured.timezone)),
            section,
            calendar,
            timezone: configured.timezone.name().to_owned(),
            ..Frame::bare(caller, "certvigil")
        }
    }

    /// The frame of a page without data.
    pub fn bare(caller: Caller, title: &str) -> Frame {
        Frame {
            title: title.to_owned(),
            section: String::new(),
            trusted: caller == Caller::Trusted,
            reader: caller == Caller::Reader,
            made_at: None,
            version: crate::build::VERSION,
            calendar: String::new(),
            timezone: String::new(),
        }
    }

    pub fn titled(mut self, title: impl Into<String>) -> Frame {
        self.title = title.into();
        self
    }
}
