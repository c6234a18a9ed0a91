//! What every command starts from: the environment, the state folder, the engine.
//!
//! Owns: reading the environment.
//! Reads: global flags.
//! Never: contacts an engine before a command needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
#[cfg(target_os = "linux")]
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dark_factory_engines::agent_image::default_images;
use dark_factory_engines::docker::agent_image::AgentImages;
use dark_factory_engines::docker::images::DockerImages;
use dark_factory_engines::docker::{
    DockerEndpoint, DockerEngine, EngineIdentity, command_configuration, usual_sockets,
};
#[cfg(target_os = "linux")]
use dark_factory_engines::sandbox::{SandboxEngine, SandboxImages, ShimCommand};
use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_executor::config::{ConfigError, ConfigFile, Environment, environment, load_user};
#[cfg(target_os = "linux")]
use dark_factory_executor::engine::{Capabilities, OnRestart};
use dark_factory_executor::engine::{Engine, EngineError};
use dark_factory_executor::host::HostView;
use dark_factory_executor::keys::KeySources;
use dark_factory_executor::resolve::ResolveContext;
use dark_factory_executor::settings::{
    EngineChoice, KeySource, Layer, Origin, Sourced, ToolSettings, parse_timeout,
};
use dark_factory_executor::supervisor::Supervisor;
use dark_factory_factory::changes::GitChanges;

use crate::args::Global;
use crate::error::CommandError;
use crate::flags;
use crate::helper::HELPER;

/// The environment variable that names the state folder.
pub(crate) const STATE_DIR_ENV: &str = "DARK_FACTORY_STATE_DIR";

/// The environment variables that name an engine to the tools of Docker and of Podman.
const DOCKER_HOST_ENV: &str = "DOCKER_HOST";
const CONTAINER_HOST_ENV: &str = "CONTAINER_HOST";

/// The endpoint that names the embedded sandbox.
const SANDBOX: &str = "sandbox";

/// Folder of the state folder: the embedded sandbox's.
#[cfg(target_os = "linux")]
const SANDBOXES: &str = "sandboxes";

/// The environment variable that says how long a full disk is waited out.
const DISK_PATIENCE_ENV: &str = "DARK_FACTORY_DISK_PATIENCE";

/// The process's surroundings, read once.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) host: HostView,
    pub(crate) state_dir: PathBuf,
    /// Which engine is chosen, and by whom, if by anybody.
    engine: Option<Sourced<EngineChoice>>,
    /// The endpoint that the command line, the environment or the configuration names, if they do.
    pub(crate) endpoint: Option<Sourced<String>>,
    /// What is wrong with the user's configuration is told by what needs it.
    user: Result<Option<ConfigFile>, ConfigError>,
    environment: Result<Environment, ConfigError>,
    disk_patience: Option<Duration>,
    /// What the command line says of this machine: where keys and APIs are, what may be mounted.
    machine: ToolSettings,
    /// At which sockets an engine can be expected: asked once, so that one command has one engine.
    listening: Arc<Mutex<BTreeMap<PathBuf, bool>>>,
    /// What was said about configuration: several files of one command have the same.
    told: Arc<Mutex<BTreeSet<String>>>,
    /// What sandboxes can do on this machine: found out once, by making control groups.
    #[cfg(target_os = "linux")]
    abilities: Arc<OnceLock<Capabilities>>,
}

