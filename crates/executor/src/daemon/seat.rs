//! The one daemon of a state folder: an exclusive lock that the kernel releases when its holder dies.
//!
//! Owns: `daemon.lock`, which holds its holder's process id.
//! Reads: nothing else.
//! Never: unlinks the lock; writes to it, or to any other file, before it is locked.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// How often, and how long each time, a lock that is held is tried again: whoever only asks holds it for a moment.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// The right to be the daemon of a state folder, for as long as the value lives.
#[derive(Debug)]
pub struct Seat {
    lock: File,
    state_dir: PathBuf,
}

/// Whether the seat is taken.
#[derive(Debug)]
pub enum Seated {
    /// By us, from now on.
    Ours(Seat),
    /// By a living process.
    Taken(Holder),
}

/// The living process that is the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its process id, unless it has not written that yet.
    pub pid: Option<u32>,
}

impl Seat {
    /// Takes the seat of a state folder, which is made if it is not there, unless a living process has it. Blocks.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn take(state_dir: &Path) -> io::Result<Seated> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)?;
        let state_dir = state_dir.canonicalize()?;
        let lock = File::options()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(path(&state_dir))?;
        for _ in 0..TRIES {
            match lock.try_lock() {
                Ok(()) => return Self::sit(lock, state_dir).map(Seated::Ours),
                Err(TryLockError::WouldBlock) => sleep(PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(Seated::Taken(Holder { pid: pid(&lock) }))
    }

    /// Takes over the seat from the program that this process executed before, by the lock that it left open.
    ///
    /// # Errors
    ///
    /// The operating system's error; also if what it left open is not the lock of this state folder.
    pub fn inherit(state_dir: &Path, lock: OwnedFd) -> io::Result<Self> {
        let state_dir = state_dir.canonicalize()?;
        let lock = File::from(lock);
        let (is, should_be) = (lock.metadata()?, std::fs::metadata(path(&state_dir))?);
        if (is.dev(), is.ino()) != (should_be.dev(), should_be.ino()) {
            return Err(io::Error::other("it is not the lock of this state folder"));
        }
        // Held by this open file already, so this is granted, unless it was somehow lost.
        lock.try_lock()?;
        Self::sit(lock, state_dir)
    }

    fn sit(mut lock: File, state_dir: PathBuf) -> io::Result<Self> {
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { lock, state_dir })
    }

    /// Returns the state folder, symlinks resolved.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Returns the locked file, for [`Seat::inherit`] in a program that this process executes next.
    pub fn lock(&self) -> &File {
        &self.lock
    }

    /// Returns who is the daemon of a state folder, if anybody is.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn holder(state_dir: &Path) -> io::Result<Option<Holder>> {
        let lock = match File::open(path(state_dir)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // Those who ask share the lock, so they never take each other for the daemon.
        match lock.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(Holder { pid: pid(&lock) })),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Waits until a state folder has no daemon. Blocks, as long as its daemon lives.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn wait_until_left(state_dir: &Path) -> io::Result<()> {
        match File::open(path(state_dir)) {
            Ok(lock) => lock.lock_shared(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("daemon.lock")
}

fn pid(mut lock: &File) -> Option<u32> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_taken_by_one_and_says_by_whom() {
        let folder = tempfile::tempdir().unwrap();

        let Seated::Ours(seat) = Seat::take(folder.path()).unwrap() else {
            panic!("taken by nobody")
        };
        let ours = Holder {
            pid: Some(std::process::id()),
        };
        assert!(
            matches!(Seat::take(folder.path()).unwrap(), Seated::Taken(holder) if holder == ours)
        );
        assert_eq!(Seat::holder(folder.path()).unwrap(), Some(ours));
        drop(seat);

        assert_eq!(Seat::holder(folder.path()).unwrap(), None);
        Seat::wait_until_left(folder.path()).unwrap();
    }

    #[test]
    fn a_seat_is_inherited_by_its_open_lock_and_by_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let Seated::Ours(seat) = Seat::take(folder.path()).unwrap() else {
            panic!("taken by nobody")
        };
        let left_open = OwnedFd::from(seat.lock().try_clone().unwrap());
        let opened_anew = OwnedFd::from(File::open(path(folder.path())).unwrap());
        let other = OwnedFd::from(tempfile::tempfile().unwrap());

        assert!(Seat::inherit(folder.path(), opened_anew).is_err());
        assert!(Seat::inherit(folder.path(), other).is_err());
        let inherited = Seat::inherit(folder.path(), left_open).unwrap();
        drop(seat);

        assert!(Seat::holder(folder.path()).unwrap().is_some());
        drop(inherited);
        assert!(Seat::holder(folder.path()).unwrap().is_none());
    }
}
