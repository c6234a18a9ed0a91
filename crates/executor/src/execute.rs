//! The seed's narrow view on running a prompt: text in, outcome out.
//!
//! Owns: the trait.
//! Reads: nothing.
//! Never: is a path of its own; every implementation goes through `resolve` and the `Supervisor`.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use dark_factory_types::Outcome;
use tokio_util::sync::CancellationToken;

use crate::error::ExecutorError;

/// Runs prompts in containers with names of the caller's; the seed's `Executor`.
///
/// The seed returns an error for a run that went badly. Here an error means that we failed; a bad outcome is `Ok`, and
/// [`Outcome::into_result`] makes the seed's error of it.
///
/// `log_file` gets the agent's output in the seed's format, and the file beside it with the extension `jsonl` gets its
/// stdout byte for byte. Both are truncated at the beginning, missing folders are made, and both are copies: what was
/// in them before is still in the folders of earlier attempts.
#[async_trait]
pub trait Executor: Send + Sync + fmt::Debug {
    /// Runs a prompt in a new container of that name, to its outcome.
    ///
    /// The text reaches the agent byte for byte; it has no front matter, and may be empty. A name that something else
    /// has is an outcome ([`OutcomeKind::StartFailed`](dark_factory_types::OutcomeKind::StartFailed)), and its holder
    /// is left alone, where the seed removes it. `cancel` stops the container, and the outcome is then `cancelled`.
    ///
    /// Dropping the future leaves the container running; [`reattach`](Self::reattach) goes on with it, as
    /// `dark-factory recover` does.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Resolve`] if nothing can be launched, credentials that the agent would not find included;
    /// [`ExecutorError::LogFile`]; both before anything is created. Otherwise whatever keeps us from going on; the
    /// attempt then stays open.
    async fn execute(
        &self,
        prompt: &str,
        log_file: &Path,
        name: &str,
        cancel: &CancellationToken,
    ) -> Result<Outcome, ExecutorError>;

    /// Follows a container that was started before, to its outcome, and writes both logs from its first byte.
    ///
    /// One of ours is recovered, wherever its attempt stands; one whose attempt is finished only has its logs written
    /// again. One that we know nothing of and that has a project label, such as the seed's, is adopted as a new
    /// attempt: its output is read from the engine's log, which is not exact, and at the end it is left where it is.
    /// Unlike the seed this learns the exit code, and never starts anything that ran before.
    ///
    /// `max_prompt_duration` counts from the container's start and takes the place of the limit that it was launched
    /// with; `None` is no limit, the seed's 0.
    ///
    /// Dropping the future leaves the container running and its attempt open.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoSuchContainer`](crate::engine::EngineError::NoSuchContainer) if neither the engine nor the
    /// store knows the name; [`EngineError::NotOurs`](crate::engine::EngineError::NotOurs);
    /// [`ExecutorError::NotFollowable`]; [`ExecutorError::AlreadyRunning`] if a living process supervises it. None of
    /// these touches the logs. Otherwise as [`execute`](Self::execute).
    async fn reattach(
        &self,
        log_file: &Path,
        name: &str,
        max_prompt_duration: Option<Duration>,
    ) -> Result<Outcome, ExecutorError>;

    /// Stops the container of that name and removes it; one that is not there is no error.
    ///
    /// An attempt of it that is not finished is ended as cancelled. Unlike the seed's, this one tells what went wrong,
    /// and leaves alone what neither we nor the seed made.
    ///
    /// Dropping the future leaves an attempt that was being ended open.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotOurs`](crate::engine::EngineError::NotOurs), or whatever keeps it from being stopped or
    /// removed.
    async fn stop_and_remove_container(&self, name: &str) -> Result<(), ExecutorError>;
}
