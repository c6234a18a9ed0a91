//! The seed's API against a real engine: its executor, its views on containers, and images made here.
//!
//! Needs what the tests of `docker_engine` need, and shares their lab. Every container's name begins with one of its
//! test, and goes with it.

#![cfg(feature = "docker")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod containers;
mod execute;
mod guard;
mod images;
#[expect(
    dead_code,
    reason = "the lab of the engine's own tests, of which only some is needed here"
)]
#[path = "../docker_engine/lab.rs"]
mod lab;
mod reattach;
mod rig;
