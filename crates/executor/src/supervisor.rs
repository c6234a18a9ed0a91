//! Brings prompts to outcomes on one engine: new ones, and those that a dead process left.
//!
//! Owns: the state folder and the store of one installation.
//! Reads: resolved prompts.
//! Never: supervises an attempt whose lease another process holds.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dark_factory_types::{AttemptId, ImageRecord, OwnerId, Report, RunId, StopReason};
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use uuid::Uuid;

use crate::attempt::{Control, Drive, OnProgress};
use crate::clock::Clock;
use crate::engine::{Capabilities, Engine, Handle, Recovered};
use crate::error::ExecutorError;
use crate::lease::{Acquired, Lease};
use crate::resolve::{Resolved, launch_record};
use crate::sink::Sink;
use crate::spec::{AttemptDir, LaunchSpec};
use crate::state_dir::{HelperExe, StateDir, write_durably};
use crate::store::{Added, Attempt, NewAttempt, Store, Tenure};

/// How often a stop looks whether the supervising process has recorded the end.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// How many attempts are recovered at the same time: each takes one of the runtime's blocking threads.
const RECOVERED_AT_ONCE: usize = 128;

/// An attempt that is recorded and ours to run.
#[derive(Debug)]
pub struct Submitted {
    attempt: Attempt,
    tenure: Tenure,
    dir: AttemptDir,
    lease: Lease,
}

impl Submitted {
    /// Returns the attempt's id.
    pub fn id(&self) -> AttemptId {
        self.attempt.id
    }

    /// Returns the attempt's folder.
    pub fn dir(&self) -> &AttemptDir {
        &self.dir
    }
}

/// A container that somebody else made and started, as an engine found it.
#[derive(Debug, Clone)]
pub struct Adoptable {
    /// What is known of how it was launched.
    pub spec: LaunchSpec,
    /// Its image.
    pub image: ImageRecord,
    /// The container as data; the attempt in it is replaced by the new one.
    pub handle: Handle,
    /// When it was started: its time limit counts from there.
    pub started_at: Timestamp,
}

/// What recovering one attempt came to.
#[derive(Debug)]
pub enum Recovery {
    /// A living process supervises it.
    Supervised(AttemptId),
    /// It is finished now.
    Finished(Box<Report>),
    /// It could not be finished and stays as it is.
    Failed(AttemptId, ExecutorError),
}

/// What a stop came to.
#[derive(Debug)]
pub enum Stopped {
    /// It has ended, and this is how.
    Finished(Box<Report>),
    /// It had ended before.
    WasFinished(Box<Report>),
}

/// Runs prompts on one engine, with one state folder.
#[derive(Debug, Clone)]
pub struct Supervisor {
    engine: Arc<dyn Engine>,
    state: StateDir,
    store: Store,
    clock: Arc<dyn Clock>,
}

