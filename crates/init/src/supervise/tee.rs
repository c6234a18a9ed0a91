//! The convenience copy for the engine's own log: the beginning, and what comes at a rate that a person can follow.
//!
//! Owns: the helper's stdout and stderr, and how much of each is still copied.
//! Reads: nothing.
//! Never: blocks, retries or reports: what the engine does not take at once is left out, the spool is the record.
//!
//! A flood is not copied, because the engine pays several times for each byte of it what the record costs. What is left
//! out is said in one line where the copy goes on, which it does at the beginning of a line.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use dark_factory_spool::Stream;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;

/// Bytes of each stream that are copied at once: after a quiet time, and so from its beginning.
const BURST: u64 = 256 << 10;
/// What the pipe to the engine has to be to hold that: up to half of its pages are lost to writes that fill none.
const PIPE_SIZE: usize = 512 << 10;
/// Bytes of each stream that are copied in a second, in the long run.
const RATE: u64 = 64 << 10;
/// Least time before a copy that was interrupted goes on, so that a flood is not mostly marks.
const PAUSE_NS: u64 = 1_000_000_000;

/// A line of which no less is worth showing a part.
const LONG_LINE: usize = 16 << 10;

/// Copies of both streams, by [`Stream::index`].
pub(super) struct Tee {
    copies: [Copying; 2],
}

/// The copy of one stream.
struct Copying {
    stream: Stream,
    state: State,
    bucket: Bucket,
    /// Bytes that were left out since the last one that was copied.
    missed: u64,
    /// When they may be followed by what comes then.
    resumes_ns: u64,
    /// The last byte of the stream, copied or not.
    last: u8,
    /// The last byte that was copied.
    last_copied: u8,
}

/// Whether there is anybody to copy for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closed,
}

impl Tee {
    /// Makes the helper's own stdout and stderr non-blocking.
    ///
    /// In a container they are pipes to the engine that nobody shares. A descriptor that others might share, such as a
    /// developer's terminal, is left alone and gets no copy.
    pub(super) fn new() -> Self {
        Self {
            copies: Stream::ALL.map(|stream| Copying {
                stream,
                state: with_own(stream, |fd| prepare(fd).unwrap_or(State::Closed)),
                bucket: Bucket::full(),
                missed: 0,
                resumes_ns: 0,
                last: b'\n',
                last_copied: b'\n',
            }),
        }
    }

    /// Offers `bytes`, which were read at `now_ns` of the monotonic clock, to the engine once.
    pub(super) fn copy(&mut self, stream: Stream, bytes: &[u8], now_ns: u64) {
        self.copies[stream.index()].offer(bytes, now_ns);
    }

    /// Says what was left out at the end of both streams.
    pub(super) fn end(&mut self) {
        for copy in &mut self.copies {
            copy.say_missed();
        }
    }
}

impl Copying {
    fn offer(&mut self, bytes: &[u8], now_ns: u64) {
        let Some(&last) = bytes.last() else { return };
        if self.state == State::Closed {
            return;
        }
        self.bucket.refill(now_ns);
        let start = if self.missed == 0 {
            0
        } else {
            self.beginning(bytes, now_ns)
        };
        let skipped = &bytes[..start];
        let offered = &bytes[start..start + self.allowed(&bytes[start..])];
        self.missed += to_u64(skipped.len());
        let mut written = 0;
        if !offered.is_empty() && self.say_missed() {
            written = self.write(offered);
            self.bucket.take(written);
            if let Some(&last) = offered[..written].last() {
                self.last_copied = last;
            }
        }
        let left_out = to_u64(bytes.len() - start - written);
        if left_out > 0 {
            if self.missed == 0 {
                self.resumes_ns = now_ns.saturating_add(PAUSE_NS);
            }
            self.missed += left_out;
        }
        self.last = last;
    }

    /// Returns where in `bytes` an interrupted copy goes on: behind their end if nowhere.
    fn beginning(&self, bytes: &[u8], now_ns: u64) -> usize {
        if now_ns < self.resumes_ns {
            bytes.len()
        } else if self.last == b'\n' || self.bucket.is_full() {
            // After so long a quiet time also inside a line: it may be one that never ends.
            0
        } else {
            let newline = bytes.iter().position(|&byte| byte == b'\n');
            newline.map_or(bytes.len(), |newline| newline + 1)
        }
    }

    /// Returns how many of `bytes` may be copied now: whole lines if that is not all, and part of one that is long.
    fn allowed(&self, bytes: &[u8]) -> usize {
        let most = usize::try_from(self.bucket.tokens).unwrap_or(usize::MAX);
        if bytes.len() <= most {
            return bytes.len();
        }
        let newline = bytes[..most].iter().rposition(|&byte| byte == b'\n');
        match newline {
            Some(newline) => newline + 1,
            None if most < LONG_LINE => 0,
            None => most,
        }
    }

    /// Writes the line that says how much is left out, if anything is; returns whether nothing is unsaid any more.
    fn say_missed(&mut self) -> bool {
        if self.missed == 0 {
            return true;
        }
        let mark = format!(
            "{}[dark-factory: {} bytes not shown here; `dark-factory logs RUN` has everything]\n",
            if self.last_copied == b'\n' { "" } else { "\n" },
            self.missed
        );
        // So short a write is done wholly or not at all.
        let said = self.write(mark.as_bytes()) == mark.len();
        if said {
            self.missed = 0;
            self.last_copied = b'\n';
        }
        said
    }

    /// Returns how much of it the engine took.
    fn write(&mut self, bytes: &[u8]) -> usize {
        match with_own(self.stream, |fd| rustix::io::write(fd, bytes)) {
            Ok(written) => written,
            Err(error) => {
                if error == Errno::PIPE {
                    self.state = State::Closed;
                }
                0
            }
        }
    }
}

/// How much may still be copied.
struct Bucket {
    tokens: u64,
    refilled_ns: u64,
}

impl Bucket {
    const fn full() -> Self {
        Self {
            tokens: BURST,
            refilled_ns: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.tokens == BURST
    }

    fn refill(&mut self, now_ns: u64) {
        let passed_ns = now_ns.saturating_sub(self.refilled_ns);
        let new = u128::from(passed_ns) * u128::from(RATE) / 1_000_000_000;
        // Where no whole byte has come in yet, the time that passed goes on counting.
        if new > 0 {
            let new = u64::try_from(new).unwrap_or(BURST);
            self.tokens = self.tokens.saturating_add(new).min(BURST);
            self.refilled_ns = now_ns;
        }
    }

    fn take(&mut self, length: usize) {
        self.tokens = self.tokens.saturating_sub(to_u64(length));
    }
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn with_own<T>(stream: Stream, work: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    match stream {
        Stream::Stdout => work(io::stdout().as_fd()),
        Stream::Stderr => work(io::stderr().as_fd()),
    }
}

/// Returns whether there is to be a copy on this descriptor.
fn prepare(fd: BorrowedFd<'_>) -> rustix::io::Result<State> {
    match FileType::from_raw_mode(fstat(fd)?.st_mode) {
        kind @ (FileType::Fifo | FileType::Socket) => {
            fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
            if kind == FileType::Fifo {
                // So that the beginning of a flood is there though the engine reads slowly; a user may have enough pipes.
                let _enlarged = fcntl_setpipe_size(fd, PIPE_SIZE);
            }
            Ok(State::Open)
        }
        FileType::RegularFile => Ok(State::Open),
        _ => Ok(State::Closed),
    }
}
