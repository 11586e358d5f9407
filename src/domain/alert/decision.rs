//! A decision, and the times of its scan.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::{
    super::{routing::Routing, subject::Subject, threshold::Reached},
    Reason,
    sent::SentAlert,
};

/// The decision about one subject for one notifier.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Send the alert, and store `sent`.
    Send { subject: Subject, reason: Reason, reached: Reached, sent: SentAlert },
    /// Send the resolution, and remove the alert from the ledger.
    Resolve { subject: Subject, reason: Reason, sent: SentAlert },
    /// Send nothing, and store `sent`: the ledger had a time after now.
    Redate { subject: Subject, sent: SentAlert },
    /// Send nothing, and keep the ledger: the same alert opened again within a day (flapping).
    HoldBack { subject: Subject, reached: Reached },
}

impl Decision {
    pub fn subject(&self) -> &Subject {
        match self {
            Decision::Send { subject, .. }
            | Decision::Resolve { subject, .. }
            | Decision::Redate { subject, .. }
            | Decision::HoldBack { subject, .. } => subject,
        }
    }

    /// Whether a notifier with this routing sends it.
    pub fn is_sent(&self, routing: &Routing) -> bool {
        match self {
            Decision::Send { .. } => true,
            Decision::Resolve { .. } => routing.send_resolved,
            Decision::Redate { .. } | Decision::HoldBack { .. } => false,
        }
    }
}

/// The times of a scan.
#[derive(Clone, Copy, Debug)]
pub struct ScanTime {
    pub now: DateTime<Utc>,
    /// The scheduled time, from which repeats are measured.
    pub tick: DateTime<Utc>,
    /// The time zone of the schedule: a daily repeat keeps its local time across a daylight-saving
    /// change.
    pub timezone: Tz,
    /// The time of the previous decision; `None` before the first one.
    pub decided_at: Option<DateTime<Utc>>,
    /// Whether two clocks agree on `now`, or the operating system reports its clock as
    /// synchronized. Only then does a ledger entry with a later time count as wrong.
    pub clock_is_certain: bool,
}

impl ScanTime {
    /// A scan at its scheduled time, by a certain clock and without an earlier decision.
    pub fn at(now: DateTime<Utc>, timezone: Tz) -> ScanTime {
        ScanTime { now, tick: now, timezone, decided_at: None, clock_is_certain: true }
    }

    /// Whether a repeat is due. The interval is measured between scheduled times, so that a late
    /// scan does not delay later repeats. At least half of it must have passed since the alert, so
    /// that a start shortly before a scheduled time does not repeat at once.
    pub(super) fn is_due(&self, sent: &SentAlert, repeat: TimeDelta) -> bool {
        let local = |at: DateTime<Utc>| at.with_timezone(&self.timezone).naive_local();
        let by_the_wall = local(self.tick) - local(sent.tick);
        let ticks = by_the_wall.max(self.tick - sent.tick);
        let passed = self.now - sent.at;
        passed >= repeat || (ticks >= repeat && passed >= repeat / 2)
    }
}
