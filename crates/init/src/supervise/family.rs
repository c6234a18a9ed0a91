//! The agent's processes: the main one, and whatever it leaves behind.
//!
//! Owns: reaping, the main process's end and what was done to it before, and killing.
//! Reads: `/proc` to find orphans when it is not PID 1.
//! Never: reads their output; see `pump`.

use std::fs;
use std::time::{Duration, Instant};

use dark_factory_spool::{End, Intervention};
use nix::sys::ptrace;
use nix::sys::signal::{Signal as NixSignal, kill};
use nix::unistd::Pid as NixPid;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group,
    set_child_subreaper, wait,
};

use super::victim::Victims;

/// Signals that ask a process to leave.
const LEAVE: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
/// How soon after such a signal a kill belongs to it.
const SOON: Duration = Duration::from_secs(60);

/// How far killing reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Every process of the PID namespace, at one stroke: as PID 1.
    Namespace,
    /// The main process's group, and every descendant, which becomes our child once its parent is gone.
    Descendants,
}

/// Whether any child is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Children {
    /// At least one runs or waits to be reaped.
    Some,
    /// There is none.
    None,
}

/// The agent's main process and its descendants.
pub(super) struct Family {
    reach: Reach,
    main: Option<Pid>,
    end: Option<End>,
    /// Signals that were passed on before the main process ended, by bit.
    signals: u64,
    /// The last of them that asks a process to leave.
    told_to_leave: Option<(i32, Instant)>,
    /// Why everything was killed before the main process ended.
    killed: Option<(Intervention, Instant)>,
    ended_at: Option<Instant>,
    killing: bool,
    leftovers: u64,
    victims: Victims,
}

impl Family {
    /// Makes this process the one that orphans are given to.
    pub(super) fn new() -> rustix::io::Result<Self> {
        let own = getpid();
        set_child_subreaper(Some(own))?;
        Ok(Self {
            reach: if own.is_init() {
                Reach::Namespace
            } else {
                Reach::Descendants
            },
            main: None,
            end: None,
            signals: 0,
            told_to_leave: None,
            killed: None,
            ended_at: None,
            killing: false,
            leftovers: 0,
            victims: Victims::default(),
        })
    }

    /// Names the main process.
    pub(super) fn adopt(&mut self, main: Pid) {
        self.main = Some(main);
    }

    /// Returns whether there is, or was, a main process.
    pub(super) fn was_started(&self) -> bool {
        self.main.is_some() || self.end.is_some()
    }

    /// Returns how the main process ended; `None` while it runs.
    pub(super) fn end(&self) -> Option<End> {
        self.end
    }

    /// Returns what was done to the main process to end it, and how long before its end.
    ///
    /// A signal that asks it to leave comes before a kill that follows soon. Any other signal is one only if it ended the
    /// process.
    pub(super) fn intervention(&self) -> Option<(Intervention, Duration)> {
        let ended_at = self.ended_at.unwrap_or_else(Instant::now);
        let age = |at: Instant| ended_at.saturating_duration_since(at);
        match (self.killed, self.told_to_leave) {
            (Some((_, killed)), Some((signal, told)))
                if killed.saturating_duration_since(told) <= SOON =>
            {
                Some((Intervention::Signal(signal), age(told)))
            }
            (Some((why, killed)), _) => Some((why, age(killed))),
            (None, Some((signal, told))) => Some((Intervention::Signal(signal), age(told))),
            (None, None) => match self.end {
                Some(End::Signal(signal)) if self.signals & bit(signal) != 0 => {
                    Some((Intervention::Signal(signal), Duration::ZERO))
                }
                _ => None,
            },
        }
    }

    /// Returns the signals that were passed on to the main process before its end: bit N for signal N.
    pub(super) fn signals(&self) -> u64 {
        self.signals
    }

    /// Returns whether everything was killed.
    pub(super) fn was_killed(&self) -> bool {
        self.killing
    }

    /// Returns whether the main process has ended, or everything was killed.
    pub(super) fn is_dying(&self) -> bool {
        self.killing || self.end.is_some()
    }

    /// Returns how many processes other than the main one were found killed after [`Family::kill_all`].
    pub(super) fn leftovers(&self) -> u64 {
        self.leftovers
    }

