//! Watches a running workload: to its end, or to the moment at which it has to be stopped or frozen.
//!
//! Owns: the attempt's deadlines, and carrying out requests to stop, pause and resume it.
//! Reads: the store's requests, the pump's signs of life, the clocks.
//! Never: changes anything because the engine does not answer; never acts before the store knows why.

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::time::Duration;

use dark_factory_types::{Proof, SpentBudget, StopReason};

use super::drive::{Drive, RETRY};
use super::facts::EngineEnd;
use super::follow::Following;
use super::pulse::{Pulse, Reading, Signs};
use super::pump::Pumping;
use super::{Progress, TimeLimit};
use crate::clock::Moment;
use crate::engine::{EngineError, Recovered, Workload};
use crate::error::ExecutorError;
use crate::spec::StopPolicy;
use crate::store::{Attempt, Motion};

#[cfg(test)]
mod tests;

/// How often the store is looked into without a nudge, should one be missed.
const SAFETY_LOOK: Duration = Duration::from_secs(30);

/// A stop under way; ready never, because the workload's end is seen by whoever waits for it.
type Stopping<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What is being done to the workload.
struct Acts<'a> {
    stopping: Option<Stopping<'a>>,
    /// The grace of the stop that is under way.
    grace: Option<Duration>,
    /// When to try again to freeze or thaw it, if that failed.
    again: Option<Duration>,
}

/// The deadlines of a running workload.
#[derive(Debug)]
struct Deadlines {
    started: Moment,
    /// How long it was frozen.
    paused: Duration,
    wall: Option<Duration>,
    idle: Option<Duration>,
    linger: Option<Duration>,
    disk: Duration,
    /// When it last began to run: at its start, or when it was thawed.
    going_since: Moment,
}

/// What has become due.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// Nothing, for this long.
    Not(Duration),
    /// To stop the workload.
    Stop(StopReason),
    /// To leave it alone until the disk has room.
    LeaveOpen,
}

