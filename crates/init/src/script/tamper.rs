//! Tries the ways in which an agent could read, cut or forge its own record.
//!
//! Owns: the list of checks.
//! Reads: whatever the seal should keep it from.
//! Never: runs outside a dark-factory container, where PID 1 is somebody else's.
//!
//! With the spool handed over as a descriptor no path leads to it but `/proc/1/fd`, so that is where the checks on the
//! spool itself go. `/proc/1/root` leads to the agent's own root; opening it would show only that the kernel's check
//! which guards the descriptors did not hold.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::IoSliceMut;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::supervise::receive;

const HELPER: &str = "/.dark-factory/init";
const ATTEMPT: &str = "/.dark-factory/attempt";
const HIGHEST_DESCRIPTOR: i32 = 31;
const SIGNAL_PAUSE: Duration = Duration::from_millis(100);
const HANDOVER_PATIENCE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// What a check found: `Some` says how the seal was broken.
type Finding = Option<String>;

type Check = fn() -> Finding;

/// Runs every check; returns a line for each and one that counts them.
pub(super) fn run() -> Result<Vec<String>, String> {
    if !Path::new(HELPER).exists() || std::process::id() == 1 {
        return Err("tamper: not supervised in a dark-factory container".to_owned());
    }
    let checks: [(&str, Check); 33] = [
        ("spool-read", || each_descriptor(reads)),
        ("spool-append", || each_descriptor(appends)),
        ("spool-truncate", || each_descriptor(writes)),
        ("spool-chmod", || each_descriptor(changes_mode)),
        ("spool-unlink", || {
            each_descriptor(|p| fs::remove_file(p).is_ok())
        }),
        ("spool-rename", || {
            each_descriptor(|p| fs::rename(p, p.with_file_name("stolen")).is_ok())
        }),
        ("spool-replace", || {
            each_descriptor(|p| symlink("/dev/null", p).is_ok())
        }),
        ("forge-spool", || {
            in_attempt("spool", |p| File::create(p).is_ok())
        }),
        ("forge-exit", || {
            in_attempt("exit.json", |p| File::create(p).is_ok())
        }),
        ("prompt-overwrite", || in_attempt("prompt.md", appends)),
        ("prompt-rename", || {
            in_attempt("prompt.md", |p| {
                fs::rename(p, p.with_file_name("stolen")).is_ok()
            })
        }),
        ("socket-unlink", || {
            in_attempt("socket", |p| fs::remove_file(p).is_ok())
        }),
        ("attempt-chmod", || in_attempt(".", changes_mode)),
        ("stdin-overwrite", || opened("/proc/self/fd/0", appends)),
        ("stdout-is-a-file", stdout_is_a_file),
        ("init-mem-read", || opened("/proc/1/mem", reads)),
        ("init-mem-write", || opened("/proc/1/mem", writes)),
        ("init-root", || opened("/proc/1/root", reads)),
        ("init-maps", || opened("/proc/1/maps", reads)),
        ("init-vm-read", || {
            opened("process_vm_readv", reads_remotely)
        }),
        ("init-pidfd-getfd", takes_descriptor),
        ("init-stop", || survives(Signal::SIGSTOP)),
        ("init-kill", || survives(Signal::SIGKILL)),
        ("init-term", || survives(Signal::SIGTERM)),
        ("init-segv", || survives(Signal::SIGSEGV)),
        ("init-overwrite", || helper(|p| appends(p) || writes(p))),
        ("init-chmod", || helper(changes_mode)),
        ("init-unlink", || {
            helper(|p| {
                fs::remove_file(p).is_ok() || fs::rename(p, p.with_file_name("stolen")).is_ok()
            })
        }),
        ("cgroup-freeze", || {
            cgroup(&["freezer/freezer.state", "cgroup.freeze", "cgroup.kill"])
        }),
        ("cgroup-procs", || {
            cgroup(&[
                "memory/cgroup.procs",
                "memory/memory.limit_in_bytes",
                "pids/cgroup.procs",
                "cgroup.procs",
                "memory.max",
            ])
        }),
        ("inherited-descriptors", inherited_descriptors),
        ("handover-again", handover_again),
        // Last, because a traced PID 1 can be stopped, and then nothing above would be reported.
        ("init-ptrace", || {
            opened("seize", |_| {
                ptrace::seize(Pid::from_raw(1), ptrace::Options::empty()).is_ok()
            })
        }),
    ];
    let mut lines: Vec<String> = checks
        .iter()
        .map(|(name, check)| match check() {
            None => format!("tamper {name} refused"),
            Some(detail) => format!("tamper {name} BROKEN {detail}"),
        })
        .collect();
    lines.push(format!("tamper done {} checks", checks.len()));
    Ok(lines)
}

