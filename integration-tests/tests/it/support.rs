//! What several topics need: running the binary and reading what it printed.
//!
//! Owns: one run's captured output; processes that run while a test goes on.
//! Reads: the JSON that `--json` prints.
//! Never: knows how a run works.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use integration_tests::{Installation, Project, agent_image};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};

use crate::scene::{Scene, docker, eventually};

/// What a finished command printed and returned.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from(command.output().expect("the binary can be started"))
    }

    /// Returns the one object that `--json` printed.
    pub(crate) fn one(&self) -> Value {
        let [one] = self
            .json()
            .try_into()
            .unwrap_or_else(|all| panic!("not one object: {all:?}\n{}", self.stderr));
        one
    }

    /// Returns the objects that `--json` printed.
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        self.stdout.lines().map(parse).collect()
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A command whose output is watched while it runs; it is killed if the test ends before it does.
#[derive(Debug)]
pub(crate) struct Watched {
    child: Child,
    stdout: NamedTempFile,
    stderr: NamedTempFile,
}

impl Watched {
    /// Starts a command.
    pub(crate) fn of(command: &mut Command) -> Self {
        let file = || NamedTempFile::new().expect("a temporary file");
        let (stdout, stderr) = (file(), file());
        let write = |file: &NamedTempFile| Stdio::from(file.reopen().expect("our own file"));
        let child = command
            .stdout(write(&stdout))
            .stderr(write(&stderr))
            .spawn();
        Self {
            child: child.expect("the binary can be started"),
            stdout,
            stderr,
        }
    }

    /// Returns what it has printed to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        text(self.stdout.path())
    }

    /// Returns what it has printed to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        text(self.stderr.path())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ended {
        let status = eventually("the end of the command", || {
            self.child.try_wait().expect("it is our child")
        });
        Ended {
            code: status.code().unwrap_or(-1),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Sends a signal to a process that we started.
pub(crate) fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("our own process can be signalled");
}

/// Waits until a file is there.
pub(crate) fn wait_for(path: &Path) {
    eventually(&path.display().to_string(), || path.exists().then_some(()));
}

/// An installation and a project in which the scripted agent works.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub(crate) installation: Installation,
    pub(crate) project: Project,
}

impl Workshop {
    /// Creates both.
    pub(crate) fn new() -> Self {
        Self {
            installation: Installation::new(),
            project: Project::new(),
        }
    }

    /// Returns the command that runs a script on the prompt file `task.md`.
    pub(crate) fn script(&self, flags: &[&str], script: &str) -> Command {
        let task = self.project.write("task.md", "Do what the script says.\n");
        let mut command = self.run(flags);
        command.arg(task).args(["--", "/bin/agent", "-e", script]);
        command
    }

    /// Returns `run` of the scripted agent, as yet without a file.
    pub(crate) fn run(&self, flags: &[&str]) -> Command {
        let mut command = self.installation.dark_factory();
        command
            .current_dir(self.project.path())
            .args(["run", "--agent", "command"]);
        command.args(["--image", &agent_image()]).args(flags);
        command
    }

    /// Returns a command of `dark-factory` with its arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.installation.dark_factory();
        command.current_dir(self.project.path()).args(arguments);
        command
    }

    /// Returns what the engine knows of the container of the one run that is open.
    pub(crate) fn container(&self) -> Value {
        let running = Ended::of(&mut self.command(&["ps", "--json"])).json();
        let [run] = running.as_slice() else {
            panic!("not one run: {running:?}")
        };
        let name = run["container"].as_str().expect("a name");
        let inspected = docker(&["inspect", "--type", "container", name]);
        let mut found: Vec<Value> = serde_json::from_str(&inspected).expect("JSON");
        found.remove(0)
    }
}

/// A script that stands before a program of the image, under the same name.
#[derive(Debug)]
pub(crate) struct Wrapper {
    folder: TempDir,
}

impl Wrapper {
    /// Makes a script; a program of the same name that it starts is the image's.
    pub(crate) fn new(name: &str, script: &str) -> Self {
        let script = format!("#!/bin/bash\nPATH=${{PATH#*:}}\n{script}\n");
        Self::of(name, &script)
    }

    /// Makes a program of that name that does what the prompt says, as the scripted Claude does.
    pub(crate) fn scripted(name: &str) -> Self {
        Self::of(name, "#!/usr/local/bin/claude\n")
    }

