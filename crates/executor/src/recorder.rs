//! What an attempt changes in its workspace: the contract of whoever finds it out.
//!
//! Owns: the contract.
//! Reads: nothing.
//! Never: knows how changes are found, or fails an attempt over them.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use dark_factory_types::{ChangedFile, Changes};

use crate::spec::{Access, AttemptDir, LaunchSpec};

/// Finds out what attempts change in their workspaces.
///
/// It has no errors: what it cannot find out it says in what it returns, and never holds up an attempt for longer than
/// a time that it promises.
#[async_trait]
pub trait WorkspaceRecorder: fmt::Debug + Send + Sync {
    /// Records the workspace as it is; the attempt's agent was not started yet.
    ///
    /// A baseline that is there already is replaced. Dropping the future leaves none, or the whole one.
    async fn before(&self, touched: &Touched, dir: &AttemptDir);

    /// Returns whether there is a baseline to compare with, or a word on why there is none.
    fn is_recorded(&self, dir: &AttemptDir) -> bool;

    /// Compares the workspace with the baseline; the agent has ended.
    ///
    /// It may be called again, by another process, until [`WorkspaceRecorder::forget`].
    async fn after(&self, touched: &Touched, dir: &AttemptDir) -> Recorded;

    /// Removes what only it needs from the attempt's folder. Blocks.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    fn forget(&self, dir: &AttemptDir) -> std::io::Result<()>;
}

/// What an attempt can write to on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// The workspace.
    pub workspace: PathBuf,
    /// The sources of its other mounts that can be written to.
    pub mounts: Vec<PathBuf>,
}

impl Touched {
    /// Returns what the attempts of a launch spec can write to.
    pub fn by(spec: &LaunchSpec) -> Self {
        let mounts = spec.mounts.iter();
        Self {
            workspace: spec.workspace.source.clone(),
            mounts: mounts
                .filter(|mount| mount.access == Access::ReadWrite)
                .map(|mount| mount.source.clone())
                .collect(),
        }
    }
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recorded {
    /// The changes as a whole.
    pub changes: Changes,
    /// The changed files, those of the most changed lines if there are many.
    pub files: Vec<ChangedFile>,
    /// What was changed of what later commands obey, as a warning.
    pub obeyed: Option<String>,
    /// What went wrong, if something did.
    pub warning: Option<String>,
    /// Whether a full disk was what went wrong, so that the same may succeed later.
    pub room: Room,
}

/// Whether there was room on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Room {
    /// There was.
    #[default]
    Enough,
    /// The disk is full.
    Missing,
}
