//! Nudges: telling a living supervisor that the store holds a request for it.
//!
//! Owns: one file in each attempt's folder, whose change is the nudge.
//! Reads: nothing of that file: what is asked for stands in the store.
//! Never: is relied on alone: a supervisor also looks by itself from time to time.

use std::fs::File;
use std::io;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::runtime::Handle;

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

/// How often the store is looked into where nothing can be watched for.
const UNWATCHED_LOOK: Duration = Duration::from_secs(1);

/// The receiving end of an attempt's nudges.
#[derive(Debug)]
pub struct Nudges {
    /// `None` where the system has no watch left for us: a user may have 128 of them.
    watch: Option<Readable>,
}

impl Nudges {
    /// Watches for nudges from now on; must be called within a runtime.
    ///
    /// Where that is not possible, there is a nudge every second.
    pub fn watch(dir: &AttemptDir) -> Self {
        let watch = watch(dir)
            .inspect_err(|error| tracing::debug!(%error, "no watch for nudges"))
            .ok();
        Self { watch }
    }

    /// Waits for the next nudge; several at once count as one. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub async fn next(&self) -> io::Result<()> {
        match &self.watch {
            Some(watch) => watch.read(&mut [0; 4096]).await.map(drop),
            None => {
                tokio::time::sleep(UNWATCHED_LOOK).await;
                Ok(())
            }
        }
    }
}

impl Drop for Nudges {
    /// Closes the watch on a thread of its own: the kernel takes some ten milliseconds for that.
    fn drop(&mut self) {
        let watch = self.watch.take();
        if let Ok(runtime) = Handle::try_current() {
            // Nothing depends on its end.
            drop(runtime.spawn_blocking(move || drop(watch)));
        }
    }
}

fn watch(dir: &AttemptDir) -> io::Result<Readable> {
    nudge(dir)?;
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, dir.nudge(), WatchFlags::CLOSE_WRITE)?;
    Readable::new(watch)
}

#[cfg(test)]
mod tests {
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
        let nudges = Nudges::watch(&dir);

        nudge(&dir).unwrap();
        nudge(&dir).unwrap();
        nudges.next().await.unwrap();

        let another = tokio::time::timeout(Duration::from_millis(50), nudges.next()).await;
        assert!(another.is_err());
    }
}
