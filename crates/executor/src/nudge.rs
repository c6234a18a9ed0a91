//! Nudges: telling a living supervisor that the store holds a request for it.
//!
//! Owns: one FIFO in each attempt's folder; a byte in it is the nudge.
//! Reads: nothing of what is asked for: that stands in the store.
//! Never: is relied on alone: a supervisor also looks by itself from time to time.
//!
//! No watch on a file: to close one, or to end a process that has one, the kernel takes up to twenty milliseconds.

use std::io;
use std::time::Duration;

use rustix::fs::inotify::WatchFlags;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, mknodat, open, unlink};
use rustix::io::{Errno, write};
use tokio::runtime::Handle;

use crate::readable::Readable;
use crate::spec::AttemptDir;

/// Tells the attempt's supervisor, if there is one, to look into the store.
///
/// # Errors
///
/// The operating system's error.
pub fn nudge(dir: &AttemptDir) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let told = open(dir.nudge(), flags, Mode::empty()).and_then(|fifo| write(fifo, &[0]));
    match told {
        // Nobody is there, or somebody who has not got up since he was last told.
        Err(Errno::NOENT | Errno::NXIO | Errno::PIPE | Errno::AGAIN) => Ok(()),
        told => Ok(told.map(drop)?),
    }
}

/// How often the store is looked into where nobody can be told.
const DEAF_LOOK: Duration = Duration::from_secs(1);

/// The receiving end of an attempt's nudges, which its one supervisor has.
#[derive(Debug)]
pub struct Nudges {
    /// `None` where the file system has no FIFOs.
    fifo: Option<Readable>,
}

impl Nudges {
    /// Receives nudges from now on; must be called within a runtime.
    ///
    /// Where that is not possible, there is a nudge every second.
    pub fn receive(dir: &AttemptDir) -> Self {
        let fifo = receive(dir)
            .inspect_err(|error| tracing::debug!(%error, "no nudges"))
            .ok();
        Self { fifo }
    }

    /// Waits for the next nudge; several at once count as one. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub async fn next(&self) -> io::Result<()> {
        match &self.fifo {
            Some(fifo) => fifo.read(&mut [0; 4096]).await.map(drop),
            None => {
                tokio::time::sleep(DEAF_LOOK).await;
                Ok(())
            }
        }
    }
}

fn receive(dir: &AttemptDir) -> io::Result<Readable> {
    let path = dir.nudge();
    let make = || mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
    // With a writer of our own, so that it never ends.
    let open = || {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        open(&path, flags, Mode::empty())
    };
    let fifo = match make() {
        Ok(()) => open()?,
        // Of a supervisor before us.
        Err(Errno::EXIST) => {
            let there = open()?;
            if FileType::from_raw_mode(fstat(&there)?.st_mode) == FileType::Fifo {
                there
            } else {
                unlink(&path)?;
                make()?;
                open()?
            }
        }
        Err(error) => return Err(error.into()),
    };
    Readable::new(fifo)
}

/// Watches for an attempt's first supervisor.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// `None` where the system has no watch left for us: a user may have 128 of them.
    watch: Option<Readable>,
}

impl Arrival {
    /// Watches from now on; must be called within a runtime.
    pub(crate) fn watch(dir: &AttemptDir) -> Self {
        let watch = Readable::watch(dir.path(), WatchFlags::CREATE)
            .inspect_err(|error| tracing::debug!(%error, "no watch for a supervisor"))
            .ok();
        Self { watch }
    }

    /// Waits until something is made in the attempt's folder, as its nudges are; for ever where that is not seen.
    /// Cancel-safe.
    pub(crate) async fn seen(&self) -> io::Result<()> {
        match &self.watch {
            Some(watch) => watch.read(&mut [0; 4096]).await.map(drop),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Arrival {
    /// Closes the watch on a thread of its own: the kernel takes some ten milliseconds for that.
    fn drop(&mut self) {
        let watch = self.watch.take();
        if let Ok(runtime) = Handle::try_current() {
            // Nothing depends on its end.
            drop(runtime.spawn_blocking(move || drop(watch)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileTypeExt as _;

    use dark_factory_types::RunId;

    use super::*;

    fn folder() -> (tempfile::TempDir, AttemptDir) {
        let folder = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(
            RunId::from_random_bits(1).attempt(1),
            folder.path().to_owned(),
            folder.path().join("init"),
        );
        (folder, dir)
    }

    async fn is_told(nudges: &Nudges) -> bool {
        let told = tokio::time::timeout(Duration::from_millis(50), nudges.next());
        told.await.is_ok_and(|told| told.is_ok())
    }

    #[tokio::test]
    async fn a_nudge_wakes_its_receiver_and_many_count_as_one() {
        let (_folder, dir) = folder();
        let nudges = Nudges::receive(&dir);

        for _ in 0..100_000 {
            nudge(&dir).unwrap();
        }
        while is_told(&nudges).await {}
        nudge(&dir).unwrap();
        nudge(&dir).unwrap();

        assert!(is_told(&nudges).await);
        assert!(!is_told(&nudges).await);
    }

    #[tokio::test]
    async fn one_that_nobody_receives_is_lost_and_the_next_receiver_hears_the_next() {
        let (_folder, dir) = folder();
        nudge(&dir).unwrap();
        assert!(!dir.nudge().exists());
        drop(Nudges::receive(&dir));
        nudge(&dir).unwrap();

        let nudges = Nudges::receive(&dir);

        assert!(!is_told(&nudges).await);
        nudge(&dir).unwrap();
        assert!(is_told(&nudges).await);
    }

    #[tokio::test]
    async fn a_file_of_the_name_makes_room() {
        let (_folder, dir) = folder();
        fs::write(dir.nudge(), "").unwrap();

        let nudges = Nudges::receive(&dir);
        nudge(&dir).unwrap();

        assert!(is_told(&nudges).await);
        assert!(fs::metadata(dir.nudge()).unwrap().file_type().is_fifo());
    }

    #[tokio::test]
    async fn a_supervisor_is_seen_when_it_comes() {
        let (_folder, dir) = folder();
        let arrival = Arrival::watch(&dir);

        let _nudges = Nudges::receive(&dir);

        arrival.seen().await.unwrap();
    }
}
