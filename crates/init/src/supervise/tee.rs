//! The convenience copy for the engine's own log.
//!
//! Owns: the helper's stdout and stderr.
//! Reads: nothing.
//! Never: blocks, retries or reports: what the engine does not take at once is dropped, the spool is the record.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use dark_factory_spool::Stream;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::Errno;

/// Copies of both streams, by [`Stream::index`].
pub(super) struct Tee {
    open: [bool; 2],
}

impl Tee {
    /// Makes the helper's own stdout and stderr non-blocking.
    ///
    /// In a container they are pipes to the engine that nobody shares. A descriptor that others might share, such as a
    /// developer's terminal, is left alone and gets no copy.
    pub(super) fn new() -> Self {
        Self {
            open: Stream::ALL.map(|stream| with_own(stream, |fd| unblock(fd).unwrap_or(false))),
        }
    }

    /// Offers `bytes` to the engine once.
    pub(super) fn copy(&mut self, stream: Stream, bytes: &[u8]) {
        let open = &mut self.open[stream.index()];
        if *open {
            *open = with_own(stream, |fd| rustix::io::write(fd, bytes)) != Err(Errno::PIPE);
        }
    }
}

fn with_own<T>(stream: Stream, work: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    match stream {
        Stream::Stdout => work(io::stdout().as_fd()),
        Stream::Stderr => work(io::stderr().as_fd()),
    }
}

fn unblock(fd: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    match FileType::from_raw_mode(fstat(fd)?.st_mode) {
        FileType::Fifo | FileType::Socket => {
            fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
            Ok(true)
        }
        FileType::RegularFile => Ok(true),
        _ => Ok(false),
    }
}
