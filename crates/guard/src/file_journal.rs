//! The record of one run's requests, in its attempt's folder.
//!
//! Owns: the file, which only grows.
//! Reads: the clock that it was given.
//! Never: lets a run fill the disk with refusals.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::journal::{Entry, Fate, Journal};

/// The most that is written down of one run, in bytes.
const MOST: u64 = 16 << 20;
/// The same for entries that must not be lost. Each stands for a request to a model, of some 300 bytes.
const MOST_KEPT: u64 = 256 << 20;

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
    /// Whether the last line may not be whole.
    is_torn: bool,
}

impl FileJournal {
    /// Opens the file to append to it.
    pub(crate) fn open(path: &Path, now: Now) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("its journal is not a file"));
        }
        let length = metadata.len();
        let is_torn = length > 0 && {
            let mut last = [0];
            file.read_exact_at(&mut last, length - 1)?;
            last != *b"\n"
        };
        Ok(Self {
            file: Mutex::new(Bounded {
                file,
                length,
                is_torn,
            }),
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

    fn keep(&self, entry: Entry) -> io::Result<()> {
        let mut bounded = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if bounded.length >= MOST_KEPT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        bounded.write(&entry)
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
        self.write(entry)?;
        if self.length >= MOST {
            self.write(&Entry {
                at: entry.at,
                target: String::new(),
                fate: Fate::Omitted,
            })?;
        }
        Ok(())
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        // A write that failed may have left half a line behind.
        if std::mem::replace(&mut self.is_torn, true) {
            line.insert(0, b'\n');
        }
        // In one call, so that a reader sees whole lines.
        self.file.write_all(&line)?;
        self.is_torn = false;
        self.length += u64::try_from(line.len()).unwrap_or(MOST_KEPT);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fate: Fate) -> Entry {
        Entry {
            at: Timestamp::UNIX_EPOCH,
            target: "a.example:443".to_owned(),
            fate,
        }
    }

    #[test]
    fn an_entry_that_must_not_be_lost_is_refused_if_it_cannot_be_written() {
        let file = File::open("/dev/null").unwrap();
        let journal = FileJournal {
            file: Mutex::new(Bounded {
                file,
                length: 0,
                is_torn: false,
            }),
            now: || Timestamp::UNIX_EPOCH,
        };

        let kept = journal.keep(entry(Fate::Omitted));

        assert!(kept.is_err());
    }

    #[test]
    fn refusals_end_at_the_bound_and_what_must_not_be_lost_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        let journal = FileJournal::open(&path, || Timestamp::UNIX_EPOCH).unwrap();
        journal.file.lock().unwrap().length = MOST;
        let denied = || {
            entry(Fate::Denied {
                why: "no".to_owned(),
            })
        };

        journal.record(denied());
        journal.keep(denied()).unwrap();

        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
