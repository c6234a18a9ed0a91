//! What a loss of power must leave of an attempt whose agent may have been started.
//!
//! Owns: the barrier between the record of an attempt and its start.
//! Reads: nothing.
//! Never: is passed before folder and row are on the disk.

use tokio::task::JoinSet;

use super::drive::Drive;
use crate::error::ExecutorError;
use crate::kept_prompt::is_given_whole;
use crate::spec::{AttemptDir, LaunchSpec};
use crate::state_dir::sync_attempt;
use crate::store::Store;

/// Makes an attempt's folder and its row safe from a loss of power.
pub(crate) async fn safe_intent(store: Store, dir: AttemptDir) -> Result<(), ExecutorError> {
    let attempt = dir.attempt();
    let folder = tokio::task::spawn_blocking(move || sync_attempt(&dir));
    store.sync().await?;
    let synced = folder.await?;
    synced.map_err(|source| ExecutorError::AttemptDir { attempt, source })
}

impl Drive<'_> {
    /// Makes sure that a loss of power leaves enough of the attempt's row to know that its agent may have been started.
    pub(super) async fn await_intent(
        &self,
        tasks: &mut JoinSet<Result<(), ExecutorError>>,
    ) -> Result<(), ExecutorError> {
        if let Some(Ok(Ok(()))) = tasks.join_next().await {
            return Ok(());
        }
        // Found as it was left by another process, or in need of patience.
        let dir = self.dir.clone();
        self.write_patiently(move || sync_attempt(&dir)).await?;
        self.patiently(|| self.store.sync()).await
    }

    /// Makes sure that the agent gets the prompt that was recorded; the inner error says that it would not.
    pub(super) async fn prompt_is_whole(
        &self,
        spec: &LaunchSpec,
    ) -> Result<Result<(), String>, ExecutorError> {
        // Whoever recorded it has just written it.
        if self.tenure.is_first() {
            return Ok(Ok(()));
        }
        let (dir, spec) = (self.dir.clone(), spec.clone());
        let whole = tokio::task::spawn_blocking(move || is_given_whole(&dir, &spec)).await?;
        Ok(match whole.map_err(|error| self.output_error(error))? {
            true => Ok(()),
            false => Err(format!(
                "its prompt is not as it was recorded: the machine went down before it was on the disk, or {} was \
                 changed; run its file anew",
                self.dir.prompt().display()
            )),
        })
    }
}
