//! What goes wrong around a sandbox.
//!
//! Owns: how it is said.
//! Reads: nothing.
//! Never: decides what follows from it.

use std::error::Error;
use std::io::{self, ErrorKind};

/// A step that did not work.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub(super) struct ShimError {
    /// What was done, as in "mount /work".
    doing: String,
    source: Box<dyn Error + Send + Sync>,
}

impl ShimError {
    /// Returns an error of a step.
    pub(super) fn new(
        doing: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            doing: doing.into(),
            source: source.into(),
        }
    }

    /// Returns whether the step works once there is room on a disk.
    pub(super) fn is_full_disk(&self) -> bool {
        let error = self.source.downcast_ref::<io::Error>();
        error.is_some_and(|error| {
            matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            )
        })
    }

    /// Returns the step and the reason in one line.
    pub(super) fn said(&self) -> String {
        format!("cannot {}: {}", self.doing, self.source)
    }
}

/// Names the step that a result is of.
pub(super) trait Doing<T> {
    /// Returns the value, or the error of the step that `doing` names.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, ShimError>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, ShimError> {
        self.map_err(|source| ShimError::new(doing(), source))
    }
}