fn opened(path: &str, broken: impl Fn(&Path) -> bool) -> Finding {
    broken(Path::new(path)).then(|| path.to_owned())
}

fn each_descriptor(broken: impl Fn(&Path) -> bool) -> Finding {
    (0..=HIGHEST_DESCRIPTOR)
        .map(|number| PathBuf::from(format!("/proc/1/fd/{number}")))
        .find(|path| broken(path))
        .map(|path| path.display().to_string())
}

fn in_attempt(name: &str, broken: impl Fn(&Path) -> bool) -> Finding {
    opened(&format!("{ATTEMPT}/{name}"), broken)
}

fn helper(broken: impl Fn(&Path) -> bool) -> Finding {
    [HELPER, "/proc/1/exe"]
        .into_iter()
        .find(|path| broken(Path::new(path)))
        .map(str::to_owned)
}

fn cgroup(names: &[&str]) -> Finding {
    names
        .iter()
        .map(|name| Path::new("/sys/fs/cgroup").join(name))
        .find(|path| writes(path))
        .map(|path| path.display().to_string())
}

// Opening is enough to show a breach; more would also break the run that reports it.
fn reads(path: &Path) -> bool {
    File::open(path).is_ok()
}

fn writes(path: &Path) -> bool {
    OpenOptions::new().write(true).open(path).is_ok()
}

fn appends(path: &Path) -> bool {
    // A null device as stdin is nobody's record.
    fs::metadata(path).is_ok_and(|data| !data.file_type().is_char_device())
        && OpenOptions::new().append(true).open(path).is_ok()
}

fn changes_mode(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| {
        fs::set_permissions(path, Permissions::from_mode(data.permissions().mode())).is_ok()
    })
}

fn stdout_is_a_file() -> Finding {
    ["/proc/self/fd/1", "/proc/self/fd/2"]
        .into_iter()
        .find(|path| !fs::metadata(path).is_ok_and(|data| data.file_type().is_fifo()))
        .map(str::to_owned)
}

fn reads_remotely(_: &Path) -> bool {
    let mut byte = [0];
    let remote = [RemoteIoVec {
        base: byte.as_ptr().addr(),
        len: 1,
    }];
    let read = process_vm_readv(Pid::from_raw(1), &mut [IoSliceMut::new(&mut byte)], &remote);
    // A bad address is found only after access was granted.
    matches!(read, Ok(_) | Err(nix::errno::Errno::EFAULT))
}

fn takes_descriptor() -> Finding {
    let init = pidfd_open(rustix::process::Pid::INIT, PidfdFlags::empty()).ok()?;
    (0..=HIGHEST_DESCRIPTOR)
        .find(|&number| pidfd_getfd(&init, number, PidfdGetfdFlags::empty()).is_ok())
        .map(|number| format!("descriptor {number}"))
}

fn survives(signal: Signal) -> Finding {
    // Delivery may be refused or ignored: what counts is that PID 1 goes on.
    let _sent = kill(Pid::from_raw(1), signal);
    thread::sleep(SIGNAL_PAUSE);
    let stat = fs::read_to_string("/proc/1/stat").unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim().get(..1);
    match state {
        Some("R" | "S" | "D") => None,
        other => Some(format!("its state is {other:?}")),
    }
}

fn inherited_descriptors() -> Finding {
    let listed: Vec<PathBuf> = fs::read_dir("/proc/self/fd")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    // The listing's own is gone by now.
    listed
        .into_iter()
        .filter(|path| {
            let number = path
                .file_name()
                .and_then(|name| name.to_str()?.parse::<i32>().ok());
            number.is_none_or(|number| number > 2) && path.symlink_metadata().is_ok()
        })
        .map(|path| path.display().to_string())
        .reduce(|all, one| format!("{all} {one}"))
}

fn handover_again() -> Finding {
    let socket = UnixStream::connect(format!("{ATTEMPT}/socket")).ok()?;
    let mut fds = [PollFd::new(&socket, PollFlags::IN)];
    if poll(&mut fds, Some(&HANDOVER_PATIENCE)).is_ok_and(|ready| ready == 0) {
        return None;
    }
    let message = receive(&socket).ok()??;
    (!message.descriptors.is_empty()).then(|| "a descriptor was handed over".to_owned())
}
