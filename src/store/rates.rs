//! The rate limit of a notifier. It is stored, so that it applies to all instances together and
//! across restarts.

use chrono::{DateTime, TimeDelta, Utc};
use std::num::NonZeroU32;

use super::{
    Result,
    sql::{Transaction, query},
};

const MINUTE: i64 = 60_000_000;

/// The rate of a notifier by the generic cell rate algorithm (ITU-T I.371). Unused capacity does
/// not carry over to the next minute.
pub(super) struct Allowance {
    /// The time until the allowance for one delivery is restored, in microseconds.
    step: i64,
    now: i64,
    /// The time at which the whole allowance is restored.
    whole_at: i64,
}

impl Allowance {
    /// Reads the allowance and locks it until the end of the transaction.
    pub async fn read(
        tx: &mut Transaction,
        notifier: &str,
        per_minute: NonZeroU32,
        now: DateTime<Utc>,
    ) -> Result<Allowance> {
        let now = now.timestamp_micros();
        let whole_at: i64 = query(
            "INSERT INTO rates (notifier, whole_at) VALUES ($1, 0)
             ON CONFLICT (notifier) DO UPDATE SET whole_at = rates.whole_at RETURNING whole_at",
        )
        .bind(notifier)
        .scalar_one(tx)
        .await?;
        let step = (MINUTE / i64::from(per_minute.get())).max(1);
        // The whole allowance is restored within a minute. A later time was written by a clock that
        // was ahead, and is ignored.
        let whole_at = if whole_at > now + MINUTE { now } else { whole_at.max(now) };
        Ok(Allowance { step, now, whole_at })
    }

    /// The number of deliveries that may start now.
    pub fn deliveries(&self) -> usize {
        let free = self.now + MINUTE - self.whole_at;
        usize::try_from(free / self.step).unwrap_or(0)
    }

    /// The time until the next delivery may start.
    pub fn wait(&self) -> TimeDelta {
        let next = self.whole_at + self.step - MINUTE;
        TimeDelta::microseconds((next - self.now).max(0))
    }

    /// Uses the allowance for deliveries.
    pub async fn spend(
        self,
        tx: &mut Transaction,
        notifier: &str,
        deliveries: usize,
    ) -> Result<()> {
        let spent = i64::try_from(deliveries).unwrap_or(i64::MAX).saturating_mul(self.step);
        query("UPDATE rates SET whole_at = $2 WHERE notifier = $1")
            .bind(notifier)
            .bind(self.whole_at.saturating_add(spent))
            .execute(tx)
            .await?;
        Ok(())
    }
}
