//! Brings prompts to outcomes on one engine: new ones, and those that a dead process left.
//!
//! Owns: the state folder and the store of one installation.
//! Reads: resolved prompts.
//! Never: supervises an attempt whose lease another process holds.

mod inside;
mod leftovers;
mod removal;
mod requests;
mod retry;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dark_factory_types::{AttemptId, ImageRecord, OwnerId, Report, RunId};
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use tokio::runtime::Handle as Runtime;
use uuid::Uuid;

use crate::attempt::{Control, DISK_PATIENCE, Drive, OnProgress, safe_intent};
use crate::clock::Clock;
use crate::egress::EgressGuard;
use crate::engine::{Capabilities, Engine, Handle, Recognized};
use crate::error::ExecutorError;
use crate::failpoint::reach;
use crate::kept_prompt;
use crate::lease::{Acquired, Lease};
use crate::recorder::WorkspaceRecorder;
use crate::resolve::{Resolved, launch_record, limits_section, prompt_with};
use crate::sink::Sink;
use crate::spec::{AttemptDir, LaunchSpec};
use crate::state_dir::{AttemptPrompt, HelperExe, Scratch, StateDir};
use crate::store::{Added, Attempt, AttemptState, NewAttempt, Store, Tenure};

pub use inside::Inside;
pub use leftovers::{Leftover, Pruned, Stake, Thing};
pub use removal::{Expired, Expiry, Removed, Retention};
pub use requests::{Moved, Stopped};
pub use retry::Retry;

/// How many attempts that dead processes left are gone on with at the same time, unless [`Supervisor::with_orphans`]
/// says otherwise: each takes one of the runtime's blocking threads, of which a runtime has 512 unless told otherwise.
const ORPHANS: usize = 128;

/// How many files going on with one attempt may keep open: its own, timers, and connections to the engine.
pub const FILES_OF_ORPHAN: usize = 12;

/// What is said of orphans that wait for others to end.
pub(crate) const HELD_BACK: &str = "more runs than this process can go on with at once: until others end, nobody keeps the time limits of these";

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

/// Runs prompts on one engine, with one state folder.
#[derive(Debug, Clone)]
pub struct Supervisor {
    engine: Arc<dyn Engine>,
    state: StateDir,
    store: Store,
    clock: Arc<dyn Clock>,
    recorder: Option<Arc<dyn WorkspaceRecorder>>,
    guard: Option<Arc<dyn EgressGuard>>,
    disk_patience: Duration,
    orphans: usize,
}

/// A supervisor whose state folder goes with it.
#[derive(Debug)]
pub struct ShortLived {
    // Its store is closed before the folder is removed.
    supervisor: Supervisor,
    _scratch: Scratch,
}

