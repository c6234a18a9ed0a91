//! Where a pump was, written down, so that the next one need not begin at the spool's first byte.
//!
//! Owns: `cursor.json`, and the thread that writes it.
//! Reads: what is in the attempt's folder, to see whether it fits.
//! Never: says more of a file than is on the disk, or holds the pump up; where there is a doubt, there is no cursor.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dark_factory_agents::TextState;
use dark_factory_types::AttemptId;
use futures_util::FutureExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::readers::Rest;
use super::worker::Worker;
use crate::failpoint::reach;
use crate::spec::AttemptDir;
use crate::state_dir::{sha256_hex, write_durably};

/// The version of what is written. Raise it whenever it has another form or another meaning.
const VERSION: u32 = 2;
/// What derived the files: another build may derive other ones.
const BUILD: &str = env!("CARGO_PKG_VERSION");

/// What is written: a place, and whose and which version's it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    build: String,
    attempt: AttemptId,
    cursor: Cursor,
}

/// A place in a spool, between two records, and all that was known there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cursor {
    /// The position in the spool.
    pub(super) position: u64,
    /// How much of each stream there was, by its index.
    pub(super) offsets: [u64; 2],
    /// How long the files were, in the order of [`files`].
    pub(super) lengths: [u64; 2],
    /// The transcript, as it writes itself down.
    pub(super) transcript: String,
    pub(super) formatter: TextState,
    pub(super) rest: Option<Rest>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) gaps: Vec<String>,
    pub(super) last: Timestamp,
    /// Monotonic and wall time in nanoseconds of the last output.
    pub(super) output: Option<[u64; 2]>,
}

/// Returns the files that are derived from a spool.
pub(super) fn files(dir: &AttemptDir) -> [PathBuf; 2] {
    [dir.run_log(), dir.event_log()]
}

impl Cursor {
    /// Reads the attempt's cursor; `None` without one that can be believed.
    pub(super) fn read(dir: &AttemptDir) -> Option<Self> {
        let text = fs::read_to_string(dir.cursor()).ok()?;
        let (sum, body) = text.split_once('\n')?;
        if sum != sha256_hex(body.as_bytes()) {
            tracing::debug!("the attempt's cursor is damaged");
            return None;
        }
        // One of another build may have other fields.
        let written: Written = serde_json::from_str(body).ok()?;
        let is_ours = written.version == VERSION
            && written.build == BUILD
            && written.attempt == dir.attempt()
            && written.cursor.fits(dir);
        is_ours.then_some(written.cursor)
    }

    /// Returns whether every file has what the cursor says, and maybe more.
    fn fits(&self, dir: &AttemptDir) -> bool {
        let has =
            |path: &PathBuf, length| fs::metadata(path).is_ok_and(|data| data.len() >= length);
        let derived = files(dir);
        let raw = [dir.raw_log(), dir.stderr_log()];
        derived
            .iter()
            .zip(self.lengths)
            .all(|(path, length)| has(path, length))
            && raw
                .iter()
                .zip(self.offsets)
                .all(|(path, length)| has(path, length))
    }

    fn encode(self, attempt: AttemptId) -> serde_json::Result<Vec<u8>> {
        let body = serde_json::to_vec(&Written {
            version: VERSION,
            build: BUILD.to_owned(),
            attempt,
            cursor: self,
        })?;
        let mut text = sha256_hex(&body).into_bytes();
        text.push(b'\n');
        text.extend_from_slice(&body);
        Ok(text)
    }

