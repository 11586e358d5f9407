//! Writes notifications with their deliveries, and supersedes outdated ones.

use uuid::Uuid;

use super::{
    super::{
        Commit, MessageKind, Plan, Result, millis,
        sql::{Transaction, query},
    },
    settle,
};
use crate::{
    domain::subject::Subject,
    message::{compose::Composed, wording},
};

/// A common subject of all alerts about projects: they share one incident, so their deliveries must
/// keep their order.
const PROJECTS: &str = "projects";

/// Writes a message with one delivery for each receiver, and supersedes outdated ones.
pub(in crate::store) async fn insert(
    tx: &mut Transaction,
    commit: &Commit,
    plan: &Plan,
    message: &Composed,
) -> Result<()> {
    let Composed { notification, subjects } = message;
    let id = notification.id.to_string();
    let now = millis(commit.now);
    query(
        "INSERT INTO notifications (id, organization, notifier, created_at, summary, model, kind)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&id)
    .bind(commit.organization())
    .bind(&notification.notifier)
    .bind(now)
    .bind(wording::summary(notification, commit.now))
    .bind(serde_json::to_string(notification)?)
    .bind(plan.kind.as_str())
    .execute(&mut *tx)
    .await?;
    let together = subjects.iter().any(|subject| matches!(subject, Subject::Project(_)));
    let together = together.then(|| PROJECTS.to_owned());
    for subject in subjects.iter().map(Subject::to_string).chain(together) {
        query(
            "INSERT INTO notification_subjects (notification_id, organization, subject)
             VALUES ($1, $2, $3)",
        )
        .bind(&id)
        .bind(commit.organization())
        .bind(subject)
        .execute(&mut *tx)
        .await?;
    }
    if plan.kind == MessageKind::Refresh {
        forget_refreshes(tx, &id).await?;
    }
    // Stored times use this machine's clock. Only news can be late.
    let ahead = notification.time(commit.now) - commit.now;
    let due_at = notification.due_at().filter(|_| plan.kind == MessageKind::News);
    let due_at = due_at.map(|due_at| millis(due_at - ahead));
    for receiver in &plan.receivers {
        supersede(tx, &id, plan.kind, &notification.notifier, receiver, now).await?;
        query(
            "INSERT INTO deliveries (id, notification_id, notifier, receiver, state, created_at,
                                     give_up_at, next_attempt_at, due_at)
             VALUES ($1, $2, $3, $4, 'pending', $5, $6, $5, $7)",
        )
        .bind(Uuid::new_v5(&notification.id, receiver.as_bytes()).to_string())
        .bind(&id)
        .bind(&notification.notifier)
        .bind(receiver)
        .bind(now)
        .bind(millis(commit.give_up_at))
        .bind(due_at)
        .execute(&mut *tx)
        .await?;
        if plan.kind != MessageKind::Refresh {
            hasten(tx, &id, &notification.notifier, receiver, now).await?;
        }
    }
    Ok(())
}

/// Makes older deliveries about the same subjects due now: the new message waits for them, and must
/// not wait for their pause. An unconfirmed delivery does not block, and keeps its pause.
async fn hasten(
    tx: &mut Transaction,
    notification: &str,
    notifier: &str,
    receiver: &str,
    now: i64,
) -> Result<()> {
    query(
        "UPDATE deliveries SET next_attempt_at = $4
         WHERE notifier = $2 AND receiver = $3 AND state = 'pending' AND next_attempt_at > $4
           AND coalesce((SELECT a.outcome FROM attempts a WHERE a.delivery_id = deliveries.id
                         ORDER BY a.number DESC LIMIT 1), '') <> 'unconfirmed'
           AND EXISTS (
             SELECT 1 FROM notification_subjects old
             JOIN notification_subjects new ON new.organization = old.organization
              AND new.subject = old.subject
             WHERE old.notification_id = deliveries.notification_id AND new.notification_id = $1)",
    )
    .bind(notification)
    .bind(notifier)
    .bind(receiver)
    .bind(now)
    .execute(tx)
    .await?;
    Ok(())
}

/// Deletes settled refreshes about the same subjects: only the latest refresh matters.
async fn forget_refreshes(tx: &mut Transaction, newest: &str) -> Result<()> {
    query(
        "DELETE FROM notifications
         WHERE kind = $2 AND id <> $1
           AND (notifier, organization) IN (SELECT notifier, organization FROM notifications WHERE id = $1)
           AND id IN (SELECT old.notification_id FROM notification_subjects old
                      JOIN notification_subjects new ON new.organization = old.organization
                       AND new.subject = old.subject
                      WHERE new.notification_id = $1)
           AND NOT EXISTS (SELECT 1 FROM deliveries d
                           WHERE d.notification_id = notifications.id AND d.state = 'pending')",
    )
    .bind(newest)
    .bind(MessageKind::Refresh.as_str())
    .execute(tx)
    .await?;
    Ok(())
}

/// Supersedes deliveries that were never attempted or are unconfirmed, if the new notification
/// covers all their subjects. Those with a common subject are searched first, because there may be
/// many pending ones. A refresh supersedes only refreshes: new alerts stay until they
/// arrive. New alerts do not supersede a catch-up, whose arrival shows that the receiver is up to
/// date.
async fn supersede(
    tx: &mut Transaction,
    notification: &str,
    kind: MessageKind,
    notifier: &str,
    receiver: &str,
    now: i64,
) -> Result<()> {
    let superseded: Vec<String> = query(
        "UPDATE deliveries SET state = 'superseded', settled_at = $4
         WHERE notifier = $1 AND receiver = $2 AND state = 'pending' AND lease_until IS NULL
           AND notification_id IN (
             SELECT old.notification_id FROM notification_subjects new
             JOIN notification_subjects old ON old.organization = new.organization
              AND old.subject = new.subject
             WHERE new.notification_id = $3)
           AND (attempts = 0 OR 'unconfirmed' = (
             SELECT a.outcome FROM attempts a WHERE a.delivery_id = deliveries.id
             ORDER BY a.number DESC LIMIT 1))
           AND (SELECT CASE $5 WHEN 'refresh' THEN n.kind = 'refresh'
                               WHEN 'news' THEN n.kind <> 'catch_up'
                               ELSE TRUE END
                FROM notifications n WHERE n.id = deliveries.notification_id)
           AND NOT EXISTS (
             SELECT 1 FROM notification_subjects old
             WHERE old.notification_id = deliveries.notification_id
               AND NOT EXISTS (SELECT 1 FROM notification_subjects new
                               WHERE new.notification_id = $3
                                 AND new.organization = old.organization
                                 AND new.subject = old.subject))
         RETURNING notification_id",
    )
    .bind(notifier)
    .bind(receiver)
    .bind(notification)
    .bind(now)
    .bind(kind.as_str())
    .scalars(&mut *tx)
    .await?;
    for id in superseded {
        settle(tx, &id).await?;
    }
    Ok(())
}
