//! The store's rules on one row, without a database.
//!
//! Owns: a second, plain statement of what a write changes: the model explores it, and the store is compared with it.
//! Reads: the transition table.
//! Never: is part of the program.

use super::AttemptState;

/// A row, as far as the rules depend on it. Reasons, handles and reports are numbers, or whatever `R` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Row<R> {
    pub(crate) state: AttemptState,
    pub(crate) generation: u8,
    pub(crate) handle: Option<u8>,
    pub(crate) stop: Option<u8>,
    pub(crate) grace: Option<u8>,
    pub(crate) sent: bool,
    pub(crate) report: Option<R>,
    pub(crate) removed: bool,
}

/// A change of the state, and what becomes known with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Change<R> {
    Preparing,
    Pulling,
    Creating,
    Starting(u8),
    Running,
    Collecting,
    Finished(R),
}

/// Why a write changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Denied {
    LeaseLost,
    BadTransition,
}

impl<R: Copy> Change<R> {
    pub(crate) fn target(self) -> AttemptState {
        match self {
            Self::Preparing => AttemptState::Preparing,
            Self::Pulling => AttemptState::Pulling,
            Self::Creating => AttemptState::Creating,
            Self::Starting(_) => AttemptState::Starting,
            Self::Running => AttemptState::Running,
            Self::Collecting => AttemptState::Collecting,
            Self::Finished(_) => AttemptState::Finished,
        }
    }
}

impl<R: Copy> Row<R> {
    /// Returns the row of an attempt that was just recorded.
    pub(crate) fn new(state: AttemptState) -> Self {
        Self {
            state,
            generation: 1,
            handle: None,
            stop: None,
            grace: None,
            sent: false,
            report: None,
            removed: false,
        }
    }

    pub(crate) fn take_over(&mut self) -> u8 {
        self.generation += 1;
        self.generation
    }

    pub(crate) fn advance(&mut self, generation: u8, change: Change<R>) -> Result<(), Denied> {
        if generation != self.generation {
            return Err(Denied::LeaseLost);
        }
        if !self.state.may_become(change.target()) {
            return Err(Denied::BadTransition);
        }
        self.state = change.target();
        match change {
            Change::Starting(handle) => self.handle = Some(handle),
            Change::Finished(report) => self.report = Some(report),
            Change::Preparing
            | Change::Pulling
            | Change::Creating
            | Change::Running
            | Change::Collecting => {}
        }
        Ok(())
    }

    /// Returns the reason that counts, if there is one.
    pub(crate) fn request_stop(&mut self, reason: u8, grace: Option<u8>) -> Option<u8> {
        if self.state < AttemptState::Collecting {
            self.stop = self.stop.or(Some(reason));
            self.grace = self.grace.into_iter().chain(grace).min();
        }
        self.stop
    }

    pub(crate) fn begin_stop(&mut self) {
        self.sent |= matches!(self.state, AttemptState::Starting | AttemptState::Running);
        if self.state == AttemptState::Running {
            self.state = AttemptState::Stopping;
        }
    }

    pub(crate) fn mark_removed(&mut self, generation: u8) -> Result<(), Denied> {
        if generation != self.generation {
            return Err(Denied::LeaseLost);
        }
        self.removed = true;
        Ok(())
    }
}
