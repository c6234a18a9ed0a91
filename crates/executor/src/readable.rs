//! Waiting for a descriptor of our own to become readable, without a thread.
//!
//! Owns: the descriptor's registration with the runtime.
//! Reads: the descriptor.
//! Never: is given a descriptor that somebody else may close.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// A nonblocking descriptor that the runtime watches.
#[derive(Debug)]
pub(crate) struct Readable {
    watched: AsyncFd<OwnedFd>,
}

impl Readable {
    /// Registers a nonblocking descriptor; must be called within a runtime.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "its replacement is unsafe, and asks for nothing that an OwnedFd does not keep: it stays open"
        )]
        let watched = AsyncFd::new(fd)?;
        Ok(Self { watched })
    }

    /// Watches a folder for these changes; must be called within a runtime.
    ///
    /// To close it takes the kernel up to twenty milliseconds.
    pub(crate) fn watch(folder: &Path, changes: WatchFlags) -> io::Result<Self> {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&watch, folder, changes)?;
        Self::new(watch)
    }

    /// Reads once there is something to read; what does not fit into the buffer is left or lost, as the descriptor
    /// has it. Cancel-safe.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.watched.readable().await?;
            match rustix::io::read(self.watched.get_ref(), &mut *buffer) {
                Ok(length) => return Ok(length),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
