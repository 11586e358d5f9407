//! certvigil monitors the mutual TLS certificates of OpenAI organizations and alerts before one
//! expires.
//!
//! ```text
//!  schedule ──tick──▶ scan                                    usecase::scan::run_once
//!                      │  admin_api: all projects, all pages          I/O
//!                      ▼
//!               Inventory  (each certificate once, its scopes, unreadable lists)
//!                      │  domain: evaluate by policy, coverage, now   pure
//!                      ▼
//!               Findings   (certificates, projects and credentials in a stage)
//!                      │  domain: reconcile with the ledger           pure
//!                      ▼
//!               Plans      (a notification and new ledger entries for each notifier)
//!                      │  store: inventory + ledger + outbox          ONE transaction
//!                      ▼
//!                  [ outbox ]   ◀── the only link between both halves
//!                      ▲
//!  every few seconds, or woken ───▶ deliver                   usecase::deliver::run_once
//!                claim with a lease (store) ─▶ send (notify) ─▶ domain::retry ─▶ record (store)
//! ```
//!
//! Terms (all of them are in `docs/reference/glossary.md`): a *finding* is a certificate, project
//! or credential in a stage. For a notifier that selects it, it becomes an *alert*; the ledger
//! keeps the latest *sent alert* of each subject. A *notification* is one message of a notifier
//! about one scan; a *delivery* is one notification for one receiver. Data is *stale* if the latest
//! scan could not read its list; a list is *blind* if it stays unreadable for too long.
//!
//! [`domain`] makes all decisions and depends on nothing. [`message`] turns them into
//! notifications, and [`view`] defines the fields of all outputs. [`admin_api`], [`store`] and
//! [`notify`] do the I/O, independently of each other. [`usecase`] implements every operation once;
//! [`http`] and [`cli`] translate arguments and results. [`config`] creates the settings of these
//! modules, and none of them depends on it. [`service`] runs scans, deliveries and
//! [`usecase::watch_notifiers`] in loops, and reports their status to [`http`], systemd and the
//! [`heartbeat`].
//!
//! Each module, with the modules that it names. A test compares this list with the code; a module
//! may name only those above it.
//!
//! ```text
//! build:
//! descriptors:
//! files:
//! domain:
//! message: domain
//! x509: domain
//! clock: domain
//! net: domain
//! redact: domain
//! signing:
//! secret: files, redact
//! logging: domain, net, redact
//! heartbeat: net, secret
//! schedule: clock, domain
//! view: domain, message
//! admin_api: clock, domain, net, secret, x509
//! store: domain, files, message, net, redact, secret
//! notify: domain, logging, message, net, secret, view
//! usecase: admin_api, build, clock, domain, message, notify, schedule, signing, store, view
//! http: build, clock, descriptors, domain, message, net, schedule, secret, signing, store, usecase, view
//! config: admin_api, clock, domain, files, heartbeat, http, logging, message, net, notify, redact, schedule, secret, store, usecase, x509
//! service: admin_api, clock, config, domain, heartbeat, http, logging, net, notify, schedule, secret, store, usecase
//! demo: clock
//! cli: build, clock, config, demo, descriptors, domain, logging, message, net, notify, redact, service, store, usecase, view
//! fuzz: admin_api, clock, config, domain, net, notify, x509
//! ```
//!
//! With PostgreSQL, several instances share the work: the scan lease decides which one scans an
//! organization, and the transaction that saves the scan checks the lease again.
//!
//! Guarantees:
//! - Alerts are stored before they are sent. `kill -9` at any moment loses nothing, and repeats at
//!   most the messages in flight, with the same ids.
//! - Retried: an API request up to `api.max_attempts`, and by the next scan; a delivery until it is
//!   accepted or `delivery.give_up_after` has passed; a scan that was not saved, after a minute.
//! - Reported: unreadable lists (log, `/readyz`, no heartbeat; `monitor.blind` after
//!   `monitoring.blind_after`); failing receivers (log, no heartbeat; `notifier.failing` through
//!   the others after an hour, or at once for a rejection); an unavailable database (log,
//!   `/readyz`, exit code, no heartbeat).
//! - Given up: a delivery that its receiver did not accept in time (the next scan raises its alerts
//!   again); deliveries to receivers that are no longer configured; records older than
//!   `state.history`.
//! - A failure in one organization or notifier does not stop the others.
//! - A scan sends nothing, and a delivery never calls the Admin API. A failed delivery is a result,
//!   not an error.
//! - An entry is missing only if a complete list does not contain it.
//! - `now` is an argument; only [`clock`] reads the clock.
//! - Logs, errors and `Debug` output contain no secrets.

pub mod admin_api;
pub mod build;
pub mod cli;
pub mod clock;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
mod descriptors;
pub mod domain;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod heartbeat;
pub mod http;
pub mod logging;
pub mod message;
pub mod net;
pub mod notify;
pub mod redact;
pub mod schedule;
pub mod secret;
pub mod service;
mod signing;
pub mod store;
pub mod usecase;
pub mod view;
mod x509;
