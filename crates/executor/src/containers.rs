//! The seed's narrow views on containers by name: does it run, how many run, stop it.
//!
//! Owns: the three traits, and the error of waiting.
//! Reads: nothing.
//! Never: talks to an engine; every engine has its own twin of each trait.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::engine::EngineError;

/// Says whether a container runs; the seed's `ContainerChecker` (`ExecutionChecker` in its later versions).
///
/// An answer is what the engine said. The seed takes most failures for "does not run"; here whatever keeps the engine
/// from answering is an error, so nobody acts on a guess.
#[async_trait]
pub trait ContainerChecker: Send + Sync + fmt::Debug {
    /// Returns whether the container of that name runs; false if there is none, if it ended, or if it was never
    /// started.
    ///
    /// A paused container runs. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Whatever keeps the engine from saying so, such as [`EngineError::Unreachable`]; it says nothing about the
    /// container.
    async fn is_running(&self, name: &str) -> Result<bool, EngineError>;

    /// Waits until the container of that name runs, for at most `timeout`.
    ///
    /// One that is not there or was not started yet is waited for. One that has ended is an error at once, which the
    /// seed waits for in vain. By the engine's events, not by asking again and again. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`WaitError`].
    async fn wait_until_running(&self, name: &str, timeout: Duration) -> Result<(), WaitError>;
}

/// Counts the containers that run; the seed's `ContainerCounter`.
#[async_trait]
pub trait ContainerCounter: Send + Sync + fmt::Debug {
    /// Returns how many containers with a project label run on the whole engine.
    ///
    /// They are those of every project, of every installation, and of the seed: all share one pool of slots.
    /// Containers that only probe or help don't carry that label. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Whatever keeps the engine from saying so; never a number that is too low.
    async fn count_running(&self) -> Result<usize, EngineError>;
}

/// Stops a container; the seed's `ContainerStopper` (`ExecutionStopper` in its later versions).
#[async_trait]
pub trait ContainerStopper: Send + Sync + fmt::Debug {
    /// Stops the container of that name, and returns once the engine says that it has ended.
    ///
    /// One that is not there, was never started, or has ended is no error. Unlike the seed, which stops whatever has
    /// the name, this leaves alone what neither we nor the seed made. The container is not removed.
    ///
    /// Cancel-safe: dropping the future leaves the signal sent and starts no kill.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotOurs`], or whatever keeps the engine from stopping it.
    async fn stop_container(&self, name: &str) -> Result<(), EngineError>;
}

/// A container that was waited for and does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// It has ended, so it will not run.
    #[error("container {name} has ended already, with exit code {code}")]
    Ended {
        /// The container's name.
        name: String,
        /// Its exit code.
        code: i64,
    },
    /// It did not run in time.
    #[error("container {name} did not start within {timeout:?}")]
    Timeout {
        /// The container's name.
        name: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The engine could not say; nothing is known about the container.
    #[error("check container running")]
    Engine(#[from] EngineError),
}
