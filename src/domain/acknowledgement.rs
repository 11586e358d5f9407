//! An acknowledgement silences a certificate, or the alert about a project without mutual TLS,
//! until a date.
//!
//! For a certificate, it silences neither the last threshold nor `expired`. It ends on its date, or
//! earlier if its subject is resolved or its expiry changes. While it applies, the ledger does not
//! advance, so that the alert at its end has the stage of that day.

use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use uuid::Uuid;

use super::{
    certificate::{Certificate, CertificateId, Project, ProjectId, same_expiry},
    evaluate::{Assessment, Evaluation},
    subject::Subject,
    text::{MAX_REASON, one_line},
    words::words,
};

/// The maximum length of the author's name, in characters.
const MAX_NAME: usize = 100;

/// The latest acknowledgement of each subject, ended or not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Acknowledgements(BTreeMap<Subject, Acknowledgement>);

impl FromIterator<Acknowledgement> for Acknowledgements {
    /// Later acknowledgements of a subject replace earlier ones.
    fn from_iter<I: IntoIterator<Item = Acknowledgement>>(all: I) -> Acknowledgements {
        Acknowledgements(all.into_iter().map(|one| (one.subject.clone(), one)).collect())
    }
}

impl Acknowledgements {
    pub fn get(&self, subject: &Subject) -> Option<&Acknowledgement> {
        self.0.get(subject)
    }

    pub fn of_certificate(&self, id: &CertificateId) -> Option<&Acknowledgement> {
        self.get(&Subject::Certificate(id.clone()))
    }

    /// The acknowledgement of an unprotected project.
    pub fn of_project(&self, id: &ProjectId) -> Option<&Acknowledgement> {
        self.get(&Subject::Protection(id.clone()))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Acknowledgement> {
        self.0.values()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Acknowledgement {
    pub id: Uuid,
    /// A certificate or the protection of a project.
    pub subject: Subject,
    pub reason: String,
    /// The author, as entered.
    pub by: Option<String>,
    pub created_at: DateTime<Utc>,
    pub until: DateTime<Utc>,
    /// The expiry of the certificate when it was acknowledged; `None` for a project. A different
    /// expiry ends the acknowledgement.
    pub expires_at: Option<DateTime<Utc>>,
    /// The early end, if it ended before `until`.
    pub ended: Option<(DateTime<Utc>, Ending)>,
}

words! {
    /// Why an acknowledgement ended before its date.
    Ending {
        /// A person withdrew it.
        Withdrawn = "withdrawn",
        /// A later acknowledgement replaced it.
        Superseded = "superseded",
        /// Its subject changed; see [`Acknowledgement::subject_changed`].
        Over = "over",
    }
}

/// The request for an acknowledgement.
#[derive(Clone, Debug)]
pub struct NewAcknowledgement {
    /// Its id; `None` for a new one.
    pub id: Option<Uuid>,
    pub until: DateTime<Utc>,
    pub reason: String,
    pub by: Option<String>,
}

impl NewAcknowledgement {
    fn check(&self, now: DateTime<Utc>) -> Result<(), Refusal> {
        if self.until <= now {
            return Err(Refusal::Passed(self.until));
        }
        if self.clean_reason().is_empty() { Err(Refusal::NoReason) } else { Ok(()) }
    }

    fn clean_reason(&self) -> String {
        one_line(&self.reason, MAX_REASON)
    }

    fn acknowledge(
        &self,
        subject: Subject,
        expires_at: Option<DateTime<Utc>>,
        id: Uuid,
        now: DateTime<Utc>,
    ) -> Acknowledgement {
        Acknowledgement {
            id,
            subject,
            reason: self.clean_reason(),
            by: self.by.as_deref().map(|by| one_line(by, MAX_NAME)).filter(|by| !by.is_empty()),
            created_at: now,
            until: self.until,
            expires_at,
            ended: None,
        }
    }
}

/// Why a certificate or a project cannot be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{} has passed", .0.format("%Y-%m-%d %H:%M UTC"))]
    Passed(DateTime<Utc>),
    #[error("found an empty reason, expected a text")]
    NoReason,
    #[error("{0} is not active anywhere, so certvigil sends no alerts about it")]
    Inactive(String),
    #[error("{0} has no open alert for missing mutual TLS: there is nothing to acknowledge")]
    NotReported(String),
    #[error(
        "{title} is in the stage “{stage}”, but an acknowledgement silences neither the last \
         threshold nor the expiry: to silence the certificate, add a [[rules]] entry with ignore \
         to the configuration"
    )]
    LastStage { title: String, stage: String },
    #[error(
        "{title} cannot be acknowledged: its only threshold is {step}, and an acknowledgement \
         never silences the last threshold"
    )]
    SingleStep { title: String, step: String },
}

