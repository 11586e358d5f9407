//! The decision about one subject, and the moment at which it is taken.

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
    /// Send the resolution, and forget the alert.
    Resolve { subject: Subject, reason: Reason, sent: SentAlert },
    /// Send nothing, and store `sent`: the ledger had a time after now.
    Redate { subject: Subject, sent: SentAlert },
    /// Send nothing, and forget nothing: the same alert opened again within a day (flapping).
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

    /// Whether a notifier sends it.
    pub fn is_sent(&self, routing: &Routing) -> bool {
        match self {
            Decision::Send { .. } => true,
            Decision::Resolve { .. } => routing.send_resolved,
            Decision::Redate { .. } | Decision::HoldBack { .. } => false,
        }
    }
}

/// When the scan is.
#[derive(Clone, Copy, Debug)]
pub struct ScanTime {
    pub now: DateTime<Utc>,
    /// The scheduled moment that this scan stands for, so that a repeat of six hours is due at each
    /// scan of a six-hourly schedule, however late one of them runs.
    pub tick: DateTime<Utc>,
    /// The zone of the schedule: a day from nine to nine is a day, on both sides of a change to
    /// daylight saving.
    pub timezone: Tz,
    /// When it was decided the last time; `None` where it never was.
    pub decided_at: Option<DateTime<Utc>>,
    /// Whether two clocks agree on `now`, or the system vouches for it. Only then was a later ledger entry wrong.
    pub clock_is_certain: bool,
}

impl ScanTime {
    /// Whether a repeat is due. Ticks are compared, so that a repeat of six hours is due at each
    /// scan of a six-hourly schedule, however late one of them ran; an alert of a start shortly
    /// before a tick is not repeated at the tick.
    pub(super) fn is_due(&self, sent: &SentAlert, repeat: TimeDelta) -> bool {
        let local = |at: DateTime<Utc>| at.with_timezone(&self.timezone).naive_local();
        let by_the_wall = local(self.tick) - local(sent.tick);
        let ticks = by_the_wall.max(self.tick - sent.tick);
        let passed = self.now - sent.at;
        passed >= repeat || (ticks >= repeat && passed >= repeat / 2)
    }
}
