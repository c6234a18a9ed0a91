//! The name of a process that the kernel killed for lack of memory.
//!
//! Owns: which of the children that were killed is the kernel's victim.
//! Reads: a dead child's name in `/proc`, which is gone once it is collected; the kernel's count of kills.
//! Never: knows a child of another process that is left: its own parent collects it.

use std::fs;

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::process::Pid;

use super::cgroup::MemoryFacts;

/// The children that were killed by SIGKILL.
#[derive(Debug, Default)]
pub(super) struct Victims {
    /// The next one to be collected, and its name.
    dead: Option<(Pid, String)>,
    /// The kernel's count when it was looked at last.
    kills: u64,
    name: Option<String>,
}

impl Victims {
    /// Returns the name of the last victim, as far as one is known.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Learns the name of the child that is to be collected next, if it was killed.
    pub(super) fn look(&mut self) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        // One that ended by a signal without a name is an error, and was not killed.
        if let Ok(WaitStatus::Signaled(pid, Signal::SIGKILL, _)) = waitid(Id::All, flags)
            && let Some(pid) = Pid::from_raw(pid.as_raw())
        {
            self.dead = name_of(pid).map(|name| (pid, name));
        }
    }

    /// Notes that a child was collected, which something other than us had killed.
    pub(super) fn collected(&mut self, pid: Pid) {
        let kills = MemoryFacts::read().oom_kills.unwrap_or(0);
        let dead = self.dead.take_if(|(dead, _)| *dead == pid);
        if kills > self.kills {
            self.kills = kills;
            self.name = dead.map(|(_, name)| name);
        }
    }
}

/// Returns a process's name as the kernel has it: 15 bytes of its program's, unless it chose another.
fn name_of(pid: Pid) -> Option<String> {
    let name = fs::read(format!("/proc/{}/comm", pid.as_raw_nonzero())).ok()?;
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_killed_child_has_its_name_until_it_is_collected() {
        let mut child = Command::new("sleep").arg("1h").spawn().unwrap();
        let pid = Pid::from_child(&child);

        child.kill().unwrap();
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let killed = nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get());
        waitid(Id::Pid(killed), flags).unwrap();

        assert_eq!(name_of(pid).as_deref(), Some("sleep"));
        child.wait().unwrap();
        assert_eq!(name_of(pid), None);
    }
}
