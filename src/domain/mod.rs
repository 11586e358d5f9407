//! All decisions of certvigil.
//!
//! Everything here is pure: no async, no I/O, no clock, no logging. `now` is always an argument.

pub mod acknowledgement;
pub mod active;
pub mod alert;
pub mod blindness;
pub mod capacity;
pub mod certificate;
pub mod change;
pub mod content;
pub mod coverage;
pub mod credential;
pub mod day;
pub mod delivery;
pub mod drill;
pub mod evaluate;
pub mod expectation;
pub mod failing;
pub mod finding;
pub mod inventory;
pub mod notifier;
pub mod owner;
pub mod policy;
pub mod punctuality;
pub mod reading;
pub mod retry;
pub mod rotation;
pub mod routing;
pub mod scan;
pub mod selection;
pub mod skew;
pub mod status;
pub mod subject;
pub mod summary;
pub mod text;
pub mod threshold;
pub mod unreadable;
pub(crate) mod words;
