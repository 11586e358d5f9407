//! Silencing a certificate, or a project without mutual TLS, until a date.

use chrono::{DateTime, Utc};

use crate::{
    domain::{
        acknowledgement::{Acknowledgement, Acknowledgements, NewAcknowledgement, Refusal},
        certificate::{CertificateId, OrganizationName, ProjectId},
        evaluate::{Assessment, evaluate},
        policy::Policy,
        text::one_line,
    },
    store::{Store, StoreError, id_at},
};

/// The certificate or project to silence, by id.
#[derive(Clone, Debug)]
pub enum Target {
    Certificate(String),
    Project(String),
}

#[derive(Debug, thiserror::Error)]
pub enum AcknowledgeError {
    #[error("no {kind} {id} in the latest scan of {organization}")]
    NotFound { kind: &'static str, id: String, organization: OrganizationName },
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A stored acknowledgement with its limits.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub acknowledgement: Acknowledgement,
    /// Whether every project of the certificate has a successor.
    pub replaced: bool,
    /// Whether an ignore rule silences the certificate anyway.
    pub ignored: bool,
    /// The label and the start of the last threshold, if it starts before the end of the
    /// acknowledgement and still alerts.
    pub last_threshold: Option<(String, DateTime<Utc>)>,
}

impl Acknowledged {
    fn of_certificate(acknowledgement: Acknowledgement, assessment: &Assessment<'_>) -> Self {
        let last = assessment.ruling.steps.as_slice().last().filter(|_| !assessment.replaced);
        let start = |lead| assessment.certificate.expires_at.map(|end| end - lead);
        let last = last.and_then(|last| Some((last.label.clone(), start(last.lead)?)));
        Acknowledged {
            replaced: assessment.replaced && assessment.certificate.expires_at.is_some(),
            ignored: assessment.ruling.ignored.is_some(),
            last_threshold: last.filter(|(_, from)| *from < acknowledgement.until),
            acknowledgement,
        }
    }
}

/// The acknowledgements of an organization: those that apply, or all stored ones.
///
/// # Errors
/// If the database fails.
pub async fn list(
    store: &Store,
    organization: &OrganizationName,
    ended_too: bool,
    now: DateTime<Utc>,
) -> Result<Vec<Acknowledgement>, StoreError> {
    let mut all = store.all_acknowledgements(organization).await?;
    all.retain(|one| ended_too || one.ended_at(now).is_none());
    Ok(all)
}

/// Stores an acknowledgement of a certificate or project in the latest inventory.
///
/// # Errors
/// If the target is unknown, the acknowledgement is not possible, or the database fails.
pub async fn acknowledge(
    store: &Store,
    organization: &OrganizationName,
    policy: &Policy,
    target: &Target,
    new: &NewAcknowledgement,
    now: DateTime<Utc>,
) -> Result<Acknowledged, AcknowledgeError> {
    let unknown = || {
        let (kind, id) = match target {
            Target::Certificate(id) => ("certificate", id),
            Target::Project(id) => ("project", id),
        };
        let organization = organization.clone();
        AcknowledgeError::NotFound { kind, id: one_line(id, 120), organization }
    };
    let inventory = store.inventory(organization).await?;
    let none = Acknowledgements::default();
    let evaluation = evaluate(organization, &inventory, policy, &none, now);
    let new_id = new.id.unwrap_or_else(|| id_at(now));
    let acknowledged = match target {
        Target::Certificate(id) => {
            let id = CertificateId::parse(id).map_err(|_| unknown())?;
            let assessment = evaluation.assessment(&id).ok_or_else(unknown)?;
            let include_inactive = policy.include_inactive;
            let one = Acknowledgement::new(new, &assessment, include_inactive, new_id, now)?;
            Acknowledged::of_certificate(one, &assessment)
        }
        Target::Project(id) => {
            let id = ProjectId::parse(id).map_err(|_| unknown())?;
            let project = inventory.projects.get(&id).ok_or_else(unknown)?;
            let one = Acknowledgement::of_project(new, project, &evaluation, new_id, now)?;
            Acknowledged {
                acknowledgement: one,
                replaced: false,
                ignored: false,
                last_threshold: None,
            }
        }
    };
    store.acknowledge(organization, &acknowledged.acknowledgement).await?;
    Ok(acknowledged)
}
