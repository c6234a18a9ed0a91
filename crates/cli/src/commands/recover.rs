//! `recover`: finishes what a dead process left.
//!
//! Owns: the command's output and exit code.
//! Reads: nothing else.
//! Never: touches a run that a living process supervises.

use dark_factory_executor::attempt::{Control, OnSilence, Progress};
use dark_factory_executor::error::sentence;
use dark_factory_executor::supervisor::{Recovery, Supervisor};
use dark_factory_types::exit_code;
use serde_json::json;

use super::{DISK_FULL, Format, cause, engine_silent, summary};
use crate::context::Context;
use crate::error::CommandError;
use crate::interrupt::Interrupts;
use crate::terminal;

pub(crate) async fn recover(context: &Context, format: Format) -> Result<u8, CommandError> {
    let supervisor = context.supervisor()?;
    let mut control = Control::new("Ctrl-C");
    control.on_silence = OnSilence::LeaveOpen;
    let _interrupts = Interrupts::listen(&control)?;
    let progress = |progress| match progress {
        Progress::Started { container } => terminal::eprint(&format!("started {container}\n")),
        Progress::EngineSilent(why) => terminal::eprint(&format!("{}\n", engine_silent(&why))),
        Progress::DiskFull => terminal::eprint(&format!("{DISK_FULL}\n")),
        _ => {}
    };
    let mut codes = Vec::new();
    let open = supervisor
        .recover_all(&control, &progress, |recovery| {
            codes.extend(print(&supervisor, &recovery, format));
        })
        .await?;
    if open == 0 && format == Format::Text {
        terminal::print("nothing to recover\n");
    }
    Ok(exit_code::combine(codes))
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
