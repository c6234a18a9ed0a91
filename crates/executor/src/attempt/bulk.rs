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
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::derived::Room;
use super::worker::Worker;

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

    /// Writes all of it to the end of a file of this length, which grows with what is written.
    pub(super) fn write_all(
        &mut self,
        file: &File,
        length: &mut u64,
        room: &Room,
    ) -> io::Result<()> {
        while !self.is_empty() {
            self.write(self.end - self.begin, file, length, room)?;
        }
        Ok(())
    }

    /// Writes at most so many bytes of it.
    fn write(&mut self, most: usize, file: &File, length: &mut u64, room: &Room) -> io::Result<()> {
        let bytes = &self.bytes()[..most];
        let written = room.wait_for(|| file.write_at(bytes, *length))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.begin += written;
        *length += to_u64(written);
        Ok(())
    }

    /// Returns what of it lies before the first whole block.
    fn before_blocks(&self) -> usize {
        self.begin.next_multiple_of(BLOCK).min(self.end) - self.begin
    }
}

/// The thread. Dropped, it finishes what is on its way: who opens the file next must not be written over.
#[derive(Debug)]
pub(super) struct Bulk {
    full: Worker<(Held, u64)>,
    written: Receiver<(Held, io::Result<u64>)>,
    is_busy: bool,
    /// A buffer that was written.
    spare: Option<Held>,
}

impl Bulk {
    /// Starts it for a file, which is opened once more by its path.
    pub(super) fn start(path: &Path, file: &Arc<File>, room: &Arc<Room>) -> io::Result<Self> {
        let mut writer = Writer {
            direct: open_directly(path),
            file: Arc::clone(file),
            room: Arc::clone(room),
        };
        let (back, written) = sync_channel(1);
        let full = Worker::start("bulk", move |(mut held, length)| {
            let written = writer.write(&mut held, length);
            // Who went away waits for nothing.
            let _sent = back.send((held, written));
        })?;
        Ok(Self {
            full,
            written,
            is_busy: false,
            spare: None,
        })
    }

    /// Waits for what is on its way; returns the length of the file then, if something was.
    pub(super) fn settle(&mut self) -> io::Result<Option<u64>> {
        if !std::mem::take(&mut self.is_busy) {
            return Ok(None);
        }
        let (held, written) = self.written.recv().map_err(|_| self.full.gone())?;
        self.spare = Some(held);
        written.map(Some)
    }

    /// Writes what is held, which is full, to the end of the file, which has this length; nothing may be on its way.
    /// Leaves an empty buffer for what is behind it.
    pub(super) fn write(&mut self, held: &mut Held, length: u64) -> io::Result<()> {
        let mut next = self.spare.take().unwrap_or_else(|| Held::large(0));
        next.restart(0);
        self.full.give((std::mem::replace(held, next), length))?;
        self.is_busy = true;
        Ok(())
    }
}

struct Writer {
    /// The file past the page cache, where the file system can.
    direct: Option<File>,
    file: Arc<File>,
    room: Arc<Room>,
}

impl Writer {
    /// Returns the length of the file then.
    fn write(&mut self, held: &mut Held, mut length: u64) -> io::Result<u64> {
        while !held.is_empty()
            && let Some(direct) = &self.direct
        {
            let began = Instant::now();
            let written = match held.before_blocks() {
                0 => held.write(held.end - held.begin, direct, &mut length, &self.room),
                some => held.write(some, &self.file, &mut length, &self.room),
            };
            match written {
                Ok(()) => {}
                // It could be opened so, and cannot be written.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.direct = None,
                Err(error) => return Err(error),
            }
            if began.elapsed() > SLOW {
                self.direct = None;
            }
        }
        held.write_all(&self.file, &mut length, &self.room)?;
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
