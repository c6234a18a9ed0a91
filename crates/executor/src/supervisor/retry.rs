//! Another attempt of a run that has ended, from what the one before recorded.
//!
//! Owns: what of an attempt another one is made of.
//! Reads: the attempt's row and its recorded prompt; secrets, from where they were taken before.
//! Never: reads the prompt's file again.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use dark_factory_types::{AttemptId, RunId, Transport};

use super::{Submitted, Supervisor, discard};
use crate::error::ExecutorError;
use crate::host::HostView;
use crate::kept_prompt::is_written_whole;
use crate::lease::{Acquired, Lease};
use crate::resolve::{Demands, Resolved, secrets_again};
use crate::store::{Attempt, AttemptState};

/// How long another process may have an ended attempt in its hands, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// The number of the last attempt that a run can have.
const LAST: u16 = 999;

/// What a run's next attempt is made of.
#[derive(Debug, Clone)]
pub struct Retry {
    previous: AttemptId,
    /// The launch spec, the prompt and the secrets.
    pub resolved: Resolved,
}

impl Supervisor {
    /// Makes a run's next attempt of what its latest one recorded: the same launch spec, the same prompt. Secrets are
    /// read again.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::NotEnded`], [`ExecutorError::PromptNotKept`], [`ExecutorError::SecretNotKept`] or
    /// [`ExecutorError::NoSuchRun`].
    pub async fn retry(&self, run: RunId, host: &HostView) -> Result<Retry, ExecutorError> {
        let Attempt { id, mut spec, .. } = ended(self.latest(run).await?)?;
        let dir = self.state.attempt(id);
        let prompt_text = match tokio::fs::read_to_string(dir.recorded_prompt()).await {
            // A container that somebody else started was adopted without its prompt.
            Ok(prompt) if prompt.is_empty() && spec.transport == Transport::Attach => {
                Err(io::Error::from(io::ErrorKind::NotFound))
            }
            // A loss of power has left it torn.
            Ok(prompt) if !is_written_whole(&prompt, &spec) => {
                Err(io::Error::from(io::ErrorKind::NotFound))
            }
            read => read,
        };
        let prompt_text = prompt_text.map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                ExecutorError::PromptNotKept {
                    attempt: id,
                    file: spec.file.clone(),
                }
            } else {
                ExecutorError::StateDir(error)
            }
        })?;
        let secrets = secrets_again(&spec.secrets, &spec.secret_sources, host)
            .map_err(|(name, problem)| ExecutorError::SecretNotKept { name, problem })?;
        spec.engine_identity = None;
        Ok(Retry {
            previous: id,
            resolved: Resolved {
                spec,
                prompt_text,
                secrets,
                env_from_host: BTreeSet::new(),
                demands: Demands::of_record(),
                warnings: Vec::new(),
                notices: Vec::new(),
            },
        })
    }

    /// Records a run's next attempt, durably, and takes its lease.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::submit`]; and [`ExecutorError::NotEnded`] or [`ExecutorError::Busy`] if another process was
    /// faster.
    pub async fn submit_retry(&self, retry: &Retry) -> Result<Submitted, ExecutorError> {
        self.record_retry(retry, AttemptState::Preparing).await
    }

    /// Records a run's next attempt, durably, for whoever supervises this state folder: a daemon.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::submit_retry`].
    pub async fn queue_retry(&self, retry: &Retry) -> Result<AttemptId, ExecutorError> {
        let submitted = self.record_retry(retry, AttemptState::Queued).await?;
        Ok(submitted.id())
    }

    async fn record_retry(
        &self,
        retry: &Retry,
        state: AttemptState,
    ) -> Result<Submitted, ExecutorError> {
        let run = retry.previous.run();
        // Two that retry the same run would make the same folder.
        let _lease = self.hold_ended(retry.previous).await?;
        let previous = ended(self.latest(run).await?)?;
        if previous.id != retry.previous {
            return Err(ExecutorError::Busy { run });
        }
        let number = previous.id.number() + 1;
        if number > LAST {
            return Err(ExecutorError::TooManyAttempts { run });
        }
        let id = run.attempt(number);
        self.discard_unbegun(id).await?;
        self.record(id, &retry.resolved, state).await
    }

    /// Removes the folder of whoever died before it had recorded its attempt.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Forgotten`] if the attempt was begun all the same: a store that was put back from a copy does
    /// not know it.
    async fn discard_unbegun(&self, attempt: AttemptId) -> Result<(), ExecutorError> {
        let dir = self.state.attempt(attempt);
        if !dir.path().exists() {
            return Ok(());
        }
        let lease = Lease::acquire(&dir);
        let lease = lease.map_err(|source| ExecutorError::AttemptDir { attempt, source })?;
        if matches!(lease, Acquired::Held) || self.has_output(attempt) {
            return Err(ExecutorError::Forgotten { attempt });
        }
        discard(&dir);
        Ok(())
    }

    /// Takes the lease of an attempt that has ended, so that nobody else does anything to it meanwhile.
    pub(super) async fn hold_ended(&self, attempt: AttemptId) -> Result<Lease, ExecutorError> {
        let failed = |source| ExecutorError::AttemptDir { attempt, source };
        let dir = self.state.restore_attempt(attempt).map_err(failed)?;
        let held = async {
            loop {
                match Lease::acquire(&dir).map_err(failed)? {
                    Acquired::Ours(lease) => return Ok(lease),
                    Acquired::Held => tokio::time::sleep(LOOK).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, held)
            .await
            .unwrap_or(Err(ExecutorError::Busy { run: attempt.run() }))
    }
}

/// Returns the attempt if it has ended.
pub(super) fn ended(attempt: Attempt) -> Result<Attempt, ExecutorError> {
    if attempt.report.is_some() {
        return Ok(attempt);
    }
    Err(ExecutorError::NotEnded {
        run: attempt.id.run(),
        state: attempt.status(),
    })
}
