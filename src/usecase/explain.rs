//! Explains the alerts of a certificate: sent, current and upcoming.

use chrono::{DateTime, TimeDelta, Utc};

use super::organization::OrganizationState;
use crate::{
    domain::{certificate::CertificateId, evaluate::evaluate, subject::Subject},
    schedule::Cron,
    store::{SentNotification, Store, StoreError},
    view::{self, Explanation},
};

/// Maximum number of sent notifications that are listed.
const LISTED: u32 = 20;
/// The period of the forecast.
const HORIZON: TimeDelta = TimeDelta::days(730);

pub struct Explained {
    pub explanation: Explanation,
    /// The notifications about the certificate, newest first.
    pub notifications: Vec<SentNotification>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("internal error: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// Explains a certificate at a time by the API's clock; `None` if it is not in the inventory.
///
/// # Errors
/// If the database fails.
pub async fn explain(
    store: &Store,
    state: OrganizationState,
    cron: &Cron,
    id: &CertificateId,
    now: DateTime<Utc>,
) -> Result<Option<Explained>, ExplainError> {
    let subject = Subject::Certificate(id.clone());
    let notifications = store.sent_notifications(&state.organization, &subject, LISTED).await?;
    let (id, cron) = (id.clone(), cron.clone());
    // With thousands of projects, this would block other tasks of the thread.
    let explanation = tokio::task::spawn_blocking(move || {
        let forecast = match cron.next_after(now) {
            Some(first) => state.narrowed(&id).forecast(&cron, first, now + HORIZON),
            None => Vec::new(),
        };
        let OrganizationState {
            organization, inventory, policy, acknowledgements, notifiers, ..
        } = &state;
        let evaluation = evaluate(organization, inventory, policy, acknowledgements, now);
        let assessment = evaluation.assessment(&id)?;
        Some(view::explain(&evaluation, &assessment, notifiers, &forecast))
    });
    let explanation = explanation.await?;
    Ok(explanation.map(|explanation| Explained { explanation, notifications }))
}