impl Context {
    /// Reads the environment.
    pub(crate) fn new(global: &Global) -> Result<Self, CommandError> {
        let cwd = std::env::current_dir()
            .map_err(|error| CommandError::internal("find the working directory", error))?;
        // A variable that is not UTF-8 cannot reach a container's environment; it is as if it were not there.
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let home = env
            .get("HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from);
        let host = HostView { env, home, cwd };
        let state_dir = match &global.state_dir {
            Some(path) => host.absolute(path),
            None => default_state_dir(&host)?,
        };
        let disk_patience = disk_patience(&host)?;
        let mut context = Self {
            user: load_user(&host),
            environment: environment(&host),
            host,
            state_dir,
            engine: flags::engine(global)?,
            endpoint: global
                .host
                .clone()
                .filter(|host| !host.is_empty())
                .map(|host| Sourced::flag("--host", host)),
            disk_patience,
            machine: flags::machine(global)?,
            listening: Arc::default(),
            told: Arc::default(),
            #[cfg(target_os = "linux")]
            abilities: Arc::default(),
        };
        if context.engine.is_none() {
            context.engine = context.tool().unwrap_or_default().engine;
        }
        if context.endpoint.is_none() {
            context.endpoint = context.configured_endpoint();
        }
        Ok(context)
    }

    /// Returns which engine is used.
    fn choice(&self) -> EngineChoice {
        match &self.engine {
            Some(engine) => engine.value,
            None if self.endpoint.is_none() && names_docker(&self.host) => EngineChoice::Docker,
            None => EngineChoice::Auto,
        }
    }

    /// Returns the flags that make another process of ours use the same engine.
    pub(crate) fn engine_flags(&self) -> Vec<String> {
        let engine = self.engine.iter();
        let engine = engine.map(|engine| format!("--engine={}", engine.value.word()));
        let host = self.endpoint.iter();
        let host = host.map(|endpoint| format!("--host={}", endpoint.value));
        engine.chain(host).collect()
    }

    /// Returns the endpoint that no flag names; that of the engine's own variable is over a file's, as the environment is.
    fn configured_endpoint(&self) -> Option<Sourced<String>> {
        let in_environment = self.environment.as_ref().ok()?.layer.tool.host.as_ref();
        if let Some(host) = in_environment {
            return Some(host.clone());
        }
        let variables: &[&str] = match self.choice() {
            EngineChoice::Docker => &[DOCKER_HOST_ENV],
            EngineChoice::Podman => &[CONTAINER_HOST_ENV],
            _ => &[DOCKER_HOST_ENV, CONTAINER_HOST_ENV],
        };
        let set = |variable: &&str| {
            let value = self.host.var(variable).filter(|host| !host.is_empty())?;
            Some(Sourced {
                value: value.to_owned(),
                origin: Origin::Variable {
                    variable: (*variable).to_owned(),
                },
            })
        };
        if let Some(named) = variables.iter().find_map(set) {
            return Some(named);
        }
        self.user.as_ref().ok()?.as_ref()?.layer.tool.host.clone()
    }

    /// Returns the endpoint that is named, if one is.
    fn named_endpoint(&self) -> Option<&str> {
        self.endpoint
            .as_ref()
            .map(|endpoint| endpoint.value.as_str())
    }

    /// Returns the flags that are not a command's own as settings, and `DOCKER_HOST` or
    /// `CONTAINER_HOST`, which no other layer has.
    pub(crate) fn global_flags(&self) -> Layer {
        let is_in_no_layer = |endpoint: &&Sourced<String>| match &endpoint.origin {
            Origin::Flag { .. } => true,
            Origin::Variable { variable } => {
                [DOCKER_HOST_ENV, CONTAINER_HOST_ENV].contains(&variable.as_str())
            }
            Origin::File { .. } => false,
        };
        Layer {
            tool: ToolSettings {
                engine: self
                    .engine
                    .as_ref()
                    .filter(|engine| matches!(engine.origin, Origin::Flag { .. }))
                    .cloned(),
                host: self.endpoint.as_ref().filter(is_in_no_layer).cloned(),
                ..self.machine.clone()
            },
            ..Layer::default()
        }
    }

    /// Returns the user's configuration file.
    pub(crate) fn user_config(&self) -> Result<Option<&ConfigFile>, CommandError> {
        self.user.as_ref().map(Option::as_ref).map_err(Into::into)
    }

    /// Returns the settings of the environment.
    pub(crate) fn environment(&self) -> Result<&Environment, CommandError> {
        self.environment.as_ref().map_err(Into::into)
    }

    /// Returns the settings of the tool on this machine: those of the user's configuration and of the environment.
    pub(crate) fn tool(&self) -> Result<ToolSettings, CommandError> {
        let user = self.user_config()?.map(|file| file.layer.tool.clone());
        let environment = self.environment()?.layer.tool.clone();
        Ok(environment.over(user.unwrap_or_default()))
    }

    /// Returns where keys and APIs are: as flags say, else as the user's configuration does.
    pub(crate) fn keys(&self) -> KeySources {
        KeySources::new(&self.of_machine(), &self.host)
    }

    /// Returns the settings of the tool, those of flags that every command has included.
    fn of_machine(&self) -> ToolSettings {
        // What is wrong with the configuration is told by what needs an engine.
        let lower = self.tool().unwrap_or_default();
        self.machine.clone().over(lower)
    }

    /// Returns the flags that make another process of ours find the same keys.
    pub(crate) fn key_flags(&self) -> Vec<String> {
        let key = self.machine.api_key.iter();
        let key = key
            .map(|(provider, source)| format!("--api-key={provider}={}", written(&source.value)));
        let base = self.machine.api_base.iter();
        let base = base.map(|(provider, base)| format!("--api-base={provider}={}", base.value));
        key.chain(base).collect()
    }

    /// Returns whether something about configuration has not been said yet; it is then.
    pub(crate) fn is_news(&self, text: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(text.to_owned())
    }

    /// Returns what resolving needs to know, with the given state folder.
    pub(crate) fn resolve_context(&self, state_dir: PathBuf) -> ResolveContext {
        ResolveContext {
            state_dir,
            default_images: default_images(),
            host_cpus: std::thread::available_parallelism().ok(),
            // A wrong endpoint is told where an engine is needed; there is no run then.
            engine_socket: self
                .chosen(self.named_endpoint())
                .ok()
                .and_then(|endpoint| endpoint.socket()),
            keys: self.keys(),
            capabilities: None,
            path_images: self.is_sandbox(),
            allow_mounts: self.of_machine().allow_mounts,
        }
    }

    /// Returns what resolving a launch needs to know: also what the engine can do, where that takes no engine to answer.
    pub(crate) fn launch_context(&self, state_dir: PathBuf) -> ResolveContext {
        ResolveContext {
            #[cfg(target_os = "linux")]
            capabilities: self.is_sandbox().then(|| {
                let found = self.abilities.get_or_init(SandboxEngine::abilities);
                found.clone()
            }),
            ..self.resolve_context(state_dir)
        }
    }

    /// Returns a supervisor on the chosen engine; the engine is not contacted yet.
    pub(crate) fn supervisor(&self) -> Result<Supervisor, CommandError> {
        self.supervisor_in(&self.state_dir)
    }

    /// Returns a supervisor with another state folder.
    pub(crate) fn supervisor_in(&self, state_dir: &Path) -> Result<Supervisor, CommandError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let supervisor = Supervisor::open(self.engine_in(state_dir)?, state_dir, HELPER, clock)?
            .with_orphans(crate::orphans())
            .with_recorder(Arc::new(GitChanges::new(self.host.clone(), state_dir)))
            .with_guard(Arc::new(self.guard_of(state_dir)));
        Ok(match self.disk_patience {
            Some(patience) => supervisor.with_disk_patience(patience),
            None => supervisor,
        })
    }

