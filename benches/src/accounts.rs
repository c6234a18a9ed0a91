//! The CPU time of processes that are not ours: the engine's, and our helper's.
//!
//! Owns: a thread that looks at them again and again, because those that end take their figures with them.
//! Reads: `/proc`.
//! Never: counts a process that is neither.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::resource::UsageWho;
use nix::unistd::{SysconfVar, sysconf};

use crate::Result;
use crate::measure::cpu;

const GLANCE: Duration = Duration::from_millis(10);
/// How often new processes are looked for, in glances: it costs more than looking at known ones.
const SEARCH: u32 = 20;

/// Whose process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    Engine,
    Shim,
    /// Our helper, and the scripted agent below it, which is the same file: only the container's first process counts.
    Helper,
}

/// Seconds of CPU time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Accounts {
    pub(crate) engine: f64,
    pub(crate) shim: f64,
    pub(crate) helper: f64,
    /// What it took this process to keep them.
    pub(crate) keeping: f64,
}

/// Whether the first process of a container is our helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstProcess {
    OurHelper,
    TheAgent,
}

/// The clock ticks of each process that is known: at first, and when it was last looked at.
type Known = HashMap<(u32, Whose), (u64, u64)>;

/// Accounts that are being kept.
#[derive(Debug)]
pub(crate) struct Keeping {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Known, Duration)>,
}

impl Keeping {
    /// Begins to look.
    pub(crate) fn start(first: FirstProcess) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        // Those that are there before it begins: what they used before is not counted.
        let mut known = Known::new();
        for (pid, whose) in search(first) {
            if let Some(ticks) = ticks(pid) {
                known.insert((pid, whose), (ticks, ticks));
            }
        }
        let thread = thread::spawn(move || {
            let mut glance = 0_u32;
            while !stopped.load(Ordering::Relaxed) {
                if glance.is_multiple_of(SEARCH) {
                    for found in search(first) {
                        known.entry(found).or_insert((0, 0));
                    }
                }
                glance += 1;
                for ((pid, _), (_, last)) in &mut known {
                    if let Some(ticks) = ticks(*pid) {
                        *last = ticks;
                    }
                }
                thread::sleep(GLANCE);
            }
            (known, cpu(UsageWho::RUSAGE_THREAD).unwrap_or_default())
        });
        Self { stop, thread }
    }

    /// Stops looking, and returns what was used meanwhile.
    pub(crate) fn stop(self) -> Result<Accounts> {
        self.stop.store(true, Ordering::Relaxed);
        let (known, keeping) = self
            .thread
            .join()
            .map_err(|_| "the thread that keeps accounts panicked")?;
        let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
        let mut accounts = Accounts {
            keeping: keeping.as_secs_f64(),
            ..Accounts::default()
        };
        for ((_, whose), (first, last)) in known {
            #[expect(clippy::cast_precision_loss, reason = "ticks of a few seconds")]
            let seconds = last.saturating_sub(first) as f64 / per_second as f64;
            match whose {
                Whose::Engine => accounts.engine += seconds,
                Whose::Shim => accounts.shim += seconds,
                Whose::Helper => accounts.helper += seconds,
            }
        }
        Ok(accounts)
    }
}

/// Returns the processes that are counted.
fn search(first: FirstProcess) -> Vec<(u32, Whose)> {
    let processes: HashMap<u32, (String, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let (name, rest) = stat(pid)?;
            let parent = rest.split(' ').nth(1)?.parse().ok()?;
            Some((pid, (name, parent)))
        })
        .collect();
    let is_shim = |pid: u32| {
        processes
            .get(&pid)
            .is_some_and(|(name, _)| name.starts_with("containerd-shim"))
    };
    processes
        .iter()
        .filter_map(|(pid, (name, parent))| {
            let whose = match name.as_str() {
                "dockerd" | "containerd" => Whose::Engine,
                _ if is_shim(*pid) => Whose::Shim,
                _ if is_shim(*parent) && first == FirstProcess::OurHelper => Whose::Helper,
                _ => return None,
            };
            Some((*pid, whose))
        })
        .collect()
}

/// Returns a process's name, and what stands behind it in its `stat`.
fn stat(pid: u32) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1;
    Some((name.to_owned(), rest.to_owned()))
}

/// Returns the clock ticks that a process has used.
fn ticks(pid: u32) -> Option<u64> {
    let (_, rest) = stat(pid)?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}
