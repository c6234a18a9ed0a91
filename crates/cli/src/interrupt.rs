//! Ctrl-C and its relatives: once stops, twice kills.
//!
//! Owns: the process's signal handlers.
//! Reads: nothing.
//! Never: ends the process: the run's own end does.

use dark_factory_executor::attempt::Control;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::error::CommandError;
use crate::terminal;

/// Listens for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Interrupts {
    _task: JoinSet<()>,
}

impl Interrupts {
    /// Cancels `control` at the first SIGINT or SIGTERM and kills at the second; SIGHUP never touches a run.
    pub(crate) fn listen(control: &Control) -> Result<Self, CommandError> {
        let listen = |kind| {
            signal(kind).map_err(|error| CommandError::internal("listen for signals", error))
        };
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut hangup = listen(SignalKind::hangup())?;
        let control = control.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let by = tokio::select! {
                    _ = interrupt.recv() => "Ctrl-C",
                    _ = terminate.recv() => "SIGTERM",
                    _ = hangup.recv() => continue,
                };
                if control.is_cancelled() {
                    terminal::eprint("killing the agent\n");
                    control.kill();
                } else {
                    terminal::eprint("stopping the agent; once more kills it\n");
                    control.cancel(by);
                }
            }
        });
        Ok(Self { _task: task })
    }
}
