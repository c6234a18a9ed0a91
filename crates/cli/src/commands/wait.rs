//! `wait`: the ends of runs.
//!
//! Owns: the command's output and exit code.
//! Reads: nothing else.
//! Never: stops a run: Ctrl-C ends the waiting.

use std::sync::Arc;

use dark_factory_types::{RunId, exit_code};
use tokio::task::JoinSet;

use super::show::{self, Detail};
use super::{Format, left_open};
use crate::args::RunNames;
use crate::context::Context;
use crate::detach::{self, Starting};
use crate::error::CommandError;
use crate::interrupt::{Interrupts, Reaction};
use crate::tell::Subject;

pub(crate) async fn wait(
    context: &Context,
    names: &RunNames,
    format: Format,
) -> Result<u8, CommandError> {
    let supervisor = Arc::new(context.supervisor()?);
    let interrupts = Interrupts::listen(Reaction::Detach)?;
    let control = supervisor.control("dark-factory wait");
    let mut tasks = JoinSet::new();
    let mut codes = Vec::new();
    let mut runs: Vec<RunId> = Vec::new();
    for name in &names.runs {
        match supervisor.find_run(name).await {
            Ok(run) if runs.contains(&run) => continue,
            Ok(run) => runs.push(run),
            Err(error) => {
                let error = CommandError::from(error);
                error.print();
                codes.push(error.code());
            }
        }
    }
    for &run in &runs {
        let (supervisor, control) = (Arc::clone(&supervisor), control.clone());
        tasks.spawn(async move {
            let progress = show::progress(
                Subject {
                    prefix: format!("[{run}] "),
                    run: Some(run),
                },
                Detail::Needed,
            );
            let report = match supervisor.wait(run, Vec::new(), &control, &progress).await {
                Ok(report) => report,
                Err(error) => return left_open(run, &error),
            };
            let dir = supervisor.state_dir().attempt(report.attempt_id);
            show::ended(&report.file, "", &report, dir.path(), format).await;
            report.outcome.exit_code()
        });
    }
    loop {
        let done = tokio::select! {
            done = tasks.join_next() => done,
            () = interrupts.detached() => {
                tasks.shutdown().await;
                return detach::leave(context, &supervisor, &runs, Starting::Never).await;
            }
        };
        match done {
            Some(code) => {
                codes.push(code.map_err(|error| CommandError::internal("wait for a run", error))?);
            }
            None => return Ok(exit_code::combine(codes)),
        }
    }
}
