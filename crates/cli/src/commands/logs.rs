//! `logs`: what a run's agent did.
//!
//! Owns: knowing of the run's end.
//! Reads: the attempt's folder, and the store.
//! Never: reads the engine's log.

use std::time::Duration;

use dark_factory_executor::error::ExecutorError;
use dark_factory_executor::settings::parse_timeout;
use dark_factory_types::exit_code;
use jiff::{SignedDuration, Timestamp};

use super::Format;
use super::excerpt::Excerpt;
use super::follow::{Follower, SAFETY};
use crate::args::LogsArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::terminal::Taken;

/// How often it is looked whether a run has ended whose report is there already.
const ENDING: Duration = Duration::from_millis(20);

pub(crate) async fn logs(
    context: &Context,
    args: &LogsArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let supervisor = context.supervisor()?;
    let excerpt = Excerpt {
        tail: args.tail,
        since: since(args, supervisor.clock().now())?,
    };
    let attempt = supervisor.find_attempt(&args.run.run).await?;
    let dir = supervisor.state_dir().attempt(attempt.id);
    let path = match (args.raw, args.stderr) {
        (true, _) => dir.raw_log(),
        (_, true) => dir.stderr_log(),
        _ => dir.run_log(),
    };
    let mut log = Follower::new(path, format).with_excerpt(excerpt);
    loop {
        // Read before the file is, so that what was written before the end is printed.
        let row = supervisor
            .store()
            .attempt(attempt.id)
            .await
            .map_err(ExecutorError::from)?;
        let ended = row.is_none_or(|row| row.report.is_some());
        let taken = log.print()?;
        if taken == Taken::No || ended || !args.follow {
            return Ok(exit_code::SUCCEEDED);
        }
        let most = match dir.report_json().exists() {
            true => ENDING,
            false => SAFETY,
        };
        let waiting = tokio::task::spawn_blocking(move || {
            log.wait(most);
            log
        });
        log = waiting
            .await
            .map_err(|error| CommandError::internal("wait for the log", error))?;
    }
}

/// Returns the time that `--since` means.
fn since(args: &LogsArgs, now: Timestamp) -> Result<Option<Timestamp>, CommandError> {
    let Some(text) = &args.since else {
        return Ok(None);
    };
    if args.raw || args.stderr {
        let what = if args.raw { "--raw" } else { "--stderr" };
        return Err(CommandError::usage(format!(
            "--since goes by the times of the log's lines, and {what} has none"
        ))
        .hint("leave one of the two out, or use --tail"));
    }
    time_ago(text, now).map(Some)
}

/// Returns the time that a text means: a time, or how long ago it was.
pub(super) fn time_ago(text: &str, now: Timestamp) -> Result<Timestamp, CommandError> {
    let ago = |ago| now.checked_sub(SignedDuration::try_from(ago).ok()?).ok();
    let time = match (text.parse(), parse_timeout(text)) {
        (Ok(time), _) => Some(time),
        (Err(_), duration) => duration.ok().and_then(ago),
    };
    match time {
        Some(time) if time <= now => Ok(time),
        Some(_) => Err(CommandError::usage(format!(
            "--since {text} is still to come"
        ))),
        None => Err(CommandError::usage(format!(
            "--since must be a time such as 2026-11-28T13:00:00Z, or a time ago such as 10m, not {text:?}"
        ))),
    }
}
