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

use std::process::Command;

use rustix::process::getuid;

/// Somebody who owns nothing.
const NOBODY: &str = "65534";

#[test]
fn everything_holds_for_an_ordinary_user_too() {
    if !getuid().is_root() {
        // It is what is being found out.
        return;
    }
    let output = Command::new("setpriv")
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .arg(std::env::current_exe().unwrap())
        .args(["--test-threads", "2"])
        .current_dir("/")
        .output()
        .unwrap();

    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
