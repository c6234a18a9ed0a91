//! What every part needs: the binary, the images, a project, an engine client.
//!
//! Owns: the folder of the project and of the state, gone with it.
//! Reads: the environment that `cargo xtask bench` sets.
//! Never: measures.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bollard::Docker;
use dark_factory::HELPER;
use dark_factory::engines::docker::{DockerEndpoint, DockerEngine};
use dark_factory::executor::clock::{Clock, SystemClock};
use dark_factory::executor::engine::Engine;
use dark_factory::executor::host::HostView;
use dark_factory::executor::prompt::Prompt;
use dark_factory::executor::resolve::{ResolveContext, Resolved, resolve};
use dark_factory::executor::settings::{Settings, Sourced};
use dark_factory::executor::supervisor::Supervisor;
use dark_factory::types::NetworkMode;
use nix::unistd::Uid;
use tempfile::TempDir;

use crate::Result;

const BINARY: &str = "DARK_FACTORY_BENCH_BINARY";
const AGENT_IMAGE: &str = "DARK_FACTORY_TEST_AGENT_IMAGE";
const SHELL_IMAGE: &str = "DARK_FACTORY_TEST_CLAUDE_IMAGE";
/// Owner of the project folder, so that the container runs as an ordinary user.
const PROJECT_OWNER: u32 = 1000;

#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) binary: PathBuf,
    /// The image of the scripted agent: no file but our helper.
    pub(crate) image: String,
    /// An image with bash.
    pub(crate) shell_image: String,
    pub(crate) host: HostView,
    pub(crate) api: Docker,
    folder: TempDir,
}

impl Rig {
    pub(crate) fn new(binary: Option<PathBuf>) -> Result<Self> {
        let provided = |name: &str| {
            env::var(name)
                .map_err(|_| format!("{name} is not set: start the bench by `cargo xtask bench`"))
        };
        let binary = match binary {
            Some(binary) => fs::canonicalize(binary)?,
            None => provided(BINARY)?.into(),
        };
        let folder = TempDir::new()?;
        let project = folder.path().join("project");
        fs::create_dir(&project)?;
        fs::write(project.join("prompt.md"), "A prompt that nobody reads.\n")?;
        // Without it the project would be whatever is around it.
        fs::create_dir(project.join(".git"))?;
        if Uid::effective().is_root() {
            chown(&project, Some(PROJECT_OWNER), Some(PROJECT_OWNER))?;
        }
        let env: BTreeMap<String, String> = env::vars().collect();
        let host = HostView {
            home: env.get("HOME").map(PathBuf::from),
            cwd: project,
            env,
        };
        Ok(Self {
            binary,
            image: provided(AGENT_IMAGE)?,
            shell_image: provided(SHELL_IMAGE)?,
            host,
            api: Docker::connect_with_defaults()?,
            folder,
        })
    }

    pub(crate) fn project(&self) -> &Path {
        &self.host.cwd
    }

    /// Returns a folder beside the project.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.beside("state")
    }

    /// Our command line, with a state folder of the bench.
    pub(crate) fn dark_factory(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .current_dir(self.project())
            .env("DARK_FACTORY_STATE_DIR", self.state())
            .stdin(Stdio::null());
        command
    }

    /// `dark-factory run` of prompt files, whose agent does what a script says.
    pub(crate) fn run(
        &self,
        prompts: &[&str],
        flags: &[&str],
        network: NetworkMode,
        script: &str,
    ) -> Command {
        let agent = ["/bin/agent", "-e", script];
        self.run_argv(&self.image, prompts, flags, network, &agent)
    }

    /// The same for a command in an image.
    pub(crate) fn run_argv(
        &self,
        image: &str,
        prompts: &[&str],
        flags: &[&str],
        network: NetworkMode,
        argv: &[&str],
    ) -> Command {
        let network = match network {
            NetworkMode::None => "none".to_owned(),
            NetworkMode::Open => "open".to_owned(),
            NetworkMode::Allow(rules) => {
                let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
                format!("allow:{}", rules.join(","))
            }
        };
        let mut run = self.dark_factory(&["run", "--network", &network, "--agent", "command"]);
        run.args(["--image", image])
            .args(flags)
            .args(prompts)
            .arg("--")
            .args(argv);
        run
    }

    /// Resolves the project's prompt for a command, as `run` would.
    pub(crate) fn resolved(
        &self,
        image: &str,
        network: NetworkMode,
        argv: &[&str],
    ) -> Result<Resolved> {
        let text = |flag, text: &str| Some(Sourced::flag(flag, text.to_owned()));
        let settings = Settings {
            agent: text("--agent", "command"),
            image: text("--image", image),
            network: Some(Sourced::flag("--network", network)),
            command: Some(Sourced::flag(
                "--",
                argv.iter().map(|&word| word.to_owned()).collect(),
            )),
            ..Settings::default()
        };
        let file = self.project().join("prompt.md");
        let prompt = Prompt::parse(&file.display().to_string(), &fs::read(&file)?)?;
        let context = ResolveContext::new(self.state());
        Ok(resolve(&prompt, &settings, &self.host, &context)?)
    }

    pub(crate) fn engine(&self) -> Result<DockerEngine> {
        let endpoint = DockerEndpoint::resolve(None, &self.host.env)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Ok(DockerEngine::connect(&endpoint, self.host.clone(), clock))
    }

    /// Returns a supervisor in this process.
    pub(crate) fn supervisor(&self, engine: Arc<dyn Engine>, state: &Path) -> Result<Supervisor> {
        Ok(Supervisor::open(
            engine,
            state,
            HELPER,
            Arc::new(SystemClock),
        )?)
    }
}

/// Describes the machine in one line, for the results.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("an unknown processor", |model| {
            model.trim_start_matches([' ', '\t', ':'])
        });
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mut version = Command::new("docker");
    version.args(["version", "--format", "{{.Server.Version}}"]);
    let engine = version.output().map(|output| output.stdout);
    let engine = String::from_utf8_lossy(&engine.unwrap_or_default()).into_owned();
    format!(
        "{cpus} x {model}, kernel {}, Docker Engine {}, load {}",
        read("/proc/sys/kernel/osrelease").trim(),
        engine.trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    )
}
