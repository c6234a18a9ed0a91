//! A second real Docker engine that a test may kill, stop and start again.
//!
//! Owns: its processes and their namespaces, its folder, its cgroups; one such engine at a time.
//! Reads: the test agent's image, from the machine's engine.
//! Never: touches the machine's engine or network. Without a network of its own, an engine without a bridge deletes
//! the machine's.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::traces::{Traces, children};
use crate::{agent_image, is_root};

/// How long an engine may take to come up: one that finds running containers may have to end them first.
const PATIENCE: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(5);

/// What an engine needs on this machine, each with the package that brings it.
const PROGRAMS: [(&str, &str); 5] = [
    ("docker", "docker.io or docker-cli"),
    ("dockerd", "docker.io"),
    ("containerd", "containerd"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
];

/// The first process of the namespaces: it gives the engine a `/run` and a data folder in memory, says which network
/// it is in, and ends when its input does. The kernel then ends all others; it also buries those that lost their
/// parent.
const FIRST_PROCESS: &str = "\
set -e
exec 3<&0
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs \"$0\"
readlink /proc/self/ns/net
cat <&3 >/dev/null &
wait $!
";

/// Everything that a container engine needs of containerd, and nothing that writes outside of its own folders.
const CONTAINERD_CONFIG: &str = "\
version = 2
disabled_plugins = [
  \"io.containerd.grpc.v1.cri\",
  \"io.containerd.internal.v1.opt\",
  \"io.containerd.snapshotter.v1.aufs\",
  \"io.containerd.snapshotter.v1.btrfs\",
  \"io.containerd.snapshotter.v1.devmapper\",
  \"io.containerd.snapshotter.v1.zfs\",
]
";
const CONTAINERD_SOCKET: &str = "/run/containerd.sock";

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What becomes of an engine's running containers when it goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveRestore {
    /// They run on, and the engine finds them again.
    On,
    /// An engine that is stopped stops them first; one that was killed stops them when it is back.
    Off,
}

/// An engine with the test agent's image. It ends with the test, with everything in it, even if the test is killed.
#[derive(Debug)]
pub struct PrivateEngine {
    daemon: Option<Child>,
    namespaces: Namespaces,
    live_restore: LiveRestore,
    cgroup: String,
    folder: TempDir,
    // Given back last of all.
    _turn: MutexGuard<'static, ()>,
}

/// Network, mounts and processes of one engine.
#[derive(Debug)]
struct Namespaces {
    /// `unshare`; its input keeps the first process alive.
    outside: Child,
    /// The first process, as this machine numbers it.
    first: u32,
    network: PathBuf,
}

impl PrivateEngine {
    /// Starts an engine, as soon as no other test has one.
    ///
    /// # Panics
    ///
    /// Without root, without `dockerd` and its company, or if it does not come up.
    pub fn start(live_restore: LiveRestore) -> Self {
        check_machine();
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // A socket's path has at most 108 bytes, wherever `TMPDIR` is.
        let folder = tempfile::Builder::new()
            .prefix("dfe-")
            .tempdir_in("/tmp")
            .expect("a temporary folder");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("a folder for the engine's data");
        fs::write(folder.path().join("daemon.json"), "{}").expect("the engine's settings");
        fs::write(folder.path().join("containerd.toml"), CONTAINERD_CONFIG)
            .expect("containerd's settings");
        let name = folder.path().file_name().expect("a folder has a name");
        let mut engine = Self {
            daemon: None,
            namespaces: Namespaces::create(&data),
            live_restore,
            cgroup: name.to_string_lossy().into_owned(),
            folder,
            _turn: turn,
        };
        engine.start_containerd();
        engine.restart();
        engine.load_agent_image();
        engine
    }