impl Acknowledgement {
    /// Acknowledges a certificate from now on.
    ///
    /// # Errors
    /// If `until` has passed, the reason is empty, or the acknowledgement would silence nothing.
    pub fn new(
        wanted: &NewAcknowledgement,
        of: &Assessment<'_>,
        include_inactive: bool,
        id: Uuid,
        now: DateTime<Utc>,
    ) -> Result<Acknowledgement, Refusal> {
        wanted.check(now)?;
        let certificate = of.certificate;
        let title = format!("“{}” ({})", certificate.title(), certificate.id);
        if !of.is_active() && !include_inactive {
            return Err(Refusal::Inactive(title));
        }
        if !of.replaced {
            if let ([only], true) = (of.ruling.steps.as_slice(), certificate.expires_at.is_some()) {
                return Err(Refusal::SingleStep { title, step: only.label.clone() });
            }
            if let Some(reached) = of.reached.as_ref().filter(|reached| reached.last) {
                return Err(Refusal::LastStage { title, stage: reached.label.clone() });
            }
        }
        let subject = Subject::Certificate(certificate.id.clone());
        Ok(wanted.acknowledge(subject, certificate.expires_at, id, now))
    }

    /// Acknowledges an unprotected project from now on.
    ///
    /// # Errors
    /// As [`Acknowledgement::new`].
    pub fn of_project(
        wanted: &NewAcknowledgement,
        project: &Project,
        evaluation: &Evaluation<'_>,
        id: Uuid,
        now: DateTime<Utc>,
    ) -> Result<Acknowledgement, Refusal> {
        wanted.check(now)?;
        if evaluation.unprotected(&project.id).is_none() {
            let title = format!("the project “{}” ({})", project.title(), project.id);
            return Err(Refusal::NotReported(title));
        }
        Ok(wanted.acknowledge(Subject::Protection(project.id.clone()), None, id, now))
    }

    /// Whether it applies now. For a certificate, use [`Acknowledgement::is_active`].
    pub fn holds(&self, now: DateTime<Utc>) -> bool {
        self.ended.is_none() && now < self.until
    }

    /// Whether it silences the certificate now; not after a change of its expiry.
    pub fn is_active(&self, certificate: &Certificate, now: DateTime<Utc>) -> bool {
        self.holds(now) && same_expiry(self.expires_at, certificate.expires_at)
    }

    /// The time at which it ended, early or on its date; `None` while it applies.
    pub fn ended_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let early = self.ended.map(|(at, _)| at);
        early.or((self.until <= now).then_some(self.until))
    }

    /// The end of an acknowledgement whose subject was still open: its date, or its withdrawal.
    pub fn lapsed_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.ended {
            Some((at, Ending::Withdrawn)) => Some(at.min(self.until)),
            Some((_, Ending::Superseded | Ending::Over)) => None,
            None => (self.until <= now).then_some(self.until),
        }
    }

    /// Whether its subject has changed: the certificate has another expiry, is inactive or was
    /// deleted; the project is protected again or was archived. A certificate with stale data does
    /// not count as inactive.
    pub fn subject_changed(&self, evaluation: &Evaluation<'_>) -> bool {
        if !self.holds(evaluation.now) {
            return false;
        }
        let certificate = match &self.subject {
            Subject::Certificate(id) => id,
            Subject::Protection(id) => {
                return !evaluation.inventory.projects.contains_key(id)
                    || !evaluation.active_in(id).is_empty();
            }
            Subject::Project(_)
            | Subject::Mismatch(_)
            | Subject::Fitness(_)
            | Subject::Sight
            | Subject::AdminKey(_)
            | Subject::ClientIdentity
            | Subject::Notifier(_)
            | Subject::Proof(_)
            | Subject::Drill
            | Subject::Summary => return false,
        };
        match evaluation.assessment(certificate) {
            None => true,
            Some(one) if !same_expiry(one.certificate.expires_at, self.expires_at) => true,
            Some(one) => {
                !one.is_active()
                    && !evaluation.policy.include_inactive
                    && !evaluation.is_stale(certificate)
            }
        }
    }
}
