//! The few things that somebody may write: acknowledgements, another attempt, and a request for a
//! scan. Only for whoever knows the token ([`super::guard`]).

use axum::http::StatusCode;
use uuid::Uuid;

use super::{Shared, problem::Problem, session::Session};
use crate::{
    clock,
    domain::{
        acknowledgement::{Acknowledgement, Acknowledgements, Refusal, Wanted},
        certificate::{CertificateId, OrganizationName, ProjectId},
        evaluate::evaluate,
        policy::Policy,
        text::one_line,
    },
    store::{DeliveryRow, Store, StoreFault, id_at},
};

/// A configured organization.
pub fn organization(shared: &Shared, name: &str) -> Result<(OrganizationName, Policy), Problem> {
    let configured = shared.service.configured.borrow();
    let found = configured.organizations.iter().find(|(known, _)| known.as_str() == name);
    found
        .cloned()
        .ok_or_else(|| Problem::not_found(format!("no organization “{}”", one_line(name, 64))))
}

/// Writes to the state where the work is done: its connections belong there, and outlive whoever
/// asks.
async fn write<T: Send + 'static, W>(
    shared: &Shared,
    what: impl FnOnce(Store) -> W,
) -> Result<T, Problem>
where
    W: Future<Output = Result<T, StoreFault>> + Send + 'static,
{
    let writing = shared.service.work.spawn(what(shared.service.store.clone()));
    let written = writing.await.map_err(anyhow::Error::from)?;
    written.map_err(|fault| match fault {
        StoreFault::NoSuchDelivery(_) => Problem::not_found(fault.to_string()),
        StoreFault::OutOfDate(_) | StoreFault::NotRetryable(..) => {
            Problem::new(StatusCode::CONFLICT, fault.to_string())
        }
        other => other.into(),
    })
}

/// The certificate or project to acknowledge, by id.
#[derive(Clone, Copy, Debug)]
pub enum Quieted<'a> {
    Certificate(&'a str),
    Project(&'a str),
}

/// Asks for quiet about a certificate or a project.
pub async fn acknowledge(
    shared: &Shared,
    name: &str,
    what: Quieted<'_>,
    wanted: &Wanted<'_>,
) -> Result<(OrganizationName, Acknowledgement), Problem> {
    let (organization, policy) = organization(shared, name)?;
    let unknown = || {
        let (kind, id) = match what {
            Quieted::Certificate(id) => ("certificate", id),
            Quieted::Project(id) => ("project", id),
        };
        let id = one_line(id, 120);
        Problem::not_found(format!("no {kind} {id} in the latest scan of {organization}"))
    };
    let now = clock::now();
    let inventory = shared.reading.inventory(&organization).await?;
    let none = Acknowledgements::default();
    let evaluation = evaluate(&organization, &inventory, &policy, &none, now);
    let one = match what {
        Quieted::Certificate(id) => {
            let id = CertificateId::parse(id).map_err(|_| unknown())?;
            let assessment = evaluation.assessment(&id).ok_or_else(unknown)?;
            Acknowledgement::new(wanted, &assessment, policy.include_inactive, id_at(now), now)
        }
        Quieted::Project(id) => {
            let id = ProjectId::parse(id).map_err(|_| unknown())?;
            let project = inventory.projects.get(&id).ok_or_else(unknown)?;
            Acknowledgement::of_project(wanted, project, &evaluation, id_at(now), now)
        }
    };
    let one = one.map_err(|refusal| {
        let detail = match refusal {
            Refusal::Passed(_) => format!("until: {refusal}"),
            Refusal::NoReason => format!("reason: {refusal}"),
            Refusal::Inactive(_)
            | Refusal::NotReported(_)
            | Refusal::LastStage { .. }
            | Refusal::SingleStep { .. } => refusal.to_string(),
        };
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    })?;
    let (of, kept) = (organization.clone(), one.clone());
    write(shared, |store| async move { store.acknowledge(&of, &kept).await }).await?;
    shared.keeper.outdate().await;
    tracing::info!(%organization, subject = %one.subject, until = %one.until, "acknowledged over HTTP");
    Ok((organization, one))
}

/// Takes an acknowledgement back: alerts resume with the next scan.
pub async fn withdraw(shared: &Shared, id: Uuid) -> Result<(), Problem> {
    if !write(shared, |store| async move { store.withdraw(id, clock::now()).await }).await? {
        let detail = format!("no acknowledgement {id}, or it has ended");
        return Err(Problem::not_found(detail));
    }
    shared.keeper.outdate().await;
    tracing::info!(acknowledgement = %id, "acknowledgement taken back over HTTP");
    Ok(())
}

/// Makes a delivery due now.
pub async fn retry(shared: &Shared, id: Uuid) -> Result<DeliveryRow, Problem> {
    let give_up_after = shared.service.configured.borrow().give_up_after;
    let now = clock::now();
    write(
        shared,
        |store| async move { store.retry(&id.to_string(), now, now + give_up_after).await },
    )
    .await?;
    shared.keeper.outdate().await;
    tracing::info!(delivery = %id, "delivery retry requested over HTTP");
    let row = shared.reading.delivery(id).await?;
    row.ok_or_else(|| Problem::not_found(format!("the delivery {id} no longer exists")))
}

/// Ends the session of a browser before its time.
pub async fn end_session(shared: &Shared, session: Session) -> Result<(), Problem> {
    let (id, until, now) = (session.id, session.until, clock::now());
    write(shared, |store| async move { store.end_session(id, until, now).await }).await
}

/// Asks for a scan of every organization.
///
/// # Errors
/// Where another instance scans, for its configuration is the newer one.
pub fn scan(shared: &Shared) -> Result<(), Problem> {
    if !shared.service.status.borrow().is_in_force() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "another instance has a newer configuration and scans; ask that one, or reload this one",
        ));
    }
    tracing::info!("scan of all organizations requested over HTTP");
    shared.service.scan_now.send_replace(());
    Ok(())
}
