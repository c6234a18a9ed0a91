//! What no open run owns any more: containers under our label, and folders of attempts that were never recorded.
//!
//! Owns: the rule of what is left over, and its removal.
//! Reads: the store, the engine's list of our containers, the folder of runs.
//! Never: touches what carries another owner's label, what is younger than the grace, or what a living process holds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use dark_factory_types::AttemptId;
use jiff::Timestamp;

use super::Supervisor;
use crate::engine::OwnedContainer;
use crate::error::ExecutorError;
use crate::lease::{Acquired, Lease};
use crate::store::Attempt;

/// Something of ours that no open run owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A container that carries our owner label.
    Container(OwnedContainer),
    /// The folder of an attempt that was never recorded: its maker died, and it may hold secrets.
    Folder {
        /// The attempt, as the folder is named.
        attempt: AttemptId,
        /// The folder.
        path: PathBuf,
    },
}

/// What became of a leftover.
#[derive(Debug)]
pub struct Pruned {
    /// What it is.
    pub leftover: Leftover,
    /// Whether it is gone.
    pub result: Result<(), ExecutorError>,
}

impl Supervisor {
    /// Lists what no open run owns and is older than `grace`; changes nothing.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Store`], or [`ExecutorError::Engine`] if the engine does not say what it holds.
    pub async fn leftovers(&self, grace: Duration) -> Result<Vec<Leftover>, ExecutorError> {
        // Asked in this order: a container of a run that is recorded meanwhile is younger than any grace.
        let owned = self.engine.list_owned(self.store.owner()).await?;
        let attempts: BTreeMap<AttemptId, Attempt> = self
            .store
            .attempts()
            .await?
            .into_iter()
            .map(|attempt| (attempt.id, attempt))
            .collect();
        let now = self.clock.now();
        let mut leftovers: Vec<Leftover> = owned
            .into_iter()
            .filter(|container| is_old(container.created_at, now, grace))
            .filter(|container| {
                let attempt = container.attempt.and_then(|id| attempts.get(&id));
                attempt.is_none_or(|attempt| attempt.report.is_some())
            })
            .map(Leftover::Container)
            .collect();
        for (attempt, path) in self.unrecorded_folders(grace, &attempts)? {
            leftovers.push(Leftover::Folder { attempt, path });
        }
        Ok(leftovers)
    }

    /// Removes leftovers that [`Supervisor::leftovers`] listed; each is looked at once more before.
    pub async fn prune(&self, leftovers: Vec<Leftover>) -> Vec<Pruned> {
        let mut pruned = Vec::new();
        for leftover in leftovers {
            let result = self.remove(&leftover).await;
            pruned.push(Pruned { leftover, result });
        }
        pruned
    }

    async fn remove(&self, leftover: &Leftover) -> Result<(), ExecutorError> {
        match leftover {
            Leftover::Container(container) => {
                let owner = self.store.owner();
                Ok(self.engine.remove_owned(owner, container).await?)
            }
            Leftover::Folder { attempt, path } => {
                let attempt = *attempt;
                let failed = |source| ExecutorError::AttemptDir { attempt, source };
                // Held until the folder is gone, so that nobody begins to use it.
                let dir = self.state.attempt(attempt);
                let Acquired::Ours(_lease) = Lease::acquire(&dir).map_err(failed)? else {
                    return Ok(());
                };
                if self.store.attempt(attempt).await?.is_some() {
                    return Ok(());
                }
                let path = path.clone();
                tokio::task::spawn_blocking(move || std::fs::remove_dir_all(path))
                    .await?
                    .map_err(failed)
            }
        }
    }

    fn unrecorded_folders(
        &self,
        grace: Duration,
        attempts: &BTreeMap<AttemptId, Attempt>,
    ) -> Result<Vec<(AttemptId, PathBuf)>, ExecutorError> {
        let mut folders = Vec::new();
        let entries = std::fs::read_dir(self.state.runs()).map_err(ExecutorError::StateDir)?;
        for entry in entries {
            let entry = entry.map_err(ExecutorError::StateDir)?;
            let name = entry.file_name();
            // What is not named like an attempt is not of our making.
            let Some(attempt) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let made = entry.metadata().and_then(|metadata| metadata.modified());
            if attempts.contains_key(&attempt)
                || !made.is_ok_and(|made| self.is_past(made, grace))
                || self.is_supervised(attempt).unwrap_or(true)
            {
                continue;
            }
            folders.push((attempt, entry.path()));
        }
        Ok(folders)
    }

    fn is_past(&self, made: SystemTime, grace: Duration) -> bool {
        let made = Timestamp::try_from(made).ok();
        is_old(made, self.clock.now(), grace)
    }
}

/// Returns whether something is older than the grace; what has no known age is not.
fn is_old(made: Option<Timestamp>, now: Timestamp, grace: Duration) -> bool {
    let age = made.and_then(|made| Duration::try_from(now.duration_since(made)).ok());
    age.is_some_and(|age| age >= grace)
}
