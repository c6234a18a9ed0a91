//! What a test needs to know about the helper: its control signal and the bytes that its scripted agent prints.
//!
//! Owns: the number of the "kill everything" signal and the generators of test output.
//! Reads: nothing.
//! Never: supervises or runs scripts; that is the program in `main.rs`.

mod spew;

pub use spew::{DEFAULT_LINE_LENGTH, long_line, spew, write_long_line, write_spew};

/// Number of the signal that makes the helper kill everything at once, drain, and write its exit record.
///
/// It is `SIGRTMIN+1` as glibc counts, which is also what `docker kill -s RTMIN+1` sends.
pub const KILL_EVERYTHING_SIGNAL: i32 = 35;
