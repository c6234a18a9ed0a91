//! One supervising process: each store write and each engine call is a step of its own.
//!
//! Owns: where the process is, what it believes, and what its next step changes outside of it.
//! Reads: nothing but what its steps in `launch` and `end` read.
//! Never: knows what a step that was answered leads to.

use dark_factory_types::{OutcomeKind, Transport};

use super::super::{Container, Executed, Known, Wanted};
use super::reply::Reply;
use super::state::{Op, Seen, State};
use super::world::{Answer, How, Phase};
use super::{Attempt, end, launch};
use crate::store::AttemptState;
use crate::store::reference::Change;

/// A process that supervises, or may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Process {
    Off,
    On(Driver),
}

/// A supervising process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Driver {
    pub(super) generation: u8,
    pub(super) at: At,
    pub(super) known: Known,
    pub(super) handle: Option<u8>,
    /// What the engine said when the container was looked at.
    pub(super) ended: Option<How>,
    /// Whether it has a workload to remove.
    pub(super) has_workload: bool,
    pub(super) is_stopping: bool,
}

/// What the outcome is decided from, and then what is recorded of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Told {
    pub(super) kind: OutcomeKind,
    /// Whether the report says that the agent was never started.
    pub(super) never_started: bool,
}

/// How the engine's side ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Ended {
    Exited(How),
    Gone,
    NeverStarted,
}

/// What the spool held when it was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Collected {
    pub(super) started: bool,
    pub(super) record: Option<How>,
}

/// Whether the container was removed before its end was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Removal {
    Later,
    Done,
    Failed,
}

/// Who was told that a container is gone, and asks whether it is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    Launch,
    Start,
    Untaken,
    Watch,
    Clean,
}

/// The step that is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum At {
    /// It has the lease.
    TakeOver,
    ReadRow,
    /// It was killed before its container was followed: it takes a new generation, and begins anew.
    KillTakeOver,
    /// It asks for a stop.
    KillRequest,
    Preparing,
    /// The top of the loop: what is known is read again, and the next step is planned.
    Plan,
    Pulling,
    Image,
    Creating,
    Find,
    Create,
    Starting(u8),
    Look,
    /// The engine does not know the container: does it list it?
    List(Asker),
    /// What an engine's start looks at before it does anything.
    StartLook,
    StartCall,
    HandOver,
    KillBegin,
    Kill,
    /// The container was not given its spool: what became of it?
    Untaken,
    UntakenKill,
    /// The engine does not know the container that was to be started: is that so?
    NoSuchLook,
    NoSuch,
    /// One that has ended was started to read its output: how did it end?
    Exit,
    Running,
    Follow,
    /// The engine does not know the container that is followed: is that so?
    FollowLook,
    BeginStop,
    Stop,
    Collecting(Ended),
    Collect(Ended),
    Report(Ended, Collected),
    /// The files tell all of the end: the container is removed before that is recorded.
    RemoveFirst(Told),
    Finish(Told, Removal),
    CleanUp,
    /// There is no handle, but a create may have been done whose answer was lost.
    CleanFind,
    CleanLook,
    CleanKill,
    Remove,
    MarkRemoved,
}

impl At {
    /// Returns whether this is a step of `launch`.
    fn is_before_the_end(self) -> bool {
        !matches!(
            self,
            Self::Follow
                | Self::FollowLook
                | Self::BeginStop
                | Self::Stop
                | Self::Collecting(_)
                | Self::Collect(_)
                | Self::Report(..)
                | Self::RemoveFirst(_)
                | Self::Finish(..)
                | Self::CleanUp
                | Self::CleanFind
                | Self::CleanLook
                | Self::List(Asker::Clean)
                | Self::CleanKill
                | Self::Remove
                | Self::MarkRemoved
        )
    }
}

impl Driver {
    /// Returns a process that just got the lease, or that recorded the attempt itself.
    pub(super) fn new(at: At, transport: Transport) -> Self {
        Self {
            generation: 1,
            at,
            known: nothing_known(transport),
            handle: None,
            ended: None,
            has_workload: false,
            is_stopping: false,
        }
    }