    /// Returns whether the embedded sandbox is chosen, or nothing is and no engine is where they usually are.
    pub(crate) fn is_sandbox(&self) -> bool {
        let is_chosen = match (self.choice(), self.named_endpoint()) {
            (EngineChoice::Sandbox, _) => true,
            (EngineChoice::Auto, Some(named)) => named == SANDBOX,
            (EngineChoice::Auto, None) => {
                let sockets = usual_sockets(&self.host.env);
                !sockets.iter().any(|socket| self.may_listen(socket))
            }
            _ => false,
        };
        cfg!(target_os = "linux") && is_chosen
    }

    /// Returns whether somebody has named an engine, or where it is.
    pub(crate) fn names_engine(&self) -> bool {
        self.choice() != EngineChoice::Auto || self.endpoint.is_some()
    }

    /// Returns where the chosen engine is, as [`Self::identity`] takes it.
    pub(crate) fn engine_name(&self) -> Result<String, CommandError> {
        if self.is_sandbox() {
            self.tool()?;
            return Ok(SANDBOX.to_owned());
        }
        Ok(self.docker()?.to_string())
    }

    /// Returns the chosen engine; it is not contacted yet.
    pub(crate) fn engine(&self) -> Result<Arc<dyn Engine>, CommandError> {
        self.engine_in(&self.state_dir)
    }

    /// Returns the chosen engine; what is the state folder's own is in `state_dir`.
    fn engine_in(&self, state_dir: &Path) -> Result<Arc<dyn Engine>, CommandError> {
        #[cfg(target_os = "linux")]
        if self.is_sandbox() {
            self.tool()?;
            return Ok(Arc::new(self.sandbox(state_dir)));
        }
        #[cfg(not(target_os = "linux"))]
        let _only_linux_has_sandboxes = state_dir;
        Ok(Arc::new(DockerEngine::connect(
            &self.docker()?,
            self.host.clone(),
            Arc::new(SystemClock),
        )))
    }

    /// Returns the embedded sandbox of a state folder; each of its shims is this program.
    #[cfg(target_os = "linux")]
    pub(crate) fn sandbox(&self, state_dir: &Path) -> SandboxEngine {
        let engine = SandboxEngine::new(
            state_dir.join(SANDBOXES),
            // Also if its file was replaced meanwhile.
            ShimCommand::new("/proc/self/exe".into(), Vec::new()),
            self.host.clone(),
            Arc::new(SystemClock),
        );
        match self.abilities.get() {
            Some(abilities) => engine.knowing(abilities.clone()),
            None => engine,
        }
    }

    /// Returns the images of the Docker engine that flags and environment name.
    pub(crate) fn images(&self) -> Result<DockerImages, CommandError> {
        Ok(DockerImages::connect(&self.docker()?))
    }

    /// Returns the agents' images of the same engine.
    pub(crate) fn agent_images(&self) -> Result<AgentImages, CommandError> {
        Ok(AgentImages::connect(&self.docker()?, &self.host))
    }

