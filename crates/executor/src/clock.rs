//! The clock, passed in.
//!
//! Owns: the one trait that says what time it is.
//! Reads: the system's clock, in [`SystemClock`].
//! Never: is bypassed.

use std::fmt;

use jiff::Timestamp;

/// Says what time it is; the seed's `CurrentDateTimeGetter`.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the wall time.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
