//! The ladder: the thresholds before an expiry, and their severities.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, sync::Arc};

use super::words::words;

words! {
    /// Ordered: `Info < Warning < Critical`.
    Severity {
        Info = "info",
        Warning = "warning",
        Critical = "critical",
    }
}

/// The stage of a subject, ordered by urgency: later variants are more urgent, and so are shorter
/// times before the expiry. The derived order would put 30 days above one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Active, and the API does not report its expiry.
    UnknownExpiry,
    /// Active, but not valid yet.
    NotYetValid,
    /// Within this number of seconds before its expiry.
    Within(i64),
    Expired,
    /// A project: none of its active certificates is valid.
    Uncovered,
    /// A project: it has no active certificate, so mutual TLS is off.
    Unprotected,
    /// certvigil: a list was unreadable for too long.
    Blind,
    /// A notifier: its deliveries failed for too long.
    Failing,
    /// A notifier: a receiver did not confirm a drill in time.
    Unproven,
    /// A certificate's own expiry differs from the one that the API reports.
    Mismatch,
    /// A certificate may not work as a trust anchor.
    Unfit,
}

impl Stage {
    /// Whether its alert is about the coming or past expiry.
    pub fn is_of_expiry(self) -> bool {
        matches!(self, Stage::Within(_) | Stage::Expired)
    }

    /// The time at which a subject with this expiry enters the stage; `None` if the stage does not
    /// depend on the expiry.
    pub fn since(self, expires_at: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        match self {
            Stage::Within(lead) => expires_at?.checked_sub_signed(TimeDelta::try_seconds(lead)?),
            Stage::Expired => expires_at,
            Stage::UnknownExpiry
            | Stage::NotYetValid
            | Stage::Uncovered
            | Stage::Unprotected
            | Stage::Blind
            | Stage::Failing
            | Stage::Unproven
            | Stage::Mismatch
            | Stage::Unfit => None,
        }
    }

    fn rank(self) -> (u8, i64) {
        match self {
            Stage::UnknownExpiry => (0, 0),
            Stage::NotYetValid => (1, 0),
            Stage::Within(lead) => (2, lead.saturating_neg()),
            Stage::Expired => (3, 0),
            Stage::Uncovered => (4, 0),
            Stage::Unprotected => (5, 0),
            Stage::Blind => (6, 0),
            Stage::Failing => (7, 0),
            Stage::Mismatch => (8, 0),
            Stage::Unfit => (9, 0),
            Stage::Unproven => (10, 0),
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

/// A share of a certificate's lifetime, in millionths: from 1 to 1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// Parses `10%` or `2.5%`.
    pub fn parse(text: &str) -> Option<Share> {
        let percent: f64 = text.trim().strip_suffix('%')?.trim().parse().ok()?;
        let parts = (percent * 10_000.0).round();
        (1.0..=1_000_000.0).contains(&parts).then_some(Share(parts as u32))
    }

    fn of(self, life: TimeDelta) -> TimeDelta {
        let seconds = i128::from(life.num_seconds()) * i128::from(self.0) / 1_000_000;
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        TimeDelta::try_seconds(seconds).unwrap_or(TimeDelta::MAX).min(MAX_SHARE_LEAD)
    }
}

/// The maximum time before the expiry that a share can amount to.
pub const MAX_SHARE_LEAD: TimeDelta = TimeDelta::days(365);

/// The time from a threshold to the expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    Fixed(TimeDelta),
    Share(Share),
}

/// One threshold of a ladder, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    pub lead: Lead,
    /// The lead as the user wrote it, for display only.
    pub label: String,
    pub severity: Severity,
    /// The repeat interval; `None` for no repeats.
    pub repeat: Option<TimeDelta>,
}

/// The alert after the expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredStep {
    pub severity: Severity,
    pub repeat: Option<TimeDelta>,
}

/// A stage that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    pub stage: Stage,
    pub label: String,
    pub severity: Severity,
    pub repeat: Option<TimeDelta>,
    /// Whether it is the last threshold or a later stage, which no acknowledgement silences.
    pub last: bool,
}

/// The configured thresholds, never empty, and the alert after the expiry.
#[derive(Clone, Debug)]
pub struct Ladder {
    thresholds: Vec<Threshold>,
    expired: ExpiredStep,
    /// The steps, if they are the same for every certificate.
    fixed: Option<Steps>,
}

/// Why a list of thresholds is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LadderError {
    Empty,
    /// A tighter threshold is less severe than a wider one: label and severity of the wider one,
    /// then of the tighter one.
    SeverityFalls((String, Severity), (String, Severity)),
}

