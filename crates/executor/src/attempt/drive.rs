//! Drives one attempt from its stored state to its report.
//!
//! Owns: the attempt's lease and tenure, and the steps to a running workload.
//! Reads: the store, for a stop request of another process.
//! Never: changes the attempt because an engine did not answer.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dark_factory_agents::agent;
use dark_factory_types::{ImageRecord, Report, StopReason, Transport};
use futures_util::future::{Either, select};
use tokio::task::JoinSet;

use super::facts::EngineEnd;
use super::follow::Following;
use super::intent::safe_intent;
use super::plan::{self, Container, End, Executed, Known, Next, Wanted};
use super::{Control, OnProgress, OnSilence, Progress};
use crate::clock::{Clock, Moment};
use crate::egress::{EgressDemand, EgressGuard, KeptWay};
use crate::engine::{Engine, EngineError, Handle, PullNews, Recovered, Workload};
use crate::error::ExecutorError;
use crate::lease::Lease;
use crate::nudge::Nudges;
use crate::recorder::{Touched, WorkspaceRecorder};
use crate::sink::Sink;
use crate::spec::{AttemptDir, LaunchSpec, StopPolicy};
use crate::spool::is_started;
use crate::store::{Attempt, AttemptState, Store, Tenure, Transition};

/// How long to wait before an engine that did not answer is asked again, or a full disk is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// How long a user who killed a run waits for an engine to end what it may have begun.
const KILL_PATIENCE: Duration = Duration::from_secs(15);

/// How often an engine that answers, but with a failure of its own, is asked again.
const FAILURES: u32 = 3;

/// Everything that driving one attempt needs.
pub(crate) struct Drive<'a> {
    pub(crate) engine: &'a Arc<dyn Engine>,
    pub(crate) store: &'a Store,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) dir: AttemptDir,
    pub(crate) tenure: Tenure,
    pub(crate) control: &'a Control,
    pub(crate) progress: OnProgress<'a>,
    pub(crate) recorder: Option<&'a Arc<dyn WorkspaceRecorder>>,
    pub(crate) guard: Option<&'a Arc<dyn EgressGuard>>,
    /// The way out of the container, where that is a list of hosts; kept open while the attempt is driven.
    pub(crate) way: Option<KeptWay>,
    /// Held until the attempt is finished or given up.
    pub(crate) _lease: Lease,
}

/// Where the way to a started container ended.
pub(super) enum Launched {
    /// It was started, or was found running; and when, where that is yet to be recorded.
    Running(Box<dyn Workload>, Option<Moment>),
    /// It had ended already.
    Ended(EngineEnd, Option<Box<dyn Workload>>),
}

/// An attempt on its way to a started container.
struct Launch {
    known: Known,
    handle: Option<Handle>,
    /// What the engine said of the container when it was looked at.
    ended: Option<(EngineEnd, Box<dyn Workload>)>,
    /// Whether a stop was wanted, as the last write of the last step found it.
    is_stop_requested: Option<bool>,
    /// The step that was taken last.
    last: Option<Next>,
    /// How often the engine failed in a row.
    failures: u32,
    silent: bool,
    /// Records the workspace while image and container are prepared.
    baseline: JoinSet<()>,
    /// Makes what the store knows of the attempt safe from a loss of power while its container is created.
    intent: JoinSet<Result<(), ExecutorError>>,
}

