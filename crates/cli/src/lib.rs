//! dark-factory runs agent prompt files unattended inside containers.
//!
//! This crate is the command line and, for programs that embed dark-factory, the one facade: every name that
//! the documentation mentions is re-exported here.
//!
//! Owns: the terminal, the environment, the process's exit.
//! Reads: the command line.
//! Never: has logic that a library user would need.
//!
//! # How to read this
//!
//! A prompt file goes in; a byte-exact log and one outcome with its cause come out. The crates, in the order in which a
//! prompt meets them:
//!
//! 1. [`types`]: the words: [`RunId`](types::RunId), [`Event`](types::Event), [`Exit`](types::Exit),
//!    [`Verdict`](types::Verdict), [`Outcome`](types::Outcome), [`Report`](types::Report).
//! 2. [`executor`]: the path: [`Prompt`](executor::prompt::Prompt) → [`resolve`](executor::resolve::resolve) →
//!    [`LaunchSpec`](executor::spec::LaunchSpec) → [`Supervisor`](executor::supervisor::Supervisor) → report. It holds
//!    the contract that an [`Engine`](executor::engine::Engine) keeps.
//! 3. [`engines`]: [`DockerEngine`](engines::docker::DockerEngine), which keeps it.
//! 4. [`agents`]: what an agent is started with, what its stream means, how people see it.
//! 5. [`egress`]: the guard of a run's way out, [`GuardProcess`](egress::GuardProcess): without one nothing is started
//!    under the default network. A program of its own begins its `main` with [`guard_main`](egress::guard_main).
//! 6. [`seed`]: the names of the Go seed, for programs that came from there, each with an example.
//!
//! [`HELPER`] is the static program that every container runs as its first process. `examples/embed.rs` runs a prompt
//! file from a program of its own; this is its middle:
//!
//! ```no_run
//! # async fn example(
//! #     supervisor: dark_factory::executor::supervisor::Supervisor,
//! #     host: dark_factory::executor::host::HostView,
//! #     state_dir: std::path::PathBuf,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use dark_factory::executor::attempt::Control;
//! use dark_factory::executor::prompt::Prompt;
//! use dark_factory::executor::resolve::{ResolveContext, resolve};
//! use dark_factory::executor::settings::Settings;
//!
//! let prompt = Prompt::parse("fix.md", b"---\nimage: claude:1\n---\nFix the tests.\n")?;
//! let resolved = resolve(&prompt, &Settings::default(), &host, &ResolveContext::new(state_dir))?;
//! let submitted = supervisor.submit(&resolved).await?;
//! let report = supervisor.run(submitted, Vec::new(), &Control::new("me"), &|_| {}).await?;
//! println!("{}: {}", report.outcome, report.cause);
//! # Ok(())
//! # }
//! ```

mod args;
mod commands;
mod config;
mod context;
mod detach;
mod error;
mod flags;
mod git;
mod guard;
mod helper;
mod interrupt;
mod journal;
mod live;
mod logging;
mod raw_terminal;
pub mod seed;
mod shell;
mod tell;
mod terminal;

use std::process::ExitCode;

use clap::Parser;
use dark_factory_executor::supervisor::FILES_OF_ORPHAN;
use rustix::process::{Resource, getrlimit, setrlimit};

use commands::Format;

pub use dark_factory_agents as agents;
pub use dark_factory_egress as egress;
pub use dark_factory_engines as engines;
pub use dark_factory_executor as executor;
pub use dark_factory_factory as factory;
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
    #[cfg(target_os = "linux")]
    if let Some(code) = shim() {
        return code;
    }
    let code = run();
    live::settle();
    terminal::settle();
    code
}

/// Is the shim of a sandbox, if this process was started as one: nothing else may have happened in it before.
#[cfg(target_os = "linux")]
fn shim() -> Option<ExitCode> {
    use engines::sandbox::{config::SHIM_ARG, shim_main};

    let mut args = std::env::args_os().skip(1);
    (args.next()? == SHIM_ARG).then(|| shim_main(args))
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

/// Says what is wrong with the command line, or prints the help that it asks for; returns the exit code.
fn refuse(error: &clap::Error) -> u8 {
    // clap's own codes: 0 for help and version, 2 for bad usage, which is ours too.
    let code = u8::try_from(error.exit_code()).unwrap_or(types::exit_code::USAGE);
    let words = std::env::args_os().take_while(|word| word != "--");
    let words: Vec<_> = words.collect();
    let is_json = words
        .iter()
        .any(|word| word == "--json" || word == "--format=json")
        || words
            .windows(2)
            .any(|pair| pair[0] == "--format" && pair[1] == "json");
    if code == types::exit_code::USAGE && is_json {
        tell::to(Format::Json);
        error::CommandError::of_usage(error).print();
        return code;
    }
    if code == types::exit_code::USAGE {
        terminal::eprint(&tell::brief(&error.render().ansi().to_string()));
        return code;
    }
    match error.print() {
        Ok(()) => code,
        Err(_) => types::exit_code::INTERNAL,
    }
}

fn run() -> ExitCode {
    if let Some(code) = commands::answer_shell() {
        return ExitCode::from(code);
    }
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return ExitCode::from(refuse(&error)),
    };
    terminal::color(args.global.color);
    let reader = args.reader();
    let args = match args.settled() {
        Ok(args) => args,
        Err(error) => {
            tell::to(reader);
            error.print();
            return ExitCode::from(error.code());
        }
    };
    tell::to(args.reader());
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
