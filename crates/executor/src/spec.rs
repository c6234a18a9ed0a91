//! The launch spec: everything about one attempt that an engine needs, resolved and engine-neutral.
//!
//! Owns: the spec's shape, its written form, and what a person may see of it.
//! Reads: nothing.
//! Never: resolves anything; see `resolve`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dark_factory_types::{
    AttemptId, Budget, ByteSize, CpuCount, LimitsRecord, NetworkMode, Provider, Transport,
};
use serde::{Deserialize, Serialize};

/// Version of the spec's written form.
pub const SPEC_VERSION: u32 = 1;

/// Where the workspace is mounted, and where the agent starts, unless something else is asked for.
pub const WORKSPACE_TARGET: &str = "/workspace";
/// The folder of ours inside a container.
pub const CONTAINER_DIR: &str = "/.dark-factory";
/// The helper's path inside a container.
pub const CONTAINER_INIT: &str = "/.dark-factory/init";
/// Where the attempt's `mount` folder is mounted, read-only: handover socket and prompt file.
pub const CONTAINER_ATTEMPT: &str = "/.dark-factory/attempt";
/// The prompt file's path inside a container.
pub const CONTAINER_PROMPT: &str = "/.dark-factory/attempt/prompt.md";
/// The handover socket's path inside a container.
pub const CONTAINER_SOCKET: &str = "/.dark-factory/attempt/socket";
/// Socket of the guard in the container, where that is its only way out.
pub const CONTAINER_EGRESS: &str = "/.dark-factory/attempt/egress.sock";
/// Where secret files are mounted, read-only.
pub const CONTAINER_SECRETS: &str = "/run/secrets";
/// The environment variable that names the prompt file inside a container.
pub const PROMPT_FILE_ENV: &str = "DARK_FACTORY_PROMPT_FILE";
/// The home of an agent under the hardened profile: a tmpfs.
pub const HARDENED_HOME: &str = "/home/agent";

/// Label: the project; the seed's, so that both tools share one slot pool.
pub const LABEL_PROJECT: &str = "dark-factory.project";
/// Label: the prompt's base name; the seed's.
pub const LABEL_PROMPT: &str = "dark-factory.prompt";
/// Label: the installation that made the container.
pub const LABEL_OWNER: &str = "dark-factory.owner";
/// Label: the attempt that the container belongs to.
pub const LABEL_ATTEMPT: &str = "dark-factory.attempt";

/// Images whose names begin like this are made on the engine's own machine, and never pulled.
pub const OUR_IMAGES: &str = "dark-factory/";

/// Named defaults of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// No capabilities, no new privileges, read-only root, limits.
    #[default]
    Hardened,
    /// The seed's container; never implied.
    Seed,
}

impl Profile {
    /// Returns [`Profile::Hardened`].
    pub const fn hardened() -> Self {
        Self::Hardened
    }

    /// Returns [`Profile::Seed`].
    pub const fn seed() -> Self {
        Self::Seed
    }
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// Never: a missing image is an error.
    Never,
    /// Only if the engine does not have it.
    #[default]
    Missing,
    /// Before every run.
    Always,
}

/// Whether a mount may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Reading and writing.
    #[default]
    ReadWrite,
    /// Reading only.
    ReadOnly,
}

/// Whether the agent sees the workspace's `.git`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GitVisibility {
    /// It is part of the workspace.
    #[default]
    Visible,
    /// Something empty is mounted over it.
    Hidden,
}

/// A host folder or file inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path on the host, without `:`.
    pub source: PathBuf,
    /// Absolute path in the container, without `:`.
    pub target: String,
    /// Whether it may be written to.
    pub access: Access,
}

/// Who the agent runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum User {
    /// A numeric user and group.
    Ids {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// A name that the image knows; seed profile only.
    Named(String),
    /// Whoever the image says; seed profile only.
    Image,
}

impl User {
    /// Returns whether this is surely uid 0.
    pub fn is_root(&self) -> bool {
        matches!(self, Self::Ids { uid: 0, .. })
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ids { uid, gid } => write!(f, "{uid}:{gid}"),
            Self::Named(name) => f.write_str(name),
            Self::Image => Ok(()),
        }
    }
}

