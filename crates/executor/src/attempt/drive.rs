//! Drives one attempt from its stored state to its report.
//!
//! Owns: the attempt's lease and tenure, its workload, its pump, and its deadline.
//! Reads: the store, for a stop request of another process.
//! Never: changes the attempt because an engine did not answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dark_factory_agents::{Agent, agent};
use dark_factory_spool::ExitRecord;
use dark_factory_types::{
    ByteSize, ImageRecord, LogState, REPORT_VERSION, Report, StopReason, Transport, Verdict,
};
use jiff::Timestamp;

use super::facts::{EngineEnd, Facts, MemoryLimit, Started};
use super::pump::{Collected, Pump, Pumping};
use super::{Control, OnProgress, Progress, TimeLimit};
use crate::clock::Clock;
use crate::engine::{Engine, EngineError, EngineExit, Handle, Recovered, Workload};
use crate::error::ExecutorError;
use crate::lease::Lease;
use crate::sink::Sink;
use crate::spec::{AttemptDir, LaunchSpec, StopPolicy};
use crate::spool::{is_started, started_at};
use crate::state_dir::write_durably;
use crate::store::{Attempt, AttemptState, Store, Tenure, Transition};

/// How long to wait before an engine that did not answer is asked again.
const ENGINE_RETRY: Duration = Duration::from_secs(1);

/// How long a deadline sleeps at most before it looks at the wall clock, which goes on while a machine is suspended.
const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// Everything that driving one attempt needs.
pub(crate) struct Drive<'a> {
    pub(crate) engine: &'a Arc<dyn Engine>,
    pub(crate) store: &'a Store,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) dir: AttemptDir,
    pub(crate) tenure: Tenure,
    pub(crate) control: &'a Control,
    pub(crate) progress: OnProgress<'a>,
    /// Held until the attempt is finished or given up.
    pub(crate) _lease: Lease,
}

/// Where the way to a started container ended.
enum Launched {
    /// It was started, or was found running.
    Running(Box<dyn Workload>),
    /// It had ended already.
    Ended(EngineEnd, Option<Box<dyn Workload>>),
}

