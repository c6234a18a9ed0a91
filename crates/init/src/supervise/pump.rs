//! Carries the agent's output from its pipes to the spool until everything has ended.
//!
//! Owns: the helper's ends of the pipes, the stream offsets, and the loop that everything happens in.
//! Reads: the pipes, the signal queue, resource usage.
//! Never: holds more than one read, reads while the disk is full, or waits for the engine's log.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use dark_factory_spool::{End, ExitRecord, Intervention, Kind, Stamp, Stream};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionread};
use rustix::process::Pid;

use super::cgroup::MemoryFacts;
use super::child::PIPE_SIZE;
use super::family::{Children, Family};
use super::handover::timespec;
use super::signals::{Notice, Signals};
use super::spool::{Progress, Room, Spool, SpoolLost};
use super::tee::Tee;

/// Largest single read: what a pipe holds.
const READ_SIZE: usize = PIPE_SIZE;
/// Most that is drained of one stream before leftovers are killed, so that a busy one cannot hold the end up.
const DRAIN_LIMIT: usize = 1024 * 1024;
/// Output that is there this soon after the last was taken, so often in a row, is a flood.
const FLOOD_GAP: Duration = Duration::from_micros(20);
const FLOOD_READS: u32 = 4;
/// How long more of a flood is left to gather where less than this was taken.
const GATHER: Duration = Duration::from_micros(100);
const MUCH: u64 = 128 << 10;
/// How long a full disk is left alone before the next try.
const FULL_PAUSE: Duration = Duration::from_millis(200);
/// How long a child may stay unreaped after everything within reach was killed, and then a pipe open.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// One of the agent's streams.
struct Source {
    /// `None` once nothing more is read from it.
    pipe: Option<OwnedFd>,
    /// Whether it was read to its end.
    eof: bool,
    offset: u64,
}

/// What one read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Bytes(usize),
    NothingYet,
    End,
}

/// The loop's state.
pub(super) struct Pump {
    spool: Spool,
    signals: Signals,
    family: Family,
    sources: [Source; 2],
    tee: Tee,
    log_limit: Option<u64>,
    stalled: Duration,
    /// Whether a stop was asked for before there was an agent to pass it to.
    stop_asked: bool,
}

impl Pump {
    /// Puts the parts together; nothing is read yet.
    pub(super) fn new(
        spool: Spool,
        signals: Signals,
        family: Family,
        pipes: [OwnedFd; 2],
        log_limit: Option<u64>,
    ) -> Self {
        Self {
            spool,
            signals,
            family,
            sources: pipes.map(|pipe| Source {
                pipe: Some(pipe),
                eof: false,
                offset: 0,
            }),
            tee: Tee::new(),
            log_limit,
            stalled: Duration::ZERO,
            stop_asked: false,
        }
    }

    /// Writes a record and brings it to the disk, waiting for room as long as it takes.
    pub(super) fn write_now(
        &mut self,
        kind: Kind,
        stream: Stream,
        payload: &[u8],
    ) -> Result<(), SpoolLost> {
        self.put(kind, stream, payload)?;
        while self.spool.sync()? == Progress::Full {
            self.pause()?;
        }
        Ok(())
    }

    /// Records everything until the main process and its leftovers are gone; returns how the main process ended.
    pub(super) fn run(mut self, main: Pid) -> Result<End, SpoolLost> {
        self.family.adopt(main);
        let recorded = self.record_all();
        if recorded.is_err() {
            self.abandon();
        }
        recorded
    }

    /// Kills everything without recording any more of it.
    fn abandon(&mut self) {
        let deadline = Instant::now() + SETTLE_TIME;
        self.family.kill_all();
        while self.family.reap() == Children::Some && Instant::now() < deadline {
            let mut fds = [PollFd::new(&self.signals, PollFlags::IN)];
            let _polled = poll(&mut fds, Some(&timespec(FULL_PAUSE)));
            while self.signals.next().is_some() {}
            self.family.kill_all();
        }
    }

    fn record_all(&mut self) -> Result<End, SpoolLost> {
        let mut buffer = vec![0; READ_SIZE];
        let (mut taken, mut prompt_reads) = (0, 0_u32);
        let end = loop {
            if let Some(end) = self.family.end() {
                break end;
            }
            // What was told to die is not read from: else it could go on printing for as long as we read.
            let watched: &[Stream] = match self.family.is_dying() {
                true => &[],
                false => &Stream::ALL,
            };
            let began = Instant::now();
            let ready = self.wait(self.spool.next_duty(), watched)?;
            prompt_reads = match !ready.is_empty() && began.elapsed() < FLOOD_GAP {
                true => prompt_reads.saturating_add(1),
                false => 0,
            };
            if prompt_reads >= FLOOD_READS && taken < MUCH {
                thread::sleep(GATHER);
            }
            let before = self.printed();
            for stream in ready {
                self.take(stream, &mut buffer)?;
            }
            taken = self.printed() - before;
            self.spool.look_after()?;
        };
        if !self.family.was_killed() {
            self.drain(&mut buffer)?;
        }
        self.bury()?;
        self.empty_pipes(&mut buffer)?;
        self.write_exit(end)?;
        Ok(end)
    }

