//! Container engines behind one contract.
//!
//! Owns: what an engine needs to know of its own wire protocol and flags.
//! Reads: resolved launch specs and options.
//! Never: decides an outcome, or reads the environment.

#[cfg(feature = "docker")]
pub mod docker;
