//! `attach`: a run's log from its beginning to the run's end.
//!
//! Owns: the command's output and exit code.
//! Reads: the attempt's folder, as `logs` does.
//! Never: stops the run: Ctrl-C only ends the watching.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::follow::Follower;
use super::show::{self, Detail};
use super::{Format, left_open, summary};
use crate::args::AttachArgs;
use crate::context::Context;
use crate::detach::{self, Starting};
use crate::error::CommandError;
use crate::interrupt::{Interrupts, Reaction};
use crate::tell::{self, Subject};
use crate::terminal::{self, Taken};

pub(crate) async fn attach(
    context: &Context,
    args: &AttachArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let supervisor = Arc::new(context.supervisor()?);
    let run = supervisor.find_run(&args.run.run).await?;
    let attempt = supervisor.latest(run).await?;
    let dir = supervisor.state_dir().attempt(attempt.id);
    let interrupts = Interrupts::listen(Reaction::Detach)?;
    let log = Follower::new(dir.run_log(), format);
    let end = log.end();
    let following = tokio::task::spawn_blocking(move || log.follow());
    let mut following = std::pin::pin!(following);
    let mut waiting = JoinSet::new();
    let control = supervisor.control("dark-factory attach");
    {
        let supervisor = Arc::clone(&supervisor);
        waiting.spawn(async move {
            let progress = show::progress(Subject::default(), Detail::Needed);
            supervisor.wait(run, Vec::new(), &control, &progress).await
        });
    }
    let mut taken = None;
    let report = loop {
        tokio::select! {
            done = waiting.join_next() => break done,
            () = interrupts.detached() => {
                waiting.shutdown().await;
                return detach::leave(context, &supervisor, &[run], Starting::Never).await;
            }
            // Nobody reads any more, which does not touch the run; it is followed to its end if it is ours.
            printed = &mut following, if taken.is_none() => taken = Some(printed),
        }
    };
    end.set();
    let report = match report {
        Some(report) => {
            report.map_err(|error| CommandError::internal("wait for the run", error))?
        }
        None => return Err(CommandError::usage("the run was not waited for")),
    };
    let report = match report {
        Ok(report) => report,
        Err(error) => return Ok(left_open(run, &error)),
    };
    let printed = match taken {
        Some(printed) => printed,
        None => tokio::select! {
            printed = following => printed,
            () = interrupts.detached() => return Ok(report.outcome.exit_code()),
        },
    };
    let printed = printed.map_err(|error| CommandError::internal("print the log", error))??;
    if printed == Taken::Yes {
        match format {
            Format::Json => terminal::say_json(&summary(&report, dir.path())).await,
            Format::Text => tell::progress(&format!(
                "run {run} {}: {}",
                report.outcome,
                super::cause(&report)
            )),
        }
    }
    Ok(report.outcome.exit_code())
}