impl Ladder {
    /// Checks that severities do not fall, separately for fixed times and shares: which of the two
    /// is tighter depends on the certificate, and [`Ladder::steps`] handles it.
    pub fn new(thresholds: Vec<Threshold>, expired: ExpiredStep) -> Result<Ladder, LadderError> {
        if thresholds.is_empty() {
            return Err(LadderError::Empty);
        }
        let fixed = |one: &Threshold| match one.lead {
            Lead::Fixed(lead) => Some(lead),
            Lead::Share(_) => None,
        };
        let share = |one: &Threshold| match one.lead {
            Lead::Fixed(_) => None,
            Lead::Share(share) => Some(share),
        };
        rises(&thresholds, fixed)?;
        rises(&thresholds, share)?;
        let worst = thresholds.iter().max_by_key(|one| one.severity);
        if let Some(worse) = worst.filter(|worst| worst.severity > expired.severity) {
            let last = ("expired".to_owned(), expired.severity);
            return Err(LadderError::SeverityFalls((worse.label.clone(), worse.severity), last));
        }
        let mut ladder = Ladder { thresholds, expired, fixed: None };
        if !ladder.has_shares() {
            ladder.fixed = Some(ladder.steps(TimeDelta::zero()));
        }
        Ok(ladder)
    }

    /// The steps for a certificate with this lifetime. Of two with the same lead, the higher
    /// severity counts, and no step is less severe than a wider one.
    pub fn steps(&self, life: TimeDelta) -> Steps {
        if let Some(fixed) = &self.fixed {
            return fixed.clone();
        }
        let step = |threshold: &Threshold| Step {
            lead: match threshold.lead {
                Lead::Fixed(lead) => lead,
                Lead::Share(share) => share.of(life),
            },
            label: threshold.label.clone(),
            severity: threshold.severity,
            repeat: threshold.repeat,
        };
        let mut steps: Vec<Step> = self.thresholds.iter().map(step).collect();
        steps.sort_by_key(|step| std::cmp::Reverse((step.lead, step.severity)));
        steps.dedup_by_key(|step| step.lead);
        let mut least = Severity::Info;
        for step in &mut steps {
            least = least.max(step.severity);
            step.severity = least;
        }
        Steps { steps: steps.into(), expired: self.expired.clone() }
    }

    pub fn has_shares(&self) -> bool {
        self.thresholds.iter().any(|threshold| matches!(threshold.lead, Lead::Share(_)))
    }
}

fn rises<T: Ord>(
    thresholds: &[Threshold],
    lead: impl Fn(&Threshold) -> Option<T>,
) -> Result<(), LadderError> {
    let mut some: Vec<(T, &Threshold)> =
        thresholds.iter().filter_map(|one| Some((lead(one)?, one))).collect();
    some.sort_by(|(a, one), (b, other)| (b, other.severity).cmp(&(a, one.severity)));
    some.dedup_by(|(a, _), (b, _)| a == b);
    match some.windows(2).find(|pair| pair[1].1.severity < pair[0].1.severity) {
        Some(pair) => {
            let step = |one: &Threshold| (one.label.clone(), one.severity);
            Err(LadderError::SeverityFalls(step(pair[0].1), step(pair[1].1)))
        }
        None => Ok(()),
    }
}

/// A threshold, resolved for one certificate: `lead` before its expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub lead: TimeDelta,
    pub label: String,
    pub severity: Severity,
    pub repeat: Option<TimeDelta>,
}

/// A ladder, resolved for one certificate: widest step first, each lead once, never empty,
/// severities never falling; then `expired`. Clones share the steps.
#[derive(Clone, Debug)]
pub struct Steps {
    steps: Arc<[Step]>,
    pub expired: ExpiredStep,
}

impl Steps {
    /// The tightest step reached: `expires_at - now <= lead`; expired when `expires_at <= now`.
    pub fn reached(&self, expires_at: DateTime<Utc>, now: DateTime<Utc>) -> Option<Reached> {
        let left = expires_at - now;
        if left <= TimeDelta::zero() {
            return Some(Reached {
                stage: Stage::Expired,
                label: "expired".to_owned(),
                severity: self.expired.severity,
                repeat: self.expired.repeat,
                last: true,
            });
        }
        let (index, step) =
            self.steps.iter().enumerate().rev().find(|(_, step)| left <= step.lead)?;
        Some(Reached {
            stage: Stage::Within(step.lead.num_seconds()),
            label: step.label.clone(),
            severity: step.severity,
            repeat: step.repeat,
            last: index + 1 == self.steps.len(),
        })
    }

    /// Widest first.
    pub fn as_slice(&self) -> &[Step] {
        &self.steps
    }

