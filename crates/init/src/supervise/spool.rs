//! Appends records to the spool.
//!
//! Owns: the spool's descriptor, its room on disk, and when it is synced.
//! Reads: both clocks, for the records' stamps.
//! Never: cuts or tears a record: one that did not fit is continued where it stopped.
//!
//! The last [`RESERVE`] bytes of room are kept for the end: they are allocated ahead of the data, and used only once
//! the agent ends. So the rest of its output and the exit record fit even on a disk that is full.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::time::{Duration, Instant};

use dark_factory_spool::{HEADER_LEN, Kind, RecordId, Stamp, Stream, encode_header};
use rustix::fs::{FallocateFlags, fallocate, fdatasync, fstat, ftruncate};
use rustix::io::Errno;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Room that is kept for the end: two full pipes, one read, and the closing records.
const RESERVE: u64 = 256 * 1024;
/// How much is allocated at once where there is plenty.
const WINDOW: u64 = 1024 * 1024;
/// How often data is synced.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// How often an idle spool is looked after.
const IDLE_INTERVAL: Duration = Duration::from_secs(3);

/// Why nothing more can be recorded.
#[derive(Debug)]
pub(super) enum SpoolLost {
    /// Its last name was removed on the host.
    Removed,
    /// Writing or syncing failed for a reason that waiting does not cure.
    Broken(Errno),
    /// The run was stopped while the disk was full, before the agent was started.
    Stopped,
}

impl fmt::Display for SpoolLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str("the spool was removed on the host"),
            Self::Broken(error) => write!(f, "the spool cannot be written: {error}"),
            Self::Stopped => f.write_str("stopped while the disk was full"),
        }
    }
}

/// Which room a record may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Only what leaves the reserve whole.
    BeforeReserve,
    /// All there is.
    Any,
}

/// How far a record got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It is written.
    Done,
    /// The disk is full; to be tried again.
    Full,
}

/// One record on its way to the spool.
pub(super) struct Record<'a> {
    header: [u8; HEADER_LEN],
    payload: &'a [u8],
    written: usize,
}

impl Record<'_> {
    fn left(&self) -> usize {
        HEADER_LEN + self.payload.len() - self.written
    }
}

/// The spool.
pub(super) struct Spool {
    file: File,
    id: RecordId,
    length: u64,
    allocated: u64,
    can_allocate: bool,
    unsynced_since: Option<Instant>,
    looked_after: Instant,
}

impl Spool {
    /// Takes an append-only descriptor.
    pub(super) fn new(file: File, id: RecordId) -> Result<Self, SpoolLost> {
        let stat = fstat(&file).map_err(SpoolLost::Broken)?;
        if stat.st_nlink == 0 {
            return Err(SpoolLost::Removed);
        }
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(Self {
            file,
            id,
            length,
            allocated: length,
            can_allocate: true,
            unsynced_since: None,
            looked_after: Instant::now(),
        })
    }

    /// Builds a record; see [`Spool::append`].
    pub(super) fn record<'a>(
        &self,
        kind: Kind,
        stream: Stream,
        offset: u64,
        payload: &'a [u8],
    ) -> Record<'a> {
        Record {
            header: encode_header(kind, stream, offset, stamp(), self.id, payload),
            payload,
            written: 0,
        }
    }

    /// Writes what is left of a record.
    pub(super) fn append(
        &mut self,
        record: &mut Record<'_>,
        room: Room,
    ) -> Result<Progress, SpoolLost> {
        // A record that was begun is finished from the reserve rather than left torn.
        if room == Room::BeforeReserve
            && record.written == 0
            && self.allocate(record.left()) == Progress::Full
        {
            return Ok(Progress::Full);
        }
        while record.left() > 0 {
            let in_header = record.written.min(HEADER_LEN);
            let slices = [
                IoSlice::new(&record.header[in_header..]),
                IoSlice::new(&record.payload[record.written - in_header..]),
            ];
            match self.file.write_vectored(&slices) {
                Ok(0) => return Ok(Progress::Full),
                Ok(written) => {
                    record.written += written;
                    self.length += u64::try_from(written).unwrap_or(0);
                    self.unsynced_since.get_or_insert_with(Instant::now);
                }
                Err(error) => match errno(&error) {
                    Errno::INTR => {}
                    Errno::NOSPC | Errno::DQUOT => return Ok(Progress::Full),
                    error => return Err(SpoolLost::Broken(error)),
                },
            }
        }
        Ok(Progress::Done)
    }

    /// Allocates room for `length` bytes and the reserve behind them.
    fn allocate(&mut self, length: usize) -> Progress {
        let needed = self.length + u64::try_from(length).unwrap_or(0) + RESERVE;
        if !self.can_allocate || needed <= self.allocated {
            return Progress::Done;
        }
        let start = self.allocated.max(self.length);
        for end in [needed + WINDOW, needed] {
            match fallocate(&self.file, FallocateFlags::KEEP_SIZE, start, end - start) {
                Ok(()) => {
                    self.allocated = end;
                    return Progress::Done;
                }
                Err(Errno::NOSPC | Errno::DQUOT) => {}
                Err(Errno::INTR) => return Progress::Full,
                // Not every file system can; then the exit record has no reserve.
                Err(_) => {
                    self.can_allocate = false;
                    return Progress::Done;
                }
            }
        }
        Progress::Full
    }

    /// Returns how long until [`Spool::look_after`] has something to do.
    pub(super) fn next_duty(&self) -> Duration {
        let due = match self.unsynced_since {
            Some(since) => since + SYNC_INTERVAL,
            None => self.looked_after + IDLE_INTERVAL,
        };
        due.saturating_duration_since(Instant::now())
    }

    /// Syncs data that has waited long enough, and finds out whether the spool was removed.
    pub(super) fn look_after(&mut self) -> Result<(), SpoolLost> {
        if !self.next_duty().is_zero() {
            return Ok(());
        }
        self.looked_after = Instant::now();
        if fstat(&self.file).map_err(SpoolLost::Broken)?.st_nlink == 0 {
            return Err(SpoolLost::Removed);
        }
        if self.unsynced_since.is_some() && self.sync()? == Progress::Full {
            self.unsynced_since = Some(Instant::now());
        }
        Ok(())
    }

    /// Brings everything that was written to the disk.
    pub(super) fn sync(&mut self) -> Result<Progress, SpoolLost> {
        match fdatasync(&self.file) {
            // Some file systems have nothing to sync.
            Ok(()) | Err(Errno::INVAL) => {
                self.unsynced_since = None;
                Ok(Progress::Done)
            }
            Err(Errno::NOSPC | Errno::DQUOT | Errno::INTR) => Ok(Progress::Full),
            Err(error) => Err(SpoolLost::Broken(error)),
        }
    }

    /// Gives room that was allocated and not used back to the host.
    pub(super) fn release_reserve(&mut self) {
        if self.allocated > self.length {
            // Cutting at the present length frees only what lies behind it.
            let _released = ftruncate(&self.file, self.length);
            self.allocated = self.length;
        }
    }
}

fn stamp() -> Stamp {
    Stamp {
        monotonic_ns: nanoseconds(clock_gettime(ClockId::Monotonic)),
        wall_ns: nanoseconds(clock_gettime(ClockId::Realtime)),
    }
}

fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000) + nanoseconds
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