    /// Drops what no later step reads, so that states that differ in it alone are one.
    pub(super) fn forget(&mut self) {
        let transport = self.known.transport;
        match self.at {
            At::KillTakeOver => *self = Self::new(self.at, transport),
            At::KillRequest | At::ReadRow => {
                *self = Self {
                    generation: self.generation,
                    ..Self::new(self.at, transport)
                };
            }
            // These are read again.
            At::Plan => {
                self.known.agent = Executed::No;
                self.known.stop = Wanted::No;
                self.has_workload = false;
            }
            at if at.is_before_the_end() => {}
            at => {
                self.known = nothing_known(transport);
                self.ended = None;
                self.is_stopping &=
                    matches!(at, At::Follow | At::FollowLook | At::BeginStop | At::Stop);
            }
        }
    }

    /// Returns what the next step changes outside of the process.
    pub(super) fn op(&self) -> Option<Op> {
        let handle = self.handle.unwrap_or_default();
        Some(match self.at {
            At::Preparing => Op::Advance(Change::Preparing),
            At::Pulling => Op::Advance(Change::Pulling),
            At::Creating => Op::Advance(Change::Creating),
            At::Starting(id) => Op::Advance(Change::Starting(id)),
            At::Running => Op::Advance(Change::Running),
            At::Collecting(_) => Op::Advance(Change::Collecting),
            At::Finish(told, _) => Op::Advance(Change::Finished(told)),
            At::KillRequest => Op::RequestStop,
            At::BeginStop | At::KillBegin => Op::BeginStop,
            At::MarkRemoved => Op::MarkRemoved,
            At::Create => Op::Create,
            At::StartCall => Op::Start(handle),
            At::Stop | At::Kill | At::UntakenKill | At::CleanKill => Op::Stop(handle),
            At::RemoveFirst(_) | At::Remove => Op::Remove(handle),
            _ => return None,
        })
    }

    /// After an error of which nothing is known: the container is looked at again before anything is done.
    pub(super) fn ask_again(&mut self) {
        self.known.container = match self.handle {
            Some(_) => Container::Handle,
            None => Container::NoHandle,
        };
        self.ended = None;
        self.at = At::Plan;
    }

    /// Returns whether it is on its way to a followed container.
    pub(super) fn is_launching(&self) -> bool {
        let is_elsewhere = matches!(
            self.at,
            At::TakeOver
                | At::ReadRow
                | At::KillTakeOver
                | At::KillRequest
                | At::List(Asker::Watch)
        );
        self.at.is_before_the_end() && !is_elsewhere
    }
}

fn nothing_known(transport: Transport) -> Known {
    Known {
        state: AttemptState::Preparing,
        container: Container::NoHandle,
        agent: Executed::No,
        stop: Wanted::No,
        transport,
    }
}

/// Takes the next step of a process; `None` if it has none now, or the step cannot end like this.
pub(super) fn step(
    state: &mut State,
    mut driver: Driver,
    reply: Reply,
    model: &Attempt,
) -> Option<Process> {
    if !driver.may_get(reply, model) {
        return None;
    }
    let is_done = matches!(reply, Reply::Answered | Reply::Lost | Reply::FailedLate);
    let mut answer = Answer::Done;
    if let Some(op) = driver.op().filter(|_| is_done) {
        if let Op::Start(id) = op
            && driver.known.stop == Wanted::Yes
            && state.world.phase_of(id) == Phase::Created
        {
            state.see(Seen::StartedAgainstStop);
        }
        match state.apply(op, driver.generation) {
            Ok(answered) => answer = answered,
            Err(_) => {
                state.see(Seen::WriteDenied);
                return Some(Process::Off);
            }
        }
    }
    match reply {
        Reply::Answered if driver.at.is_before_the_end() => {
            launch::step(state, driver, answer, model)
        }
        Reply::Answered => end::step(state, driver, answer, model),
        Reply::Lost | Reply::Silent => {
            match driver.at {
                At::Stop | At::List(Asker::Watch) => {}
                At::RemoveFirst(told) => driver.at = At::Finish(told, Removal::Failed),
                At::HandOver => return launch::timed_out(state, driver),
                at if at.is_before_the_end() => driver.ask_again(),
                _ => return Some(Process::Off),
            }
            Some(Process::On(driver))
        }
        // With a container there, it is found.
        Reply::Refused if driver.at == At::Create && state.is_listed() => None,
        Reply::Refused => {
            driver.at = At::Collect(Ended::NeverStarted);
            Some(Process::On(driver))
        }
        Reply::Failed | Reply::FailedLate => Some(launch::given_up(state, driver, model)),
        Reply::Denied if state.phase_of(driver.handle) == Phase::Absent => None,
        Reply::Denied => launch::denied(state, driver, model),
    }
}