    fn of(name: &str, script: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        fs::write(&path, script).expect("our own folder");
        for path in [folder.path(), &path] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).expect("our own file");
        }
        Self { folder }
    }

    /// Returns the flags of `run` that put it before the image's programs.
    pub(crate) fn flags(&self) -> [String; 4] {
        [
            "--mount".to_owned(),
            format!("{}:/opt/wrapper:ro", self.folder.path().display()),
            "--env".to_owned(),
            "PATH=/opt/wrapper:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                .to_owned(),
        ]
    }
}

/// Waits until the log of the scene's one run, which people read, has these words.
pub(crate) fn wait_for_words(scene: &Scene, words: &str) {
    eventually(words, || {
        let [run] = scene.runs().try_into().ok()?;
        let log = fs::read_to_string(attempt_file(&run, "run.log")).ok()?;
        log.contains(words).then_some(())
    });
}

/// Returns a prompt for the scripted Claude.
pub(crate) fn for_claude(front_matter: &str, script: &str) -> String {
    format!("---\nagent: claude\n{front_matter}---\nDo it.\n\n```script\n{script}\n```\n")
}

/// Returns a prompt for the scripted agent, which runs this script.
pub(crate) fn for_agent(front_matter: &str, script: &str) -> String {
    let command = json!(["/bin/agent", "-e", script]);
    format!("---\n{front_matter}command: {command}\n---\nDo it.\n")
}

/// Returns the path of a file in the folder of a run that `--json` printed.
pub(crate) fn attempt_file(run: &Value, name: &str) -> PathBuf {
    Path::new(run["dir"].as_str().expect("a folder")).join(name)
}

/// Returns the text of a file in the folder of a run that `--json` printed.
pub(crate) fn attempt_text(run: &Value, name: &str) -> String {
    text(&attempt_file(run, name))
}

/// Returns the report of a run that `--json` printed.
pub(crate) fn report(run: &Value) -> Value {
    serde_json::from_str(&attempt_text(run, "report.json")).expect("a report is JSON")
}

fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Somebody who is not root, has a home and a folder for temporary files, and may do nothing else.
#[derive(Debug)]
pub(crate) struct Person {
    uid: u32,
    temporary: TempDir,
}

impl Person {
    /// Gives an installation to a user, whom nobody need know.
    pub(crate) fn at(installation: &Installation, uid: u32) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let folder = installation.folder();
        for folder in [folder, &folder.join("home"), temporary.path()] {
            chown(folder, Some(uid), Some(uid)).expect("the tests are run by root");
        }
        Self { uid, temporary }
    }

    /// Returns the folder of temporary files.
    pub(crate) fn temporary(&self) -> &Path {
        self.temporary.path()
    }

    /// Returns a command of `dark-factory` as this person would run it in the embedded sandbox.
    pub(crate) fn runs(&self, command: &Command) -> Command {
        let mut own = self.runs_freely(command);
        own.env("DARK_FACTORY_ENGINE", "sandbox");
        own
    }

    /// Returns a command as this person would run it, with whatever engine there is.
    pub(crate) fn runs_freely(&self, command: &Command) -> Command {
        let mut own = as_user(self.uid, &["--clear-groups"], command);
        own.env("TMPDIR", self.temporary());
        own
    }
}

/// Returns a command on a machine without a container engine: nothing is where they usually are, and nothing names one.
pub(crate) fn without_engines(command: &Command) -> Command {
    let hide = "mount -t tmpfs none /run && { [ -L /var/run ] || mount -t tmpfs none /var/run; } && exec \"$@\"";
    let mut bare = Command::new("unshare");
    bare.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        hide,
        "sh",
    ]);
    execute(&mut bare, command);
    for naming in [
        "CONTAINER_HOST",
        "DARK_FACTORY_ENGINE",
        "DARK_FACTORY_HOST",
        "DOCKER_CONFIG",
        "DOCKER_CONTEXT",
        "DOCKER_HOST",
        "XDG_RUNTIME_DIR",
    ] {
        bare.env_remove(naming);
    }
    bare
}

/// Returns the same command, executed by another user whose groups `setpriv` is told.
pub(crate) fn as_user(user: u32, groups: &[&str], command: &Command) -> Command {
    let id = user.to_string();
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--reuid", &id, "--regid", &id]).args(groups);
    execute(&mut wrapped, command);
    wrapped
}

/// Has a command that executes its last arguments do so with another one, in its environment and its folder.
pub(crate) fn execute(wrapper: &mut Command, command: &Command) {
    wrapper
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapper.env(name, value),
            None => wrapper.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapper.current_dir(folder);
    }
}
