//! The explorations: of the real machine, and of worse ones that must be seen to fail.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::rules::{Cleaning, Denials, GivingUp, Guard, Killing, Memory, Trust};
use super::*;
use crate::attempt::plan::{Container, End, Wanted, next};

fn attempt(transport: Transport, faults: [u8; 4]) -> Attempt {
    let [crashes, troubles, blows, kills] = faults;
    Attempt {
        plan: next,
        transport,
        faults: Faults {
            crashes,
            troubles,
            blows,
            kills,
        },
        sends: Sends::Nothing,
        rules: Rules::REAL,
        ends: Mutex::default(),
    }
}

/// Explores every state, and says how many that were.
fn explore(name: &str, model: Attempt) {
    let began = Instant::now();
    let checker = model
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    eprintln!(
        "{name}: {} states, up to {} steps deep, in {:.1?}",
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    checker.assert_properties();
}

/// Returns whether a worse machine is seen to break a promise.
#[track_caller]
fn breaks(property: &'static str, model: Attempt) {
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::AnyOf([property].into_iter().collect()))
        .spawn_bfs()
        .join();
    let found = checker.discovery(property);
    assert!(found.is_some(), "{property}: it still holds");
}

#[test]
fn with_a_helper_nothing_is_lost_and_nothing_runs_twice() {
    explore("with a helper", attempt(Transport::Spool, [2, 1, 1, 0]));
}

#[test]
fn without_a_helper_nothing_is_lost_and_nothing_runs_twice() {
    explore("without a helper", attempt(Transport::Attach, [2, 1, 1, 0]));
}

#[test]
fn a_write_that_arrives_after_its_process_was_replaced_changes_nothing() {
    for transport in [Transport::Spool, Transport::Attach] {
        let model = Attempt {
            sends: Sends::Writes,
            ..attempt(transport, [1, 0, 0, 0])
        };
        explore(&format!("late writes, {transport:?}"), model);
    }
}

#[test]
fn with_a_helper_a_start_that_arrives_after_its_process_was_replaced_runs_nothing_twice() {
    let model = Attempt {
        sends: Sends::WritesAndCalls,
        ..attempt(Transport::Spool, [2, 0, 0, 0])
    };
    explore("late calls", model);
}

#[test]
fn what_looks_into_the_spool_last_is_what_keeps_the_agent_from_running_twice() {
    let faults = [1, 0, 1, 0];
    let engine_alone = Attempt {
        plan: starts_what_ran,
        ..attempt(Transport::Spool, faults)
    };
    // What it knows of the container may be old.
    let plan_alone = Attempt {
        rules: Rules {
            guard: Guard::Dropped,
            ..Rules::REAL
        },
        ..attempt(Transport::Spool, faults)
    };

    explore("the engine looks alone", engine_alone);
    breaks("the agent is executed at most once", plan_alone);
}

/// A limit, not a promise: nothing but a helper can tell a start that arrives late from the one that is ours.
#[test]
fn without_a_helper_a_start_that_arrives_late_can_execute_the_agent_again() {
    let model = Attempt {
        sends: Sends::WritesAndCalls,
        ..attempt(Transport::Attach, [1, 0, 0, 0])
    };
    breaks("the agent is executed at most once", model);
}

#[test]
fn a_kill_before_the_container_is_followed_begins_anew_and_leaves_nothing() {
    for transport in [Transport::Spool, Transport::Attach] {
        for faults in [[1, 1, 0, 1], [0, 1, 1, 1]] {
            let model = attempt(transport, faults);
            explore(&format!("a kill, {transport:?}, {faults:?}"), model);
        }
        for faults in [[0, 0, 1, 1], [1, 0, 0, 1]] {
            let model = Attempt {
                sends: Sends::Writes,
                ..attempt(transport, faults)
            };
            explore(
                &format!("a kill and a late write, {transport:?}, {faults:?}"),
                model,
            );
        }
    }
}

#[test]
fn with_a_helper_a_call_that_a_kill_cut_off_runs_nothing_when_it_arrives() {
    let model = Attempt {
        sends: Sends::WritesAndCalls,
        ..attempt(Transport::Spool, [0, 0, 0, 1])
    };
    explore("a kill and a late call", model);
}

/// Limits, not promises: without a helper nothing keeps a start that arrives late from executing the agent, and a
/// container that is made late is left to `prune`.
#[test]
fn what_a_kill_cut_off_can_arrive_too_late_to_be_seen() {
    let start = Attempt {
        sends: Sends::WritesAndCalls,
        ..attempt(Transport::Attach, [0, 0, 0, 1])
    };
    let create = Attempt {
        sends: Sends::CreatesToo,
        ..attempt(Transport::Spool, [0, 0, 0, 1])
    };

    breaks("no agent is executed after its outcome", start);
    breaks("what is marked as removed is gone", create);
}

#[test]
fn that_a_container_is_gone_has_to_be_said_twice() {
    use Transport::{Attach, Spool};
    let untrue = "the outcome is what happened";
    let late = "no agent is executed after its outcome";
    let left = "what is marked as removed is gone";
    for (property, transport, trust, troubles) in [
        (untrue, Spool, Trust::OnceByLook, 1),
        (untrue, Attach, Trust::OnceByLook, 1),
        (untrue, Attach, Trust::OnceByStart, 1),
        (late, Spool, Trust::OnceByUntaken, 2),
        (left, Spool, Trust::OnceByCleaning, 1),
    ] {
        let model = Attempt {
            rules: Rules {
                trust,
                ..Rules::REAL
            },
            ..attempt(transport, [1, troubles, 0, 0])
        };
        breaks(property, model);
    }
}

