//! The contract that every engine keeps, against the real engines: one list of behaviours, one file for each engine.
//!
//! `suite.rs` has the list; an engine's file says how it is met (its `Lab`) and makes a test of each behaviour:
//! `docker::stop_before_start`. A new engine is a new file here, and a row in `docs/engines.md`.
//!
//! `cargo xtask test` provides what the tests need; `cargo xtask env` prints it.

#![cfg(feature = "docker")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

#[macro_use]
mod suite;

mod beside;
mod declared;
mod exits;
mod images;
mod lab;
mod launch;
#[path = "../common/launch.rs"]
mod launched;
mod limits;
mod mounts;
#[cfg(all(feature = "sandbox", target_os = "linux"))]
#[path = "../common/nobody.rs"]
mod nobody;
mod output;
mod owning;
mod pausing;
mod recovery;
mod site;
mod socket;
#[path = "../common/spool.rs"]
mod spool;
mod stopping;

mod docker;
mod podman;
#[cfg(all(feature = "sandbox", target_os = "linux"))]
mod sandbox;
