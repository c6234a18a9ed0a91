//! Freezing a sandbox and letting it go on.
//!
//! Owns: the two ways: a control group's freezer where there is one, else a signal to every process.
//! Reads: what the kernel says is frozen.
//! Never: stops the shim, which waits outside.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::config::SandboxLimits;
use super::folder::Living;
use super::process::family;

/// How long the kernel may take, and how often it is asked.
const SETTLING: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// Whether a sandbox's processes go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Motion {
    Frozen,
    Free,
}

/// What freezes a control group.
#[derive(Debug)]
enum Freezer {
    /// Of the first version: the file that says and is told the state.
    One(PathBuf),
    /// Of the second version: the file that is told, and the one that says.
    Two(PathBuf, PathBuf),
}

impl Freezer {
    fn of(limits: &SandboxLimits) -> Option<Self> {
        limits.cgroups.iter().find_map(|group| {
            let [one, two] = ["freezer.state", "cgroup.freeze"].map(|name| group.join(name));
            if two.exists() {
                return Some(Self::Two(two, group.join("cgroup.events")));
            }
            one.exists().then_some(Self::One(one))
        })
    }

    fn set(&self, wanted: Motion) -> io::Result<()> {
        match (self, wanted) {
            (Self::One(state), Motion::Frozen) => fs::write(state, "FROZEN"),
            (Self::One(state), Motion::Free) => fs::write(state, "THAWED"),
            (Self::Two(freeze, _), Motion::Frozen) => fs::write(freeze, "1"),
            (Self::Two(freeze, _), Motion::Free) => fs::write(freeze, "0"),
        }
    }

    fn motion(&self) -> io::Result<Motion> {
        let is_frozen = match self {
            Self::One(state) => fs::read_to_string(state)?.trim() == "FROZEN",
            Self::Two(_, events) => fs::read_to_string(events)?
                .lines()
                .any(|line| line == "frozen 1"),
        };
        Ok(match is_frozen {
            true => Motion::Frozen,
            false => Motion::Free,
        })
    }
}

/// Returns whether a sandbox's processes go on.
pub(super) fn motion(limits: &SandboxLimits, living: &Living) -> io::Result<Motion> {
    match Freezer::of(limits) {
        Some(freezer) => freezer.motion(),
        None => Ok(signalled_motion(living)),
    }
}

/// Freezes or thaws a sandbox, until the kernel says that it is so.
pub(super) async fn settle(
    limits: &SandboxLimits,
    living: &Living,
    wanted: Motion,
) -> io::Result<()> {
    let freezer = Freezer::of(limits);
    let begun = Instant::now();
    loop {
        let found = match &freezer {
            Some(freezer) => {
                freezer.set(wanted)?;
                freezer.motion()?
            }
            None => {
                signal(living, wanted)?;
                signalled_motion(living)
            }
        };
        if found == wanted {
            return Ok(());
        }
        if begun.elapsed() > SETTLING {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the kernel does not say that it is {wanted:?}"),
            ));
        }
        sleep(PAUSE).await;
    }
}

/// Signals everything that descends from the sandbox's PID 1. What was executed in it beside is not reached.
fn signal(living: &Living, wanted: Motion) -> io::Result<()> {
    let Some(init) = &living.init else {
        return Ok(());
    };
    let signal = match wanted {
        Motion::Frozen => Signal::STOP,
        Motion::Free => Signal::CONT,
    };
    for (pid, _) in family(init.pid()) {
        match Pid::from_raw(pid).map(|pid| kill_process(pid, signal)) {
            Some(Err(error)) if error != rustix::io::Errno::SRCH => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Returns whether everything is stopped; what has ended and waits to be noticed counts for nothing.
fn signalled_motion(living: &Living) -> Motion {
    let Some(init) = &living.init else {
        return Motion::Free;
    };
    let family = family(init.pid());
    let mut states = family
        .iter()
        .map(|(_, stat)| stat.state)
        .filter(|state| *state != 'Z')
        .peekable();
    match states.peek().is_some() && states.all(|state| state == 'T') {
        true => Motion::Frozen,
        false => Motion::Free,
    }
}
