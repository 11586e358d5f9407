//! certvigil: makes sure that a person hears of it before a certificate expires.
//!
//! ```text
//!  schedule ──tick──▶ scan                                    use case 1: scan::run_once(..)
//!                      │  admin_api: all projects, all pages          I/O
//!                      ▼
//!               Inventory  (certificates once each, their scopes, what could not be read)
//!                      │  domain: evaluate by policy, coverage, now   pure
//!                      ▼
//!               Findings   (what is in a stage, as each notifier is concerned with it)
//!                      │  domain: reconcile with the ledger           pure
//!                      ▼
//!               Plans (a notification for each notifier, what its ledger learns)
//!                      │  store: inventory + ledger + outbox          ONE transaction
//!                      ▼
//!                  [ outbox ]   ◀── the only meeting point
//!                      ▲
//!  every few seconds, or nudged ──▶ deliver                   use case 2: deliver::run_once(..)
//!                         claim with a lease (store) ─▶ send (notify) ─▶ domain::retry ─▶ record (store)
//! ```
//!
//! Who may know whom: [`domain`] knows nobody. [`admin_api`], [`store`] and [`notify`] know the domain
//! and not each other. [`scan`] and [`deliver`] know the domain and the edges that they use. [`config`]
//! makes each owner's settings, and no owner knows it. [`app`] and [`cli`] know all. A test reads the
//! `use` lines and keeps it so.
//!
//! Guarantees:
//! - What is to be said is committed before anything is sent; `kill -9` at any moment loses nothing, and
//!   repeats at most the message in flight, with the same id.
//! - Scan never notifies, and deliver never calls the Admin API. A receiver's failure is a value.
//! - Absence is believed only after a complete listing.
//! - `now` is an argument, read in [`clock`] alone.
//! - No secret is in a log line, an error or a `Debug`.

pub mod admin_api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod deliver;
pub mod demo;
pub mod domain;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod heartbeat;
pub mod http;
pub mod logging;
pub mod net;
pub mod notify;
pub mod scan;
pub mod schedule;
pub mod secret;
pub mod store;
pub mod watch;
