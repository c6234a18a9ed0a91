//! Format, lints, docs, dependencies.
//!
//! Owns: the order of the checks; all are run, also after a failure.
//! Reads: nothing.
//! Never: changes a file.

use std::process::{Command, ExitCode};

use crate::helper;
use crate::program::{self, Failure};
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode, Failure> {
    let helper = helper::build(workspace)?;
    let cargo = |arguments: &str| {
        let mut command = workspace.cargo();
        command
            .args(arguments.split(' '))
            .env(helper::VARIABLE, &helper);
        command
    };
    let mut checks = vec![
        ("format", cargo("fmt --all --check")),
        (
            "clippy",
            cargo("clippy --workspace --all-targets --all-features -- -D warnings"),
        ),
        ("docs", cargo("doc --workspace --no-deps --all-features")),
    ];
    checks[2].1.env("RUSTDOCFLAGS", "-D warnings");
    if program::succeeds(Command::new("cargo-deny").arg("--version")) {
        checks.push((
            "dependencies",
            cargo("deny --all-features check --hide-inclusion-graph bans licenses sources"),
        ));
    } else {
        println!(
            "cargo-deny is not installed: dependencies are not checked (cargo install cargo-deny --locked)"
        );
    }

    let mut failed = Vec::new();
    for (name, mut check) in checks {
        println!("== {name}");
        if let Err(failure) = program::run(&mut check) {
            eprintln!("{failure}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        println!("all checks passed");
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::new(format!("failed: {}", failed.join(", "))))
    }
}
