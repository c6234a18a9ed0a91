//! Settings of runs and of the tool, as any layer gives them: configuration files, front matter, environment, flags.
//!
//! Owns: the settings, where each came from, how layers of them combine, and their text forms.
//! Reads: text.
//! Never: looks at the host, or fills in a default; see `resolve`.

mod diagnostic;
mod keys;
mod node;
mod show;
mod text;
mod toml;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use dark_factory_types::{ByteSize, CpuCount, NetworkMode, Provider, Transport, Usd};
use serde::{Deserialize, Serialize};

use crate::spec::{GitVisibility, Profile, PullPolicy};

pub use crate::spec::SecretSource;
pub use diagnostic::{Diagnostic, Excerpt};
pub use keys::{ENV_PREFIX, IGNORED_KEYS, KEYS, Key, Scope, Shape};
pub use show::Entry;
pub use text::{
    EnvLine, SettingError, parse_api_base, parse_api_key, parse_completion_grace, parse_cost,
    parse_count, parse_cpus, parse_credentials, parse_engine, parse_env, parse_env_file,
    parse_grace, parse_jobs, parse_label, parse_memory, parse_mount, parse_network,
    parse_on_interrupt, parse_pids, parse_profile, parse_project_name, parse_providers, parse_pull,
    parse_secret, parse_signal, parse_time_limit, parse_timeout, parse_transport, parse_user,
    parse_uses,
};

pub(crate) use diagnostic::{Fault, Joined, Place};
pub(crate) use keys::{Source, read_settings, read_variable, suggest as suggest_key};
pub(crate) use node::{KeyNode, Node, Value};
pub(crate) use show::{MASK, Shown, is_secret_name, passwords, without_passwords};
pub(crate) use text::quoted;
pub(crate) use toml::parse as parse_toml;
pub(crate) use yaml::parse as parse_yaml;

/// A layer of settings; a later one is over an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The user's `config.toml`.
    User,
    /// The `.dark-factory.yaml` of a project of the seed.
    SeedProject,
    /// The project's `dark-factory.toml`.
    Project,
    /// The `[profile.NAME]` table that is chosen.
    Profile,
    /// The prompt file's front matter.
    FrontMatter,
    /// The environment's `DARK_FACTORY_…`.
    Environment,
    /// The command line.
    Flags,
}

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// In a file.
    File {
        /// The file, as it was named.
        file: String,
        /// Line in the file, counted from 1.
        line: u32,
        /// Column in the line, in characters, counted from 1.
        column: u32,
        /// The folder that its relative paths are below; `None` is the project's root.
        below: Option<Box<Path>>,
    },
    /// In a variable of the environment.
    Variable {
        /// Its name: `DARK_FACTORY_MEMORY`.
        variable: String,
    },
    /// On the command line.
    Flag {
        /// The flag with its hyphens: `--memory`.
        flag: &'static str,
    },
}

impl Origin {
    /// Returns a place in a file.
    pub(crate) fn file(file: &str, place: Place, below: Option<&Path>) -> Self {
        let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Self::File {
            file: file.to_owned(),
            line: count(place.line),
            column: count(place.column),
            below: below.map(Box::from),
        }
    }

    /// Returns the folder that a relative path written here is below, unless the setting has its own rule.
    pub(crate) fn folder<'a>(&'a self, root: &'a Path, cwd: &'a Path) -> &'a Path {
        match self {
            Self::File { below, .. } => below.as_deref().unwrap_or(root),
            Self::Variable { .. } | Self::Flag { .. } => cwd,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                file, line, column, ..
            } => write!(f, "{file}:{line}:{column}"),
            Self::Variable { variable } => f.write_str(variable),
            Self::Flag { flag } => f.write_str(flag),
        }
    }
}

/// A value that knows where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub origin: Origin,
}

