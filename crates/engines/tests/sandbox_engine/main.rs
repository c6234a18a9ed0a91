//! The sandbox engine on the real kernel, as whoever runs the tests; and, where that is root, as an ordinary user too.

#![cfg(all(feature = "sandbox", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "tests"
)]

mod ending;
mod executing;
mod finding;
mod images;
mod inside;
mod lab;
mod lifecycle;
#[path = "../common/nobody.rs"]
mod nobody;

#[test]
fn everything_holds_for_an_ordinary_user_too() {
    nobody::passes_for_nobody(&[]);
}
