//! The Docker engine against a real one: every method of the contract, and what goes wrong.
//!
//! Needs a Docker engine at its default socket, the `docker` command, and `DARK_FACTORY_TEST_HELPER`, the static helper
//! (`cargo xtask test` provides all three). Every container carries an owner label of its test, and goes with it.

#![cfg(feature = "docker")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod attach;
mod causes;
mod clocks;
mod hardening;
mod lab;
mod lifecycle;
mod lost_answers;
mod pausing;
mod proxy;
mod refusals;
mod removal;
