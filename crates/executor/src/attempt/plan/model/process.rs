//! One supervising process: the steps of `drive.rs`, `watch.rs` and `finish.rs`, each store write and each engine call
//! a step of its own.
//!
//! Owns: where the process is, and what it believes.
//! Reads: the row and the world, where the real process does.
//! Never: decides what comes next before the container runs: that is the real `plan::next`.

use dark_factory_spool::{EXIT_NO_SUPERVISOR, End as RecordedEnd, ExitRecord, Intervention};
use dark_factory_types::{OutcomeKind, Proof, StopReason, Transport, Verdict};

use super::super::{Container, End, Executed, Known, Next, Wanted};
use super::state::{Op, Seen, State};
use super::world::{Answer, How, Inside, Phase};
use super::{Attempt, Guard};
use crate::attempt::facts::{EngineEnd, Facts, Started};
use crate::engine::{EndedBy, EngineExit, OomSeen};
use crate::spec::Limits;
use crate::store::reference::Change;
use crate::store::{AttemptState, Sent, StopRequest};

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
    ended: Option<How>,
    /// Whether it has a workload to remove.
    has_workload: bool,
    is_stopping: bool,
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
    started: bool,
    record: Option<How>,
}

/// The step that is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum At {
    /// It has the lease.
    TakeOver,
    ReadRow,
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
    /// What an engine's start looks at before it does anything.
    StartLook,
    StartCall,
    HandOver,
    KillBegin,
    Kill,
    /// The container was not given its spool: what became of it?
    Untaken,
    UntakenKill,
    /// The engine does not know the container that was to be started.
    NoSuch,
    Running,
    Follow,
    BeginStop,
    Stop,
    Collecting(Ended),
    Collect(Ended),
    Report(Ended, Collected),
    Finish(Told),
    CleanUp,
    CleanLook,
    CleanKill,
    Remove,
    MarkRemoved,
}

/// What a step's call comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    /// It is done, and answered.
    Answered,
    /// It is done, and the answer is lost.
    Lost,
    /// It is not done, and nothing is known; or it took too long.
    Silent,
    /// The engine says no.
    Refused,
}

impl Driver {
    /// Returns a process that just got the lease, or that recorded the attempt itself.
    pub(super) fn new(at: At, transport: Transport) -> Self {
        Self {
            generation: 1,
            at,
            known: Known {
                state: AttemptState::Preparing,
                container: Container::NoHandle,
                agent: Executed::No,
                stop: Wanted::No,
                transport,
            },
            handle: None,
            ended: None,
            has_workload: false,
            is_stopping: false,
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
            At::Finish(told) => Op::Advance(Change::Finished(told)),
            At::BeginStop | At::KillBegin => Op::BeginStop,
            At::MarkRemoved => Op::MarkRemoved,
            At::Create => Op::Create,
            At::StartCall => Op::Start(handle),
            At::Stop | At::Kill | At::UntakenKill | At::CleanKill => Op::Stop(handle),
            At::Remove => Op::Remove(handle),
            _ => return None,
        })
    }

    /// Returns whether an engine may answer the next step in this way.
    pub(super) fn may_get(&self, reply: Reply) -> bool {
        match reply {
            Reply::Answered => true,
            Reply::Lost => matches!(
                self.at,
                At::Create
                    | At::StartCall
                    | At::Kill
                    | At::UntakenKill
                    | At::Stop
                    | At::CleanKill
                    | At::Remove
            ),
            Reply::Silent => matches!(
                self.at,
                At::Image
                    | At::Find
                    | At::Create
                    | At::Look
                    | At::StartLook
                    | At::StartCall
                    | At::HandOver
                    | At::Untaken
                    | At::CleanLook
                    | At::Remove
            ),
            Reply::Refused => matches!(self.at, At::Image | At::Create | At::StartCall),
        }
    }

    /// After an error of which nothing is known: the container is looked at again before anything is done.
    fn ask_again(&mut self) {
        self.known.container = match self.handle {
            Some(_) => Container::Handle,
            None => Container::NoHandle,
        };
        self.ended = None;
        self.at = At::Plan;
    }

    fn started(&mut self, state: &mut State) {
        self.has_workload = true;
        if state.world.transport == Transport::Attach {
            state.world.started = true;
        }
        self.at = if self.known.state < AttemptState::Running {
            At::Running
        } else {
            At::Follow
        };
    }

    fn plan(&mut self, state: &State, model: &Attempt) {
        self.known.agent = match state.world.started {
            true => Executed::Yes,
            false => Executed::No,
        };
        self.known.stop = match state.row.stop {
            Some(_) => Wanted::Yes,
            None => Wanted::No,
        };
        self.has_workload = false;
        self.at = match ((model.plan)(&self.known), self.handle) {
            (Next::EnsureImage, _) => At::Pulling,
            (Next::Find, _) => At::Find,
            (Next::Create, _) => At::Create,
            (Next::Look, Some(_)) => At::Look,
            (Next::Kill, Some(_)) => At::KillBegin,
            (Next::Start, Some(_)) => At::StartLook,
            (Next::Collect(End::Stopped), _) => At::Collect(Ended::NeverStarted),
            (Next::Collect(End::Exited), _) if self.ended.is_some() => {
                self.has_workload = true;
                self.ended
                    .map_or(At::Plan, |how| At::Collect(Ended::Exited(how)))
            }
            (Next::Collect(End::Gone | End::Exited) | Next::Look | Next::Kill | Next::Start, _) => {
                At::Collect(Ended::Gone)
            }
        };
    }
}

