//! A file that is derived from a spool, on a disk that may be full for a while.
//!
//! Owns: the waiting for room.
//! Reads: nothing.
//! Never: loses or doubles a byte because there was no room for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use super::pulse::Pulse;
use crate::clock::Clock;

/// How often a full disk is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// A file that is written on and on.
pub(super) struct Derived {
    file: File,
    length: u64,
    room: Arc<Room>,
}

impl Derived {
    /// Opens the file to go on behind its first `length` bytes, making it if that is none of it; what stood behind them
    /// is gone.
    pub(super) fn open(path: &Path, length: u64, room: &Arc<Room>) -> io::Result<Self> {
        let is_anew = length == 0;
        let mut file = OpenOptions::new()
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
            file.seek(SeekFrom::End(0))?;
        }
        Ok(Self {
            file,
            length,
            room: Arc::clone(room),
        })
    }

    /// Returns how much was written of it.
    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

impl Write for Derived {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.room.wait_for(|| (&self.file).write(bytes))?;
        self.length += u64::try_from(written).unwrap_or(0);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
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