/// What the workload may use at most; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Memory and swap together.
    pub memory: Option<ByteSize>,
    /// CPU time.
    pub cpus: Option<CpuCount>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Bytes of one file, in whatever folder.
    #[serde(default)]
    pub file_size: Option<ByteSize>,
    /// Files that one process has open.
    #[serde(default)]
    pub open_files: Option<u32>,
    /// Wall time from the container's start.
    #[serde(with = "maybe_duration")]
    pub timeout: Option<Duration>,
    /// Time without any output.
    #[serde(default, with = "maybe_duration")]
    pub idle: Option<Duration>,
    /// Standard output and standard error together.
    #[serde(default)]
    pub log: Option<ByteSize>,
    /// What is written into the container's own file system: neither into a mount nor into memory.
    #[serde(default)]
    pub disk: Option<ByteSize>,
}

impl Limits {
    /// Returns the limits as a report holds them.
    pub fn record(&self) -> LimitsRecord {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        LimitsRecord {
            memory: self.memory,
            cpus: self.cpus,
            pids: self.pids,
            file_size: self.file_size,
            open_files: self.open_files,
            timeout_ms: self.timeout.map(milliseconds),
            idle_ms: self.idle.map(milliseconds),
            log: self.log,
            disk: self.disk,
        }
    }
}

/// How a workload is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopPolicy {
    /// The first signal, by name: `SIGTERM`.
    pub signal: String,
    /// How long the workload has to leave by itself; zero kills at once.
    #[serde(with = "duration")]
    pub grace: Duration,
}

impl StopPolicy {
    /// Kills at once.
    pub fn kill() -> Self {
        Self {
            grace: Duration::ZERO,
            ..Self::default()
        }
    }
}

impl Default for StopPolicy {
    fn default() -> Self {
        Self {
            signal: "SIGTERM".to_owned(),
            grace: Duration::from_secs(10),
        }
    }
}

/// What becomes of a container once its run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposal {
    /// It is removed.
    #[default]
    Remove,
    /// It is kept, for a person to look into.
    Keep,
}

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// In a variable of the host's environment: `env:VAR`.
    Env(String),
    /// In a file on the host: `file:PATH`; may begin with `~/`, else relative to the project.
    File(String),
}

/// What only the seed's container has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SeedSpec {
    /// Mounted at `/home/node/.claude`, writable.
    pub claude_dir: Option<PathBuf>,
    /// Mounted at `/home/node/.netrc`, read-only.
    pub netrc_file: Option<PathBuf>,
    /// Mounted at `/home/node/.gitconfig-extra`, read-only.
    pub gitconfig_file: Option<PathBuf>,
}

/// The workspace that the agent works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    /// The project's root on the host: absolute, symlinks resolved.
    pub source: PathBuf,
    /// Where it is mounted.
    pub target: String,
    /// Whether its `.git` is visible.
    pub git: GitVisibility,
    /// Whether its `.git`, if any, is a file (a worktree) rather than a folder; decides how it is hidden.
    pub git_is_file: bool,
}

