//! `recover`: finishes what a dead process left.
//!
//! Owns: the command's output and exit code.
//! Reads: nothing else.
//! Never: touches a run that a living process supervises; lets a slow output hold up a deadline.

use std::sync::mpsc;
use std::time::Duration;

use dark_factory_executor::attempt::{OnSilence, Progress};
use dark_factory_executor::error::sentence;
use dark_factory_executor::supervisor::{Leftover, Recovery, Stake, Supervisor};
use dark_factory_types::exit_code;
use serde_json::json;

use super::show::{self, Detail};
use super::{Format, cause, summary};
use crate::context::Context;
use crate::error::CommandError;
use crate::interrupt::{Interrupts, Reaction};
use crate::tell::{self, Subject};
use crate::terminal;

/// How old a container must be to be called left over; as `prune` has it.
const GRACE: Duration = Duration::from_secs(600);

pub(crate) async fn recover(context: &Context, format: Format) -> Result<u8, CommandError> {
    let supervisor = context.supervisor()?;
    let mut control = supervisor.control("Ctrl-C");
    control.on_silence = OnSilence::LeaveOpen;
    let stopping = Interrupts::listen(Reaction::Stop(control.clone()))?;
    let tell = show::progress(Subject::default(), Detail::Needed);
    let progress = |progress| match progress {
        Progress::Started { container } => tell::progress(&format!("started {container}")),
        other => tell(other),
    };
    // Printed elsewhere: what drives the runs must not wait for whoever reads this. So the channel has no bound of its
    // own; it holds at most one message for each attempt that was open at the beginning.
    let (ended, to_print) = mpsc::channel::<Recovery>();
    let printing_with = supervisor.clone();
    let printing = tokio::task::spawn_blocking(move || {
        let codes = to_print
            .iter()
            .filter_map(|recovery| print(&printing_with, &recovery, format));
        codes.collect::<Vec<u8>>()
    });
    let open = supervisor
        .recover_all(&control, &progress, |recovery| {
            if ended.send(recovery).is_err() {
                tracing::debug!("nobody prints any more");
            }
        })
        .await?;
    drop(ended);
    // Nothing is supervised any more, so Ctrl-C may end the waiting for a reader.
    drop(stopping);
    let interrupts = Interrupts::listen(Reaction::Detach)?;
    let printed = tokio::select! {
        printed = printing => printed,
        () = interrupts.detached() => return Ok(exit_code::CANCELLED),
    };
    let codes =
        printed.map_err(|error| CommandError::internal("print what was recovered", error))?;
    if open == 0 && format == Format::Text {
        terminal::print("nothing to recover\n");
    }
    tell_of_leftovers(&supervisor).await;
    Ok(exit_code::combine(codes))
}

/// Says what `prune` would find, if the engine says what there is.
async fn tell_of_leftovers(supervisor: &Supervisor) {
    let leftovers = supervisor.leftovers(GRACE).await;
    let leftovers = leftovers.map(|leftovers| {
        let untold = |leftover: &Leftover| leftover.stake != Some(Stake::Kept);
        leftovers.into_iter().filter(untold).collect::<Vec<_>>()
    });
    match leftovers {
        Ok(leftovers) if leftovers.is_empty() => {}
        Ok(leftovers) => tell::progress(&format!(
            "{} left over that no open run owns: `dark-factory prune` lists them",
            leftovers.len()
        )),
        Err(error) => tracing::debug!(error = %sentence(&error), "leftovers are not known"),
    }
}

/// Prints what became of an open attempt; returns the exit code if it could not be finished.
fn print(supervisor: &Supervisor, recovery: &Recovery, format: Format) -> Option<u8> {
    match recovery {
        Recovery::Finished(report) if format == Format::Json => {
            let dir = supervisor.state_dir().attempt(report.attempt_id);
            terminal::print_json(&summary(report, dir.path()));
        }
        Recovery::Finished(report) => terminal::print(&format!(
            "{} {} {}: {}\n",
            report.attempt_id.run(),
            report.file,
            report.outcome,
            cause(report)
        )),
        Recovery::Supervised(attempt) if format == Format::Json => {
            terminal::print_json(&json!({ "run_id": attempt.run(), "supervised": true }));
        }
        Recovery::Supervised(attempt) => {
            terminal::print(&format!(
                "{} is supervised by a living process\n",
                attempt.run()
            ));
        }
        Recovery::Failed(attempt, error) => {
            let message = format!("run {} stays as it is: {}", attempt.run(), sentence(error));
            let error = CommandError::new(error.exit_code(), message).hint(
                error
                    .advice()
                    .unwrap_or_else(|| "try again later".to_owned()),
            );
            error.print();
            return Some(error.code());
        }
    }
    None
}
