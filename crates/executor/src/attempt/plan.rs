//! What a supervisor does next with an attempt, from what is known of it.
//!
//! Owns: the order of the steps up to a running container, and when one of them must not be done.
//! Reads: the attempt's state, the engine's word, the spool's start record, a stop request.
//! Never: does anything: it is a pure function, and the model in its tests explores it.

use dark_factory_types::Transport;

use crate::store::AttemptState;

/// What is known of an attempt whose workload is not followed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Known {
    /// How far the store says that it has come.
    pub(crate) state: AttemptState,
    /// What is known of its container.
    pub(crate) container: Container,
    /// Whether the spool shows that its agent was executed.
    pub(crate) agent: Executed,
    /// Whether somebody wants it stopped.
    pub(crate) stop: Wanted,
    /// How its output is read.
    pub(crate) transport: Transport,
}

/// What is known of an attempt's container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Container {
    /// The store has no handle, and the engine was not asked.
    NoHandle,
    /// The store has no handle, and the engine has no container of this attempt.
    NotMade,
    /// The store has no handle, and the engine has a container of this attempt.
    Made,
    /// The store has a handle, and the engine was not asked.
    Handle,
    /// The engine says that it was never started.
    Created,
    /// The engine says that it runs.
    Running,
    /// The engine says that it has ended.
    Ended,
    /// The engine does not know it.
    Gone,
}

/// Whether an agent was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Executed {
    Yes,
    No,
}

/// Whether a stop is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wanted {
    Yes,
    No,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Next {
    /// Make sure of the image.
    EnsureImage,
    /// Ask the engine whether it has a container of this attempt.
    Find,
    /// Create the container, or find the one that an earlier call made.
    Create,
    /// Ask the engine what became of the container.
    Look,
    /// Start the container; for one that was started, only make its output flow.
    Start,
    /// Kill the container before its agent is executed, and look what became of it.
    Kill,
    /// Nothing more is started: collect what there is.
    Collect(End),
}

/// How an attempt ended that is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// Its container has ended.
    Exited,
    /// Nobody knows how its container ended.
    Gone,
    /// Its agent was never executed, and will not be.
    Stopped,
}

/// Returns the next step.
///
/// The agent is executed at most once: a container is started only if the engine says that it never was, and nothing
/// of ours says that it ran.
pub(crate) fn next(known: &Known) -> Next {
    match known.container {
        Container::NoHandle | Container::NotMade | Container::Made
            if known.state < AttemptState::Creating =>
        {
            match known.stop {
                Wanted::Yes => Next::Collect(End::Stopped),
                Wanted::No => Next::EnsureImage,
            }
        }
        Container::NoHandle => match known.stop {
            Wanted::Yes => Next::Find,
            Wanted::No => Next::Create,
        },
        Container::NotMade => match known.stop {
            Wanted::Yes => Next::Collect(End::Stopped),
            Wanted::No => Next::Create,
        },
        // To be removed it needs a handle, which create finds.
        Container::Made => Next::Create,
        Container::Handle => Next::Look,
        Container::Created => created(known),
        // Its helper may have its spool and execute the agent at any moment: only the dead have not done so for good.
        Container::Running if is_unborn(known) => Next::Kill,
        Container::Running => Next::Start,
        Container::Ended if is_unborn(known) => Next::Collect(End::Stopped),
        // What it printed last may be nowhere but in the engine's log, which start reads.
        Container::Ended if known.transport == Transport::Attach => Next::Start,
        Container::Ended => Next::Collect(End::Exited),
        Container::Gone => Next::Collect(End::Gone),
    }
}

fn created(known: &Known) -> Next {
    let ran = match known.transport {
        Transport::Spool => known.agent == Executed::Yes,
        // Without a helper the store is all there is to say so.
        Transport::Attach => known.state >= AttemptState::Running,
    };
    match known.stop {
        // It ran, and an engine that was killed meanwhile has forgotten that.
        _ if ran => Next::Collect(End::Gone),
        Wanted::Yes => Next::Collect(End::Stopped),
        Wanted::No => Next::Start,
    }
}

/// Returns whether a container that was started is to be stopped, and its agent was not executed yet.
fn is_unborn(known: &Known) -> bool {
    known.stop == Wanted::Yes && known.agent == Executed::No && known.transport == Transport::Spool
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