    /// Returns its `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Returns its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// Kills the engine as a crash would; containerd and the containers run on.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn kill(&mut self) {
        self.signal_and_wait(Signal::SIGKILL);
    }

    /// Stops the engine as `systemctl stop docker` does, and waits for its end; containerd runs on.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn terminate(&mut self) {
        self.signal_and_wait(Signal::SIGTERM);
    }

    /// Starts the engine again, on what it left, and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it runs, or does not answer within a minute.
    pub fn restart(&mut self) {
        assert!(self.daemon.is_none(), "the engine runs");
        let data = self.folder.path().join("data/docker");
        let mut command = self.namespaces.enter("dockerd");
        command
            .arg("--data-root")
            .arg(data)
            .arg("--config-file")
            .arg(self.folder.path().join("daemon.json"))
            .args(["--host", &self.host()])
            .args(["--exec-root", "/run/docker", "--pidfile", "/run/docker.pid"])
            .args(["--containerd", CONTAINERD_SOCKET])
            .args(["--cgroup-parent", &format!("/{}", self.cgroup)])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            // The image has one small file: copying it is faster than any mount.
            .args(["--storage-driver", "vfs"])
            .args(["--bridge", "none", "--iptables=false"])
            .args(["--ip-forward=false", "--ip-masq=false"]);
        if self.live_restore == LiveRestore::On {
            command.arg("--live-restore");
        }
        self.daemon = Some(self.spawn_logged(command, "dockerd.log"));
        wait_until("the private engine", || {
            if let Some(status) = self.daemon.as_mut().and_then(|it| it.try_wait().ok()?) {
                panic!("dockerd ended with {status}:\n{}", self.log());
            }
            self.try_docker(&["version"]).status.success()
        });
    }

    /// Waits until the engine is in the middle of a first start: containerd has been told, and nothing runs yet.
    ///
    /// # Panics
    ///
    /// If no container is started within a minute.
    pub fn wait_for_start(&self) {
        let first = self.namespaces.first;
        let tasks = format!("/proc/{first}/root/run/containerd/io.containerd.runtime.v2.task/moby");
        wait_until("a container's start", || {
            fs::read_dir(&tasks).is_ok_and(|mut tasks| tasks.next().is_some())
        });
    }

    /// Runs the docker command line on this engine and returns what it printed.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn docker(&self, arguments: &[&str]) -> String {
        let output = self.try_docker(arguments);
        assert!(
            output.status.success(),
            "docker {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns what the engine would leave on the machine if it were not cleaned up.
    ///
    /// # Panics
    ///
    /// Without `/proc`.
    pub fn traces(&self) -> Traces {
        Traces::of(self.folder.path(), &self.cgroup, &self.namespaces.network)
    }

    fn start_containerd(&self) {
        let mut command = self.namespaces.enter("containerd");
        command
            .arg("--root")
            .arg(self.folder.path().join("data/containerd"))
            .args(["--state", "/run/containerd"])
            .args(["--address", CONTAINERD_SOCKET])
            .arg("--config")
            .arg(self.folder.path().join("containerd.toml"));
        let mut child = self.spawn_logged(command, "containerd.log");
        let socket = format!("/proc/{}/root{CONTAINERD_SOCKET}", self.namespaces.first);
        wait_until("containerd", || {
            if let Some(status) = child.try_wait().expect("our child can be waited for") {
                panic!("containerd ended with {status}:\n{}", self.log());
            }
            Path::new(&socket).exists()
        });
        // It ends with its namespaces, and so does the process that waits for it.
        thread::spawn(move || child.wait());
    }

    fn load_agent_image(&self) {
        let mut save = Command::new("docker")
            .args(["save", &agent_image()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker can be started");
        let image = save.stdout.take().expect("it has an output");
        let load = self
            .command(&["load", "--quiet"])
            .stdin(image)
            .output()
            .expect("docker can be started");
        let saved = save.wait().expect("our child can be waited for");
        assert!(
            saved.success() && load.status.success(),
            "the agent's image could not be copied: {}",
            String::from_utf8_lossy(&load.stderr)
        );
    }

    fn signal_and_wait(&mut self, signal: Signal) {
        let mut daemon = self.daemon.take().expect("the engine runs");
        // Ours is the process that entered the namespaces; the engine is its child.
        let engine = children(daemon.id());
        let [engine] = engine.as_slice() else {
            panic!("not one dockerd: {engine:?}")
        };
        send(*engine, signal);
        daemon.wait().expect("our child can be waited for");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(arguments)
            .env("DOCKER_HOST", self.host())
            .env_remove("DOCKER_CONTEXT");
        command
    }

    fn try_docker(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .output()
            .expect("docker can be started")
    }

    fn spawn_logged(&self, mut command: Command, log: &str) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(log))
            .expect("a log");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nsenter can be started")
    }

    /// Returns what engine and containerd say of themselves.
    fn log(&self) -> String {
        ["containerd.log", "dockerd.log"]
            .map(|log| fs::read_to_string(self.folder.path().join(log)).unwrap_or_default())
            .concat()
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        let traces = self.traces();
        self.namespaces.end();
        if let Some(mut daemon) = self.daemon.take() {
            // It saw its child end with the namespaces.
            let _reaped = daemon.wait();
        }
        let left = traces.clear();
        assert!(
            left.is_empty() || thread::panicking(),
            "left behind: {}",
            left.join(", ")
        );
    }
}

impl Namespaces {
    /// Makes them, and checks that their network is not the machine's.
    fn create(data: &Path) -> Self {
        let mut outside = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private"])
            .args(["--pid", "--fork", "--mount-proc"])
            .args(["--", "sh", "-c", FIRST_PROCESS])
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare can be started");
        let mut network = String::new();
        let output = outside.stdout.take().expect("it has an output");
        BufReader::new(output)
            .read_line(&mut network)
            .expect("a line");
        let first = children(outside.id());
        let [first] = first.as_slice() else {
            let status = outside.wait();
            panic!("no namespaces could be made: {status:?}")
        };
        let namespaces = Self {
            first: *first,
            outside,
            network: network.trim().into(),
        };
        let machine = fs::read_link("/proc/self/ns/net").expect("this process has a network");
        let entered = fs::read_link(format!("/proc/{first}/ns/net")).expect("its network");
        if entered == machine || entered != namespaces.network {
            let mut namespaces = namespaces;
            namespaces.end();
            panic!("the engine would be in the machine's own network");
        }
        namespaces
    }

    /// Returns a command that runs a program inside.
    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.first.to_string()])
            .args(["--net", "--mount", "--pid", "--", program]);
        command
    }

    /// Ends every process inside, and with them mounts and network.
    fn end(&mut self) {
        drop(self.outside.stdin.take());
        // It ends after the first process, which the kernel buries after all others.
        let _reaped = self.outside.wait();
    }
}

fn check_machine() {
    assert!(
        is_root(),
        "a private engine needs root: run these tests as root"
    );
    let path = std::env::var_os("PATH").unwrap_or_default();
    for (program, package) in PROGRAMS {
        assert!(
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file()),
            "a private engine needs {program}: install {package}"
        );
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(GLANCE);
    }
}

fn send(process: u32, signal: Signal) {
    let process = i32::try_from(process).expect("a process id");
    kill(Pid::from_raw(process), signal).expect("our own process can be signalled");
}