impl<T> Sourced<T> {
    /// Returns a value that the flag `flag`, such as `--memory`, gave.
    pub fn flag(flag: &'static str, value: T) -> Self {
        Self {
            value,
            origin: Origin::Flag { flag },
        }
    }
}

/// A value of the environment.
#[derive(Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// As it was written.
    Text(String),
    /// The value that the variable of the same name has on the host.
    FromHost,
}

impl fmt::Debug for EnvValue {
    /// Leaves the text out: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(***)"),
            Self::FromHost => f.write_str("FromHost"),
        }
    }
}

/// Who the agent shall run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserSetting {
    /// Numeric ids; without a group, resolving chooses it.
    Ids {
        /// User id.
        uid: u32,
        /// Group id.
        gid: Option<u32>,
    },
    /// Names that the image knows: `node` or `node:staff`.
    Named(String),
}

/// A profile as it is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfileName {
    /// One of ours.
    BuiltIn(Profile),
    /// A `[profile.NAME]` table of a configuration file.
    Named(String),
}

impl From<Profile> for ProfileName {
    fn from(profile: Profile) -> Self {
        Self::BuiltIn(profile)
    }
}

/// A limit as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit<T> {
    /// `none`: there is no limit, whatever a lower layer or the defaults say.
    Off,
    /// There is this one.
    At(T),
}

impl<T> Limit<T> {
    /// Returns the limit, if there is one.
    pub fn at(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::At(limit) => Some(limit),
        }
    }
}

/// What Ctrl-C does to the runs of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnInterrupt {
    /// Once stops the agents, twice kills them.
    #[default]
    Stop,
    /// The runs go on, in a daemon.
    Detach,
}

/// Which container engine is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EngineChoice {
    /// The one that an endpoint names, else the first of those below that answers where it usually is.
    #[default]
    Auto,
    /// Docker, and no other.
    Docker,
    /// Podman, and no other.
    Podman,
    /// The embedded sandbox, which is no program of its own.
    Sandbox,
}

impl EngineChoice {
    /// Returns the word that [`parse_engine`] reads.
    pub fn word(self) -> String {
        self.shown()
    }
}

/// How an agent comes to its credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credentials {
    /// They stay outside: the guard puts them into the agent's requests.
    #[default]
    Broker,
    /// The agent's own credential folder is mounted, read-only.
    Mount,
    /// The image or the environment has them.
    None,
}

/// Where a provider's key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A variable of the environment of whoever supervises the run.
    Env(String),
    /// A file that only its owner may read.
    File(String),
    /// What a program prints; without a shell.
    Command(Vec<String>),
    /// The login in a configuration folder of Claude Code.
    ClaudeDir(String),
}

/// A mount as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExtraMount {
    /// Source on the host: may begin with `~/`, use `$VAR` and `${VAR}`, and be relative to the project.
    pub src: String,
    /// Absolute path in the container, never expanded.
    pub dst: String,
    /// Whether the container may only read it; `None` is read-write.
    pub read_only: Option<bool>,
    /// Whether a missing source is skipped instead of refused.
    pub optional: bool,
}