impl Supervisor {
    /// Opens the state folder, making it if it is not there. Blocks.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::StateDir`] or [`ExecutorError::Store`].
    pub fn open(
        engine: Arc<dyn Engine>,
        state_dir: &Path,
        helper: HelperExe,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ExecutorError> {
        let state = StateDir::open(state_dir, helper).map_err(ExecutorError::StateDir)?;
        let owner = OwnerId(random_run_id().to_string());
        let store = Store::open(&state.store(), &owner)?;
        Ok(Self {
            engine,
            state,
            store,
            clock,
        })
    }

    /// Returns the state store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the state folder.
    pub fn state_dir(&self) -> &StateDir {
        &self.state
    }

    /// Returns the engine.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Contacts the engine and finds out what it can do.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Engine`] if it cannot be used.
    pub async fn probe(&self) -> Result<Capabilities, ExecutorError> {
        Ok(self.engine.probe(self.state.path()).await?)
    }

    /// Records a new run with its first attempt, durably, and takes its lease.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::AlreadyRunning`] or [`ExecutorError::Unfinished`] if the same file has an open run;
    /// [`ExecutorError::AttemptDir`] or [`ExecutorError::Store`].
    pub async fn submit(&self, resolved: &Resolved) -> Result<Submitted, ExecutorError> {
        let spec = &resolved.spec;
        let (new, dir, lease) = self.prepare(spec, &resolved.prompt_text, &resolved.secrets)?;
        let tenure = match self.store.add(new).await? {
            Added::New(tenure) => tenure,
            Added::FileIsOpen(open) => {
                discard(&dir);
                return Err(self.refusal(open, spec.file.clone()));
            }
        };
        let attempt = self.row(tenure.attempt).await?;
        Ok(Submitted {
            attempt,
            tenure,
            dir,
            lease,
        })
    }

    /// Returns why a file with an open attempt is not run once more.
    fn refusal(&self, open: AttemptId, file: String) -> ExecutorError {
        let run = open.run();
        match Lease::acquire(&self.state.attempt(open)) {
            Ok(Acquired::Held) => ExecutorError::AlreadyRunning { file, run },
            _ => ExecutorError::Unfinished { file, run },
        }
    }

    /// Records a container that somebody else started as a new run, durably, and takes its lease.
    ///
    /// From there on it is driven as any attempt: [`Supervisor::run`] follows it to its end, which may have been
    /// before. It is never started, and without our owner's label it is not removed.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::AlreadyRunning`] if an unfinished attempt has the container;
    /// [`ExecutorError::AttemptDir`] or [`ExecutorError::Store`].
    pub async fn adopt(&self, found: Adoptable) -> Result<Submitted, ExecutorError> {
        let Adoptable {
            spec,
            image,
            mut handle,
            started_at,
        } = found;
        let (new, dir, lease) = self.prepare(&spec, "", &[])?;
        let id = new.id;
        handle.attempt = id;
        let name = handle.container.clone();
        if let Some(tenure) = self.store.adopt(new, image, handle, started_at).await? {
            let attempt = self.row(id).await?;
            return Ok(Submitted {
                attempt,
                tenure,
                dir,
                lease,
            });
        }
        discard(&dir);
        let open = self
            .store
            .of_container(&name)
            .await?
            .into_iter()
            .rev()
            .find(|open| open.report.is_none());
        let run = open.map_or(id.run(), |open| open.id.run());
        Err(ExecutorError::AlreadyRunning { file: name, run })
    }

    /// Makes a new attempt's folder and takes its lease.
    fn prepare(
        &self,
        spec: &LaunchSpec,
        prompt: &str,
        secrets: &[(String, String)],
    ) -> Result<(NewAttempt, AttemptDir, Lease), ExecutorError> {
        let id = random_run_id().attempt(1);
        let dir = self.state.attempt(id);
        let lease = self
            .make_folder(&dir, spec, prompt, secrets)
            .map_err(|source| {
                discard(&dir);
                ExecutorError::AttemptDir {
                    attempt: id,
                    source,
                }
            })?;
        let new = NewAttempt {
            id,
            engine: self.engine.name().to_owned(),
            spec: spec.clone(),
            created_at: self.clock.now(),
        };
        Ok((new, dir, lease))
    }

    fn make_folder(
        &self,
        dir: &AttemptDir,
        spec: &LaunchSpec,
        prompt: &str,
        secrets: &[(String, String)],
    ) -> io::Result<Lease> {
        self.state.make_attempt(dir.attempt(), prompt, secrets)?;
        let record = serde_json::to_vec_pretty(&launch_record(spec, self.engine.name()))?;
        write_durably(&dir.launch_json(), &record)?;
        // Before the row is there, so that nobody ever sees a new attempt without its supervisor.
        match Lease::acquire(dir)? {
            Acquired::Ours(lease) => Ok(lease),
            Acquired::Held => Err(io::Error::other("its new lock is held by somebody else")),
        }
    }

    /// Runs a submitted attempt to its report.
    ///
    /// Dropping the future leaves the container running and the attempt open; [`Supervisor::recover`] goes on.
    ///
    /// # Errors
    ///
    /// [`ExecutorError`] if we or the engine failed; a bad outcome is a report, not an error.
    pub async fn run(
        &self,
        submitted: Submitted,
        sinks: Vec<Box<dyn Sink>>,
        control: &Control,
        progress: OnProgress<'_>,
    ) -> Result<Report, ExecutorError> {
        let Submitted {
            attempt,
            tenure,
            dir,
            lease,
        } = submitted;
        let drive = Drive {
            engine: &self.engine,
            store: &self.store,
            clock: self.clock.as_ref(),
            dir,
            tenure,
            control,
            progress,
            _lease: lease,
        };
        Box::pin(drive.run(attempt, sinks)).await
    }

    /// Finishes one open attempt that no living process supervises.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::run`]; the attempt then stays open.
    pub async fn recover(
        &self,
        attempt: AttemptId,
        sinks: Vec<Box<dyn Sink>>,
        control: &Control,
        progress: OnProgress<'_>,
    ) -> Result<Recovery, ExecutorError> {
        let failed = |source| ExecutorError::AttemptDir { attempt, source };
        let dir = self.state.restore_attempt(attempt).map_err(failed)?;
        let Acquired::Ours(lease) = Lease::acquire(&dir).map_err(failed)? else {
            return Ok(Recovery::Supervised(attempt));
        };
        let tenure = self.store.take_over(attempt).await?;
        let attempt = self.row(attempt).await?;
        let submitted = Submitted {
            attempt,
            tenure,
            dir,
            lease,
        };
        let report = self.run(submitted, sinks, control, progress).await?;
        Ok(Recovery::Finished(Box::new(report)))
    }

    /// Finishes every open attempt that no living process supervises, all at the same time; returns how many were open.
    ///
    /// Each [`Recovery`] is handed to `done` as it comes, so that no run waits for another one's end.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Store`] if the open attempts cannot be listed; what goes wrong with one attempt is in
    /// its [`Recovery`].
    pub async fn recover_all(
        &self,
        control: &Control,
        progress: OnProgress<'_>,
        mut done: impl FnMut(Recovery),
    ) -> Result<usize, ExecutorError> {
        let open = self.store.open_attempts().await?;
        let count = open.len();
        let recoveries = open.into_iter().map(|attempt| async move {
            let result = self
                .recover(attempt.id, Vec::new(), control, progress)
                .await;
            result.unwrap_or_else(|error| Recovery::Failed(attempt.id, error))
        });
        let mut recoveries = stream::iter(recoveries).buffer_unordered(RECOVERED_AT_ONCE);
        while let Some(recovery) = recoveries.next().await {
            done(recovery);
        }
        Ok(count)
    }

    /// Stops a run and waits for its end state.
    ///
    /// The reason is recorded first. A run that a living process supervises is stopped at the engine and ended
    /// by that process; one that a dead process left is ended here. `grace` is how long the agent may take to leave by
    /// itself: zero kills at once, `None` is as long as its launch spec says.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::NoSuchRun`], or whatever keeps it from being stopped.
    pub async fn stop(
        &self,
        run: RunId,
        by: &str,
        grace: Option<Duration>,
    ) -> Result<Stopped, ExecutorError> {
        let no_such_run = || ExecutorError::NoSuchRun {
            text: run.to_string(),
        };
        let attempt = self.store.latest(run).await?.ok_or_else(no_such_run)?;
        if let Some(report) = attempt.report {
            return Ok(Stopped::WasFinished(Box::new(report)));
        }
        self.store
            .request_stop(attempt.id, StopReason::Cancelled { by: by.to_owned() })
            .await?;
        let mut policy = attempt.spec.stop.clone();
        policy.grace = grace.unwrap_or(policy.grace);
        let mut control = Control::new(by);
        control.grace = grace;
        let mut told = false;
        loop {
            match self
                .recover(attempt.id, Vec::new(), &control, &|_| {})
                .await?
            {
                Recovery::Finished(report) => return Ok(Stopped::Finished(report)),
                Recovery::Failed(_, error) => return Err(error),
                Recovery::Supervised(_) => {}
            }
            let row = self.row(attempt.id).await?;
            if let Some(report) = row.report {
                return Ok(Stopped::Finished(Box::new(report)));
            }
            if !told && let Some(handle) = &row.handle {
                match self.engine.recover(handle).await? {
                    Recovered::Running(workload) => {
                        workload.stop(&policy).await?;
                        told = true;
                    }
                    Recovered::Exited(..) | Recovered::Gone => told = true,
                    Recovered::Created(_) => {}
                }
            }
            tokio::time::sleep(STOP_CHECK).await;
        }
    }

    /// Finds the one run whose id begins or ends with `text`.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::NoSuchRun`] or [`ExecutorError::AmbiguousRun`].
    pub async fn find_run(&self, text: &str) -> Result<RunId, ExecutorError> {
        let text = text.trim();
        let found = if text.is_empty() {
            Vec::new()
        } else {
            self.store.find_runs(text).await?
        };
        match found.as_slice() {
            [run] => Ok(*run),
            [] => Err(ExecutorError::NoSuchRun {
                text: text.to_owned(),
            }),
            several => Err(ExecutorError::AmbiguousRun {
                text: text.to_owned(),
                count: several.len(),
            }),
        }
    }

    /// Finds the latest attempt of the one run whose id begins or ends with `text`.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::NoSuchRun`] or [`ExecutorError::AmbiguousRun`].
    pub async fn find_attempt(&self, text: &str) -> Result<Attempt, ExecutorError> {
        let run = self.find_run(text).await?;
        let latest = self.store.latest(run).await?;
        latest.ok_or_else(|| ExecutorError::NoSuchRun {
            text: run.to_string(),
        })
    }

    /// Returns whether a living process supervises an attempt.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::AttemptDir`] if its folder cannot be used.
    pub fn is_supervised(&self, attempt: AttemptId) -> Result<bool, ExecutorError> {
        match Lease::acquire(&self.state.attempt(attempt)) {
            Ok(Acquired::Held) => Ok(true),
            Ok(Acquired::Ours(_)) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(ExecutorError::AttemptDir { attempt, source }),
        }
    }

    async fn row(&self, attempt: AttemptId) -> Result<Attempt, ExecutorError> {
        let row = self.store.attempt(attempt).await?;
        row.ok_or_else(|| ExecutorError::NoSuchRun {
            text: attempt.to_string(),
        })
    }
}

/// Makes a run id of the 60 low bits of a version 4 UUID, which are all random.
fn random_run_id() -> RunId {
    let (_, low) = Uuid::new_v4().as_u64_pair();
    RunId::from_random_bits(low)
}

/// Removes the folder of an attempt that was never recorded.
fn discard(dir: &AttemptDir) {
    match std::fs::remove_dir_all(dir.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "the folder of an attempt that was not begun stays");
        }
        _ => {}
    }
}