    /// Waits for output of the streams, or a signal; handles signals and returns the streams that can be read.
    fn wait(&mut self, time: Duration, streams: &[Stream]) -> Result<Vec<Stream>, SpoolLost> {
        let open: Vec<(Stream, &OwnedFd)> = streams
            .iter()
            .filter_map(|&stream| Some((stream, self.sources[stream.index()].pipe.as_ref()?)))
            .collect();
        let mut fds: Vec<PollFd<'_>> = open
            .iter()
            .map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN))
            .collect();
        fds.push(PollFd::new(&self.signals, PollFlags::IN));
        match poll(&mut fds, Some(&timespec(time))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(SpoolLost::Broken(error)),
        }
        let ready: Vec<Stream> = open
            .iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|((stream, _), _)| *stream)
            .collect();
        self.answer_signals();
        Ok(ready)
    }

    fn answer_signals(&mut self) {
        while let Some(notice) = self.signals.next() {
            match notice {
                Notice::ChildEnded => {
                    self.family.reap();
                }
                Notice::KillEverything | Notice::Forward(_) if !self.family.was_started() => {
                    self.stop_asked |= notice.asks_to_stop();
                }
                Notice::KillEverything => self.family.kill_main(Intervention::Kill),
                Notice::Forward(signal) => self.family.forward(signal),
            }
        }
    }

    /// Makes one read and one record of it while the agent runs, once there is room.
    fn take(&mut self, stream: Stream, buffer: &mut [u8]) -> Result<(), SpoolLost> {
        self.await_room(stream)?;
        if !self.family.is_dying() {
            self.read(stream, buffer)?;
            self.keep_log_limit();
        }
        Ok(())
    }

    /// Waits until the disk has room for one more read; the wait is marked in the spool.
    ///
    /// One mark is taken from the reserve for each wait, and no wait ends before the reserve is whole again.
    fn await_room(&mut self, stream: Stream) -> Result<(), SpoolLost> {
        if self.spool.make_room(stream, READ_SIZE) == Progress::Done {
            return Ok(());
        }
        self.mark(Kind::Full)?;
        while !self.family.is_dying() {
            self.pause()?;
            if self.spool.make_room(stream, READ_SIZE) == Progress::Done {
                return self.mark(Kind::Room);
            }
        }
        Ok(())
    }

    /// Appends a record without payload, from the reserve; leaves it out where there is none.
    fn mark(&mut self, kind: Kind) -> Result<(), SpoolLost> {
        if !self.spool.can_mark() {
            return Ok(());
        }
        let offset = self.sources[Stream::Stdout.index()].offset;
        let mut record = self.spool.record(kind, Stream::Stdout, offset, &[]);
        while self.spool.append(&mut record, Room::Any)? == Progress::Full && record.was_begun() {
            self.pause()?;
        }
        Ok(())
    }

    /// Kills everything if the agent has printed more than it may.
    ///
    /// What it left in its pipes is recorded too, so that the log is complete.
    fn keep_log_limit(&mut self) {
        if self.log_limit.is_some_and(|limit| limit < self.printed()) {
            self.family.kill_main(Intervention::LogLimit);
        }
    }

    /// Returns how many bytes were read.
    fn printed(&self) -> u64 {
        self.sources.iter().map(|source| source.offset).sum()
    }

    /// Makes one read and one record of it.
    fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Result<Taken, SpoolLost> {
        let source = &mut self.sources[stream.index()];
        let Some(pipe) = &source.pipe else {
            return Ok(Taken::End);
        };
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => {
                source.pipe = None;
                source.eof = true;
                self.put(Kind::Eof, stream, &[])?;
                Ok(Taken::End)
            }
            Ok(length) => {
                let bytes = &buffer[..length];
                let stamp = self.put(Kind::Data, stream, bytes)?;
                self.sources[stream.index()].offset += u64::try_from(length).unwrap_or(0);
                self.tee.copy(stream, bytes, stamp.monotonic_ns);
                Ok(Taken::Bytes(length))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Taken::NothingYet),
            Err(error) => Err(SpoolLost::Broken(error)),
        }
    }

    /// Appends one record and returns its stamp; the agent is paused meanwhile, because nobody reads its pipes.
    fn put(&mut self, kind: Kind, stream: Stream, payload: &[u8]) -> Result<Stamp, SpoolLost> {
        let offset = self.sources[stream.index()].offset;
        let mut record = self.spool.record(kind, stream, offset, payload);
        loop {
            let room = if self.family.is_dying() {
                Room::Any
            } else {
                Room::BeforeReserve
            };
            match self.spool.append(&mut record, room)? {
                Progress::Done => return Ok(record.stamp()),
                Progress::Full => self.pause()?,
            }
        }
    }

    /// Leaves a full disk alone for a moment, but not the signals.
    fn pause(&mut self) -> Result<(), SpoolLost> {
        let began = Instant::now();
        let mut fds = [PollFd::new(&self.signals, PollFlags::IN)];
        let polled = poll(&mut fds, Some(&timespec(FULL_PAUSE)));
        self.answer_signals();
        if self.stop_asked {
            return Err(SpoolLost::Stopped);
        }
        self.spool.look_after()?;
        self.stalled += began.elapsed();
        match polled {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(SpoolLost::Broken(error)),
        }
    }

    /// Takes what the main process left in the pipes, as far as the reserve stays whole: those it left may print on.
    fn drain(&mut self, buffer: &mut [u8]) -> Result<(), SpoolLost> {
        for stream in Stream::ALL {
            let mut drained = 0;
            while drained < DRAIN_LIMIT
                && self.spool.make_room(stream, READ_SIZE) == Progress::Done
                && let Taken::Bytes(length) = self.read(stream, buffer)?
            {
                drained += length;
            }
        }
        Ok(())
    }

    /// Kills what is left and waits for its end; nothing is read, so that the pipes hold no more than they can.
    fn bury(&mut self) -> Result<(), SpoolLost> {
        let deadline = Instant::now() + SETTLE_TIME;
        // Those that have ended by themselves are not leftovers.
        while self.family.reap() == Children::Some {
            self.family.kill_all();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.wait(left, &[])?;
        }
        Ok(())
    }

    /// Reads the pipes until nobody can write any more, or nothing more fits.
    fn empty_pipes(&mut self, buffer: &mut [u8]) -> Result<(), SpoolLost> {
        let began = Instant::now();
        let stalled_before = self.stalled;
        loop {
            let waited = began
                .elapsed()
                .saturating_sub(self.stalled - stalled_before);
            let settled = self.sources.iter().all(|source| source.pipe.is_none());
            if settled || waited >= SETTLE_TIME {
                return Ok(());
            }
            for stream in self.wait(SETTLE_TIME - waited, &Stream::ALL)? {
                self.take_rest(stream, buffer)?;
            }
        }
    }

    /// Makes one read and one record of it after the agent's end; stops reading the stream if that does not fit.
    fn take_rest(&mut self, stream: Stream, buffer: &mut [u8]) -> Result<(), SpoolLost> {
        let room = self.spool.room_at_the_end(stream, buffer.len());
        let source = &mut self.sources[stream.index()];
        let holds_bytes = |pipe: &OwnedFd| ioctl_fionread(pipe).is_ok_and(|bytes| bytes > 0);
        if room == 0 && source.pipe.as_ref().is_some_and(holds_bytes) {
            source.pipe = None;
            return Ok(());
        }
        // An empty pipe is read for its end, which takes no buffer but a place for one byte.
        self.read(stream, &mut buffer[..room.max(1)]).map(drop)
    }

    fn write_exit(&mut self, end: End) -> Result<(), SpoolLost> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).ok();
        let micros = |time: fn(&nix::sys::resource::Usage) -> TimeVal| {
            let micros = usage.as_ref().map(|usage| time(usage).num_microseconds());
            u64::try_from(micros.unwrap_or(0)).unwrap_or(0)
        };
        let max_rss_kib = usage.as_ref().map_or(0, |usage| usage.max_rss());
        let memory = if self.family.fills_namespace() {
            MemoryFacts::read()
        } else {
            MemoryFacts::default()
        };
        let (intervention, age) = self.family.intervention().unzip();
        let age = age.unwrap_or_default();
        let record = ExitRecord {
            end,
            totals: [self.sources[0].offset, self.sources[1].offset],
            eof: [self.sources[0].eof, self.sources[1].eof],
            user_us: micros(|usage| usage.user_time()),
            system_us: micros(|usage| usage.system_time()),
            max_rss: u64::try_from(max_rss_kib).unwrap_or(0).saturating_mul(1024),
            peak_memory: memory.peak,
            oom_kills: memory.oom_kills,
            oom_victim: self.family.oom_victim().map(str::to_owned),
            leftovers: self.family.leftovers(),
            intervention,
            intervention_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            signals: self.family.signals(),
        };
        self.tee.end();
        self.put(Kind::Exit, Stream::Stdout, &record.encode())?;
        self.spool.release_reserve();
        while self.spool.sync()? == Progress::Full {
            self.pause()?;
        }
        Ok(())
    }
}