impl Drive<'_> {
    /// Waits for the workload's end, which is `end`.
    pub(super) async fn watch(
        &self,
        attempt: &Attempt,
        following: &Following<'_>,
        pump: &mut Pumping,
        mut end: Pin<&mut impl Future<Output = Result<EngineEnd, ExecutorError>>>,
    ) -> Result<EngineEnd, ExecutorError> {
        let (workload, nudges) = (following.workload, following.nudges);
        let pulse = pump.pulse();
        let mut deadlines = self.deadlines(attempt)?;
        let mut acts = Acts {
            stopping: None,
            grace: None,
            again: None,
        };
        let mut killed = false;
        let mut told_spent = false;
        let mut told_full = false;
        let mut full = pin!(self.wrote_too_much(workload, attempt.spec.limits.disk));
        loop {
            let motion = self
                .heed_requests(attempt, workload, &mut deadlines, &mut acts)
                .await?;
            let signs = pulse.signs();
            self.tell_of_room(signs.full.as_ref(), pump);
            let wait = match deadlines.due(&self.clock.moment(), &signs, motion, &acts) {
                Due::Not(wait) => wait,
                Due::LeaveOpen => return Err(self.disk_full()),
                Due::Stop(reason) => match self.request_stop(reason).await? {
                    Some(_) => continue,
                    // It is known to have ended: there is only the end to wait for.
                    None => {
                        deadlines.disarm();
                        SAFETY_LOOK
                    }
                },
            };
            let wait = wait.min(acts.again.take().unwrap_or(SAFETY_LOOK));
            let is_stopping = acts.stopping.is_some();
            let stopping = async {
                match &mut acts.stopping {
                    Some(stopping) => stopping.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                end = &mut end => return end,
                error = pump.failure() => return Err(error),
                () = stopping => {}
                spent = self.spent(), if !told_spent => {
                    told_spent = true;
                    // Read back as any other request.
                    self.request_stop(StopReason::Budget { spent }).await?;
                }
                reason = &mut full, if !told_full => {
                    told_full = true;
                    self.request_stop(reason).await?;
                }
                () = self.control.kill.cancelled(), if !killed => killed = true,
                () = self.control.cancel.cancelled(), if !is_stopping && !killed => {}
                nudged = nudges.next() => nudged.map_err(|error| self.output_error(error))?,
                () = pulse.changed() => {}
                () = self.clock.alarm(wait) => {}
            }
        }
    }

    /// Waits until the run has used up what it may of its providers.
    async fn spent(&self) -> SpentBudget {
        match &self.way {
            Some(way) => way.spent().await,
            None => pending().await,
        }
    }

    /// Waits for the workload's end, through any time in which the engine does not answer.
    pub(super) async fn end_of(&self, workload: &dyn Workload) -> Result<EngineEnd, ExecutorError> {
        loop {
            // One word is not enough to say of a living agent that it is gone.
            let silence = match workload.wait().await {
                Ok(exit) => return Ok(EngineEnd::Exited(exit)),
                Err(EngineError::NoSuchContainer { .. }) => match self.look_again(workload).await {
                    Ok(Some(end)) => return Ok(end),
                    Ok(None) => {
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            self.engine_is_silent(&silence).await?;
            let end = loop {
                tokio::time::sleep(RETRY).await;
                match self.look_again(workload).await {
                    Ok(end) => break end,
                    Err(error) => {
                        tracing::debug!(error = %error.sentence(), "the engine does not answer yet");
                    }
                }
            };
            self.engine_answers().await?;
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// Asks what became of a container that was followed; `None` if its end is still to be waited for, or told.
    async fn look_again(&self, workload: &dyn Workload) -> Result<Option<EngineEnd>, EngineError> {
        Ok(match self.look(workload.handle()).await? {
            Recovered::Running(_) | Recovered::Exited(..) => None,
            // An engine that was killed in the middle of a start has forgotten it, and what runs with it.
            Recovered::Created(_) | Recovered::Gone => Some(EngineEnd::Gone),
        })
    }

    /// Does what the store, or our own caller, asks for.
    async fn heed_requests<'w>(
        &'w self,
        attempt: &Attempt,
        workload: &'w dyn Workload,
        deadlines: &mut Deadlines,
        acts: &mut Acts<'w>,
    ) -> Result<Motion, ExecutorError> {
        let row = self.row_with_requests().await?;
        let (stop, pause) = row.map(|row| (row.stop, row.pause)).unwrap_or_default();
        let wanted = match &stop {
            // A frozen process hears no signal.
            Some(_) => Motion::Going,
            None => pause.wanted,
        };
        let motion = match (wanted, pause.since) {
            (Motion::Going, None) => Motion::Going,
            (Motion::Frozen, since) => self.freeze(workload, deadlines, since).await?,
            (Motion::Going, Some(since)) => self.thaw(workload, deadlines, &since).await?,
        };
        acts.again = (motion != wanted).then_some(RETRY);
        let Some(stop) = stop else {
            return Ok(motion);
        };
        let grace = if self.control.kill.is_cancelled() {
            Duration::ZERO
        } else {
            stop.grace.unwrap_or(attempt.spec.stop.grace)
        };
        // Begun once, and once more only by somebody in more of a hurry.
        if acts.grace.is_none_or(|begun| grace < begun) {
            self.patiently(|| self.store.begin_stop(attempt.id, self.clock.now()))
                .await?;
            if acts.grace.is_none() {
                (self.progress)(Progress::Stopping(describe(&stop.reason)));
            }
            acts.grace = Some(grace);
            let policy = StopPolicy {
                grace,
                ..attempt.spec.stop.clone()
            };
            acts.stopping = Some(Box::pin(stop_at_last(workload, policy)));
        }
        Ok(motion)
    }

    /// Freezes the workload, and then records since when; that it is to be frozen was recorded by whoever asked.
    async fn freeze(
        &self,
        workload: &dyn Workload,
        deadlines: &Deadlines,
        since: Option<Moment>,
    ) -> Result<Motion, ExecutorError> {
        let now = self.clock.moment();
        match workload.pause().await {
            Ok(()) => {}
            Err(EngineError::NoSuchContainer { .. }) => return Ok(Motion::Frozen),
            Err(error) => {
                tracing::warn!(error = %error.sentence(), "not frozen yet");
                return Ok(Motion::Going);
            }
        }
        if since.is_none() {
            self.patiently(|| {
                self.store
                    .set_paused(self.tenure, Some(now.clone()), deadlines.paused)
            })
            .await?;
            (self.progress)(Progress::Paused);
        }
        Ok(Motion::Frozen)
    }

    /// Lets the workload go on, and then accounts for the time.
    async fn thaw(
        &self,
        workload: &dyn Workload,
        deadlines: &mut Deadlines,
        since: &Moment,
    ) -> Result<Motion, ExecutorError> {
        match workload.unpause().await {
            Ok(()) | Err(EngineError::NoSuchContainer { .. }) => {}
            Err(error) => {
                tracing::warn!(error = %error.sentence(), "not thawed yet");
                return Ok(Motion::Frozen);
            }
        }
        let now = self.clock.moment();
        let total = deadlines.paused + since.until(&now);
        self.patiently(|| self.store.set_paused(self.tenure, None, total))
            .await?;
        deadlines.go_on(total, now);
        (self.progress)(Progress::Resumed);
        Ok(Motion::Going)
    }

    /// Tells the caller whether the disk is full, if that is news; `full` is since when it is.
    pub(super) fn tell_of_room(&self, full: Option<&Moment>, pump: &mut Pumping) {
        let is_full = full.is_some();
        if std::mem::replace(&mut pump.told_full, is_full) != is_full {
            (self.progress)(match is_full {
                true => Progress::DiskFull,
                false => Progress::DiskRoom,
            });
        }
    }

    fn deadlines(&self, attempt: &Attempt) -> Result<Deadlines, ExecutorError> {
        let spec = &attempt.spec;
        let proof = dark_factory_agents::agent(&spec.agent).map(|agent| agent.proof());
        let started = self.started(attempt, &self.clock.moment())?;
        Ok(Deadlines {
            paused: attempt.pause.total,
            wall: match self.control.time_limit {
                TimeLimit::AsLaunched => spec.limits.timeout,
                TimeLimit::Instead(limit) => limit,
            },
            idle: spec.limits.idle,
            // Others say that they are done by leaving.
            linger: spec
                .completion_grace
                .filter(|_| proof == Some(Proof::Stream)),
            disk: self.control.disk_patience,
            // When it was thawed last is not known: in its favour, just now.
            going_since: if attempt.pause.total.is_zero() {
                started.clone()
            } else {
                self.clock.moment()
            },
            started,
        })
    }

    /// Ends once a full disk was borne for long enough.
    pub(super) async fn out_of_room(&self, pulse: &Pulse) {
        loop {
            let wait = match pulse.signs().full {
                None => SAFETY_LOOK,
                Some(full) => {
                    let spent = full.awake_until(&self.clock.moment());
                    match left(self.control.disk_patience, spent) {
                        Some(left) => left,
                        None => return,
                    }
                }
            };
            tokio::select! {
                () = pulse.changed() => {}
                () = self.clock.alarm(wait) => {}
            }
        }
    }
}

impl Deadlines {
    /// Counts all the time that the workload was frozen, and begins its silence anew.
    fn go_on(&mut self, paused: Duration, now: Moment) {
        self.paused = paused;
        self.going_since = now;
    }

    /// Forgets every limit.
    fn disarm(&mut self) {
        (self.wall, self.idle, self.linger) = (None, None, None);
    }

    /// Returns what is due now, or how long until something may be.
    fn due(&self, now: &Moment, signs: &Signs, motion: Motion, acts: &Acts<'_>) -> Due {
        let mut wait = SAFETY_LOOK;
        if let Some(full) = &signs.full {
            match left(self.disk, full.awake_until(now)) {
                Some(left) => wait = wait.min(left),
                None => return Due::LeaveOpen,
            }
        }
        if motion == Motion::Frozen || acts.grace.is_some() {
            return Due::Not(wait);
        }
        // How long ago the last of these was; it began to run before any of them.
        let since = |signs: &[&Option<Moment>]| {
            let signs = signs.iter().filter_map(|sign| sign.as_ref());
            let last = signs.chain([&self.going_since]);
            last.map(|sign| sign.awake_until(now))
                .min()
                .unwrap_or_default()
        };
        let ran = self.started.until(now).saturating_sub(self.paused);
        // A result that is there counts before the time that is up.
        let lingered = signs.result.as_ref().and(self.linger);
        let can_be_silent = signs.reading == Reading::AtEnd && signs.full.is_none();
        let idle = self.idle.filter(|_| can_be_silent);
        let limits = [
            lingered.map(|grace| {
                (
                    grace,
                    since(&[&signs.result]),
                    StopReason::Lingered { grace },
                )
            }),
            self.wall
                .map(|limit| (limit, ran, StopReason::Deadline { limit })),
            idle.map(|limit| {
                (
                    limit,
                    since(&[&signs.output, &signs.room]),
                    StopReason::Idle { limit },
                )
            }),
        ];
        for (limit, spent, reason) in limits.into_iter().flatten() {
            match left(limit, spent) {
                Some(left) => wait = wait.min(left),
                None => return Due::Stop(reason),
            }
        }
        Due::Not(wait)
    }
}

/// Stops a workload, as often as it takes for the engine to do so.
async fn stop_at_last(workload: &dyn Workload, policy: StopPolicy) {
    loop {
        match workload.stop(&policy).await {
            // Whoever waits for the end is told by the engine as well.
            Ok(()) => return pending().await,
            Err(error) => {
                tracing::warn!(error = %error.sentence(), "stopping again in a moment");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Returns how much of a limit is left; `None` if nothing is.
fn left(limit: Duration, spent: Duration) -> Option<Duration> {
    limit.checked_sub(spent).filter(|left| !left.is_zero())
}

fn describe(reason: &StopReason) -> String {
    match reason {
        StopReason::Deadline { .. } => "its time limit passed".to_owned(),
        StopReason::Idle { .. } => "it printed nothing for too long".to_owned(),
        StopReason::Lingered { .. } => "it has given its result and does not leave".to_owned(),
        StopReason::Cancelled { by } => format!("cancelled by {by}"),
        StopReason::Budget { spent } => spent.to_string(),
        StopReason::DiskLimit { limit, used } => {
            format!("it wrote {used} into the container, beyond its limit of {limit}")
        }
        _ => "a limit was reached".to_owned(),
    }
}
