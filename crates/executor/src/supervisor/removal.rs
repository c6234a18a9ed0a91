//! The removal of runs that have ended: because a person says so, or because they are kept no longer.
//!
//! Owns: what is removed in which order, and which runs are kept no longer.
//! Reads: the store; the engine, if it has anything of the run.
//! Never: removes a run that is open, or that another process has in its hands.
//!
//! First what the engine has, then the run's rows, all at once, then its folders, which were marked before. Whoever
//! dies in between leaves the run, or a folder that the store does not know, which is a
//! [`Leftover`](super::Leftover) with nothing at stake.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use dark_factory_types::{AttemptId, ByteSize, RunId};
use jiff::Timestamp;

use super::Supervisor;
use super::retry::ended;
use crate::error::ExecutorError;
use crate::failpoint::reach;
use crate::spec::Disposal;
use crate::state_dir::{remove_aside, write_durably};
use crate::store::Attempt;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long runs are kept after their end; `None` is for ever. A run that either of them gives up is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// For so many days.
    pub days: Option<u32>,
    /// As long as they are among so many that ended last.
    pub runs: Option<u32>,
}

/// A run that is kept no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// The run.
    pub run: RunId,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Why it goes.
    pub why: Expiry,
}

/// Why a run is kept no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// It ended longer ago than runs are kept.
    Age,
    /// As many runs as are kept have ended since.
    Number,
}

/// What became of the removal of a run.
#[derive(Debug)]
pub struct Removed {
    /// The run.
    pub run: RunId,
    /// How much room there is now that it is gone.
    pub result: Result<ByteSize, ExecutorError>,
}

impl Supervisor {
    /// Removes a run that has ended, with all of its attempts; returns how much room that makes on the disk.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::NoSuchRun`], [`ExecutorError::NotEnded`], [`ExecutorError::Busy`], or whatever keeps it from
    /// being removed: it is then there still, or only folders of it are.
    pub async fn remove_run(&self, run: RunId) -> Result<ByteSize, ExecutorError> {
        ended(self.latest(run).await?)?;
        let mut leases = Vec::new();
        for attempt in self.store.attempts_of(run).await? {
            leases.push(self.hold_ended(attempt.id).await?);
        }
        // Once more, since nobody can begin anything with it now.
        let attempts = self.store.attempts_of(run).await?;
        if attempts.len() != leases.len() {
            return Err(ExecutorError::Busy { run });
        }
        self.remove_containers(&attempts).await?;
        let ids: Vec<AttemptId> = attempts.iter().map(|attempt| attempt.id).collect();
        self.mark_removed(ids.clone()).await?;
        reached("mark", "after").await?;
        if !self.store.remove_run(run).await? {
            return Err(ExecutorError::Busy { run });
        }
        let mut room = 0;
        for attempt in ids {
            room += self.remove_folder(attempt).await?.0;
        }
        Ok(ByteSize(room))
    }

    async fn remove_folder(&self, attempt: AttemptId) -> Result<ByteSize, ExecutorError> {
        let state = self.state.clone();
        reached("folder", "before").await?;
        let aside = tokio::task::spawn_blocking(move || state.put_aside(attempt)).await?;
        let Some(aside) = aside.map_err(ExecutorError::StateDir)? else {
            return Ok(ByteSize(0));
        };
        reached("folder", "between").await?;
        let removed = tokio::task::spawn_blocking(move || remove_aside(&aside)).await?;
        reached("folder", "after").await?;
        removed.map_err(ExecutorError::StateDir)
    }

    /// Writes into folders that they are given up.
    async fn mark_removed(&self, attempts: Vec<AttemptId>) -> Result<(), ExecutorError> {
        let state = self.state.clone();
        let mark = move || {
            for attempt in attempts {
                // A full disk keeps nobody from making room; a folder that stays is then removed by a person.
                if let Err(error) = write_durably(&state.attempt(attempt).removed(), b"") {
                    tracing::warn!(%error, "the folder is not marked");
                }
            }
        };
        Ok(tokio::task::spawn_blocking(mark).await?)
    }

