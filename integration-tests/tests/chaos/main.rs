//! Faults everywhere and at any time, on the real engine; `cargo xtask chaos` runs the same for longer.
//!
//! `DARK_FACTORY_CHAOS_FOR` is how many seconds to go on for, `DARK_FACTORY_CHAOS_SEED` the seed of the random
//! schedules, `DARK_FACTORY_CHAOS_JOBS` how many are played at a time, and `DARK_FACTORY_CHAOS_ONLY` the index of the
//! only one to play.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it reached"
)]

mod hundred;
mod schedules;
mod settings;
mod soak;