impl Drive<'_> {
    /// Brings the attempt to its report, whatever state it is in.
    pub(crate) async fn run(
        mut self,
        attempt: Attempt,
        sinks: Vec<Box<dyn Sink>>,
    ) -> Result<Report, ExecutorError> {
        if let Some(report) = attempt.report {
            self.clean_up(attempt.handle.as_ref(), None, &report).await;
            return Ok(report);
        }
        let Some(agent) = agent(&attempt.spec.agent) else {
            return Err(ExecutorError::UnknownAgent {
                attempt: attempt.id,
                agent: attempt.spec.agent,
            });
        };
        let launched = self.launch(&attempt).await?;
        let (end, workload, collected) = match launched {
            Launched::Running(workload) => self.supervise(&attempt, workload, agent, sinks).await?,
            Launched::Ended(end, workload) => {
                let collected = self.collect(agent, sinks).await?;
                (end, workload, collected)
            }
        };
        self.finish(&attempt, agent, &end, workload, collected)
            .await
    }

    /// Takes the steps to a started container, from the one that the store says is next.
    async fn launch(&mut self, attempt: &Attempt) -> Result<Launched, ExecutorError> {
        let spec = &attempt.spec;
        let mut handle = attempt.handle.clone();
        if attempt.state < AttemptState::Creating {
            self.advance(Transition::Pulling).await?;
            if let Some(stopped) = self.stop_requested().await? {
                return Ok(stopped);
            }
            match self.ensure_image(spec).await {
                Ok(Some(image)) => self.advance(Transition::Creating(image)).await?,
                Ok(None) => return Ok(never_started("cancelled before the start")),
                Err(error) => return refused(error),
            }
        }
        if handle.is_none() {
            // One that a dead supervisor created and did not record is found by create, and then removed as any other.
            let is_created = attempt.state == AttemptState::Creating && self.is_ours().await?;
            if !is_created && let Some(stopped) = self.stop_requested().await? {
                return Ok(stopped);
            }
            match self
                .engine
                .create(spec, self.store.owner(), &self.dir)
                .await
            {
                Ok(created) => {
                    self.advance(Transition::Starting(created.clone())).await?;
                    handle = Some(created);
                }
                Err(error) => return refused(error),
            }
        }
        let Some(handle) = handle else {
            return Ok(never_started("the container was never created"));
        };
        if attempt.handle.is_some() {
            match self.engine.recover(&handle).await? {
                Recovered::Created(_) | Recovered::Running(_) => {}
                // What it printed last may be nowhere but in the engine's log, which start reads; a stop that was
                // requested since does not make it one that never ran.
                Recovered::Exited(..) if spec.transport == Transport::Attach => {
                    return match self.engine.start(spec, &handle, &self.dir).await {
                        Ok(workload) => Ok(Launched::Running(workload)),
                        Err(EngineError::NoSuchContainer { .. }) => {
                            Ok(Launched::Ended(EngineEnd::Gone, None))
                        }
                        Err(error) => Err(error.into()),
                    };
                }
                Recovered::Exited(exit, workload) => {
                    return Ok(Launched::Ended(EngineEnd::Exited(exit), Some(workload)));
                }
                Recovered::Gone => return Ok(Launched::Ended(EngineEnd::Gone, None)),
            }
        }
        self.start(attempt, &handle).await
    }

    async fn start(
        &mut self,
        attempt: &Attempt,
        handle: &Handle,
    ) -> Result<Launched, ExecutorError> {
        let before = attempt.state < AttemptState::Running;
        if before
            && !self.is_started()?
            && let Some(stopped) = self.stop_requested().await?
        {
            return Ok(stopped);
        }
        let workload = match self.engine.start(&attempt.spec, handle, &self.dir).await {
            Ok(workload) => workload,
            Err(error @ EngineError::Handover { .. }) => match self.engine.recover(handle).await? {
                Recovered::Exited(exit, workload) => {
                    return Ok(Launched::Ended(EngineEnd::Exited(exit), Some(workload)));
                }
                // It had its spool already, from a supervisor that died before the start record was there.
                Recovered::Running(workload) if self.is_started()? => workload,
                // It ran, and the engine has forgotten that: what it printed is all there is.
                Recovered::Created(workload) if self.is_started()? => {
                    return Ok(Launched::Ended(EngineEnd::Gone, Some(workload)));
                }
                _ => return refused(error),
            },
            Err(EngineError::NoSuchContainer { .. }) if self.is_started()? => {
                return Ok(Launched::Ended(EngineEnd::Gone, None));
            }
            Err(error) => return refused(error),
        };
        if before {
            let started_at = self.started_at(attempt)?;
            self.advance(Transition::Running(started_at)).await?;
            (self.progress)(Progress::Started {
                container: handle.container.clone(),
            });
        }
        Ok(Launched::Running(workload))
    }

    /// Makes sure of the image; `None` if the caller cancelled meanwhile.
    async fn ensure_image(
        &mut self,
        spec: &LaunchSpec,
    ) -> Result<Option<ImageRecord>, EngineError> {
        let progress = self.progress;
        let mut say = |line: &str| progress(Progress::Pull(line.to_owned()));
        let ensure = self.engine.ensure_image(&spec.image, spec.pull, &mut say);
        tokio::select! {
            image = ensure => image.map(Some),
            () = self.control.cancel.cancelled() => Ok(None),
            () = self.control.kill.cancelled() => Ok(None),
        }
    }

    /// Returns the end of an attempt that somebody stopped before its container was started.
    async fn stop_requested(&self) -> Result<Option<Launched>, ExecutorError> {
        if self.control.cancel.is_cancelled() || self.control.kill.is_cancelled() {
            self.request_stop(self.cancelled()).await?;
        }
        Ok(self
            .stop_reason()
            .await?
            .map(|_| never_started("stopped before the start")))
    }

    /// Waits for the workload's end while its output is pumped; stops it at its deadline or on request.
    async fn supervise(
        &mut self,
        attempt: &Attempt,
        workload: Box<dyn Workload>,
        agent: &'static dyn Agent,
        sinks: Vec<Box<dyn Sink>>,
    ) -> Result<(EngineEnd, Option<Box<dyn Workload>>, Collected), ExecutorError> {
        let pump = self.start_pump(agent, sinks)?;
        let end = self.await_end(attempt, workload.as_ref()).await;
        pump.workload_ended();
        let collected = pump.collected().await;
        let end = end?;
        self.advance(Transition::Collecting).await?;
        Ok((end, Some(workload), collected?))
    }

    async fn await_end(
        &mut self,
        attempt: &Attempt,
        workload: &dyn Workload,
    ) -> Result<EngineEnd, ExecutorError> {
        let mut policy = attempt.spec.stop.clone();
        policy.grace = self.control.grace.unwrap_or(policy.grace);
        let kill = StopPolicy::kill();
        // A stop that was asked for before the container ran, or that a dead supervisor did not finish.
        let mut stopping = self.stop_reason().await?;
        let deadline = self.deadline(attempt)?;
        let mut silent = false;
        loop {
            let left = deadline.map(|at| until(at, self.clock.now()));
            let killed = self.control.kill.is_cancelled();
            tokio::select! {
                biased;
                exit = workload.wait() => match end_of(exit) {
                    Ok(end) => return Ok(end),
                    Err(error) => {
                        if !std::mem::replace(&mut silent, true) {
                            (self.progress)(Progress::EngineSilent(error.sentence()));
                        }
                        tokio::time::sleep(ENGINE_RETRY).await;
                        continue;
                    }
                },
                stopped = workload.stop(if killed { &kill } else { &policy }), if stopping.is_some() => {
                    if let Err(error) = stopped {
                        tracing::warn!(error = %error.sentence(), "stopping again in a moment");
                        tokio::time::sleep(ENGINE_RETRY).await;
                    } else {
                        // The engine says that it has ended: only the wait is left.
                        match end_of(workload.wait().await) {
                            Ok(end) => return Ok(end),
                            Err(error) => tracing::warn!(error = %error.sentence(), "waiting again in a moment"),
                        }
                        tokio::time::sleep(ENGINE_RETRY).await;
                    }
                },
                () = self.control.kill.cancelled(), if !killed => {
                    stopping = self.begin_stop(self.cancelled()).await?;
                },
                () = self.control.cancel.cancelled(), if stopping.is_none() => {
                    stopping = self.begin_stop(self.cancelled()).await?;
                },
                () = tokio::time::sleep(left.unwrap_or_default().min(CLOCK_CHECK)),
                    if left.is_some() && stopping.is_none() =>
                {
                    if deadline.is_some_and(|at| self.clock.now() >= at) {
                        let limit = self.time_limit(attempt).unwrap_or_default();
                        stopping = self.begin_stop(StopReason::Deadline { limit }).await?;
                    }
                },
            }
        }
    }

    /// Records the stop reason before anything is done about it; the first one counts.
    async fn begin_stop(
        &mut self,
        reason: StopReason,
    ) -> Result<Option<StopReason>, ExecutorError> {
        let reason = self.request_stop(reason).await?;
        if let Some(reason) = &reason {
            (self.progress)(Progress::Stopping(describe(reason)));
        }
        Ok(reason)
    }

    /// Reads what the spool of an ended container holds.
    async fn collect(
        &mut self,
        agent: &'static dyn Agent,
        sinks: Vec<Box<dyn Sink>>,
    ) -> Result<Collected, ExecutorError> {
        let pump = self.start_pump(agent, sinks)?;
        pump.workload_ended();
        pump.collected().await
    }

    fn start_pump(
        &self,
        agent: &'static dyn Agent,
        sinks: Vec<Box<dyn Sink>>,
    ) -> Result<Pumping, ExecutorError> {
        Pump::open(&self.dir, agent, sinks)?.start()
    }

    async fn finish(
        &mut self,
        attempt: &Attempt,
        agent: &'static dyn Agent,
        end: &EngineEnd,
        workload: Option<Box<dyn Workload>>,
        collected: Collected,
    ) -> Result<Report, ExecutorError> {
        // Read again: the row may have changed while we waited, and the first stop reason is the one that counts.
        let row = self.store.attempt(attempt.id).await?;
        let row = row.as_ref().unwrap_or(attempt);
        let report = self.report(row, agent, end, collected);
        let json =
            serde_json::to_vec_pretty(&report).map_err(|error| self.output_error(error.into()))?;
        write_durably(&self.dir.report_json(), &json).map_err(|error| self.output_error(error))?;
        self.advance(Transition::Finished(Box::new(report.clone())))
            .await?;
        self.clean_up(row.handle.as_ref(), workload, &report).await;
        Ok(report)
    }

    fn report(
        &self,
        row: &Attempt,
        agent: &'static dyn Agent,
        end: &EngineEnd,
        collected: Collected,
    ) -> Report {
        let spec = &row.spec;
        let facts = Facts {
            engine: end,
            record: collected.exit.as_ref(),
            exec_failed: collected.exec_failed.as_ref(),
            damage: collected.damage.as_deref(),
            started: if collected.started_at.is_some() {
                Started::Yes
            } else {
                Started::No
            },
            memory_limit: if spec.limits.memory.is_some() {
                MemoryLimit::Set
            } else {
                MemoryLimit::Unset
            },
            transport: spec.transport,
        };
        let verdict = collected.conclusion.verdict;
        let outcome = facts.outcome(&verdict, row.stop_reason.as_ref(), agent.proof());
        let never_started = matches!(end, EngineEnd::NeverStarted(_));
        Report {
            version: REPORT_VERSION,
            attempt_id: row.id,
            file: spec.file.clone(),
            engine: row.engine.clone(),
            agent: spec.agent.clone(),
            container: spec.container_name(row.id),
            image: row.image.clone(),
            outcome: outcome.kind,
            cause: outcome.cause,
            exit: Some(facts.exit()),
            verdict: if never_started {
                Verdict::Silent
            } else {
                verdict
            },
            stop_reason: row.stop_reason.clone(),
            log: if never_started {
                LogState::Complete
            } else {
                collected.log
            },
            transport: spec.transport,
            unsealed: spec.transport == Transport::Attach,
            root_owner: spec.is_root_owner(),
            limits: spec.limits.record(),
            usage: collected.conclusion.usage,
            model: collected.conclusion.model,
            session_id: collected.conclusion.session_id,
            peak_memory: collected
                .exit
                .as_ref()
                .and_then(|e| e.peak_memory)
                .map(ByteSize),
            oom_kills: collected.exit.as_ref().and_then(|e| e.oom_kills),
            cpu_ms: collected.exit.as_ref().map(cpu_ms),
            stdout_bytes: collected.totals[0],
            stderr_bytes: collected.totals[1],
            warnings: collected.warnings,
            created_at: row.created_at,
            started_at: row.started_at.or(collected.started_at),
            finished_at: self.clock.now(),
        }
    }

    /// Removes the container and what only a running attempt needs; a failure is left to `recover`.
    async fn clean_up(
        &self,
        handle: Option<&Handle>,
        workload: Option<Box<dyn Workload>>,
        report: &Report,
    ) {
        if let Err(error) = self
            .remove_container(handle, workload, report.transport)
            .await
        {
            tracing::warn!(error = %error.sentence(), "the container stays; `dark-factory recover` removes it later");
            return;
        }
        let complete = report.log == LogState::Complete;
        for path in [self.dir.mount(), self.dir.secrets()] {
            remove(std::fs::remove_dir_all(path));
        }
        if complete {
            remove(std::fs::remove_file(self.dir.spool()));
        }
        if let Err(error) = self.store.mark_removed(self.tenure).await {
            tracing::warn!(%error, "the attempt is cleaned up again by the next `dark-factory recover`");
        }
    }

    async fn remove_container(
        &self,
        handle: Option<&Handle>,
        workload: Option<Box<dyn Workload>>,
        transport: Transport,
    ) -> Result<(), EngineError> {
        // Only attached containers may have been adopted; one without our label stays where it is.
        if transport == Transport::Attach && !self.is_ours().await? {
            return Ok(());
        }
        if let Some(workload) = workload {
            return workload.remove().await;
        }
        let Some(handle) = handle else { return Ok(()) };
        match self.engine.recover(handle).await? {
            Recovered::Gone => Ok(()),
            Recovered::Created(workload) | Recovered::Exited(_, workload) => {
                workload.remove().await
            }
            Recovered::Running(workload) => {
                workload.stop(&StopPolicy::kill()).await?;
                workload.remove().await
            }
        }
    }

    /// Returns whether the engine holds a container that was made for this attempt.
    async fn is_ours(&self) -> Result<bool, EngineError> {
        let owned = self.engine.list_owned(self.store.owner()).await?;
        Ok(owned
            .iter()
            .any(|container| container.attempt == Some(self.tenure.attempt)))
    }

    async fn advance(&self, transition: Transition) -> Result<(), ExecutorError> {
        Ok(self
            .store
            .advance(self.tenure, transition, self.clock.now())
            .await?)
    }

    async fn request_stop(&self, reason: StopReason) -> Result<Option<StopReason>, ExecutorError> {
        Ok(self.store.request_stop(self.tenure.attempt, reason).await?)
    }

    async fn stop_reason(&self) -> Result<Option<StopReason>, ExecutorError> {
        Ok(self
            .store
            .attempt(self.tenure.attempt)
            .await?
            .and_then(|attempt| attempt.stop_reason))
    }

    fn is_started(&self) -> Result<bool, ExecutorError> {
        is_started(&self.dir).map_err(|error| self.output_error(error))
    }

    fn output_error(&self, source: io::Error) -> ExecutorError {
        ExecutorError::Output {
            attempt: self.tenure.attempt,
            source,
        }
    }

    fn cancelled(&self) -> StopReason {
        StopReason::Cancelled {
            by: self.control.by.clone(),
        }
    }

    /// Returns when the attempt's time is up: counted from its start, however often we were restarted.
    fn deadline(&self, attempt: &Attempt) -> Result<Option<Timestamp>, ExecutorError> {
        let Some(limit) = self.time_limit(attempt) else {
            return Ok(None);
        };
        Ok(self.started_at(attempt)?.checked_add(limit).ok())
    }

    fn time_limit(&self, attempt: &Attempt) -> Option<Duration> {
        match self.control.time_limit {
            TimeLimit::AsLaunched => attempt.spec.limits.timeout,
            TimeLimit::Instead(limit) => limit,
        }
    }

    /// Returns when the attempt was started: as it is stored, else as the helper recorded it, else just now.
    fn started_at(&self, attempt: &Attempt) -> Result<Timestamp, ExecutorError> {
        if let Some(stored) = attempt.started_at {
            return Ok(stored);
        }
        // Missing from the store where a supervisor died between the start and its record.
        let recorded = started_at(&self.dir).map_err(|error| self.output_error(error))?;
        Ok(recorded.unwrap_or_else(|| self.clock.now()))
    }
}

