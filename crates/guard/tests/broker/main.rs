//! The broker on a real socket, with a scripted provider behind it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation is a failed test"
)]

mod budget;
mod crowd;
mod lab;
mod oauth;
mod pass;
mod usage;
