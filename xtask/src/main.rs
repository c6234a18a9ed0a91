//! The project's tasks: `cargo xtask test`, `env`, `lint`, `chaos`, `fuzz` and `bench`.
//!
//! Owns: the command line of the tasks and their exit code.
//! Reads: the command line.
//! Never: ships; nothing in the product depends on it.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task runner talks to the terminal that it was started from"
)]

mod bench;
mod chaos;
mod engine;
mod fuzz;
mod helper;
mod images;
mod lint;
mod packages;
mod phases;
mod podman;
mod program;
mod sandboxes;
mod tally;
mod test;
mod workspace;

use std::process::ExitCode;

use crate::program::Failure;
use crate::workspace::Workspace;

const USAGE: &str = r#"usage: cargo xtask test [FILTER] [-- TEST OPTIONS]
           provisions the engine and the test images, then runs every test
       cargo xtask env
           provisions the same and prints the tests' environment: eval "$(cargo xtask env)"; cargo test -p CRATE
       cargo xtask lint
           format, clippy, docs, and cargo deny where it is installed
       cargo xtask chaos [--for 60m] [--seed N] [--jobs N]
           plays random schedules of faults on the real engine, ten minutes unless told otherwise; a soak after it
       cargo xtask fuzz [TARGET…] [--time 3m] [--keep]
           tries inputs on all that reads an agent's output, three minutes each target unless told otherwise
       cargo xtask bench [--only PART] [--rounds N] [--size MIB] [--binary PATH] [--seed-formatter PATH]
           compares dark-factory with the docker command line and the bare Engine API, in one run
"#;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let workspace = Workspace::find();
    let result = match arguments.split_first() {
        Some((task, rest)) if task == "test" => test::run(&workspace, rest),
        Some((task, [])) if task == "env" => test::print_environment(&workspace),
        Some((task, [])) if task == "lint" => lint::run(&workspace),
        Some((task, rest)) if task == "chaos" => {
            chaos::Options::parse(rest).and_then(|options| chaos::run(&workspace, &options))
        }
        Some((task, rest)) if task == "fuzz" => {
            fuzz::Options::parse(rest).and_then(|options| fuzz::run(&workspace, &options))
        }
        Some((task, rest)) if task == "bench" => bench::run(&workspace, rest),
        _ => Err(Failure::new(USAGE.trim_end())),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