/// Returns what a wait says of the workload's end; an error says nothing about it.
fn end_of(exit: Result<EngineExit, EngineError>) -> Result<EngineEnd, EngineError> {
    match exit {
        Ok(exit) => Ok(EngineEnd::Exited(exit)),
        Err(EngineError::NoSuchContainer { .. }) => Ok(EngineEnd::Gone),
        Err(error) => Err(error),
    }
}

fn until(deadline: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(deadline.duration_since(now)).unwrap_or(Duration::ZERO)
}

fn never_started(why: &str) -> Launched {
    Launched::Ended(EngineEnd::NeverStarted(why.to_owned()), None)
}

/// Turns an engine's no into the attempt's end; anything else leaves the attempt as it is.
fn refused(error: EngineError) -> Result<Launched, ExecutorError> {
    if !error.is_refusal() {
        return Err(error.into());
    }
    let advice = error
        .advice()
        .map(|advice| format!(" ({advice})"))
        .unwrap_or_default();
    Ok(Launched::Ended(
        EngineEnd::NeverStarted(format!("{}{advice}", error.sentence())),
        None,
    ))
}

fn remove(result: io::Result<()>) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "a file that only a running attempt needs stays");
        }
        _ => {}
    }
}

fn describe(reason: &StopReason) -> String {
    match reason {
        StopReason::Deadline { .. } => "its time limit passed".to_owned(),
        StopReason::Cancelled { by } => format!("cancelled by {by}"),
        _ => "a limit was reached".to_owned(),
    }
}

fn cpu_ms(record: &ExitRecord) -> u64 {
    (record.user_us + record.system_us) / 1000
}
