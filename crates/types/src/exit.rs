//! How a workload ended, as the helper or the engine saw it.
//!
//! Owns: the exit status and what is known of the kernel's out-of-memory killer.
//! Reads: nothing.
//! Never: says whether that is good or bad; see [`crate::Outcome`].

use serde::{Deserialize, Serialize};

/// How the main process of a workload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The engine no longer knows the workload and no exit record was written.
    Lost,
    /// It was never executed.
    NeverStarted,
}

/// What is known of the kernel's out-of-memory killer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Oom {
    /// Nothing was killed for lack of memory.
    #[default]
    No,
    /// A process of the workload was killed, but not the main one.
    Child,
    /// The main process was killed.
    Certain,
    /// The main process was killed by SIGKILL under a memory limit, not by us, and nobody said why.
    Probable,
}

/// Who said how the workload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitSource {
    /// The helper's exit record: code and signal are told apart.
    Record,
    /// The engine: a signal is inferred from a code above 128.
    Engine,
}

/// The exit of a workload: one of the three facts that make an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How the main process ended.
    pub status: ExitStatus,
    /// What is known of the out-of-memory killer.
    pub oom: Oom,
    /// Who said so.
    pub source: ExitSource,
}

impl Exit {
    /// Returns the main process's exit code; a signal and a lost workload have none.
    pub fn code(&self) -> Option<i32> {
        match self.status {
            ExitStatus::Code(code) => Some(code),
            ExitStatus::Signal(_) | ExitStatus::Lost | ExitStatus::NeverStarted => None,
        }
    }
}
