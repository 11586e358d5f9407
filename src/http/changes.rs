//! Requests that write: acknowledgements, retries and scans. They need the token
//! ([`super::guard`]).

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{HttpError, Shared, attempts::Origin, problem::Problem, session::Session};
use crate::{
    domain::{
        acknowledgement::{Acknowledgement, NewAcknowledgement, Refusal},
        certificate::OrganizationName,
        delivery::DeliveryRow,
        policy::Policy,
        text::one_line,
    },
    store::{Store, StoreError},
    usecase::{
        acknowledge::{self, AcknowledgeError, Target},
        follow_link::{self, AlertLink, DrillLink, LinkError, OpenedLink},
    },
};

/// The configured organization with this name.
pub fn organization(shared: &Shared, name: &str) -> Result<(OrganizationName, Policy), Problem> {
    let configured = shared.service.configured.borrow();
    let found = configured.organizations.iter().find(|(known, _)| known.as_str() == name);
    found.cloned().ok_or_else(|| {
        let name = one_line(name, 64);
        Problem::not_found(format!("no organization “{name}” is configured"))
    })
}

/// Writes to the database on the runtime of the service: its connections belong to that runtime,
/// and a cancelled request does not cancel the write.
async fn write<T: Send + 'static, W>(
    shared: &Shared,
    what: impl FnOnce(Store) -> W,
) -> Result<T, Problem>
where
    W: Future<Output = T> + Send + 'static,
{
    let writing = shared.service.work.spawn(what(shared.service.store.clone()));
    Ok(writing.await.map_err(HttpError::from)?)
}

/// Acknowledges a certificate or a project.
pub async fn acknowledge(
    shared: &Shared,
    name: &str,
    target: Target,
    new: NewAcknowledgement,
) -> Result<(OrganizationName, Acknowledgement), Problem> {
    let (organization, policy) = organization(shared, name)?;
    let (of, now) = (organization.clone(), shared.service.clock.now());
    let acknowledging = write(shared, |store| async move {
        acknowledge::acknowledge(&store, &of, &policy, &target, &new, now).await
    });
    let one = acknowledging.await?.map_err(refused)?.acknowledgement;
    shared.keeper.invalidate().await;
    tracing::info!(%organization, subject = %one.subject, until = %one.until,
        "acknowledgement created over HTTP");
    Ok((organization, one))
}

/// Checks the signed link of a message. Only reads.
pub async fn open_link(shared: &Shared, token: &str) -> Result<OpenedLink, Problem> {
    let now = shared.service.clock.now();
    let link = match follow_link::open(&shared.reading, token, now).await.map_err(of_link)? {
        OpenedLink::Acknowledge(link) => link,
        OpenedLink::Confirm(link) => return Ok(OpenedLink::Confirm(link)),
    };
    if !shared.service.configured.borrow().links {
        let why = "links in messages are turned off (messages.acknowledge_links, http.public_url)";
        return Err(Problem::not_found(why.to_owned()));
    }
    let organization = link.organization.clone();
    match self::organization(shared, organization.as_str()) {
        Ok(_) => Ok(OpenedLink::Acknowledge(link)),
        Err(_) => Err(of_link(LinkError::NotWatched(organization))),
    }
}

/// Acknowledges the alert of a signed link.
pub async fn use_link(
    shared: &Shared,
    link: AlertLink,
    until: DateTime<Utc>,
    reason: String,
    origin: Origin,
) -> Result<(), Problem> {
    let (organization, policy) = self::organization(shared, link.organization.as_str())?;
    let (notifier, now) = (link.notifier.clone(), shared.service.clock.now());
    let using = write(shared, |store| async move {
        follow_link::use_link(&store, &policy, link, until, reason, now).await
    });
    let one = using.await?.map_err(of_link)?.acknowledgement;
    shared.keeper.invalidate().await;
    tracing::info!(%organization, subject = %one.subject, until = %one.until,
        acknowledgement = %one.id, notifier, address = %origin,
        "acknowledgement created by the link of a message");
    Ok(())
}

