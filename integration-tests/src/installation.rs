//! An installation of dark-factory for one test.
//!
//! Owns: its state folder, the end of its daemon, and the check that its containers and sandboxes are gone.
//! Reads: the engine's list of containers; the processes of this machine.
//! Never: touches containers of another installation.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::dark_factory_bin;
use crate::sandboxes::{Part, sandboxes, shims_below};

/// A state folder of its own; dropped at the end of the test, which ends its daemon, and fails if a container or a
/// sandbox is left.
#[derive(Debug)]
pub struct Installation {
    // Checked before the folder that it is about is removed.
    leftovers: Leftovers,
    host: Option<String>,
    folder: TempDir,
}

impl Installation {
    /// Creates an installation that nothing was run in.
    ///
    /// # Panics
    ///
    /// If there is no room for its folder.
    #[expect(
        clippy::new_without_default,
        reason = "it creates folders; a default would hide that"
    )]
    pub fn new() -> Self {
        Self::on(None)
    }

    /// Creates an installation whose engine is at this `DOCKER_HOST`, or where the environment says.
    ///
    /// # Panics
    ///
    /// If there is no room for its folder.
    pub fn on(host: Option<String>) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("dark-factory-test-")
            .tempdir()
            .expect("a temporary folder");
        fs::create_dir(folder.path().join("home")).expect("a home folder");
        Self {
            leftovers: Leftovers::on(host.clone(), &folder.path().join("state")),
            host,
            folder,
        }
    }

    /// Returns the state folder.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Returns the folder of everything that the installation has on the host.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the installation's folder for a person to look at, and removes its containers and sandboxes now.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
        self.leftovers.remove();
        self.leftovers.are_known = true;
    }

    /// Returns the process id of the installation's daemon, if one lives.
    pub fn daemon(&self) -> Option<i32> {
        let lock = fs::File::open(self.state_dir().join("daemon.lock")).ok()?;
        match lock.try_lock_shared() {
            Err(fs::TryLockError::WouldBlock) => {
                std::io::read_to_string(lock).ok()?.trim().parse().ok()
            }
            _ => None,
        }
    }

    /// Returns the `dark-factory` command in this installation, without the credentials and settings of the host.
    pub fn dark_factory(&self) -> Command {
        self.command(&dark_factory_bin())
    }

    /// Returns another program in this installation, without the credentials and settings of the host.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for variable in [
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "ANTHROPIC_BASE_URL",
            "CLAUDE_CONFIG_DIR",
            "OPENAI_API_KEY",
            "OPENAI_BASE_URL",
            "CODEX_API_KEY",
            "CODEX_HOME",
            "GEMINI_API_KEY",
            "GOOGLE_API_KEY",
            "GOOGLE_GEMINI_BASE_URL",
            "RUST_LOG",
            "SSL_CERT_DIR",
            "SSL_CERT_FILE",
            "XDG_CONFIG_HOME",
        ] {
            command.env_remove(variable);
        }
        command
            .env("DARK_FACTORY_STATE_DIR", self.state_dir())
            .env("HOME", self.folder.path().join("home"))
            .stdin(Stdio::null());
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if self.daemon().is_none() {
            return;
        }
        let mut stop = Command::new("timeout");
        stop.arg("20").arg(dark_factory_bin());
        stop.args(["daemon", "stop", "--state-dir"])
            .arg(self.state_dir())
            .stdout(Stdio::null());
        let stopped = stop.status();
        let Some(pid) = self.daemon() else { return };
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the daemon can be killed");
        assert!(
            thread::panicking(),
            "daemon {pid} did not stop when it was told to: {stopped:?}"
        );
    }
}

/// Fails the test at its end if containers or sandboxes of an installation are left, and removes them.
#[derive(Debug)]
pub struct Leftovers {
    host: Option<String>,
    state_dir: PathBuf,
    /// Whether a test has failed because of what there is.
    are_known: bool,
}

impl Leftovers {
    /// Watches the installation with this state folder.
    pub fn of(state_dir: &Path) -> Self {
        Self::on(None, state_dir)
    }

    fn on(host: Option<String>, state_dir: &Path) -> Self {
        Self {
            host,
            state_dir: state_dir.to_path_buf(),
            are_known: false,
        }
    }

    /// Returns the ids of the installation's containers, ended ones included.
    ///
    /// # Panics
    ///
    /// If the engine does not answer.
    pub fn containers(&self) -> Vec<String> {
        // Each of its containers mounts a folder of the attempt, and no other container does.
        let listed = self.docker(&[
            "ps",
            "--all",
            "--no-trunc",
            "--filter",
            "label=dark-factory.owner",
            "--format",
            "{{.ID}} {{.Mounts}}",
        ]);
        listed
            .lines()
            .filter_map(|line| {
                let (id, mounts) = line.split_once(' ')?;
                let mut mounts = mounts.split(',').map(Path::new);
                mounts
                    .any(|source| source.starts_with(&self.state_dir))
                    .then(|| id.to_owned())
            })
            .collect()
    }

    /// Returns what the embedded sandbox has of the installation: its folders, and the processes of sandboxes.
    fn sandboxes(&self) -> Vec<String> {
        let folders = sandboxes(&self.state_dir).into_iter();
        let folders = folders.map(|sandbox| format!("sandbox {}", sandbox.name()));
        let processes = shims_below(&self.state_dir).into_iter();
        folders
            .chain(processes.map(|pid| format!("process {pid} of a sandbox")))
            .collect()
    }

    /// Removes the installation's containers, and ends its sandboxes; returns what there was.
    fn remove(&self) -> Vec<String> {
        let mut left = self.containers();
        for id in &left {
            self.docker(&["rm", "--force", id]);
        }
        left.extend(self.sandboxes());
        for sandbox in sandboxes(&self.state_dir) {
            // All that is in it dies with it.
            sandbox.kill(Part::Shim);
        }
        left
    }

    fn docker(&self, arguments: &[&str]) -> String {
        let output = self
            .command(arguments)
            .output()
            .expect("docker can be started");
        assert!(
            output.status.success() || thread::panicking(),
            "docker {arguments:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(arguments);
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        let left = self.remove();
        assert!(
            left.is_empty() || self.are_known || thread::panicking(),
            "containers were left behind: {}",
            left.join(", ")
        );
    }
}
