//! Plays many schedules, several at a time, and counts what they met.
//!
//! Owns: the counts.
//! Reads: the clock, to stop in time and to tell how it goes.
//! Never: stops at a failure: the others may say more about it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::play::{Played, play};
use super::schedule::Schedule;

/// Failures after which no more schedules are begun.
const ENOUGH: usize = 12;

/// A schedule after which something was not true.
#[derive(Debug)]
pub struct Failure {
    /// The schedule's name.
    pub name: String,
    /// All that is needed to play it again.
    pub description: String,
}

/// What many schedules met.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many schedules were played.
    pub schedules: usize,
    /// The faults that came to pass, by name.
    pub faults: BTreeMap<String, usize>,
    /// How many recoveries there were.
    pub recoveries: usize,
    /// How long the longest recovery without a fault took; it may have waited for its agent.
    pub longest_recovery: Duration,
    /// The schedules that failed.
    pub failures: Vec<Failure>,
    /// The schedules that did not.
    pub played: Vec<Played>,
}

impl Tally {
    /// Returns how many faults came to pass.
    pub fn faults(&self) -> usize {
        self.faults.values().sum()
    }

    /// Adds what others met; which schedules those were is not kept.
    pub fn add(&mut self, other: Self) {
        self.schedules += other.schedules;
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        self.recoveries += other.recoveries;
        self.longest_recovery = self.longest_recovery.max(other.longest_recovery);
        self.failures.extend(other.failures);
    }

    fn take(&mut self, played: Result<Played, Failure>) {
        self.schedules += 1;
        match played {
            Ok(played) => {
                for fault in &played.faults {
                    *self.faults.entry(fault.clone()).or_default() += 1;
                }
                self.recoveries += played.recoveries;
                self.longest_recovery = self.longest_recovery.max(played.longest_recovery);
                self.played.push(played);
            }
            Err(failure) => self.failures.push(failure),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} schedules, {} faults, {} recoveries, the longest {:.1} s, {} failed",
            self.schedules,
            self.faults(),
            self.recoveries,
            self.longest_recovery.as_secs_f64(),
            self.failures.len()
        )
    }
}

/// Plays schedules, `jobs` at a time, until there are no more or `until`; says now and then how far it is.
///
/// # Panics
///
/// If a thread cannot be started.
pub fn play_all(
    schedules: impl Iterator<Item = Schedule> + Send,
    jobs: usize,
    until: Option<Instant>,
    say: &(dyn Fn(&Tally) + Sync),
) -> Tally {
    let schedules = Mutex::new(schedules.fuse());
    let tally = Mutex::new(Tally::default());
    let next = || {
        let is_late = until.is_some_and(|until| Instant::now() >= until);
        let failed = tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .failures
            .len();
        if is_late || failed >= ENOUGH {
            return None;
        }
        schedules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(schedule) = next() {
                    let played = play(&schedule);
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    tally.take(played);
                    say(&tally);
                }
            });
        }
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}
