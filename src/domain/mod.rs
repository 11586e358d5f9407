//! What certvigil decides, and nothing else.
//!
//! Everything here is pure: no async, no I/O, no clock, no logging. `now` is always an argument,
//! functions return verdicts and do not fail. The rest of the crate is the way in and out.

pub mod acknowledgement;
pub mod active;
pub mod alert;
pub mod blindness;
pub mod capacity;
pub mod certificate;
pub mod compose;
pub mod coverage;
pub mod credential;
pub mod day;
pub mod delivery;
pub mod evaluate;
pub mod explain;
pub mod failing;
pub mod finding;
pub mod forecast;
pub mod inventory;
pub mod listener;
pub mod notification;
pub mod policy;
pub mod reading;
pub mod retry;
pub mod rotation;
pub mod routing;
pub mod sample;
pub mod scan;
pub mod selection;
pub mod skew;
pub mod status;
pub mod subject;
pub mod text;
pub mod threshold;
pub mod unreadable;
pub mod wording;
pub(crate) mod words;
