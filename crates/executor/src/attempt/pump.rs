//! Derives an attempt's files from its spool, while the spool grows.
//!
//! Owns: the decoding of an attempt's stream; see `readers` for what follows.
//! Reads: the spool, from its first byte or from a cursor, so that a second supervisor derives the same files.
//! Never: blocks the agent (it writes to the spool, not to us) or waits for a sink.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dark_factory_agents::{Agent, Conclusion, Mask, TextFormatter, TextStyle, Transcript};
use dark_factory_spool::{ExecFailed, ExitRecord, Kind, Stamp, Stream};
use dark_factory_types::{EventStream, LogState};
use jiff::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::task::{JoinError, JoinHandle};

use super::cursor::{self, Cursor, Keeper};
use super::derived::{Derived, Room, Writer};
use super::pulse::{Pulse, Reading, Signs};
use super::readers::{Readers, Rest};
use crate::clock::Clock;
use crate::error::ExecutorError;
use crate::sink::Sink;
use crate::spec::AttemptDir;
use crate::spool::{ReadError, SpoolFiles, SpoolReader, open_spool};

/// How long the pump sleeps at most before it looks at the spool again, should an event be missed.
const SAFETY_WAKE: Duration = Duration::from_secs(1);
/// The same where the spool cannot be watched.
const UNWATCHED_WAKE: Duration = Duration::from_millis(50);
/// How often at most the logs get what is not much, once the spool is drained.
const FLUSH_INTERVAL: Duration = Duration::from_millis(20);
/// Bytes that are a flood, and how long more of it is left to gather.
const FLOOD: u64 = 32 << 10;
const GATHER: Duration = Duration::from_micros(500);
/// New bytes of output behind which a cursor is due, and those that make one due after a time.
const CURSOR_BYTES: u64 = 256 << 20;
const CURSOR_LEAST: u64 = 1 << 20;
const CURSOR_TIME: Duration = Duration::from_secs(2);

/// Tells a pump that the engine said the workload has ended: what the spool holds now is all.
#[derive(Debug, Clone)]
struct EndSignal {
    ended: Arc<AtomicBool>,
    room: Arc<Room>,
    wake: Arc<EventFd>,
}

/// A pump at work. Dropped before its end, it tells the pump that nobody waits for it any more.
#[derive(Debug)]
pub(crate) struct Pumping {
    task: JoinHandle<Result<Collected, ExecutorError>>,
    /// What the pump came to, once it has been asked for.
    result: Option<Result<Collected, ExecutorError>>,
    signal: EndSignal,
    pulse: Arc<Pulse>,
    /// Whether the caller was told that the disk is full, and not yet that it has room again.
    pub(super) told_full: bool,
}

impl Pumping {
    /// Returns the signs of life that the pump sees.
    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    pub(crate) fn workload_ended(&self) {
        self.signal.ended.store(true, Ordering::Release);
        self.signal.wake();
    }

    /// Waits until the pump fails; for ever if it does not. Cancel-safe.
    pub(crate) async fn failure(&mut self) -> ExecutorError {
        if self.result.is_none() {
            self.result = Some(joined((&mut self.task).await));
        }
        match self.result.take() {
            Some(Err(error)) => error,
            result => {
                self.result = result;
                std::future::pending().await
            }
        }
    }

    /// Waits for the pump's end. Cancel-safe until it is there.
    pub(crate) async fn collected(&mut self) -> Result<Collected, ExecutorError> {
        match self.result.take() {
            Some(result) => result,
            None => joined((&mut self.task).await),
        }
    }
}

fn joined(
    task: Result<Result<Collected, ExecutorError>, JoinError>,
) -> Result<Collected, ExecutorError> {
    task.unwrap_or_else(|error| Err(error.into()))
}

impl Drop for Pumping {
    fn drop(&mut self) {
        self.signal.room.give_up();
        self.signal.wake();
    }
}

