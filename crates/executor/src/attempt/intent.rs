//! What a loss of power must leave of an attempt whose agent may have been started.
//!
//! Owns: the barrier between the record of an attempt and its start.
//! Reads: nothing.
//! Never: is passed before folder and row are on the disk.

use tokio::task::JoinSet;

use super::drive::Drive;
use crate::error::ExecutorError;
use crate::spec::AttemptDir;
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
}
