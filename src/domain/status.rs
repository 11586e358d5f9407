//! How a certificate stands, in a word.

use super::{
    evaluate::{Assessment, Evaluation},
    threshold::Stage,
    words::words,
};

words! {
    /// The state of a certificate, whether or not anybody is alerted.
    Status {
        Expired = "expired",
        /// It has reached a threshold.
        Expiring = "expiring",
        /// Active, and the API does not say when it expires.
        UnknownExpiry = "unknown_expiry",
        /// Not valid before a time that is ahead.
        NotYetValid = "not_yet_valid",
        /// Not active in any readable list, and some lists are unreadable.
        UnknownActivity = "unknown_activity",
        /// Active nowhere.
        Inactive = "inactive",
        Healthy = "healthy",
    }
}

impl Evaluation<'_> {
    /// How one of its certificates stands.
    pub fn status(&self, assessment: &Assessment<'_>) -> Status {
        let active = assessment.is_active();
        match assessment.reached.as_ref().map(|reached| reached.stage) {
            Some(Stage::Expired) => Status::Expired,
            Some(Stage::Within(_)) => Status::Expiring,
            Some(Stage::UnknownExpiry) => Status::UnknownExpiry,
            Some(Stage::NotYetValid) => Status::NotYetValid,
            // A list that could not be read may have it active.
            None if !active && !self.inventory.is_complete() => Status::UnknownActivity,
            None if !active => Status::Inactive,
            None if !assessment.certificate.has_started(self.now) => Status::NotYetValid,
            // The stages of other subjects do not occur here.
            None | Some(Stage::Uncovered | Stage::Unprotected | Stage::Blind | Stage::Failing) => {
                Status::Healthy
            }
        }
    }
}
