//! Nudges: telling a living supervisor that the store holds a request for it.
//!
//! Owns: one file in each attempt's folder, whose change is the nudge.
//! Reads: nothing of that file: what is asked for stands in the store.
//! Never: is relied on alone: a supervisor also looks by itself from time to time.

use std::fs::File;
use std::io;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::readable::Readable;
use crate::spec::AttemptDir;

/// Tells the attempt's supervisor, if there is one, to look into the store.
///
/// # Errors
///
/// The operating system's error.
pub fn nudge(dir: &AttemptDir) -> io::Result<()> {
    // Opening it for writing and closing it is all that is watched for, so a full disk is no obstacle.
    File::options()
        .create(true)
        .append(true)
        .open(dir.nudge())
        .map(drop)
}

/// The receiving end of an attempt's nudges.
#[derive(Debug)]
pub struct Nudges {
    watch: Readable,
}

impl Nudges {
    /// Watches for nudges from now on; must be called within a runtime.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn watch(dir: &AttemptDir) -> io::Result<Self> {
        nudge(dir)?;
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&watch, dir.nudge(), WatchFlags::CLOSE_WRITE)?;
        Ok(Self {
            watch: Readable::new(watch)?,
        })
    }

    /// Waits for the next nudge; several at once count as one. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub async fn next(&self) -> io::Result<()> {
        self.watch.read(&mut [0; 4096]).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dark_factory_types::RunId;

    use super::*;

    #[tokio::test]
    async fn a_nudge_wakes_whoever_watches_and_many_count_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(
            RunId::from_random_bits(1).attempt(1),
            folder.path().to_owned(),
            folder.path().join("init"),
        );
        let nudges = Nudges::watch(&dir).unwrap();

        nudge(&dir).unwrap();
        nudge(&dir).unwrap();
        nudges.next().await.unwrap();

        let another = tokio::time::timeout(Duration::from_millis(50), nudges.next()).await;
        assert!(another.is_err());
    }
}
