//! Chooses between the local clock and the API's clock, known from the `Date` header of responses.

use chrono::{DateTime, TimeDelta, Utc};

/// The maximum difference between clocks that agree.
const TOLERANCE: TimeDelta = TimeDelta::minutes(5);
/// The maximum plausible difference from a local clock that the operating system reports as
/// synchronized.
const FROM_SYNCHRONIZED: TimeDelta = TimeDelta::days(1);

/// The state of the local clock as the operating system reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronization {
    Synchronized,
    Unsynchronized,
    Unknown,
}

/// The clock that decisions use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockVerdict {
    /// The local clock, which agrees with the API's.
    Agreed,
    /// The local clock; no response had a `Date` header.
    Unchecked,
    /// The API's clock, which is ahead by this much.
    Api(TimeDelta),
    /// The local clock; the API's, ahead by this much, is implausible.
    Ignored(TimeDelta),
}

impl ClockVerdict {
    /// Decides by `skew`, by which the API's clock is ahead. A time before `built_at`, when this
    /// program was built, is impossible.
    pub fn of(
        skew: Option<TimeDelta>,
        local: DateTime<Utc>,
        built_at: DateTime<Utc>,
        synchronization: Synchronization,
    ) -> ClockVerdict {
        let Some(skew) = skew else { return ClockVerdict::Unchecked };
        let before_build = local.checked_add_signed(skew).is_none_or(|api| api < built_at);
        let far = skew.abs() > FROM_SYNCHRONIZED;
        if skew.abs() <= TOLERANCE {
            ClockVerdict::Agreed
        } else if before_build || (far && synchronization == Synchronization::Synchronized) {
            ClockVerdict::Ignored(skew)
        } else {
            ClockVerdict::Api(skew)
        }
    }

    /// By how much the API's clock is ahead, if decisions use it.
    pub fn skew(self) -> Option<TimeDelta> {
        match self {
            ClockVerdict::Api(skew) => Some(skew),
            ClockVerdict::Agreed | ClockVerdict::Unchecked | ClockVerdict::Ignored(_) => None,
        }
    }

    /// Whether a second source confirms the clock in use, so that a later time in the ledger is an
    /// error.
    pub fn is_certain(self, synchronization: Synchronization) -> bool {
        match self {
            ClockVerdict::Agreed => true,
            ClockVerdict::Unchecked | ClockVerdict::Ignored(_) => {
                synchronization == Synchronization::Synchronized
            }
            ClockVerdict::Api(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Synchronization::{Synchronized, Unknown, Unsynchronized};
    use super::*;

    #[test]
    fn decisions_use_the_plausible_clock() {
        let local = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let built_at = local - TimeDelta::days(100);
        let (minutes, days) = (TimeDelta::minutes, TimeDelta::days);
        let cases = [
            ("within the tolerance", minutes(-5), Unknown, ClockVerdict::Agreed),
            ("beyond the tolerance", minutes(6), Unknown, ClockVerdict::Api(minutes(6))),
            (
                "within a day of a synchronized clock",
                days(-1),
                Synchronized,
                ClockVerdict::Api(days(-1)),
            ),
            (
                "more than a day from a synchronized clock",
                days(30),
                Synchronized,
                ClockVerdict::Ignored(days(30)),
            ),
            (
                "the local clock is not synchronized",
                days(30),
                Unsynchronized,
                ClockVerdict::Api(days(30)),
            ),
            ("the synchronization is unknown", days(30), Unknown, ClockVerdict::Api(days(30))),
            ("before the build", days(-101), Unsynchronized, ClockVerdict::Ignored(days(-101))),
            ("long before the build", -days(20_000), Unknown, ClockVerdict::Ignored(-days(20_000))),
            ("out of range", TimeDelta::MIN, Unknown, ClockVerdict::Ignored(TimeDelta::MIN)),
        ];
        for (reason, skew, synchronization, expected) in cases {
            let verdict = ClockVerdict::of(Some(skew), local, built_at, synchronization);
            assert_eq!(verdict, expected, "{reason}");
        }
        assert_eq!(ClockVerdict::of(None, local, built_at, Unknown), ClockVerdict::Unchecked);
    }
}
