//! Runs one prompt file in a container to one outcome.
//!
//! Owns: the path from a prompt file to a report: parsing, resolving, the engine contract, the state store,
//! supervision, recovery.
//! Reads: what the caller passes in; the state folder.
//! Never: talks to a particular engine, prints, or reads the environment.

pub mod attempt;
pub mod clock;
pub mod containers;
pub mod daemon;
pub mod engine;
pub mod error;
pub mod execute;
pub mod failpoint;
pub mod host;
pub mod lease;
pub mod mount_source;
pub mod nudge;
pub mod prompt;
mod readable;
pub mod resolve;
pub mod settings;
pub mod sink;
pub mod spec;
pub mod spool;
pub mod state_dir;
pub mod store;
pub mod supervisor;
