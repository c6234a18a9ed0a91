//! The report of an attempt, and the line that `run --json` prints.
//!
//! Owns: the written formats `report.json` and the run summary.
//! Reads: nothing.
//! Never: computes any of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    AttemptId, ByteSize, CpuCount, EgressRule, EgressSummary, Exit, OutcomeKind, RunId, StopReason,
    Usage, Verdict,
};

/// Version of the report's format that this build writes; a reader refuses a newer one.
pub const REPORT_VERSION: u32 = 1;

/// Whether the raw log holds every byte that the agent printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogState {
    /// Every byte: the exit record is there and its totals match.
    Complete,
    /// An exact prefix, or exact but for recorded gaps.
    #[default]
    Incomplete,
}

/// How output left the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// The helper wrote numbered records to a sealed spool.
    #[default]
    Spool,
    /// Read from the engine's attach stream: exact while connected, each gap recorded.
    Attach,
}

/// What network a container has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// None but loopback.
    None,
    /// The engine's bridge: everything that the host reaches.
    #[default]
    Open,
    /// None but loopback, and what these rules name through the guard.
    Allow(Vec<EgressRule>),
}

/// The image that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// As it was asked for.
    pub reference: String,
    /// The digest of the image's content: the repository digest where there is one, else the image id.
    pub digest: String,
}

/// The limits that were set on the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LimitsRecord {
    /// Memory and swap together, in bytes.
    pub memory: Option<ByteSize>,
    /// CPU time.
    pub cpus: Option<CpuCount>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Bytes of one file.
    #[serde(default)]
    pub file_size: Option<ByteSize>,
    /// Files that one process has open.
    #[serde(default)]
    pub open_files: Option<u32>,
    /// Wall time in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Time without any output in milliseconds.
    #[serde(default)]
    pub idle_ms: Option<u64>,
    /// Output of both streams together, in bytes.
    #[serde(default)]
    pub log: Option<ByteSize>,
    /// What is written into the container's own file system, in bytes.
    #[serde(default)]
    pub disk: Option<ByteSize>,
}

/// What an attempt changed in its workspace, as a whole.
///
/// The counts are `None` where they are not known; the note then says why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changes {
    /// How many files.
    pub files: Option<u64>,
    /// Lines that were added, those of binary files not counted.
    pub insertions: Option<u64>,
    /// Lines that were removed, those of binary files not counted.
    pub deletions: Option<u64>,
    /// The patch's absolute path; `None` if there is none.
    pub patch: Option<String>,
    /// What a person should know about it: why there is no patch, or what is not in it.
    pub note: Option<String>,
}

/// What an attempt changed in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedFile {
    /// Its path below the workspace; what is not UTF-8 in it is replaced.
    pub path: String,
    /// The path that it had before, if it was renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
    /// Lines that were added; `None` for a binary file.
    pub insertions: Option<u64>,
    /// Lines that were removed; `None` for a binary file.
    pub deletions: Option<u64>,
}

/// Everything that is known of a finished attempt: the content of `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this format.
    pub version: u32,
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The prompt file's absolute path, or `-` where the prompt was not a file.
    pub file: String,
    /// The engine's name.
    pub engine: String,
    /// The agent's name.
    pub agent: String,
    /// The container's name.
    pub container: String,
    /// The image that ran; `None` if it never got so far.
    pub image: Option<ImageRecord>,
    /// How the run ended.
    pub outcome: OutcomeKind,
    /// Why, one sentence.
    pub cause: String,
    /// How the main process ended; `None` if we failed before there was one.
    pub exit: Option<Exit>,
    /// What the agent claims.
    pub verdict: Verdict,
    /// Why we stopped it, if we did.
    pub stop_reason: Option<StopReason>,
    /// Whether the raw log is whole.
    pub log: LogState,
    /// How the output was read.
    pub transport: Transport,
    /// Whether the agent had the means to alter its own record.
    #[serde(default)]
    pub unsealed: bool,
    /// Whether the agent ran as uid 0 under the hardened profile, as it does where the workspace belongs to root.
    #[serde(default)]
    pub root_owner: bool,
    /// The limits that were set.
    pub limits: LimitsRecord,
    /// What the agent used.
    pub usage: Usage,
    /// The model, as the agent says it.
    pub model: Option<String>,
    /// The agent's own conversation id.
    pub session_id: Option<String>,
    /// Peak memory of the container in bytes, where it could be read.
    pub peak_memory: Option<ByteSize>,
    /// The tool that the agent called last.
    #[serde(default)]
    pub last_tool: Option<String>,
    /// Processes that the kernel killed for lack of memory, where it could be read.
    pub oom_kills: Option<u64>,
    /// The name of the last of them, where it is known; a process may choose its own.
    #[serde(default)]
    pub oom_victim: Option<String>,
    /// CPU time of the agent's processes in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Bytes of `raw.jsonl`.
    pub stdout_bytes: u64,
    /// Bytes of `stderr.log`.
    pub stderr_bytes: u64,
    /// What the attempt changed in its workspace; `None` if nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
    /// The files that it changed, those of the most changed lines if there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed_files: Vec<ChangedFile>,
    /// What came of its requests to the outside; `None` if nobody stood between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressSummary>,
    /// Things that a person should know and that did not decide the outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// When the attempt was recorded.
    pub created_at: Timestamp,
    /// When the container was started; `None` if it never was.
    pub started_at: Option<Timestamp>,
    /// When the outcome was decided.
    pub finished_at: Timestamp,
}

/// One line of `run --json` and `ps --json`: a finished run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The run.
    pub run_id: RunId,
    /// The prompt file's path.
    pub file: String,
    /// The engine's name.
    pub engine: String,
    /// How it ended.
    pub outcome: OutcomeKind,
    /// Why, one sentence.
    pub cause: String,
    /// Whether the raw log is whole.
    pub log: LogState,
    /// The main process's exit code, or null.
    pub exit_code: Option<i32>,
    /// The attempt's folder.
    pub dir: String,
    /// What the agent used.
    pub usage: Usage,
    /// What it changed in its workspace; `None` if nobody looked.
    #[serde(default)]
    pub changes: Option<Changes>,
    /// When the container was started.
    pub started_at: Option<Timestamp>,
    /// When the outcome was decided.
    pub finished_at: Timestamp,
}

impl RunSummary {
    /// Summarises a report whose files are in `dir`.
    pub fn of(report: &Report, dir: String) -> Self {
        Self {
            run_id: report.attempt_id.run(),
            file: report.file.clone(),
            engine: report.engine.clone(),
            outcome: report.outcome,
            cause: report.cause.clone(),
            log: report.log,
            exit_code: report.exit.and_then(|exit| exit.code()),
            dir,
            usage: report.usage,
            changes: report.changes.clone(),
            started_at: report.started_at,
            finished_at: report.finished_at,
        }
    }
}
