//! `logs`: what a run's agent did.
//!
//! Owns: following a file until its run has ended.
//! Reads: the attempt's folder, and the store to know of the end.
//! Never: reads the engine's log.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use dark_factory_executor::error::ExecutorError;
use dark_factory_types::exit_code;
use serde_json::json;

use super::Format;
use crate::args::LogsArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::terminal::{self, Taken};

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
    let mut log = Follower {
        file: None,
        path: &path,
        pending: Vec::new(),
    };
    loop {
        // Read before the file is, so that what was written before the end is printed.
        let row = supervisor
            .store()
            .attempt(attempt.id)
            .await
            .map_err(ExecutorError::from)?;
        let ended = row.is_none_or(|row| row.report.is_some());
        let taken = if format == Format::Json {
            log.print_json()
        } else {
            log.print_bytes()
        }?;
        if taken == Taken::No || ended || !args.follow {
            return Ok(exit_code::SUCCEEDED);
        }
        tokio::time::sleep(FOLLOW_CHECK).await;
    }
}

struct Follower<'a> {
    file: Option<File>,
    path: &'a Path,
    pending: Vec<u8>,
}

impl Follower<'_> {
    fn print_bytes(&mut self) -> Result<Taken, CommandError> {
        loop {
            let bytes = self.read()?;
            if bytes.is_empty() {
                return Ok(Taken::Yes);
            }
            if terminal::print_bytes(&bytes) == Taken::No {
                return Ok(Taken::No);
            }
        }
    }

    /// Prints each whole line of the log for people as an object of its time and its text.
    fn print_json(&mut self) -> Result<Taken, CommandError> {
        loop {
            let bytes = self.read()?;
            if bytes.is_empty() {
                return Ok(Taken::Yes);
            }
            self.pending.extend(bytes);
            while let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                let (at, text) = line
                    .trim_end_matches('\n')
                    .split_once(' ')
                    .unwrap_or(("", &line));
                let object = json!({ "at": at, "text": text });
                if terminal::print_bytes(format!("{object}\n").as_bytes()) == Taken::No {
                    return Ok(Taken::No);
                }
            }
        }
    }

    fn read(&mut self) -> Result<Vec<u8>, CommandError> {
        if self.file.is_none() {
            match File::open(self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(CommandError::internal("open the log", error)),
            }
        }
        let mut bytes = vec![0; 64 * 1024];
        let Some(file) = &mut self.file else {
            return Ok(Vec::new());
        };
        let read = file
            .read(&mut bytes)
            .map_err(|error| CommandError::internal("read the log", error))?;
        bytes.truncate(read);
        Ok(bytes)
    }
}
