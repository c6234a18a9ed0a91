//! The steps of `watch.rs` and `finish.rs`: from a running container to one that is removed.
//!
//! Owns: what a process does once its container is followed, or has ended.
//! Reads: the row and the world, where the real process does.
//! Never: decides an outcome: the real rules do.

use dark_factory_spool::{EXIT_NO_SUPERVISOR, End as RecordedEnd, ExitRecord, Intervention};
use dark_factory_types::{ExitStatus, Proof, StopReason, Transport, Verdict};

use super::Attempt;
use super::launch;
use super::process::{Asker, At, Collected, Driver, Ended, Process, Removal, Told};
use super::rules::Cleaning;
use super::state::State;
use super::world::{Answer, How, Phase};
use crate::attempt::facts::{EngineEnd, Facts, Started};
use crate::engine::{EndedBy, EngineExit, OomSeen};
use crate::spec::Limits;
use crate::store::{Sent, StopRequest};

/// Takes a step that was answered.
pub(super) fn step(
    state: &mut State,
    mut driver: Driver,
    answer: Answer,
    model: &Attempt,
) -> Option<Process> {
    driver.at = match driver.at {
        At::Follow => follow(state, &mut driver)?,
        At::FollowLook => match state.phase_of(driver.handle) {
            Phase::Running(_) | Phase::Ended(_) => At::Follow,
            Phase::Created => At::Collecting(Ended::Gone),
            Phase::Absent => At::List(Asker::Watch),
        },
        At::BeginStop => At::Stop,
        At::Stop => At::Follow,
        At::Collecting(end) => At::Collect(end),
        At::Collect(end) => {
            let collected = Collected {
                started: state.world.started,
                record: state.world.record,
            };
            At::Report(end, collected)
        }
        At::Report(end, collected) => {
            driver.handle = state.row.handle;
            // One that was gone for a wait may be there all the same.
            driver.has_workload &= end != Ended::Gone;
            match decide(state, end, collected) {
                (told, true) if driver.has_workload => At::RemoveFirst(told),
                (told, _) => At::Finish(told, Removal::Later),
            }
        }
        At::RemoveFirst(told) if answer == Answer::Conflict => At::Finish(told, Removal::Failed),
        At::RemoveFirst(told) => At::Finish(told, Removal::Done),
        At::Finish(_, Removal::Later) => At::CleanUp,
        At::Finish(_, Removal::Done) => At::MarkRemoved,
        At::CleanUp => match (state.world.transport, driver.handle) {
            (_, None) => At::CleanFind,
            (Transport::Attach, _) if !state.is_listed() => At::MarkRemoved,
            (_, Some(_)) if driver.has_workload => At::Remove,
            (_, Some(_)) => At::CleanLook,
        },
        At::CleanFind if state.is_listed() && model.rules.cleaning == Cleaning::WhatIsListed => {
            driver.handle = Some(state.world.made);
            At::CleanKill
        }
        At::CleanFind => At::MarkRemoved,
        At::CleanLook => match state.phase_of(driver.handle) {
            Phase::Absent => At::List(Asker::Clean),
            Phase::Created | Phase::Ended(_) => At::Remove,
            Phase::Running(_) => At::CleanKill,
        },
        // It stays for the next `recover` if the engine lists it.
        At::List(Asker::Clean) if !launch::is_listed_too(state, model) => At::MarkRemoved,
        At::CleanKill => At::Remove,
        At::Remove if answer != Answer::Conflict => At::MarkRemoved,
        _ => return Some(Process::Off),
    };
    Some(Process::On(driver))
}

/// Waits for the container's end, or does what is asked for meanwhile.
fn follow(state: &mut State, driver: &mut Driver) -> Option<At> {
    Some(match state.phase_of(driver.handle) {
        Phase::Ended(how) => {
            if state.world.transport == Transport::Attach {
                state.world.record = Some(how);
            }
            At::Collecting(Ended::Exited(how))
        }
        Phase::Absent | Phase::Created => At::FollowLook,
        Phase::Running(_) if state.row.stop.is_some() && !driver.is_stopping => {
            driver.is_stopping = true;
            At::BeginStop
        }
        Phase::Running(_) => return None,
    })
}

/// Decides the outcome with the real rules; returns whether the files alone tell it.
fn decide(state: &State, end: Ended, collected: Collected) -> (Told, bool) {
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
        stop_signal: "SIGTERM",
    };
    let (verdict, proof) = (Verdict::Silent, Proof::ExitCode);
    let told = Told {
        kind: facts.outcome(&verdict, request.as_ref(), proof).kind,
        never_started: facts.exit().status == ExitStatus::NeverStarted,
    };
    (
        told,
        facts.are_on_the_disk(&verdict, request.as_ref(), proof),
    )
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
        oom_victim: None,
        leftovers: 0,
        intervention: is_signal.then_some(Intervention::Signal(15)),
        intervention_age_ms: 0,
        signals: u64::from(is_signal) << 15,
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