    /// Takes an attempt's cursor away: its files are about to be derived anew.
    pub(super) fn forget(dir: &AttemptDir) -> io::Result<()> {
        match fs::remove_file(dir.cursor()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A thread that syncs the derived files and then writes the cursor, so that the pump goes on meanwhile.
///
/// Dropped, it finishes what it has begun: no cursor appears later.
#[derive(Debug)]
pub(super) struct Keeper {
    attempt: AttemptId,
    cursors: Worker<Vec<u8>>,
    is_busy: Arc<AtomicBool>,
}

impl Keeper {
    /// Starts it.
    pub(super) fn start(dir: &AttemptDir) -> io::Result<Self> {
        let paths = files(dir);
        let opened: io::Result<Vec<File>> = paths
            .iter()
            .map(|path| OpenOptions::new().write(true).open(path))
            .collect();
        let (files, path) = (opened?, dir.cursor());
        let is_busy = Arc::<AtomicBool>::default();
        let busy = Arc::clone(&is_busy);
        let cursors = Worker::start("cursor", move |cursor: Vec<u8>| {
            // Without it, the next pump begins somewhere earlier.
            if let Err(error) = keep_one(&cursor, &files, &path) {
                tracing::debug!(%error, "the cursor is not written");
            }
            busy.store(false, Ordering::Release);
        })?;
        Ok(Self {
            attempt: dir.attempt(),
            cursors,
            is_busy,
        })
    }

    /// Returns whether the last cursor is not written yet.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    /// Has a cursor written; everything that it speaks of has been written to the files.
    pub(super) fn keep(&self, cursor: Cursor) -> io::Result<()> {
        let text = cursor.encode(self.attempt)?;
        self.is_busy.store(true, Ordering::Release);
        self.cursors.give(text)
    }
}

fn keep_one(cursor: &[u8], files: &[File], path: &Path) -> io::Result<()> {
    files.iter().try_for_each(File::sync_data)?;
    at_point("before")?;
    write_durably(path, cursor)?;
    at_point("after")
}

fn at_point(side: &'static str) -> io::Result<()> {
    // Nothing here can hang without the pump hanging at its end.
    let reached = reach(["attempt", "cursor", side]).now_or_never();
    reached.unwrap_or(Ok(())).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, AttemptDir) {
        let folder = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(
            "k3v9x2m7qa1b-1".parse().unwrap(),
            folder.path().to_owned(),
            folder.path().join("init"),
        );
        let raw = [dir.raw_log(), dir.stderr_log()];
        for path in files(&dir).into_iter().chain(raw) {
            fs::write(path, "0123456789").unwrap();
        }
        (folder, dir)
    }

    fn cursor() -> Cursor {
        Cursor {
            position: 100,
            offsets: [10, 4],
            lengths: [7, 0],
            transcript: "{}".to_owned(),
            formatter: TextState::default(),
            rest: Some(Rest::Working),
            started_at: Some(Timestamp::UNIX_EPOCH),
            gaps: vec!["a gap".to_owned()],
            last: Timestamp::UNIX_EPOCH,
            output: Some([1, 2]),
        }
    }

    fn write(dir: &AttemptDir) {
        let keeper = Keeper::start(dir).unwrap();
        keeper.keep(cursor()).unwrap();
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let (_folder, dir) = folder();
        write(&dir);

        assert_eq!(Cursor::read(&dir), Some(cursor()));
        Cursor::forget(&dir).unwrap();
        assert_eq!(Cursor::read(&dir), None);
        Cursor::forget(&dir).unwrap();
    }

    #[test]
    fn one_that_does_not_fit_is_none() {
        let (_folder, dir) = folder();
        write(&dir);
        let text = fs::read_to_string(dir.cursor()).unwrap();

        for damaged in [
            "",
            &text[..text.len() - 1],
            &text.replace("\"position\":100", "\"position\":101"),
        ] {
            fs::write(dir.cursor(), damaged).unwrap();
            assert_eq!(Cursor::read(&dir), None);
        }
        fs::write(dir.cursor(), &text).unwrap();
        for path in [dir.run_log(), dir.raw_log()] {
            let whole = fs::read(&path).unwrap();
            fs::write(&path, "short").unwrap();
            assert_eq!(Cursor::read(&dir), None);
            fs::write(&path, whole).unwrap();
        }
        assert_eq!(Cursor::read(&dir), Some(cursor()));
    }
}
