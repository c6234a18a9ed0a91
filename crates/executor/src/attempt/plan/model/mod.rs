//! Explores every state that an attempt can get into, with two processes, crashes, lost answers and people who meddle.
//!
//! Owns: the bounds of the exploration, and what must hold in each state.
//! Reads: the real `plan::next`, transition table and outcome rules.
//! Never: waits, or talks to an engine.

mod end;
mod launch;
mod process;
mod reply;
mod rules;
mod state;
mod tests;
mod world;

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use dark_factory_types::{OutcomeKind, Transport};
use stateright::{Model, Property};

use super::{Known, Next};
use crate::store::AttemptState;
use crate::store::reference::Row;
use process::{At, Driver, Process};
use reply::{Reply, TROUBLES};
use rules::{Killing, LeaseRule, Rules};
use state::{Faults, Late, Requester, Seen, State};
use world::{Inside, Phase, World};

/// How many steps bring any attempt to its end if nothing fails: more than there are in the longest way.
const STEPS_TO_THE_END: usize = 60;

/// The model of an attempt.
#[derive(Debug)]
struct Attempt {
    plan: fn(&Known) -> Next,
    transport: Transport,
    faults: Faults,
    sends: Sends,
    rules: Rules,
    /// States that are known to come to their end.
    ends: Mutex<HashSet<State>>,
}

/// What a process that dies, or is told to kill, may have sent, to arrive after something else was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sends {
    Nothing,
    Writes,
    WritesAndCalls,
    CreatesToo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// A process begins to supervise.
    Begin(usize),
    Step(usize, Reply),
    /// A process dies before its next step.
    Crash(usize),
    /// A process dies, and what it has sent arrives some time later.
    CrashInFlight(usize),
    /// Whoever waits for the run has it killed before its container is followed.
    Kill(usize),
    /// The same, and what was just sent arrives some time later.
    KillInFlight(usize),
    Arrive,
    /// The helper or the agent does what is next.
    GoOn,
    AskToStop,
    /// Whoever asked stops the container, because no supervisor does.
    StopForSupervisor,
    RemoveByForce,
    EngineRestarts,
    EngineForgetsStart,
}

