//! Probes of what a run needs: each is tried, the way a run does it, rather than asked for.
//!
//! Owns: what a probe found, and the containers that probes start.
//! Reads: the engine, the state folder, a launch spec.
//! Never: pulls an image, runs a command of the user's, or shows a secret.

mod agent;
mod auth;
mod bench;
mod disk;
mod engine;
mod state;

use dark_factory_types::exit_code;
use serde::{Deserialize, Serialize};

use crate::engine::EngineError;
use crate::error::{ExecutorError, sentence};

pub use auth::auth;
pub use bench::{Bench, Remedies, Trial};
pub use disk::room;
pub use engine::{Contact, clock, contact, setup};
pub use state::{leftovers, state_folder};

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All is well.
    Ok,
    /// Runs work; something about them should be known.
    Warning,
    /// Runs do not work, or not as they should.
    Failed,
    /// Not probed: there was nothing to probe, or an earlier probe failed.
    Skipped,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How the probe ended.
    pub status: Status,
    /// What there is.
    pub found: String,
    /// What to do about it.
    pub advice: Option<String>,
    /// The exit code of a command that ends with this; 0 unless the probe failed.
    pub exit_code: u8,
}

impl Finding {
    /// All is well.
    pub fn ok(found: impl Into<String>) -> Self {
        Self::new(Status::Ok, found)
    }

    /// Something that should be known, and what to do about it.
    pub fn warning(found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..Self::new(Status::Warning, found)
        }
    }

    /// A failure with its exit code, and what to do about it.
    pub fn failed(exit_code: u8, found: impl Into<String>, advice: Option<String>) -> Self {
        Self {
            advice,
            exit_code,
            ..Self::new(Status::Failed, found)
        }
    }

    /// Not probed, and why.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self::new(Status::Skipped, why)
    }

    fn new(status: Status, found: impl Into<String>) -> Self {
        Self {
            status,
            found: found.into(),
            advice: None,
            exit_code: exit_code::SUCCEEDED,
        }
    }
}

impl From<&ExecutorError> for Finding {
    fn from(error: &ExecutorError) -> Self {
        Self::failed(error.exit_code(), sentence(error), error.advice())
    }
}

impl From<EngineError> for Finding {
    fn from(error: EngineError) -> Self {
        Self::from(&ExecutorError::from(error))
    }
}
