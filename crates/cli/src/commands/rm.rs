//! `rm`: runs that have ended, and all that is known of them.
//!
//! Owns: the command's output and exit code.
//! Reads: nothing else.
//! Never: stops a run.

use dark_factory_executor::error::{ExecutorError, sentence};
use dark_factory_types::{ByteSize, RunId, exit_code};
use serde_json::json;

use super::Format;
use crate::args::RmArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::terminal;

pub(crate) async fn rm(
    context: &Context,
    args: &RmArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let supervisor = context.supervisor()?;
    let mut codes = Vec::new();
    let mut runs: Vec<RunId> = Vec::new();
    if args.all_finished {
        let ended = supervisor.ended_runs().await?;
        runs.extend(ended.into_iter().map(|(run, _)| run));
        if runs.is_empty() && format == Format::Text {
            terminal::print("no run has ended\n");
        }
    }
    for name in &args.runs {
        match supervisor.find_run(name).await {
            Ok(run) if runs.contains(&run) => {}
            Ok(run) => runs.push(run),
            Err(error) => {
                let error = CommandError::from(error);
                error.print();
                codes.push(error.code());
            }
        }
    }
    for run in runs {
        let result = supervisor.remove_run(run).await;
        codes.push(told(run, result, format));
    }
    Ok(exit_code::combine(codes))
}

/// Says what became of a removal; returns its exit code.
pub(crate) fn told(run: RunId, result: Result<ByteSize, ExecutorError>, format: Format) -> u8 {
    let (room, error) = match result {
        Ok(room) => (Some(room), None),
        Err(error) => (None, Some(error)),
    };
    let code = error
        .as_ref()
        .map_or(exit_code::SUCCEEDED, ExecutorError::exit_code);
    match (format, room, error) {
        (Format::Json, room, error) => terminal::print_json(&json!({
            "kind": "run",
            "run_id": run,
            "removed": room.is_some(),
            "freed_bytes": room.map(|room| room.0),
            "error": error.as_ref().map(|error| sentence(error)),
        })),
        (Format::Text, Some(room), _) => {
            terminal::print(&format!("run {run} removed, {room} freed\n"));
        }
        (Format::Text, None, Some(error)) => CommandError::from(error).print(),
        (Format::Text, None, None) => {}
    }
    code
}
