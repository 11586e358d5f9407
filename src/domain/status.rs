//! The status of a certificate in one word.

use super::{
    evaluate::{Assessment, Evaluation},
    threshold::Stage,
    words::words,
};

words! {
    /// The status of a certificate, regardless of silences and routing.
    Status {
        Expired = "expired",
        /// It has reached a threshold.
        Expiring = "expiring",
        /// Active, and the API does not report its expiry.
        UnknownExpiry = "unknown_expiry",
        /// Its validity starts in the future.
        NotYetValid = "not_yet_valid",
        /// Not active in any readable list, and some lists are unreadable.
        UnknownActivity = "unknown_activity",
        Inactive = "inactive",
        Healthy = "healthy",
    }
}

impl Evaluation<'_> {
    pub fn status(&self, assessment: &Assessment<'_>) -> Status {
        let active = assessment.is_active();
        match assessment.reached.as_ref().map(|reached| reached.stage) {
            Some(Stage::Expired) => Status::Expired,
            Some(Stage::Within(_)) => Status::Expiring,
            Some(Stage::UnknownExpiry) => Status::UnknownExpiry,
            Some(Stage::NotYetValid) => Status::NotYetValid,
            // It may be active in an unreadable list.
            None if !active && !self.inventory.is_complete() => Status::UnknownActivity,
            None if !active => Status::Inactive,
            None if !assessment.certificate.has_started(self.now) => Status::NotYetValid,
            // The stages of other subjects do not occur here.
            None
            | Some(
                Stage::Uncovered
                | Stage::Unprotected
                | Stage::Blind
                | Stage::Failing
                | Stage::Unproven
                | Stage::Mismatch
                | Stage::Unfit,
            ) => Status::Healthy,
        }
    }
}
