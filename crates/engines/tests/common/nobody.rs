//! The tests of a program once more, as an ordinary user.

use std::process::Command;

use rustix::process::getuid;

/// Somebody who owns nothing.
const NOBODY: &str = "65534";

/// Runs this test program with these arguments as an ordinary user, where root runs it; every test of it has to pass.
pub(crate) fn passes_for_nobody(arguments: &[&str]) {
    if !getuid().is_root() {
        // It is what is being found out.
        return;
    }
    let output = Command::new("setpriv")
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .arg(std::env::current_exe().unwrap())
        .args(arguments)
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
