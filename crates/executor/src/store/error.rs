//! What can go wrong with the store.
//!
//! Owns: the error type, and what kind of trouble the database's own codes stand for.
//! Reads: nothing.
//! Never: decides what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use dark_factory_types::AttemptId;
use rusqlite::ErrorCode;

use super::AttemptState;
use crate::attempt::is_full;

/// A store operation that did not complete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database could not be opened or used.
    #[error("the state store failed to {operation}")]
    Database {
        /// What we were doing.
        operation: &'static str,
        /// The database's error.
        source: rusqlite::Error,
    },
    /// The database is no database, or not a whole one.
    #[error("the state store {} is damaged", path.display())]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// What the database says.
        source: rusqlite::Error,
    },
    /// The database was written by a newer version of dark-factory.
    #[error(
        "the state store has schema version {found}, this dark-factory knows up to {known}: use the newer dark-factory"
    )]
    NewerSchema {
        /// The version that was found.
        found: u32,
        /// The newest version that this build knows.
        known: u32,
    },
    /// Another process took over the attempt.
    #[error("another process took over attempt {attempt}")]
    LeaseLost {
        /// The attempt.
        attempt: AttemptId,
    },
    /// The attempt is not in a state from which it may go there.
    #[error("attempt {attempt} cannot go from {from} to {to}")]
    BadTransition {
        /// The attempt.
        attempt: AttemptId,
        /// Where it is.
        from: AttemptState,
        /// Where it was to go.
        to: AttemptState,
    },
    /// A value in the store cannot be read.
    #[error("the state store holds an unreadable {what}")]
    Unreadable {
        /// Which value.
        what: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The folder of a new database could not be locked.
    #[error("the state store failed to lock its folder")]
    Turn {
        /// The operating system's error.
        source: io::Error,
    },
    /// What was written is not safe from a loss of power.
    #[error("the state store failed to bring what it wrote to the disk")]
    Sync {
        /// The operating system's error.
        source: io::Error,
    },
    /// The task that ran the operation was cancelled by the runtime's shutdown.
    #[error("the state store was shut down while an operation ran")]
    ShutDown,
}

impl StoreError {
    /// Returns whether the disk has no room for what was to be written.
    pub fn is_full(&self) -> bool {
        let source = match self {
            Self::Database { source, .. } => source,
            Self::Sync { source } => return is_full(source),
            _ => return false,
        };
        let code = source.sqlite_error().map(|error| error.extended_code);
        source.sqlite_error_code() == Some(ErrorCode::DiskFull)
            // The memory that processes share is a file too; this is all that is said where there is no room for it.
            || code == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
    }

    /// Returns whether other processes kept the database locked for longer than we wait: nothing was changed, and it
    /// can be tried again as it is.
    pub fn is_busy(&self) -> bool {
        let Self::Database { source, .. } = self else {
            return false;
        };
        matches!(
            source.sqlite_error_code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        )
    }

    /// Tells a damaged database from whatever else failed.
    pub(super) fn at(self, path: &Path) -> Self {
        match self {
            Self::Database { source, .. }
                if matches!(
                    source.sqlite_error_code(),
                    Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
                ) =>
            {
                Self::Damaged {
                    path: path.to_owned(),
                    source,
                }
            }
            error => error,
        }
    }
}

pub(super) fn database(operation: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| StoreError::Database { operation, source }
}