    /// Returns whether the helper is PID 1, so that the cgroup files it sees are the container's.
    pub(super) fn fills_namespace(&self) -> bool {
        self.reach == Reach::Namespace
    }

    /// Returns the name of the child that the kernel killed last for lack of memory, as far as one is known.
    pub(super) fn oom_victim(&self) -> Option<&str> {
        self.victims.name()
    }

    /// Collects every process that has ended.
    pub(super) fn reap(&mut self) -> Children {
        loop {
            if !self.killing && self.fills_namespace() {
                self.victims.look();
            }
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.collect(pid, status),
                Ok(None) => return Children::Some,
                Err(Errno::INTR) => {}
                Err(_) => return Children::None,
            }
        }
    }

    fn collect(&mut self, pid: Pid, status: WaitStatus) {
        if let Some(signal) = status.stopping_signal() {
            let_go(pid, signal);
            return;
        }
        let signal = status.terminating_signal();
        if !self.killing && self.fills_namespace() && signal == Some(Signal::KILL.as_raw()) {
            self.victims.collected(pid);
        }
        if self.main == Some(pid) {
            self.main = None;
            self.ended_at = Some(Instant::now());
            self.end = Some(
                signal.map_or_else(|| End::Code(status.exit_status().unwrap_or(0)), End::Signal),
            );
        } else if self.killing && signal == Some(Signal::KILL.as_raw()) {
            self.leftovers += 1;
        }
    }

    /// Sends a signal to the main process, if it still runs.
    pub(super) fn forward(&mut self, signal: Signal) {
        // Its end may be waiting behind this signal.
        self.reap();
        if let Some(main) = self.main {
            self.signals |= bit(signal.as_raw());
            if LEAVE.contains(&signal) {
                self.told_to_leave = Some((signal.as_raw(), Instant::now()));
            }
            // Not yet reaped, so the number is still its own.
            let _sent = kill_process(main, signal);
        }
    }

    /// Kills every process within reach, the main one among them.
    pub(super) fn kill_main(&mut self, why: Intervention) {
        self.reap();
        if self.main.is_some() {
            self.killed.get_or_insert((why, Instant::now()));
        }
        self.kill_all();
    }

    /// Kills every process within reach; safe to call again for orphans that turned up since.
    pub(super) fn kill_all(&mut self) {
        self.killing = true;
        match self.reach {
            Reach::Namespace => {
                let _sent = kill(NixPid::from_raw(-1), NixSignal::SIGKILL);
            }
            Reach::Descendants => {
                if let Some(main) = self.main {
                    let _sent = kill_process_group(main, Signal::KILL);
                }
                for child in children() {
                    let _sent = kill_process(child, Signal::KILL);
                }
            }
        }
    }
}

/// Lets a process go on that made us trace it and then stopped: it has not ended.
fn let_go(pid: Pid, signal: i32) {
    let signal = NixSignal::try_from(signal).ok();
    // That it was executed is told to who traces it by this one, which would end it.
    let passed_on = signal.filter(|signal| *signal != NixSignal::SIGTRAP);
    // It may be dead by now, and is collected then.
    let _let_go = ptrace::detach(NixPid::from_raw(pid.as_raw_nonzero().get()), passed_on);
}

/// Returns the bit that stands for a signal.
fn bit(signal: i32) -> u64 {
    u32::try_from(signal)
        .ok()
        .and_then(|signal| 1_u64.checked_shl(signal))
        .unwrap_or(0)
}

/// Lists our direct children, zombies included.
fn children() -> Vec<Pid> {
    let own = getpid();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
            (parent(&stat)? == own.as_raw_nonzero().get()).then(|| Pid::from_raw(pid))?
        })
        .collect()
}

/// Finds the parent's PID in a `/proc/PID/stat` line, whose second field may contain anything.
fn parent(stat: &[u8]) -> Option<i32> {
    let after_name = stat.iter().rposition(|&b| b == b')')? + 1;
    let rest = std::str::from_utf8(&stat[after_name..]).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_brackets_does_not_hide_the_parent() {
        assert_eq!(parent(b"12 (a) b) 3 (x) S 7 12 12 0"), Some(7));
        assert_eq!(parent(b"12"), None);
    }
}
