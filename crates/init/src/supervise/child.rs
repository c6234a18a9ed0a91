//! The agent's main process: where its program is, what it inherits, how it is started.
//!
//! Owns: program lookup, the output pipes, the out-of-memory preference, and the spawn itself; see `stage` for the rest.
//! Reads: `$PATH` and the environment, which the agent inherits unchanged.
//! Never: falls back to a shell, or leaves the agent a descriptor beyond 0, 1 and 2.
//!
//! The agent leads a session of its own, as the main process of a container without a helper does, so that what it
//! sends to its process group never reaches the helper.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use rustix::fs::{Access, OFlags, access, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};
use rustix::process::{Pid, Resource, WaitOptions, waitpid};

use super::stage;

/// `POSIX_SPAWN_SETSID` of glibc, for which `nix` has no name.
const SPAWN_SETSID: i32 = 0x80;
/// Out-of-memory score adjustment of the agent: the kernel picks it before the helper, whose end would cost the record.
const AGENT_OOM_SCORE: i32 = 500;
/// Bytes that each of the agent's pipes holds: enough to change less often between agent and helper, and as much as can be
/// lost of a stream if the helper is killed.
pub(super) const PIPE_SIZE: usize = 256 << 10;
/// Largest size that an agent may give a pipe, where the system does not say.
const USUAL_LARGEST_PIPE: u64 = 1 << 20;
/// Largest pipe that room is kept for, so that a host that allows huge ones does not lose its disk to reserves.
const LARGEST_PIPE_COVERED: u64 = 16 << 20;

/// Closes every descriptor above stderr that the engine or a shell left open.
///
/// To be called before anything else is opened: it would close that too, and its number would be given out again.
pub(super) fn close_inherited_descriptors() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<RawFd> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|&descriptor| descriptor > 2) {
        // One of them is the listing's own, closed already.
        let _closed = nix::unistd::close(descriptor);
    }
}

