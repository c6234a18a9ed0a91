//! Follows a container from its start to its end.
//!
//! Owns: the order of what is recorded of the start and of the end, and the pump of the output in between.
//! Reads: the spool, for when its agent was started.
//! Never: starts anything.

use std::pin::pin;
use std::sync::Arc;

use dark_factory_agents::Agent;
use dark_factory_types::{StopReason, Transport};

use super::drive::Drive;
use super::facts::EngineEnd;
use super::pump::{Collected, Pump, Pumping, Stamps};
use super::{Progress, secrets};
use crate::clock::Moment;
use crate::egress::{EgressDemand, KeptWay};
use crate::engine::Workload;
use crate::error::ExecutorError;
use crate::nudge::Nudges;
use crate::sink::Sink;
use crate::spool::{StartStamp, started_at};
use crate::store::{Attempt, AttemptState, StoreError, Transition};

/// A container that is followed to its end.
pub(super) struct Following<'a> {
    pub(super) workload: &'a dyn Workload,
    /// When it was started, where that is yet to be recorded.
    pub(super) started: Option<Moment>,
    pub(super) nudges: &'a Nudges,
}

impl Drive<'_> {
    /// Follows the workload to its end while its output is pumped; returns its row as it was when it ended.
    pub(super) async fn supervise(
        &self,
        following: Following<'_>,
        agent: &'static dyn Agent,
        sinks: Vec<Box<dyn Sink>>,
    ) -> Result<(Attempt, EngineEnd, Collected), ExecutorError> {
        // From the beginning on: what is recorded of the start need not be waited for.
        let mut end = pin!(self.end_of(following.workload));
        let mut early = None;
        let (row, mut pump) = {
            let mut begun = pin!(self.begin_to_follow(&following, agent, sinks));
            tokio::select! {
                biased;
                begun = &mut begun => begun?,
                end = &mut end => {
                    early = Some(end?);
                    begun.await?
                }
            }
        };
        let end = match early {
            Some(end) => end,
            None => self.watch(&row, &following, &mut pump, end).await?,
        };
        // An agent that was told so by its provider may have left before we were.
        if let Some(spent) = self.way.as_ref().and_then(KeptWay::is_spent) {
            self.request_stop(StopReason::Budget { spent }).await?;
        }
        // From here on a request to stop comes too late, and is told so.
        let row = self.advance_and_read(Transition::Collecting).await?;
        let collected = self.collected(pump).await?;
        Ok((row, end, collected))
    }

    /// Records that the container was started, and has its output pumped.
    async fn begin_to_follow(
        &self,
        following: &Following<'_>,
        agent: &'static dyn Agent,
        sinks: Vec<Box<dyn Sink>>,
    ) -> Result<(Attempt, Pumping), ExecutorError> {
        let attempt = self.tenure.attempt;
        let row = match &following.started {
            Some(started) => {
                let running = Transition::Running(started.clone());
                let row = self.advance_and_read(running).await?;
                if row.spec.transport == Transport::Attach {
                    // Nothing else shows that its agent was executed.
                    self.patiently(|| self.store.sync()).await?;
                }
                (self.progress)(Progress::Started {
                    container: following.workload.handle().container.clone(),
                });
                row
            }
            None => {
                let row = self.store.attempt(attempt).await?;
                row.ok_or(StoreError::LeaseLost { attempt })?
            }
        };
        let pump = self.start_pump(&row, agent, sinks).await?;
        Ok((row, pump))
    }

    /// Reads what the spool of an ended container holds.
    pub(super) async fn collect(
        &self,
        attempt: &Attempt,
        agent: &'static dyn Agent,
        sinks: Vec<Box<dyn Sink>>,
    ) -> Result<Collected, ExecutorError> {
        let pump = self.start_pump(attempt, agent, sinks).await?;
        self.collected(pump).await
    }

    async fn start_pump(
        &self,
        attempt: &Attempt,
        agent: &'static dyn Agent,
        sinks: Vec<Box<dyn Sink>>,
    ) -> Result<Pumping, ExecutorError> {
        let stamps = self.stamps(attempt);
        let (dir, clock) = (self.dir.clone(), Arc::clone(self.clock));
        let keys = match (EgressDemand::of(&attempt.spec), self.guard) {
            (Some(demand), Some(guard)) => guard.secrets(&demand, attempt.id).await,
            _ => Vec::new(),
        };
        // What an earlier pump derived is cut off, which may be much.
        let spec = attempt.spec.clone();
        let open = move || {
            let mask = secrets::mask(&spec, &dir, keys);
            Pump::open(&dir, agent, mask, sinks, stamps, &clock)
        };
        tokio::task::spawn_blocking(open).await??.start()
    }

    /// Waits for the pump to collect the rest; for a full disk, only as long as there is patience.
    async fn collected(&self, mut pump: Pumping) -> Result<Collected, ExecutorError> {
        pump.workload_ended();
        let pulse = pump.pulse();
        let collected = tokio::select! {
            collected = pump.collected() => Some(collected),
            () = self.out_of_room(&pulse) => None,
        };
        if let Some(Ok(_)) = &collected {
            self.tell_of_room(None, &mut pump);
        }
        collected.unwrap_or_else(|| Err(self.disk_full()))
    }

    /// Returns when the attempt was started: as it is stored, else as the helper recorded it, else just now.
    ///
    /// `near` is a moment close to the start: between the two the machine was not suspended.
    pub(super) fn started(
        &self,
        attempt: &Attempt,
        near: &Moment,
    ) -> Result<Moment, ExecutorError> {
        if let Some(stored) = &attempt.started {
            return Ok(stored.clone());
        }
        let now = self.clock.moment();
        if let Some(at) = attempt.started_at {
            return Ok(now.at_wall(at));
        }
        let stamp = started_at(&self.dir).map_err(|error| self.output_error(error))?;
        Ok(match (stamp, self.stamps(attempt)) {
            (None, _) => now,
            (
                Some(StartStamp {
                    awake_ms: Some(awake_ms),
                    ..
                }),
                Stamps::OfThisBoot,
            ) => near.near_awake(awake_ms),
            // Also where a supervisor died between the start and its record in the store.
            (Some(StartStamp { wall, .. }), _) => now.at_wall(wall),
        })
    }

    /// Returns whether the helper's stamps are of this boot.
    fn stamps(&self, attempt: &Attempt) -> Stamps {
        match &attempt.started {
            Some(started) if started.boot == self.clock.moment().boot => Stamps::OfThisBoot,
            // Begun by us, and so in this boot.
            None if attempt.state < AttemptState::Creating => Stamps::OfThisBoot,
            _ => Stamps::Unknown,
        }
    }
}