impl EndSignal {
    fn new(room: &Arc<Room>) -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self {
            ended: Arc::default(),
            room: Arc::clone(room),
            wake: Arc::new(wake),
        })
    }

    fn wake(&self) {
        if let Err(error) = self.wake.write(1) {
            tracing::debug!(%error, "the pump is not woken and looks by itself");
        }
    }
}

/// What a pump found out.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) conclusion: Conclusion,
    /// What hides the run's secrets in everything else that is said of it.
    pub(crate) mask: Mask,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) exit: Option<ExitRecord>,
    pub(crate) exec_failed: Option<ExecFailed>,
    /// Where the spool stopped being readable, and why, if it did.
    pub(crate) damage: Option<String>,
    pub(crate) log: LogState,
    pub(crate) totals: [u64; 2],
    pub(crate) warnings: Vec<String>,
}

/// Pumps one attempt's output.
pub(crate) struct Pump {
    dir: AttemptDir,
    reader: SpoolReader,
    files: SpoolFiles,
    transcript: Transcript,
    mask: Mask,
    readers: Readers,
    found: Found,
    kept: Kept,
    pulse: Arc<Pulse>,
    room: Arc<Room>,
    stamps: Stamps,
    clock: Arc<dyn Clock>,
}

/// Where the last cursor is.
struct Kept {
    /// Who writes them, once there was something to write.
    keeper: Option<Keeper>,
    /// How much had been printed there.
    printed: u64,
    at: Instant,
}

/// Where a pump begins.
struct Resumed {
    reader: SpoolReader,
    transcript: Transcript,
    formatter: TextFormatter,
    /// Lengths of the files there, as in [`cursor::files`].
    lengths: [u64; 2],
    rest: Option<Rest>,
    found: Found,
}

/// What the monotonic stamps of a spool's records count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamps {
    /// This boot, as our own clock does.
    OfThisBoot,
    /// A boot that may be another one.
    Unknown,
}

#[derive(Default)]
struct Found {
    started_at: Option<Timestamp>,
    exit: Option<ExitRecord>,
    exec_failed: Option<ExecFailed>,
    damage: Option<String>,
    gaps: Vec<String>,
    last: Timestamp,
    /// When output was last read by the helper, if that was since it was last told.
    output: Option<Stamp>,
}

impl Resumed {
    /// Returns the place of the attempt's cursor; `None` without one that fits.
    fn from_cursor(dir: &AttemptDir, agent: &'static dyn Agent) -> io::Result<Option<Self>> {
        let Some(cursor) = Cursor::read(dir) else {
            return Ok(None);
        };
        let Ok(transcript) = Transcript::restore(agent, cursor.transcript.as_bytes()) else {
            return Ok(None);
        };
        let attempt = Some(dir.attempt());
        let (position, offsets) = (cursor.position, cursor.offsets);
        let Some(reader) = SpoolReader::resume(dir, attempt, position, offsets)? else {
            return Ok(None);
        };
        tracing::debug!(position, "the files are derived on from the cursor");
        Ok(Some(Self {
            reader,
            transcript,
            formatter: TextFormatter::restore(TextStyle::default(), cursor.formatter),
            lengths: cursor.lengths,
            rest: cursor.rest,
            found: Found {
                started_at: cursor.started_at,
                gaps: cursor.gaps,
                last: cursor.last,
                output: cursor.output.map(|[monotonic_ns, wall_ns]| Stamp {
                    monotonic_ns,
                    wall_ns,
                }),
                ..Found::default()
            },
        }))
    }

    /// Returns the beginning; the cursor is gone before anything that it speaks of is.
    fn from_first_byte(dir: &AttemptDir, agent: &'static dyn Agent) -> io::Result<Self> {
        Cursor::forget(dir)?;
        Ok(Self {
            reader: SpoolReader::open(dir, Some(dir.attempt()))?,
            transcript: Transcript::new(agent),
            formatter: TextFormatter::new(TextStyle::default()),
            lengths: [0; 2],
            rest: None,
            found: Found::default(),
        })
    }
}

