//! `stop`: ends runs, and says how they ended.
//!
//! Owns: the command's output.
//! Reads: nothing else.
//! Never: returns before the end state is recorded.

use dark_factory_executor::spec::StopPolicy;
use dark_factory_executor::supervisor::Stopped;
use dark_factory_types::{exit_code, parse_duration};

use super::{Format, summary};
use crate::args::StopArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::terminal;

pub(crate) async fn stop(
    context: &Context,
    args: &StopArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let policy = match args.grace.as_deref() {
        None => None,
        Some("0" | "0s") => Some(StopPolicy::kill()),
        Some(grace) => {
            let grace = parse_duration(grace)
                .map_err(|error| CommandError::usage(format!("--grace: {error}")))?;
            Some(StopPolicy {
                grace,
                ..StopPolicy::default()
            })
        }
    };
    let supervisor = context.supervisor()?;
    let mut codes = Vec::new();
    for name in &args.runs {
        let result = match supervisor.find_run(name).await {
            Ok(run) => {
                supervisor
                    .stop(run, "dark-factory stop", policy.as_ref())
                    .await
            }
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
                    report.cause
                ));
            }
            Ok(Stopped::WasFinished(report)) => terminal::print(&format!(
                "{} had ended before, {}: {}\n",
                report.attempt_id.run(),
                report.outcome,
                report.cause
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