/// Confirms the drill of a signed link.
pub async fn confirm_drill(
    shared: &Shared,
    link: DrillLink,
    origin: Origin,
) -> Result<(), Problem> {
    let (notifier, now) = (link.drilled.notifier.clone(), shared.service.clock.now());
    let confirming =
        write(shared, |store| async move { follow_link::confirm(&store, link, now).await });
    confirming.await?.map_err(of_link)?;
    shared.keeper.invalidate().await;
    tracing::info!(notifier, address = %origin, "drill confirmed by the link of a message");
    Ok(())
}

/// Anyone may ask, so a failure of the database is only logged.
fn of_link(error: LinkError) -> Problem {
    let status = match error {
        LinkError::Store(fault) | LinkError::Acknowledge(AcknowledgeError::Store(fault)) => {
            tracing::warn!(error = %fault, "cannot follow the link of a message");
            let why = "The database is not available. Try again later.";
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, why);
        }
        LinkError::Acknowledge(error) => return refused(error),
        LinkError::Unknown => StatusCode::NOT_FOUND,
        LinkError::Expired => StatusCode::GONE,
        LinkError::Used
        | LinkError::NewerDrill(_)
        | LinkError::Changed
        | LinkError::Silenced(_)
        | LinkError::NotWatched(_) => StatusCode::CONFLICT,
    };
    Problem::new(status, error.to_string())
}

fn refused(error: AcknowledgeError) -> Problem {
    let refusal = match error {
        AcknowledgeError::Store(fault) => return fault.into(),
        AcknowledgeError::NotFound { .. } => return Problem::not_found(error.to_string()),
        AcknowledgeError::Refused(refusal) => refusal,
    };
    let detail = match refusal {
        Refusal::Passed(_) => format!("until: {refusal}"),
        Refusal::NoReason => format!("reason: {refusal}"),
        Refusal::Inactive(_)
        | Refusal::NotReported(_)
        | Refusal::LastStage { .. }
        | Refusal::SingleStep { .. } => refusal.to_string(),
    };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

/// Withdraws an acknowledgement: alerts resume with the next scan.
pub async fn withdraw(shared: &Shared, id: Uuid) -> Result<(), Problem> {
    let now = shared.service.clock.now();
    if !write(shared, |store| async move { store.withdraw(id, now).await }).await?? {
        let detail = format!("no acknowledgement {id}, or it has ended");
        return Err(Problem::not_found(detail));
    }
    shared.keeper.invalidate().await;
    tracing::info!(acknowledgement = %id, "acknowledgement withdrawn over HTTP");
    Ok(())
}

/// Makes a delivery due now.
pub async fn retry(shared: &Shared, id: Uuid) -> Result<DeliveryRow, Problem> {
    let give_up_after = shared.service.configured.borrow().give_up_after;
    let now = shared.service.clock.now();
    let retrying = write(shared, |store| async move {
        store.retry(&id.to_string(), now, now + give_up_after).await
    });
    retrying.await?.map_err(|fault| match fault {
        StoreError::NoSuchDelivery(_) => Problem::not_found(fault.to_string()),
        StoreError::OutOfDate(_) | StoreError::NotRetryable(..) => {
            Problem::new(StatusCode::CONFLICT, fault.to_string())
        }
        other => other.into(),
    })?;
    shared.keeper.invalidate().await;
    tracing::info!(delivery = %id, "delivery retry requested over HTTP");
    let row = shared.reading.delivery(id).await?;
    row.ok_or_else(|| Problem::not_found(format!("the delivery {id} no longer exists")))
}

/// Revokes the session of a browser.
pub async fn end_session(shared: &Shared, session: Session) -> Result<(), Problem> {
    let (id, until, now) = (session.id, session.until, shared.service.clock.now());
    write(shared, |store| async move { store.end_session(id, until, now).await }).await??;
    Ok(())
}

/// Requests a scan of every organization.
///
/// # Errors
/// If another instance has a newer configuration, and therefore scans.
pub fn scan(shared: &Shared) -> Result<(), Problem> {
    if !shared.service.status.borrow().is_in_force() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "another instance has a newer configuration, and only that instance scans; request the \
             scan there, or reload this instance",
        ));
    }
    tracing::info!("scan of all organizations requested over HTTP");
    shared.service.scan_now.send_replace(());
    Ok(())
}
