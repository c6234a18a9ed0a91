//! The launch options of one container.
//!
//! Owns: the seed's `ContainerLaunchOpts` and the fields that this project added to it.
//! Reads: nothing.
//! Never: resolves a path or renders a flag.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use dark_factory_executor::settings::ExtraMount;
use dark_factory_executor::spec::{Access, GitVisibility, LABEL_PROJECT};
use dark_factory_types::ByteSize;
use serde::{Deserialize, Serialize};

/// The environment variable that is `true` in every container that dark-factory started, whatever `env` says.
pub const ENV_MANAGED_MARKER: &str = "DARK_FACTORY_MANAGED";
/// The host entry that every container gets unless its network is disabled.
pub const HOST_GATEWAY: &str = "host.docker.internal:host-gateway";

/// Everything that decides what container a prompt runs in.
///
/// The first twenty fields are the seed's, with the seed's meaning: empty text, an empty list and 0 mean "not set".
/// The others are ours; their defaults change nothing in either renderer. Deserialized fields that are left out have
/// their defaults. Values of `env` may be secrets: do not log this.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainerLaunchOpts {
    /// Name of the container.
    pub container_name: String,
    /// Reference of the image.
    pub container_image: String,
    /// Name of the project, the value of [`LABEL_PROJECT`].
    pub project_name: String,
    /// Folder on the host that is mounted read-write at `/workspace`; relative mount sources are under it.
    pub project_root: String,
    /// Folder on the host that is mounted at `/home/node/.claude`; skipped if it contains a `:`.
    pub claude_dir: String,
    /// Home folder that stands for `~` in `netrc_file`, `gitconfig_file` and mount sources.
    pub home: String,
    /// Environment of the container; [`ENV_MANAGED_MARKER`] is added to it and always wins.
    pub env: BTreeMap<String, String>,
    /// Mounts whose sources are still to be resolved, in order.
    pub extra_mounts: Vec<ExtraMount>,
    /// File on the host that is mounted read-only at `/home/node/.netrc`.
    pub netrc_file: String,
    /// File on the host that is mounted read-only at `/home/node/.gitconfig-extra`, from where the image copies it.
    pub gitconfig_file: String,
    /// Whether the container sees `/workspace/.git` (the seed's `HideGit`).
    pub git: GitVisibility,
    /// Labels beside [`LABEL_PROJECT`]; one of that name wins over `project_name`.
    pub extra_labels: BTreeMap<String, String>,
    /// Capabilities to add, in order.
    pub cap_add: Vec<String>,
    /// Program that replaces the image's entrypoint and drops the image's command.
    pub entrypoint: String,
    /// Arguments that replace the image's command.
    pub command: Vec<String>,
    /// User, and group after a `:`, by name or number.
    pub run_as_user: String,
    /// Most memory, as Docker writes sizes: `512m`, `8g`.
    pub memory_limit: String,
    /// Most CPUs, a decimal number.
    pub cpu_limit: String,
    /// Most processes and threads; 0 and less mean "not set".
    pub pids_limit: i64,
    /// Whether the container may write to `claude_dir` (the seed's `ClaudeDirReadOnly`).
    pub claude_dir_access: Access,

    /// Mounts whose sources are resolved: workspace and attempt folders.
    pub binds: Vec<Bind>,
    /// Working directory in the container.
    pub workdir: String,
    /// Limits of each process by their names at the engine, such as `fsize` in bytes and `nofile`; soft and hard alike.
    pub ulimits: BTreeMap<String, u64>,
    /// The network that the container needs.
    pub network: NetworkDemand,
    /// Host entries beside [`HOST_GATEWAY`], as `name:address`, in order.
    pub extra_hosts: Vec<String>,
    /// Most memory and swap together.
    pub memory_swap: Option<ByteSize>,
    /// Capabilities to drop, in order.
    pub cap_drop: Vec<String>,
    /// Whether a program in the container can gain privileges.
    pub privileges: Privileges,
    /// Whether the container can write to its image's files.
    pub root_filesystem: RootFilesystem,
    /// File systems in memory.
    pub tmpfs: Vec<TmpfsMount>,
    /// Signal that asks the container to stop, by name or number.
    pub stop_signal: String,
    /// Time between that signal and a kill; sent in whole seconds, rounded up.
    pub stop_timeout: Option<Duration>,
    /// Where the engine keeps what the container prints.
    pub log: Option<LogDriver>,
}

/// A mount that is resolved: an absolute path on the host at an absolute path in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// Path on the host.
    pub source: PathBuf,
    /// Path in the container.
    pub target: String,
    /// Whether the container may write to it.
    #[serde(default)]
    pub access: Access,
}

/// A file system in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TmpfsMount {
    /// Path in the container.
    pub path: String,
    /// Mount options with commas between, such as `rw,size=64m`; empty for the engine's.
    #[serde(default)]
    pub options: String,
}

/// The engine's log of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogDriver {
    /// Name of the driver, such as `json-file`.
    pub name: String,
    /// The driver's options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// The network that a container needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkDemand {
    /// The engine's default network.
    #[default]
    EngineDefault,
    /// None but loopback; [`HOST_GATEWAY`] is left out, because it could not be reached.
    Disabled,
}

/// Whether a program can gain privileges that its parent did not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privileges {
    /// As the engine is configured.
    #[default]
    Default,
    /// It cannot: set-user-id programs and file capabilities have no effect.
    NoNew,
}

/// Whether the container's root file system can be written to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootFilesystem {
    /// It can; what is written is lost with the container.
    #[default]
    Writable,
    /// It cannot, but for mounts and tmpfs.
    ReadOnly,
}

impl ContainerLaunchOpts {
    /// Returns the environment as `KEY=value`, sorted bytewise, with the marker.
    pub(super) fn env_pairs(&self) -> Vec<String> {
        let mut env: BTreeMap<&str, &str> = self
            .env
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        env.insert(ENV_MANAGED_MARKER, "true");
        env.iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect()
    }

    /// Returns the project's label as `key=value`.
    pub(super) fn project_label(&self) -> String {
        format!("{LABEL_PROJECT}={}", self.project_name)
    }

    /// Returns the other labels as `key=value`, sorted by key.
    pub(super) fn extra_label_pairs(&self) -> impl Iterator<Item = String> {
        self.extra_labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
    }

    /// Returns the stop timeout in whole seconds.
    pub(super) fn stop_timeout_seconds(&self) -> Option<u64> {
        let timeout = self.stop_timeout?;
        Some(
            timeout
                .as_secs()
                .saturating_add(u64::from(timeout.subsec_nanos() > 0)),
        )
    }
}
