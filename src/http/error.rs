//! Internal errors of the HTTP server.

use tokio::{sync::AcquireError, task::JoinError};

use crate::{store::StoreError, usecase::explain::ExplainError};

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Explain(#[from] ExplainError),
    #[error("internal error")]
    Panicked(#[from] JoinError),
    #[error("the HTTP server is stopping")]
    Stopping(#[from] AcquireError),
    #[error("cannot write the metrics")]
    Metrics(#[from] std::fmt::Error),
    #[error("cannot render a template")]
    Template(#[from] minijinja::Error),
    #[error("cannot get random numbers from the operating system")]
    Random,
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
