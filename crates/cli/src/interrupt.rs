//! Ctrl-C and its relatives: once stops, twice kills; or once leaves the run alone.
//!
//! Owns: the process's signal handlers.
//! Reads: nothing.
//! Never: ends the process: the run's own end does.

use dark_factory_executor::attempt::Control;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::CommandError;
use crate::tell;

/// What a first Ctrl-C means.
#[derive(Debug, Clone)]
pub(crate) enum Reaction {
    /// To stop the agents of this control; the second kills them.
    Stop(Control),
    /// To let go of the runs, which go on.
    Detach,
}

/// Listens for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Interrupts {
    detach: CancellationToken,
    _task: JoinSet<()>,
}

impl Interrupts {
    /// Reacts to SIGINT and SIGTERM; SIGHUP never touches a run.
    pub(crate) fn listen(reaction: Reaction) -> Result<Self, CommandError> {
        let listen = |kind| {
            signal(kind).map_err(|error| CommandError::internal("listen for signals", error))
        };
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut hangup = listen(SignalKind::hangup())?;
        let detach = CancellationToken::new();
        let detached = detach.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let by = tokio::select! {
                    _ = interrupt.recv() => "Ctrl-C",
                    _ = terminate.recv() => "SIGTERM",
                    _ = hangup.recv() => continue,
                };
                match &reaction {
                    Reaction::Detach => detached.cancel(),
                    Reaction::Stop(control) if control.is_cancelled() => {
                        tell::progress("killing the agent");
                        control.kill();
                    }
                    Reaction::Stop(control) => {
                        tell::progress("stopping the agent; once more kills it");
                        control.cancel(by);
                    }
                }
            }
        });
        Ok(Self {
            detach,
            _task: task,
        })
    }

    /// Waits until the runs are to be let go of; never ends where Ctrl-C stops them. Cancel-safe.
    pub(crate) async fn detached(&self) {
        self.detach.cancelled().await;
    }
}
