//! Brings what was printed to the disk while more of it comes, so that the end of a run has little to wait for.
//!
//! Owns: the thread that does it.
//! Reads: nothing.
//! Never: holds the pump up; is relied on: the end is synced whatever became of it, and hears of every error itself.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// New bytes of output that are brought to the disk at once.
const STEP: u64 = 8 << 20;

/// Files that are written by others and brought to the disk meanwhile.
///
/// Dropped, it finishes what it has begun.
#[derive(Debug)]
pub(super) struct Writeback {
    paths: Vec<PathBuf>,
    /// How much is printed when it is due.
    due: u64,
    worker: Option<Worker>,
}

#[derive(Debug)]
struct Worker {
    /// Takes nothing while the last step is under way.
    steps: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Writeback {
    /// Begins where this much is printed.
    pub(super) fn of(paths: impl IntoIterator<Item = PathBuf>, printed: u64) -> Self {
        Self {
            paths: paths.into_iter().collect(),
            due: printed + STEP,
            worker: None,
        }
    }

    /// Notes that this much is printed by now; a failure costs nothing but time at the end.
    pub(super) fn printed(&mut self, printed: u64) {
        if printed < self.due {
            return;
        }
        if self.worker.is_none() {
            match Worker::start(&self.paths) {
                Ok(worker) => self.worker = Some(worker),
                Err(error) => {
                    tracing::debug!(%error, "output is brought to the disk at the end");
                    self.due = u64::MAX;
                    return;
                }
            }
        }
        if let Some(worker) = &self.worker
            && worker.steps.try_send(()).is_ok()
        {
            self.due = printed + STEP;
        }
    }
}

impl Worker {
    fn start(paths: &[PathBuf]) -> io::Result<Self> {
        // Opened anew: an error of the disk is told once to each that has a file open, and the end is to hear of it.
        let files: io::Result<Vec<File>> = paths.iter().map(|path| open(path)).collect();
        let files = files?;
        let (steps, received) = sync_channel(0);
        let thread = thread::Builder::new()
            .name("writeback".to_owned())
            .spawn(move || work(&received, &files))?;
        Ok(Self { steps, thread })
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        let Some(Worker { steps, thread }) = self.worker.take() else {
            return;
        };
        drop(steps);
        if thread.join().is_err() {
            tracing::warn!("the thread of the writeback panicked");
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().write(true).open(path)
}

fn work(steps: &Receiver<()>, files: &[File]) {
    for () in steps {
        for file in files {
            if let Err(error) = file.sync_data() {
                tracing::debug!(%error, "output is brought to the disk at the end");
            }
        }
    }
}
