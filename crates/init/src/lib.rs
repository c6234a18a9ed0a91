//! What a test needs to know about the helper: the bytes that its scripted agent prints.
//!
//! Owns: the generators of test output.
//! Reads: nothing.
//! Never: supervises or runs scripts; that is the program in `main.rs`.

mod spew;

pub use spew::{DEFAULT_LINE_LENGTH, long_line, spew, write_long_line, write_spew};