    /// The lead of the widest threshold.
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
                lead: Lead::Fixed(TimeDelta::days(*days)),
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
    fn a_threshold_is_reached_at_the_exact_second() {
        let ladder = ladder(&[30, 7]).steps(TimeDelta::zero());
        let day = 86_400;
        let cases = [
            (30 * day + 1, None, "a second before the first threshold"),
            (30 * day, Some(Stage::Within(30 * day)), "at the first threshold"),
            (7 * day + 1, Some(Stage::Within(30 * day)), "a second before the second threshold"),
            (7 * day, Some(Stage::Within(7 * day)), "at the second threshold"),
            (1, Some(Stage::Within(7 * day)), "the last second"),
            (0, Some(Stage::Expired), "exactly at the expiry"),
            (-1, Some(Stage::Expired), "a second after the expiry"),
        ];
        for (left, expected, reason) in cases {
            let reached = ladder.reached(at(left), at(0)).map(|reached| reached.stage);
            assert_eq!(reached, expected, "{reason}");
        }
    }

    #[test]
    fn an_empty_ladder_or_a_falling_severity_is_rejected() {
        let expired = |severity| ExpiredStep { severity, repeat: None };
        let step = |days: i64, severity| Threshold {
            lead: Lead::Fixed(TimeDelta::days(days)),
            label: format!("{days}d"),
            severity,
            repeat: None,
        };
        let critical = expired(Severity::Critical);
        assert_eq!(Ladder::new(vec![], critical.clone()).err(), Some(LadderError::Empty));
        let falling = vec![step(7, Severity::Info), step(30, Severity::Warning)];
        assert_eq!(
            Ladder::new(falling, critical).err(),
            Some(LadderError::SeverityFalls(
                ("30d".into(), Severity::Warning),
                ("7d".into(), Severity::Info)
            ))
        );
        let calm_end = Ladder::new(vec![step(7, Severity::Critical)], expired(Severity::Info));
        assert_eq!(
            calm_end.err(),
            Some(LadderError::SeverityFalls(
                ("7d".into(), Severity::Critical),
                ("expired".into(), Severity::Info)
            ))
        );
    }

    #[test]
    fn for_equal_leads_the_higher_severity_counts() {
        let step = |severity| Threshold {
            lead: Lead::Fixed(TimeDelta::days(7)),
            label: "7d".into(),
            severity,
            repeat: None,
        };
        let ladder = Ladder::new(
            vec![step(Severity::Info), step(Severity::Critical)],
            ExpiredStep { severity: Severity::Critical, repeat: None },
        )
        .unwrap()
        .steps(TimeDelta::zero());
        assert_eq!(ladder.reached(at(5), at(0)).unwrap().severity, Severity::Critical);
    }

    #[test]
    fn a_share_is_capped_at_a_year() {
        for (text, expected) in [
            ("10%", Some(100_000)),
            ("2.5 %", Some(25_000)),
            ("100%", Some(1_000_000)),
            ("0%", None),
            ("101%", None),
            ("-1%", None),
            ("NaN%", None),
            ("10", None),
            ("%", None),
        ] {
            assert_eq!(Share::parse(text).map(|share| share.0), expected, "{text}");
        }
        let ten = Share::parse("10%").unwrap();
        assert_eq!(ten.of(TimeDelta::days(90)), TimeDelta::days(9));
        assert_eq!(ten.of(TimeDelta::days(20 * 365)), TimeDelta::days(365));
    }

    #[test]
    fn steps_are_ordered_by_lead_and_never_fall_in_severity() {
        let threshold = |lead, label: &str, severity| Threshold {
            lead,
            label: label.into(),
            severity,
            repeat: None,
        };
        let thresholds = vec![
            threshold(Lead::Share(Share::parse("10%").unwrap()), "10%", Severity::Warning),
            threshold(Lead::Fixed(TimeDelta::days(30)), "30d", Severity::Info),
        ];
        let expired = ExpiredStep { severity: Severity::Critical, repeat: None };
        let ladder = Ladder::new(thresholds, expired).unwrap();
        let shown = |days| {
            let steps = ladder.steps(TimeDelta::days(days));
            let show = |step: &Step| format!("{} {}", step.label, step.severity);
            steps.as_slice().iter().map(show).collect::<Vec<_>>()
        };
        assert_eq!(shown(100), ["30d info", "10% warning"], "a short lifetime");
        assert_eq!(shown(1_000), ["10% warning", "30d warning"], "a long lifetime");
        assert_eq!(shown(300), ["10% warning"], "for equal leads, the higher severity counts");
    }

    proptest! {
        #[test]
        fn a_stage_never_falls_over_time(
            days in proptest::collection::btree_set(1..400i64, 1..8),
            left in -1_000_000..40_000_000i64,
            step in 0..5_000_000i64,
        ) {
            let ladder = ladder(&days.into_iter().collect::<Vec<_>>()).steps(TimeDelta::zero());
            let early = ladder.reached(at(left), at(0)).map(|reached| reached.stage);
            let late = ladder.reached(at(left), at(step)).map(|reached| reached.stage);
            prop_assert!(late >= early, "{early:?} then {late:?}");
        }
    }
}
