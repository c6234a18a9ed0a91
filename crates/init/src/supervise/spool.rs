//! Appends records to the spool.
//!
//! Owns: the spool's descriptor, its room on disk, and when it is synced.
//! Reads: both clocks, for the records' stamps.
//! Never: cuts or tears a record: one that did not fit is continued where it stopped.
//!
//! Room is kept for the end: it is allocated ahead of the data, and used only for what is in the agent's pipes when the
//! agent ends, for the exit record, and for the note that the disk is full. So these fit on a disk that is full.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::time::{Duration, Instant};

use dark_factory_spool::{HEADER_LEN, Kind, RecordId, Stamp, Stream, encode_header};
use rustix::fs::{FallocateFlags, fallocate, fdatasync, fstat, ftruncate};
use rustix::io::{Errno, retry_on_intr};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Part of the reserve that output never takes: a mark, the ends of both streams, and the exit record.
const CLOSING: u64 = 1024;
/// Least that is in a pipe for each read, and so for each header, that it takes to empty it: a full page, whatever mode
/// the agent puts the pipe in.
const PIPE_PAGE: u64 = 4096;
/// [`HEADER_LEN`], as files count.
const HEADER: u64 = HEADER_LEN as u64;
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
    stamp: Stamp,
    header: [u8; HEADER_LEN],
    payload: &'a [u8],
    written: usize,
}

impl Record<'_> {
    /// Returns when the record was built.
    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Returns whether some of it is written, so that nothing else may be before the rest is.
    pub(super) fn was_begun(&self) -> bool {
        self.written > 0
    }

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
    reserve: u64,
    unsynced_since: Option<Instant>,
    looked_after: Instant,
}

impl Spool {
    /// Takes an append-only descriptor; each of the agent's pipes may hold `pipe` bytes.
    pub(super) fn new(file: File, id: RecordId, pipe: u64) -> Result<Self, SpoolLost> {
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
            reserve: 2 * (pipe + pipe.div_ceil(PIPE_PAGE) * HEADER) + CLOSING,
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
        let stamp = stamp();
        Record {
            stamp,
            header: encode_header(kind, stream, offset, stamp, self.id, payload),
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
            && self.make_room(record.left()) == Progress::Full
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

    /// Allocates room for `length` bytes and the whole reserve behind them.
    pub(super) fn make_room(&mut self, length: usize) -> Progress {
        self.allocate(length, self.reserve)
    }

    /// Returns how many of `wanted` bytes of output one record can take at the end, closing records not counted.
    pub(super) fn room_at_the_end(&mut self, wanted: usize) -> usize {
        if self.allocate(HEADER_LEN + wanted, CLOSING) == Progress::Done {
            return wanted;
        }
        let left = self
            .allocated
            .saturating_sub(self.length + HEADER + CLOSING);
        usize::try_from(left).map_or(wanted, |left| left.min(wanted))
    }

    /// Returns whether a record without payload can be taken from the reserve.
    pub(super) fn can_mark(&self) -> bool {
        self.allocated >= self.length + HEADER + CLOSING
    }

    /// Allocates room for `length` bytes and `behind` them.
    fn allocate(&mut self, length: usize, behind: u64) -> Progress {
        let needed = self.length + u64::try_from(length).unwrap_or(0) + behind;
        if !self.can_allocate || needed <= self.allocated {
            return Progress::Done;
        }
        let start = self.allocated.max(self.length);
        for end in [needed + WINDOW, needed] {
            let allocated = retry_on_intr(|| {
                fallocate(&self.file, FallocateFlags::KEEP_SIZE, start, end - start)
            });
            match allocated {
                Ok(()) => {
                    self.allocated = end;
                    return Progress::Done;
                }
                Err(Errno::NOSPC | Errno::DQUOT) => {}
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
