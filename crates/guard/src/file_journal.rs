//! The record of one run's requests, in its attempt's folder.
//!
//! Owns: the file, which only grows.
//! Reads: the clock that it was given.
//! Never: lets a run fill the disk with refusals.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::journal::{Entry, Fate, Journal};

/// The most that is written down of one run, in bytes.
const MOST: u64 = 16 << 20;

/// Tells the time.
pub type Now = fn() -> Timestamp;

/// A journal in a file.
#[derive(Debug)]
pub(crate) struct FileJournal {
    file: Mutex<Bounded>,
    now: Now,
}

#[derive(Debug)]
struct Bounded {
    file: File,
    length: u64,
}

impl FileJournal {
    /// Opens the file to append to it.
    pub(crate) fn open(path: &Path, now: Now) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            file: Mutex::new(Bounded { file, length }),
            now,
        })
    }
}

impl Journal for FileJournal {
    fn record(&self, entry: Entry) {
        let mut bounded = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = bounded.append(&entry) {
            tracing::warn!(%error, target_of_run = entry.target, "a request of a run is not written down");
        }
    }

    fn now(&self) -> Timestamp {
        (self.now)()
    }
}

impl Bounded {
    fn append(&mut self, entry: &Entry) -> io::Result<()> {
        if self.length >= MOST {
            return Ok(());
        }
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.length += u64::try_from(line.len()).unwrap_or(MOST);
        if self.length >= MOST {
            let last = Entry {
                at: entry.at,
                target: String::new(),
                fate: Fate::Omitted,
            };
            line = serde_json::to_vec(&last)?;
            line.push(b'\n');
        }
        // In one call, so that a reader sees whole lines.
        self.file.write_all(&line)
    }
}
