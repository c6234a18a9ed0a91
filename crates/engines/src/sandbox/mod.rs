//! The embedded sandbox: an engine that needs no daemon, no root and no registry, of Linux namespaces alone.
//!
//! Owns: one folder for each sandbox, and the shim process that lives as long as it.
//! Reads: launch specs.
//! Never: decides an outcome.

pub mod config;
mod shim;

pub use shim::shim_main;
