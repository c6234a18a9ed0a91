//! The signals that reach the helper, read one by one instead of interrupting it.
//!
//! Owns: the signal mask, and which senders are believed.
//! Reads: the signal descriptor.
//! Never: sends a signal; see `family`.

use std::os::fd::{AsFd, BorrowedFd};

use dark_factory_spool::{KILL_EVERYTHING_NAMED, KILL_EVERYTHING_SIGNAL};
use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use rustix::process::{Signal, getpid};

/// `SI_USER`, the code of a signal that `kill` sent.
const SENT_BY_KILL: i32 = 0;

/// Whose signals count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Only those from outside the PID namespace: as PID 1, so that the agent cannot pose as the engine.
    Outside,
    /// Everybody's but our own.
    Everybody,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// Children may have ended.
    ChildEnded,
    /// Kill everything now.
    KillEverything,
    /// Pass this on to the agent's main process.
    Forward(Signal),
}

impl Notice {
    /// Returns whether this means that a run which has not begun need not begin.
    pub(super) fn asks_to_stop(self) -> bool {
        match self {
            Self::KillEverything => true,
            Self::Forward(signal) => {
                [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP].contains(&signal)
            }
            Self::ChildEnded => false,
        }
    }
}

/// All signals, blocked and queued.
pub(super) struct Signals {
    queue: SignalFd,
    own_pid: u32,
    trust: Trust,
}

impl Signals {
    /// Blocks every signal that can be blocked and opens the queue.
    pub(super) fn block() -> Result<Self, Errno> {
        let all = SigSet::all();
        all.thread_block()?;
        let own_pid = getpid();
        Ok(Self {
            queue: SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
            own_pid: own_pid.as_raw_nonzero().get().cast_unsigned(),
            trust: if own_pid.is_init() {
                Trust::Outside
            } else {
                Trust::Everybody
            },
        })
    }

    /// Returns the next signal that means something; `None` if none is waiting.
    pub(super) fn next(&self) -> Option<Notice> {
        while let Ok(Some(info)) = self.queue.read_signal() {
            if let Some(notice) = self.judge(&info) {
                return Some(notice);
            }
        }
        None
    }

    fn judge(&self, info: &siginfo) -> Option<Notice> {
        let number = info.ssi_signo.cast_signed();
        if number == Signal::CHILD.as_raw() {
            return Some(Notice::ChildEnded);
        }
        let believed = match self.trust {
            // A sender outside has no PID in here. The code is checked too: inside, rt_sigqueueinfo can claim any PID,
            // with a negative code, and F_SETOWN with F_SETSIG has the kernel send any signal, with a positive one.
            Trust::Outside => info.ssi_pid == 0 && info.ssi_code == SENT_BY_KILL,
            // Our own are SIGPIPE and SIGXFSZ of our writes, whose errors we see anyway.
            Trust::Everybody => info.ssi_pid != self.own_pid,
        };
        if !believed {
            return None;
        }
        if [KILL_EVERYTHING_SIGNAL, KILL_EVERYTHING_NAMED].contains(&number) {
            return Some(Notice::KillEverything);
        }
        // Other real-time signals have no safe name and are not passed on.
        Signal::from_named_raw(number).map(Notice::Forward)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}
