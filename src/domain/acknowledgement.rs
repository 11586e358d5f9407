//! "I know, be quiet": for one certificate, for a reason, and until an instant.
//!
//! It mutes neither the last threshold nor `expired`, and it ends by itself: on its date, or when what
//! it is about is over or expires at another time. While it lasts the ledger does not advance, so that
//! its end tells the stage of that day.

use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use uuid::Uuid;

use super::{
    certificate::{Certificate, CertificateId, same_expiry},
    evaluate::{Assessment, Evaluation},
    text::{MAX_REASON, one_line},
    words::words,
};

/// The longest name of whoever says so that is kept, in characters.
const MAX_NAME: usize = 100;

/// The latest acknowledgement of each certificate that was ever acknowledged.
pub type Acknowledgements = BTreeMap<CertificateId, Acknowledgement>;

#[derive(Clone, Debug, PartialEq)]
pub struct Acknowledgement {
    pub id: Uuid,
    pub certificate: CertificateId,
    pub reason: String,
    /// Who said so, as far as they said.
    pub by: Option<String>,
    pub created_at: DateTime<Utc>,
    pub until: DateTime<Utc>,
    /// When the certificate was to expire then; another expiry is another matter.
    pub expires_at: Option<DateTime<Utc>>,
    /// Where it ended before its date.
    pub ended: Option<(DateTime<Utc>, Ending)>,
}

words! {
    /// Why an acknowledgement ended before its date.
    Ending {
        /// Somebody took it back.
        Withdrawn = "withdrawn",
        /// Another one took its place.
        Superseded = "superseded",
        /// What it was about is over: replaced, renewed, deactivated or deleted.
        Over = "over",
    }
}

/// What somebody asks for.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    pub until: DateTime<Utc>,
    pub reason: &'a str,
    pub by: Option<&'a str>,
}

/// Why a certificate cannot be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{} has passed", .0.format("%Y-%m-%d %H:%M UTC"))]
    Passed(DateTime<Utc>),
    #[error("found an empty text, expected why")]
    NoReason,
    #[error("{0} is active nowhere, and so nothing is told of it")]
    Inactive(String),
    #[error(
        "{title} is in the stage “{stage}”, and an acknowledgement silences neither the last threshold nor the expiry: to \
         silence it, add a [[rules]] entry with ignore to the configuration"
    )]
    LastStage { title: String, stage: String },
    #[error(
        "the ladder of {title} has a single step, {step}, and the last one before the end is never muted: it \
             cannot be acknowledged"
    )]
    SingleStep { title: String, step: String },
}

impl Acknowledgement {
    /// Quiet for a certificate, from now on.
    ///
    /// # Errors
    /// Where it would be quiet about nothing, or without a reason.
    pub fn new(
        wanted: &Wanted<'_>,
        of: &Assessment<'_>,
        include_inactive: bool,
        id: Uuid,
        now: DateTime<Utc>,
    ) -> Result<Acknowledgement, Refusal> {
        if wanted.until <= now {
            return Err(Refusal::Passed(wanted.until));
        }
        let reason = one_line(wanted.reason, MAX_REASON);
        if reason.is_empty() {
            return Err(Refusal::NoReason);
        }
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
        Ok(Acknowledgement {
            id,
            certificate: certificate.id.clone(),
            reason,
            by: wanted.by.map(|by| one_line(by, MAX_NAME)).filter(|by| !by.is_empty()),
            created_at: now,
            until: wanted.until,
            expires_at: certificate.expires_at,
            ended: None,
        })
    }

    /// Whether it mutes a certificate as it is now.
    pub fn is_active(&self, certificate: &Certificate, now: DateTime<Utc>) -> bool {
        self.ended.is_none()
            && now < self.until
            && same_expiry(self.expires_at, certificate.expires_at)
    }

    /// When it ended with what it was about still there: on its date, or because it was taken back.
    pub fn lapsed_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.ended {
            Some((at, Ending::Withdrawn)) => Some(at.min(self.until)),
            Some((_, Ending::Superseded | Ending::Over)) => None,
            None => (self.until <= now).then_some(self.until),
        }
    }

    /// Whether what it is about is over: the certificate expires at another time, is active nowhere, or
    /// is gone. Not on hearsay.
    pub fn is_over(&self, evaluation: &Evaluation<'_>) -> bool {
        if self.ended.is_some() || self.until <= evaluation.now {
            return false;
        }
        match evaluation.assessment(&self.certificate) {
            None => true,
            Some(one) if !same_expiry(one.certificate.expires_at, self.expires_at) => true,
            Some(one) => {
                !one.is_active()
                    && !evaluation.policy.include_inactive
                    && !evaluation.is_stale(&self.certificate)
            }
        }
    }
}
