//! The host's git, for what the command line itself asks of it.
//!
//! Owns: the environment that it is started with.
//! Reads: nothing.
//! Never: takes a repository from the environment.

use std::process::{Command, Stdio};

/// Returns git, which asks nobody and reads nothing from standard input.
pub(crate) fn command() -> Command {
    let mut command = Command::new("git");
    // Set where we are run by a git hook; they would name another repository.
    for name in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_COMMON_DIR",
    ] {
        command.env_remove(name);
    }
    command.env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null());
    command
}
