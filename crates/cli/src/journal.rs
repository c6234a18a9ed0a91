//! The daemon's log: `daemon.log` in the state folder.
//!
//! Owns: the file, and the one before it, `daemon.log.1`.
//! Reads: nothing.
//! Never: is opened by a process that is not the daemon.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use dark_factory_executor::daemon::Seat;

use crate::terminal::Echo;

/// The size in bytes from which on a new file is begun.
const LIMIT: u64 = 10 << 20;

static JOURNAL: OnceLock<Mutex<Journal>> = OnceLock::new();

/// Whether the daemon has a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    /// It may have one, where its log is shown too.
    Foreground,
    /// It has none.
    Detached,
}

#[derive(Debug)]
struct Journal {
    file: File,
    size: u64,
    path: PathBuf,
    session: Session,
}

/// Returns where a state folder's daemon writes its log.
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("daemon.log")
}

/// Lets this process's log go to the file too from now on; only the seat's holder may.
pub(crate) fn open(seat: &Seat) -> io::Result<()> {
    let path = path(seat.state_dir());
    let journal = Journal {
        file: append(&path)?,
        size: std::fs::metadata(&path)?.len(),
        path,
        session: Session::Foreground,
    };
    if JOURNAL.set(Mutex::new(journal)).is_err() {
        tracing::debug!("the log was open already");
    }
    Ok(())
}

/// Lets the log go to the file alone, and whatever else comes to standard error as well, such as a panic.
pub(crate) fn detach() -> io::Result<()> {
    let Some(journal) = JOURNAL.get() else {
        return Ok(());
    };
    let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
    journal.session = Session::Detached;
    journal.take_stderr()
}

/// Writes to the file, if this process is a daemon; returns whether the terminal is to have it too.
pub(crate) fn write(text: &str) -> Echo {
    let Some(journal) = JOURNAL.get() else {
        return Echo::Yes;
    };
    let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
    // What cannot be logged, on a full disk say, is no reason to do anything else.
    let written = journal.write(text);
    match (written, journal.session) {
        (Ok(()), Session::Detached) => Echo::No,
        _ => Echo::Yes,
    }
}

impl Journal {
    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.size >= LIMIT {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = append(&self.path)?;
            self.size = 0;
            self.take_stderr()?;
        }
        self.file.write_all(text.as_bytes())?;
        self.size += text.len() as u64;
        Ok(())
    }

    /// Makes the file standard error, if nobody sees that.
    fn take_stderr(&self) -> io::Result<()> {
        match self.session {
            Session::Foreground => Ok(()),
            Session::Detached => Ok(rustix::stdio::dup2_stderr(&self.file)?),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}
