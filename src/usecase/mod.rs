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
