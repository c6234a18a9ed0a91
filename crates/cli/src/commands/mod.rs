//! The commands, one file each.
//!
//! Owns: which command runs, and the views that several of them print.
//! Reads: the parsed command line.
//! Never: does what the library does.

mod attach;
mod completion;
mod config;
mod daemon;
mod demo;
mod doctor;
mod excerpt;
mod exec;
mod explain;
mod follow;
mod image;
mod inspect;
mod logs;
mod man;
mod motion;
mod prompt_file;
mod prune;
mod ps;
mod recover;
mod replay;
mod retry;
mod rm;
mod run;
mod show;
mod stats;
mod stop;
mod wait;
mod watch;

use std::borrow::Cow;

use dark_factory_executor::error::{ExecutorError, sentence};
use dark_factory_executor::store::Motion;
use dark_factory_types::{Report, RunId, RunSummary};

use crate::args::{Args, Command, ConfigCommand};
use crate::context::Context;
use crate::error::CommandError;

pub(crate) use completion::answer_shell;

/// Runs the command and returns the process's exit code.
pub(crate) async fn dispatch(args: Args) -> Result<u8, CommandError> {
    let Args { global, command } = args;
    let format = if global.json {
        Format::Json
    } else {
        Format::Text
    };
    // Not for `replay`: a recording needs no state folder, and so no home to have one in.
    let context = || Context::new(&global);
    match command {
        Command::Run(run) => run::run(&context()?, &run, format).await,
        Command::Explain(explain) => explain::explain(&context()?, &explain, format).await,
        Command::Retry(retry) => retry::retry(&context()?, &retry, format).await,
        Command::Ps(ps) => ps::ps(&context()?, &ps, format).await,
        Command::Logs(logs) => logs::logs(&context()?, &logs, format).await,
        Command::Stop(stop) => stop::stop(&context()?, &stop, format).await,
        Command::Pause(runs) => {
            motion::set_motion(&context()?, &runs, Motion::Frozen, format).await
        }
        Command::Resume(runs) => {
            motion::set_motion(&context()?, &runs, Motion::Going, format).await
        }
        Command::Wait(runs) => wait::wait(&context()?, &runs, format).await,
        Command::Attach(run) => attach::attach(&context()?, &run, format).await,
        Command::Daemon(daemon) => daemon::daemon(&context()?, &daemon, format).await,
        Command::Rm(rm) => rm::rm(&context()?, &rm, format).await,
        Command::Prune(prune) => prune::prune(&context()?, &prune, format).await,
        Command::Exec(exec) => exec::exec(&context()?, &exec).await,
        Command::Shell(run) => exec::shell(&context()?, &run).await,
        Command::Stats(stats) => stats::stats(&context()?, &stats, format).await,
        Command::Inspect(run) => inspect::inspect(&context()?, &run, format).await,
        Command::Replay(replay) => replay::replay(&replay, format),
        // A schema needs no state folder either.
        Command::Config(ConfigCommand::Schema) => Ok(config::schema()),
        Command::Config(ConfigCommand::Show(show)) => config::show(&context()?, &show, format),
        Command::Config(ConfigCommand::Validate(validate)) => {
            config::validate(&context()?, &validate, format)
        }
        Command::Recover => recover::recover(&context()?, format).await,
        Command::Image(image) => image::image(&context()?, &image, format).await,
        Command::Demo(demo) => demo::demo(&context()?, &demo, format).await,
        Command::Doctor(doctor) => Box::pin(doctor::doctor(&context()?, &doctor, format)).await,
        Command::Guard => crate::guard::guard(&context()?).await,
        Command::Completion(completion) => completion::completion(&completion),
        Command::Man(man) => man::man(&man),
    }
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Summarises a report whose attempt folder is `dir`.
fn summary(report: &Report, dir: &std::path::Path) -> RunSummary {
    RunSummary::of(report, dir.display().to_string())
}

/// Returns why a run ended so; it may be in the agent's words, so nothing in it reaches a terminal as a command.
fn cause(report: &Report) -> Cow<'_, str> {
    dark_factory_agents::neutralise(&report.cause)
}

/// Says that the engine does not answer while a run is waited for.
fn engine_silent(why: &str) -> String {
    format!("{why}; the run's state is unknown, waiting for the engine to come back")
}

/// Says that a run has begun and could not be brought to its end; returns the exit code.
fn left_open(run: RunId, error: &ExecutorError) -> u8 {
    let message = format!("run {run} stays open: {}", sentence(error));
    let recover = "`dark-factory recover` goes on with it";
    let mut left = CommandError::new(error.exit_code(), message);
    if let Some(advice) = error.advice() {
        left = left.hint(advice);
    }
    let error = left.hint(recover);
    error.print();
    error.code()
}

/// Shows a number of seconds as people do.
pub(crate) fn human_seconds(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1}s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole seconds of a run"
    )]
    let whole = seconds as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

/// Returns how long an attempt ran, in seconds; `None` if it never started.
fn seconds(report: &Report) -> Option<f64> {
    Some(
        report
            .finished_at
            .duration_since(report.started_at?)
            .as_secs_f64(),
    )
}
