//! Requests to a run, from whatever process: stop it, freeze it, let it go on, wait for its end.
//!
//! Owns: recording a request before anything is done about it.
//! Reads: the lease, to know whether somebody lives who does it.
//! Never: takes a run from a living supervisor.

use std::future::pending;
use std::time::Duration;

use dark_factory_types::{AttemptId, Report, RunId, StopReason, Transport};

use super::{Recovery, Supervisor};
use crate::attempt::{Control, OnProgress, OnSilence};
use crate::daemon::Seat;
use crate::engine::Recovered;
use crate::error::ExecutorError;
use crate::lease::Lease;
use crate::nudge::{Arrival, nudge};
use crate::sink::Sink;
use crate::spec::StopPolicy;
use crate::spool::is_started;
use crate::store::{Attempt, AttemptState, Motion};

/// How long a living supervisor may take to act on a stop, before it is done for it.
const ANSWER: Duration = Duration::from_secs(3);

/// How long a container may take to end, beyond its grace.
const KILL: Duration = Duration::from_secs(30);

/// How long a supervisor may take to record the end of a container that was stopped for it, or to freeze one.
const RECORD: Duration = Duration::from_secs(10);

/// How often a run is looked at that is to be frozen or thawed by its supervisor.
const LOOK: Duration = Duration::from_millis(50);

/// How often a queued run is looked at that waits for its turn.
const TURN_LOOK: Duration = Duration::from_secs(1);

/// What a supervisor that was told to stop a run is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// To begin with it.
    ToBegin,
    /// To have ended a container with this grace.
    ToEnd(Duration),
    /// To record the end of a container that was stopped for it.
    ToRecord,
    /// To write down all that there is, however much that is.
    Endless,
}

impl Patience {
    /// Waits until there is no more of it.
    async fn end(self) {
        let time = match self {
            Self::ToBegin => ANSWER,
            // As long as the helper and the engine may take on top of the grace.
            Self::ToEnd(grace) => grace + KILL,
            Self::ToRecord => RECORD,
            Self::Endless => return pending().await,
        };
        tokio::time::sleep(time).await;
    }
}

/// What a stop came to.
#[derive(Debug)]
pub enum Stopped {
    /// It has ended, and this is how.
    Finished(Box<Report>),
    /// It had ended before.
    WasFinished(Box<Report>),
}

impl Supervisor {
    /// Stops a run and waits for its end state.
    ///
    /// The reason is recorded first. A run that a living process supervises is stopped and ended by that process; if
    /// it does not begin with that, the engine is asked to stop the container all the same. One that a dead process
    /// left is ended here. `grace` is how long the agent may take to leave by itself: zero kills at once, `None` is as
    /// long as its launch spec says.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::NoSuchRun`], or whatever keeps it from being stopped; the request stays recorded.
    pub async fn stop(
        &self,
        run: RunId,
        by: &str,
        grace: Option<Duration>,
    ) -> Result<Stopped, ExecutorError> {
        let attempt = self.latest(run).await?;
        if let Some(report) = attempt.report {
            return Ok(Stopped::WasFinished(Box::new(report)));
        }
        let reason = StopReason::Cancelled { by: by.to_owned() };
        let heard = self
            .store
            .request_stop(attempt.id, reason, grace)
            .await?
            .is_some();
        self.nudge(attempt.id)?;
        let mut control = self.control(by);
        control.on_silence = OnSilence::LeaveOpen;
        let mut patience = Patience::ToBegin;
        loop {
            match self
                .recover(attempt.id, Vec::new(), &control, &|_| {})
                .await?
            {
                Recovery::Finished(report) if heard => return Ok(Stopped::Finished(report)),
                // The workload had ended already, and only its output was still being collected.
                Recovery::Finished(report) => return Ok(Stopped::WasFinished(report)),
                Recovery::Failed(_, error) => return Err(error),
                Recovery::Supervised(_) => {}
            }
            tokio::select! {
                released = self.released(attempt.id) => released?,
                () = patience.end() => patience = self.lose_patience(attempt.id, patience).await?,
            }
        }
    }

