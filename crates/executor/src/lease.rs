//! The lease on an attempt: an exclusive lock that the kernel releases when its holder dies.
//!
//! Owns: the lock on the attempt's folder.
//! Reads: nothing.
//! Never: trusts a process id.

use std::fs::{File, TryLockError};
use std::io;
use std::thread::sleep;
use std::time::Duration;

use crate::spec::AttemptDir;

/// How often, and how long each time, a lock that is held is tried again: whoever only asks holds it for a moment.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// The right to supervise one attempt, for as long as the value lives.
#[derive(Debug)]
pub struct Lease {
    _lock: File,
}

/// Whether an attempt is supervised.
#[derive(Debug)]
pub enum Acquired {
    /// By us, from now on.
    Ours(Lease),
    /// By a living process.
    Held,
}

impl Lease {
    /// Takes the lease if no living process holds it. Blocks for some milliseconds if one does.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn acquire(dir: &AttemptDir) -> io::Result<Acquired> {
        let lock = open(dir)?;
        for _ in 0..TRIES {
            match lock.try_lock() {
                Ok(()) => return Ok(Acquired::Ours(Self { _lock: lock })),
                Err(TryLockError::WouldBlock) => sleep(PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(Acquired::Held)
    }

    /// Returns whether a living process holds the lease, without taking it from anybody who wants it.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn is_held(dir: &AttemptDir) -> io::Result<bool> {
        // Those who ask share the lock, so they never take each other for a supervisor.
        match open(dir)?.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Waits until no process holds the lease. Blocks, as long as its holder lives.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn wait_until_released(dir: &AttemptDir) -> io::Result<()> {
        open(dir)?.lock_shared()
    }
}

fn open(dir: &AttemptDir) -> io::Result<File> {
    File::open(dir.path())
}

#[cfg(test)]
mod tests {
    use dark_factory_types::RunId;

    use super::*;

    fn attempt(folder: &std::path::Path) -> AttemptDir {
        AttemptDir::new(
            RunId::from_random_bits(1).attempt(1),
            folder.to_owned(),
            folder.join("init"),
        )
    }

    #[test]
    fn a_lease_is_held_by_one_and_free_once_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let dir = attempt(folder.path());

        let Acquired::Ours(lease) = Lease::acquire(&dir).unwrap() else {
            panic!("held by nobody")
        };
        assert!(matches!(Lease::acquire(&dir).unwrap(), Acquired::Held));
        assert!(Lease::is_held(&dir).unwrap());
        drop(lease);

        assert!(!Lease::is_held(&dir).unwrap());
        Lease::wait_until_released(&dir).unwrap();
    }
}
