//! The states of an attempt, and which may follow which.
//!
//! Owns: the transition table.
//! Reads: nothing.
//! Never: is bypassed: [`super::Store::advance`] is the only way to another state.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Recorded, and waiting for a daemon to begin with it.
    Queued,
    /// A supervisor has it; nothing was done yet.
    Preparing,
    /// The image is being made sure of.
    Pulling,
    /// The container is being created, or is created and we do not know it yet.
    Creating,
    /// The container is created and being started, or is started and we do not know it yet.
    Starting,
    /// The container was started.
    Running,
    /// The workload is being stopped.
    Stopping,
    /// The workload has ended; its output is being collected.
    Collecting,
    /// The outcome is decided and durable.
    Finished,
}

impl AttemptState {
    const ALL: [Self; 9] = [
        Self::Queued,
        Self::Preparing,
        Self::Pulling,
        Self::Creating,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Collecting,
        Self::Finished,
    ];

    /// Returns the state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Preparing => "preparing",
            Self::Pulling => "pulling",
            Self::Creating => "creating",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Collecting => "collecting",
            Self::Finished => "finished",
        }
    }

    /// Returns whether an attempt may go from this state to `next`.
    ///
    /// Always forward and one step at a time, with two exceptions: anything unfinished may finish (a failure,
    /// a cancel before the start), and a state may follow itself (a supervisor that died between the step and
    /// its record is followed by one that does the step again, which is safe for every step).
    pub fn may_become(self, next: Self) -> bool {
        use AttemptState::{
            Collecting, Creating, Finished, Preparing, Pulling, Queued, Running, Starting, Stopping,
        };
        match (self, next) {
            (Finished, _) => false,
            (_, Finished) => true,
            (from, to) if from == to => true,
            (Queued, Preparing) | (Preparing, Pulling) => true,
            (Pulling, Creating) | (Creating, Starting) => true,
            (Starting, Running) => true,
            (Running, Stopping | Collecting) | (Stopping, Collecting) => true,
            _ => false,
        }
    }
}

impl fmt::Display for AttemptState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is not a state's name.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an attempt state")]
pub struct UnknownState(String);

impl FromStr for AttemptState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::AttemptState as S;

    #[test]
    fn every_pair_of_states_is_allowed_or_forbidden_as_listed() {
        let to = S::ALL;
        let table = [
            //             Q  Pr Pu Cr St Ru So Co F
            (S::Queued, [1, 1, 0, 0, 0, 0, 0, 0, 1]),
            (S::Preparing, [0, 1, 1, 0, 0, 0, 0, 0, 1]),
            (S::Pulling, [0, 0, 1, 1, 0, 0, 0, 0, 1]),
            (S::Creating, [0, 0, 0, 1, 1, 0, 0, 0, 1]),
            (S::Starting, [0, 0, 0, 0, 1, 1, 0, 0, 1]),
            (S::Running, [0, 0, 0, 0, 0, 1, 1, 1, 1]),
            (S::Stopping, [0, 0, 0, 0, 0, 0, 1, 1, 1]),
            (S::Collecting, [0, 0, 0, 0, 0, 0, 0, 1, 1]),
            (S::Finished, [0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ];
        for (from, allowed) in table {
            for (to, allowed) in to.into_iter().zip(allowed) {
                assert_eq!(from.may_become(to), allowed == 1, "{from} to {to}");
            }
        }
        assert_eq!(table.map(|(from, _)| from), to);
    }

    #[test]
    fn every_state_is_read_back_by_its_name() {
        for state in S::ALL {
            assert_eq!(state.as_str().parse::<S>().ok(), Some(state));
        }
    }
}
