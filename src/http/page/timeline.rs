//! The chart of upcoming expiries: a lane for each certificate from now to its expiry, coloured by
//! its thresholds; that of an expired certificate has the whole width. Widths are percentages, so
//! that it fits every screen. Positions use the square root of the time, which gives near expiries
//! more room.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use super::{frame::DisplayTime, link};
use crate::{
    domain::{status::Status, text::one_line},
    view::{CertificateRow, Step},
};

/// The maximum number of lanes.
const LANES: usize = 12;
/// The shortest and the longest time that the chart covers.
const SHORTEST: TimeDelta = TimeDelta::days(30);
const LONGEST: TimeDelta = TimeDelta::days(400);
/// The labelled times, in days.
const MARKS: [(i64, &str); 6] = [
    (1, "1 day"),
    (7, "1 week"),
    (30, "30 days"),
    (90, "90 days"),
    (180, "180 days"),
    (365, "1 year"),
];
/// Heights, in pixels.
const HEAD: usize = 26;
const LANE: usize = 44;

#[derive(Serialize)]
pub struct Timeline {
    pub height: usize,
    pub lanes: Vec<Lane>,
    pub marks: Vec<Mark>,
    /// The number of omitted certificates, which expire later or have no room.
    pub more: usize,
    pub until: DisplayTime,
}

/// The lane of a certificate.
#[derive(Serialize)]
pub struct Lane {
    pub href: String,
    pub title: String,
    /// The title, shortened for the chart.
    pub short: String,
    pub organization: String,
    pub expires: DisplayTime,
    pub expired: bool,
    /// The vertical positions of the name and the bar, in pixels.
    pub text_y: usize,
    pub bar_y: usize,
    pub segments: Vec<Segment>,
    pub ticks: Vec<Tick>,
    /// The position of the expiry, in percent.
    pub end: f64,
    pub severity: &'static str,
}

/// A part of a lane's bar, in percent.
#[derive(Serialize)]
pub struct Segment {
    pub x: f64,
    pub width: f64,
    pub severity: &'static str,
}

/// A future threshold; its position is in percent.
#[derive(Serialize)]
pub struct Tick {
    pub x: f64,
    pub label: String,
    pub at: DisplayTime,
    pub severity: &'static str,
}

/// A labelled time at the top.
#[derive(Serialize)]
pub struct Mark {
    /// In percent.
    pub x: f64,
    pub label: &'static str,
    /// Whether its label fits only on a wide screen.
    pub tight: bool,
}

impl Timeline {
    /// The active certificates that expire first; `None` without any.
    pub fn of<'a>(
        rows: impl Iterator<Item = &'a CertificateRow>,
        now: DateTime<Utc>,
        timezone: Tz,
    ) -> Option<Timeline> {
        let mut ends: Vec<(DateTime<Utc>, &CertificateRow)> = rows
            .filter(|row| {
                !matches!(row.status, Status::Inactive | Status::UnknownActivity)
                    && row.view.ignored.is_none()
            })
            .filter_map(|row| Some((row.view.expires_at?, row)))
            .collect();
        ends.sort_by_key(|(at, row)| (*at, row.view.id.clone()));
        let total = ends.len();
        ends.retain(|(at, _)| *at <= now + LONGEST);
        ends.truncate(LANES);
        let furthest = ends.last().map_or(SHORTEST, |(at, _)| *at - now);
        let span = (furthest + furthest / 12).clamp(SHORTEST, LONGEST);
        let place = |at: DateTime<Utc>| {
            let share = (at - now).as_seconds_f64() / span.as_seconds_f64();
            (share.clamp(0.0, 1.0).sqrt() * 10_000.0).round() / 100.0
        };
        let lanes: Vec<Lane> = ends
            .iter()
            .enumerate()
            .map(|(index, (at, row))| lane(index, *at, row, &place, now, timezone))
            .collect();
        (!lanes.is_empty()).then(|| Timeline {
            height: HEAD + lanes.len() * LANE + 8,
            more: total - lanes.len(),
            marks: marks(now, span, &place),
            until: DisplayTime::new(now + span, now, timezone),
            lanes,
        })
    }
}

fn lane(
    index: usize,
    at: DateTime<Utc>,
    row: &CertificateRow,
    place: &impl Fn(DateTime<Utc>) -> f64,
    now: DateTime<Utc>,
    timezone: Tz,
) -> Lane {
    let top = HEAD + index * LANE;
    let thresholds: Vec<(DateTime<Utc>, &Step)> =
        row.steps.iter().filter_map(|step| Some((step.at?, step))).collect();
    let mut segments = Vec::new();
    let mut from = now;
    let mut severity = "calm";
    for (reached_at, step) in &thresholds {
        let to = (*reached_at).clamp(now, at.max(now));
        if to > from {
            segments.push(segment(place(from), place(to), severity));
            from = to;
        }
        severity = step.severity.as_str();
    }
    if at > from {
        segments.push(segment(place(from), place(at), severity));
    }
    let ahead = thresholds.iter().filter(|(reached_at, _)| *reached_at > now && *reached_at < at);
    let ticks = ahead.map(|(reached_at, step)| Tick {
        x: place(*reached_at),
        label: step.stage.clone(),
        at: DisplayTime::new(*reached_at, now, timezone),
        severity: step.severity.as_str(),
    });
    let title = row.view.title();
    Lane {
        href: link::certificate(&row.organization, &row.view.id),
        short: one_line(title, 24),
        title: title.to_owned(),
        organization: row.organization.to_string(),
        expires: DisplayTime::new(at, now, timezone),
        expired: at <= now,
        text_y: top + 16,
        bar_y: top + 22,
        ticks: ticks.collect(),
        segments,
        end: place(at),
        severity: row.severity.map_or("calm", |severity| severity.as_str()),
    }
}

fn segment(x: f64, end: f64, severity: &'static str) -> Segment {
    Segment { x, width: ((end - x) * 100.0).round() / 100.0, severity }
}

fn marks(now: DateTime<Utc>, span: TimeDelta, place: &impl Fn(DateTime<Utc>) -> f64) -> Vec<Mark> {
    /// The width of a label on a phone, in percent.
    const ROOM: f64 = 18.0;
    let marks = MARKS.iter().map(|(days, label)| (now + TimeDelta::days(*days), *label));
    let marks: Vec<(f64, &str)> =
        marks.filter(|(at, _)| *at < now + span).map(|(at, label)| (place(at), label)).collect();
    let next = marks.iter().skip(1).map(|(x, _)| *x).chain([100.0]);
    marks
        .iter()
        .zip(next)
        .map(|((x, label), next)| Mark { x: *x, label, tight: *x < ROOM || next - x < ROOM })
        .collect()
}
