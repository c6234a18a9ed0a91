//! A process of this machine that cannot be mistaken for a later one with its id.
//!
//! Owns: its descriptor.
//! Reads: `/proc`.
//! Never: waits by asking again and again.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

/// A process that was found.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    descriptor: OwnedFd,
}

/// Whether a signal reached anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signalled {
    /// It was sent.
    Sent,
    /// There is nothing that runs.
    Ended,
}

impl Process {
    /// Finds the process with an id that was started at a moment; `None` if it has ended.
    pub(super) fn find(pid: i32, started: u64) -> io::Result<Option<Self>> {
        let Some(id) = Pid::from_raw(pid) else {
            return Ok(None);
        };
        let descriptor = match pidfd_open(id, PidfdFlags::NONBLOCK) {
            Ok(descriptor) => descriptor,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let process = Self { pid, descriptor };
        // Only now the id cannot become another process's.
        let is_it = Stat::read(pid).is_some_and(|stat| stat.started == started);
        Ok((is_it && !process.has_ended()?).then_some(process))
    }

    /// Returns its id.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns whether it executes something by now that was not given this argument.
    pub(super) fn is_without_argument(&self, argument: &str) -> bool {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        !line.is_empty() && !words.any(|word| word == argument.as_bytes())
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<Signalled> {
        match pidfd_send_signal(&self.descriptor, signal) {
            Ok(()) => Ok(Signalled::Sent),
            Err(Errno::SRCH) => Ok(Signalled::Ended),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for its end. Cancel-safe; must be called within a runtime.
    pub(super) async fn ended(self) -> io::Result<()> {
        #[expect(
            deprecated,
            reason = "its replacement is unsafe, and asks for nothing that an OwnedFd does not keep: it stays open"
        )]
        let watched = AsyncFd::new(self.descriptor)?;
        watched.readable().await.map(drop)
    }

    fn has_ended(&self) -> io::Result<bool> {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut asked = [PollFd::new(&self.descriptor, PollFlags::IN)];
        // Also one that asks for no time is interrupted, by the end of another child.
        Ok(retry_on_intr(|| poll(&mut asked, Some(&now)))? > 0)
    }
}

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Its state, as a letter.
    pub(super) state: char,
    /// Its parent's id.
    pub(super) parent: i32,
    /// CPU time of itself and of the children that it waited for, in clock ticks.
    pub(super) cpu: u64,
    /// Its threads.
    pub(super) threads: u64,
    /// When it was started, in clock ticks since the boot.
    pub(super) started: u64,
    /// Memory that it has, in pages.
    pub(super) pages: u64,
}

impl Stat {
    /// Reads it; `None` if there is no such process.
    pub(super) fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Reads the text of the file; the second field, a name in parentheses, may contain anything.
    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            cpu: number(14)? + number(15)? + number(16)? + number(17)?,
            threads: number(20)?,
            started: number(22)?,
            pages: number(24)?,
        })
    }
}

/// Returns a process and everything that descends from it, as of now.
///
/// In a PID namespace nothing leaves its first process: what loses its parent becomes its child.
pub(super) fn family(first: i32) -> Vec<(i32, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let all: Vec<(i32, Stat)> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::read(pid)?)))
        .collect();
    let mut found: Vec<(i32, Stat)> = all
        .iter()
        .filter(|(pid, _)| *pid == first)
        .copied()
        .collect();
    let mut next = 0;
    while let Some(&(parent, _)) = found.get(next) {
        found.extend(
            all.iter()
                .filter(|(pid, stat)| stat.parent == parent && *pid != first),
        );
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_read_behind_any_name() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 987654 10 11";

        assert_eq!(
            Stat::parse(stat),
            Some(Stat {
                state: 'S',
                parent: 7,
                cpu: 5 + 6 + 7 + 8,
                threads: 3,
                started: 987_654,
                pages: 11,
            })
        );
        assert_eq!(Stat::parse("42 (a"), None);
    }

    #[test]
    fn a_process_is_found_by_its_id_and_start_together() {
        let own = i32::try_from(std::process::id()).unwrap();
        let started = Stat::read(own).unwrap().started;

        assert!(Process::find(own, started).unwrap().is_some());
        assert!(Process::find(own, started + 1).unwrap().is_none());
        assert!(family(own).iter().any(|(pid, _)| *pid == own));
    }
}
