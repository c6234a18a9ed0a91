//! What the agent is given before its first instruction, and that nothing of the helper's own stays with it.
//!
//! Owns: a helper without the right to change what others may have, and one without `/proc`.
//! Reads: what the kernel says of the agent.
//! Never: waits: whatever is not there at once is not there.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};

use dark_factory_spool::EXIT_HELPER_FAILED;

use crate::supervisor::{HELPER, Launch, script, shell};

const LIMITED: [&str; 4] = ["--file-size", "1048576", "--open-files", "300"];
const NOBODY: u32 = 65_534;

/// Returns the soft and the hard limits of file size and open files, out of `/proc/PID/limits`.
fn limits(said: &str) -> [Vec<&str>; 2] {
    ["Max file size", "Max open files"].map(|name| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.expect(said).split_whitespace().take(2).collect()
    })
}

/// Returns whether this user may do what a test needs, with a word on stderr where not.
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        let _said = writeln!(io::stderr(), "not run: this needs root");
    }
    is_root
}

#[test]
fn the_limits_of_an_agent_are_hard_when_it_begins() {
    let launch = Launch::with_options(&LIMITED, &script("read /proc/self/limits"));

    let recorded = launch.run();

    let hard = [vec!["1048576", "1048576"], vec!["300", "300"]];
    assert_eq!(limits(&recorded.text()), hard);
}

#[test]
fn limits_are_not_set_from_outside_where_the_agent_may_be_another_user() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let agent = home.path().join("agent");
    fs::copy(HELPER, &agent).unwrap();
    chown(&agent, Some(NOBODY), None).unwrap();
    fs::set_permissions(&agent, Permissions::from_mode(0o4755)).unwrap();
    let argv = [
        agent.into_os_string(),
        "-e".into(),
        "id; read /proc/self/limits".into(),
    ];

    let recorded = Launch::with_options(&LIMITED, &argv)
        // Without it, one user's process may not change the limits of another's.
        .started_by(&["setpriv", "--bounding-set=-sys_resource"])
        .run();

    assert_eq!(recorded.code, Some(0), "{}", recorded.message);
    let hard = [vec!["1048576", "1048576"], vec!["300", "300"]];
    assert_eq!(limits(&recorded.text()), hard);
}

#[test]
fn nobody_gets_more_than_the_helper_itself_may_have() {
    let launch = Launch::with_options(&LIMITED, &script("read /proc/self/limits"));

    let recorded = launch
        .started_by(&["sh", "-c", "ulimit -n 200 && exec \"$@\"", "sh"])
        .run();

    assert_eq!(limits(&recorded.text())[1], ["200", "200"]);
}

#[test]
fn what_our_own_program_does_to_signals_is_undone() {
    let recorded = Launch::new(&shell("exec grep Sig.*: /proc/self/status")).run();

    let said = recorded.text();
    assert!(said.contains("SigBlk:\t0000000000000000\n"), "{said}");
    // These two are of any child of glibc's posix_spawn.
    assert!(said.contains("SigIgn:\t0000000180000000\n"), "{said}");
}

#[test]
fn a_helper_that_cannot_execute_itself_says_that_and_blames_no_program() {
    if !is_root() {
        return;
    }
    let launch = Launch::new(&script("print no"));

    let recorded = launch
        .in_mounts_of_its_own("mount -t tmpfs none /proc")
        .start()
        .finish();

    assert_eq!(recorded.code, Some(EXIT_HELPER_FAILED));
    assert!(recorded.recording.exec_failed.is_none());
    assert!(
        recorded.message.contains("its own program"),
        "{}",
        recorded.message
    );
}
