//! Brings what was printed to the disk while more of it comes, so that a sync has little to wait for.
//!
//! Owns: the thread that does it, from a flood to the next sync.
//! Reads: nothing.
//! Never: holds the agent up; keeps an error of the disk to itself, which tells each of them once.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use rustix::fs::fdatasync;
use rustix::io::Errno;

/// New bytes of output that are brought to the disk at once.
const STEP: u64 = 8 << 20;
/// Nearly nothing of it is used.
const STACK: usize = 64 << 10;

/// A file that is brought to the disk.
pub(super) struct Writeback {
    /// Bytes that were written since the last step.
    new: u64,
    worker: Option<Worker>,
}

struct Worker {
    /// Takes nothing while the last step is under way.
    steps: SyncSender<()>,
    /// Returns the first error.
    thread: JoinHandle<Option<Errno>>,
}

impl Writeback {
    pub(super) const fn new() -> Self {
        Self {
            new: 0,
            worker: None,
        }
    }

    /// Notes that so many more bytes were written to the file.
    pub(super) fn wrote(&mut self, bytes: u64, file: &File) {
        self.new += bytes;
        if self.new < STEP {
            return;
        }
        if self.worker.is_none() {
            // Where there is no thread for it, the next sync does it all.
            self.worker = Worker::start(file).ok();
            self.new = 0;
        }
        if let Some(worker) = &self.worker
            && worker.steps.try_send(()).is_ok()
        {
            self.new = 0;
        }
    }

    /// Waits for the end of a step; returns the first error of all of them since the last call.
    pub(super) fn settle(&mut self) -> Result<(), Errno> {
        let Some(Worker { steps, thread }) = self.worker.take() else {
            return Ok(());
        };
        drop(steps);
        match thread.join() {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(error),
            Err(_) => Err(Errno::IO),
        }
    }
}

impl Worker {
    fn start(file: &File) -> io::Result<Self> {
        let file = file.try_clone()?;
        let (steps, received) = sync_channel(0);
        let thread = thread::Builder::new()
            .name("writeback".to_owned())
            .stack_size(STACK)
            .spawn(move || work(&received, &file))?;
        Ok(Self { steps, thread })
    }
}

fn work(steps: &Receiver<()>, file: &File) -> Option<Errno> {
    steps
        .iter()
        .filter_map(|()| fdatasync(file).err())
        // Some file systems have nothing to sync.
        .find(|error| ![Errno::INVAL, Errno::INTR].contains(error))
}