/// Everything about one attempt that an engine needs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// Version of this form.
    pub version: u32,
    /// The prompt file's absolute path, or `-`.
    pub file: String,
    /// The project's name: the value of the project label, which a container without one does not have.
    pub project: String,
    /// The prompt's base name without `.md`: the value of the prompt label.
    pub prompt: String,
    /// The container's name; `None` derives one from project, prompt and attempt.
    pub container: Option<String>,
    /// The agent's name.
    pub agent: String,
    /// The profile that the defaults came from.
    pub profile: Profile,
    /// The image's reference.
    pub image: String,
    /// When it is pulled.
    pub pull: PullPolicy,
    /// The agent's argv; empty runs the image's own entrypoint and command.
    pub command: Vec<String>,
    /// Environment, the agent's own variables included. Configuration, not secrets.
    pub env: BTreeMap<String, String>,
    /// Names of variables that were asked for by name and taken from the caller's environment: hidden in logs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub env_from_host: BTreeSet<String>,
    /// Names of the secret files that the attempt's folder holds; their values are nowhere in the spec.
    pub secrets: Vec<String>,
    /// Where their values are, each file by its absolute path: a retry reads them again.
    #[serde(default)]
    pub secret_sources: BTreeMap<String, SecretSource>,
    /// Labels of the user's, besides ours.
    pub labels: BTreeMap<String, String>,
    /// The workspace.
    pub workspace: Workspace,
    /// Further mounts, in order.
    pub mounts: Vec<Mount>,
    /// The agent's working directory; empty for the image's own.
    pub workdir: String,
    /// Who the agent runs as.
    pub user: User,
    /// What it may use.
    pub limits: Limits,
    /// What network it has.
    pub network: NetworkMode,
    /// The providers whose keys stay outside, and that it uses through the guard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<Provider>,
    /// What it may use of them.
    #[serde(default, skip_serializing_if = "Budget::is_unlimited")]
    pub budget: Budget,
    /// How it is stopped.
    pub stop: StopPolicy,
    /// The engine that the attempt was queued for; `None` if whoever recorded it began with it.
    #[serde(default)]
    pub engine_identity: Option<String>,
    /// How long an agent that has given its result may take to leave; `None` is as long as it likes.
    #[serde(default, with = "maybe_duration")]
    pub completion_grace: Option<Duration>,
    /// How its output is read.
    pub transport: Transport,
    /// What becomes of its container.
    #[serde(default)]
    pub disposal: Disposal,
    /// Whether the agent is told its limits, behind the prompt.
    #[serde(default)]
    pub tell_limits: bool,
    /// What the prompt is known again by; `None` where it was brought to the disk before the attempt was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_digests: Option<PromptDigests>,
    /// The seed's own mounts; only under the seed profile.
    pub seed: SeedSpec,
}

/// The SHA-256 digests of a prompt's two files, in hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptDigests {
    /// Of the one that is as its author wrote it.
    pub written: String,
    /// Of the one that the agent gets.
    pub given: String,
}

impl fmt::Debug for LaunchSpec {
    /// Leaves out the environment and the command: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchSpec")
            .field("file", &self.file)
            .field("agent", &self.agent)
            .field("profile", &self.profile)
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

impl LaunchSpec {
    /// Returns whether the agent runs as uid 0 under the hardened profile: the workspace's owner is root, or uid 0 was
    /// asked for.
    pub fn is_root_owner(&self) -> bool {
        self.profile == Profile::Hardened && self.user.is_root()
    }

    /// Returns the container's name for an attempt: the spec's own, or `project-prompt-attempt` made safe.
    pub fn container_name(&self, attempt: AttemptId) -> String {
        if let Some(name) = &self.container {
            return name.clone();
        }
        safe_name(&self.project, &self.prompt, attempt)
    }
}

/// Returns `project-prompt-attempt` in the characters that an engine allows, not starting with a sign.
fn safe_name(project: &str, prompt: &str, attempt: AttemptId) -> String {
    let base: String = format!("{project}-{prompt}")
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
                c
            } else {
                '-'
            }
        })
        .take(80)
        .collect();
    match base.trim_matches(['-', '_']) {
        "" => format!("dark-factory-{attempt}"),
        base => format!("{base}-{attempt}"),
    }
}

/// The folder of one attempt: where everything about it is on the host.
///
/// The folder is private to us. `mount` and `secrets` inside it are what a container sees, read-only and
/// readable for any user id; nobody else on the host can reach them through the private parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptDir {
    attempt: AttemptId,
    path: PathBuf,
    init: PathBuf,
}

impl AttemptDir {
    /// Names the folder of `attempt` at `path`, whose containers run the helper executable `init`.
    pub fn new(attempt: AttemptId, path: PathBuf, init: PathBuf) -> Self {
        Self {
            attempt,
            path,
            init,
        }
    }

