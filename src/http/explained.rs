//! One certificate with all that is decided about it: what `certvigil explain` says.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Shared, problem::Problem, standing::CertificateRow};
use crate::{
    domain::{
        evaluate::evaluate,
        explain::{Explanation, explain as explanation},
        subject::Subject,
    },
    known::Known,
    store::Telling,
};

/// How many messages that told of it are listed.
const TELLINGS: u32 = 20;
/// How far ahead is looked.
const AHEAD: TimeDelta = TimeDelta::days(730);

pub struct Explained {
    pub explanation: Explanation,
    /// The messages that told of it, newest first.
    pub tellings: Vec<Telling>,
}

/// Explains a certificate as it is known, at an instant by the API's clock.
pub async fn explain(
    shared: &Shared,
    row: &CertificateRow,
    now: DateTime<Utc>,
) -> Result<Explained, Problem> {
    // For thousands of projects that is a lot of work and of memory: a few at once.
    let _turn = shared.explaining.acquire().await.map_err(anyhow::Error::from)?;
    let (organization, id) = (row.organization.clone(), row.view.id.clone());
    let configured = shared.service.configured.borrow().clone();
    let reading = &shared.reading;
    let gone = || Problem::not_found(format!("{id} of {organization} is no longer watched"));
    let policy = configured.organizations.iter().find(|(name, _)| *name == organization);
    let policy = policy.map(|(_, policy)| policy.clone()).ok_or_else(gone)?;
    let listeners = configured.listeners.clone();
    let known = Known::load(organization.clone(), policy, listeners, Some(reading), now).await?;
    let subject = Subject::Certificate(id.clone());
    let tellings = reading.tellings(&organization, &subject, TELLINGS).await?;
    let of = id.clone();
    // It takes its time where there are thousands of projects.
    let explained = tokio::task::spawn_blocking(move || {
        let forecast = match configured.cron.next_after(now) {
            Some(first) => known.narrowed(&of).forecast(&configured.cron, first, now + AHEAD),
            None => Vec::new(),
        };
        let Known { organization, inventory, policy, acknowledgements, listeners, .. } = &known;
        let evaluation = evaluate(organization, inventory, policy, acknowledgements, now);
        let assessment = evaluation.assessment(&of)?;
        Some(explanation(&evaluation, &assessment, listeners, &forecast))
    });
    let explained = explained.await.map_err(anyhow::Error::from)?;
    Ok(Explained { explanation: explained.ok_or_else(gone)?, tellings })
}