impl ShortLived {
    /// Returns the supervisor.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }
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
        #[cfg(feature = "failpoints")]
        let engine: Arc<dyn Engine> = Arc::new(crate::failpoint::FaultyEngine(engine));
        let owner = OwnerId(random_run_id().to_string());
        let store = Store::open(&state.store(), &owner)?;
        Ok(Self {
            engine,
            state,
            store,
            clock,
            recorder: None,
            guard: None,
            disk_patience: DISK_PATIENCE,
            orphans: ORPHANS,
        })
    }

    /// Returns the same supervisor, whose controls wait this long for a full disk to have room.
    #[must_use]
    pub fn with_disk_patience(mut self, patience: Duration) -> Self {
        self.disk_patience = patience;
        self
    }

    /// Returns the same supervisor, whose attempts are recorded with what they change in their workspaces.
    #[must_use]
    pub fn with_recorder(mut self, recorder: Arc<dyn WorkspaceRecorder>) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// Returns the same supervisor, whose attempts reach the hosts of their lists, and the providers whose keys they do not
    /// have, through this guard. Without one, an attempt that needs it is not started.
    ///
    /// `dark_factory_egress::GuardProcess` is the guard of the command line, and of whoever embeds the library.
    #[must_use]
    pub fn with_guard(mut self, guard: Arc<dyn EgressGuard>) -> Self {
        self.guard = Some(guard);
        self
    }

    /// Returns the same supervisor, which goes on with this many orphans at the same time, at least one.
    ///
    /// An orphan that waits has nobody who keeps its time limit, so this should be more than there are ever runs: as
    /// many as the runtime's `max_blocking_threads`, with some to spare, and the process's open files
    /// ([`FILES_OF_ORPHAN`] each) allow for.
    #[must_use]
    pub fn with_orphans(mut self, orphans: usize) -> Self {
        self.orphans = orphans.max(1);
        self
    }

    /// Returns how many orphans it goes on with at the same time.
    pub fn orphans(&self) -> usize {
        self.orphans
    }

    /// Returns a control for attempts of this supervisor; `by` is who they are cancelled by, if they are.
    pub fn control(&self, by: &str) -> Control {
        let mut control = Control::new(by);
        control.disk_patience = self.disk_patience;
        control
    }

    /// Returns the state store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the state folder.
    pub fn state_dir(&self) -> &StateDir {
        &self.state
    }

    /// Returns the clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Returns the engine.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Contacts the engine and finds out what it can do.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Engine`] if it cannot be used, or [`ExecutorError::StateDir`].
    pub async fn probe(&self) -> Result<Capabilities, ExecutorError> {
        // In a folder that goes with us, even if we are killed meanwhile.
        let scratch = self.state.scratch().map_err(ExecutorError::StateDir)?;
        Ok(self.engine.probe(scratch.path()).await?)
    }

    /// Contacts the engine and makes sure that it can be used; what was found out of the same engine before counts.
    /// Returns what it can do.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::probe`].
    pub async fn check(&self) -> Result<Capabilities, ExecutorError> {
        let notes = self.state.path();
        // Whoever checks is about to write.
        let (recognized, ()) = tokio::join!(self.engine.recognize(notes), self.store.make_ready());
        if recognized? == Recognized::No {
            let scratch = self.state.scratch().map_err(ExecutorError::StateDir)?;
            self.engine.check(scratch.path(), notes).await?;
        }
        Ok(self.engine.capabilities().await?)
    }

    /// Makes a supervisor for runs of ours that leave no record: its state folder goes with it.
    ///
    /// Its containers carry the owner's label of this one, so that one that is left over is found here. Blocks.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::StateDir`] or [`ExecutorError::Store`].
    pub fn short_lived(&self) -> Result<ShortLived, ExecutorError> {
        let scratch = self.state.scratch().map_err(ExecutorError::StateDir)?;
        let state = self
            .state
            .within(&scratch)
            .map_err(ExecutorError::StateDir)?;
        let store = Store::open(&state.store(), self.store.owner())?;
        Ok(ShortLived {
            supervisor: Self {
                state,
                store,
                ..self.clone()
            },
            _scratch: scratch,
        })
    }

    /// Records a new run with its first attempt, and takes its lease.
    ///
    /// Both are safe from a loss of power before its agent is started.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::AlreadyRunning`] or [`ExecutorError::Unfinished`] if the same file has an open run;
    /// [`ExecutorError::AttemptDir`] or [`ExecutorError::Store`].
    pub async fn submit(&self, resolved: &Resolved) -> Result<Submitted, ExecutorError> {
        self.record(new_run(), resolved, AttemptState::Preparing)
            .await
    }

    /// Records a new run with its first attempt, durably, for whoever supervises this state folder: a daemon.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::submit`].
    pub async fn queue(&self, resolved: &Resolved) -> Result<AttemptId, ExecutorError> {
        let submitted = self
            .record(new_run(), resolved, AttemptState::Queued)
            .await?;
        Ok(submitted.id())
    }

    async fn record(
        &self,
        id: AttemptId,
        resolved: &Resolved,
        state: AttemptState,
    ) -> Result<Submitted, ExecutorError> {
        let mut spec = resolved.spec.clone();
        if state == AttemptState::Queued {
            // Whoever begins with it may know another engine.
            spec.engine_identity = self.engine.identity().await?;
        }
        let dir = self.state.attempt(id);
        let (prompt, secrets) = (&resolved.prompt_text, &resolved.secrets);
        let (new, folder) = self.draft(id, spec, prompt, secrets, state);
        let attempt = Attempt::recorded(new.clone());
        let added = self.store.add_after(new, move || folder.make()).await;
        let (lease, tenure) = match added {
            Ok(Ok((lease, Added::New(tenure)))) => (lease, tenure),
            Ok(Ok((_, Added::FileIsOpen(open)))) => {
                discard(&dir);
                return Err(self.refusal(open, attempt.spec.file).await);
            }
            Ok(Ok((_, Added::NotNext))) => {
                self.discard_unrecorded(&dir).await;
                return Err(ExecutorError::Busy { run: id.run() });
            }
            Ok(Err(error)) => return Err(not_made(&dir, error)),
            Err(error) => {
                self.discard_unrecorded(&dir).await;
                return Err(error.into());
            }
        };
        // Whoever queues a run is told that it is safe; one that is begun becomes so before its agent is started.
        if state == AttemptState::Queued {
            safe_intent(self.store.clone(), dir.clone()).await?;
        }
        Ok(Submitted {
            attempt,
            tenure,
            dir,
            lease,
        })
    }

    /// Removes the folder of an attempt whose recording failed; one that was recorded all the same, or may have been,
    /// keeps it: whoever recovers it needs what is in it.
    async fn discard_unrecorded(&self, dir: &AttemptDir) {
        if let Ok(None) = self.store.attempt(dir.attempt()).await {
            discard(dir);
        }
    }

    /// Returns why a file with an open attempt is not run once more.
    async fn refusal(&self, open: AttemptId, file: String) -> ExecutorError {
        let run = open.run();
        let state = self.row(open).await.map(|row| row.state);
        match Lease::is_held(&self.state.attempt(open)) {
            Ok(true) => ExecutorError::AlreadyRunning { file, run },
            _ if state.is_ok_and(|state| state == AttemptState::Queued) => {
                ExecutorError::AlreadyQueued { file, run }
            }
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
        let id = new_run();
        let dir = self.state.attempt(id);
        let (new, folder) = self.draft(id, spec, "", &[], AttemptState::Preparing);
        let made = tokio::task::spawn_blocking(move || folder.make()).await?;
        let lease = made.map_err(|error| not_made(&dir, error))?;
        handle.attempt = id;
        let name = handle.container.clone();
        let started = self.clock.moment().at_wall(started_at);
        if let Some(tenure) = self.store.adopt(new, image, handle, started).await? {
            // It runs already.
            safe_intent(self.store.clone(), dir.clone()).await?;
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

    /// Returns a new attempt and its folder, neither of which is there yet.
    fn draft(
        &self,
        id: AttemptId,
        mut spec: LaunchSpec,
        prompt: &str,
        secrets: &[(String, String)],
        state: AttemptState,
    ) -> (NewAttempt, NewFolder) {
        let given = limits_section(&spec).map(|section| prompt_with(prompt, &section));
        spec.prompt_digests = Some(kept_prompt::digests(prompt, given.as_deref()));
        let folder = NewFolder {
            state: self.state.clone(),
            attempt: id,
            record: launch_record(&spec, self.engine.name()),
            prompt: prompt.to_owned(),
            given,
            secrets: secrets.to_vec(),
        };
        let new = NewAttempt {
            id,
            engine: self.engine.name().to_owned(),
            spec,
            state,
            created_at: self.clock.now(),
        };
        (new, folder)
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
            clock: &self.clock,
            dir,
            tenure,
            control,
            progress,
            recorder: self.recorder.as_ref(),
            guard: self.guard.as_ref(),
            way: None,
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
        let dir = self.state.attempt(attempt);
        let Some((tenure, lease)) = self.take(attempt).await? else {
            return Ok(Recovery::Supervised(attempt));
        };
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

    /// Takes the lease of a recorded attempt, and its next generation; `None` if a living process has it.
    async fn take(&self, attempt: AttemptId) -> Result<Option<(Tenure, Lease)>, ExecutorError> {
        let failed = |source| ExecutorError::AttemptDir { attempt, source };
        let dir = self.state.restore_attempt(attempt).map_err(failed)?;
        match Lease::acquire(&dir).map_err(failed)? {
            Acquired::Ours(lease) => Ok(Some((self.store.take_over(attempt).await?, lease))),
            Acquired::Held => Ok(None),
        }
    }

    /// Finishes every open attempt that no living process supervises, as many at the same time as
    /// [`Supervisor::orphans`] says; returns how many were open.
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
        if let Some(waiting) = count
            .checked_sub(self.orphans)
            .filter(|waiting| *waiting > 0)
        {
            tracing::warn!(waiting, "{HELD_BACK}");
        }
        let recoveries = open.into_iter().map(|attempt| async move {
            let result = self
                .recover(attempt.id, Vec::new(), control, progress)
                .await;
            result.unwrap_or_else(|error| Recovery::Failed(attempt.id, error))
        });
        let mut recoveries = stream::iter(recoveries).buffer_unordered(self.orphans);
        while let Some(recovery) = recoveries.next().await {
            done(recovery);
        }
        Ok(count)
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

    /// Finds the latest attempt of the one run whose id begins or ends with `text`, or the one that `text` numbers:
    /// `RUN-1`.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::NoSuchRun`] or [`ExecutorError::AmbiguousRun`].
    pub async fn find_attempt(&self, text: &str) -> Result<Attempt, ExecutorError> {
        if let Some((run, number)) = text.trim().split_once('-')
            && let Ok(number) = number.parse()
        {
            let run = self.find_run(run).await?;
            return self.row(run.attempt(number)).await;
        }
        let run = self.find_run(text).await?;
        self.latest(run).await
    }

    /// Returns whether a living process supervises an attempt.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::AttemptDir`] if its folder cannot be used.
    pub fn is_supervised(&self, attempt: AttemptId) -> Result<bool, ExecutorError> {
        match Lease::is_held(&self.state.attempt(attempt)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            held => held.map_err(|source| ExecutorError::AttemptDir { attempt, source }),
        }
    }

    /// Returns the latest attempt of a run.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::NoSuchRun`] or [`ExecutorError::Store`].
    pub async fn latest(&self, run: RunId) -> Result<Attempt, ExecutorError> {
        let latest = self.store.latest(run).await?;
        latest.ok_or_else(|| ExecutorError::NoSuchRun {
            text: run.to_string(),
        })
    }

    async fn row(&self, attempt: AttemptId) -> Result<Attempt, ExecutorError> {
        let row = self.store.attempt(attempt).await?;
        row.ok_or_else(|| ExecutorError::NoSuchRun {
            text: attempt.to_string(),
        })
    }
}

/// The folder of a new attempt, to be made.
struct NewFolder {
    state: StateDir,
    attempt: AttemptId,
    record: serde_json::Value,
    prompt: String,
    /// The prompt as the agent gets it, where that is another.
    given: Option<String>,
    secrets: Vec<(String, String)>,
}

impl NewFolder {
    /// Makes the folder with all that is in it from the beginning, and takes its lease. Blocks, on a thread of the runtime's.
    fn make(&self) -> io::Result<Lease> {
        let launch = serde_json::to_vec_pretty(&self.record)?;
        let prompt = AttemptPrompt {
            written: &self.prompt,
            given: self.given.as_deref(),
        };
        let dir = self
            .state
            .make_attempt(self.attempt, prompt, &self.secrets, &launch)?;
        // Before the row is there, so that nobody ever sees a new attempt without its supervisor.
        let Acquired::Ours(lease) = Lease::acquire(&dir)? else {
            return Err(io::Error::other("its new lock is held by somebody else"));
        };
        let reached = reach(["attempt", "folder", "after"]);
        Runtime::current()
            .block_on(reached)
            .map_err(io::Error::other)?;
        Ok(lease)
    }
}

/// Makes the id of a new run's first attempt.
fn new_run() -> AttemptId {
    random_run_id().attempt(1)
}

/// Makes a run id of the 60 low bits of a version 4 UUID, which are all random.
fn random_run_id() -> RunId {
    let (_, low) = Uuid::new_v4().as_u64_pair();
    RunId::from_random_bits(low)
}

/// Removes what there is of a folder that could not be made, and returns the error for it.
fn not_made(dir: &AttemptDir, source: io::Error) -> ExecutorError {
    discard(dir);
    ExecutorError::AttemptDir {
        attempt: dir.attempt(),
        source,
    }
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
