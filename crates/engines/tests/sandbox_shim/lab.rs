//! A place in which a test has a sandbox, without an engine.
//!
//! Owns: the sandbox's folder, and who starts its shim.
//! Reads: what the shim writes.
//! Never: looks into the shim's process.

use std::fs;
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dark_factory_engines::sandbox::config::{
    CONFIG_FILE, EXEC_ARG, EXIT_FILE, Ended, ExecRequest, ExitRecord, Network, Root, SHIM_ARG,
    SHIM_FILE, SandboxBind, SandboxConfig, SandboxLimits, ShimRecord, Tmpfs,
};
use dark_factory_executor::spec::Access;
use dark_factory_types::{ByteSize, OwnerId, RunId};
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who starts a shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Root,
    User,
}

impl Who {
    pub(crate) fn uid(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::User => 65534,
        }
    }

    /// Who a sandbox's user is, which an ordinary user cannot choose.
    pub(crate) fn inside(self) -> u32 {
        match self {
            Self::Root => 4321,
            Self::User => 65534,
        }
    }
}

/// One sandbox that can be started.
pub(crate) struct Lab {
    pub(crate) who: Who,
    dir: TempDir,
    pub(crate) config: SandboxConfig,
}

impl Lab {
    /// Makes the folders: the sandbox has `/out` writable, and nothing else of this test's.
    pub(crate) fn new(who: Who) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("df-sandbox-")
            .tempdir()
            .unwrap();
        let mut lab = Self {
            who,
            dir,
            config: config(who),
        };
        lab.give(&lab.path(""), 0o755, who.uid());
        for name in ["box", "out"] {
            fs::create_dir(lab.path(name)).unwrap();
        }
        lab.give(&lab.path("box"), 0o700, who.uid());
        lab.give(&lab.path("out"), 0o755, who.inside());
        let program = env!("CARGO_BIN_EXE_sandbox-shim");
        if fs::hard_link(program, lab.program()).is_err() {
            // By another process: what this one writes is busy as long as any child that it starts has it open.
            let mut copy = Command::new("cp");
            copy.arg(program).arg(lab.program());
            assert!(copy.status().unwrap().success());
        }
        lab.bind(&lab.path("out"), "/out", Access::ReadWrite);
        lab
    }

    /// Gives a file of the host to a user.
    pub(crate) fn give(&self, path: &Path, mode: u32, uid: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        chown(path, Some(uid), Some(uid)).unwrap();
    }

    /// Returns a path in the test's folder on the host.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a host folder that the sandbox's user owns.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        self.give(&path, 0o755, self.who.inside());
        path
    }

    /// Makes a host file that the sandbox's user owns.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        self.give(&path, 0o644, self.who.inside());
        path
    }

    /// The program that is the shim.
    pub(crate) fn program(&self) -> PathBuf {
        self.path("program")
    }

    pub(crate) fn bind(&mut self, source: &Path, target: &str, access: Access) {
        self.config.binds.push(SandboxBind {
            source: source.to_owned(),
            target: PathBuf::from(target),
            access,
        });
    }

    /// Sets what PID 1 is: a shell with this script, whose output [`Lab::output`] returns.
    pub(crate) fn script(&mut self, script: &str) {
        let script = format!("exec >/out/output 2>&1\n{script}");
        self.config.argv = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
    }

    /// Writes the configuration down.
    pub(crate) fn write_config(&self) {
        let path = self.path("box").join(CONFIG_FILE);
        fs::write(&path, serde_json::to_vec(&self.config).unwrap()).unwrap();
        self.give(&path, 0o600, self.who.uid());
    }

    /// Returns the command that a caller makes of the shim's program.
    fn command(&self) -> Command {
        let mut command = Command::new(self.program());
        command.arg(SHIM_ARG);
        if self.who == Who::User {
            command.uid(self.who.uid()).gid(self.who.uid());
        }
        command
    }

    /// Starts a shim.
    pub(crate) fn spawn(&self) -> Child {
        let mut command = self.command();
        command.arg(self.path("box")).stdin(Stdio::null());
        command.spawn().unwrap()
    }

    /// Starts a shim whose folder is on a disk of 64 KiB, in a mount namespace of its own: `/proc/PID/root` leads to it.
    pub(crate) fn spawn_on_small_disk(&self) -> Child {
        self.write_config();
        let script = "mount -t tmpfs -o size=64k,mode=700,uid=$1,gid=$1 x \"$0\" && \
             setpriv --reuid $1 --regid $1 --clear-groups cp \"$5\" \"$0\" && \
             exec setpriv --reuid $1 --regid $1 --clear-groups \"$2\" \"$3\" \"$4\"";
        let config = self.file("config.json", "");
        fs::copy(self.path("box").join(CONFIG_FILE), &config).unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["-m", "--propagation", "private", "sh", "-c", script])
            .arg(self.path("box"))
            .arg(self.who.uid().to_string())
            .arg(self.program())
            .arg(SHIM_ARG)
            .arg(self.path("box"))
            .arg(config);
        command.spawn().unwrap()
    }

    /// Starts a shim where the host has a file system in memory on a folder, to which everybody may write.
    pub(crate) fn spawn_beside_mount(&self, at: &Path) -> Child {
        let script = "mount -t tmpfs -o noexec,mode=777 x \"$0\" && exec setpriv --reuid $1 --regid $1 --clear-groups \
             \"$2\" \"$3\" \"$4\"";
        let mut command = Command::new("unshare");
        command
            .args(["-m", "--propagation", "private", "sh", "-c", script])
            .arg(at)
            .arg(self.who.uid().to_string())
            .arg(self.program())
            .arg(SHIM_ARG)
            .arg(self.path("box"));
        command.spawn().unwrap()
    }

    /// Starts a shim, waits until it has left, and returns what it wrote of the end.
    pub(crate) fn run(&self) -> ExitRecord {
        self.write_config();
        let status = self.spawn().wait().unwrap();
        assert!(status.success(), "the shim: {status}");
        self.exit().unwrap()
    }

    /// Runs a script as PID 1, and returns its output.
    pub(crate) fn output_of(&mut self, script: &str) -> String {
        self.script(script);
        let exit = self.run();
        let output = self.output();
        assert!(matches!(exit.ended, Ended::Code(_)), "{exit:?}: {output}");
        output
    }

    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.path("out/output")).unwrap_or_default()
    }

    pub(crate) fn exit(&self) -> Option<ExitRecord> {
        let text = fs::read(self.path("box").join(EXIT_FILE)).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    pub(crate) fn record(&self) -> Option<ShimRecord> {
        let text = fs::read(self.path("box").join(SHIM_FILE)).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Runs a script as PID 1 that goes on, and returns its shim once the script says that it is ready.
    pub(crate) fn start(&mut self, script: &str) -> Child {
        self.script(&format!(
            "{script}\necho ready\nwhile :; do sleep 1000; done"
        ));
        self.write_config();
        let mut shim = self.spawn();
        eventually("the script is ready", || {
            assert!(shim.try_wait().unwrap().is_none(), "{:?}", self.exit());
            self.output().contains("ready")
        });
        shim
    }

    /// Executes a program in the running sandbox.
    pub(crate) fn exec(&self, argv: &[&str]) -> Output {
        self.exec_command(argv).output().unwrap()
    }

    pub(crate) fn exec_command(&self, argv: &[&str]) -> Command {
        let request = ExecRequest {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            env: [("ASKED".to_owned(), "yes".to_owned())].into(),
        };
        let mut command = self.command();
        command
            .arg(EXEC_ARG)
            .arg(self.path("box"))
            .arg(serde_json::to_string(&request).unwrap());
        command
    }
}

impl Drop for Lab {
    /// Ends a sandbox that a failed test has left running.
    fn drop(&mut self) {
        let Some(record) = self.record() else { return };
        let line = fs::read(format!("/proc/{}/cmdline", record.shim)).unwrap_or_default();
        let folder = self.path("box");
        if line
            .split(|&byte| byte == 0)
            .any(|word| word == folder.as_os_str().as_bytes())
        {
            let _ended = kill(Pid::from_raw(record.shim), Signal::SIGKILL);
        }
    }
}

fn config(who: Who) -> SandboxConfig {
    let env = [("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"), ("OWN", "yes")];
    SandboxConfig {
        version: 1,
        attempt: RunId::from_random_bits(7).attempt(1),
        owner: OwnerId("a-test".to_owned()),
        created_at: Timestamp::UNIX_EPOCH,
        labels: [].into(),
        root: Root::Host,
        binds: Vec::new(),
        tmpfs: vec![Tmpfs {
            target: PathBuf::from("/tmp"),
            size: ByteSize(16 << 20),
            files: 1000,
            mode: 0o1777,
        }],
        argv: Vec::new(),
        env: env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        workdir: "/out".to_owned(),
        hostname: "a-sandbox".to_owned(),
        uid: who.inside(),
        gid: who.inside(),
        network: Network::Loopback,
        limits: SandboxLimits::default(),
    }
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
