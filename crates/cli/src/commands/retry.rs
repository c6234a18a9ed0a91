//! `retry`: another attempt of a run that has ended.
//!
//! Owns: nothing else.
//! Reads: the environment, for secrets; the configuration, for what Ctrl-C does.
//! Never: reads the prompt's file.

use std::sync::Arc;

use dark_factory_executor::settings::OnInterrupt;

use super::Format;
use super::run::{Events, Job, Launch, Manner, carry_out, queue};
use crate::args::RetryArgs;
use crate::config;
use crate::context::Context;
use crate::error::CommandError;
use crate::terminal::Lines;

pub(crate) async fn retry(
    context: &Context,
    args: &RetryArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let supervisor = Arc::new(context.supervisor()?);
    let run = supervisor.find_run(&args.run.run).await?;
    let retry = supervisor.retry(run, &context.host).await?;
    let project = [&retry.resolved.spec.workspace.source];
    let tool = config::tool(context, project.into_iter())?;
    let jobs = vec![Job {
        name: retry.resolved.spec.file.clone(),
        launch: Launch::Again(retry),
    }];
    if args.detach {
        return queue(context, &supervisor, jobs, format).await;
    }
    let manner = Manner {
        at_once: 1,
        events: if args.quiet {
            Events::Hidden
        } else {
            Events::Shown
        },
        on_interrupt: tool
            .on_interrupt
            .map_or_else(OnInterrupt::default, |what| what.value),
        format,
        lines: Lines::Ours,
    };
    carry_out(context, &supervisor, jobs, manner).await
}
