//! The agent's main process before it is the agent: the helper once more, which executes the agent in its own place.
//!
//! Owns: the limits of the agent and of all that it starts; what helper and stage say to each other.
//! Reads: its own limits: nobody gets more than they allow.
//! Never: runs beside anything of the agent's, or leaves it a descriptor or a signal's setting.
//!
//! No code of ours runs between a spawn and the execution of a program, and a limit that is set from outside comes too
//! late for the first instruction. An agent that starts a stage by itself gets less than it had.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::unistd::{close, execve};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::stdio::{dup2_stdout, stdout};

use super::child::{c_string, environment};

/// Hidden first argument with which the helper is a stage.
pub(crate) const STAGE_ARG: &str = "__stage";
/// Our own program, also where no path leads to it any more.
pub(super) const OWN_PROGRAM: &str = "/proc/self/exe";
/// The descriptor of the agent's stdout in a stage, whose own stdout is for its report.
pub(super) const AGENT_STDOUT: RawFd = 3;

/// What can be limited, as the command line calls it.
const LIMITS: [(&str, Resource); 2] = [
    ("--file-size", Resource::Fsize),
    ("--open-files", Resource::Nofile),
];

/// Returns the resource that an option limits.
pub(super) fn limited_by(option: &OsStr) -> Option<Resource> {
    let limit = LIMITS.iter().find(|(name, _)| option == OsStr::new(name));
    limit.map(|(_, resource)| *resource)
}

/// Returns the command line of a stage for a program at a path, with its own arguments behind it.
pub(super) fn command_line(
    limits: &[(Resource, u64)],
    path: &CString,
    argv: &[CString],
) -> Result<Vec<CString>, Errno> {
    let mut line = vec!["dark-factory-init".to_owned(), STAGE_ARG.to_owned()];
    for (name, resource) in LIMITS {
        for (_, limit) in limits.iter().filter(|(limited, _)| *limited == resource) {
            line.extend([name.to_owned(), limit.to_string()]);
        }
    }
    line.push("--".to_owned());
    let line: Result<Vec<CString>, Errno> = line.into_iter().map(c_string).collect();
    Ok([line?, vec![path.clone()], argv.to_vec()].concat())
}

/// Returns why a stage could not execute its program; `None` if it did, or was killed before it could.
pub(super) fn failure(report: OwnedFd) -> Option<Errno> {
    let mut errno = [0; 4];
    File::from(report).read_exact(&mut errno).ok()?;
    Some(Errno::from_raw(i32::from_ne_bytes(errno)))
}

/// Is a stage, called with the arguments after [`STAGE_ARG`]; returns only if the program cannot be executed.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    if let Ok(report) = fcntl_dupfd_cloexec(stdout(), AGENT_STDOUT + 1) {
        let errno = match execute(args) {
            Ok(never) => match never {},
            Err(errno) => errno,
        };
        // Where the helper is gone, so is everything else.
        let _told = File::from(report).write_all(&(errno as i32).to_ne_bytes());
    }
    ExitCode::FAILURE
}

fn execute(args: &[OsString]) -> Result<Infallible, Errno> {
    take_stdout().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    let mut args = args.iter();
    let mut limits = Vec::new();
    while let Some(option) = args.next().filter(|option| *option != OsStr::new("--")) {
        let limit = args.next().and_then(|limit| limit.to_str()?.parse().ok());
        limits.push((limited_by(option), limit));
    }
    let path = c_string(args.next().ok_or(Errno::EINVAL)?.clone())?;
    let argv: Result<Vec<CString>, Errno> = args.cloned().map(c_string).collect();
    let (argv, environment) = (argv?, environment()?);
    for (resource, limit) in limits {
        restrict(resource.ok_or(Errno::EINVAL)?, limit.ok_or(Errno::EINVAL)?)?;
    }
    reset_signals();
    execve(&path, &argv, &environment)
}

/// Makes the agent's stdout our own; opened once more, because a bare number is nobody's to use.
fn take_stdout() -> io::Result<()> {
    let opened = OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/{AGENT_STDOUT}"))?;
    dup2_stdout(&opened)?;
    Ok(close(AGENT_STDOUT)?)
}

fn restrict(resource: Resource, limit: u64) -> Result<(), Errno> {
    let own = getrlimit(resource).maximum;
    let most = Some(own.map_or(limit, |own| own.min(limit)));
    let kept = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(resource, kept).map_err(|error| Errno::from_raw(error.raw_os_error()))
}

/// Undoes what Rust's runtime does to signals when a program begins.
///
/// The standard library does so before each execution, and only there; that of a program without a name leads back here.
/// It is not the one that executes the agent: it has a shell run what is no program.
fn reset_signals() {
    let _there_is_none = Command::new("").exec();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_called_as_the_helpers_own_option() {
        let program = c_string("/bin/x").unwrap();

        let limits = [(Resource::Nofile, 300), (Resource::Fsize, 5)];
        let line = command_line(&limits, &program, &[c_string("x").unwrap()]).unwrap();

        let line: Vec<&str> = line.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(
            line[1..],
            [
                "__stage",
                "--file-size",
                "5",
                "--open-files",
                "300",
                "--",
                "/bin/x",
                "x"
            ]
        );
    }
}