impl Model for Attempt {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let state = |row, process| State {
            row: Row::new(row),
            world: World::new(self.transport),
            processes: [process, Process::Off],
            requester: Requester::Idle,
            late: None,
            left: self.faults,
            seen: None,
            late_write_was_denied: false,
        };
        let first = Process::On(Driver::new(At::ReadRow, self.transport));
        vec![
            state(AttemptState::Preparing, first),
            state(AttemptState::Queued, Process::Off),
        ]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (index, process) in state.processes.iter().enumerate() {
            match process {
                Process::Off => actions.push(Action::Begin(index)),
                Process::On(driver) => {
                    actions.push(Action::Step(index, Reply::Answered));
                    if state.left.troubles > 0 {
                        let replies = TROUBLES.into_iter();
                        let replies = replies.filter(|reply| driver.may_get(*reply, self));
                        actions.extend(replies.map(|reply| Action::Step(index, reply)));
                    }
                    if state.left.crashes > 0 {
                        actions.extend([Action::Crash(index), Action::CrashInFlight(index)]);
                    }
                    if state.left.kills > 0 {
                        actions.extend([Action::Kill(index), Action::KillInFlight(index)]);
                    }
                }
            }
        }
        actions.extend([
            Action::Arrive,
            Action::GoOn,
            Action::AskToStop,
            Action::StopForSupervisor,
        ]);
        if state.left.blows > 0 {
            actions.extend([
                Action::RemoveByForce,
                Action::EngineRestarts,
                Action::EngineForgetsStart,
            ]);
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        // Behind the first thing that must not be, there is nothing to be learnt.
        if before.seen.is_some() || (before.row.removed && before.late.is_none()) {
            return None;
        }
        let mut state = *before;
        match action {
            Action::Begin(index) => self.begin(&mut state, index)?,
            Action::Step(index, reply) => {
                let Process::On(driver) = state.processes[index] else {
                    return None;
                };
                if reply != Reply::Answered {
                    state.left.troubles = state.left.troubles.checked_sub(1)?;
                }
                state.processes[index] = process::step(&mut state, driver, reply, self)?;
            }
            Action::Crash(index) => {
                state.left.crashes = state.left.crashes.checked_sub(1)?;
                state.processes[index] = Process::Off;
            }
            Action::CrashInFlight(index) => {
                state.left.crashes = state.left.crashes.checked_sub(1)?;
                self.leave_in_flight(&mut state, index)?;
                state.processes[index] = Process::Off;
            }
            Action::Kill(index) => self.kill(&mut state, index)?,
            Action::KillInFlight(index) => {
                self.leave_in_flight(&mut state, index)?;
                self.kill(&mut state, index)?;
            }
            Action::Arrive => arrive(&mut state)?,
            Action::GoOn => go_on(&mut state)?,
            Action::AskToStop => {
                if state.requester != Requester::Idle {
                    return None;
                }
                state.requester = match state.row.request_stop(1, None) {
                    Some(_) => Requester::Asked,
                    None => Requester::Done,
                };
            }
            Action::StopForSupervisor => stop_for_supervisor(&mut state)?,
            Action::RemoveByForce => {
                if state.world.phase == Phase::Absent {
                    return None;
                }
                state.left.blows = state.left.blows.checked_sub(1)?;
                state.world.remove_by_force();
            }
            Action::EngineRestarts => {
                let Phase::Running(_) = state.world.phase else {
                    return None;
                };
                state.left.blows = state.left.blows.checked_sub(1)?;
                state.world.end_with(world::How::Killed);
            }
            Action::EngineForgetsStart => self.forget_start(&mut state)?,
        }
        state.compare(before);
        for process in &mut state.processes {
            if let Process::On(driver) = process {
                driver.forget();
            }
        }
        // The two are alike, so that only one order of them need be explored.
        if state.processes[0] == Process::Off {
            state.processes.swap(0, 1);
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("the agent is executed at most once", |_, state: &State| {
                state.seen != Some(Seen::SecondExecution)
            }),
            Property::always(
                "no container is made after the agent ran",
                |_, state: &State| state.seen != Some(Seen::MadeAgain),
            ),
            Property::always(
                "no write of a living process is denied",
                |_, state: &State| state.seen != Some(Seen::WriteDenied),
            ),
            Property::always(
                "no write of an old generation is kept",
                |_, state: &State| state.seen != Some(Seen::OldWrite),
            ),
            Property::always("a recorded outcome stays", |_, state: &State| {
                state.seen != Some(Seen::OutcomeChanged)
            }),
            Property::always(
                "nothing is removed before the outcome",
                |_, state: &State| state.seen != Some(Seen::RemovedEarly),
            ),
            Property::always(
                "what is to be stopped is not started",
                |_, state: &State| state.seen != Some(Seen::StartedAgainstStop),
            ),
            Property::always("the outcome is what happened", |_, state: &State| {
                state.seen != Some(Seen::UntrueOutcome)
            }),
            Property::always(
                "no agent is executed after its outcome",
                |_, state: &State| state.seen != Some(Seen::ExecutedAfterOutcome),
            ),
            Property::always("what is marked as removed is gone", |_, state: &State| {
                state.seen != Some(Seen::LeftBehind)
            }),
            Property::always(
                "a new process brings it to its end",
                |model: &Self, state: &State| {
                    let mut state = *state;
                    state.processes = [Process::Off; 2];
                    model.comes_to_its_end(state)
                },
            ),
            Property::always(
                "a living process brings it to its end",
                |model: &Self, state: &State| {
                    !state.is_supervised() || model.comes_to_its_end(*state)
                },
            ),
        ];
        // Otherwise the exploration would not have been where it matters.
        properties.extend([
            Property::sometimes("succeeded", |_, state: &State| {
                is_finished_as(state, OutcomeKind::Succeeded)
            }),
            Property::sometimes("cancelled", |_, state: &State| {
                is_finished_as(state, OutcomeKind::Cancelled)
            }),
        ]);
        if self.faults.troubles > 0 {
            properties.push(Property::sometimes("start failed", |_, state: &State| {
                is_finished_as(state, OutcomeKind::StartFailed)
            }));
        }
        if self.faults.blows > 0 {
            properties.extend([
                Property::sometimes("lost", |_, state: &State| {
                    is_finished_as(state, OutcomeKind::Lost)
                }),
                Property::sometimes("killed", |_, state: &State| {
                    is_finished_as(state, OutcomeKind::Killed)
                }),
            ]);
        }
        if self.sends != Sends::Nothing && self.faults.crashes + self.faults.kills > 0 {
            properties.push(Property::sometimes(
                "a late write is denied",
                |_, state: &State| state.late_write_was_denied,
            ));
        }
        properties
    }
}

