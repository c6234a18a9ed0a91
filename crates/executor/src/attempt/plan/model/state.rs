//! One state of the whole: the row, the world, the processes, and what faults are still to come.
//!
//! Owns: what a write or a call changes, and what must never be seen.
//! Reads: nothing.
//! Never: takes a step by itself.

use dark_factory_types::{OutcomeKind, Transport};

use super::process::{At, Process, Told};
use super::world::{Answer, How, Phase, World};
use crate::store::AttemptState;
use crate::store::reference::{Change, Denied, Row};

/// One state of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) row: Row<Told>,
    pub(super) world: World,
    pub(super) processes: [Process; 2],
    pub(super) requester: Requester,
    /// What a dead process has sent, and what has not arrived yet.
    pub(super) late: Option<Late>,
    /// Faults that may still happen.
    pub(super) left: Faults,
    /// The first thing that must never be seen.
    pub(super) seen: Option<Seen>,
    pub(super) late_write_was_denied: bool,
}

/// How often each kind of fault may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Faults {
    /// Deaths of a process.
    pub(super) crashes: u8,
    /// Lost answers, calls that did not arrive, refusals, failures, and containers that are denied.
    pub(super) troubles: u8,
    /// Forced removals, engines that go down.
    pub(super) blows: u8,
    /// Kills by whoever waits for the run.
    pub(super) kills: u8,
}

/// Somebody who has the run stopped: `dark-factory stop`, beside a supervisor that does not react.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Requester {
    Idle,
    Asked,
    FoundRunning(u8),
    Begun(u8),
    Done,
}

/// Something that is on its way although its sender is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Late {
    pub(super) generation: u8,
    pub(super) op: Op,
}

/// A change outside of the process that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Op {
    Advance(Change<Told>),
    RequestStop,
    BeginStop,
    MarkRemoved,
    Create,
    Start(u8),
    Stop(u8),
    Remove(u8),
}

impl Op {
    pub(super) fn is_write(self) -> bool {
        matches!(self, Self::Advance(_) | Self::MarkRemoved) || self.is_for_all()
    }

    /// Returns whether it needs no lease: anybody may ask for a stop, and begin it.
    pub(super) fn is_for_all(self) -> bool {
        matches!(self, Self::RequestStop | Self::BeginStop)
    }
}

/// What must never be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Seen {
    SecondExecution,
    MadeAgain,
    WriteDenied,
    OldWrite,
    OutcomeChanged,
    /// While nothing but the engine could tell its end.
    RemovedEarly,
    StartedAgainstStop,
    UntrueOutcome,
    ExecutedAfterOutcome,
    LeftBehind,
}

impl State {
    /// Notes the first thing that must never be seen.
    pub(super) fn see(&mut self, seen: Seen) {
        self.seen = self.seen.or(Some(seen));
    }

    /// Returns what the engine says of a container.
    pub(super) fn phase_of(&self, handle: Option<u8>) -> Phase {
        handle.map_or(Phase::Absent, |id| self.world.phase_of(id))
    }

    /// Returns whether the engine lists a container of the attempt.
    pub(super) fn is_listed(&self) -> bool {
        self.world.phase != Phase::Absent
    }

    pub(super) fn is_supervised(&self) -> bool {
        self.processes != [Process::Off; 2]
    }

    pub(super) fn is_about_to_hand_over(&self) -> bool {
        self.processes.iter().any(|process| {
            matches!(process, Process::On(driver) if matches!(driver.at, At::StartCall | At::HandOver))
        })
    }

    /// Makes a change, and returns what is answered.
    pub(super) fn apply(&mut self, op: Op, generation: u8) -> Result<Answer, Denied> {
        let before = *self;
        let answer = match op {
            Op::Advance(change) => {
                self.row.advance(generation, change)?;
                if let Change::Finished(told) = change
                    && !self.is_true(told)
                {
                    self.see(Seen::UntrueOutcome);
                }
                Answer::Done
            }
            Op::MarkRemoved => {
                self.row.mark_removed(generation)?;
                if self.world.phase != Phase::Absent {
                    self.see(Seen::LeftBehind);
                }
                Answer::Done
            }
            Op::RequestStop => {
                self.row.request_stop(1, None);
                Answer::Done
            }
            Op::BeginStop => {
                self.row.begin_stop();
                Answer::Done
            }
            Op::Create => self.world.create(),
            Op::Start(id) => self.world.start(id),
            Op::Stop(id) => self.world.stop(id),
            Op::Remove(id) => {
                let is_recorded =
                    self.world.transport == Transport::Spool && self.world.record.is_some();
                if self.row.state != AttemptState::Finished && !is_recorded {
                    self.see(Seen::RemovedEarly);
                }
                self.world.remove(id)
            }
        };
        self.compare(&before);
        Ok(answer)
    }

    /// Notes what must not have happened between two states.
    pub(super) fn compare(&mut self, before: &Self) {
        if self.world.executions > 1 {
            self.see(Seen::SecondExecution);
        }
        if self.world.made > before.world.made && before.world.executions > 0 {
            self.see(Seen::MadeAgain);
        }
        if before.row.report.is_some() && self.row.report != before.row.report {
            self.see(Seen::OutcomeChanged);
        }
        if before.row.report.is_some() && self.world.executions > before.world.executions {
            self.see(Seen::ExecutedAfterOutcome);
        }
    }

    /// Returns whether an outcome says what happened.
    fn is_true(&self, told: Told) -> bool {
        let world = &self.world;
        let proved = world.transport == Transport::Spool && world.record == Some(How::Itself);
        if proved && told.kind != OutcomeKind::Succeeded {
            return false;
        }
        if told.never_started && world.executions > 0 {
            return false;
        }
        match told.kind {
            OutcomeKind::Succeeded => world.end == Some(How::Itself),
            OutcomeKind::StartFailed => world.executions == 0,
            OutcomeKind::Cancelled => self.row.stop.is_some(),
            OutcomeKind::Lost => world.is_tampered,
            OutcomeKind::Killed => world.end != Some(How::Itself),
            _ => false,
        }
    }
}
