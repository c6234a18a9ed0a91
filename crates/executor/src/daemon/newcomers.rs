//! New attempts, noticed by their folders.
//!
//! Owns: the watch on the folder of runs, and when the store is looked into after a change.
//! Reads: nothing of what is there: the store says what it is.
//! Never: is relied on alone: whoever queues a run says so, and the daemon looks by itself from time to time.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::WatchFlags;
use tokio::time::Instant;

use crate::readable::Readable;

/// When the store is looked into after a folder was made: a run is recorded only after that.
const AFTER: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(10),
];

/// A watch on the folder of runs.
#[derive(Debug)]
pub(super) struct Newcomers {
    watch: Readable,
    changed: Option<Instant>,
    looked: usize,
}

impl Newcomers {
    /// Watches from now on; must be called within a runtime.
    pub(super) fn watch(runs: &Path) -> io::Result<Self> {
        Ok(Self {
            watch: Readable::watch(runs, WatchFlags::CREATE | WatchFlags::MOVED_TO)?,
            changed: None,
            looked: 0,
        })
    }

    /// Waits for the next change, or for the next time to look after one. Cancel-safe.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        let look = self
            .changed
            .zip(AFTER.get(self.looked))
            .map(|(changed, after)| changed + *after);
        let due = async {
            match look {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let mut events = [0; 4096];
        tokio::select! {
            read = self.watch.read(&mut events) => {
                read?;
                self.changed = Some(Instant::now());
                self.looked = 0;
            }
            () = due => self.looked += 1,
        }
        Ok(())
    }
}
