//! The ladder: how long before its end a certificate is told of, and how urgently.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

use super::words::words;

words! {
    /// How much it matters. Ordered: `Info < Warning < Critical`.
    Severity {
        Info = "info",
        Warning = "warning",
        Critical = "critical",
    }
}

/// What a certificate has reached, ordered by urgency: the later, the more urgent.
///
/// The order is written by hand: derived, thirty days would be more urgent than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Active, and the API does not say when it expires.
    UnknownExpiry,
    /// Active, and its time has not come.
    NotYetValid,
    /// Within so many seconds of its end.
    Within(i64),
    Expired,
}

impl Stage {
    fn rank(self) -> (u8, i64) {
        match self {
            Stage::UnknownExpiry => (0, 0),
            Stage::NotYetValid => (1, 0),
            Stage::Within(lead) => (2, lead.saturating_neg()),
            Stage::Expired => (3, 0),
        }
    }
}

impl Ord for Stage {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Stage {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One step of a ladder: within `lead` of the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    pub lead: TimeDelta,
    /// The lead as the user wrote it. Only shown, never compared.
    pub label: String,
    pub severity: Severity,
    /// How long after having been told of it one is told again; `None`: never.
    pub repeat: Option<TimeDelta>,
}

/// The last step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredStep {
    pub severity: Severity,
    pub repeat: Option<TimeDelta>,
}

/// A step that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    pub stage: Stage,
    pub label: String,
    pub severity: Severity,
    pub repeat: Option<TimeDelta>,
}

/// Thresholds from the widest to the tightest, each lead once, never empty; then `expired`.
#[derive(Clone, Debug)]
pub struct Ladder {
    steps: Vec<Threshold>,
    expired: ExpiredStep,
}

/// Why a list of thresholds is not a ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LadderFault {
    Empty,
    /// A tighter step is less severe than a wider one: `(wider, tighter)`, as labels.
    SeverityFalls(String, String),
}

impl Ladder {
    /// Sorts the steps. Of two with the same lead the worse severity stays.
    pub fn new(mut steps: Vec<Threshold>, expired: ExpiredStep) -> Result<Ladder, LadderFault> {
        steps.sort_by_key(|step| std::cmp::Reverse((step.lead, step.severity)));
        steps.dedup_by_key(|step| step.lead);
        let Some(tightest) = steps.last() else {
            return Err(LadderFault::Empty);
        };
        let fall = steps.windows(2).find(|pair| pair[1].severity < pair[0].severity);
        if let Some(pair) = fall {
            return Err(LadderFault::SeverityFalls(pair[0].label.clone(), pair[1].label.clone()));
        }
        if expired.severity < tightest.severity {
            return Err(LadderFault::SeverityFalls(tightest.label.clone(), "expired".to_owned()));
        }
        Ok(Ladder { steps, expired })
    }

    /// The tightest step reached: `expires_at - now <= lead`; expired when `expires_at <= now`.
    pub fn reached(&self, expires_at: DateTime<Utc>, now: DateTime<Utc>) -> Option<Reached> {
        let left = expires_at - now;
        if left <= TimeDelta::zero() {
            return Some(Reached {
                stage: Stage::Expired,
                label: "expired".to_owned(),
                severity: self.expired.severity,
                repeat: self.expired.repeat,
            });
        }
        self.steps.iter().rev().find(|step| left <= step.lead).map(|step| Reached {
            stage: Stage::Within(step.lead.num_seconds()),
            label: step.label.clone(),
            severity: step.severity,
            repeat: step.repeat,
        })
    }

    /// The lead of the first, widest threshold.
    pub fn widest(&self) -> TimeDelta {
        self.steps[0].lead
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn ladder(days: &[i64]) -> Ladder {
        let steps = days
            .iter()
            .map(|days| Threshold {
                lead: TimeDelta::days(*days),
                label: format!("{days}d"),
                severity: if *days <= 7 { Severity::Critical } else { Severity::Warning },
                repeat: None,
            })
            .collect();
        let expired =
            ExpiredStep { severity: Severity::Critical, repeat: Some(TimeDelta::days(1)) };
        Ladder::new(steps, expired).unwrap()
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn one_day_is_more_urgent_than_thirty() {
        let ordered = [
            Stage::UnknownExpiry,
            Stage::NotYetValid,
            Stage::Within(90 * 86_400),
            Stage::Within(30 * 86_400),
            Stage::Within(86_400),
            Stage::Expired,
        ];
        assert!(ordered.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_threshold_is_reached_at_its_very_second() {
        let ladder = ladder(&[30, 7]);
        let day = 86_400;
        let cases = [
            (30 * day + 1, None, "a second before the first"),
            (30 * day, Some(Stage::Within(30 * day)), "at it"),
            (7 * day + 1, Some(Stage::Within(30 * day)), "a second before the second"),
            (7 * day, Some(Stage::Within(7 * day)), "at it"),
            (1, Some(Stage::Within(7 * day)), "the last second"),
            (0, Some(Stage::Expired), "exactly at the end"),
            (-1, Some(Stage::Expired), "a second after"),
        ];
        for (left, expected, reason) in cases {
            let reached = ladder.reached(at(left), at(0)).map(|reached| reached.stage);
            assert_eq!(reached, expected, "{reason}");
        }
    }

    #[test]
    fn a_ladder_is_refused_where_it_is_empty_or_calms_down() {
        let expired = |severity| ExpiredStep { severity, repeat: None };
        let step = |days: i64, severity| Threshold {
            lead: TimeDelta::days(days),
            label: format!("{days}d"),
            severity,
            repeat: None,
        };
        let critical = expired(Severity::Critical);
        assert_eq!(Ladder::new(vec![], critical.clone()).err(), Some(LadderFault::Empty));
        let falling = vec![step(7, Severity::Info), step(30, Severity::Warning)];
        assert_eq!(
            Ladder::new(falling, critical).err(),
            Some(LadderFault::SeverityFalls("30d".into(), "7d".into()))
        );
        let calm_end = Ladder::new(vec![step(7, Severity::Critical)], expired(Severity::Info));
        assert_eq!(calm_end.err(), Some(LadderFault::SeverityFalls("7d".into(), "expired".into())));
    }

    #[test]
    fn of_two_steps_with_one_lead_the_worse_stays() {
        let step = |severity| Threshold {
            lead: TimeDelta::days(7),
            label: "7d".into(),
            severity,
            repeat: None,
        };
        let ladder = Ladder::new(
            vec![step(Severity::Info), step(Severity::Critical)],
            ExpiredStep { severity: Severity::Critical, repeat: None },
        )
        .unwrap();
        assert_eq!(ladder.reached(at(5), at(0)).unwrap().severity, Severity::Critical);
    }

    proptest! {
        #[test]
        fn as_time_goes_on_a_stage_never_falls(
            days in proptest::collection::btree_set(1..400i64, 1..8),
            left in -1_000_000..40_000_000i64,
            step in 0..5_000_000i64,
        ) {
            let ladder = ladder(&days.into_iter().collect::<Vec<_>>());
            let early = ladder.reached(at(left), at(0)).map(|reached| reached.stage);
            let late = ladder.reached(at(left), at(step)).map(|reached| reached.stage);
            prop_assert!(late >= early, "{early:?} then {late:?}");
        }
    }
}