    /// Returns the attempt.
    pub fn attempt(&self) -> AttemptId {
        self.attempt
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the helper executable on the host.
    pub fn init(&self) -> &Path {
        &self.init
    }

    /// Returns the file whose change tells the supervisor to look into the store.
    pub fn nudge(&self) -> PathBuf {
        self.path.join("nudge")
    }

    /// Returns the spool.
    pub fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// Returns the folder that is mounted at [`CONTAINER_ATTEMPT`].
    pub fn mount(&self) -> PathBuf {
        self.path.join("mount")
    }

    /// Returns the prompt file inside the mounted folder: the prompt as the agent gets it.
    pub fn prompt(&self) -> PathBuf {
        self.path.join("mount/prompt.md")
    }

    /// Returns the prompt as its author wrote it, which stays after the end: a retry has the same.
    pub fn recorded_prompt(&self) -> PathBuf {
        self.path.join("prompt.md")
    }

    /// Returns the folder that is mounted at [`CONTAINER_SECRETS`].
    pub fn secrets(&self) -> PathBuf {
        self.path.join("secrets")
    }

    /// Returns the agent's stdout, byte for byte.
    pub fn raw_log(&self) -> PathBuf {
        self.path.join("raw.jsonl")
    }

    /// Returns the agent's stderr, byte for byte.
    pub fn stderr_log(&self) -> PathBuf {
        self.path.join("stderr.log")
    }

    /// Returns the log for people.
    pub fn run_log(&self) -> PathBuf {
        self.path.join("run.log")
    }

    /// Returns the log of events, for programs.
    pub fn event_log(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    /// Returns where a pump writes down how far it is.
    pub fn cursor(&self) -> PathBuf {
        self.path.join("cursor.json")
    }

    /// Returns what came of each request to the outside, one JSON object a line.
    pub fn egress_journal(&self) -> PathBuf {
        self.path.join("egress.jsonl")
    }

    /// Returns what was started.
    pub fn launch_json(&self) -> PathBuf {
        self.path.join("launch.json")
    }

    /// Returns the report for people.
    pub fn report_md(&self) -> PathBuf {
        self.path.join("report.md")
    }

    /// Returns what the attempt changed in its workspace, as a git patch.
    pub fn changes_patch(&self) -> PathBuf {
        self.path.join("changes.patch")
    }

    /// Returns the lines that it added and removed in each file.
    pub fn changes_stat(&self) -> PathBuf {
        self.path.join("changes.stat")
    }

    /// Returns the file that says that a person, or the retention, has given up the attempt's run.
    pub fn removed(&self) -> PathBuf {
        self.path.join("removed")
    }

    /// Returns the report.
    pub fn report_json(&self) -> PathBuf {
        self.path.join("report.json")
    }
}

mod duration {
    //! A duration as people write it: `1m 30s`.

    use std::time::Duration;

    use jiff::SignedDuration;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let signed = SignedDuration::try_from(*duration).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&format_args!("{signed:#}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }

    pub(super) fn parse(text: &str) -> Result<Duration, jiff::Error> {
        Duration::try_from(text.parse::<SignedDuration>()?)
    }
}

mod maybe_duration {
    //! A duration, or none.

    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::duration::parse(&text).map_err(serde::de::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_people_write_them() {
        let limits = Limits {
            timeout: Some(Duration::from_millis(90_500)),
            ..Limits::default()
        };

        let written = serde_json::to_value((limits, StopPolicy::kill())).unwrap();

        assert_eq!(written[0]["timeout"], "1m 30s 500ms");
        assert_eq!(written[1]["grace"], "0s");
        let read: (Limits, StopPolicy) = serde_json::from_value(written).unwrap();
        assert_eq!(read, (limits, StopPolicy::kill()));
    }

    #[test]
    fn a_container_is_named_after_project_prompt_and_attempt() {
        let attempt = dark_factory_types::RunId::from_random_bits(0).attempt(1);

        assert_eq!(
            safe_name("my project", "042-fix.it", attempt),
            "my-project-042-fix-it-000000000000-1"
        );
        assert_eq!(safe_name("", "-", attempt), "dark-factory-000000000000-1");
    }
}
