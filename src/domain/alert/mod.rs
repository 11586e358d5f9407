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
mod resolution;
mod sent;
#[cfg(test)]
mod tests;

pub use decide::{World, all_open, decide, reconcile};
pub(super) use decide::{compare_all, repeat};
pub use decision::{Decision, Moment};
pub(super) use grouping::for_grain;
pub use grouping::keep_up;
pub use ledger::Ledger;
pub use sent::{FLIP, SentAlert};
