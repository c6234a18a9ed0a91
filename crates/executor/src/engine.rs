//! The engine contract: what supervision needs of Docker, of the embedded sandbox, of Kubernetes.
//!
//! Owns: the traits, their data, and their errors.
//! Reads: launch specs.
//! Never: implements an engine or decides an outcome.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dark_factory_types::{AttemptId, ByteSize, ImageRecord, OwnerId};
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWrite;

use crate::spec::{AttemptDir, LaunchSpec, PullPolicy, StopPolicy};

/// The cause of an engine error, as the engine's client knows it.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An engine operation that did not complete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The engine could not be contacted, or did not answer within the operation's deadline.
    #[error("container engine at {endpoint} does not answer when asked to {operation}")]
    Unreachable {
        /// Where it was looked for.
        endpoint: String,
        /// What we were doing.
        operation: &'static str,
        /// The client's error.
        source: Cause,
    },
    /// The engine is there, but this user may not use it.
    #[error("no permission to use the container engine at {endpoint}")]
    PermissionDenied {
        /// Where it is.
        endpoint: String,
        /// The client's error.
        source: Cause,
    },
    /// The engine does not see this machine's files, so nothing of ours can be mounted.
    #[error("container engine at {endpoint} does not see this machine's files")]
    ForeignFilesystem {
        /// Where it is.
        endpoint: String,
    },
    /// The engine is not one that we can use.
    #[error("container engine at {endpoint} is not usable: {reason}")]
    Unsupported {
        /// Where it is.
        endpoint: String,
        /// What is missing.
        reason: String,
        /// What to do about it, if that is known.
        advice: Option<String>,
    },
    /// The image is not there, and the pull policy forbids pulling it.
    #[error("image {image} is not on the engine, and the pull policy is never")]
    ImageMissing {
        /// The image's reference.
        image: String,
    },
    /// The image's reference cannot be parsed by the engine.
    #[error("{image:?} is not an image reference")]
    BadImageReference {
        /// What was given.
        image: String,
    },
    /// The image could not be pulled.
    #[error("image {image} cannot be pulled")]
    Pull {
        /// The image's reference.
        image: String,
        /// The engine's error.
        source: Cause,
    },
    /// Something that is not this attempt's container has its name.
    #[error("container name {name} is taken by a container that is not this attempt's ({holder})")]
    NameTaken {
        /// The name.
        name: String,
        /// The holder's id, and what is known of it.
        holder: String,
    },
    /// The engine refused to create the container.
    #[error("the engine refused to create container {name}: {reason}")]
    CreateRefused {
        /// The container's name.
        name: String,
        /// The engine's words.
        reason: String,
    },
    /// The engine refused to start the container; it never ran.
    #[error("the engine refused to start container {name}: {reason}")]
    StartRefused {
        /// The container's name.
        name: String,
        /// The engine's words.
        reason: String,
    },
    /// The container's helper did not ask for its spool.
    #[error("container {name} did not take its output spool: {reason}")]
    Handover {
        /// The container's name.
        name: String,
        /// What happened instead.
        reason: String,
    },
    /// There is no such container.
    #[error("there is no container {name}")]
    NoSuchContainer {
        /// The container's name or id.
        name: String,
    },
    /// Another engine has the container, so what this one says of it counts for nothing.
    #[error("the container engine at {endpoint} is not the one of container {name}")]
    OtherEngine {
        /// Where this one is.
        endpoint: String,
        /// The container's name.
        name: String,
    },
    /// The container is not one that we or the seed made, so it is left alone.
    #[error("container {name} was not made by dark-factory and is left alone")]
    NotOurs {
        /// The container's name or id.
        name: String,
    },
    /// A local file that the engine's work needs could not be used.
    #[error("{operation} failed")]
    Local {
        /// What we were doing.
        operation: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// The engine failed in a way that the operation does not foresee.
    #[error("the engine failed to {operation}")]
    Failed {
        /// What we were doing.
        operation: String,
        /// The client's error.
        source: Cause,
    },
}

/// Whether an operation that failed may succeed if it is tried again unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It may: nothing is known, and no state may be changed because of it.
    Unknown,
    /// It will not: the engine said no.
    Refused,
}

