//! What an executor is made of: the inputs of the seed's constructor, and ours.
//!
//! Owns: the defaults, and which inputs there must be.
//! Reads: the state folder, when it is opened.
//! Never: reads the environment, or contacts the engine.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_executor::egress::EgressGuard;
use dark_factory_executor::engine::EngineError;
use dark_factory_executor::error::ExecutorError;
use dark_factory_executor::host::HostView;
use dark_factory_executor::keys::KeySources;
use dark_factory_executor::resolve::ResolveContext;
use dark_factory_executor::settings::{
    EnvValue, ExtraMount, Limit, ProfileName, Settings, Sourced, UserSetting,
};
use dark_factory_executor::spec::{Access, GitVisibility, Profile};
use dark_factory_executor::state_dir::HelperExe;
use dark_factory_executor::supervisor::Supervisor;
use dark_factory_types::{ByteSize, CpuCount};
use jiff::tz::TimeZone;
use tokio::sync::OnceCell;

use super::executor::DockerExecutor;
use crate::docker::client::Client;
use crate::docker::endpoint::DockerEndpoint;
use crate::docker::engine::DockerEngine;
use crate::docker::launch::{GITCONFIG_TARGET, NETRC_TARGET};

const DEFAULT_AGENT: &str = "claude";

/// An executor that cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An input without a default was not given.
    #[error("the executor has no {input}; give it one with .{input}(…)")]
    Missing {
        /// The builder's method.
        input: &'static str,
    },
    /// An input is for a file that only the seed's container looks for.
    #[error(
        "{input} is only for the seed's container: choose it with .profile(Profile::seed()), or mount the file where your \
         image looks for it with .extra_mounts(…)"
    )]
    SeedOnly {
        /// The builder's method.
        input: &'static str,
    },
    /// The environment names an engine that we cannot use.
    #[error("the container engine cannot be used")]
    Endpoint(#[source] EngineError),
    /// The state folder cannot be opened.
    #[error("the executor's state cannot be opened")]
    State(#[source] ExecutorError),
}

/// Makes a [`DockerExecutor`].
///
/// There must be [`container_image`](Self::container_image), [`project_root`](Self::project_root),
/// [`state_dir`](Self::state_dir), [`host`](Self::host) and [`helper`](Self::helper). The container is the hardened
/// one; [`profile`](Self::profile) chooses the seed's.
#[derive(Clone, Default)]
pub struct DockerExecutorBuilder {
    container_image: Option<String>,
    project_name: Option<String>,
    project_root: Option<PathBuf>,
    claude_dir: Option<String>,
    claude_dir_access: Access,
    home: Option<PathBuf>,
    env: BTreeMap<String, String>,
    extra_mounts: Vec<ExtraMount>,
    netrc_file: Option<String>,
    gitconfig_file: Option<String>,
    git: Option<GitVisibility>,
    model: Option<String>,
    max_prompt_duration: Option<Duration>,
    run_as_user: Option<UserSetting>,
    memory: Option<ByteSize>,
    cpus: Option<CpuCount>,
    pids: Option<u32>,
    state_dir: Option<PathBuf>,
    helper: Option<HelperExe>,
    profile: Option<Profile>,
    allow_mounts: Vec<String>,
    agent: Option<String>,
    settings: Settings,
    endpoint: Option<DockerEndpoint>,
    host: Option<HostView>,
    host_cpus: Option<NonZeroUsize>,
    guard: Option<Arc<dyn EgressGuard>>,
    keys: KeySources,
    clock: Option<Arc<dyn Clock>>,
    time_zone: Option<TimeZone>,
}

impl fmt::Debug for DockerExecutorBuilder {
    /// Leaves environments out: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerExecutorBuilder")
            .field("container_image", &self.container_image)
            .field("project_root", &self.project_root)
            .field("state_dir", &self.state_dir)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// The seed's inputs.
impl DockerExecutorBuilder {
    /// Sets the image's reference.
    #[must_use]
    pub fn container_image(mut self, image: impl Into<String>) -> Self {
        self.container_image = Some(image.into());
        self
    }

    /// Sets the value of the project label; otherwise it is the base name of the project's root.
    #[must_use]
    pub fn project_name(mut self, name: impl Into<String>) -> Self {
        self.project_name = Some(name.into());
        self
    }

    /// Sets the folder that is mounted as the workspace, and that relative paths are below.
    ///
    /// Itself it is below the host view's working directory. The seed takes the process's working directory.
    #[must_use]
    pub fn project_root(mut self, folder: impl Into<PathBuf>) -> Self {
        self.project_root = Some(folder.into());
        self
    }

    /// Sets the credential folder of the seed's container; otherwise it is `~/.claude-yolo`, if it is there.
    ///
    /// Under the hardened profile it is refused by `execute`.
    #[must_use]
    pub fn claude_dir(mut self, folder: impl Into<String>) -> Self {
        self.claude_dir = Some(folder.into());
        self
    }

    /// Sets whether the container may write to the credential folder (the seed's `ClaudeDirReadOnly`).
    #[must_use]
    pub fn claude_dir_access(mut self, access: Access) -> Self {
        self.claude_dir_access = access;
        self
    }

    /// Sets the folder that `~` stands for, in place of the host view's.
    #[must_use]
    pub fn home(mut self, folder: impl Into<PathBuf>) -> Self {
        self.home = Some(folder.into());
        self
    }

    /// Sets the container's environment: configuration, not secrets.
    #[must_use]
    pub fn env(mut self, env: BTreeMap<String, String>) -> Self {
        self.env = env;
        self
    }

    /// Sets the mounts besides the workspace, in order. A missing source is skipped only if it is optional; the seed
    /// skips every one.
    #[must_use]
    pub fn extra_mounts(mut self, mounts: Vec<ExtraMount>) -> Self {
        self.extra_mounts = mounts;
        self
    }

    /// Sets the file that the seed's container has, read-only, as its `~/.netrc`.
    ///
    /// It must be there, unlike the seed's.
    #[must_use]
    pub fn netrc_file(mut self, file: impl Into<String>) -> Self {
        self.netrc_file = Some(file.into());
        self
    }

    /// Sets the file that the seed's container has, read-only, as `~/.gitconfig-extra`, from where its image copies it.
    ///
    /// It must be there, unlike the seed's.
    #[must_use]
    pub fn gitconfig_file(mut self, file: impl Into<String>) -> Self {
        self.gitconfig_file = Some(file.into());
        self
    }

    /// Sets whether the container sees the workspace's `.git` (the seed's `HideGit`).
    #[must_use]
    pub fn git(mut self, git: GitVisibility) -> Self {
        self.git = Some(git);
        self
    }

    /// Sets the model; otherwise it is the agent's own default.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Sets how long a prompt may take from its container's start, at least a second; otherwise there is no limit.
    #[must_use]
    pub fn max_prompt_duration(mut self, limit: Duration) -> Self {
        self.max_prompt_duration = Some(limit);
        self
    }

    /// Sets who the agent runs as; names are only for the seed's container.
    #[must_use]
    pub fn run_as_user(mut self, user: UserSetting) -> Self {
        self.run_as_user = Some(user);
        self
    }

    /// Sets the most memory.
    #[must_use]
    pub fn memory(mut self, limit: ByteSize) -> Self {
        self.memory = Some(limit);
        self
    }

    /// Sets the most CPU time.
    #[must_use]
    pub fn cpus(mut self, limit: CpuCount) -> Self {
        self.cpus = Some(limit);
        self
    }

    /// Sets the most processes and threads.
    #[must_use]
    pub fn pids(mut self, limit: u32) -> Self {
        self.pids = Some(limit);
        self
    }

    /// Sets the clock (the seed's `CurrentDateTimeGetter`); otherwise it is the system's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Sets the time zone of the log's time stamps; otherwise it is UTC. The seed's is in its clock.
    #[must_use]
    pub fn time_zone(mut self, zone: TimeZone) -> Self {
        self.time_zone = Some(zone);
        self
    }
}

/// Our inputs.
impl DockerExecutorBuilder {
    /// Sets the state folder; it is made if it is not there.
    #[must_use]
    pub fn state_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(folder.into());
        self
    }

    /// Sets the static helper that containers run as their first process.
    #[must_use]
    pub fn helper(mut self, helper: HelperExe) -> Self {
        self.helper = Some(helper);
        self
    }

    /// Sets the named defaults of the container; otherwise they are the hardened ones.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = Some(profile);
        self
    }

    /// Lets a dangerous path of the host be mounted, itself alone, which is refused otherwise: a home folder, one with
    /// credentials, one of the system. The file of [`netrc_file`](Self::netrc_file) needs no leave.
    #[must_use]
    pub fn allow_mount(mut self, path: impl Into<String>) -> Self {
        self.allow_mounts.push(path.into());
        self
    }

    /// Sets the agent, for adopted containers too; otherwise it is `claude`.
    #[must_use]
    pub fn agent(mut self, name: impl Into<String>) -> Self {
        self.agent = Some(name.into());
        self
    }

    /// Sets anything else that a front matter can; what the other methods set goes before it.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets where the engine is; otherwise it is where the host view's environment says.
    #[must_use]
    pub fn endpoint(mut self, endpoint: DockerEndpoint) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// Sets the host: its environment, home and working directory.
    #[must_use]
    pub fn host(mut self, host: HostView) -> Self {
        self.host = Some(host);
        self
    }

    /// Sets the CPUs of the engine's host, above which the default limit may not be.
    #[must_use]
    pub fn host_cpus(mut self, cpus: NonZeroUsize) -> Self {
        self.host_cpus = Some(cpus);
        self
    }

    /// Sets the guard of the containers' ways out. Under the hardened profile a prompt needs one, unless its network is
    /// `none` or `open`: without a guard its agent is not started.
    ///
    /// `dark_factory_egress::GuardProcess` is one, made for the same state folder, host and keys.
    #[must_use]
    pub fn guard(mut self, guard: Arc<dyn EgressGuard>) -> Self {
        self.guard = Some(guard);
        self
    }

    /// Sets where the keys of providers are; otherwise they are looked for in the host view's environment and home.
    #[must_use]
    pub fn keys(mut self, keys: KeySources) -> Self {
        self.keys = keys;
        self
    }

    /// Makes the executor and opens its state folder. Blocks; the engine is not contacted.
    ///
    /// # Errors
    ///
    /// [`BuildError`]. What is wrong with an input's value is said by `execute`, which sees it together with the rest.
    pub fn build(self) -> Result<DockerExecutor, BuildError> {
        let missing = |input| BuildError::Missing { input };
        let mut host = self.host.clone().ok_or(missing("host"))?;
        let state_dir = host.absolute(self.state_dir.as_deref().ok_or(missing("state_dir"))?);
        let helper = self.helper.ok_or(missing("helper"))?;
        host.cwd = host.absolute(
            self.project_root
                .as_deref()
                .ok_or(missing("project_root"))?,
        );
        if let Some(home) = &self.home {
            host.home = Some(home.clone());
        }
        let settings = self.flags(&host.cwd)?;
        let allow_mounts = self.allowed();
        let endpoint = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => DockerEndpoint::resolve(None, &host.env).map_err(BuildError::Endpoint)?,
        };
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let engine = DockerEngine::connect(&endpoint, host.clone(), Arc::clone(&clock));
        let supervisor = Supervisor::open(Arc::new(engine), &state_dir, helper, clock)
            .map_err(BuildError::State)?;
        let supervisor = match self.guard {
            Some(guard) => supervisor.with_guard(guard),
            None => supervisor,
        };
        let context = ResolveContext {
            host_cpus: self.host_cpus,
            keys: self.keys,
            engine_socket: endpoint.socket(),
            allow_mounts,
            ..ResolveContext::new(state_dir)
        };
        Ok(DockerExecutor {
            client: Client::new(endpoint),
            supervisor,
            host,
            settings,
            context,
            project_name: self.project_name,
            claude_dir_access: self.claude_dir_access,
            agent: self.agent.unwrap_or_else(|| DEFAULT_AGENT.to_owned()),
            time_zone: self.time_zone.unwrap_or(TimeZone::UTC),
            probed: OnceCell::new(),
        })
    }

    /// Returns what may be mounted though it is dangerous; who names a file of credentials as one wants just that.
    fn allowed(&self) -> Vec<Sourced<String>> {
        let allowed = self.allow_mounts.iter();
        let allowed = allowed.map(|path| Sourced::flag("allow_mount", path.clone()));
        let netrc = self.netrc_file.iter();
        let netrc = netrc.map(|file| Sourced::flag("netrc_file", file.clone()));
        allowed.chain(netrc).collect()
    }

    /// Returns the inputs as settings, over those of [`settings`](Self::settings).
    fn flags(&self, project_root: &Path) -> Result<Settings, BuildError> {
        let image = self.container_image.clone().ok_or(BuildError::Missing {
            input: "container_image",
        })?;
        let chosen = self.settings.profile.as_ref().map(|profile| &profile.value);
        let profile = match (self.profile, chosen) {
            (Some(profile), _) => Some(profile),
            (None, Some(ProfileName::BuiltIn(profile))) => Some(*profile),
            (None, Some(ProfileName::Named(_)) | None) => None,
        };
        let mut mounts: Vec<_> = self
            .extra_mounts
            .iter()
            .map(|mount| Sourced::flag("extra_mounts", mount.clone()))
            .collect();
        for (input, file, target) in [
            ("netrc_file", &self.netrc_file, NETRC_TARGET),
            ("gitconfig_file", &self.gitconfig_file, GITCONFIG_TARGET),
        ] {
            let Some(src) = file.clone() else { continue };
            if profile != Some(Profile::Seed) {
                return Err(BuildError::SeedOnly { input });
            }
            // As mounts they are checked by resolving; the executor takes them out again.
            let mount = ExtraMount {
                src,
                dst: target.to_owned(),
                read_only: Some(true),
                optional: false,
            };
            mounts.push(Sourced::flag(input, mount));
        }
        let env = self.env.iter().map(|(name, value)| {
            (
                name.clone(),
                Sourced::flag("env", EnvValue::Text(value.clone())),
            )
        });
        let given = Settings {
            agent: given("agent", &self.agent),
            image: Some(Sourced::flag("container_image", image)),
            model: given("model", &self.model),
            env: env.collect(),
            mounts,
            timeout: given(
                "max_prompt_duration",
                &self.max_prompt_duration.map(Limit::At),
            ),
            memory: given("memory", &self.memory.map(Limit::At)),
            cpus: given("cpus", &self.cpus.map(Limit::At)),
            pids: given("pids", &self.pids.map(Limit::At)),
            user: given("run_as_user", &self.run_as_user),
            git: given("git", &self.git),
            project: Some(Sourced::flag(
                "project_root",
                project_root.to_string_lossy().into_owned(),
            )),
            profile: given("profile", &self.profile.map(ProfileName::from)),
            claude_dir: given("claude_dir", &self.claude_dir),
            ..Settings::default()
        };
        Ok(given.over(self.settings.clone()))
    }
}

fn given<T: Clone>(input: &'static str, value: &Option<T>) -> Option<Sourced<T>> {
    value.clone().map(|value| Sourced::flag(input, value))
}
