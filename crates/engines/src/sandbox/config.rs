//! What the engine and the shim of a sandbox say to each other: files in the sandbox's folder.
//!
//! Owns: the files' names and their forms.
//! Reads: nothing.
//! Never: makes a sandbox, or decides what is in one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dark_factory_types::{AttemptId, ByteSize, OwnerId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Hidden first argument with which a program becomes the shim of the sandbox whose folder follows.
pub const SHIM_ARG: &str = "__sandbox-shim";
/// After [`SHIM_ARG`]: executes a program in the running sandbox whose folder follows, after it an [`ExecRequest`] as
/// JSON. The program has the caller's descriptors 0, 1 and 2; a terminal on 0 becomes its controlling terminal. The exit
/// code is the program's, 128 and the signal if one ended it, and, with a line on stderr, 127 if there is no such program
/// and [`EXIT_NOT_EXECUTED`] if it could not be executed.
pub const EXEC_ARG: &str = "exec";
/// Exit code: the program was not executed in the sandbox.
pub const EXIT_NOT_EXECUTED: u8 = 126;
/// File: [`SandboxConfig`], written before the sandbox is started and never changed.
pub const CONFIG_FILE: &str = "config.json";
/// File: locked by the shim as long as it lives.
pub const LOCK_FILE: &str = "lock";
/// File: [`ShimRecord`], written before anything of the sandbox runs.
pub const SHIM_FILE: &str = "shim.json";
/// File: [`ExitRecord`], written once everything in the sandbox has ended.
pub const EXIT_FILE: &str = "exit.json";
/// File: what the shim has to say, for people.
pub const SHIM_LOG: &str = "shim.log";

/// Everything about one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Version of this form: 1.
    pub version: u32,
    /// The attempt that it belongs to.
    pub attempt: AttemptId,
    /// The installation that made it.
    pub owner: OwnerId,
    /// When it was made.
    pub created_at: Timestamp,
    /// Labels, ours included.
    pub labels: BTreeMap<String, String>,
    /// What its root file system is made of; always read-only.
    pub root: Root,
    /// Host files and folders in it, in the order in which they are mounted.
    pub binds: Vec<SandboxBind>,
    /// Memory file systems in it, mounted before [`Self::binds`].
    pub tmpfs: Vec<Tmpfs>,
    /// What PID 1 is: our helper with its arguments, by paths in the sandbox.
    pub argv: Vec<String>,
    /// The whole environment of PID 1.
    pub env: BTreeMap<String, String>,
    /// Where PID 1 starts.
    pub workdir: String,
    /// Host name in it.
    pub hostname: String,
    /// Who PID 1 is, inside and outside alike.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// What network it has.
    pub network: Network,
    /// The limits that the engine has prepared.
    pub limits: SandboxLimits,
}

/// What the root file system of a sandbox is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// The machine's own system folders.
    Host,
    /// A folder that holds a whole root file system.
    Folder(PathBuf),
}

/// A host file or folder in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxBind {
    /// Absolute path on the host; symlinks are followed.
    pub source: PathBuf,
    /// Absolute path in the sandbox.
    pub target: PathBuf,
    /// Whether it may be written to.
    pub access: dark_factory_executor::spec::Access,
}

/// A memory file system in a sandbox, owned by its user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Absolute path in the sandbox.
    pub target: PathBuf,
    /// The most that it holds.
    pub size: ByteSize,
    /// The most files that it holds.
    pub files: u64,
    /// Permission bits of its root.
    pub mode: u32,
}

/// What network a sandbox has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Loopback only.
    Loopback,
    /// The machine's own.
    Host,
}

/// How the limits of a sandbox are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SandboxLimits {
    /// Folders of control groups that were made for it, with their limits set: the shim joins each before it starts
    /// anything, and removes none.
    pub cgroups: Vec<PathBuf>,
    /// What the engine writes into files of those groups before it starts the shim, which does not read this.
    #[serde(default)]
    pub settings: Vec<CgroupSetting>,
    /// Where no control group keeps memory: the most private memory of one process (`RLIMIT_DATA`: unlike address
    /// space, it does not count what runtimes only reserve).
    pub data: Option<ByteSize>,
    /// Where no control group keeps processes: the most processes of its user.
    pub processes: Option<u64>,
}

/// One line of a control group's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSetting {
    /// The file.
    pub file: PathBuf,
    /// What is written into it.
    pub value: String,
}

/// A program to execute in a running sandbox, as the sandbox's user and confined as its PID 1 is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The program, looked for in the `PATH` of its environment, and its arguments.
    pub argv: Vec<String>,
    /// What its environment has beyond the sandbox's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// The living shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimRecord {
    /// The boot in which it lives: `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// Its process id on the host.
    pub shim: i32,
    /// When it was started, in clock ticks since the boot: field 22 of `/proc/PID/stat`.
    pub shim_started: u64,
    /// The process id of the sandbox's PID 1 on the host, once there is one.
    pub init: Option<i32>,
    /// When that was started, in clock ticks since the boot.
    pub init_started: Option<u64>,
}

/// How everything in a sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// How PID 1 ended.
    pub ended: Ended,
    /// Whether the kernel killed something in it for lack of memory.
    pub oom_killed: bool,
    /// When.
    pub at: Timestamp,
}

/// How PID 1 of a sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It never ran: what could not be done, and the operating system's words.
    NotStarted(String),
}
