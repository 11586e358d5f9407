//! How fast a notifier may go, kept with the state: so it holds for all instances together, and over a restart.

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
    /// How long the allowance for one delivery takes to come back, in microseconds.
    step: i64,
    now: i64,
    /// When all of it is there again.
    whole_at: i64,
}

impl Allowance {
    /// Reads it, and keeps all others from it until the end of the transaction.
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
        // An allowance is whole again after a minute at most. A later instant was written by a clock that was ahead, and
        // is ignored.
        let whole_at = if whole_at > now + MINUTE { now } else { whole_at.max(now) };
        Ok(Allowance { step, now, whole_at })
    }

    /// How many may begin now.
    pub fn deliveries(&self) -> usize {
        let free = self.now + MINUTE - self.whole_at;
        usize::try_from(free / self.step).unwrap_or(0)
    }

    /// How long it takes until the next one may.
    pub fn wait(&self) -> TimeDelta {
        let next = self.whole_at + self.step - MINUTE;
        TimeDelta::microseconds((next - self.now).max(0))
    }

    /// Notes that some have begun.
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
