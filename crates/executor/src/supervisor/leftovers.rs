//! What no open run owns any more: containers under our label, images of copies that were never made, and folders of
//! attempts that were never recorded.
//!
//! Owns: the rule of what is left over, and its removal.
//! Reads: the store, the engine's list of our containers, the folder of runs.
//! Never: touches what carries another owner's label, what is younger than the grace, or what a living process holds.
//!
//! A store that was lost, or put back from a copy, does not know runs whose agents may still be at work: what they have
//! is at [`Stake`], and only a person removes it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use dark_factory_types::AttemptId;
use jiff::Timestamp;

use super::Supervisor;
use crate::engine::{OwnedContainer, OwnedImage};
use crate::error::ExecutorError;
use crate::lease::{Acquired, Lease};
use crate::spec::Disposal;
use crate::store::Attempt;

/// Something of ours that no open run owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// What it is.
    pub thing: Thing,
    /// What would be lost with it, if anything: then it is a person who says that it goes.
    pub stake: Option<Stake>,
}

/// What can be left over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// A container that carries our owner label.
    Container(OwnedContainer),
    /// An image that `exec` made of a kept container, and that no container has: its maker died.
    Image(OwnedImage),
    /// The folder of an attempt that the store does not know; it may hold secrets.
    Folder {
        /// The attempt, as the folder is named.
        attempt: AttemptId,
        /// The folder.
        path: PathBuf,
    },
}

/// What would be lost with a leftover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stake {
    /// The work of an agent: its container runs, and its attempt has a folder.
    Agent,
    /// The output of a run that the store does not know.
    Output,
    /// What a person wanted to be kept, for looking into it.
    Kept,
}

impl fmt::Display for Stake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "it runs, and its run's folder is there",
            Self::Kept => "it was kept by `run --keep`",
            Self::Output => "the store does not know its run, which has output and may still run",
        })
    }
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
            .map(|container| Leftover {
                stake: self.stake_of(&container, &attempts),
                thing: Thing::Container(container),
            })
            .collect();
        let images = self.engine.list_owned_images(self.store.owner()).await?;
        let images = images
            .into_iter()
            .filter(|image| is_old(image.created_at, now, grace));
        leftovers.extend(images.map(|image| Leftover {
            thing: Thing::Image(image),
            stake: None,
        }));
        for (attempt, path) in self.unrecorded_folders(grace, &attempts)? {
            leftovers.push(Leftover {
                stake: self.has_output(attempt).then_some(Stake::Output),
                thing: Thing::Folder { attempt, path },
            });
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
        match &leftover.thing {
            Thing::Container(container) => {
                let owner = self.store.owner();
                Ok(self.engine.remove_owned(owner, container).await?)
            }
            Thing::Image(image) => Ok(self.engine.remove_owned_image(image).await?),
            Thing::Folder { attempt, path } => {
                let attempt = *attempt;
                let failed = |source| ExecutorError::AttemptDir { attempt, source };
                // Held until the folder is gone, so that nobody begins to use it.
                let dir = self.state.attempt(attempt);
                let Acquired::Ours(_lease) = Lease::acquire(&dir).map_err(failed)? else {
                    return Ok(());
                };
                let is_wanted = leftover.stake.is_none() && self.has_output(attempt);
                if is_wanted || self.store.attempt(attempt).await?.is_some() {
                    return Ok(());
                }
                let path = path.clone();
                tokio::task::spawn_blocking(move || std::fs::remove_dir_all(path))
                    .await?
                    .map_err(failed)
            }
        }
    }

    fn stake_of(
        &self,
        container: &OwnedContainer,
        attempts: &BTreeMap<AttemptId, Attempt>,
    ) -> Option<Stake> {
        let attempt = container.attempt?;
        // Of `exec`, whose copy of it has another name.
        let is_itself = |attempt: &Attempt| {
            let handle = attempt.handle.as_ref();
            handle.is_some_and(|handle| handle.container == container.name)
        };
        let is_copy = |attempt: &Attempt| attempt.report.is_some() && !is_itself(attempt);
        if attempts.get(&attempt).is_some_and(is_copy) {
            return None;
        }
        if container.is_running && self.state.attempt(attempt).path().exists() {
            return Some(Stake::Agent);
        }
        let is_kept = |attempt: &Attempt| attempt.spec.disposal == Disposal::Keep;
        if attempts.get(&attempt).is_some_and(is_kept) {
            return Some(Stake::Kept);
        }
        let is_unknown = !attempts.contains_key(&attempt);
        (is_unknown && self.has_output(attempt)).then_some(Stake::Output)
    }

    /// Returns whether an attempt's folder holds anything that is made only after the attempt was recorded, and that
    /// nobody has given up.
    pub(super) fn has_output(&self, attempt: AttemptId) -> bool {
        let dir = self.state.attempt(attempt);
        if dir.removed().exists() {
            return false;
        }
        // What cannot be looked at may be there.
        [dir.spool(), dir.raw_log(), dir.report_json()]
            .iter()
            .any(|path| path.try_exists().unwrap_or(true))
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
