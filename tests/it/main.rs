//! The tests that cross a socket, a file or the real binary.

mod architecture;
mod cli;
mod config;
mod crash;
mod demo;
mod lifetime;
mod notifiers;
mod scan;
mod store;
mod support;
