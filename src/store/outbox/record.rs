//! Records the results of attempts.

use super::{
    super::{
        DeliveryState, MessageKind, Result, Store, failures, millis,
        sql::{Transaction, query},
    },
    Attempted, lock, settle, up_to_date,
};
use crate::domain::retry::{Outcome, Verdict};

impl Store {
    /// Records attempts and ends their claims, in one transaction. An attempt whose claim has been
    /// taken over changes nothing: the delivery belongs to the new claim.
    ///
    /// # Errors
    /// If the database fails; the claims expire then, and the attempts are repeated.
    pub async fn record(&self, attempts: &[Attempted]) -> Result<()> {
        let mut tx = self.pool.begin().await?;
        // A fixed order of locks prevents deadlocks.
        let mut attempts: Vec<&Attempted> = attempts.iter().collect();
        attempts.sort_by_key(|one| one.claim.notification.id);
        let mut ours = Vec::with_capacity(attempts.len());
        for one in attempts {
            if record(&mut tx, one).await? {
                ours.push(one);
            } else {
                let (delivery, attempt) = (one.claim.id, one.claim.attempt);
                let outcome = one.outcome.as_str();
                tracing::warn!(
                    %delivery, attempt, outcome,
                    "attempt not recorded: the delivery was retried or cancelled before this \
                     attempt ended"
                );
            }
        }
        // The latest result decides the state of a receiver; a fixed order prevents deadlocks.
        ours.sort_by_key(|one| (&one.claim.receiver, one.ended));
        for Attempted { claim, outcome, verdict, ended } in ours {
            failures::note(&mut tx, claim, outcome, verdict, *ended).await?;
        }
        Ok(tx.commit().await?)
    }
}

/// Returns false and changes nothing if the delivery was claimed again or settled meanwhile.
async fn record(tx: &mut Transaction, attempted: &Attempted) -> Result<bool> {
    let Attempted { claim, outcome, verdict, ended } = attempted;
    let now = *ended;
    let detail = match outcome {
        Outcome::Delivered { answer } => answer,
        Outcome::Retry { detail, .. } | Outcome::Rejected { detail, .. } => detail,
    };
    let next = match verdict {
        Verdict::WaitUntil(next) => Some(*next),
        Verdict::Delivered | Verdict::Rejected | Verdict::GivenUp => None,
    };
    lock(tx, &claim.notification.id.to_string()).await?;
    let is_ours = query(
        "UPDATE deliveries SET state = $3, lease_until = NULL, settled_at = $4,
                next_attempt_at = coalesce($5, next_attempt_at)
         WHERE id = $1 AND attempts = $2 AND state = 'pending'",
    )
    .bind(claim.id.to_string())
    .bind(claim.attempt)
    .bind(DeliveryState::from(verdict).as_str())
    .bind(next.is_none().then_some(millis(now)))
    .bind(next.map(millis))
    .execute(&mut *tx)
    .await?;
    if is_ours == 0 {
        return Ok(false);
    }
    query(
        "INSERT INTO attempts (delivery_id, number, at, outcome, detail)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (delivery_id, number) DO NOTHING",
    )
    .bind(claim.id.to_string())
    .bind(claim.attempt)
    .bind(millis(now))
    .bind(outcome.as_str())
    .bind(detail)
    .execute(&mut *tx)
    .await?;
    settle(tx, &claim.notification.id.to_string()).await?;
    if let (Verdict::Delivered, Some(organization)) = (verdict, &claim.notification.organization) {
        let notification = &claim.notification;
        let kind: String = query("SELECT kind FROM notifications WHERE id = $1")
            .bind(notification.id.to_string())
            .scalar_one(&mut *tx)
            .await?;
        if kind == MessageKind::CatchUp.as_str() {
            let ledger = notification.audience.ledger_of(&notification.notifier);
            up_to_date(tx, organization.as_str(), &ledger, &claim.receiver, now).await?;
        }
    }
    Ok(true)
}
