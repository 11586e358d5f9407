//! Compares the findings with the ledger and decides which alerts to send or resolve.
//!
//! The ledger is the only memory of alerts: first alerts, escalations, repeats, resolutions and the
//! alerts of a new notifier all follow from the comparison. A second comparison without a change
//! decides nothing. Stale data resolves nothing.

mod decide;
mod decision;
mod grouping;
mod ledger;
mod reason;
mod resolution;
mod sent;
#[cfg(test)]
mod tests;

pub(super) use decide::compare_all;

pub use decide::{Transition, all_open, decide, reconcile, repeat};
pub use decision::{Decision, ScanTime};
pub(super) use grouping::apply_grouping;
pub use grouping::refresh_open;
pub use ledger::Ledger;
pub use reason::Reason;
pub use sent::{FLAPPING_WINDOW, SentAlert};