/// Takes the next step of a process; `None` if it has none now, or the step cannot end like this.
pub(super) fn step(
    state: &mut State,
    mut driver: Driver,
    reply: Reply,
    model: &Attempt,
) -> Option<Process> {
    if !driver.may_get(reply) {
        return None;
    }
    let answer = match (driver.op(), reply) {
        (Some(op), Reply::Answered | Reply::Lost) => {
            if let Op::Start(id) = op
                && driver.known.stop == Wanted::Yes
                && state.world.phase_of(id) == Phase::Created
            {
                state.see(Seen::StartedAgainstStop);
            }
            match state.apply(op, driver.generation) {
                Ok(answer) => answer,
                Err(_) => {
                    state.see(Seen::WriteDenied);
                    return Some(Process::Off);
                }
            }
        }
        (Some(_) | None, _) => Answer::Done,
    };
    match reply {
        Reply::Answered => {}
        Reply::Lost | Reply::Silent => {
            match driver.at {
                At::Stop => {}
                At::CleanKill | At::CleanLook | At::Remove => return Some(Process::Off),
                At::HandOver => return timed_out(state, driver),
                _ => driver.ask_again(),
            }
            return Some(Process::On(driver));
        }
        Reply::Refused => {
            // With a container there, it is found.
            if driver.at == At::Create && state.world.phase != Phase::Absent {
                return None;
            }
            driver.at = At::Collect(Ended::NeverStarted);
            return Some(Process::On(driver));
        }
    }
    match driver.at {
        At::TakeOver => {
            driver.generation = state.row.take_over();
            driver.at = At::ReadRow;
        }
        At::ReadRow => {
            driver.known.state = state.row.state;
            driver.handle = state.row.handle;
            driver.ask_again();
            match state.row.state {
                AttemptState::Queued => driver.at = At::Preparing,
                AttemptState::Finished => driver.at = At::CleanUp,
                _ => {}
            }
        }
        At::Preparing => driver.at = At::Plan,
        At::Plan => driver.plan(state, model),
        At::Pulling => {
            driver.known.state = AttemptState::Pulling;
            driver.at = At::Image;
        }
        At::Image => driver.at = At::Creating,
        At::Creating => {
            driver.known.state = AttemptState::Creating;
            driver.at = At::Plan;
        }
        At::Find => {
            driver.known.container = match state.world.phase {
                Phase::Absent => Container::NotMade,
                _ => Container::Made,
            };
            driver.at = At::Plan;
        }
        At::Create => {
            if let Answer::Made(id) = answer {
                driver.at = At::Starting(id);
            }
        }
        At::Starting(id) => {
            driver.known.state = AttemptState::Starting;
            driver.known.container = Container::Created;
            driver.handle = Some(id);
            driver.at = At::Plan;
        }
        At::Look => {
            driver.ended = None;
            driver.known.container = match state.phase_of(driver.handle) {
                Phase::Absent => Container::Gone,
                Phase::Created => Container::Created,
                Phase::Running(_) => Container::Running,
                Phase::Ended(how) => {
                    driver.ended = Some(how);
                    Container::Ended
                }
            };
            driver.at = At::Plan;
        }
        At::StartLook => start_look(state, &mut driver, model),
        At::StartCall => match (answer, state.world.transport) {
            (Answer::NoSuchContainer, _) => driver.at = At::NoSuch,
            (_, Transport::Attach) => driver.started(state),
            (_, Transport::Spool) => driver.at = At::HandOver,
        },
        At::HandOver => return hand_over(state, driver, model),
        At::KillBegin => driver.at = At::Kill,
        At::Kill => driver.ask_again(),
        At::Untaken => untaken(state, &mut driver),
        At::UntakenKill => match state.world.started {
            true => driver.started(state),
            false => driver.at = At::Collect(Ended::NeverStarted),
        },
        At::NoSuch => {
            let ran = state.world.started
                || state.row.state >= AttemptState::Running
                || state.world.transport == Transport::Attach
                    && driver.known.container != Container::Created;
            driver.at = At::Collect(match ran {
                true => Ended::Gone,
                false => Ended::NeverStarted,
            });
        }
        At::Running => driver.at = At::Follow,
        At::Follow => follow(state, &mut driver)?,
        At::BeginStop => driver.at = At::Stop,
        At::Stop => driver.at = At::Follow,
        At::Collecting(end) => driver.at = At::Collect(end),
        At::Collect(end) => {
            let collected = Collected {
                started: state.world.started,
                record: state.world.record,
            };
            driver.at = At::Report(end, collected);
        }
        At::Report(end, collected) => {
            driver.handle = state.row.handle;
            driver.at = At::Finish(decide(state, end, collected));
        }
        At::Finish(_) => driver.at = At::CleanUp,
        At::CleanUp => {
            let is_ours = state.world.phase != Phase::Absent;
            driver.at = match (state.world.transport, driver.handle) {
                (Transport::Attach, _) if !is_ours => At::MarkRemoved,
                (_, Some(_)) if driver.has_workload => At::Remove,
                (_, Some(_)) => At::CleanLook,
                (_, None) => At::MarkRemoved,
            };
        }
        At::CleanLook => {
            driver.at = match state.phase_of(driver.handle) {
                Phase::Absent => At::MarkRemoved,
                Phase::Created | Phase::Ended(_) => At::Remove,
                Phase::Running(_) => At::CleanKill,
            };
        }
        At::CleanKill => driver.at = At::Remove,
        At::Remove if answer == Answer::Conflict => return Some(Process::Off),
        At::Remove => driver.at = At::MarkRemoved,
        At::MarkRemoved => return Some(Process::Off),
    }
    Some(Process::On(driver))
}