#[test]
fn an_engine_that_denies_and_then_fails_leads_to_no_untrue_outcome() {
    explore("two troubles", attempt(Transport::Spool, [1, 2, 0, 0]));
}

#[test]
fn an_engine_that_fails_is_given_up_only_if_the_container_was_seen_never_to_have_started() {
    let model = Attempt {
        rules: Rules {
            giving_up: GivingUp::Always,
            ..Rules::REAL
        },
        ..attempt(Transport::Spool, [1, 1, 0, 0])
    };
    breaks("no agent is executed after its outcome", model);
}

#[test]
fn what_a_killed_process_goes_on_from_is_the_stored_row() {
    let model = Attempt {
        rules: Rules {
            memory: Memory::Nothing,
            ..Rules::REAL
        },
        ..attempt(Transport::Spool, [0, 0, 0, 1])
    };
    breaks("no agent is executed after its outcome", model);
}

/// Limits, not promises: an engine that does not know what it is to stop, or to remove, is believed at its first word.
#[test]
fn a_container_that_is_denied_to_a_stop_or_a_removal_is_left_alone() {
    for (property, faults) in [
        ("no agent is executed after its outcome", [1, 2, 0, 0]),
        ("what is marked as removed is gone", [0, 1, 0, 0]),
    ] {
        let model = Attempt {
            rules: Rules {
                denials: Denials::Anywhere,
                ..Rules::REAL
            },
            ..attempt(Transport::Spool, faults)
        };
        breaks(property, model);
    }
}

#[test]
fn a_new_generation_is_what_keeps_a_write_that_a_kill_cut_off_from_landing_late() {
    for (property, faults) in [
        ("no write of a living process is denied", [0, 0, 0, 1]),
        ("a new process brings it to its end", [0, 0, 1, 1]),
    ] {
        let model = Attempt {
            sends: Sends::Writes,
            rules: Rules {
                killing: Killing::KeepsGeneration,
                ..Rules::REAL
            },
            ..attempt(Transport::Spool, faults)
        };
        breaks(property, model);
    }
}

#[test]
fn a_container_that_nobody_heard_of_is_looked_for_at_the_end() {
    let faults = [1, 1, 0, 0];
    let plan_alone = Attempt {
        rules: Rules {
            cleaning: Cleaning::ByHandle,
            ..Rules::REAL
        },
        ..attempt(Transport::Spool, faults)
    };
    let cleaning_alone = Attempt {
        plan: looks_for_nothing,
        ..attempt(Transport::Spool, faults)
    };

    breaks("what is marked as removed is gone", plan_alone);
    explore("only the end looks", cleaning_alone);
}

#[test]
fn the_lease_is_what_keeps_two_processes_apart() {
    let model = Attempt {
        rules: Rules {
            lease: LeaseRule::Ignored,
            ..Rules::REAL
        },
        ..attempt(Transport::Spool, [0, 0, 0, 0])
    };
    breaks("no write of a living process is denied", model);
}

#[test]
fn a_worse_plan_is_seen_to_fail() {
    type Plan = fn(&Known) -> Next;
    let worse: [(&'static str, Plan, [u8; 4]); 6] = [
        (
            "no container is made after the agent ran",
            makes_again,
            [1, 0, 1, 0],
        ),
        (
            "what is to be stopped is not started",
            ignores_stops,
            [0, 0, 0, 0],
        ),
        (
            "no agent is executed after its outcome",
            leaves_unborn,
            [1, 0, 0, 0],
        ),
        (
            "the outcome is what happened",
            gives_up_on_silence,
            [0, 1, 0, 0],
        ),
        (
            "no write of a living process is denied",
            pulls_again,
            [1, 0, 0, 0],
        ),
        (
            "a new process brings it to its end",
            looks_forever,
            [1, 0, 0, 0],
        ),
    ];
    for (property, plan, faults) in worse {
        let model = Attempt {
            plan,
            ..attempt(Transport::Spool, faults)
        };
        breaks(property, model);
    }
}

fn starts_what_ran(known: &Known) -> Next {
    match (known.container, known.stop) {
        (Container::Created, Wanted::No) => Next::Start,
        _ => next(known),
    }
}

fn makes_again(known: &Known) -> Next {
    match known.container {
        Container::Gone => Next::Create,
        _ => next(known),
    }
}

fn looks_for_nothing(known: &Known) -> Next {
    match (known.container, known.stop) {
        (Container::NoHandle, Wanted::Yes) => Next::Collect(End::Stopped),
        _ => next(known),
    }
}

fn ignores_stops(known: &Known) -> Next {
    let forgotten = next(&Known {
        stop: Wanted::No,
        ..*known
    });
    match forgotten {
        Next::Start => Next::Start,
        _ => next(known),
    }
}

/// Says that it was never started of one that is about to execute its agent.
fn leaves_unborn(known: &Known) -> Next {
    match next(known) {
        Next::Kill => Next::Collect(End::Stopped),
        planned => planned,
    }
}

fn gives_up_on_silence(known: &Known) -> Next {
    match known.container {
        Container::Handle => Next::Collect(End::Gone),
        _ => next(known),
    }
}

fn pulls_again(known: &Known) -> Next {
    match (known.container, known.stop) {
        (Container::NoHandle, Wanted::No) => Next::EnsureImage,
        _ => next(known),
    }
}

fn looks_forever(known: &Known) -> Next {
    match known.container {
        Container::Ended => Next::Look,
        _ => next(known),
    }
}
