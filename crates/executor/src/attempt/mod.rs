//! One attempt, from wherever it stands to its report.
//!
//! Owns: the order of steps: intent into the store, step, result into the store.
//! Reads: the attempt's row; requests of the caller's [`Control`].
//! Never: does a step that the store does not know of.

mod bulk;
mod cursor;
mod derived;
mod drive;
mod event_log;
mod facts;
mod finish;
mod follow;
mod intent;
mod layer;
mod patience;
mod plan;
mod pulse;
mod pump;
mod readers;
mod reconcile;
mod secrets;
mod watch;
mod worker;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::PullAmount;
use crate::store::AttemptState;

pub(crate) use derived::is_full;
pub(crate) use drive::Drive;
pub(crate) use intent::safe_intent;

/// How long a full disk is waited out, unless something else is asked for.
pub(crate) const DISK_PATIENCE: Duration = Duration::from_secs(600);

/// How a caller influences an attempt that it is waiting for.
#[derive(Debug, Clone)]
pub struct Control {
    cancel: CancellationToken,
    kill: CancellationToken,
    asked_by: Arc<OnceLock<String>>,
    by: String,
    /// How long the workload may run.
    pub time_limit: TimeLimit,
    /// What is done while the engine does not answer and the workload is not followed yet.
    pub on_silence: OnSilence,
    /// How long a full disk is waited out before the attempt is left open.
    pub disk_patience: Duration,
}

/// What a supervisor does while the engine does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnSilence {
    /// It waits until the engine is back.
    #[default]
    Wait,
    /// It leaves the attempt open, with an error.
    LeaveOpen,
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
    /// Makes a control that nobody uses yet; `by` is who it belongs to, as a cause names it.
    pub fn new(by: impl Into<String>) -> Self {
        Self {
            cancel: CancellationToken::new(),
            kill: CancellationToken::new(),
            asked_by: Arc::default(),
            by: by.into(),
            time_limit: TimeLimit::AsLaunched,
            on_silence: OnSilence::Wait,
            disk_patience: DISK_PATIENCE,
        }
    }

    /// Makes a control whose attempts are cancelled along with a token; `by` is who it belongs to.
    pub fn with_token(by: impl Into<String>, cancel: CancellationToken) -> Self {
        Self {
            cancel,
            ..Self::new(by)
        }
    }

    /// Stops the workload, giving it its grace; the outcome is then `cancelled`, by whoever asked first.
    pub fn cancel(&self, by: &str) {
        self.asked_by.get_or_init(|| by.to_owned());
        self.cancel.cancel();
    }

    /// Kills the workload at once, after or instead of [`Control::cancel`]. An attempt whose engine does not answer
    /// is left open.
    pub fn kill(&self) {
        self.kill.cancel();
    }

    /// Returns whether a cancel was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled() || self.kill.is_cancelled()
    }

    /// Returns who cancels.
    fn by(&self) -> String {
        self.asked_by.get().unwrap_or(&self.by).clone()
    }
}

/// Where an attempt stands, for a person who waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It has come this far, which is recorded.
    Entered(AttemptState),
    /// The engine says something about the pull.
    Pull(String),
    /// How much of the pull is done.
    Pulled(PullAmount),
    /// The container was started.
    Started {
        /// Its name.
        container: String,
    },
    /// We are stopping it, and this is why.
    Stopping(String),
    /// The engine does not answer; nothing is known and nothing is changed until it does.
    EngineSilent(String),
    /// The engine answers again.
    EngineBack,
    /// The workload is frozen.
    Paused,
    /// The workload goes on.
    Resumed,
    /// The disk is full, so the agent is paused until there is room.
    DiskFull,
    /// There is room again.
    DiskRoom,
}

/// Receives the progress of an attempt; called from the attempt's task, so it must not block.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);