    /// Does what a living supervisor does not do about a stop; returns what it is waited for next.
    async fn lose_patience(
        &self,
        attempt: AttemptId,
        patience: Patience,
    ) -> Result<Patience, ExecutorError> {
        let row = self.row(attempt).await?;
        let run = attempt.run();
        if let (Some(silence), None) = (&row.silence, &row.report) {
            return Err(ExecutorError::NotYet {
                run,
                what: "stopped",
                why: silence.why.clone(),
            });
        }
        let asked = row.stop.as_ref().and_then(|stop| stop.grace);
        let grace = asked.unwrap_or(row.spec.stop.grace);
        match (patience, row.state) {
            (_, AttemptState::Collecting | AttemptState::Finished) => Ok(Patience::Endless),
            (Patience::ToRecord, _) => Err(ExecutorError::SupervisorHangs { run }),
            (Patience::ToBegin, AttemptState::Stopping) => Ok(Patience::ToEnd(grace)),
            (Patience::ToBegin, AttemptState::Starting | AttemptState::Running) => {
                self.stop_for_supervisor(&row, grace).await
            }
            (Patience::ToEnd(_), AttemptState::Stopping) => {
                self.stop_for_supervisor(&row, Duration::ZERO).await
            }
            // It has no container yet, or is asked once more.
            _ => Ok(Patience::ToBegin),
        }
    }

    /// Has the engine stop the container of a supervisor that lives and does not act.
    async fn stop_for_supervisor(
        &self,
        row: &Attempt,
        grace: Duration,
    ) -> Result<Patience, ExecutorError> {
        let Some(handle) = &row.handle else {
            return Ok(Patience::ToBegin);
        };
        if let Recovered::Running(workload) = self.engine.recover(handle).await? {
            self.store.begin_stop(row.id, self.clock.now()).await?;
            let policy = StopPolicy {
                grace,
                ..row.spec.stop.clone()
            };
            workload.stop(&policy).await?;
        }
        Ok(Patience::ToRecord)
    }

