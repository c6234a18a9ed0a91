//! Podman for the tests: a service of our own, beside whatever engines the machine has.
//!
//! Owns: its configuration, its storage, its socket, and the service itself; what it has is the Docker side's images.
//! Reads: the images of the Docker engine.
//! Never: touches the machine's own Podman, or its network: containers have none unless they ask for one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine::Engine;
use crate::packages::{self, Packages};
use crate::program::{self, Failure};

/// Tells Podman where its configuration is.
pub(crate) const CONFIGURATION_VARIABLE: &str = "CONTAINERS_CONF";
/// Tells it where that of registries is.
const REGISTRIES_VARIABLE: &str = "CONTAINERS_REGISTRIES_CONF";
/// Tells tests and benches where the service is.
pub(crate) const VARIABLE: &str = "DARK_FACTORY_TEST_PODMAN";
/// Seconds without a request after which a service ends that nobody ended.
const IDLE: &str = "3600";
/// Where what must not outlive a reboot is: Podman takes it for the sign of one.
const RUN: &str = "/run/dark-factory-test";
/// Limits that a machine's own may not be below; runc, because crun refuses control groups of both versions at once.
const CONFIGURATION: &str = r#"[containers]
default_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]
netns = "none"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"#;

/// Registries on this machine speak plain HTTP, as for Docker.
const REGISTRIES: &str = r#"[[registry]]
location = "127.0.0.1"
insecure = true
"#;

/// A Podman service that answers; it ends with this value if it was started by it.
#[derive(Debug)]
pub(crate) struct Podman {
    pub(crate) engine: Engine,
    home: PathBuf,
    run: PathBuf,
    service: Option<Child>,
}

impl Podman {
    /// Finds the service of this workspace, or installs what is missing and starts one.
    pub(crate) fn provide(packages: &mut Packages, cache: &Path) -> Result<Self, Failure> {
        let home = cache.join("podman");
        let run = Path::new(RUN).join(short_name(&home));
        let socket = run.join("podman.sock");
        let mut podman = Self {
            engine: Engine::at(format!("unix://{}", socket.display())),
            home,
            run,
            service: None,
        };
        if podman.engine.answers() {
            return Ok(podman);
        }
        packages.provide(&[packages::PODMAN, packages::CATATONIT, packages::RUNC])?;
        if !packages::is_root() {
            return Err(Failure::new(
                "the tests of Podman need root, as the service that they start does",
            ));
        }
        fs::create_dir_all(&podman.home)?;
        fs::create_dir_all(&podman.run)?;
        fs::write(podman.configuration(), CONFIGURATION)?;
        let registries = podman.home.join("registries.conf");
        fs::write(&registries, REGISTRIES)?;
        let log = podman.home.join("service.log");
        let output = program::open_log(&log)?;
        let mut service = Command::new("podman");
        service
            .env(CONFIGURATION_VARIABLE, podman.configuration())
            .env(REGISTRIES_VARIABLE, registries)
            .env_remove("CONTAINER_HOST")
            // Where its monitors leave files of theirs, such as `oom`.
            .current_dir(&podman.run)
            .args(podman.options())
            .args(["system", "service", "--time", IDLE])
            .arg(podman.engine.endpoint())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        podman.service = Some(own_group(&mut service).spawn()?);
        if podman.engine.answers_soon(podman.service.as_mut()) {
            return Ok(podman);
        }
        Err(Failure::new(format!(
            "podman does not start here; the end of {}:\n{}",
            log.display(),
            program::tail(&log)
        )))
    }

    /// Returns the file of the configuration, for [`CONFIGURATION_VARIABLE`].
    pub(crate) fn configuration(&self) -> PathBuf {
        self.home.join("containers.conf")
    }

    /// Returns the options by which the `podman` command has the images and the containers of the service.
    pub(crate) fn options(&self) -> Vec<String> {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        [
            ("--root", path(self.home.join("storage"))),
            ("--runroot", path(self.run.join("run"))),
            ("--tmpdir", path(self.run.join("tmp"))),
            // The kernel or the file system may refuse overlays; plain copies always work, and our images are small.
            ("--storage-driver", "vfs".to_owned()),
        ]
        .into_iter()
        .flat_map(|(option, value)| [option.to_owned(), value])
        .collect()
    }

    /// Copies an image of the Docker engine, unless it is there.
    pub(crate) fn copy(&self, from: &Engine, image: &str) -> Result<(), Failure> {
        let id = |engine: &Engine| {
            let mut inspect = engine.docker();
            program::read(inspect.args(["image", "inspect", "--format", "{{.Id}}", image])).ok()
        };
        if id(from) == id(&self.engine) {
            return Ok(());
        }
        let mut save = from
            .docker()
            .args(["save", image])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let archive = save
            .stdout
            .take()
            .ok_or_else(|| Failure::new("docker save has no output"))?;
        let mut load = self.engine.docker();
        let loaded = load
            .arg("load")
            .stdin(archive)
            .stdout(Stdio::null())
            .status()?;
        let saved = save.wait()?;
        if loaded.success() && saved.success() {
            return Ok(());
        }
        Err(Failure::new(format!(
            "copying {image} to podman failed: save {saved}, load {loaded}"
        )))
    }

    /// Lets the service go on; it ends by itself when nothing has asked it for an hour.
    pub(crate) fn leave(mut self) {
        self.service = None;
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let Some(mut service) = self.service.take() else {
            return;
        };
        if let Ok(pid) = i32::try_from(service.id()) {
            // It may have ended by itself.
            let _ended = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _reaped = service.wait();
    }
}

/// Keeps the terminal's signals from a process.
fn own_group(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    command.process_group(0)
}

/// Returns a name for a folder that is short enough for a socket in it.
fn short_name(folder: &Path) -> PathBuf {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(folder.as_os_str().as_encoded_bytes());
    let name = hash.iter().take(6).map(|byte| format!("{byte:02x}"));
    PathBuf::from(name.collect::<String>())
}
