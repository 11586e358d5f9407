//! Which clock counts: this machine's, or the API's by the `Date` of its answers.

use chrono::{DateTime, TimeDelta, Utc};

/// How far the clocks may differ before one of them counts as wrong.
const TOLERANCE: TimeDelta = TimeDelta::minutes(5);
/// How far the API may be away from a local clock that the operating system calls synchronized.
const FROM_SYNCHRONIZED: TimeDelta = TimeDelta::days(1);

/// The state of the local clock as the operating system reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronization {
    Synchronized,
    Unsynchronized,
    Unknown,
}

/// Which clock counts for a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockVerdict {
    /// The local clock, and both agree.
    Agreed,
    /// The local clock; no answer told the API's time.
    Unchecked,
    /// The API's clock, which is so far ahead of the local one.
    Api(TimeDelta),
    /// The local clock; the API's, so far ahead of it, is impossible.
    Ignored(TimeDelta),
}

impl ClockVerdict {
    /// Decides by how far the API's clock is ahead. `built_at` is when this program was made: no real time is earlier.
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

    /// How far the clock that counts is ahead of the local one, if it is the API's.
    pub fn skew(self) -> Option<TimeDelta> {
        match self {
            ClockVerdict::Api(skew) => Some(skew),
            ClockVerdict::Agreed | ClockVerdict::Unchecked | ClockVerdict::Ignored(_) => None,
        }
    }

    /// Whether the clock that counts can prove that an earlier one was wrong: it has a witness.
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
    fn the_clock_that_counts_is_the_one_that_can_be_right() {
        let local = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let built_at = local - TimeDelta::days(100);
        let (minutes, days) = (TimeDelta::minutes, TimeDelta::days);
        let cases = [
            ("within the tolerance", minutes(-5), Unknown, ClockVerdict::Agreed),
            ("beyond it", minutes(6), Unknown, ClockVerdict::Api(minutes(6))),
            (
                "less than a day from a good clock",
                days(-1),
                Synchronized,
                ClockVerdict::Api(days(-1)),
            ),
            ("more than that", days(30), Synchronized, ClockVerdict::Ignored(days(30))),
            ("the local clock is not good", days(30), Unsynchronized, ClockVerdict::Api(days(30))),
            ("nobody knows", days(30), Unknown, ClockVerdict::Api(days(30))),
            ("before the build", days(-101), Unsynchronized, ClockVerdict::Ignored(days(-101))),
            ("at the start of time", -days(20_000), Unknown, ClockVerdict::Ignored(-days(20_000))),
            (
                "beyond all calendars",
                TimeDelta::MIN,
                Unknown,
                ClockVerdict::Ignored(TimeDelta::MIN),
            ),
        ];
        for (reason, skew, synchronization, expected) in cases {
            let verdict = ClockVerdict::of(Some(skew), local, built_at, synchronization);
            assert_eq!(verdict, expected, "{reason}");
        }
        assert_eq!(ClockVerdict::of(None, local, built_at, Unknown), ClockVerdict::Unchecked);
    }
}
