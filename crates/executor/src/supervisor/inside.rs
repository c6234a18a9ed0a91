//! A way into a run's container: while it runs, and after the end of a run that keeps it.
//!
//! Owns: the copy that stands for an ended container, until it is closed.
//! Reads: the attempt's row.
//! Never: starts an ended container again: its agent would run once more.

use dark_factory_types::RunId;

use super::{Supervisor, random_run_id};
use crate::engine::{EngineError, Executed, Execution, OwnedContainer, Recovered, Usage, Workload};
use crate::error::ExecutorError;
use crate::spec::Disposal;
use crate::store::Attempt;

/// A container in which programs can be executed.
#[derive(Debug)]
pub struct Inside {
    workload: Box<dyn Workload>,
    copy: Option<OwnedContainer>,
}

impl Inside {
    /// Executes a program in it.
    ///
    /// # Errors
    ///
    /// As [`Workload::exec`].
    pub async fn exec(&self, execution: &Execution) -> Result<Executed, ExecutorError> {
        Ok(self.workload.exec(execution).await?)
    }

    /// Returns whether the run has ended, so that this is a copy of its container.
    pub fn is_copy(&self) -> bool {
        self.copy.is_some()
    }
}

impl Supervisor {
    /// Finds a way into a run's container; one that was kept is copied, and the copy goes with [`Supervisor::close`].
    ///
    /// # Errors
    ///
    /// [`ExecutorError::NoSuchRun`], [`ExecutorError::NoContainer`], or [`ExecutorError::Engine`].
    pub async fn open_container(&self, run: RunId) -> Result<Inside, ExecutorError> {
        let attempt = self.latest(run).await?;
        let none = || ExecutorError::NoContainer {
            run,
            state: attempt.status(),
        };
        let is_kept = attempt.report.is_some() && attempt.spec.disposal == Disposal::Keep;
        let handle = attempt.handle.as_ref().ok_or_else(none)?;
        if attempt.report.is_some() && !is_kept {
            return Err(none());
        }
        match self.engine.recover(handle).await? {
            Recovered::Running(workload) => Ok(Inside {
                workload,
                copy: None,
            }),
            Recovered::Exited(..) if is_kept => {
                let name = format!("{}-{}", handle.container, random_run_id());
                let dir = self.state.attempt(attempt.id);
                let owner = self.store.owner();
                let reopen = self
                    .engine
                    .reopen(&attempt.spec, owner, &dir, handle, &name);
                let reopened = reopen.await?;
                Ok(Inside {
                    workload: reopened.workload,
                    copy: Some(reopened.container),
                })
            }
            _ => Err(none()),
        }
    }

    /// Removes the copy of an ended container, if it is one.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Engine`]; `prune` then lists it.
    pub async fn close(&self, inside: Inside) -> Result<(), ExecutorError> {
        if let Some(copy) = inside.copy {
            self.engine.remove_owned(self.store.owner(), &copy).await?;
        }
        Ok(())
    }

    /// Measures what the container of an attempt uses; `None` if it does not run.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Engine`].
    pub async fn usage(&self, attempt: &Attempt) -> Result<Option<Usage>, ExecutorError> {
        let Some(handle) = &attempt.handle else {
            return Ok(None);
        };
        let Recovered::Running(workload) = self.engine.recover(handle).await? else {
            return Ok(None);
        };
        match workload.usage().await {
            Ok(usage) => Ok(Some(usage)),
            Err(EngineError::NoSuchContainer { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
