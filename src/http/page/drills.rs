//! The drills of a notifier: who confirmed, and who did not.

use serde::Serialize;

use super::{super::snapshot::Snapshot, frame::DisplayTime};
use crate::domain::drill::Drilled;

/// The drills of a notifier.
#[derive(Serialize)]
pub struct Drills {
    pub level: &'static str,
    pub state: String,
    /// A line for each receiver.
    pub lines: Vec<String>,
}

impl Drills {
    /// `None` if the notifier has no drills.
    pub fn of(snapshot: &Snapshot, notifier: &str) -> Option<Drills> {
        let all = snapshot.configured.drilled.iter().flatten();
        let receivers: Vec<&str> =
            all.filter(|(of, _)| of == notifier).map(|(_, receiver)| receiver.as_str()).collect();
        if receivers.is_empty() {
            return None;
        }
        let drilled: Vec<(&str, Option<&Drilled>)> =
            receivers.into_iter().map(|one| (one, find(snapshot, notifier, one))).collect();
        let known = drilled.iter().filter_map(|(_, drilled)| *drilled);
        let unproven = known.clone().filter(|one| one.is_unproven(snapshot.at)).count();
        let confirmed = known.clone().filter(|one| one.unconfirmed.is_none()).count();
        let all = drilled.len();
        let (level, state) = match (unproven, confirmed) {
            (0, _) if known.count() == 0 => ("info", "no drill yet".to_owned()),
            (0, n) if n == all => ("calm", "drill confirmed".to_owned()),
            (0, n) => ("info", format!("drill confirmed by {n} of {all}")),
            (n, _) => ("warning", format!("drill not confirmed in time by {n} of {all}")),
        };
        let lines = drilled.iter().map(|(receiver, one)| line(snapshot, receiver, *one)).collect();
        Some(Drills { level, state, lines })
    }
}

/// The unproven receivers of the configuration.
pub fn unproven(snapshot: &Snapshot) -> Vec<&Drilled> {
    let all = snapshot.configured.drilled.iter().flatten();
    all.filter_map(|(notifier, receiver)| find(snapshot, notifier, receiver))
        .filter(|one| one.is_unproven(snapshot.at))
        .collect()
}

fn find<'a>(snapshot: &'a Snapshot, notifier: &str, receiver: &str) -> Option<&'a Drilled> {
    let mut all = snapshot.outbox.drilled.iter();
    all.find(|one| one.notifier == notifier && one.receiver == receiver)
}

fn line(snapshot: &Snapshot, receiver: &str, drilled: Option<&Drilled>) -> String {
    let timezone = snapshot.configured.timezone;
    let local = |at| DisplayTime::new(at, snapshot.at, timezone).local;
    let Some(drilled) = drilled else { return format!("{receiver}: no drill yet") };
    let last = match drilled.confirmed_at {
        Some(at) => format!("last confirmed {}", local(at)),
        None => "never confirmed".to_owned(),
    };
    match drilled.unconfirmed {
        None => format!("{receiver}: {last}"),
        Some(open) => format!("{receiver}: {last}; to confirm by {}", local(open.until)),
    }
}
