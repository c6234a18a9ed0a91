//! The named phases of a task and the time that each took.
//!
//! Owns: the clock readings.
//! Reads: the monotonic clock.
//! Never: decides what a phase does.

use std::time::{Duration, Instant};

/// Phases that have ended, in order.
#[derive(Debug, Default)]
pub(crate) struct Phases(Vec<(&'static str, Duration)>);

impl Phases {
    /// Announces a phase, runs it, and keeps its time, whether or not it failed.
    pub(crate) fn run<T>(&mut self, name: &'static str, work: impl FnOnce() -> T) -> T {
        eprintln!("== {name}");
        let start = Instant::now();
        let result = work();
        self.0.push((name, start.elapsed()));
        result
    }

    /// Prints a line for each phase and one for all of them.
    pub(crate) fn print(&self) {
        println!("\nphase times");
        for (name, time) in &self.0 {
            println!("  {name:<14} {:>7.1} s", time.as_secs_f64());
        }
        let total: Duration = self.0.iter().map(|(_, time)| *time).sum();
        println!("  {:<14} {:>7.1} s", "all", total.as_secs_f64());
    }
}