impl Pump {
    /// Opens the attempt's files where an earlier pump's cursor is, or anew: what is behind it is derived again.
    pub(crate) fn open(
        dir: &AttemptDir,
        agent: &'static dyn Agent,
        mask: Mask,
        mut sinks: Vec<Box<dyn Sink>>,
        stamps: Stamps,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, ExecutorError> {
        for sink in &mut sinks {
            sink.hide(&mask);
        }
        let attempt = dir.attempt();
        let output = |source| ExecutorError::Output { attempt, source };
        let pulse = Arc::<Pulse>::default();
        let room = Arc::new(Room::new(Arc::clone(&pulse), Arc::clone(clock)));
        let files = open_spool(dir).map_err(output)?;
        // A sink is to have everything.
        let resumed = match sinks.is_empty() {
            true => Resumed::from_cursor(dir, agent).map_err(output)?,
            false => None,
        };
        let Resumed {
            reader,
            transcript,
            formatter,
            lengths,
            rest,
            found,
        } = match resumed {
            Some(resumed) => resumed,
            None => Resumed::from_first_byte(dir, agent).map_err(output)?,
        };
        let paths = cursor::files(dir);
        let [run_log, event_log] =
            std::array::from_fn(|file| Derived::open(&paths[file], lengths[file], &room));
        let (run_log, event_log) = (run_log.map_err(output)?, event_log.map_err(output)?);
        let printed = reader.offsets().iter().sum();
        Ok(Self {
            kept: Kept {
                keeper: None,
                printed,
                at: Instant::now(),
            },
            reader,
            files,
            transcript: transcript.with_mask(mask.clone()),
            mask,
            readers: Readers::new(run_log, event_log, formatter, rest, sinks),
            found,
            dir: dir.clone(),
            pulse,
            room,
            stamps,
            clock: Arc::clone(clock),
        })
    }

    /// Lets the pump work on a thread of its own.
    pub(crate) fn start(self) -> Result<Pumping, ExecutorError> {
        let attempt = self.dir.attempt();
        let signal = EndSignal::new(&self.room)
            .map_err(|source| ExecutorError::Output { attempt, source })?;
        let end = signal.clone();
        let pulse = Arc::clone(&self.pulse);
        Ok(Pumping {
            task: tokio::task::spawn_blocking(move || self.run(&end)),
            result: None,
            signal,
            pulse,
            told_full: false,
        })
    }

    /// Pumps until the exit record, or until the spool's end once the workload has ended. Blocks.
    fn run(mut self, end: &EndSignal) -> Result<Collected, ExecutorError> {
        let attempt = self.dir.attempt();
        let output = |source| ExecutorError::Output { attempt, source };
        let changes = Changes::of_spool(&self.dir);
        let mut next_flush = Instant::now();
        loop {
            let printed = self.printed();
            // Read before the spool is drained: bytes written before the engine saw the end are then not missed.
            let ended = end.ended.load(Ordering::Acquire);
            if end.room.is_given_up() {
                return Err(output(io::ErrorKind::Interrupted.into()));
            }
            self.drain().map_err(|error| match error {
                PumpError::Spool(source) => ExecutorError::Spool { attempt, source },
                PumpError::Write(source) => output(source),
            })?;
            self.tell();
            if ended || self.found.exit.is_some() {
                break;
            }
            let mut wait = next_flush.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                wait = SAFETY_WAKE;
                if self.readers.flush().map_err(output)? {
                    next_flush = Instant::now() + FLUSH_INTERVAL;
                }
            }
            if self.printed() - printed >= FLOOD {
                thread::sleep(GATHER);
            }
            changes.wait(&end.wake, wait).map_err(output)?;
        }
        changes.end();
        self.finish().map_err(output)
    }

    /// Returns how many bytes of output were read.
    fn printed(&self) -> u64 {
        self.reader.offsets().iter().sum()
    }

