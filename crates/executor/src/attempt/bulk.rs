//! Writes what is much of a log, on a thread of its own and past the page cache.
//!
//! Owns: the thread, and buffers that lie as the kernel wants them.
//! Reads: nothing.
//! Never: has more than one buffer on its way.
//!
//! Nobody reads the log for people as fast as a flood of it comes. The copy into the page cache would be most of what it
//! costs, and push out of memory what somebody does read.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::derived::Room;

/// Bytes that are held of what is little, and of what is much.
const SMALL: usize = 64 << 10;
const LARGE: usize = 1 << 20;
/// What places, lengths and addresses are multiples of where the page cache is passed by, whatever the device's blocks.
const BLOCK: usize = 4096;
/// A disk that takes longer for one buffer is left to the page cache.
const SLOW: Duration = Duration::from_millis(50);

/// Bytes for the end of a file, at an address that is as far behind the beginning of a block as that end.
#[derive(Debug)]
pub(super) struct Held {
    buffer: Vec<u8>,
    /// Where in it a block begins.
    origin: usize,
    /// Bytes that there is place for from there on, a multiple of blocks.
    capacity: usize,
    /// What is held, from there on.
    begin: usize,
    end: usize,
}

impl Held {
    /// Holds nothing of what is little, for a file of this length.
    pub(super) fn small(length: u64) -> Self {
        Self::new(SMALL, length)
    }

    /// Holds nothing of what is much, for a file of this length.
    pub(super) fn large(length: u64) -> Self {
        Self::new(LARGE, length)
    }

    fn new(capacity: usize, length: u64) -> Self {
        let buffer = vec![0; capacity + BLOCK];
        let mut held = Self {
            origin: buffer.as_ptr().align_offset(BLOCK),
            buffer,
            capacity,
            begin: 0,
            end: 0,
        };
        held.restart(length);
        held
    }

    /// Holds nothing, for a file of this length.
    pub(super) fn restart(&mut self, length: u64) {
        self.begin = usize::try_from(length % to_u64(BLOCK)).unwrap_or(0);
        self.end = self.begin;
    }

    pub(super) fn is_large(&self) -> bool {
        self.capacity == LARGE
    }

    pub(super) fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    /// Returns whether there is place for nothing more; it then ends where a block does.
    pub(super) fn is_full(&self) -> bool {
        self.end == self.capacity
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.origin..][self.begin..self.end]
    }

    /// Takes of these bytes what there is place for; returns how many.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let place = &mut self.buffer[self.origin..][self.end..self.capacity];
        let taken = bytes.len().min(place.len());
        place[..taken].copy_from_slice(&bytes[..taken]);
        self.end += taken;
        taken
    }

    /// Forgets so many bytes from the beginning.
    pub(super) fn give(&mut self, written: usize) {
        self.begin += written;
    }

    /// Returns what of it lies before the first whole block.
    fn before_blocks(&self) -> usize {
        self.begin.next_multiple_of(BLOCK).min(self.end) - self.begin
    }
}

/// The thread.
#[derive(Debug)]
pub(super) struct Bulk {
    /// `None` once it is to end.
    full: Option<SyncSender<(Held, u64)>>,
    written: Receiver<(Held, io::Result<u64>)>,
    is_busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl Bulk {
    /// Starts it for a file, which is opened once more by its path.
    pub(super) fn start(path: &Path, file: &Arc<File>, room: &Arc<Room>) -> io::Result<Self> {
        let writer = Writer {
            direct: open_directly(path),
            file: Arc::clone(file),
            room: Arc::clone(room),
        };
        let (full, to_write) = sync_channel(1);
        let (back, written) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("bulk".to_owned())
            .spawn(move || writer.work(&to_write, &back))?;
        Ok(Self {
            full: Some(full),
            written,
            is_busy: false,
            thread: Some(thread),
        })
    }

    /// Waits for what is on its way; returns the length of the file and the buffer, if something was.
    pub(super) fn take_back(&mut self) -> io::Result<Option<(u64, Held)>> {
        if !std::mem::take(&mut self.is_busy) {
            return Ok(None);
        }
        let (mut held, written) = self.written.recv().map_err(|_| ended())?;
        let length = written?;
        held.restart(length);
        Ok(Some((length, held)))
    }

    /// Writes what is held to the end of the file, which has this length; nothing may be on its way.
    pub(super) fn write(&mut self, held: Held, length: u64) -> io::Result<()> {
        let full = self.full.as_ref().ok_or_else(ended)?;
        full.send((held, length)).map_err(|_| ended())?;
        self.is_busy = true;
        Ok(())
    }
}

impl Drop for Bulk {
    /// Waits: who opens the file next must not be written over.
    fn drop(&mut self) {
        self.full = None;
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::warn!("the thread that writes logs panicked");
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("the thread that writes logs has ended")
}

struct Writer {
    /// The file past the page cache, where the file system can.
    direct: Option<File>,
    file: Arc<File>,
    room: Arc<Room>,
}

impl Writer {
    fn work(mut self, full: &Receiver<(Held, u64)>, back: &SyncSender<(Held, io::Result<u64>)>) {
        for (mut held, length) in full {
            let written = self.write(&mut held, length);
            if back.send((held, written)).is_err() {
                break;
            }
        }
    }

    /// Returns the length of the file then.
    fn write(&mut self, held: &mut Held, mut length: u64) -> io::Result<u64> {
        while !held.is_empty() {
            let before_blocks = held.before_blocks();
            let direct = self.direct.as_ref().filter(|_| before_blocks == 0);
            let bytes = match before_blocks {
                0 => held.bytes(),
                some => &held.bytes()[..some],
            };
            let began = Instant::now();
            let file = direct.unwrap_or(&self.file);
            match self.room.wait_for(|| file.write_at(bytes, length)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    length += to_u64(written);
                    held.give(written);
                }
                // It could be opened so, and cannot be written.
                Err(error) if direct.is_some() && error.kind() == io::ErrorKind::InvalidInput => {
                    self.direct = None;
                    continue;
                }
                Err(error) => return Err(error),
            }
            if began.elapsed() > SLOW {
                self.direct = None;
            }
        }
        Ok(length)
    }
}

fn open_directly(path: &Path) -> Option<File> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path);
    file.ok()
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
