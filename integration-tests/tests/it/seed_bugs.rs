//! The seed's bugs that could be ours too, each by its number, on the real binary and engine.
//!
//! Owns: one test for each bug that applies to a run of a prompt file; `docs/reliability.md` says why others do not.
//! Reads: what a user can read.
//! Never: knows how a bug is avoided.

mod apart;
mod ends;
mod survival;

use crate::scene::docker;

fn is_running(container: &str) -> bool {
    docker(&["inspect", "--format", "{{.State.Running}}", container]) == "true\n"
}
