//! A program that is executed in a running sandbox.
//!
//! Owns: the way in, and the program's exit code.
//! Reads: the sandbox's configuration and record.
//! Never: lets what runs in the sandbox reach this process or its program: the process is not visible there, and the
//! program is a copy in memory that nobody can write to.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use dark_factory_executor::clock::{Clock as _, SystemClock};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_dumpable;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::fexecve;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{Pid, PidfdFlags, ioctl_tiocsctty, pidfd_open, setsid};
use rustix::stdio::stdin;
use rustix::termios::isatty;

use super::super::config::{
    EXIT_NOT_EXECUTED, ExecRequest, Network, SHIM_ARG, SHIM_FILE, SandboxConfig, ShimRecord,
};
use super::confine::confine;
use super::error::{Doing as _, ShimError};
use super::namespaces::Privilege;
use super::{SEALED_EXEC_ARG, cgroups, keeper, process};

/// Exit code: there is no such program in the sandbox.
const EXIT_NO_PROGRAM: u8 = 127;

/// Signals that a terminal sends to its foreground: the program's to handle, not ours.
const OF_TERMINAL: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
];

/// Becomes a copy of our own program that cannot be written to, and goes on with [`run`].
///
/// In the sandbox a program can be a link to the process that executes it. Executed from its file, ours would be
/// reachable that way, and the sandbox's user may be the one who may write to it.
pub(super) fn seal(folder: &OsStr, request: &str) -> Result<Infallible, ShimError> {
    let doing = || "copy the own program".to_owned();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = match memfd_create("dark-factory", flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 don't know the flag, and need none.
        Err(rustix::io::Errno::INVAL) => memfd_create("dark-factory", flags),
        made => made,
    };
    let mut copy = File::from(copy.doing(doing)?);
    let mut own = File::open(keeper::OWN_PROGRAM).doing(doing)?;
    io::copy(&mut own, &mut copy).doing(doing)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&copy, seals).doing(doing)?;
    let args = [
        "dark-factory".as_ref(),
        SHIM_ARG.as_ref(),
        SEALED_EXEC_ARG.as_ref(),
        folder,
        request.as_ref(),
    ];
    let args: Result<Vec<CString>, _> = args
        .into_iter()
        .map(|arg: &OsStr| CString::new(arg.as_bytes()))
        .collect();
    let none: [CString; 0] = [];
    fexecve(&copy, &args.doing(doing)?, &none).doing(|| "execute the own program".to_owned())
}

/// Executes a program in the sandbox; returns its exit code.
pub(super) fn run(folder: &Path, request: &str) -> Result<u8, ShimError> {
    process::close_inherited_descriptors();
    let request: ExecRequest =
        serde_json::from_str(request).doing(|| "read what is to be executed".to_owned())?;
    let (program, args) = request
        .argv
        .split_first()
        .ok_or_else(|| ShimError::new("execute a program", "none is named"))?;
    let config = keeper::read_config(folder)?;
    leave_session()?;
    // From here on nobody but root can look into this process.
    set_dumpable(false).doing(|| "hide from the sandbox".to_owned())?;
    enter(folder, &config)?;

    let spawned = Command::new(program)
        .args(args)
        .env_clear()
        .envs(&config.env)
        .envs(&request.env)
        .current_dir(&config.workdir)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let code = match error.kind() {
                io::ErrorKind::NotFound => EXIT_NO_PROGRAM,
                _ => EXIT_NOT_EXECUTED,
            };
            super::told::<()>(Err(error).doing(|| format!("execute {program}")));
            return Ok(code);
        }
    };
    let status = child
        .wait()
        .doing(|| format!("wait for the end of {program}"))?;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX))
}

/// Leaves the caller's session, whose processes a program could signal and whose terminal it could read, and makes a
/// terminal on stdin the one whose keys send signals to the program.
///
/// A process group is of no PID namespace: a signal to the own one reaches everybody in it.
fn leave_session() -> Result<(), ShimError> {
    // Who leads a session already has left, and may have this terminal already.
    let has_left = setsid().is_ok();
    if !isatty(stdin()) {
        return Ok(());
    }
    let doing = || "take the terminal".to_owned();
    if has_left {
        ioctl_tiocsctty(stdin()).doing(doing)?;
    }
    // The program's mask is empty again.
    let signals: SigSet = OF_TERMINAL.into_iter().collect();
    signals.thread_block().doing(doing)
}

/// Enters the sandbox, and is confined as everything in it; the next child is among its processes.
fn enter(folder: &Path, config: &SandboxConfig) -> Result<(), ShimError> {
    let path = folder.join(SHIM_FILE);
    let text = std::fs::read(&path).doing(|| format!("read {}", path.display()))?;
    let record: ShimRecord =
        serde_json::from_slice(&text).doing(|| format!("read {}", path.display()))?;
    let doing = || "enter the sandbox".to_owned();
    let gone = || ShimError::new(doing(), "it does not run");
    let (Some(pid), Some(started)) = (record.init, record.init_started) else {
        return Err(gone());
    };
    if record.boot != SystemClock.moment().boot {
        return Err(gone());
    }
    let init = Pid::from_raw(pid).ok_or_else(gone)?;
    let init = pidfd_open(init, PidfdFlags::empty()).map_err(|_| gone())?;
    // Only now the id cannot be another process's any more.
    if process::started(pid).ok() != Some(started) {
        return Err(gone());
    }
    let privilege = Privilege::own();
    cgroups::bring(&config.limits.cgroups, std::process::id())?;
    cgroups::enter(&config.limits.cgroups)?;
    let mut namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    if config.network == Network::Loopback {
        namespaces |= CloneFlags::CLONE_NEWNET;
    }
    if privilege == Privilege::User {
        namespaces |= CloneFlags::CLONE_NEWUSER;
    }
    setns(&init, namespaces).doing(doing)?;
    confine(config, privilege)
}
