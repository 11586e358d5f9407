//! certvigil monitors the mutual TLS certificates of OpenAI organizations and alerts before one expires.
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
//! One word for one thing; `docs/reference/glossary.md` has all of them. A *finding* is something in a stage; for a notifier
//! that selects it, it becomes an *alert*, and the ledger keeps the latest *sent alert* of each subject. A *notification*
//! is one message of a notifier about one scan; a *delivery* is one notification for one receiver. Data is *stale* if
//! the latest scan could not read its list; a list is *blind* if that has lasted too long.
//!
//! Who may know whom: [`domain`] knows nobody. [`admin_api`], [`store`] and [`notify`] know the domain
//! and not each other. [`scan`], [`deliver`] and [`watch`] know the domain and the edges
//! that they use; [`http`] knows the domain and the store, and both [`http`] and [`cli`] ask [`known`] for what the
//! state has of an organization. [`config`]
//! makes each owner's settings, and no owner knows it. [`app`] and [`cli`] know all. A test reads the
//! `use` lines and keeps it so.
//!
//! A third use case is beside them: [`watch`], by which the notifiers watch one another. [`app`] runs all three
//! in loops, and says how they stand to [`http`], systemd and the [`heartbeat`].
//!
//! Where the state is a PostgreSQL, several processes like this one share the work: who scans an organization is settled
//! by a lease in the state, which is checked again in the transaction that keeps the scan.
//!
//! Guarantees:
//! - What is to be said is committed before anything is sent; `kill -9` at any moment loses nothing, and
//!   repeats at most the messages in flight, with the same ids.
//! - What is retried: a request of the API up to `api.max_attempts`, and by the next scan; a delivery until it is
//!   accepted or `delivery.give_up_after` has passed; a scan that could not be kept, after a minute.
//! - What is reported: what could not be read (log, `/readyz`, no heartbeat; `monitor.blind` after
//!   `monitoring.blind_after`); who does not get through (log, no heartbeat, `notifier.failing` through the others after
//!   an hour, or at once where it is for good); a state that cannot be used (log, `/readyz`, exit code, no heartbeat).
//! - What is given up: a delivery that nobody took in time, which the next scan tells anew; what is owed to whoever
//!   is configured no longer; what is older than `state.history`.
//! - A failure inside certvigil in one organization or notifier stops no other.
//! - Scan never notifies, and deliver never calls the Admin API. A receiver's failure is a value.
//! - Absence is believed only after a complete listing.
//! - `now` is an argument, read in [`clock`] alone.
//! - No secret is in a log line, an error or a `Debug`.

pub mod admin_api;
pub mod app;
pub mod build;
pub mod cli;
pub mod clock;
pub mod config;
pub mod deliver;
pub mod demo;
mod descriptors;
pub mod domain;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod heartbeat;
pub mod http;
pub mod known;
pub mod logging;
pub mod net;
pub mod notify;
pub mod redact;
pub mod scan;
pub mod schedule;
pub mod secret;
pub mod store;
pub mod watch;
