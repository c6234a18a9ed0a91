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
pub mod seed;
mod shell;
mod terminal;

use std::process::ExitCode;

use clap::Parser;
use dark_factory_executor::supervisor::FILES_OF_ORPHAN;
use rustix::process::{Resource, getrlimit, setrlimit};

pub use dark_factory_agents as agents;
pub use dark_factory_engines as engines;
pub use dark_factory_executor as executor;
pub use dark_factory_types as types;
pub use helper::HELPER;

/// The most blocking threads: one for each run that is supervised or watched, and some for the store. None is made
/// before it is needed.
const BLOCKING_THREADS: usize = 4096;

/// The most orphans that are gone on with at the same time, if the process may have that many files open; the other
/// threads are for what is only watched, and for the store.
const ORPHANS: usize = BLOCKING_THREADS / 2;

/// Open files that are kept for everything else.
const OTHER_FILES: usize = 256;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let code = run();
    terminal::settle();
    code
}

/// Lets this process have as many files open as it may, and returns how many orphans that is enough for.
///
/// Programs that are executed from here inherit it; those with a use for `select` would mind, and none of them has.
fn orphans() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays");
    }
    let files = getrlimit(Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    });
    (files.saturating_sub(OTHER_FILES) / FILES_OF_ORPHAN).min(ORPHANS)
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