    /// Tells what was seen to whoever keeps the deadlines.
    fn tell(&mut self) {
        let output = self.found.output.take();
        let rest = self.readers.take_rest();
        if output.is_none() && rest.is_none() {
            self.pulse.note(|signs| signs.reading = Reading::AtEnd);
            return;
        }
        let now = self.clock.moment();
        let at = |stamp: Stamp| match self.stamps {
            // Whatever was done to the wall clock since.
            Stamps::OfThisBoot => now.at_awake(stamp.monotonic_ns / 1_000_000),
            Stamps::Unknown => now.at_wall(timestamp(stamp.wall_ns)),
        };
        self.pulse.note(|signs| {
            signs.reading = Reading::AtEnd;
            signs.output = output.map(at).or(signs.output.take());
            match rest {
                Some(Rest::Done) => signs.result = output.map(at).or(Some(now.clone())),
                Some(Rest::Working) => signs.result = None,
                None => {}
            }
        });
    }

    /// Takes in every whole record that is there.
    fn drain(&mut self) -> Result<(), PumpError> {
        while self.found.exit.is_none() && self.found.damage.is_none() {
            if self.room.is_given_up() {
                return Err(io::Error::from(io::ErrorKind::Interrupted).into());
            }
            let record = match self.reader.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(error @ ReadError::Read(_)) => return Err(PumpError::Spool(error)),
                // Nothing behind it can be believed, and reading again would find the same.
                Err(error) => {
                    self.found.damage = Some(error.to_string());
                    break;
                }
            };
            let at = timestamp(record.header.stamp.wall_ns);
            self.found.last = at;
            match record.header.kind {
                Kind::Start => {
                    self.found.started_at.get_or_insert(at);
                }
                Kind::Data => {
                    if self.found.output.replace(record.header.stamp).is_none() {
                        self.pulse.note(Signs::are_behind);
                    }
                    let stream = match record.header.stream {
                        Stream::Stdout => EventStream::Stdout,
                        Stream::Stderr => EventStream::Stderr,
                    };
                    let readers = &mut self.readers;
                    readers.bytes(stream, record.payload, at);
                    self.transcript
                        .feed_pieces(stream, record.payload, at, |piece| readers.piece(&piece));
                    readers.check()?;
                }
                Kind::Eof => {}
                Kind::Full => self.room.full(Writer::Helper),
                Kind::Room => self.room.free(Writer::Helper),
                Kind::Gap => {
                    let why = String::from_utf8_lossy(record.payload).into_owned();
                    self.found.gaps.push(format!(
                        "output from byte {} on: {why}",
                        record.header.offset
                    ));
                }
                Kind::ExecFailed => self.found.exec_failed = ExecFailed::decode(record.payload),
                Kind::Exit => self.found.exit = ExitRecord::decode(record.payload),
            }
            let printed = self.printed();
            self.keep_cursor(printed)?;
        }
        Ok(())
    }

    /// Has it written down how far the pump is, if that was long ago; a failure only costs the next pump time.
    fn keep_cursor(&mut self, printed: u64) -> io::Result<()> {
        let new = printed.saturating_sub(self.kept.printed);
        let is_due =
            new >= CURSOR_BYTES || new >= CURSOR_LEAST && self.kept.at.elapsed() >= CURSOR_TIME;
        // The end is near, or nothing can be written anyway.
        let is_useless =
            self.found.exit.is_some() || self.found.exec_failed.is_some() || !self.room.is_there();
        if !is_due || is_useless {
            return Ok(());
        }
        if self.kept.keeper.as_ref().is_some_and(Keeper::is_busy) {
            return Ok(());
        }
        let Some(transcript) = self.transcript.save() else {
            return Ok(());
        };
        let Ok(transcript) = String::from_utf8(transcript) else {
            return Ok(());
        };
        self.readers.flush()?;
        let cursor = Cursor {
            position: self.reader.position(),
            offsets: self.reader.offsets(),
            lengths: self.readers.lengths(),
            transcript,
            formatter: self.readers.save(),
            rest: self.readers.rest(),
            started_at: self.found.started_at,
            gaps: self.found.gaps.clone(),
            last: self.found.last,
            output: self
                .found
                .output
                .map(|stamp| [stamp.monotonic_ns, stamp.wall_ns]),
        };
        self.kept.printed = printed;
        self.kept.at = Instant::now();
        let kept = match &self.kept.keeper {
            Some(keeper) => keeper.keep(cursor),
            None => Keeper::start(&self.dir).and_then(|keeper| {
                let kept = keeper.keep(cursor);
                self.kept.keeper = Some(keeper);
                kept
            }),
        };
        if let Err(error) = kept {
            tracing::debug!(%error, "the attempt has no new cursor");
        }
        Ok(())
    }

    /// Leaves of the raw logs what the records prove, and brings that to the disk.
    fn keep_raw_logs(&self) -> io::Result<()> {
        for (file, length) in self.files.streams.iter().zip(self.reader.offsets()) {
            // A helper that was killed before it wrote the record.
            let is_proven = self.found.started_at.is_some() && self.found.damage.is_none();
            if is_proven && file.metadata()?.len() > length {
                file.set_len(length)?;
            }
            if length > 0 {
                self.room.wait_for(|| file.sync_data())?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<Collected> {
        // No cursor is to appear behind the end.
        self.kept.keeper = None;
        let mut last = Vec::new();
        self.transcript.finish(self.found.last, &mut last);
        for event in &last {
            self.readers.event(event);
        }
        self.readers.check()?;
        self.readers.flush()?;
        self.keep_raw_logs()?;
        let mut warnings = self.found.gaps;
        let whole = warnings.is_empty() && self.found.damage.is_none();
        warnings.extend(self.readers.finish());
        let totals = self.reader.offsets();
        let complete = whole
            && (self.found.exec_failed.is_some()
                || self
                    .found
                    .exit
                    .as_ref()
                    .is_some_and(|e| e.totals == totals && e.eof == [true; 2]));
        Ok(Collected {
            conclusion: self.transcript.conclusion(),
            mask: self.mask,
            started_at: self.found.started_at,
            exit: self.found.exit,
            exec_failed: self.found.exec_failed,
            damage: self.found.damage,
            log: if complete {
                LogState::Complete
            } else {
                LogState::Incomplete
            },
            totals,
            warnings,
        })
    }
}

enum PumpError {
    Spool(ReadError),
    Write(io::Error),
}

impl From<io::Error> for PumpError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// What becomes of the spool.
struct Changes {
    /// `None` where the system has no watch left for us: a user may have 128 of them.
    watch: Option<(Inotify, WatchDescriptor)>,
}

impl Changes {
    fn of_spool(dir: &AttemptDir) -> Self {
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        let watch = watch.and_then(|inotify| {
            let spool = inotify.add_watch(&dir.spool(), AddWatchFlags::IN_MODIFY)?;
            Ok((inotify, spool))
        });
        let watch = watch.inspect_err(
            |error| tracing::debug!(%error, "the spool is looked at instead of watched"),
        );
        Self { watch: watch.ok() }
    }

    /// Waits until there is something new, or something to do, or for so long.
    fn wait(&self, wake: &EventFd, most: Duration) -> io::Result<()> {
        let inotify = self.watch.as_ref().map(|(inotify, _)| inotify);
        let mut fds = vec![PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(inotify.map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)));
        let most = inotify.map_or(most.min(UNWATCHED_WAKE), |_| most);
        // Rounded up: it counts in milliseconds, and would come too early.
        let most = most + Duration::from_micros(999);
        let time = PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, time) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        match inotify.map_or(Ok(Vec::new()), Inotify::read_events) {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends the watch, and waits for nothing: to close what has, or had a moment before, a watch takes the kernel up to
    /// twenty milliseconds.
    fn end(self) {
        if let Some((inotify, spool)) = self.watch {
            if let Err(error) = inotify.rm_watch(spool) {
                tracing::debug!(%error, "the spool is still watched");
            }
            // Nothing depends on its end.
            drop(tokio::task::spawn_blocking(move || drop(inotify)));
        }
    }
}

fn timestamp(wall_ns: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(wall_ns)).unwrap_or(Timestamp::UNIX_EPOCH)
}
