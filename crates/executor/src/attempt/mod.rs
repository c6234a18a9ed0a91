//! One attempt, from wherever it stands to its report.
//!
//! Owns: the order of steps: intent into the store, step, result into the store.
//! Reads: the attempt's row; requests of the caller's [`Control`].
//! Never: does a step that the store does not know of.

mod drive;
mod facts;
mod pump;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub(crate) use drive::Drive;

/// How a caller influences an attempt that it is waiting for.
#[derive(Debug, Clone)]
pub struct Control {
    /// Stops the workload, giving it its grace; the outcome is then `cancelled`.
    pub cancel: CancellationToken,
    /// Kills the workload at once, after or instead of `cancel`.
    pub kill: CancellationToken,
    /// Who cancels, as the cause names it.
    pub by: String,
    /// How long the workload may run.
    pub time_limit: TimeLimit,
    /// How long a stopped workload may take to leave by itself; `None` is as long as its launch spec says.
    pub grace: Option<Duration>,
}

/// How long a workload may run, counted from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeLimit {
    /// As long as its launch spec says.
    #[default]
    AsLaunched,
    /// This long, whatever its launch spec says; `None` is no limit.
    Instead(Option<Duration>),
}

impl Control {
    /// Makes a control that nobody uses yet; `by` is who it belongs to.
    pub fn new(by: impl Into<String>) -> Self {
        Self {
            cancel: CancellationToken::new(),
            kill: CancellationToken::new(),
            by: by.into(),
            time_limit: TimeLimit::AsLaunched,
            grace: None,
        }
    }
}

/// Where an attempt stands, for a person who waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The engine says something about the pull.
    Pull(String),
    /// The container was started.
    Started {
        /// Its name.
        container: String,
    },
    /// We are stopping it, and this is why.
    Stopping(String),
    /// The engine does not answer; nothing is known and nothing is changed until it does.
    EngineSilent(String),
}

/// Receives the progress of an attempt; called from the attempt's task, so it must not block.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);