/// Makes the pipes of stdout and stderr; returns the helper's ends and the agent's.
///
/// They hold [`PIPE_SIZE`] where the system allows that. The helper's ends don't block: the agent can open its own pipe for reading and take bytes between poll and read.
pub(super) fn output_pipes() -> rustix::io::Result<([OwnedFd; 2], [OwnedFd; 2])> {
    let (out_reader, out_writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let (err_reader, err_writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let limit = pipe_limit();
    for reader in [&out_reader, &err_reader] {
        fcntl_setfl(reader, fcntl_getfl(reader)? | OFlags::NONBLOCK)?;
        if u64::try_from(PIPE_SIZE).is_ok_and(|size| size <= limit) {
            // A user has only so many pages for all pipes together; what a pipe has by default does as well.
            let _enlarged = fcntl_setpipe_size(reader, PIPE_SIZE);
        }
    }
    Ok(([out_reader, err_reader], [out_writer, err_writer]))
}

/// Returns the bytes that one of the agent's pipes may hold.
///
/// The agent may enlarge its pipes at any time, up to the system's limit; a process with `CAP_SYS_RESOURCE` beyond it.
pub(super) fn largest_pipe(pipe: &OwnedFd) -> u64 {
    let present = fcntl_getpipe_size(pipe).map_or(0, |size| u64::try_from(size).unwrap_or(0));
    pipe_limit().max(present).min(LARGEST_PIPE_COVERED)
}

/// Returns the bytes that a process without privileges may let a pipe hold.
fn pipe_limit() -> u64 {
    fs::read_to_string("/proc/sys/fs/pipe-max-size")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(USUAL_LARGEST_PIPE)
}

/// Our own out-of-memory preference, lent to the agent while it is spawned.
pub(super) struct OomPreference {
    file: Option<File>,
}

impl OomPreference {
    /// Opens the preference; a non-dumpable process could no longer.
    pub(super) fn open() -> Self {
        Self {
            file: OpenOptions::new()
                .read(true)
                .write(true)
                .open("/proc/self/oom_score_adj")
                .ok(),
        }
    }

    /// Runs `spawn` while this process has the agent's preference, which the child inherits.
    pub(super) fn apply_while<T>(self, spawn: impl FnOnce() -> T) -> T {
        let own = self.read();
        if let Some(own) = own {
            self.write(own.max(AGENT_OOM_SCORE));
        }
        let result = spawn();
        if let Some(own) = own {
            self.write(own);
        }
        result
    }

    fn read(&self) -> Option<i32> {
        let mut text = [0; 16];
        let length = self.file.as_ref()?.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..length])
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    fn write(&self, score: i32) {
        if let Some(mut file) = self.file.as_ref() {
            // Without it the kernel chooses by size, which still favours the helper.
            let _written = file.write_all(score.to_string().as_bytes());
        }
    }
}

/// A program that was found, and its arguments.
pub(super) struct Program {
    path: CString,
    argv: Vec<CString>,
}

impl Program {
    /// Finds the program as the engine would: a name with a slash as it is, any other in `$PATH`.
    pub(super) fn resolve(argv: &[OsString]) -> Result<Self, Errno> {
        let name = argv.first().ok_or(Errno::ENOENT)?;
        let path = if name.as_bytes().contains(&b'/') {
            PathBuf::from(name)
        } else {
            search(name, &std::env::var_os("PATH").unwrap_or_default())?
        };
        Ok(Self {
            path: c_string(path.into_os_string())?,
            argv: argv
                .iter()
                .cloned()
                .map(c_string)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Executes the program within the limits, with stdin and the agent's ends of the output pipes.
    ///
    /// Returns once the program was executed, or the reason why it could not be.
    pub(super) fn spawn(
        &self,
        limits: &[(Resource, u64)],
        stdin: &File,
        outputs: [OwnedFd; 2],
    ) -> Result<Pid, Unstarted> {
        let line = stage::command_line(limits, &self.path, &self.argv)?;
        let (failure, report) = pipe_with(PipeFlags::CLOEXEC).map_err(rustix_errno)?;
        let mut actions = PosixSpawnFileActions::init()?;
        actions.add_dup2(stdin.as_raw_fd(), 0)?;
        actions.add_dup2(report.as_raw_fd(), 1)?;
        actions.add_dup2(outputs[1].as_raw_fd(), 2)?;
        // Last, because any of the others may have this number.
        actions.add_dup2(outputs[0].as_raw_fd(), stage::AGENT_STDOUT)?;

        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
                | PosixSpawnFlags::from_bits_retain(SPAWN_SETSID),
        )?;
        attributes.set_sigdefault(&SigSet::all())?;
        attributes.set_sigmask(&SigSet::empty())?;

        let spawned = posix_spawn(
            stage::OWN_PROGRAM,
            &actions,
            &attributes,
            &line,
            &environment()?,
        );
        // Only the agent may hold these, or its streams would never end; and only the stage the report.
        drop((outputs, report));
        let child = spawned.map_err(|errno| match errno {
            // As any other program it would not have been executed either.
            Errno::E2BIG | Errno::EAGAIN | Errno::ENOMEM => Unstarted::Program(errno),
            _ => Unstarted::Stage(errno),
        })?;
        let child = Pid::from_raw(child.as_raw()).ok_or(Errno::ECHILD)?;
        match stage::failure(failure) {
            None => Ok(child),
            Some(errno) => {
                // It ends by itself.
                let _reaped = waitpid(Some(child), WaitOptions::empty());
                Err(errno.into())
            }
        }
    }
}

/// Why there is no agent.
pub(super) enum Unstarted {
    /// Its program cannot be executed.
    Program(Errno),
    /// Ours cannot, so that it was not tried.
    Stage(Errno),
}

impl From<Errno> for Unstarted {
    fn from(errno: Errno) -> Self {
        Self::Program(errno)
    }
}

/// Returns the environment that the agent inherits.
pub(super) fn environment() -> Result<Vec<CString>, Errno> {
    let variables = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        c_string(name)
    });
    variables.collect()
}

/// Looks for an executable regular file; one that is there but not executable is reported as such.
fn search(name: &OsStr, path: &OsStr) -> Result<PathBuf, Errno> {
    let mut error = Errno::ENOENT;
    if name.is_empty() || path.is_empty() {
        return Err(error);
    }
    for folder in std::env::split_paths(path) {
        let candidate = if folder.as_os_str().is_empty() {
            Path::new(".").join(name)
        } else {
            folder.join(name)
        };
        if !candidate.is_file() {
            continue;
        }
        if access(&candidate, Access::EXEC_OK).is_ok() {
            return Ok(candidate);
        }
        error = Errno::EACCES;
    }
    Err(error)
}

pub(super) fn c_string(text: impl Into<OsString>) -> Result<CString, Errno> {
    CString::new(text.into().into_vec()).map_err(|_| Errno::EINVAL)
}

fn rustix_errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}