/// Settings of a run; none is required.
///
/// In a front matter the keys are the flags' names ([`KEYS`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The agent's name.
    pub agent: Option<Sourced<String>>,
    /// The image's reference.
    pub image: Option<Sourced<String>>,
    /// The model.
    pub model: Option<Sourced<String>>,
    /// Environment of the agent.
    pub env: BTreeMap<String, Sourced<EnvValue>>,
    /// Files with further environment, in order.
    pub env_file: Vec<Sourced<String>>,
    /// Mounts besides the workspace, in order.
    pub mounts: Vec<Sourced<ExtraMount>>,
    /// Wall time from the container's start.
    pub timeout: Option<Sourced<Limit<Duration>>>,
    /// Time without any output.
    pub idle_timeout: Option<Sourced<Limit<Duration>>>,
    /// How long an agent that has given its result may take to leave.
    pub completion_grace: Option<Sourced<Limit<Duration>>>,
    /// Most output, standard output and standard error together.
    pub log_limit: Option<Sourced<Limit<ByteSize>>>,
    /// Memory and swap together.
    pub memory: Option<Sourced<Limit<ByteSize>>>,
    /// CPU time.
    pub cpus: Option<Sourced<Limit<CpuCount>>>,
    /// Processes and threads.
    pub pids: Option<Sourced<Limit<u32>>>,
    /// Bytes of one file.
    pub file_size: Option<Sourced<Limit<ByteSize>>>,
    /// Limit of what is written into the container's own file system.
    pub disk_limit: Option<Sourced<Limit<ByteSize>>>,
    /// Files that one process has open.
    pub open_files: Option<Sourced<Limit<u32>>>,
    /// Who the agent runs as.
    pub user: Option<Sourced<UserSetting>>,
    /// The network.
    pub network: Option<Sourced<NetworkMode>>,
    /// Whether the agent sees the workspace's `.git`.
    pub git: Option<Sourced<GitVisibility>>,
    /// Labels of the container.
    pub labels: BTreeMap<String, Sourced<String>>,
    /// When the image is pulled.
    pub pull: Option<Sourced<PullPolicy>>,
    /// The project's root folder: relative to the prompt file's folder in a file, to the working directory as a flag.
    pub project: Option<Sourced<String>>,
    /// The profile.
    pub profile: Option<Sourced<ProfileName>>,
    /// Program and arguments for the `command` agent.
    pub command: Option<Sourced<Vec<String>>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Sourced<SecretSource>>,
    /// The agent's working directory in the container.
    pub workdir: Option<Sourced<String>>,
    /// Where the workspace is mounted in the container.
    pub workspace: Option<Sourced<String>>,
    /// How output leaves the container.
    pub transport: Option<Sourced<Transport>>,
    /// The first signal of a stop, by name.
    pub stop_signal: Option<Sourced<String>>,
    /// How long a stop waits before it kills.
    pub stop_grace: Option<Sourced<Duration>>,
    /// The seed profile's credential folder.
    pub claude_dir: Option<Sourced<String>>,
    /// The project's name, instead of its root's base name.
    pub project_name: Option<Sourced<String>>,
    /// How the agent comes to its credentials.
    pub credentials: Option<Sourced<Credentials>>,
    /// The providers that are used without a key in the container, instead of the agent's own.
    pub providers: Option<Sourced<Vec<Provider>>>,
    /// Tokens of all kinds.
    pub max_tokens: Option<Sourced<Limit<u64>>>,
    /// Requests that are answered by a model.
    pub max_requests: Option<Sourced<Limit<u64>>>,
    /// Cost by our table of list prices.
    pub max_cost: Option<Sourced<Limit<Usd>>>,
    /// Whether the agent is told its limits, behind the prompt.
    pub tell_limits: Option<Sourced<bool>>,
}

/// Settings of the tool; none is required.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolSettings {
    /// Runs at the same time, 1 to 64.
    pub jobs: Option<Sourced<u16>>,
    /// What Ctrl-C does.
    pub on_interrupt: Option<Sourced<OnInterrupt>>,
    /// Which engine is used.
    pub engine: Option<Sourced<EngineChoice>>,
    /// The engine's endpoint.
    pub host: Option<Sourced<String>>,
    /// Days that a finished run is kept.
    pub keep_days: Option<Sourced<u32>>,
    /// Finished runs that are kept.
    pub keep_runs: Option<Sourced<u32>>,
    /// Where the keys of providers are, by the provider's name.
    pub api_key: BTreeMap<String, Sourced<KeySource>>,
    /// Where the APIs of providers are, by the provider's name.
    pub api_base: BTreeMap<String, Sourced<String>>,
    /// Dangerous paths that may be mounted, in order.
    pub allow_mounts: Vec<Sourced<String>>,
}

