//! A file that is derived from a spool, on a disk that may be full for a while.
//!
//! Owns: the waiting for room.
//! Reads: nothing.
//! Never: loses or doubles a byte because there was no room for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use super::bulk::{Bulk, Held};
use super::pulse::Pulse;
use crate::clock::Clock;

/// How often a full disk is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// A file that is written on and on, and held back until it is flushed or there is much of it.
pub(super) struct Derived {
    path: PathBuf,
    file: Arc<File>,
    room: Arc<Room>,
    /// Bytes of the file, without those that are on their way to it.
    length: u64,
    held: Held,
    /// Writes what is much, once there was.
    bulk: Option<Bulk>,
}

impl Derived {
    /// Opens the file to go on behind its first `length` bytes, making it if that is none of it; what stood behind them
    /// is gone.
    pub(super) fn open(path: &Path, length: u64, room: &Arc<Room>) -> io::Result<Self> {
        let is_anew = length == 0;
        let file = OpenOptions::new()
            .create(is_anew)
            .write(true)
            .truncate(is_anew)
            .mode(0o600)
            .open(path)?;
        if !is_anew {
            if file.metadata()?.len() < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.set_len(length)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            room: Arc::clone(room),
            length,
            held: Held::small(length),
            bulk: None,
        })
    }

    /// Returns how much was written of it, without what is held.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Returns whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Makes place for more: of what is much, by having it written meanwhile if there is a thread for it.
    fn make_place(&mut self) -> io::Result<()> {
        if !self.held.is_large() {
            let small = std::mem::replace(&mut self.held, Held::large(self.length));
            self.held.take(small.bytes());
            return Ok(());
        }
        let bulk = match &mut self.bulk {
            Some(bulk) => bulk,
            none => match Bulk::start(&self.path, &self.file, &self.room) {
                Ok(bulk) => none.insert(bulk),
                Err(error) => {
                    tracing::debug!(%error, "no thread writes the logs: the pump does");
                    return self.flush();
                }
            },
        };
        if let Some(length) = bulk.settle()? {
            self.length = length;
        }
        bulk.write(&mut self.held, self.length)
    }
}

impl Write for Derived {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.held.is_full() {
            self.make_place()?;
        }
        Ok(self.held.take(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(bulk) = &mut self.bulk
            && let Some(length) = bulk.settle()?
        {
            self.length = length;
        }
        self.held
            .write_all(&self.file, &mut self.length, &self.room)?;
        self.held.restart(self.length);
        Ok(())
    }
}

/// Returns whether an error says that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether there is room on the disk, for us and for the helper.
#[derive(Debug)]
pub(super) struct Room {
    pulse: Arc<Pulse>,
    clock: Arc<dyn Clock>,
    /// Bits of those who have no room.
    without: AtomicU8,
    given_up: AtomicBool,
}

/// Who may have no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    Us = 1,
    Helper = 2,
}

impl Room {
    pub(super) fn new(pulse: Arc<Pulse>, clock: Arc<dyn Clock>) -> Self {
        Self {
            pulse,
            clock,
            without: AtomicU8::new(0),
            given_up: AtomicBool::new(false),
        }
    }

    /// Ends every waiting for room with its error, from now on.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// Returns whether everybody has room.
    pub(super) fn is_there(&self) -> bool {
        self.without.load(Ordering::Acquire) == 0
    }

    /// Notes that a writer has no room, since now.
    pub(super) fn full(&self, writer: Writer) {
        if self.without.fetch_or(writer as u8, Ordering::AcqRel) == 0 {
            self.pulse
                .note(|signs| signs.full = Some(self.clock.moment()));
        }
    }

    /// Notes that a writer has room.
    pub(super) fn free(&self, writer: Writer) {
        let bit = writer as u8;
        if self.without.load(Ordering::Acquire) & bit != 0
            && self.without.fetch_and(!bit, Ordering::AcqRel) == bit
        {
            let now = self.clock.moment();
            self.pulse.note(|signs| {
                signs.full = None;
                signs.room = Some(now);
            });
        }
    }

    /// Does something that needs room, and does it again until there is some. Blocks.
    pub(super) fn wait_for<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match work() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_full(&error) && !self.is_given_up() => {
                    self.full(Writer::Us);
                    thread::sleep(RETRY);
                }
                result => {
                    self.free(Writer::Us);
                    return result;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::clock::SystemClock;

    fn room() -> Arc<Room> {
        Arc::new(Room::new(Arc::default(), Arc::new(SystemClock)))
    }

    /// Bytes of which no two blocks are equal.
    fn text(length: usize) -> Vec<u8> {
        (0_u32..).flat_map(u32::to_le_bytes).take(length).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_byte_is_written_once_whatever_the_pieces_and_the_flushes(
            kept in 0_usize..20_000,
            pieces in prop::collection::vec((1_usize..1_400_000, any::<bool>()), 1..6),
        ) {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join("run.log");
            let text = text(kept + pieces.iter().map(|(length, _)| length).sum::<usize>());
            fs::write(&path, [&text[..kept], b"what is derived again"].concat()).unwrap();
            let mut derived = Derived::open(&path, kept as u64, &room()).unwrap();
            let mut written = kept;

            for (length, is_flushed) in pieces {
                derived.write_all(&text[written..][..length]).unwrap();
                written += length;
                if is_flushed {
                    derived.flush().unwrap();
                    prop_assert_eq!(derived.length(), written as u64);
                    prop_assert_eq!(fs::metadata(&path).unwrap().len(), written as u64);
                }
            }
            derived.flush().unwrap();

            prop_assert!(fs::read(&path).unwrap() == text);
        }
    }

    #[test]
    fn what_was_not_flushed_is_not_written_behind_the_back_of_the_next_pump() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("run.log");
        let mut first = Derived::open(&path, 0, &room()).unwrap();
        first.write_all(&text(5 << 20)).unwrap();
        drop(first);

        let mut second = Derived::open(&path, 0, &room()).unwrap();
        second.write_all(b"anew").unwrap();
        second.flush().unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"anew");
    }
}