impl EngineError {
    /// Returns whether the engine refused, or nothing is known.
    pub fn fate(&self) -> Fate {
        match self {
            // An engine that cannot be used, or another one, says nothing about what it holds.
            Self::Unreachable { .. }
            | Self::OtherEngine { .. }
            | Self::PermissionDenied { .. }
            | Self::ForeignFilesystem { .. }
            | Self::Unsupported { .. }
            | Self::Failed { .. }
            | Self::Local { .. } => Fate::Unknown,
            Self::ImageMissing { .. }
            | Self::BadImageReference { .. }
            | Self::Pull { .. }
            | Self::NameTaken { .. }
            | Self::CreateRefused { .. }
            | Self::StartRefused { .. }
            | Self::Handover { .. }
            | Self::NoSuchContainer { .. }
            | Self::NotOurs { .. } => Fate::Refused,
        }
    }
}

/// Whether an engine is known, for certain, from an earlier check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognized {
    /// It is, and it could be used.
    Yes,
    /// Nothing is known of it, or it may be another one.
    No,
}

/// What an engine can do, as it was probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The engine's version.
    pub version: String,
    /// The API version that was negotiated.
    pub api_version: String,
    /// The limits that the host can keep.
    pub limits: Vec<LimitKind>,
    /// What becomes of containers when the engine goes down.
    pub on_restart: OnRestart,
    /// What else a launch may ask for and this engine does not have; resolving refuses it.
    #[serde(default)]
    pub lacks: Vec<Feature>,
    /// The only user and group that agents can be, where the engine lacks [`Feature::OtherUsers`].
    #[serde(default)]
    pub only_user: Option<(u32, u32)>,
}

/// Something that a launch may ask for, and that not every engine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// The transport `attach`: the engine itself carries the agent's output.
    Attach,
    /// The seed's profile: privileges over the network, and the image's own user and entrypoint.
    SeedProfile,
    /// A user other than the one whom the engine belongs to.
    OtherUsers,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Attach, Self::SeedProfile, Self::OtherUsers];
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attach => "transport attach",
            Self::SeedProfile => "profile seed",
            Self::OtherUsers => "user other than yours",
        })
    }
}

/// What an engine says of itself, for people; nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// What it can do.
    pub capabilities: Capabilities,
    /// How it works, as pairs of a name and a value: `storage driver`, `overlay2`.
    pub facts: Vec<(&'static str, String)>,
    /// The folder of its data, on its own machine.
    pub data_dir: Option<std::path::PathBuf>,
    /// The time on its own clock.
    pub time: Option<Timestamp>,
}

/// What becomes of running containers when their engine goes down and comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRestart {
    /// They run on: Docker's live-restore.
    Survive,
    /// The engine ends them.
    End,
}

/// A limit that an engine may or may not be able to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// Memory and swap.
    Memory,
    /// CPU time.
    Cpus,
    /// Processes and threads.
    Pids,
}

impl LimitKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Cpus, Self::Pids];
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Cpus => "cpus",
            Self::Pids => "pids",
        })
    }
}

/// A created container as data: enough to find it again in another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// The engine's name.
    pub engine: String,
    /// The attempt that it belongs to.
    pub attempt: AttemptId,
    /// The container's name.
    pub container: String,
    /// Version of `state`.
    pub version: u32,
    /// The engine's own data.
    pub state: serde_json::Value,
}

/// How a container ended, as the engine tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineExit {
    /// The exit code; above 128 it may stand for a signal.
    pub code: i64,
    /// Whether the engine saw the kernel kill something in it for lack of memory.
    pub oom_killed: OomSeen,
    /// The engine's own error text, if any.
    pub error: Option<String>,
    /// Who ended it, as far as the engine knows.
    pub ended_by: EndedBy,
}

/// Who ended a container, as far as its engine knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndedBy {
    /// The engine does not say: its own main process, or a signal that went past the engine.
    #[default]
    Unknown,
    /// Somebody asked the engine to send this signal; it may have been us.
    Request {
        /// The signal's number.
        signal: i32,
    },
    /// The engine went down and took the container with it.
    EngineDown,
}

/// Whether the engine saw an out-of-memory kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomSeen {
    /// It did not.
    No,
    /// It did.
    Yes,
}