    /// Returns the images of the embedded sandbox, if that is the chosen engine.
    #[cfg(target_os = "linux")]
    pub(crate) fn sandbox_images(&self) -> Result<Option<SandboxImages>, CommandError> {
        if !self.is_sandbox() {
            return Ok(None);
        }
        self.tool()?;
        Ok(Some(SandboxImages::new(self.sandbox(&self.state_dir))))
    }

    /// Returns the folder of what is downloaded once.
    pub(crate) fn cache_dir(&self) -> Result<PathBuf, CommandError> {
        let base = self
            .host
            .var("XDG_CACHE_HOME")
            .filter(|path| Path::new(path).is_absolute())
            .map(PathBuf::from);
        base.or_else(|| self.host.home.as_ref().map(|home| home.join(".cache")))
            .map(|base| base.join("dark-factory"))
            .ok_or_else(|| {
                CommandError::usage("there is no home folder to keep downloads in")
                    .hint("name a cache folder with XDG_CACHE_HOME")
            })
    }

    /// Asks the engine at an endpoint, else the one that flags and environment name, who it is.
    pub(crate) async fn identity(
        &self,
        endpoint: Option<&str>,
    ) -> Result<EngineIdentity, EngineError> {
        let named = endpoint.or(self.named_endpoint());
        #[cfg(target_os = "linux")]
        if named == Some(SANDBOX) {
            return Ok(EngineIdentity {
                id: self.sandbox(&self.state_dir).identity().await?,
                on_restart: OnRestart::Survive,
            });
        }
        let endpoint = self.chosen(named)?;
        let engine = DockerEngine::connect(&endpoint, self.host.clone(), Arc::new(SystemClock));
        engine.identity().await
    }

    /// Returns where the engine is that flags and environment name.
    pub(crate) fn docker(&self) -> Result<DockerEndpoint, CommandError> {
        // Broken configuration might have named another engine.
        self.tool()?;
        // It was not even looked for: what names it is wrong.
        self.chosen(self.named_endpoint()).map_err(|error| {
            CommandError::usage(error.sentence()).hint(
                "--host, DARK_FACTORY_HOST, DOCKER_HOST, CONTAINER_HOST or `host` in config.toml names it",
            )
        })
    }

    /// Returns where the chosen engine is: at an endpoint, else where it usually is.
    fn chosen(&self, named: Option<&str>) -> Result<DockerEndpoint, EngineError> {
        let listens = |socket: &Path| self.may_listen(socket);
        DockerEndpoint::choose(self.choice(), named, &self.host.env, listens)
    }

    fn may_listen(&self, socket: &Path) -> bool {
        let mut known = self
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *known
            .entry(socket.to_owned())
            .or_insert_with(|| may_listen(socket))
    }
}

/// Returns whether an engine can be expected at a socket: not where there is none, or one that nobody listens on.
fn may_listen(socket: &Path) -> bool {
    match UnixStream::connect(socket) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied && socket.exists(),
    }
}

/// Returns whether the configuration of the `docker` command names an engine: by a context, which is not read.
fn names_docker(host: &HostView) -> bool {
    let is_context = |name: &str| !name.is_empty() && name != "default";
    if let Some(context) = host.var("DOCKER_CONTEXT").filter(|name| !name.is_empty()) {
        return is_context(context);
    }
    let config = command_configuration(host).and_then(|file| std::fs::read(file).ok());
    let config: serde_json::Value = config
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    config["currentContext"].as_str().is_some_and(is_context)
}

/// Returns a source as a flag has it.
fn written(source: &KeySource) -> String {
    match source {
        KeySource::Env(variable) => format!("env:{variable}"),
        KeySource::File(path) => format!("file:{path}"),
        KeySource::ClaudeDir(path) => format!("claude-dir:{path}"),
        KeySource::Command(argv) => format!("command:{}", argv.join(" ")),
    }
}

fn disk_patience(host: &HostView) -> Result<Option<Duration>, CommandError> {
    let text = host
        .var(DISK_PATIENCE_ENV)
        .filter(|patience| !patience.is_empty());
    text.map(parse_timeout)
        .transpose()
        .map_err(|error| CommandError::usage(format!("{DISK_PATIENCE_ENV} {error}")))
}

fn default_state_dir(host: &HostView) -> Result<PathBuf, CommandError> {
    if let Some(path) = host.var(STATE_DIR_ENV).filter(|path| !path.is_empty()) {
        return Ok(host.absolute(Path::new(path)));
    }
    let base = host
        .var("XDG_STATE_HOME")
        .filter(|path| Path::new(path).is_absolute())
        .map(PathBuf::from);
    match base.or_else(|| host.home.as_ref().map(|home| home.join(".local/state"))) {
        Some(base) => Ok(base.join("dark-factory")),
        None => Err(
            CommandError::usage("there is no home folder to keep state in")
                .hint("name a folder with --state-dir or DARK_FACTORY_STATE_DIR"),
        ),
    }
}
