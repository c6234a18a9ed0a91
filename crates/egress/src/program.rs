//! The guard's own process.
//!
//! Owns: how a program becomes it.
//! Reads: the state folder.
//! Never: has a terminal, or is a part of the process group of whoever started it.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dark_factory_executor::clock::{Clock as _, SystemClock};
use dark_factory_guard::{Served, Service, SystemResolver, Upstreams};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Hidden first argument with which a program becomes the guard of the state folder that follows.
pub const GUARD_ARG: &str = "__guard";

/// How long a guard stays without work: the next run need not start one then.
const PATIENCE: Duration = Duration::from_secs(10);

/// The program that is started as the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardProgram {
    /// The `dark-factory` command, at this path.
    DarkFactory(PathBuf),
    /// A program whose `main` begins with [`guard_main`], at this path.
    Embedding(PathBuf),
}

impl GuardProgram {
    /// Returns the program that this process executes; its `main` begins with [`guard_main`].
    pub fn this() -> Self {
        // Also if its file was replaced meanwhile.
        Self::Embedding("/proc/self/exe".into())
    }

    /// Returns the command that is the guard of a state folder.
    pub(crate) fn command(&self, state_dir: &Path) -> Command {
        match self {
            Self::DarkFactory(path) => {
                let mut command = Command::new(path);
                command.arg("--state-dir").arg(state_dir).arg("guard");
                command
            }
            Self::Embedding(path) => {
                let mut command = Command::new(path);
                command.arg(GUARD_ARG).arg(state_dir);
                command
            }
        }
    }
}

/// Is the guard, if this process was started as one; `None` if it was not.
///
/// To be called first thing in `main`, with the arguments behind the program's name: no runtime and no thread may be
/// there yet. What goes wrong is a line on stderr, which is `guard.log` in the state folder; so are warnings, should
/// somebody who was there before write `tracing`'s to it.
pub fn guard_main(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter();
    if args.next()? != GUARD_ARG {
        return None;
    }
    let served = match args.next() {
        Some(state_dir) => run(PathBuf::from(state_dir)),
        None => Err(io::Error::other("no state folder was named")),
    };
    Some(match served {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told that stderr cannot be written to.
            let _told = writeln!(io::stderr(), "guard: {error}");
            ExitCode::FAILURE
        }
    })
}

fn run(state_dir: PathBuf) -> io::Result<Served> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(state_dir))
}

/// Is the guard of a state folder, until there is nothing to guard or the process gets SIGTERM.
///
/// For a program with a command of its own for it; others call [`guard_main`]. The process leaves its session.
///
/// # Errors
///
/// If the process is the leader of its group, as that of a shell's command is, or the lock or the socket cannot be had.
pub async fn serve(state_dir: PathBuf) -> io::Result<Served> {
    // It has no terminal, and a signal to who started it is not one to the guard.
    rustix::process::setsid()?;
    let mut terminated = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let service = Service {
        state_dir,
        resolver: Arc::new(SystemResolver),
        now: || SystemClock.now(),
        patience: PATIENCE,
        upstreams: Upstreams::default(),
    };
    let mut serving = std::pin::pin!(service.serve(stop.clone()));
    loop {
        tokio::select! {
            served = &mut serving => return served.map_err(io::Error::other),
            _ = terminated.recv() => stop.cancel(),
        }
    }
}
