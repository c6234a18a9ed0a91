//! `pause` and `resume`: freezes runs, and lets them go on.
//!
//! Owns: the commands' output.
//! Reads: nothing else.
//! Never: returns before it is done.

use dark_factory_executor::store::Motion;
use dark_factory_executor::supervisor::Moved;
use dark_factory_types::exit_code;
use serde_json::json;

use super::Format;
use crate::args::RunNames;
use crate::context::Context;
use crate::error::CommandError;
use crate::terminal;

pub(crate) async fn set_motion(
    context: &Context,
    names: &RunNames,
    motion: Motion,
    format: Format,
) -> Result<u8, CommandError> {
    let supervisor = context.supervisor()?;
    let mut codes = Vec::new();
    let (what, wanted) = match motion {
        Motion::Frozen => ("paused", "pause"),
        Motion::Going => ("resumed", "resume"),
    };
    for name in &names.runs {
        let moved = match supervisor.find_run(name).await {
            Ok(run) => supervisor
                .set_motion(run, motion)
                .await
                .map(|moved| (run, moved)),
            Err(error) => Err(error),
        };
        let error = match moved {
            Ok((run, Moved::Done)) => {
                match format {
                    Format::Json => terminal::print_json(&json!({ "run_id": run, "done": what })),
                    Format::Text => terminal::print(&format!("{run} {what}\n")),
                }
                continue;
            }
            Ok((run, Moved::HasEnded)) => CommandError::usage(format!(
                "run {run} has nothing to {wanted}: it has ended, or is being stopped"
            )),
            Err(error) => error.into(),
        };
        error.print();
        codes.push(error.code());
    }
    Ok(exit_code::combine(codes))
}
