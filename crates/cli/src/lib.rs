//! dark-factory runs agent prompt files unattended inside containers.
//!
//! This crate is the command line and, for programs that embed dark-factory, the one facade: every name that
//! the documentation mentions is re-exported here.
//!
//! Owns: the terminal, the environment, the process's exit.
//! Reads: the command line.
//! Never: has logic that a library user would need.

mod args;
mod commands;
mod context;
mod detach;
mod error;
mod flags;
mod helper;
mod interrupt;
mod journal;
mod logging;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

pub use dark_factory_agents as agents;
pub use dark_factory_engines as engines;
pub use dark_factory_executor as executor;
pub use dark_factory_types as types;
pub use helper::HELPER;

/// The names of the Go seed's package `executor`, each with what it is here; `docs/seed.md` says what differs.
pub mod seed {
    pub use dark_factory_agents::{Formatter, check_claude_auth, parse_completion_report};
    pub use dark_factory_engines::docker::launch::{
        ContainerLaunchOpts, LaunchArgs, build_docker_run_args, create_body, insert_prompt_mount,
    };
    pub use dark_factory_engines::docker::seed::{
        DockerContainerChecker, DockerContainerCounter, DockerContainerStopper, DockerExecutor,
    };
    pub use dark_factory_executor::clock::Clock;
    pub use dark_factory_executor::containers::{
        ContainerChecker, ContainerCounter, ContainerStopper,
    };
    pub use dark_factory_executor::execute::Executor;
    pub use dark_factory_executor::settings::ExtraMount;
}

/// The most blocking threads: one for each run that is supervised or watched, and some for the store. None is made
/// before it is needed.
const BLOCKING_THREADS: usize = 4096;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let code = run();
    terminal::settle();
    code
}

fn run() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // clap's own codes: 0 for help and version, 2 for bad usage, which is ours too.
            let code = u8::try_from(error.exit_code()).unwrap_or(types::exit_code::USAGE);
            if error.print().is_err() {
                return ExitCode::from(types::exit_code::INTERNAL);
            }
            return ExitCode::from(code);
        }
    };
    logging::start(args.log());
    #[cfg(feature = "failpoints")]
    let _points = dark_factory_executor::failpoint::set_up();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            error::CommandError::internal("start the runtime", error).print();
            return ExitCode::from(types::exit_code::INTERNAL);
        }
    };
    let code = runtime
        .block_on(commands::dispatch(args))
        .unwrap_or_else(|error| {
            error.print();
            error.code()
        });
    // A blocking read of a terminal or pipe must not keep the process alive.
    runtime.shutdown_background();
    ExitCode::from(code)
}
