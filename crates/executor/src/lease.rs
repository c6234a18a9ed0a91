//! The lease on an attempt: an exclusive lock that the kernel releases when its holder dies.
//!
//! Owns: the locked file.
//! Reads: nothing.
//! Never: unlinks a lock file, or waits for one.

use std::fs::{File, TryLockError};
use std::io;

use crate::spec::AttemptDir;

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
    /// Takes the lease if no living process holds it.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn acquire(dir: &AttemptDir) -> io::Result<Acquired> {
        let lock = File::options().create(true).append(true).open(dir.lock())?;
        match lock.try_lock() {
            Ok(()) => Ok(Acquired::Ours(Self { _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(Acquired::Held),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
