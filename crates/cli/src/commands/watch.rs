//! Sleeping until a file grows.
//!
//! Owns: one watch of a file and of its folder, and being woken for another reason.
//! Reads: nothing of the file.
//! Never: is relied on alone: whoever waits also looks by itself from time to time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// How often a file is looked at that cannot be watched: a user may have 128 watches.
const UNWATCHED: Duration = Duration::from_millis(100);

/// Tells of changes of a file, and of new files beside it.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    changes: Option<OwnedFd>,
    is_on_file: bool,
    wake: Option<Arc<OwnedFd>>,
}

/// Wakes who waits for a file.
#[derive(Debug, Clone)]
pub(crate) struct Waker(Option<Arc<OwnedFd>>);

impl Watch {
    /// Watches from now on; the file may not be there yet.
    pub(crate) fn new(path: &Path) -> Self {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .and_then(|changes| {
                let new = WatchFlags::CREATE | WatchFlags::MOVED_TO;
                inotify::add_watch(&changes, folder.unwrap_or(Path::new(".")), new)?;
                Ok(changes)
            })
            .inspect_err(|error| tracing::debug!(%error, "a file is looked at instead of watched"));
        let mut watch = Self {
            path: path.to_owned(),
            changes: changes.ok(),
            is_on_file: false,
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .ok()
                .map(Arc::new),
        };
        watch.watch_file();
        watch
    }

    /// Returns what wakes the one who waits.
    pub(crate) fn waker(&self) -> Waker {
        Waker(self.wake.clone())
    }

    /// Waits until there is something to look at, or at most so long. Blocks.
    pub(crate) fn wait(&mut self, most: Duration) {
        let time = match self.changes {
            Some(_) if self.is_on_file => most,
            _ => most.min(UNWATCHED),
        };
        let fds = [self.changes.as_ref(), self.wake.as_deref()];
        let fds = fds.into_iter().flatten().map(OwnedFd::as_fd);
        let mut polled: Vec<PollFd<'_>> = fds
            .clone()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let time = Timespec::try_from(time).ok();
        if let Err(error) = poll(&mut polled, time.as_ref()) {
            tracing::trace!(%error, "waited for a file");
        }
        fds.for_each(empty);
        self.watch_file();
    }

    /// Watches the file itself as soon as it is there.
    fn watch_file(&mut self) {
        if let (false, Some(changes)) = (self.is_on_file, &self.changes) {
            let added = inotify::add_watch(changes, &self.path, WatchFlags::MODIFY);
            self.is_on_file = added.is_ok();
        }
    }
}

impl Waker {
    /// Wakes it, now or as soon as it waits.
    pub(crate) fn wake(&self) {
        if let Some(wake) = &self.0
            && let Err(error) = rustix::io::write(wake, &1_u64.to_ne_bytes())
        {
            tracing::trace!(%error, "somebody was woken already");
        }
    }
}

/// Takes what was told; it may be more than once.
fn empty(fd: BorrowedFd<'_>) {
    let mut told = [0; 4096];
    while let Ok(1..) | Err(rustix::io::Errno::INTR) = rustix::io::read(fd, &mut told[..]) {}
}

/// Opens what is there to read, or says why not.
pub(crate) fn open_plain(path: &Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::FileTypeExt;

    let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
    let kind = std::fs::metadata(path)?.file_type();
    // What a shell puts in place of `<(…)` is a pipe that is open already.
    let is_open = path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd");
    if kind.is_dir() {
        Err(refused("it is a folder"))
    } else if kind.is_fifo() && !is_open {
        Err(refused(
            "it is a pipe, which might be waited for for ever; read it as -",
        ))
    } else if kind.is_socket() || kind.is_block_device() {
        Err(refused("it is no file"))
    } else {
        std::fs::File::open(path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;

    #[test]
    fn growth_creation_and_being_woken_end_the_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let long = Duration::from_secs(600);
        let mut watch = Watch::new(&path);
        let write = |path: &Path| {
            let mut file = OpenOptions::new().create(true).append(true).open(path);
            file.as_mut().unwrap().write_all(b"x").unwrap();
        };

        write(&path);
        watch.wait(long);
        assert!(watch.is_on_file);
        write(&path);
        watch.wait(long);
        write(&folder.path().join("report.json"));
        watch.wait(long);
        watch.waker().wake();
        watch.wait(long);
    }

    #[test]
    fn only_what_can_be_read_to_its_end_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();

        assert!(open_plain(&pipe).unwrap_err().to_string().contains("pipe"));
        assert!(
            open_plain(folder.path())
                .unwrap_err()
                .to_string()
                .contains("folder")
        );
        assert!(open_plain(&folder.path().join("none")).is_err());
    }
}
