//! How long, how many at a time, from which seed.
//!
//! Owns: the defaults, which are those of `cargo xtask test`.
//! Reads: the environment.
//! Never: changes what is checked.

use std::env;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Played at the same time, unless told otherwise.
const JOBS: usize = 4;
/// All schedules together, unless told otherwise: with a margin to the five minutes that they may take.
const TIME: Duration = Duration::from_secs(180);

/// The seed, unless told otherwise.
const SEED: u64 = 41;

/// The tests of this program are heavy, so they take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Waits for this test's turn.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns for how long schedules are played, if that was asked for.
pub(crate) fn asked_time() -> Option<Duration> {
    number("FOR").map(Duration::from_secs)
}

/// Returns for how long schedules are played: the soak takes about a tenth of what was asked for.
pub(crate) fn time() -> Duration {
    asked_time().map_or(TIME, |asked| asked * 9 / 10)
}

/// Returns how many schedules are played at a time.
pub(crate) fn jobs() -> usize {
    number("JOBS").map_or(JOBS, |jobs| {
        usize::try_from(jobs).expect("a number of jobs")
    })
}

/// Returns the seed: the one that was asked for, else always the same, so that a change is judged by the schedules that
/// the last one passed. `cargo xtask chaos` looks for new trouble, from another seed each time.
pub(crate) fn seed() -> u64 {
    number("SEED").unwrap_or(SEED)
}

/// Says what was reached, also where the tests' output is kept back.
pub(crate) fn say(text: &str) {
    // Nowhere is left to say that standard error cannot be written.
    let _said = writeln!(io::stderr(), "{text}");
}

/// Returns the index of the only schedule to play, if that was asked for.
pub(crate) fn only() -> Option<u64> {
    number("ONLY")
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(format!("DARK_FACTORY_CHAOS_{name}")).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("DARK_FACTORY_CHAOS_{name} is a number, not {text:?}")),
    )
}
