//! Appends to the spool: what the agent printed to the file of its stream, and then the record of it.
//!
//! Owns: the spool's descriptors, its room on disk, and when it is synced.
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

use super::writeback::Writeback;

/// Part of the reserve of the records that those of output never take: a mark, the ends of both streams, and the exit
/// record.
const CLOSING: u64 = 1024;
/// Least that is in a pipe for each read, and so for each header, that it takes to empty it: a full page, whatever mode
/// the agent puts the pipe in.
const PIPE_PAGE: u64 = 4096;
/// [`HEADER_LEN`], as files count.
const HEADER: u64 = HEADER_LEN as u64;
/// How much is allocated at once where there is plenty: for output, and for records.
const WINDOW: u64 = 1024 * 1024;
const RECORDS_WINDOW: u64 = 16 * 1024;
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
    /// The file of a stream has output of somebody else.
    Used,
}

impl fmt::Display for SpoolLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str("the spool was removed on the host"),
            Self::Broken(error) => write!(f, "the spool cannot be written: {error}"),
            Self::Stopped => f.write_str("stopped while the disk was full"),
            Self::Used => f.write_str("there is output in it that no agent of ours printed"),
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
    kind: Kind,
    stream: Stream,
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

    /// Returns what of the payload is yet to be written to the file of the stream.
    fn placed(&self) -> &[u8] {
        match self.kind {
            Kind::Data => self.payload.get(self.written..).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// Returns what is yet to be written of the record itself, once nothing is left to be placed.
    fn inline(&self) -> [IoSlice<'_>; 2] {
        let (done, payload) = match self.kind {
            Kind::Data => (self.written - self.payload.len(), &[][..]),
            _ => (self.written, self.payload),
        };
        let in_header = done.min(HEADER_LEN);
        [
            IoSlice::new(&self.header[in_header..]),
            IoSlice::new(&payload[done - in_header..]),
        ]
    }

    /// Returns the bytes that it takes of the records.
    fn inline_len(&self) -> usize {
        match self.kind {
            Kind::Data => HEADER_LEN,
            _ => HEADER_LEN + self.payload.len(),
        }
    }
}

/// A file that only grows.
struct Growing {
    file: File,
    length: u64,
    allocated: u64,
    /// Whether something was written and not synced.
    is_dirty: bool,
    writeback: Writeback,
    /// Room that is kept in it for the end.
    reserve: u64,
    window: u64,
}

impl Growing {
    fn new(file: File, reserve: u64, window: u64) -> Result<Self, SpoolLost> {
        let stat = fstat(&file).map_err(SpoolLost::Broken)?;
        if stat.st_nlink == 0 {
            return Err(SpoolLost::Removed);
        }
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(Self {
            file,
            length,
            allocated: length,
            is_dirty: false,
            writeback: Writeback::new(),
            reserve,
            window,
        })
    }

    /// Writes some of it.
    fn write(&mut self, bytes: &[IoSlice<'_>]) -> Result<usize, Errno> {
        loop {
            match self.file.write_vectored(bytes) {
                Ok(0) => return Err(Errno::NOSPC),
                Ok(written) => {
                    self.length += to_u64(written);
                    self.is_dirty = true;
                    self.writeback.wrote(to_u64(written), &self.file);
                    return Ok(written);
                }
                Err(error) => match errno(&error) {
                    Errno::INTR => {}
                    error => return Err(error),
                },
            }
        }
    }

    /// Allocates room for `length` bytes and `behind` them; says whether the file system can.
    fn allocate(&mut self, length: u64, behind: u64) -> Result<Progress, Errno> {
        let needed = self.length + length + behind;
        if needed <= self.allocated {
            return Ok(Progress::Done);
        }
        let start = self.allocated.max(self.length);
        // What is kept for the end is not used as a rule.
        let window = if length > 0 { self.window } else { 0 };
        for end in [needed + window, needed] {
            let allocated = retry_on_intr(|| {
                fallocate(&self.file, FallocateFlags::KEEP_SIZE, start, end - start)
            });
            match allocated {
                Ok(()) => {
                    self.allocated = end;
                    return Ok(Progress::Done);
                }
                Err(Errno::NOSPC | Errno::DQUOT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Progress::Full)
    }

    fn is_removed(&self) -> Result<bool, SpoolLost> {
        let stat = fstat(&self.file).map_err(SpoolLost::Broken)?;
        Ok(stat.st_nlink == 0)
    }

    fn sync(&mut self) -> Result<Progress, SpoolLost> {
        if !self.is_dirty {
            return Ok(Progress::Done);
        }
        let settled = self.writeback.settle();
        match settled.and_then(|()| fdatasync(&self.file)) {
            // Some file systems have nothing to sync.
            Ok(()) | Err(Errno::INVAL) => {
                self.is_dirty = false;
                Ok(Progress::Done)
            }
            Err(Errno::NOSPC | Errno::DQUOT | Errno::INTR) => Ok(Progress::Full),
            Err(error) => Err(SpoolLost::Broken(error)),
        }
    }

    fn release_reserve(&mut self) {
        if self.allocated > self.length {
            // Cutting at the present length frees only what lies behind it.
            let _released = ftruncate(&self.file, self.length);
            self.allocated = self.length;
        }
    }
}

/// The spool.
pub(super) struct Spool {
    records: Growing,
    /// The files of the streams, by [`Stream::index`].
    streams: [Growing; 2],
    id: RecordId,
    can_allocate: bool,
    unsynced_since: Option<Instant>,
    looked_after: Instant,
}

impl Spool {
    /// Takes append-only descriptors of the records and of both streams; each of the agent's pipes may hold `pipe` bytes.
    pub(super) fn new(files: [File; 3], id: RecordId, pipe: u64) -> Result<Self, SpoolLost> {
        let [records, stdout, stderr] = files;
        let streams = [
            Growing::new(stdout, pipe, WINDOW)?,
            Growing::new(stderr, pipe, WINDOW)?,
        ];
        // An offset in a stream is a place in its file.
        if streams.iter().any(|stream| stream.length > 0) {
            return Err(SpoolLost::Used);
        }
        let reserve = 2 * pipe.div_ceil(PIPE_PAGE) * HEADER + CLOSING;
        Ok(Self {
            records: Growing::new(records, reserve, RECORDS_WINDOW)?,
            streams,
            id,
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
        let stamp = stamp();
        Record {
            stamp,
            kind,
            stream,
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
            && self.make_room_for(record.stream, record.placed().len(), record.inline_len())
                == Progress::Full
        {
            return Ok(Progress::Full);
        }
        while record.left() > 0 {
            let placed = record.placed();
            let written = match placed.is_empty() {
                true => self.records.write(&record.inline()),
                false => self.streams[record.stream.index()].write(&[IoSlice::new(placed)]),
            };
            match written {
                Ok(written) => {
                    record.written += written;
                    self.unsynced_since.get_or_insert_with(Instant::now);
                }
                Err(Errno::NOSPC | Errno::DQUOT) => return Ok(Progress::Full),
                Err(error) => return Err(SpoolLost::Broken(error)),
            }
        }
        Ok(Progress::Done)
    }

    /// Allocates room for a read of `length` bytes of a stream, its records, and the whole reserve behind them.
    pub(super) fn make_room(&mut self, stream: Stream, length: usize) -> Progress {
        // The record of the read, the end of the stream, and the mark that there is room.
        self.make_room_for(stream, length, 3 * HEADER_LEN)
    }

    fn make_room_for(&mut self, stream: Stream, length: usize, records: usize) -> Progress {
        let reserves = self.streams.each_ref().map(|stream| stream.reserve);
        let mut lengths = [0; 2];
        lengths[stream.index()] = to_u64(length);
        self.allocate(lengths, reserves, to_u64(records), self.records.reserve)
    }

    /// Returns how many of `wanted` bytes of a stream one record can take at the end, closing records not counted.
    pub(super) fn room_at_the_end(&mut self, stream: Stream, wanted: usize) -> usize {
        let mut lengths = [0; 2];
        lengths[stream.index()] = to_u64(wanted);
        if self.allocate(lengths, [0; 2], HEADER, CLOSING) == Progress::Done {
            return wanted;
        }
        let file = &self.streams[stream.index()];
        if self.records.allocated < self.records.length + HEADER + CLOSING {
            return 0;
        }
        let left = file.allocated.saturating_sub(file.length);
        usize::try_from(left).map_or(wanted, |left| left.min(wanted))
    }

    /// Returns whether a record without payload can be taken from the reserve.
    pub(super) fn can_mark(&self) -> bool {
        self.records.allocated >= self.records.length + HEADER + CLOSING
    }

    /// Allocates room for so many bytes of the streams and of records, and for what is behind them.
    fn allocate(
        &mut self,
        streams: [u64; 2],
        behind: [u64; 2],
        records: u64,
        behind_records: u64,
    ) -> Progress {
        if !self.can_allocate {
            return Progress::Done;
        }
        let [stdout, stderr] = &mut self.streams;
        // The records first: they are least, and without room for them nothing else helps.
        let files = [
            (&mut self.records, records, behind_records),
            (stdout, streams[0], behind[0]),
            (stderr, streams[1], behind[1]),
        ];
        let mut progress = Progress::Done;
        for (file, length, behind) in files {
            match file.allocate(length, behind) {
                Ok(Progress::Done) => {}
                Ok(Progress::Full) => progress = Progress::Full,
                // Not every file system can; then the exit record has no reserve.
                Err(_) => {
                    self.can_allocate = false;
                    return Progress::Done;
                }
            }
        }
        progress
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
        for file in [&self.records, &self.streams[0], &self.streams[1]] {
            if file.is_removed()? {
                return Err(SpoolLost::Removed);
            }
        }
        if self.unsynced_since.is_some() && self.sync()? == Progress::Full {
            self.unsynced_since = Some(Instant::now());
        }
        Ok(())
    }

    /// Brings everything that was written to the disk, the records last.
    pub(super) fn sync(&mut self) -> Result<Progress, SpoolLost> {
        let [stdout, stderr] = &mut self.streams;
        for file in [stdout, stderr, &mut self.records] {
            if file.sync()? == Progress::Full {
                return Ok(Progress::Full);
            }
        }
        self.unsynced_since = None;
        Ok(Progress::Done)
    }

    /// Gives room that was allocated and not used back to the host.
    pub(super) fn release_reserve(&mut self) {
        self.records.release_reserve();
        self.streams.iter_mut().for_each(Growing::release_reserve);
    }
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
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
