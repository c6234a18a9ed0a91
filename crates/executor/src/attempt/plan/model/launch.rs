//! The steps of `drive.rs` to a running container.
//!
//! Owns: what a process does until its container is followed, and what a step that failed comes to.
//! Reads: the row and the world, where the real process does.
//! Never: decides what comes next: that is the real `plan::next`.

use dark_factory_types::Transport;

use super::Attempt;
use super::process::{Asker, At, Driver, Ended, Process, Removal};
use super::rules::{GivingUp, Guard, Memory, Trust};
use super::state::{Seen, State};
use super::world::{Answer, Inside, Phase};
use crate::attempt::plan::{Container, End, Executed, Next, Wanted};
use crate::store::AttemptState;

/// Takes a step that was answered; `None` if it has to wait.
pub(super) fn step(
    state: &mut State,
    mut driver: Driver,
    answer: Answer,
    model: &Attempt,
) -> Option<Process> {
    match driver.at {
        At::TakeOver => {
            driver.generation = state.row.take_over();
            driver.at = At::ReadRow;
        }
        At::KillTakeOver => {
            driver.generation = state.row.take_over();
            driver.at = At::KillRequest;
        }
        At::KillRequest if model.rules.memory == Memory::Nothing => {
            driver.known.state = AttemptState::Preparing;
            driver.handle = None;
            driver.ask_again();
        }
        At::KillRequest => driver.at = At::ReadRow,
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
        At::Plan => plan(state, &mut driver, model),
        At::Pulling => {
            driver.known.state = AttemptState::Pulling;
            driver.at = At::Image;
        }
        // A pull is given up for a stop.
        At::Image if state.row.stop.is_some() => driver.at = At::Plan,
        At::Image => driver.at = At::Creating,
        At::Creating => {
            driver.known.state = AttemptState::Creating;
            driver.at = At::Plan;
        }
        At::Find => {
            driver.known.container = match state.is_listed() {
                true => Container::Made,
                false => Container::NotMade,
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
        At::Look => look(state, &mut driver),
        At::List(asker) => driver.at = list(state, &mut driver, asker, model),
        At::StartLook => start_look(state, &mut driver, model),
        At::StartCall => match (answer, state.world.transport) {
            (Answer::NoSuchContainer, _) => driver.at = At::NoSuchLook,
            (_, Transport::Attach) => started(state, &mut driver),
            (_, Transport::Spool) => driver.at = At::HandOver,
        },
        At::HandOver => return hand_over(state, driver, model),
        At::KillBegin => driver.at = At::Kill,
        At::Kill => driver.ask_again(),
        At::Untaken => untaken(state, &mut driver),
        At::UntakenKill => untaken_killed(state, &mut driver),
        At::NoSuchLook => match state.phase_of(driver.handle) {
            Phase::Absent => driver.at = At::List(Asker::Start),
            _ => driver.ask_again(),
        },
        At::NoSuch => driver.at = no_such(state, &driver),
        At::Exit => exit(state, &mut driver)?,
        At::Running => driver.at = At::Follow,
        _ => return None,
    }
    Some(Process::On(driver))
}

/// Plans the next step from what is known.
fn plan(state: &State, driver: &mut Driver, model: &Attempt) {
    driver.known.agent = match state.world.started {
        true => Executed::Yes,
        false => Executed::No,
    };
    driver.known.stop = match state.row.stop {
        Some(_) => Wanted::Yes,
        None => Wanted::No,
    };
    driver.has_workload = false;
    driver.at = match ((model.plan)(&driver.known), driver.handle) {
        (Next::EnsureImage, _) => At::Pulling,
        (Next::Find, _) => At::Find,
        (Next::Create, _) => At::Create,
        (Next::Look, Some(_)) => At::Look,
        (Next::Kill, Some(_)) => At::KillBegin,
        (Next::Start, Some(_)) => At::StartLook,
        (Next::Collect(End::Stopped), _) => At::Collect(Ended::NeverStarted),
        (Next::Collect(End::Exited), _) if driver.ended.is_some() => {
            driver.has_workload = true;
            driver
                .ended
                .map_or(At::Plan, |how| At::Collect(Ended::Exited(how)))
        }
        (Next::Collect(End::Gone | End::Exited) | Next::Look | Next::Kill | Next::Start, _) => {
            At::Collect(Ended::Gone)
        }
    };
}

/// Asks what became of the container.
fn look(state: &State, driver: &mut Driver) {
    driver.ended = None;
    driver.known.container = match state.phase_of(driver.handle) {
        Phase::Absent => return driver.at = At::List(Asker::Launch),
        Phase::Created => Container::Created,
        Phase::Running(_) => Container::Running,
        Phase::Ended(how) => {
            driver.ended = Some(how);
            Container::Ended
        }
    };
    driver.at = At::Plan;
}

/// Asks in another way whether a container is gone; one that is listed is looked at once more.
fn list(state: &State, driver: &mut Driver, asker: Asker, model: &Attempt) -> At {
    match (asker, is_listed_too(state, model)) {
        (Asker::Watch, true) => At::FollowLook,
        (Asker::Watch, false) => At::Collecting(Ended::Gone),
        (Asker::Launch | Asker::Start | Asker::Untaken, true) => {
            driver.ask_again();
            driver.at
        }
        (Asker::Launch, false) => {
            driver.known.container = Container::Gone;
            At::Plan
        }
        (Asker::Start, false) => At::NoSuch,
        (Asker::Untaken, false) => untaken_gone(state),
        // The end takes this step.
        (Asker::Clean, _) => At::List(asker),
    }
}

/// Returns whether the engine lists a container that it said it does not know, if that is asked at all.
pub(super) fn is_listed_too(state: &State, model: &Attempt) -> bool {
    state.is_listed() && model.rules.trust != Trust::OnceByLook
}

/// The engine's word that it does not know the container, which is there.
pub(super) fn denied(state: &mut State, mut driver: Driver, model: &Attempt) -> Option<Process> {
    driver.at = match driver.at {
        At::StartLook | At::StartCall | At::HandOver if model.rules.trust == Trust::OnceByStart => {
            At::NoSuch
        }
        At::Look => At::List(Asker::Launch),
        At::NoSuchLook => At::List(Asker::Start),
        At::FollowLook => At::List(Asker::Watch),
        At::StartLook | At::StartCall | At::HandOver => At::NoSuchLook,
        At::Follow => At::FollowLook,
        At::Untaken if model.rules.trust == Trust::OnceByUntaken => untaken_gone(state),
        At::Untaken => At::List(Asker::Untaken),
        At::CleanLook if model.rules.trust == Trust::OnceByCleaning => At::MarkRemoved,
        At::CleanLook => At::List(Asker::Clean),
        At::Exit | At::Kill => {
            driver.ask_again();
            driver.at
        }
        // What the engine does not know counts as stopped, or as removed.
        At::UntakenKill => {
            untaken_killed(state, &mut driver);
            driver.at
        }
        At::Stop => At::Follow,
        At::CleanKill => At::Remove,
        At::RemoveFirst(told) => At::Finish(told, Removal::Done),
        At::Remove => At::MarkRemoved,
        _ => return None,
    };
    Some(Process::On(driver))
}

/// Gives up on an engine that failed again and again.
pub(super) fn given_up(state: &State, mut driver: Driver, model: &Attempt) -> Process {
    let never_ran = driver.at == At::Create
        || model.rules.giving_up == GivingUp::Always
        || driver.known.container == Container::Created && !state.world.started;
    match never_ran {
        true => {
            driver.at = At::Collect(Ended::NeverStarted);
            Process::On(driver)
        }
        false => Process::Off,
    }
}

fn started(state: &mut State, driver: &mut Driver) {
    driver.has_workload = true;
    if state.world.transport == Transport::Attach {
        state.world.started = true;
    }
    driver.at = if driver.known.container == Container::Ended {
        At::Exit
    } else if driver.known.state < AttemptState::Running {
        At::Running
    } else {
        At::Follow
    };
}

/// Waits for the end of one that has ended, which is not watched.
fn exit(state: &mut State, driver: &mut Driver) -> Option<()> {
    match state.phase_of(driver.handle) {
        Phase::Ended(how) => {
            state.world.record = Some(how);
            driver.at = At::Collect(Ended::Exited(how));
        }
        Phase::Created | Phase::Absent => driver.ask_again(),
        Phase::Running(_) => return None,
    }
    Some(())
}

/// The engine does not know the container that was to be started, and said so twice.
fn no_such(state: &State, driver: &Driver) -> At {
    let ran = state.world.started
        || state.row.state >= AttemptState::Running
        || state.world.transport == Transport::Attach
            && driver.known.container != Container::Created;
    At::Collect(match ran {
        true => Ended::Gone,
        false => Ended::NeverStarted,
    })
}

fn start_look(state: &mut State, driver: &mut Driver, model: &Attempt) {
    let phase = state.phase_of(driver.handle);
    let is_started = state.world.started && model.rules.guard == Guard::Kept;
    match (state.world.transport, phase, is_started) {
        (_, Phase::Absent, _) => driver.at = At::NoSuchLook,
        (Transport::Attach, Phase::Created, _) | (Transport::Spool, Phase::Created, false) => {
            driver.at = At::StartCall;
        }
        (Transport::Attach, Phase::Running(_) | Phase::Ended(_), _)
        | (Transport::Spool, Phase::Running(_) | Phase::Ended(_), true) => started(state, driver),
        (Transport::Spool, Phase::Running(_), false) => driver.at = At::HandOver,
        (Transport::Spool, Phase::Ended(_), false) | (Transport::Spool, Phase::Created, true) => {
            driver.at = At::Untaken;
        }
    }
}

fn hand_over(state: &mut State, mut driver: Driver, model: &Attempt) -> Option<Process> {
    match state.phase_of(driver.handle) {
        Phase::Running(Inside::Waiting)
            if !state.world.started || model.rules.guard == Guard::Dropped =>
        {
            if driver.known.stop == Wanted::Yes {
                state.see(Seen::StartedAgainstStop);
            }
            state.world.phase = Phase::Running(Inside::Given);
            started(state, &mut driver);
            Some(Process::On(driver))
        }
        // An earlier supervisor gave it one, and it has not said so yet.
        Phase::Running(Inside::Given) => None,
        Phase::Absent => {
            driver.at = At::NoSuchLook;
            Some(Process::On(driver))
        }
        Phase::Created | Phase::Running(_) | Phase::Ended(_) => timed_out(state, driver),
    }
}

pub(super) fn timed_out(state: &mut State, mut driver: Driver) -> Option<Process> {
    match state.world.started {
        true => started(state, &mut driver),
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
        (Phase::Running(_), true) => return started(state, driver),
        (Phase::Running(_), false) => At::UntakenKill,
        (Phase::Absent, _) => At::List(Asker::Untaken),
        (Phase::Created, true) => {
            driver.has_workload = true;
            At::Collect(Ended::Gone)
        }
        (Phase::Created, false) => At::Collect(Ended::NeverStarted),
    };
}

fn untaken_killed(state: &mut State, driver: &mut Driver) {
    match state.world.started {
        true => started(state, driver),
        false => driver.at = At::Collect(Ended::NeverStarted),
    }
}

fn untaken_gone(state: &State) -> At {
    At::Collect(match state.world.started {
        true => Ended::Gone,
        false => Ended::NeverStarted,
    })
}
