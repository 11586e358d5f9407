//! Compares the findings with the ledger and decides what to send.
//!
//! The ledger is the only memory of alerts. One comparison yields first alerts, escalation,
//! repeats, resolution, and the alerts of a new notifier. A second reconcile without a change
//! decides nothing. Stale data resolves nothing: while a list that contains a certificate is
//! unreadable, its end is not believed.

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
pub use sent::{FLIP, SentAlert};
