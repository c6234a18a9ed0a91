//! `logs`: what a run's agent did.
//!
//! Owns: knowing of the run's end.
//! Reads: the attempt's folder, and the store.
//! Never: reads the engine's log.

use std::time::Duration;

use dark_factory_executor::error::ExecutorError;
use dark_factory_types::exit_code;

use super::Format;
use super::follow::Follower;
use crate::args::LogsArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::terminal::Taken;

/// How often a followed file is looked at.
const FOLLOW_CHECK: Duration = Duration::from_millis(100);

pub(crate) async fn logs(
    context: &Context,
    args: &LogsArgs,
    format: Format,
) -> Result<u8, CommandError> {
    let supervisor = context.supervisor()?;
    let attempt = supervisor.find_attempt(&args.run.run).await?;
    let dir = supervisor.state_dir().attempt(attempt.id);
    let path = if args.raw {
        dir.raw_log()
    } else {
        dir.run_log()
    };
    let mut log = Follower::new(path, format);
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
        tokio::time::sleep(FOLLOW_CHECK).await;
    }
}