/// What became of a container that another process created.
#[derive(Debug)]
pub enum Recovered {
    /// It was never started, whatever exit code the engine shows; the workload can only be removed.
    Created(Box<dyn Workload>),
    /// It runs.
    Running(Box<dyn Workload>),
    /// It ended.
    Exited(EngineExit, Box<dyn Workload>),
    /// The engine does not know it any more.
    Gone,
}

/// A container of ours that an engine holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedContainer {
    /// The container's name.
    pub name: String,
    /// The engine's id.
    pub id: String,
    /// The attempt's label, if it can be read.
    pub attempt: Option<AttemptId>,
    /// When it was created, if the engine says so.
    pub created_at: Option<Timestamp>,
    /// Whether it may have living processes, frozen ones included.
    pub is_running: bool,
}

/// An image of what an ended container wrote, which no container has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedImage {
    /// The image's name.
    pub name: String,
    /// The engine's id.
    pub id: String,
    /// The attempt's label, if it can be read.
    pub attempt: Option<AttemptId>,
    /// When it was made, if the engine says so.
    pub created_at: Option<Timestamp>,
}

/// A program that is to be executed in a container, beside what runs there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables besides those of the container.
    pub env: BTreeMap<String, String>,
    /// The terminal that it is given; without one it has three pipes.
    pub terminal: Option<TerminalSize>,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters of a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Where a program that is executed has written something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// To its standard output, or to its terminal.
    Output,
    /// To its standard error.
    Error,
}

/// A program that is executed in a container.
pub struct Executed {
    /// Its standard input, or what is typed into its terminal; shut down, it has ended.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// What it writes, until it has ended and whatever else holds its output.
    pub output: BoxStream<'static, io::Result<(Channel, Vec<u8>)>>,
    /// Itself.
    pub program: Arc<dyn Program>,
}

impl fmt::Debug for Executed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executed")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// A program that was executed in a container.
#[async_trait]
pub trait Program: Send + Sync + fmt::Debug {
    /// Changes the size of its terminal; one that has ended, or has not begun yet, is no error.
    ///
    /// # Errors
    ///
    /// [`EngineError::Unreachable`] if the engine does not answer.
    async fn resize(&self, size: TerminalSize) -> Result<(), EngineError>;

    /// Returns its exit code once its output has ended.
    ///
    /// # Errors
    ///
    /// Whatever keeps the engine from saying so.
    async fn exit_code(&self) -> Result<i64, EngineError>;
}

/// What a running container has used, and uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// When it was measured, by the engine's clock.
    pub at: Timestamp,
    /// CPU time since its start.
    pub cpu: Duration,
    /// Memory, without what the kernel could drop at once.
    pub memory: ByteSize,
    /// The most memory that it may have.
    pub memory_limit: Option<ByteSize>,
    /// The most memory that it had, if the engine knows.
    pub memory_peak: Option<ByteSize>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Received and sent, if it has a network.
    pub network: Option<Traffic>,
    /// Read from and written to disks, if the engine knows.
    pub block: Option<Traffic>,
}

/// Bytes in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Received, or read.
    pub inward: ByteSize,
    /// Sent, or written.
    pub outward: ByteSize,
}

/// A running copy of an ended container.
#[derive(Debug)]
pub struct Reopened {
    /// What it is as the engine lists it: [`Engine::remove_owned`] removes it.
    pub container: OwnedContainer,
    /// It, running.
    pub workload: Box<dyn Workload>,
}

/// What an engine says about a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullNews<'a> {
    /// A step of the pull or of one layer, in the engine's words.
    Step(&'a str),
    /// How much of it is done.
    Amount(PullAmount),
}

/// How much of a pull is done, as far as the engine has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PullAmount {
    /// Layers that are there.
    pub layers: usize,
    /// Layers that the engine has named.
    pub all_layers: usize,
    /// Bytes that were fetched of those layers whose length is known.
    pub bytes: ByteSize,
    /// Length of those layers.
    pub all_bytes: ByteSize,
}

