//! The process that a sandbox lives and dies with.
//!
//! Owns: the three things that our program is when it is called with [`SHIM_ARG`](super::config::SHIM_ARG): the shim
//! itself ([`keeper`]), the first process of a sandbox until it is the helper ([`stage`]), and the way into a running
//! sandbox ([`exec`]).
//! Reads: its arguments, the sandbox's folder.
//! Never: has a second thread: namespaces and parent-death signals are of threads.

mod cgroups;
mod confine;
mod error;
mod etc;
mod exec;
mod host_root;
mod keeper;
mod landlock;
mod loopback;
mod mountinfo;
mod mounts;
mod namespaces;
mod process;
mod root;
mod seccomp;
mod stage;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::config::{EXEC_ARG, EXIT_NOT_EXECUTED};
use error::ShimError;
use namespaces::Privilege;

/// Between [`SHIM_ARG`](super::config::SHIM_ARG) and the folder: is the sandbox's first process.
const STAGE_ARG: &str = "stage";
/// The same for a program that is executed in a running sandbox, once ours is a copy that nobody can write to.
const SEALED_EXEC_ARG: &str = "sealed-exec";

/// Exit code: something of the shim itself did not work.
const FAILED: u8 = 1;
/// Exit code: the arguments make no sense.
const USAGE: u8 = 2;

/// Is what the arguments after [`SHIM_ARG`](super::config::SHIM_ARG) say, until it has ended.
///
/// To be called first thing in `main`, while the process has one thread. With a folder alone it is the shim of the
/// sandbox in it, and returns once that has ended, or at once if there is or was another; what follows
/// [`EXEC_ARG`] is described there.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap_or("")).collect();
    let code = match words.as_slice() {
        [_] => told(keeper::keep(Path::new(&args[0]))).map_or(FAILED, |()| 0),
        [STAGE_ARG, privilege, _] => match Privilege::parse(privilege) {
            Some(privilege) => stage::run(Path::new(&args[2]), privilege),
            None => USAGE,
        },
        [EXEC_ARG, _, request] => {
            told(exec::seal(&args[1], request)).map_or(EXIT_NOT_EXECUTED, |never| match never {})
        }
        [SEALED_EXEC_ARG, _, request] => {
            told(exec::run(Path::new(&args[1]), request)).unwrap_or(EXIT_NOT_EXECUTED)
        }
        _ => USAGE,
    };
    ExitCode::from(code)
}

/// Returns whether the sandboxes of this process can have any user, and not its own alone.
pub(super) fn has_other_users() -> bool {
    Privilege::own() == Privilege::Root
}

/// Returns whether the kernel has the wall that older ones lack.
pub(super) fn has_landlock() -> bool {
    landlock::is_there()
}

/// Says an error to whoever reads stderr.
fn told<T>(result: Result<T, ShimError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            // Nobody is left to be told that stderr cannot be written to.
            let _told = writeln!(io::stderr(), "sandbox: {}", error.said());
            None
        }
    }
}
