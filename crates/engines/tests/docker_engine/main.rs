//! The Docker engine against a real one: what only Docker has. What every engine does is in `contract`.
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
mod handover;
mod hardening;
mod lab;
mod lost_answers;
mod proxy;
mod refusals;
mod removal;