    /// Freezes a run's processes, or lets them go on, and waits until that is done; returns whether the run is still
    /// there to have it done to.
    ///
    /// What is asked for is recorded first. A run that nobody supervises is frozen or thawed here.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::NoSuchRun`], [`ExecutorError::NotRunning`] if there is nothing to freeze yet, or whatever keeps
    /// it from being done.
    pub async fn set_motion(&self, run: RunId, motion: Motion) -> Result<Moved, ExecutorError> {
        let attempt = self.latest(run).await?;
        if attempt.state < AttemptState::Starting {
            return Err(ExecutorError::NotRunning {
                run,
                state: attempt.state,
            });
        }
        if attempt.report.is_none() {
            self.store.request_pause(attempt.id, motion).await?;
            self.nudge(attempt.id)?;
        }
        let began = self.clock.moment();
        loop {
            let row = self.row(attempt.id).await?;
            if row.state >= AttemptState::Stopping {
                return Ok(Moved::HasEnded);
            }
            if is_as_wanted(&row, motion) {
                return Ok(Moved::Done);
            }
            if !self.is_supervised(attempt.id)? {
                self.move_orphan(attempt.id, motion).await?;
            }
            let waited = began.awake_until(&self.clock.moment());
            if waited >= RECORD {
                return Err(not_moved(&row, motion));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Freezes or thaws the container of a run that nobody supervises.
    async fn move_orphan(&self, attempt: AttemptId, motion: Motion) -> Result<(), ExecutorError> {
        let Some((tenure, _lease)) = self.take(attempt).await? else {
            return Ok(());
        };
        let row = self.row(attempt).await?;
        let Some(handle) = &row.handle else {
            return Ok(());
        };
        let workload = match self.engine.recover(handle).await? {
            // A helper that is frozen before it has its spool could not be given it any more.
            Recovered::Running(workload) if motion == Motion::Going || self.has_begun(&row)? => {
                workload
            }
            _ => {
                // Not to be done to it later, when nobody expects it.
                self.store.request_pause(attempt, Motion::Going).await?;
                return Err(ExecutorError::NotRunning {
                    run: attempt.run(),
                    state: row.state,
                });
            }
        };
        let now = self.clock.moment();
        let (since, total) = match (motion, row.pause.since) {
            (Motion::Frozen, since) => (since.or(Some(now)), row.pause.total),
            (Motion::Going, Some(since)) => (None, row.pause.total + since.until(&now)),
            (Motion::Going, None) => (None, row.pause.total),
        };
        match motion {
            Motion::Frozen => workload.pause().await?,
            Motion::Going => workload.unpause().await?,
        }
        Ok(self.store.set_paused(tenure, since, total).await?)
    }

    /// Returns whether the agent of a running container was executed, as far as that can be told.
    fn has_begun(&self, row: &Attempt) -> Result<bool, ExecutorError> {
        let attempt = row.id;
        match row.spec.transport {
            Transport::Attach => Ok(true),
            Transport::Spool => is_started(&self.state.attempt(attempt))
                .map_err(|source| ExecutorError::Output { attempt, source }),
        }
    }

    /// Waits for a run's end: lets a living supervisor bring it there, or does so itself if there is none. A queued one
    /// waits for its turn where a daemon lives.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::run`].
    pub async fn wait(
        &self,
        run: RunId,
        sinks: Vec<Box<dyn Sink>>,
        control: &Control,
        progress: OnProgress<'_>,
    ) -> Result<Report, ExecutorError> {
        let attempt = self.latest(run).await?;
        let mut sinks = Some(sinks);
        loop {
            if self.is_supervised(attempt.id)? {
                self.released(attempt.id).await?;
                continue;
            }
            let row = self.row(attempt.id).await?;
            if let Some(report) = row.report {
                return Ok(report);
            }
            if row.state == AttemptState::Queued && self.has_daemon()? {
                self.its_turn(attempt.id).await?;
                continue;
            }
            let sinks = sinks.take().unwrap_or_default();
            match self.recover(attempt.id, sinks, control, progress).await? {
                Recovery::Finished(report) => return Ok(*report),
                Recovery::Failed(_, error) => return Err(error),
                Recovery::Supervised(_) => {}
            }
        }
    }

    /// Waits until no living process supervises an attempt.
    ///
    /// Cancel-safe; a thread stays behind until the attempt is released.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::AttemptDir`] if its folder cannot be used.
    pub async fn released(&self, attempt: AttemptId) -> Result<(), ExecutorError> {
        let dir = self.state.attempt(attempt);
        let released = tokio::task::spawn_blocking(move || Lease::wait_until_released(&dir));
        released
            .await?
            .map_err(|source| ExecutorError::AttemptDir { attempt, source })
    }

    /// Returns whether this state folder has a daemon.
    fn has_daemon(&self) -> Result<bool, ExecutorError> {
        let holder = Seat::holder(self.state.path()).map_err(ExecutorError::StateDir)?;
        Ok(holder.is_some())
    }

    /// Waits until the daemon may have begun with a queued attempt, or may have died.
    async fn its_turn(&self, attempt: AttemptId) -> Result<(), ExecutorError> {
        let dir = self.state.attempt(attempt);
        let failed = |source| ExecutorError::AttemptDir { attempt, source };
        // Whatever does not come so far is seen by looking.
        let arrival = Arrival::watch(&dir);
        tokio::select! {
            seen = arrival.seen() => seen.map_err(failed),
            () = tokio::time::sleep(TURN_LOOK) => Ok(()),
        }
    }

    fn nudge(&self, attempt: AttemptId) -> Result<(), ExecutorError> {
        nudge(&self.state.attempt(attempt))
            .map_err(|source| ExecutorError::AttemptDir { attempt, source })
    }
}

/// What asking a run to freeze or to go on came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It does what was asked for.
    Done,
    /// It has ended, or is being stopped.
    HasEnded,
}

/// Says why a run is not frozen, or does not go on, although that was asked for.
fn not_moved(row: &Attempt, motion: Motion) -> ExecutorError {
    ExecutorError::NotYet {
        run: row.id.run(),
        what: match motion {
            Motion::Frozen => "paused",
            Motion::Going => "resumed",
        },
        why: match &row.silence {
            Some(silence) => silence.why.clone(),
            None => "the process that supervises it does not act".to_owned(),
        },
    }
}

fn is_as_wanted(row: &Attempt, motion: Motion) -> bool {
    match motion {
        Motion::Frozen => row.pause.since.is_some(),
        Motion::Going => row.pause.since.is_none(),
    }
}