impl Attempt {
    fn begin(&self, state: &mut State, index: usize) -> Option<()> {
        let is_held = state.is_supervised() && self.rules.lease == LeaseRule::Kept;
        if is_held || state.row.removed || state.processes[index] != Process::Off {
            return None;
        }
        state.processes[index] = Process::On(Driver::new(At::TakeOver, self.transport));
        Some(())
    }

    fn kill(&self, state: &mut State, index: usize) -> Option<()> {
        let Process::On(driver) = &mut state.processes[index] else {
            return None;
        };
        if !driver.is_launching() {
            return None;
        }
        state.left.kills = state.left.kills.checked_sub(1)?;
        driver.at = match self.rules.killing {
            Killing::TakesOver => At::KillTakeOver,
            Killing::KeepsGeneration => At::KillRequest,
        };
        Some(())
    }

    /// Leaves what a process has just sent on its way.
    fn leave_in_flight(&self, state: &mut State, index: usize) -> Option<()> {
        let Process::On(driver) = state.processes[index] else {
            return None;
        };
        let op = driver.op()?;
        let is_sent = match self.sends {
            Sends::Nothing => false,
            Sends::Writes => op.is_write(),
            // One that is made late is left behind if the run was stopped meanwhile: `prune` removes it.
            Sends::WritesAndCalls => op != state::Op::Create,
            Sends::CreatesToo => true,
        };
        if state.late.is_some() || !is_sent {
            return None;
        }
        state.late = Some(Late {
            generation: driver.generation,
            op,
        });
        Some(())
    }

    /// Only with a helper: without one, nobody but the engine knows of the start that it forgets.
    fn forget_start(&self, state: &mut State) -> Option<()> {
        let Phase::Running(_) = state.world.phase else {
            return None;
        };
        if self.transport == Transport::Attach {
            return None;
        }
        state.left.blows = state.left.blows.checked_sub(1)?;
        state.world.forget_start();
        Some(())
    }

    /// Returns whether, if nothing fails any more, there is an outcome at last and nothing left on the engine.
    fn comes_to_its_end(&self, mut state: State) -> bool {
        // What went wrong before is told by another property.
        if state.seen.is_some() {
            return true;
        }
        // Nobody else does anything, and nothing fails: that they could makes no difference.
        state.late = None;
        state.late_write_was_denied = false;
        state.requester = Requester::Done;
        state.left = Faults::default();
        let mut way = Vec::new();
        for _ in 0..STEPS_TO_THE_END {
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            if ends.contains(&state)
                || state.row.removed
                    && state.row.report.is_some()
                    && state.world.phase == Phase::Absent
            {
                ends.extend(way);
                return true;
            }
            drop(ends);
            way.push(state);
            let actions = [
                Action::Step(0, Reply::Answered),
                Action::Begin(0),
                Action::GoOn,
            ];
            let next = actions
                .into_iter()
                .find_map(|action| self.next_state(&state, action));
            match next {
                Some(next) => state = next,
                None => return false,
            }
        }
        false
    }
}

fn is_finished_as(state: &State, kind: OutcomeKind) -> bool {
    state.row.removed && state.row.report.is_some_and(|told| told.kind == kind)
}

fn arrive(state: &mut State) -> Option<()> {
    let late = state.late.take()?;
    let is_old = late.generation != state.row.generation;
    let row = state.row;
    match state.apply(late.op, late.generation) {
        Err(_) => state.late_write_was_denied = true,
        Ok(_) if is_old && !late.op.is_for_all() && state.row != row => {
            state.see(Seen::OldWrite);
        }
        Ok(_) => {}
    }
    Some(())
}

fn go_on(state: &mut State) -> Option<()> {
    match state.world.phase {
        // It gives up after a minute, and not while somebody is about to hand over.
        Phase::Running(Inside::Waiting) if state.is_about_to_hand_over() => return None,
        Phase::Running(_) => state.world.go_on(),
        Phase::Absent | Phase::Created | Phase::Ended(_) => return None,
    }
    Some(())
}

fn stop_for_supervisor(state: &mut State) -> Option<()> {
    state.requester = match (state.requester, state.row.handle) {
        (Requester::Asked, Some(id))
            if matches!(
                state.row.state,
                AttemptState::Starting | AttemptState::Running
            ) && matches!(state.world.phase_of(id), Phase::Running(_)) =>
        {
            Requester::FoundRunning(id)
        }
        (Requester::FoundRunning(id), _) => {
            state.row.begin_stop();
            Requester::Begun(id)
        }
        (Requester::Begun(id), _) => {
            state.world.stop(id);
            Requester::Done
        }
        _ => return None,
    };
    Some(())
}