    /// Removes what the engine has of attempts that have ended; it is not asked if it has nothing.
    async fn remove_containers(&self, attempts: &[Attempt]) -> Result<(), ExecutorError> {
        let remaining: Vec<&Attempt> = attempts
            .iter()
            .filter(|attempt| !attempt.is_cleaned_up || attempt.spec.disposal == Disposal::Keep)
            .collect();
        if remaining.is_empty() {
            return Ok(());
        }
        for handle in remaining
            .iter()
            .filter_map(|attempt| attempt.handle.as_ref())
        {
            // Another engine says that it is not the one, and nothing is removed.
            self.engine.recover(handle).await?;
        }
        let owner = self.store.owner();
        for container in self.engine.list_owned(owner).await? {
            let is_theirs = |id| remaining.iter().any(|attempt| attempt.id == id);
            if container.attempt.is_some_and(is_theirs) {
                self.engine.remove_owned(owner, &container).await?;
            }
        }
        for image in self.engine.list_owned_images(owner).await? {
            let is_theirs = |id| remaining.iter().any(|attempt| attempt.id == id);
            if image.attempt.is_some_and(is_theirs) {
                self.engine.remove_owned_image(&image).await?;
            }
        }
        Ok(())
    }

    /// Returns the runs that have ended, those first that ended last.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Store`].
    pub async fn ended_runs(&self) -> Result<Vec<(RunId, Timestamp)>, ExecutorError> {
        let mut latest: BTreeMap<RunId, Attempt> = BTreeMap::new();
        for attempt in self.store.attempts().await? {
            let run = attempt.id.run();
            let number = attempt.id.number();
            if latest
                .get(&run)
                .is_none_or(|other| other.id.number() < number)
            {
                latest.insert(run, attempt);
            }
        }
        let mut ended: Vec<(RunId, Timestamp)> = latest
            .into_iter()
            .filter_map(|(run, attempt)| Some((run, attempt.report?.finished_at)))
            .collect();
        ended.sort_by_key(|(run, at)| (std::cmp::Reverse(*at), *run));
        Ok(ended)
    }

    /// Lists the runs that are kept no longer; changes nothing.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Store`].
    pub async fn expired(&self, retention: Retention) -> Result<Vec<Expired>, ExecutorError> {
        if retention == Retention::default() {
            return Ok(Vec::new());
        }
        let ended = self.ended_runs().await?;
        Ok(expired(&ended, retention, self.clock.now()))
    }

    /// Removes the runs that are kept no longer, each whatever becomes of the others.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Store`] if they cannot be listed.
    pub async fn retain(&self, retention: Retention) -> Result<Vec<Removed>, ExecutorError> {
        let mut removed = Vec::new();
        for Expired { run, .. } in self.expired(retention).await? {
            let result = self.remove_run(run).await;
            removed.push(Removed { run, result });
        }
        Ok(removed)
    }
}

async fn reached(point: &str, side: &str) -> Result<(), ExecutorError> {
    reach(["removal", point, side])
        .await
        .map_err(|error| ExecutorError::StateDir(io::Error::other(error)))
}

/// Returns which of the runs that have ended, those first that ended last, are kept no longer.
fn expired(ended: &[(RunId, Timestamp)], retention: Retention, now: Timestamp) -> Vec<Expired> {
    let most = retention.runs.and_then(|runs| usize::try_from(runs).ok());
    let longest = retention.days.map(|days| DAY * days);
    let is_old = |at: Timestamp| {
        let age = Duration::try_from(now.duration_since(at)).ok();
        age.zip(longest).is_some_and(|(age, longest)| age > longest)
    };
    let why = |(place, (_, at)): (usize, &(RunId, Timestamp))| {
        if is_old(*at) {
            Some(Expiry::Age)
        } else if most.is_some_and(|most| place >= most) {
            Some(Expiry::Number)
        } else {
            None
        }
    };
    ended
        .iter()
        .enumerate()
        .filter_map(|(place, run)| {
            Some(Expired {
                run: run.0,
                finished_at: run.1,
                why: why((place, run))?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the days since which runs are over that go; they ended 0, 1, 5 and 9 days ago.
    fn going(days: Option<u32>, runs: Option<u32>) -> Vec<i64> {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let ago = |days: i64| now - jiff::SignedDuration::from_hours(24 * days);
        let ended =
            [0, 1, 5, 9].map(|days| (RunId::from_random_bits(days), ago(days.cast_signed())));

        expired(&ended, Retention { days, runs }, now)
            .iter()
            .map(|expired| now.duration_since(expired.finished_at).as_hours() / 24)
            .collect()
    }

    #[test]
    fn a_run_goes_once_it_is_too_old_or_one_too_many_and_stays_for_ever_if_neither_is_said() {
        assert!(going(None, None).is_empty());
        assert_eq!(going(Some(4), None), [5, 9]);
        assert_eq!(
            going(Some(5), None),
            [9],
            "for five days is not less than that"
        );
        assert_eq!(going(None, Some(3)), [9]);
        assert_eq!(going(Some(4), Some(3)), [5, 9]);
        assert_eq!(going(Some(9), Some(1)), [1, 5, 9]);
        assert!(going(Some(99), Some(99)).is_empty());
    }
}
