//! A project around its runs: what an agent changed in its git workspace, and in what later commands obey.
//!
//! Owns: everything that runs the host's git.
//! Reads: what the caller passes in; projects, in which agents may have written anything.
//! Never: writes into a project, or lets git execute what a project says.

pub mod changes;
mod obeyed;
