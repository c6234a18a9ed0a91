//! What is outside of our process: the engine with the attempt's one container, its helper, the agent, and the spool.
//!
//! Owns: what a call does to them, and what really happened.
//! Reads: nothing.
//! Never: knows what the store says.

use dark_factory_types::Transport;

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum How {
    /// The agent was done, with code 0.
    Itself,
    /// By a signal that the helper passed on and recorded.
    Signalled,
    /// By SIGKILL, with no record.
    Killed,
    /// The helper gave up because nobody gave it its spool.
    Unsupervised,
}

/// The attempt's container on the engine; its name allows only one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Absent,
    Created,
    Running(Inside),
    Ended(How),
}

/// How far a running container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Inside {
    /// The helper asks for its spool.
    Waiting,
    /// The helper has its spool.
    Given,
    /// The helper has written its start record.
    Recorded,
    /// The agent was executed and runs.
    Agent,
}

/// Everything outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) transport: Transport,
    pub(super) phase: Phase,
    /// How many containers were made; the number of the last one is its id.
    pub(super) made: u8,
    /// Whether the spool has a start record.
    pub(super) started: bool,
    /// The end that the spool records.
    pub(super) record: Option<How>,
    /// How often the agent was executed.
    pub(super) executions: u8,
    /// How the executed agent ended.
    pub(super) end: Option<How>,
    /// Whether somebody removed the container, or the engine forgot its start.
    pub(super) is_tampered: bool,
}

/// What an engine says to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Done,
    Made(u8),
    NoSuchContainer,
    /// It runs, so it is not removed.
    Conflict,
}

impl World {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            phase: Phase::Absent,
            made: 0,
            started: false,
            record: None,
            executions: 0,
            end: None,
            is_tampered: false,
        }
    }

    /// Returns what the engine says of the container with this id.
    pub(super) fn phase_of(&self, id: u8) -> Phase {
        if id == self.made {
            self.phase
        } else {
            Phase::Absent
        }
    }

    /// Makes the container, or finds it by its name and label.
    pub(super) fn create(&mut self) -> Answer {
        if self.phase == Phase::Absent {
            self.made += 1;
            self.phase = Phase::Created;
        }
        Answer::Made(self.made)
    }

    /// Starts the container. As Docker does, one that has ended as well, and one that runs is as it should be.
    pub(super) fn start(&mut self, id: u8) -> Answer {
        match self.phase_of(id) {
            Phase::Absent => return Answer::NoSuchContainer,
            Phase::Running(_) => {}
            Phase::Created | Phase::Ended(_) if self.transport == Transport::Attach => {
                self.execute();
            }
            Phase::Created | Phase::Ended(_) => self.phase = Phase::Running(Inside::Waiting),
        }
        Answer::Done
    }

    /// Stops the container, and returns when it has ended.
    pub(super) fn stop(&mut self, id: u8) -> Answer {
        if let Phase::Running(inside) = self.phase_of(id) {
            self.end_with(match inside {
                Inside::Agent => How::Signalled,
                Inside::Waiting | Inside::Given | Inside::Recorded => How::Killed,
            });
        }
        Answer::Done
    }

    /// Removes the container unless it runs.
    pub(super) fn remove(&mut self, id: u8) -> Answer {
        match self.phase_of(id) {
            Phase::Running(_) => return Answer::Conflict,
            Phase::Created | Phase::Ended(_) => self.phase = Phase::Absent,
            Phase::Absent => {}
        }
        Answer::Done
    }

    /// Lets the helper, or the agent, do the next thing that it does by itself.
    pub(super) fn go_on(&mut self) {
        match self.phase {
            Phase::Running(Inside::Given) => {
                self.started = true;
                self.phase = Phase::Running(Inside::Recorded);
            }
            Phase::Running(Inside::Recorded) => self.execute(),
            Phase::Running(Inside::Agent) => self.end_with(How::Itself),
            Phase::Running(Inside::Waiting) => self.end_with(How::Unsupervised),
            Phase::Absent | Phase::Created | Phase::Ended(_) => {}
        }
    }

    /// Ends the container.
    pub(super) fn end_with(&mut self, how: How) {
        if self.phase == Phase::Running(Inside::Agent) {
            self.end = Some(how);
        }
        self.phase = Phase::Ended(how);
        if self.transport == Transport::Spool && matches!(how, How::Itself | How::Signalled) {
            self.record = Some(how);
        }
    }

    /// Somebody removes the container by force.
    pub(super) fn remove_by_force(&mut self) {
        if matches!(self.phase, Phase::Running(_)) {
            self.end_with(How::Killed);
        }
        self.phase = Phase::Absent;
        self.is_tampered = true;
    }

    /// The engine is killed during a start, and forgets it.
    pub(super) fn forget_start(&mut self) {
        self.end_with(How::Killed);
        self.phase = Phase::Created;
        self.is_tampered = true;
    }

    fn execute(&mut self) {
        self.executions += 1;
        self.phase = Phase::Running(Inside::Agent);
    }
}