impl Drive<'_> {
    /// Brings the attempt to its report, whatever state it is in.
    pub(crate) async fn run(
        mut self,
        attempt: Attempt,
        sinks: Vec<Box<dyn Sink>>,
    ) -> Result<Report, ExecutorError> {
        if let Some(report) = attempt.report.clone() {
            self.finish_again(&attempt, &report).await?;
            return Ok(report);
        }
        let Some(agent) = agent(&attempt.spec.agent) else {
            return Err(ExecutorError::UnknownAgent {
                attempt: attempt.id,
                agent: attempt.spec.agent,
            });
        };
        let nudges = Nudges::receive(&self.dir);
        if let (Some(demand), Some(guard)) = (EgressDemand::of(&attempt.spec), self.guard) {
            self.way = Some(KeptWay::keep(guard, demand, &self.dir));
        }
        let launched = tokio::select! {
            launched = self.launch(&attempt, &nudges) => launched?,
            () = self.control.kill.cancelled() => self.launch_no_more(&nudges).await?,
        };
        let (row, end, workload, collected) = match launched {
            Launched::Running(workload, started) => {
                let following = Following {
                    workload: workload.as_ref(),
                    started,
                    nudges: &nudges,
                };
                let followed = Box::pin(self.supervise(following, agent, sinks));
                let (row, end, collected) = followed.await?;
                (row, end, Some(workload), collected)
            }
            Launched::Ended(end, workload) => {
                let collected = self.collect(&attempt, agent, sinks).await?;
                // Read again: the row has changed meanwhile.
                let row = self.store.attempt(attempt.id).await?;
                (row.unwrap_or(attempt), end, workload, collected)
            }
        };
        drop(nudges);
        self.finish(&row, agent, &end, workload, collected).await
    }

    /// Goes on with an attempt that is to be killed before its container was followed: what a call that was cut short
    /// may have done is looked for, and ended.
    async fn launch_no_more(&mut self, nudges: &Nudges) -> Result<Launched, ExecutorError> {
        let attempt = self.tenure.attempt;
        // A write that was cut short may still be on its way: it is not to land behind ours.
        self.tenure = self.store.take_over(attempt).await?;
        self.request_stop(self.cancelled()).await?;
        let Some(row) = self.store.attempt(attempt).await? else {
            return Err(ExecutorError::Abandoned { attempt });
        };
        match tokio::time::timeout(KILL_PATIENCE, self.launch(&row, nudges)).await {
            Ok(launched) => launched,
            Err(_) => Err(ExecutorError::Abandoned { attempt }),
        }
    }

    /// Takes the steps to a started container, from the one that the store says is next.
    async fn launch(&self, attempt: &Attempt, nudges: &Nudges) -> Result<Launched, ExecutorError> {
        let spec = &attempt.spec;
        let mut launch = Launch {
            known: Known {
                state: attempt.state,
                container: match attempt.handle {
                    Some(_) => Container::Handle,
                    None => Container::NoHandle,
                },
                agent: Executed::No,
                stop: Wanted::No,
                transport: spec.transport,
            },
            handle: attempt.handle.clone(),
            ended: None,
            // Whoever has just recorded it knows; what was asked for since is read with the next write.
            is_stop_requested: self.tenure.is_first().then_some(attempt.stop.is_some()),
            last: None,
            failures: 0,
            silent: attempt.silence.is_some(),
            baseline: JoinSet::new(),
            intent: JoinSet::new(),
        };
        if attempt.state < AttemptState::Creating {
            self.check_engine(spec).await?;
        }
        if attempt.state == AttemptState::Queued {
            self.advance(Transition::Preparing).await?;
        }
        if attempt.state < AttemptState::Starting {
            self.begin_baseline(spec, &mut launch.baseline);
        }
        loop {
            launch.known.agent = match self.is_started()? {
                true => Executed::Yes,
                false => Executed::No,
            };
            let known = launch.is_stop_requested.take();
            launch.known.stop = match self.is_stop_requested(known).await? {
                true => Wanted::Yes,
                false => Wanted::No,
            };
            let launched = match self.step(attempt, &mut launch, nudges).await {
                Ok(launched) => launched,
                Err(error) => match self.ask_again_later(&mut launch, error).await? {
                    Some(given_up) => {
                        launch.baseline.shutdown().await;
                        return Ok(given_up);
                    }
                    None => continue,
                },
            };
            // That the engine could be looked at does not make up for what it fails to do.
            if !matches!(launch.last, Some(Next::Look | Next::Find)) {
                launch.failures = 0;
            }
            let asked = !matches!(launch.last, Some(Next::Collect(_)));
            if asked && std::mem::take(&mut launch.silent) {
                self.engine_answers().await?;
            }
            if let Some(launched) = launched {
                // Of an attempt that was not started nothing may be written while it is cleaned up.
                launch.baseline.shutdown().await;
                return Ok(launched);
            }
        }
    }

    /// Makes sure that a queued attempt is begun on the engine that it was queued for; from its container on, its
    /// handle says which that is.
    async fn check_engine(&self, spec: &LaunchSpec) -> Result<(), ExecutorError> {
        let Some(queued_for) = &spec.engine_identity else {
            return Ok(());
        };
        match self.engine.identity().await? {
            Some(identity) if identity != *queued_for => Err(EngineError::OtherEngine {
                endpoint: self.engine.endpoint(),
                name: spec.container_name(self.tenure.attempt),
            }
            .into()),
            _ => Ok(()),
        }
    }

    /// Takes one step; returns where the way ended, if it did.
    async fn step(
        &self,
        attempt: &Attempt,
        launch: &mut Launch,
        nudges: &Nudges,
    ) -> Result<Option<Launched>, ExecutorError> {
        let spec = &attempt.spec;
        let known = &mut launch.known;
        let next = plan::next(known);
        launch.last = Some(next);
        match (next, &launch.handle) {
            (Next::EnsureImage, _) => {
                let image = self.pull(spec, nudges).await?;
                known.state = AttemptState::Pulling;
                match image {
                    Ok(Some(image)) => {
                        let creating = Transition::Creating(image);
                        launch.is_stop_requested = Some(self.advance(creating).await?);
                        known.state = AttemptState::Creating;
                    }
                    // Cancelled: the next step sees that.
                    Ok(None) => {}
                    Err(error) => return refused(error).map(Some),
                }
            }
            (Next::Find, _) => {
                known.container = match self.is_ours().await? {
                    true => Container::Made,
                    false => Container::NotMade,
                };
            }
            (Next::Create, _) => {
                // What a loss of power leaves of it until then is a container that nothing ever ran in.
                let intent = safe_intent(self.store.clone(), self.dir.clone());
                launch.intent.spawn(intent);
                match self
                    .engine
                    .create(spec, self.store.owner(), &self.dir)
                    .await
                {
                    Ok(created) => {
                        let starting = Transition::Starting(created.clone());
                        launch.is_stop_requested = Some(self.advance(starting).await?);
                        known.state = AttemptState::Starting;
                        known.container = Container::Created;
                        launch.handle = Some(created);
                    }
                    Err(error) => return refused(error).map(Some),
                }
            }
            (Next::Look, Some(handle)) => {
                let (container, ended) = match self.look(handle).await? {
                    Recovered::Created(_) => (Container::Created, None),
                    Recovered::Running(_) => (Container::Running, None),
                    Recovered::Exited(exit, workload) => {
                        (Container::Ended, Some((EngineEnd::Exited(exit), workload)))
                    }
                    Recovered::Gone => (Container::Gone, None),
                };
                known.container = container;
                launch.ended = ended;
            }
            (Next::Kill, Some(handle)) => {
                if let Recovered::Running(workload) = self.engine.recover(handle).await? {
                    self.patiently(|| self.store.begin_stop(attempt.id, self.clock.now()))
                        .await?;
                    workload.stop(&StopPolicy::kill()).await?;
                }
                known.container = Container::Handle;
            }
            (Next::Start, Some(handle)) => {
                if known.container == Container::Created {
                    tokio::select! {
                        biased;
                        () = self.baseline(spec, &mut launch.baseline) => {}
                        () = self.told_to_stop(nudges) => return Ok(None),
                    }
                    self.reach("baseline", "after").await?;
                    self.await_intent(&mut launch.intent).await?;
                    if let Err(why) = self.prompt_is_whole(spec).await? {
                        return Ok(Some(never_started(&why)));
                    }
                    if let Err(why) = self.way_is_open(spec).await {
                        return Ok(Some(never_started(&why)));
                    }
                }
                let before = self.clock.moment();
                let launched = self.start(spec, handle, known.container).await?;
                if known.container == Container::Ended
                    && let Launched::Running(workload, _) = launched
                {
                    // Not to be watched: no deadline and no stop is about what has ended.
                    return match workload.wait().await {
                        Ok(exit) => {
                            let end = EngineEnd::Exited(exit);
                            Ok(Some(Launched::Ended(end, Some(workload))))
                        }
                        Err(EngineError::NoSuchContainer { .. }) => {
                            known.container = Container::Handle;
                            Ok(None)
                        }
                        Err(error) => Err(error.into()),
                    };
                }
                return Ok(Some(match launched {
                    Launched::Running(workload, _) if known.state < AttemptState::Running => {
                        let started = self.started(attempt, &before)?;
                        Launched::Running(workload, Some(started))
                    }
                    launched => launched,
                }));
            }
            (Next::Collect(End::Exited), _) if launch.ended.is_some() => {
                return Ok(launch
                    .ended
                    .take()
                    .map(|(end, workload)| Launched::Ended(end, Some(workload))));
            }
            (Next::Collect(End::Stopped), _) => {
                return Ok(Some(never_started("stopped before the start")));
            }
            (Next::Collect(End::Gone | End::Exited) | Next::Look | Next::Kill | Next::Start, _) => {
                return Ok(Some(Launched::Ended(EngineEnd::Gone, None)));
            }
        }
        Ok(None)
    }

    /// Waits until the container's way out is open, if it is to have one; the error says why it is not.
    async fn way_is_open(&self, spec: &LaunchSpec) -> Result<(), String> {
        match &self.way {
            None if EgressDemand::is_needed(spec) => Err(
                "nobody is there to guard its way out: the supervisor was given no guard"
                    .to_owned(),
            ),
            Some(way) => way
                .opened()
                .await
                .map_err(|why| format!("the guard does not open its way out: {why}")),
            None => Ok(()),
        }
    }

    /// Begins to record the workspace, while its agent cannot have been started.
    fn begin_baseline(&self, spec: &LaunchSpec, tasks: &mut JoinSet<()>) {
        if let Some(recorder) = self.recorder {
            let (recorder, dir) = (Arc::clone(recorder), self.dir.clone());
            let touched = Touched::by(spec);
            tasks.spawn(async move { recorder.before(&touched, &dir).await });
        }
    }

    /// Makes sure that the workspace is recorded before its agent is started.
    async fn baseline(&self, spec: &LaunchSpec, tasks: &mut JoinSet<()>) {
        while tasks.join_next().await.is_some() {}
        if let Some(recorder) = self.recorder
            && !recorder.is_recorded(&self.dir)
        {
            recorder.before(&Touched::by(spec), &self.dir).await;
        }
    }

    /// Asks the engine what became of a container; that it is gone has to be said twice.
    pub(super) async fn look(&self, handle: &Handle) -> Result<Recovered, EngineError> {
        match self.engine.recover(handle).await? {
            Recovered::Gone if self.is_ours().await? => Err(EngineError::Failed {
                operation: "say whether there is the container".to_owned(),
                source: "it lists the container, and says that it does not know it".into(),
            }),
            recovered => Ok(recovered),
        }
    }

    /// Makes of a step's error what the next try needs: after a lost answer the engine is looked at before anything
    /// is done again. Returns the end of an attempt whose container the engine again and again fails to make or start.
    async fn ask_again_later(
        &self,
        launch: &mut Launch,
        error: ExecutorError,
    ) -> Result<Option<Launched>, ExecutorError> {
        let ExecutorError::Engine(silence) = &error else {
            return Err(error);
        };
        let goes_on = match silence {
            EngineError::Unreachable { .. } => self.control.on_silence == OnSilence::Wait,
            EngineError::Failed { .. } => {
                launch.failures += 1;
                launch.failures <= FAILURES
            }
            // It is we who failed: the engine is not silent.
            EngineError::Local { .. } => return Err(error),
            _ => false,
        };
        // It was looked for in between, so it is known that nothing of it runs.
        let never_ran = match launch.last {
            Some(Next::Create) => true,
            // Without a helper nothing would show that the last try started it after all.
            Some(Next::Start) => {
                launch.known.container == Container::Created
                    && launch.known.transport == Transport::Spool
                    && !self.is_started()?
            }
            _ => false,
        };
        if launch.failures > FAILURES && never_ran {
            return Ok(Some(never_started(&silence.sentence())));
        }
        self.engine_is_silent(silence).await?;
        if !goes_on {
            return Err(error);
        }
        launch.silent = true;
        launch.known.container = match launch.handle {
            Some(_) => Container::Handle,
            None => Container::NoHandle,
        };
        launch.ended = None;
        tokio::time::sleep(RETRY).await;
        Ok(None)
    }

    /// Starts the container, or makes its output flow if it was started.
    async fn start(
        &self,
        spec: &LaunchSpec,
        handle: &Handle,
        seen: Container,
    ) -> Result<Launched, ExecutorError> {
        match self.engine.start(spec, handle, &self.dir).await {
            Ok(workload) => Ok(Launched::Running(workload, None)),
            Err(error @ EngineError::Handover { .. }) => self.untaken(handle, error).await,
            // Said once: whether it is gone is asked in another way.
            Err(error @ EngineError::NoSuchContainer { .. })
                if !matches!(self.look(handle).await?, Recovered::Gone) =>
            {
                Err(ExecutorError::Engine(EngineError::Failed {
                    operation: "start the container".to_owned(),
                    source: error.into(),
                }))
            }
            // Only one that nobody saw start may be said never to have started.
            Err(EngineError::NoSuchContainer { .. })
                if self.is_started()?
                    || self.was_running().await?
                    || spec.transport == Transport::Attach && seen != Container::Created =>
            {
                Ok(Launched::Ended(EngineEnd::Gone, None))
            }
            Err(error) => refused(error),
        }
    }

    /// Finds out what became of a container that did not take its spool.
    async fn untaken(
        &self,
        handle: &Handle,
        error: EngineError,
    ) -> Result<Launched, ExecutorError> {
        match self.look(handle).await? {
            Recovered::Exited(exit, workload) => {
                Ok(Launched::Ended(EngineEnd::Exited(exit), Some(workload)))
            }
            // It had its spool already, from a supervisor that died before the start record was there.
            Recovered::Running(workload) if self.is_started()? => {
                Ok(Launched::Running(workload, None))
            }
            Recovered::Running(workload) => {
                // Or it still has it, and nothing may be executed after the report says that nothing was.
                workload.stop(&StopPolicy::kill()).await?;
                match (self.is_started()?, self.look(handle).await?) {
                    (true, _) => Ok(Launched::Running(workload, None)),
                    (false, Recovered::Running(_)) => Err(EngineError::Failed {
                        operation: "kill the container".to_owned(),
                        source: error.into(),
                    }
                    .into()),
                    (false, _) => refused(error),
                }
            }
            // It ran, and the engine has forgotten that: what it printed is all there is.
            Recovered::Created(workload) if self.is_started()? => {
                Ok(Launched::Ended(EngineEnd::Gone, Some(workload)))
            }
            Recovered::Gone if self.is_started()? => Ok(Launched::Ended(EngineEnd::Gone, None)),
            Recovered::Created(_) | Recovered::Gone => refused(error),
        }
    }

    async fn was_running(&self) -> Result<bool, ExecutorError> {
        let row = self.store.attempt(self.tenure.attempt).await?;
        Ok(row.is_some_and(|row| row.state >= AttemptState::Running))
    }

    /// Makes sure of the image, and records meanwhile that this is being done; `None` if the attempt is to be stopped.
    async fn pull(
        &self,
        spec: &LaunchSpec,
        nudges: &Nudges,
    ) -> Result<Result<Option<ImageRecord>, EngineError>, ExecutorError> {
        let entering = pin!(self.advance(Transition::Pulling));
        let ensuring = pin!(self.ensure_image(spec, nudges));
        match select(entering, ensuring).await {
            Either::Left((is_stop_requested, ensuring)) => match is_stop_requested? {
                true => Ok(Ok(None)),
                false => Ok(ensuring.await),
            },
            // What was asked for meanwhile is read again with the next write.
            Either::Right((image, entering)) => entering.await.map(|_| image),
        }
    }

    /// Makes sure of the image; `None` if the attempt is to be stopped.
    async fn ensure_image(
        &self,
        spec: &LaunchSpec,
        nudges: &Nudges,
    ) -> Result<Option<ImageRecord>, EngineError> {
        let progress = self.progress;
        let mut say = |news: PullNews<'_>| {
            progress(match news {
                PullNews::Step(line) => Progress::Pull(line.to_owned()),
                PullNews::Amount(amount) => Progress::Pulled(amount),
            });
        };
        let ensure = self.engine.ensure_image(&spec.image, spec.pull, &mut say);
        tokio::select! {
            image = ensure => image.map(Some),
            () = self.told_to_stop(nudges) => Ok(None),
        }
    }

    /// Waits until our own caller, or another process, wants the attempt stopped; an unreadable store is asked again.
    async fn told_to_stop(&self, nudges: &Nudges) {
        loop {
            // What was asked for before was looked for before this step, and whoever asked since has nudged.
            tokio::select! {
                () = self.control.cancel.cancelled() => {}
                nudged = nudges.next() => {
                    if nudged.is_err() {
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
            if matches!(self.is_stop_requested(None).await, Ok(true)) {
                return;
            }
        }
    }

    /// Returns whether somebody wants this attempt to be stopped, our own caller included; others are `known`, or read.
    async fn is_stop_requested(&self, known: Option<bool>) -> Result<bool, ExecutorError> {
        if self.control.is_cancelled() {
            self.request_stop(self.cancelled()).await?;
        } else if let Some(known) = known {
            return Ok(known);
        }
        Ok(self.store.is_stop_requested(self.tenure.attempt).await?)
    }

    /// Returns the attempt's row as it is now, with the caller's own request to stop it.
    pub(super) async fn row_with_requests(&self) -> Result<Option<Attempt>, ExecutorError> {
        if self.control.is_cancelled() {
            self.request_stop(self.cancelled()).await?;
        }
        Ok(self.store.attempt(self.tenure.attempt).await?)
    }

    /// Returns whether the engine holds a container that was made for this attempt.
    pub(super) async fn is_ours(&self) -> Result<bool, EngineError> {
        let owned = self.engine.list_owned(self.store.owner()).await?;
        Ok(owned
            .iter()
            .any(|container| container.attempt == Some(self.tenure.attempt)))
    }

    fn is_started(&self) -> Result<bool, ExecutorError> {
        is_started(&self.dir).map_err(|error| self.output_error(error))
    }

    pub(super) fn output_error(&self, source: io::Error) -> ExecutorError {
        ExecutorError::Output {
            attempt: self.tenure.attempt,
            source,
        }
    }

    pub(super) fn cancelled(&self) -> StopReason {
        StopReason::Cancelled {
            by: self.control.by(),
        }
    }
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
