//! Printing a log that grows.
//!
//! Owns: the place up to which it was printed.
//! Reads: the log's file.
//! Never: minds that another supervisor writes the file anew: its bytes are the same.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal as _, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dark_factory_agents::neutralise;
use serde_json::json;

use super::Format;
use super::excerpt::Excerpt;
use super::watch::{Waker, Watch};
use crate::error::CommandError;
use crate::terminal::{self, Taken};

/// How often a followed file is looked at, should its watch miss something.
pub(crate) const SAFETY: Duration = Duration::from_secs(1);

/// The end of what is followed.
#[derive(Debug, Clone)]
pub(crate) struct End {
    is_there: Arc<AtomicBool>,
    waker: Waker,
}

impl End {
    /// Says that nothing more comes than what is there.
    pub(crate) fn set(&self) {
        self.is_there.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// A log that is printed, from its beginning or from where an excerpt of it begins.
#[derive(Debug)]
pub(crate) struct Follower {
    file: Option<File>,
    path: PathBuf,
    format: Format,
    excerpt: Excerpt,
    /// Whether a person sees it at once.
    is_terminal: bool,
    pending: Vec<u8>,
    watch: Watch,
    is_ended: Arc<AtomicBool>,
}

impl Follower {
    /// Begins with a log, which may not be there yet. As JSON, each whole line is an object of its time and its text.
    pub(crate) fn new(path: PathBuf, format: Format) -> Self {
        Self {
            file: None,
            watch: Watch::new(&path),
            is_ended: Arc::default(),
            path,
            format,
            excerpt: Excerpt::default(),
            is_terminal: io::stdout().is_terminal(),
            pending: Vec::new(),
        }
    }

    /// Returns the same follower, which begins with an excerpt of what is there already.
    pub(crate) fn with_excerpt(mut self, excerpt: Excerpt) -> Self {
        self.excerpt = excerpt;
        self
    }

    /// Returns what ends the following.
    pub(crate) fn end(&self) -> End {
        End {
            is_there: Arc::clone(&self.is_ended),
            waker: self.watch.waker(),
        }
    }

    /// Prints until the end is set and everything that was there by then is printed. Blocks.
    pub(crate) fn follow(mut self) -> Result<Taken, CommandError> {
        loop {
            // Read before the file is, so that what was written before the end is printed.
            let last = self.is_ended.load(Ordering::Acquire);
            if self.print()? == Taken::No {
                return Ok(Taken::No);
            }
            if last {
                return Ok(Taken::Yes);
            }
            self.wait(SAFETY);
        }
    }

    /// Waits until there may be more, or at most so long. Blocks.
    pub(crate) fn wait(&mut self, most: Duration) {
        self.watch.wait(most);
    }

    /// Prints what is there and was not printed yet. Blocks.
    pub(crate) fn print(&mut self) -> Result<Taken, CommandError> {
        loop {
            let bytes = self.read()?;
            if bytes.is_empty() {
                return Ok(Taken::Yes);
            }
            let taken = match self.format {
                Format::Text if self.is_terminal => self.print_shown(&bytes),
                Format::Text => terminal::print_bytes(&bytes),
                Format::Json => self.print_json(&bytes),
            };
            if taken == Taken::No {
                return Ok(Taken::No);
            }
        }
    }

    /// Prints what a terminal would obey as something that it shows.
    fn print_shown(&mut self, bytes: &[u8]) -> Taken {
        self.pending.extend(bytes);
        let whole = match str::from_utf8(&self.pending) {
            // The rest of its last character comes with the next bytes.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.pending.len(),
        };
        let bytes: Vec<u8> = self.pending.drain(..whole).collect();
        let text = String::from_utf8_lossy(&bytes);
        terminal::print_bytes(neutralise(&text).as_bytes())
    }

    fn print_json(&mut self, bytes: &[u8]) -> Taken {
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
                return Taken::No;
            }
        }
        Taken::Yes
    }

    fn read(&mut self) -> Result<Vec<u8>, CommandError> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(mut file) => {
                    self.excerpt
                        .start(&mut file)
                        .and_then(|start| file.seek(SeekFrom::Start(start)))
                        .map_err(|error| CommandError::internal("read the log", error))?;
                    self.file = Some(file);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    // All of what comes is new.
                    self.excerpt = Excerpt::default();
                    return Ok(Vec::new());
                }
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