impl ToolSettings {
    /// Puts these settings over `lower` ones.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            jobs: self.jobs.or(lower.jobs),
            on_interrupt: self.on_interrupt.or(lower.on_interrupt),
            engine: self.engine.or(lower.engine),
            host: self.host.or(lower.host),
            keep_days: self.keep_days.or(lower.keep_days),
            keep_runs: self.keep_runs.or(lower.keep_runs),
            api_key: merged(self.api_key, lower.api_key),
            api_base: merged(self.api_base, lower.api_base),
            allow_mounts: appended(lower.allow_mounts, self.allow_mounts),
        }
    }
}

/// Everything that one layer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer {
    /// About a run.
    pub run: Settings,
    /// About the tool.
    pub tool: ToolSettings,
}

impl Settings {
    /// Puts these settings over `lower` ones.
    ///
    /// A single value replaces the lower one, `command` included. Maps merge key by key. Lists append, the
    /// lower first, but a mount takes the place of lower mounts with the same destination.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        let mut mounts = lower.mounts;
        mounts.retain(|low| {
            !self
                .mounts
                .iter()
                .any(|high| same_target(&low.value, &high.value))
        });
        mounts.extend(self.mounts);
        Self {
            agent: self.agent.or(lower.agent),
            image: self.image.or(lower.image),
            model: self.model.or(lower.model),
            env: merged(self.env, lower.env),
            env_file: appended(lower.env_file, self.env_file),
            mounts,
            timeout: self.timeout.or(lower.timeout),
            idle_timeout: self.idle_timeout.or(lower.idle_timeout),
            completion_grace: self.completion_grace.or(lower.completion_grace),
            log_limit: self.log_limit.or(lower.log_limit),
            memory: self.memory.or(lower.memory),
            cpus: self.cpus.or(lower.cpus),
            pids: self.pids.or(lower.pids),
            file_size: self.file_size.or(lower.file_size),
            disk_limit: self.disk_limit.or(lower.disk_limit),
            open_files: self.open_files.or(lower.open_files),
            user: self.user.or(lower.user),
            network: self.network.or(lower.network),
            git: self.git.or(lower.git),
            labels: merged(self.labels, lower.labels),
            pull: self.pull.or(lower.pull),
            project: self.project.or(lower.project),
            profile: self.profile.or(lower.profile),
            command: self.command.or(lower.command),
            secrets: merged(self.secrets, lower.secrets),
            workdir: self.workdir.or(lower.workdir),
            workspace: self.workspace.or(lower.workspace),
            transport: self.transport.or(lower.transport),
            stop_signal: self.stop_signal.or(lower.stop_signal),
            stop_grace: self.stop_grace.or(lower.stop_grace),
            claude_dir: self.claude_dir.or(lower.claude_dir),
            project_name: self.project_name.or(lower.project_name),
            credentials: self.credentials.or(lower.credentials),
            providers: self.providers.or(lower.providers),
            max_tokens: self.max_tokens.or(lower.max_tokens),
            max_requests: self.max_requests.or(lower.max_requests),
            max_cost: self.max_cost.or(lower.max_cost),
            tell_limits: self.tell_limits.or(lower.tell_limits),
        }
    }
}

fn merged<T>(high: BTreeMap<String, T>, mut low: BTreeMap<String, T>) -> BTreeMap<String, T> {
    low.extend(high);
    low
}

fn appended<T>(mut low: Vec<T>, high: Vec<T>) -> Vec<T> {
    low.extend(high);
    low
}

fn same_target(a: &ExtraMount, b: &ExtraMount) -> bool {
    a.dst.trim_end_matches('/') == b.dst.trim_end_matches('/')
}

/// Returns the known word that was probably meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.replace(['-', '_'], "").to_lowercase();
    let word = plain(word);
    let limit = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&word, &plain(known)), known))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}