fn start_look(state: &mut State, driver: &mut Driver, model: &Attempt) {
    let phase = state.phase_of(driver.handle);
    let is_started = state.world.started && model.guard == Guard::Kept;
    match (state.world.transport, phase, is_started) {
        (_, Phase::Absent, _) => driver.at = At::NoSuch,
        (Transport::Attach, Phase::Created, _) | (Transport::Spool, Phase::Created, false) => {
            driver.at = At::StartCall;
        }
        (Transport::Attach, Phase::Running(_) | Phase::Ended(_), _)
        | (Transport::Spool, Phase::Running(_) | Phase::Ended(_), true) => driver.started(state),
        (Transport::Spool, Phase::Running(_), false) => driver.at = At::HandOver,
        (Transport::Spool, Phase::Ended(_), false) | (Transport::Spool, Phase::Created, true) => {
            driver.at = At::Untaken;
        }
    }
}

fn hand_over(state: &mut State, mut driver: Driver, model: &Attempt) -> Option<Process> {
    match state.phase_of(driver.handle) {
        Phase::Running(Inside::Waiting)
            if !state.world.started || model.guard == Guard::Dropped =>
        {
            if driver.known.stop == Wanted::Yes {
                state.see(Seen::StartedAgainstStop);
            }
            state.world.phase = Phase::Running(Inside::Given);
            driver.started(state);
            Some(Process::On(driver))
        }
        // An earlier supervisor gave it one, and it has not said so yet.
        Phase::Running(Inside::Given) => None,
        Phase::Absent => {
            driver.at = At::NoSuch;
            Some(Process::On(driver))
        }
        Phase::Created | Phase::Running(_) | Phase::Ended(_) => timed_out(state, driver),
    }
}

