//! Errors of running a prompt: we failed, as opposed to the job failing.
//!
//! Owns: the error type and its exit code.
//! Reads: nothing.
//! Never: stands for a bad outcome; that is an [`dark_factory_types::Outcome`].

use std::io;
use std::time::Duration;

use dark_factory_types::{AttemptId, RunId, exit_code};

use crate::attempt::is_full;
use crate::engine::{EngineError, Fate};
use crate::resolve::{ResolveError, SecretProblem};
use crate::spec::OUR_IMAGES;
use crate::spool::ReadError;
use crate::store::{AttemptState, StoreError};

/// Something of ours that did not work while a prompt was run.
///
/// Nothing is lost by any of these: an attempt that was recorded stays open, and `recover` goes on with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// The state folder could not be used.
    #[error("the state folder cannot be used")]
    StateDir(#[source] io::Error),
    /// The attempt's folder could not be made or written to.
    #[error("the folder of attempt {attempt} cannot be written")]
    AttemptDir {
        /// The attempt.
        attempt: AttemptId,
        /// The operating system's error.
        source: io::Error,
    },
    /// A log file of the caller's could not be prepared.
    #[error("prepare log file: {0}")]
    LogFile(#[source] io::Error),
    /// A log file for a container that was started before could not be prepared.
    #[error("prepare log file for reattach: {0}")]
    ReattachLogFile(#[source] io::Error),
    /// From a prompt and the caller's settings no launch can be made.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The output of a container that somebody else made cannot be followed.
    #[error("container {name} cannot be followed: {reason}")]
    NotFollowable {
        /// The container's name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// The state store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine failed or refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The spool of an attempt could not be read.
    #[error("the output of attempt {attempt} cannot be collected")]
    Spool {
        /// The attempt.
        attempt: AttemptId,
        /// Why.
        source: ReadError,
    },
    /// The output of an attempt could not be written to its folder.
    #[error("the output of attempt {attempt} cannot be written")]
    Output {
        /// The attempt.
        attempt: AttemptId,
        /// The operating system's error.
        source: io::Error,
    },
    /// The disk was full for longer than we wait.
    #[error(
        "the disk was full for {patience:?}, so attempt {attempt} is left as it is, its agent paused"
    )]
    DiskFull {
        /// The attempt.
        attempt: AttemptId,
        /// How long we waited.
        patience: Duration,
    },
    /// A living process is to do something to the run, and does not, or its engine does not answer.
    #[error("run {run} is not {what} yet: {why}")]
    NotYet {
        /// The run.
        run: RunId,
        /// What is to be done: `stopped`.
        what: &'static str,
        /// What keeps it from being done.
        why: String,
    },
    /// The container was stopped, and the living process that supervises the run does not record its end.
    #[error(
        "the agent of run {run} was stopped, but the process that supervises it hangs and does not record the end"
    )]
    SupervisorHangs {
        /// The run.
        run: RunId,
    },
    /// The caller did not wait for the engine any longer.
    #[error(
        "attempt {attempt} was not waited for: its stop is recorded, and the engine has not answered yet"
    )]
    Abandoned {
        /// The attempt.
        attempt: AttemptId,
    },
    /// The file is being run already.
    #[error("{file} is already being run, as run {run}")]
    AlreadyRunning {
        /// The prompt file.
        file: String,
        /// The run that has it.
        run: RunId,
    },
    /// The file is queued already.
    #[error("{file} is queued already, as run {run}")]
    AlreadyQueued {
        /// The prompt file.
        file: String,
        /// The run that has it.
        run: RunId,
    },
    /// A dead process left a run of this file unfinished.
    #[error("{file} has an unfinished run, {run}, which a dead process left")]
    Unfinished {
        /// The prompt file.
        file: String,
        /// The run.
        run: RunId,
    },
    /// The agent named in the store is not one that this build knows.
    #[error("attempt {attempt} needs agent {agent}, which this dark-factory does not know")]
    UnknownAgent {
        /// The attempt.
        attempt: AttemptId,
        /// The agent's name.
        agent: String,
    },
    /// The run has no container that could be frozen.
    #[error("run {run} has nothing to pause or resume: it is {state}")]
    NotRunning {
        /// The run.
        run: RunId,
        /// Its state.
        state: AttemptState,
    },
    /// Nothing can be executed for a run: it has no container, or not any more.
    #[error("run {run} has no container in which anything could be executed: it is {state}")]
    NoContainer {
        /// The run.
        run: RunId,
        /// Where it stands.
        state: &'static str,
    },
    /// Something is asked for that only a run can have which has ended.
    #[error("run {run} has not ended: it is {state}")]
    NotEnded {
        /// The run.
        run: RunId,
        /// Where it stands.
        state: &'static str,
    },
    /// Another process has an ended run in its hands: it cleans up after it, retries it, or removes it.
    #[error("another process is busy with run {run}")]
    Busy {
        /// The run.
        run: RunId,
    },
    /// The prompt that an attempt had is not there any more.
    #[error("the prompt of attempt {attempt} was not kept, so there is nothing to run again")]
    PromptNotKept {
        /// The attempt.
        attempt: AttemptId,
        /// The prompt's file.
        file: String,
    },
    /// A secret that an attempt had cannot be read again.
    #[error("secret {name} {problem}")]
    SecretNotKept {
        /// The secret.
        name: String,
        /// Why.
        problem: SecretProblem,
    },
    /// A run has as many attempts as it can have.
    #[error("run {run} has had 999 attempts, which is the most")]
    TooManyAttempts {
        /// The run.
        run: RunId,
    },
    /// The next attempt of a run was begun, and the store does not know it.
    #[error("attempt {attempt} was begun already, and the store does not know it")]
    Forgotten {
        /// The attempt.
        attempt: AttemptId,
    },
    /// There is no such run.
    #[error("there is no run {text}")]
    NoSuchRun {
        /// What was asked for.
        text: String,
    },
    /// Several runs begin or end like this.
    #[error("{text} could be any of {count} runs")]
    AmbiguousRun {
        /// What was asked for.
        text: String,
        /// How many match.
        count: usize,
    },
    /// A task of ours ended before its work was done.
    #[error("a task of ours was cancelled: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl ExecutorError {
    /// Returns the exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotYet { .. } => exit_code::ENGINE,
            Self::DiskFull { .. } => exit_code::LIMIT,
            _ if self.is_full() => exit_code::LIMIT,
            Self::Engine(EngineError::NoSuchContainer { .. })
            | Self::NoSuchRun { .. }
            | Self::AmbiguousRun { .. } => exit_code::NOT_FOUND,
            Self::Engine(EngineError::Local { .. }) => exit_code::INTERNAL,
            Self::Engine(_) => exit_code::ENGINE,
            Self::Resolve(error) => error.exit_code(),
            Self::AlreadyRunning { .. }
            | Self::AlreadyQueued { .. }
            | Self::Unfinished { .. }
            | Self::NotRunning { .. }
            | Self::NotEnded { .. }
            | Self::NoContainer { .. }
            | Self::Busy { .. }
            | Self::PromptNotKept { .. }
            | Self::SecretNotKept { .. }
            | Self::TooManyAttempts { .. }
            | Self::Forgotten { .. }
            | Self::NotFollowable { .. } => exit_code::USAGE,
            Self::StateDir(_)
            | Self::AttemptDir { .. }
            | Self::LogFile(_)
            | Self::ReattachLogFile(_)
            | Self::Store(_)
            | Self::Spool { .. }
            | Self::Output { .. }
            | Self::UnknownAgent { .. }
            | Self::SupervisorHangs { .. }
            | Self::Task(_) => exit_code::INTERNAL,
            Self::Abandoned { .. } => exit_code::CANCELLED,
        }
    }

    /// Returns whether it is for lack of room on the disk.
    fn is_full(&self) -> bool {
        match self {
            Self::Store(error) => error.is_full(),
            Self::StateDir(source)
            | Self::AttemptDir { source, .. }
            | Self::Output { source, .. }
            | Self::Engine(EngineError::Local { source, .. }) => is_full(source),
            _ => false,
        }
    }

    /// Returns what a person can do about it, if there is something to say.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::DiskFull { .. } => Some(
                "make room on the disk; then `dark-factory recover` goes on, with nothing lost".to_owned(),
            ),
            _ if self.is_full() => {
                Some("the disk of the state folder is full: make room, then try again".to_owned())
            }
            Self::Store(StoreError::Damaged { path, .. }) => Some(format!(
                "nothing was changed, and what runs goes on running: put a copy of {0} back, without {0}-wal and \
                 {0}-shm, and `dark-factory recover` finds the runs that are in it; or move all three away to begin \
                 with an empty one. Runs that are in neither keep their files until `dark-factory prune --apply`; \
                 `docker ps` shows which of them still run",
                path.display()
            )),
            Self::Engine(error) => error.advice(),
            Self::StateDir(_) => {
                Some("name a folder that you may write to with --state-dir or DARK_FACTORY_STATE_DIR".to_owned())
            }
            Self::AlreadyRunning { run, .. } | Self::AlreadyQueued { run, .. } => {
                Some(format!("wait for it, or stop it with `dark-factory stop {run}`"))
            }
            Self::Unfinished { run, .. } => Some(format!(
                "finish it with `dark-factory recover`, or stop it with `dark-factory stop {run}`"
            )),
            Self::NotEnded { run, .. } => Some(format!(
                "wait for it with `dark-factory wait {run}`, or stop it with `dark-factory stop {run}`"
            )),
            Self::NoContainer { .. } => Some(
                "while a run goes on it has one, and `run --keep` keeps it after the end".to_owned(),
            ),
            Self::Busy { run } => {
                Some(format!("try again once it is done; `dark-factory inspect {run}` shows where it stands"))
            }
            Self::PromptNotKept { file, .. } => {
                Some(format!("`dark-factory run {file}` runs the file as it is now"))
            }
            Self::SecretNotKept { .. } => Some(
                "secrets are not kept after a run's end: they are read again, from where they were taken".to_owned(),
            ),
            Self::TooManyAttempts { .. } => Some("run its file anew with `dark-factory run`".to_owned()),
            Self::Forgotten { .. } => Some(
                "its folder is kept: `dark-factory prune` says what is in it, and removes it with --apply".to_owned(),
            ),
            Self::SupervisorHangs { .. } => Some(
                "kill that process; then `dark-factory recover` records the end, with nothing lost".to_owned(),
            ),
            Self::NotYet { run, .. } => Some(format!(
                "it is recorded, and is done once that is possible; `dark-factory wait {run}` waits for the run's end"
            )),
            Self::NoSuchRun { .. } | Self::AmbiguousRun { .. } => {
                Some("`dark-factory ps -a` lists all runs".to_owned())
            }
            Self::Spool { .. } | Self::Output { .. } => Some(
                "nothing is lost: the attempt's spool is kept, and `dark-factory recover` collects it again"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl EngineError {
    /// Returns what a person can do about it, if there is something to say.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => Some(
                "is Docker Engine installed and running? On Debian: apt-get install docker.io; Podman answers \
                 after `systemctl start podman.socket`; a different endpoint is named with --host, DOCKER_HOST or \
                 CONTAINER_HOST"
                    .to_owned(),
            ),
            Self::Unsupported { advice, .. } => advice.clone(),
            Self::OtherEngine { .. } => {
                Some("name the engine that has it with --host or DOCKER_HOST; nothing was changed".to_owned())
            }
            Self::PermissionDenied { .. } => Some(
                "add your user to the socket's group (usually `sudo usermod -aG docker $USER`, then log in again)"
                    .to_owned(),
            ),
            Self::ForeignFilesystem { .. } => Some(
                "prompt files are mounted from this machine, so the engine must run on it: unset DOCKER_HOST or \
                 name a local socket with --host"
                    .to_owned(),
            ),
            Self::ImageMissing { image } if image.starts_with(OUR_IMAGES) => {
                let agent = image[OUR_IMAGES.len()..].split([':', '@']).next().unwrap_or_default();
                Some(format!("`dark-factory image build {agent}` makes it; --image IMAGE names another"))
            }
            Self::ImageMissing { image } => {
                Some(format!("build or load it, run `docker pull {image}`, or use --pull missing"))
            }
            // It is of this machine, and was looked at.
            Self::Pull { image, .. } if image.starts_with('/') => None,
            Self::Pull { .. } => Some(
                "check its name, the connection to its registry and your login there (`docker login`), or build or load the image on this machine"
                    .to_owned(),
            ),
            Self::BadImageReference { .. } => {
                Some("write it as [registry/]name[:tag], for example debian:12".to_owned())
            }
            Self::NotOurs { name } => {
                Some(format!("`docker stop {name}` stops it, if that is what you want"))
            }
            Self::NameTaken { name, .. } => {
                Some(format!("remove it if you do not need it (`docker rm {name}`), or use another name"))
            }
            _ => None,
        }
    }

    /// Returns the error and its causes as one sentence.
    pub fn sentence(&self) -> String {
        sentence(self)
    }

    /// Returns whether the engine said no, as opposed to saying nothing.
    pub(crate) fn is_refusal(&self) -> bool {
        self.fate() == Fate::Refused
    }
}

/// Writes an error and its causes as one text, without saying the same thing twice.
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
