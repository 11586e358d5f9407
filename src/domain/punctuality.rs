//! The objective for punctuality: 99.9 % of the deliveries of new alerts are accepted within the
//! longest interval between two scans plus five minutes, over 90 days.

use chrono::TimeDelta;

/// The share that must be on time, in percent.
pub const OBJECTIVE: &str = "99.9";
/// The same share in permille.
const PERMILLE: u64 = 999;
/// The time to read, decide and deliver, in addition to the interval between scans.
pub const MARGIN: TimeDelta = TimeDelta::minutes(5);

/// The punctuality in the period of the objective, and in a shorter one that shows a problem early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Punctualities {
    pub of_90_days: Punctuality,
    pub of_3_days: Punctuality,
}

/// The deliveries of new alerts that became due in a period, without those still pending in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Punctuality {
    pub on_time: u64,
    pub total: u64,
}

impl Punctuality {
    /// Whether enough of them were on time; true if there are none.
    pub fn meets_objective(self) -> bool {
        u128::from(self.on_time) * 1_000 >= u128::from(self.total) * u128::from(PERMILLE)
    }

    /// The share that was on time, as a percentage that is rounded down: `99.86`. `None` without
    /// any.
    pub fn percentage(self) -> Option<String> {
        let hundredths = (u128::from(self.on_time) * 10_000).checked_div(self.total.into())?;
        Some(format!("{}.{:02}", hundredths / 100, hundredths % 100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_late_delivery_in_a_thousand_meets_the_objective() {
        let cases = [
            (0, 0, true, None),
            (1, 1, true, Some("100.00")),
            (0, 1, false, Some("0.00")),
            (999, 1_000, true, Some("99.90")),
            (998, 999, false, Some("99.89")),
            (u64::MAX - 1, u64::MAX, true, Some("99.99")),
        ];
        for (on_time, total, meets, percentage) in cases {
            let one = Punctuality { on_time, total };
            assert_eq!(one.meets_objective(), meets, "{one:?}");
            assert_eq!(one.percentage().as_deref(), percentage, "{one:?}");
        }
    }
}