/// Receives what is said about a pull.
pub type PullProgress<'a> = &'a mut (dyn FnMut(PullNews<'_>) + Send);

/// A container engine.
///
/// Every method has a deadline of its own and none waits for the workload. Errors with [`Fate::Unknown`] say
/// nothing about the container.
#[async_trait]
pub trait Engine: Send + Sync + fmt::Debug {
    /// Returns the engine's name: `docker`.
    fn name(&self) -> &'static str;

    /// Returns where the engine is, as a person names it.
    fn endpoint(&self) -> String;

    /// Asks the engine who it is: a text that stays the same as long as its containers do; `None` if it has none.
    ///
    /// # Errors
    ///
    /// Whatever keeps the engine from saying so.
    async fn identity(&self) -> Result<Option<String>, EngineError>;

    /// Contacts the engine and finds out what it can do, including whether it sees the folder `probe_dir`.
    ///
    /// # Errors
    ///
    /// [`EngineError::Unreachable`], [`EngineError::PermissionDenied`], [`EngineError::ForeignFilesystem`] or
    /// [`EngineError::Unsupported`].
    async fn probe(&self, probe_dir: &std::path::Path) -> Result<Capabilities, EngineError>;

    /// Contacts the engine, and says whether an earlier [`Engine::check`], whose result is in the folder `notes`, holds
    /// of it for certain.
    ///
    /// # Errors
    ///
    /// [`EngineError::Unreachable`], [`EngineError::PermissionDenied`] or [`EngineError::Unsupported`].
    async fn recognize(&self, notes: &std::path::Path) -> Result<Recognized, EngineError>;

    /// Contacts the engine and makes sure that it can be used: less than what [`Engine::probe`] asks for. What it finds
    /// may be left in the folder `notes`, for [`Engine::recognize`] of later processes.
    ///
    /// # Errors
    ///
    /// As [`Engine::probe`].
    async fn check(
        &self,
        probe_dir: &std::path::Path,
        notes: &std::path::Path,
    ) -> Result<(), EngineError>;

    /// Contacts the engine and has it describe itself.
    ///
    /// # Errors
    ///
    /// [`EngineError::Unreachable`], [`EngineError::PermissionDenied`] or [`EngineError::Unsupported`].
    async fn describe(&self) -> Result<Description, EngineError>;

    /// Returns what the engine can do, as the latest [`Engine::recognize`] or [`Engine::check`] of this object found it; it
    /// is asked only if neither did.
    ///
    /// # Errors
    ///
    /// As [`Engine::describe`].
    async fn capabilities(&self) -> Result<Capabilities, EngineError> {
        Ok(self.describe().await?.capabilities)
    }

    /// Makes sure that the image is there, and says which one it is.
    ///
    /// # Errors
    ///
    /// [`EngineError::ImageMissing`], [`EngineError::BadImageReference`] or [`EngineError::Pull`].
    async fn ensure_image(
        &self,
        image: &str,
        policy: PullPolicy,
        progress: PullProgress<'_>,
    ) -> Result<ImageRecord, EngineError>;

    /// Creates the container of an attempt, or finds the one that an earlier call created.
    ///
    /// Something else holding the name is never touched.
    ///
    /// # Errors
    ///
    /// [`EngineError::NameTaken`] or [`EngineError::CreateRefused`].
    async fn create(
        &self,
        spec: &LaunchSpec,
        owner: &OwnerId,
        dir: &AttemptDir,
    ) -> Result<Handle, EngineError>;

    /// Starts the container and makes its output flow into the attempt's spool; already started is success.
    ///
    /// With the spool transport: listens, starts, hands over the spool's descriptor unless the spool shows that
    /// this was done. With attach: attaches, then starts; for a container that already runs, the output that was
    /// missed is read from the engine's log and marked as a gap.
    ///
    /// # Errors
    ///
    /// [`EngineError::StartRefused`] if the engine refused, [`EngineError::Handover`] if the container runs
    /// without having taken its spool.
    async fn start(
        &self,
        spec: &LaunchSpec,
        handle: &Handle,
        dir: &AttemptDir,
    ) -> Result<Box<dyn Workload>, EngineError>;

    /// Finds out what became of a container, from its handle alone; changes nothing.
    ///
    /// Whoever takes over a running one calls [`Engine::start`] again, which then only makes its output flow.
    ///
    /// # Errors
    ///
    /// Whatever keeps the engine from saying so.
    async fn recover(&self, handle: &Handle) -> Result<Recovered, EngineError>;

    /// Lists every container, running or not, that carries the owner's label.
    ///
    /// # Errors
    ///
    /// Whatever keeps the engine from saying so.
    async fn list_owned(&self, owner: &OwnerId) -> Result<Vec<OwnedContainer>, EngineError>;

    /// Removes a container that [`Engine::list_owned`] returned, killing it if it runs; one that is gone is no error.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotOurs`] if it does not carry the owner's label, or whatever keeps the engine from doing so.
    async fn remove_owned(
        &self,
        owner: &OwnerId,
        container: &OwnedContainer,
    ) -> Result<(), EngineError>;

    /// Lists every image for [`Engine::reopen`] that carries the owner's label and has no container: one that was being
    /// made, or whose maker died.
    ///
    /// # Errors
    ///
    /// Whatever keeps the engine from saying so.
    async fn list_owned_images(&self, owner: &OwnerId) -> Result<Vec<OwnedImage>, EngineError>;

    /// Removes an image that [`Engine::list_owned_images`] returned; one that is gone, or that has a container by now, is
    /// no error.
    ///
    /// # Errors
    ///
    /// Whatever keeps the engine from doing so.
    async fn remove_owned_image(&self, image: &OwnedImage) -> Result<(), EngineError>;

    /// Makes and starts a container with the files of an ended one, in which nothing happens by itself.
    ///
    /// It has the ended one's user, mounts, limits and network, and neither its secrets nor what was in its memory
    /// file systems. It is named `name`, and belongs to the same attempt.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoSuchContainer`], [`EngineError::CreateRefused`] or [`EngineError::StartRefused`].
    async fn reopen(
        &self,
        spec: &LaunchSpec,
        owner: &OwnerId,
        dir: &AttemptDir,
        ended: &Handle,
        name: &str,
    ) -> Result<Reopened, EngineError>;
}

/// A container that was started.
#[async_trait]
pub trait Workload: Send + Sync + fmt::Debug {
    /// Returns the container as data.
    fn handle(&self) -> &Handle;

    /// Waits until the container has ended, and says how.
    ///
    /// Repeatable, also after the end; cancel-safe.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoSuchContainer`] if the engine does not know it any more; [`EngineError::Unreachable`]
    /// says nothing about it.
    async fn wait(&self) -> Result<EngineExit, EngineError>;

    /// Stops the container, giving it time to leave by itself.
    ///
    /// Sends the policy's signal, waits up to its grace, then tells the helper to kill all processes and to
    /// finish the record, and only if that fails has the engine kill the container. Returns once the engine
    /// says that it has ended. One that has already ended is no error.
    ///
    /// Cancel-safe: dropping the future leaves the signal sent and starts no kill.
    ///
    /// # Errors
    ///
    /// [`EngineError::Unreachable`] if the engine does not answer.
    async fn stop(&self, policy: &StopPolicy) -> Result<(), EngineError>;

    /// Freezes all of the container's processes; one that is frozen already is no error.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoSuchContainer`] if it has ended, or whatever keeps the engine from doing so.
    async fn pause(&self) -> Result<(), EngineError>;

    /// Lets the container's processes go on; one that is not frozen is no error.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoSuchContainer`] if it has ended, or whatever keeps the engine from doing so.
    async fn unpause(&self) -> Result<(), EngineError>;

    /// Executes a program in the container, as the user that the agent is, beside the agent.
    ///
    /// A program that cannot be executed ends with code 126 or 127, and its output says why.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoSuchContainer`] if it has ended, or whatever keeps the engine from doing so.
    async fn exec(&self, execution: &Execution) -> Result<Executed, EngineError>;

    /// Measures what the container uses.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoSuchContainer`] if it has ended, or whatever keeps the engine from doing so.
    async fn usage(&self) -> Result<Usage, EngineError>;

    /// Measures what was written into the container's own file system: not into mounts, and not into memory. `None` if the
    /// engine cannot say.
    ///
    /// It may take as long as looking at every file does.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoSuchContainer`] if it is gone, or whatever keeps the engine from doing so.
    async fn disk_usage(&self) -> Result<Option<ByteSize>, EngineError>;

    /// Removes the ended container; one that is gone already is no error.
    ///
    /// # Errors
    ///
    /// Whatever keeps the engine from doing so.
    async fn remove(&self) -> Result<(), EngineError>;
}
