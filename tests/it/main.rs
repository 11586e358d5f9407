//! The tests that cross a socket, a file or the real binary.

// A test that unwraps says where it broke; clippy's leave for tests ends at helpers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod answers;
mod api;
mod architecture;
mod attacks;
mod blind;
mod browser;
mod cli;
mod config;
mod crash;
mod credentials;
mod daemon;
mod demo;
mod deploy;
mod failing;
mod faults_api;
mod faults_delivery;
mod faults_state;
mod growth;
mod hygiene;
mod instances;
mod inventories;
mod keys;
mod lifecycle;
mod lifetime;
mod messages;
mod notifiers;
mod outlook;
mod postgres;
mod protocol;
mod punctual;
mod scan;
mod services;
mod sharing;
mod silences;
mod smtp;
mod soak;
mod stderr;
mod store;
mod support;
mod terminal;
mod transfer;
mod window;
mod year;
