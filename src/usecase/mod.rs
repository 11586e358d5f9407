//! The operations of certvigil, each written once for the service, the command line and HTTP. They take
//! plain values, the database and the other edges, and return values; callers translate arguments
//! and results.

pub mod acknowledge;
pub mod check;
pub mod deliver;
pub mod explain;
pub mod organization;
pub mod scan;
pub mod watch_notifiers;

use crate::store::StoreFault;

/// A failure of the database during a step of an operation.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct Failed {
    pub doing: &'static str,
    pub source: StoreFault,
}

/// Names the step that failed.
pub trait Doing<T> {
    /// # Errors
    /// If the step failed.
    fn doing(self, step: &'static str) -> Result<T, Failed>;
}

impl<T> Doing<T> for Result<T, StoreFault> {
    fn doing(self, step: &'static str) -> Result<T, Failed> {
        self.map_err(|source| Failed { doing: step, source })
    }
}
