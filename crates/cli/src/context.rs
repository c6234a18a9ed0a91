//! What every command starts from: the environment, the state folder, the engine.
//!
//! Owns: reading the environment.
//! Reads: global flags.
//! Never: contacts an engine before a command needs it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dark_factory_engines::docker::images::DockerImages;
use dark_factory_engines::docker::{DockerEndpoint, DockerEngine, EngineIdentity};
use dark_factory_executor::clock::{Clock, SystemClock};
use dark_factory_executor::engine::EngineError;
use dark_factory_executor::host::HostView;
use dark_factory_executor::resolve::ResolveContext;
use dark_factory_executor::settings::parse_timeout;
use dark_factory_executor::supervisor::Supervisor;

use crate::args::Global;
use crate::error::CommandError;
use crate::helper::HELPER;

/// The environment variable that names the state folder.
pub(crate) const STATE_DIR_ENV: &str = "DARK_FACTORY_STATE_DIR";

/// The environment variable that says how long a full disk is waited out.
const DISK_PATIENCE_ENV: &str = "DARK_FACTORY_DISK_PATIENCE";

/// The process's surroundings, read once.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) host: HostView,
    pub(crate) state_dir: PathBuf,
    /// The endpoint that the command line names, if it does.
    pub(crate) endpoint: Option<String>,
    disk_patience: Option<Duration>,
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
        Ok(Self {
            host,
            state_dir,
            endpoint: global.host.clone(),
            disk_patience,
        })
    }

    /// Returns what resolving needs to know, with the given state folder.
    pub(crate) fn resolve_context(&self, state_dir: PathBuf) -> ResolveContext {
        ResolveContext {
            state_dir,
            default_image: None,
            host_cpus: std::thread::available_parallelism().ok(),
        }
    }

    /// Returns a supervisor on the chosen engine; the engine is not contacted yet.
    pub(crate) fn supervisor(&self) -> Result<Supervisor, CommandError> {
        self.supervisor_in(&self.state_dir)
    }

    /// Returns a supervisor with another state folder.
    pub(crate) fn supervisor_in(&self, state_dir: &Path) -> Result<Supervisor, CommandError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let engine = DockerEngine::connect(&self.docker()?, self.host.clone(), Arc::clone(&clock));
        let supervisor = Supervisor::open(Arc::new(engine), state_dir, HELPER, clock)?
            .with_orphans(crate::orphans());
        Ok(match self.disk_patience {
            Some(patience) => supervisor.with_disk_patience(patience),
            None => supervisor,
        })
    }

    /// Returns the images of the Docker engine that flags and environment name.
    pub(crate) fn images(&self) -> Result<DockerImages, CommandError> {
        Ok(DockerImages::connect(&self.docker()?))
    }

    /// Asks the engine at an endpoint, else the one that flags and environment name, who it is.
    pub(crate) async fn identity(
        &self,
        endpoint: Option<&str>,
    ) -> Result<EngineIdentity, EngineError> {
        let named = endpoint.or(self.endpoint.as_deref());
        let endpoint = DockerEndpoint::resolve(named, &self.host.env)?;
        let engine = DockerEngine::connect(&endpoint, self.host.clone(), Arc::new(SystemClock));
        engine.identity().await
    }

    /// Returns where the engine is that flags and environment name.
    pub(crate) fn docker(&self) -> Result<DockerEndpoint, CommandError> {
        // It was not even looked for: what names it is wrong.
        DockerEndpoint::resolve(self.endpoint.as_deref(), &self.host.env).map_err(|error| {
            CommandError::usage(error.sentence()).hint("--host or DOCKER_HOST names it")
        })
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
