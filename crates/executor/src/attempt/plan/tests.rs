//! What is done next, line by line.

use Container::{Created, Ended, Gone, Handle, Made, NoHandle, NotMade, Running};

use super::*;

const NOW: Known = Known {
    state: AttemptState::Preparing,
    container: NoHandle,
    agent: Executed::No,
    stop: Wanted::No,
    transport: Transport::Spool,
};

fn known(state: AttemptState, container: Container) -> Known {
    Known {
        state,
        container,
        ..NOW
    }
}

impl Known {
    fn executed(self) -> Self {
        Self {
            agent: Executed::Yes,
            ..self
        }
    }

    fn to_be_stopped(self) -> Self {
        Self {
            stop: Wanted::Yes,
            ..self
        }
    }

    fn attached(self) -> Self {
        Self {
            transport: Transport::Attach,
            ..self
        }
    }
}

#[test]
fn each_state_of_what_is_known_has_its_next_step() {
    use AttemptState as S;
    let stopped = Next::Collect(End::Stopped);
    let gone = Next::Collect(End::Gone);
    let exited = Next::Collect(End::Exited);
    let table = [
        // Nothing was asked of the engine yet.
        (known(S::Queued, NoHandle), Next::EnsureImage),
        (known(S::Preparing, NoHandle), Next::EnsureImage),
        (known(S::Pulling, NoHandle), Next::EnsureImage),
        (known(S::Queued, NoHandle).to_be_stopped(), stopped),
        (known(S::Preparing, NoHandle).to_be_stopped(), stopped),
        (known(S::Pulling, NoHandle).to_be_stopped(), stopped),
        // A container may have been made, and nobody heard of it.
        (known(S::Creating, NoHandle), Next::Create),
        (known(S::Creating, NoHandle).to_be_stopped(), Next::Find),
        (known(S::Creating, NotMade), Next::Create),
        (known(S::Creating, NotMade).to_be_stopped(), stopped),
        (known(S::Creating, Made), Next::Create),
        (known(S::Creating, Made).to_be_stopped(), Next::Create),
        // Whoever has a handle looks before anything is done.
        (known(S::Starting, Handle), Next::Look),
        (known(S::Running, Handle), Next::Look),
        (known(S::Stopping, Handle).to_be_stopped(), Next::Look),
        (known(S::Collecting, Handle), Next::Look),
        // It was made, and never started.
        (known(S::Starting, Created), Next::Start),
        (known(S::Starting, Created).attached(), Next::Start),
        (known(S::Starting, Created).to_be_stopped(), stopped),
        (
            known(S::Starting, Created).attached().to_be_stopped(),
            stopped,
        ),
        // The engine says so of one that ran.
        (known(S::Starting, Created).executed(), gone),
        (known(S::Starting, Created).executed().to_be_stopped(), gone),
        (known(S::Running, Created).attached(), gone),
        // It runs.
        (known(S::Starting, Running), Next::Start),
        (known(S::Running, Running).executed(), Next::Start),
        (known(S::Running, Running).attached(), Next::Start),
        (known(S::Starting, Running).to_be_stopped(), Next::Kill),
        (known(S::Running, Running).to_be_stopped(), Next::Kill),
        (
            known(S::Starting, Running).executed().to_be_stopped(),
            Next::Start,
        ),
        (
            known(S::Starting, Running).attached().to_be_stopped(),
            Next::Start,
        ),
        // It has ended.
        (known(S::Running, Ended).executed(), exited),
        (known(S::Starting, Ended), exited),
        (known(S::Running, Ended).attached(), Next::Start),
        (known(S::Starting, Ended).to_be_stopped(), stopped),
        (known(S::Stopping, Ended).executed().to_be_stopped(), exited),
        (
            known(S::Stopping, Ended).attached().to_be_stopped(),
            Next::Start,
        ),
        // The engine does not know it.
        (known(S::Starting, Gone), gone),
        (known(S::Running, Gone).executed(), gone),
        (known(S::Running, Gone).attached().to_be_stopped(), gone),
    ];
    for (known, expected) in table {
        assert_eq!(next(&known), expected, "{known:?}");
    }
}

#[test]
fn whatever_else_is_known_one_that_was_executed_is_not_made_or_started_from_the_beginning() {
    for container in [Handle, Created, Running, Ended, Gone] {
        for stop in [Wanted::Yes, Wanted::No] {
            for state in [AttemptState::Starting, AttemptState::Running] {
                let known = Known {
                    stop,
                    ..known(state, container).executed()
                };

                let step = next(&known);

                assert!(
                    !matches!(step, Next::Create | Next::EnsureImage),
                    "{known:?}"
                );
                assert!(container != Created || step != Next::Start, "{known:?}");
            }
        }
    }
}
