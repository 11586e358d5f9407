//! The instances on the same database, and how their configurations differ.

use serde::Serialize;

use super::{super::snapshot::Snapshot, frame::DisplayTime};
use crate::{message::wording, store::Instance};

/// The number of differing keys shown for an instance.
const KEYS: usize = 20;

#[derive(Serialize)]
pub struct Instances {
    /// The number of running instances, in words.
    title: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    level: &'static str,
    state: String,
    version: String,
    started: DisplayTime,
    seen: DisplayTime,
    /// The keys that differ from this instance, with the value here and there.
    differences: Vec<(String, String, String)>,
    more: usize,
}

impl Instances {
    /// `None` with SQLite.
    pub fn of(snapshot: &Snapshot) -> Option<Instances> {
        let all = &snapshot.status.instances;
        let me = all.iter().find(|one| one.me)?;
        let there = all.iter().filter(|one| one.there).count();
        Some(Instances {
            title: wording::count(there, "instance"),
            rows: all.iter().map(|one| row(snapshot, me, one)).collect(),
        })
    }
}

fn row(snapshot: &Snapshot, me: &Instance, one: &Instance) -> Row {
    let moment = |at| DisplayTime::new(at, snapshot.at, snapshot.configured.timezone);
    let (level, state) = match (one.there, one.in_force) {
        (true, true) => ("calm", "scans and delivers"),
        (true, false) => ("warning", "delivers, but does not scan until it is reloaded"),
        (false, _) => ("unknown", "not seen recently"),
    };
    let mut differences: Vec<_> = match one.there {
        true => me.differences(one).into_iter().map(|one| (one.key, one.here, one.there)).collect(),
        false => Vec::new(),
    };
    let more = differences.len().saturating_sub(KEYS);
    differences.truncate(KEYS);
    let this = if one.me { ", this one" } else { "" };
    Row {
        name: format!("{} (process {}{this})", one.host, one.process),
        level,
        state: state.to_owned(),
        version: one.version.clone(),
        started: moment(one.started_at),
        seen: moment(one.seen_at),
        differences,
        more,
    }
}
