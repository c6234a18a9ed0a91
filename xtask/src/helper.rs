//! The static helper that containers run, built once for all that need it.
//!
//! Owns: its build in `target/helper`, and the variable that names the result.
//! Reads: the compiler's host.
//! Never: embeds it; the build script of `crates/cli` takes it from `DARK_FACTORY_INIT`.

use std::path::PathBuf;
use std::process::Command;

use crate::program::{self, Failure};
use crate::workspace::Workspace;

/// Tells the build script of `crates/cli` that a helper is built already, and where.
pub(crate) const VARIABLE: &str = "DARK_FACTORY_INIT";

/// Builds the helper and returns its path.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf, Failure> {
    let compiler = program::read(Command::new("rustc").arg("-vV"))?;
    let host = compiler
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .ok_or_else(|| Failure::new("rustc -vV names no host"))?;
    let target_dir = workspace.target().join("helper");
    let mut build = workspace.cargo();
    build
        .args([
            "build",
            "--package",
            "dark-factory-init",
            "--profile",
            "helper",
        ])
        .args(["--target", host])
        .arg("--target-dir")
        .arg(&target_dir)
        // Static, whatever the flags of the build around this one are.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env_remove("RUSTFLAGS");
    program::run(&mut build)?;
    Ok(target_dir.join(host).join("helper/dark-factory-init"))
}