fn timed_out(state: &mut State, mut driver: Driver) -> Option<Process> {
    match state.world.started {
        true => driver.started(state),
        false => driver.at = At::Untaken,
    }
    Some(Process::On(driver))
}

fn untaken(state: &mut State, driver: &mut Driver) {
    driver.at = match (state.phase_of(driver.handle), state.world.started) {
        (Phase::Ended(how), _) => {
            driver.has_workload = true;
            At::Collect(Ended::Exited(how))
        }
        (Phase::Running(_), true) => return driver.started(state),
        (Phase::Running(_), false) => At::UntakenKill,
        (Phase::Absent, true) => At::Collect(Ended::Gone),
        (Phase::Created, true) => {
            driver.has_workload = true;
            At::Collect(Ended::Gone)
        }
        (Phase::Created | Phase::Absent, false) => At::Collect(Ended::NeverStarted),
    };
}

fn follow(state: &mut State, driver: &mut Driver) -> Option<()> {
    driver.at = match state.phase_of(driver.handle) {
        Phase::Ended(how) => {
            if state.world.transport == Transport::Attach {
                state.world.record = Some(how);
            }
            At::Collecting(Ended::Exited(how))
        }
        Phase::Absent | Phase::Created => At::Collecting(Ended::Gone),
        _ if state.row.stop.is_some() && !driver.is_stopping => {
            driver.is_stopping = true;
            At::BeginStop
        }
        Phase::Running(_) => return None,
    };
    Some(())
}

/// Decides the outcome with the real rules.
fn decide(state: &State, end: Ended, collected: Collected) -> Told {
    let engine = match end {
        Ended::Exited(how) => EngineEnd::Exited(EngineExit {
            code: code(how).into(),
            oom_killed: OomSeen::No,
            error: None,
            ended_by: EndedBy::Unknown,
        }),
        Ended::Gone => EngineEnd::Gone,
        Ended::NeverStarted => EngineEnd::NeverStarted("never started".to_owned()),
    };
    let record = collected.record.map(|how| exit_record(state, how));
    let request = state.row.stop.map(|_| StopRequest {
        reason: StopReason::Cancelled {
            by: "somebody".to_owned(),
        },
        grace: None,
        sent: match state.row.sent {
            true => Sent::Yes,
            false => Sent::No,
        },
    });
    let limits = Limits::default();
    let facts = Facts {
        engine: &engine,
        record: record.as_ref(),
        exec_failed: None,
        damage: None,
        started: match collected.started {
            true => Started::Yes,
            false => Started::No,
        },
        transport: state.world.transport,
        limits: &limits,
    };
    let outcome = facts.outcome(&Verdict::Silent, request.as_ref(), Proof::ExitCode);
    Told {
        kind: outcome.kind,
        never_started: facts.exit().status == dark_factory_types::ExitStatus::NeverStarted,
    }
}

fn exit_record(state: &State, how: How) -> ExitRecord {
    let is_signal = how == How::Signalled && state.world.transport == Transport::Spool;
    ExitRecord {
        end: match is_signal {
            true => RecordedEnd::Signal(15),
            false => RecordedEnd::Code(code(how)),
        },
        totals: [0; 2],
        eof: [true; 2],
        user_us: 0,
        system_us: 0,
        max_rss: 0,
        peak_memory: None,
        oom_kills: None,
        leftovers: 0,
        intervention: is_signal.then_some(Intervention::Signal(15)),
    }
}

fn code(how: How) -> i32 {
    match how {
        How::Itself => 0,
        How::Signalled => 143,
        How::Killed => 137,
        How::Unsupervised => EXIT_NO_SUPERVISOR,
    }
}
