//! The operations of certvigil, each written once for the service, the command line and HTTP.
//! Callers translate arguments and results.

pub mod acknowledge;
pub mod check;
pub mod deliver;
pub mod drill;
pub mod expectations;
pub mod explain;
pub mod follow_link;
pub mod jobs;
pub mod organization;
pub mod scan;
pub mod summary;
pub mod watch_notifiers;

use crate::store::StoreError;

/// A failure of the database during a step of an operation.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct Failed {
    pub doing: &'static str,
    pub source: StoreError,
}

impl Failed {
    /// Names the step that failed.
    pub fn during(doing: &'static str) -> impl FnOnce(StoreError) -> Failed {
        move |source| Failed { doing, source }
    }
}
