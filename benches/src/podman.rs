//! From the start of a client to the end of an agent that prints a line, on Podman, beside Podman's own command line.
//!
//! Owns: the command that is compared.
//! Reads: where `cargo xtask bench` has its Podman, and the command's options for the same storage.
//! Never: counts CPU: what the command does by itself, the service does for us.

use std::env;
use std::process::Command;

use dark_factory::executor::spec::Profile;
use dark_factory::types::NetworkMode;

use crate::Result;
use crate::launch::{compare, run_arguments};
use crate::rig::Rig;

const ENDPOINT: &str = "DARK_FACTORY_TEST_PODMAN";
const OPTIONS: &str = "DARK_FACTORY_BENCH_PODMAN";
const SCRIPT: &str = "print x";
/// What Podman does not take of a file system in memory.
const UNKNOWN: [&str; 3] = ["uid=", "gid=", "nr_inodes="];

pub(crate) fn bench(rig: &Rig, rounds: usize) -> Result<()> {
    let (Ok(endpoint), Ok(options)) = (env::var(ENDPOINT), env::var(OPTIONS)) else {
        println!("\nPodman is not measured: `cargo xtask bench` has none here");
        return Ok(());
    };
    let options: Vec<String> = serde_json::from_str(&options)?;
    let flags = ["--engine", "podman", "--host", &endpoint];
    compare(
        "launch on Podman without network, to podman run of the same",
        rounds,
        &["to removed ms", "first byte ms"],
        ("dark-factory run", &|_| {
            Ok(rig.run(&["prompt.md"], &flags, NetworkMode::None, SCRIPT))
        }),
        ("podman run", &|round| podman_run(rig, &options, round)),
    )
}

/// The podman command line for the container that ours makes.
fn podman_run(rig: &Rig, options: &[String], round: usize) -> Result<Command> {
    let arguments = run_arguments(rig, NetworkMode::None, Profile::Hardened, round)?;
    let mut podman = Command::new("podman");
    podman.args(options);
    let mut before = String::new();
    for argument in arguments {
        match before.as_str() {
            "--tmpfs" => podman.arg(known(&argument)),
            _ => podman.arg(&argument),
        };
        before = argument;
    }
    Ok(podman)
}

/// Returns the options of a file system in memory without those that Podman refuses.
fn known(options: &str) -> String {
    let is_known = |option: &&str| !UNKNOWN.iter().any(|unknown| option.starts_with(unknown));
    let known: Vec<&str> = options.split(',').filter(is_known).collect();
    known.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_podman_does_not_take_is_left_out() {
        assert_eq!(
            known("/home:rw,exec,size=8,nr_inodes=2,uid=1,gid=2,mode=700"),
            "/home:rw,exec,size=8,mode=700"
        );
    }
}
