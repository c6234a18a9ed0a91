//! `stop`: ends runs, and says how they ended.
//!
//! Owns: the command's output.
//! Reads: nothing else.
//! Never: returns before the end state is recorded.

use dark_factory_executor::settings::parse_grace;
use dark_factory_executor::supervisor::Stopped;
use dark_factory_types::exit_code;

use super::{Format, cause, summary};
use crate::args::StopArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::terminal;

pub(crate) async fn stop(
    context: &Context,
    args: &StopArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let grace = args
        .grace
        .as_deref()
        .map(parse_grace)
        .transpose()
        .map_err(|error| CommandError::usage(format!("--grace {error}")))?;
    let supervisor = context.supervisor()?;
    let mut codes = Vec::new();
    for name in &args.runs {
        let result = match supervisor.find_run(name).await {
            Ok(run) => supervisor.stop(run, "dark-factory stop", grace).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(Stopped::Finished(report) | Stopped::WasFinished(report))
                if format == Format::Json =>
            {
                let dir = supervisor.state_dir().attempt(report.attempt_id);
                terminal::print_json(&summary(&report, dir.path()));
            }
            Ok(Stopped::Finished(report)) => {
                terminal::print(&format!(
                    "{} {}: {}\n",
                    report.attempt_id.run(),
                    report.outcome,
                    cause(&report)
                ));
            }
            Ok(Stopped::WasFinished(report)) => terminal::print(&format!(
                "{} had ended before, {}: {}\n",
                report.attempt_id.run(),
                report.outcome,
                cause(&report)
            )),
            Err(error) => {
                let error = CommandError::from(error);
                error.print();
                codes.push(error.code());
            }
        }
    }
    Ok(exit_code::combine(codes))
}
