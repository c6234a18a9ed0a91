//! One prompt in one project of one installation, whose supervisors come and go.
//!
//! Owns: the scene, the bounded waiting for events, and what must be true once a run has ended.
//! Reads: what a user can read: the commands' output, the attempt's folder, the project.
//! Never: looks into the store.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dark_factory_types::{Event, EventStream};
use integration_tests::sandboxes::{Part, SeenSandbox, sandboxes};
use integration_tests::{
    Engine, EngineProxy, Installation, PROJECT_OWNER, PrivateEngine, Project, claude_image,
    is_root, podman_host,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Ended, as_user};

/// How long an event may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const GLANCE: Duration = Duration::from_millis(10);

/// Waits until `condition` returns a value.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(GLANCE);
    }
}

/// Runs the docker command line and returns what it printed.
pub(crate) fn docker(arguments: &[&str]) -> String {
    docker_on(None, arguments)
}

fn docker_on(host: Option<&str>, arguments: &[&str]) -> String {
    let mut command = Command::new("docker");
    command.args(arguments);
    if let Some(host) = host {
        command.env("DOCKER_HOST", host);
    }
    let ended = Ended::of(&mut command);
    assert_eq!(ended.code, 0, "docker {arguments:?}: {}", ended.stderr);
    ended.stdout
}

/// A started command that is killed if the test gives up on it.
#[derive(Debug)]
pub(crate) struct Running(Option<Child>);

impl Running {
    /// Starts a command whose output is kept.
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(command.spawn().expect("the binary can be started")))
    }

    /// Returns the process's id.
    pub(crate) fn id(&self) -> u32 {
        self.0.as_ref().expect("it was not waited for").id()
    }

    /// Kills it as a crash would.
    pub(crate) fn crash(mut self) {
        let mut child = self.0.take().expect("it was not waited for");
        child.kill().expect("our child can be killed");
        child.wait().expect("our child can be waited for");
    }

    /// Stops it in the middle of whatever it does; it lives on and does nothing.
    pub(crate) fn hang(&self) {
        let child = self.0.as_ref().expect("it was not waited for");
        let pid = i32::try_from(child.id()).expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("our child can be stopped");
    }

    /// Returns whether it has ended; what it printed is not read.
    pub(crate) fn has_ended(&mut self) -> bool {
        let child = self.0.as_mut().expect("it was not waited for");
        child
            .try_wait()
            .expect("our child can be waited for")
            .is_some()
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Ended {
        let child = self.0.take().expect("it was not waited for");
        child
            .wait_with_output()
            .expect("our child can be waited for")
            .into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended by itself; the test has failed in any case.
            let _killed = child.kill();
            let _waited = child.wait();
        }
    }
}

/// Where the runs of a scene are, and whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On Docker or Podman.
    Container,
    /// In the embedded sandbox, of whoever runs the tests, which is root.
    Sandbox,
    /// In the embedded sandbox of an ordinary user: the project's owner.
    UsersSandbox,
}

/// The scene. Its agent is the scripted one, without a network.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) installation: Installation,
    pub(crate) project: Project,
    pub(crate) prompt: PathBuf,
    pub(crate) place: Place,
    /// The engine itself, where it is not the machine's.
    host: Option<String>,
    /// How `dark-factory` reaches it, where that is another way.
    proxy: Option<String>,
}

impl Scene {
    /// Sets a scene on the engine.
    pub(crate) fn new() -> Self {
        Self::at(None)
    }

    /// Sets a scene on an engine of its own.
    pub(crate) fn on(engine: &PrivateEngine) -> Self {
        Self::at(Some(engine.host()))
    }

    /// Sets a scene on Podman.
    pub(crate) fn on_podman() -> Self {
        Self::at(Some(podman_host()))
    }

    /// Sets a scene on the engine, or in the embedded sandbox.
    pub(crate) fn in_place(place: Place) -> Self {
        let scene = Self {
            place,
            ..Self::new()
        };
        if place == Place::UsersSandbox {
            assert!(is_root(), "this needs root, to become another user");
            give(scene.installation.folder(), PROJECT_OWNER);
        }
        scene
    }

    fn at(host: Option<String>) -> Self {
        let project = Project::new();
        let prompt = project.write("prompt.md", "Do what the command says.\n");
        Self {
            installation: Installation::on(host.clone()),
            project,
            prompt,
            place: Place::Container,
            host,
            proxy: None,
        }
    }

    fn engine(&self) -> Engine {
        match self.place {
            Place::Container => Engine::Docker,
            Place::Sandbox | Place::UsersSandbox => Engine::Sandbox,
        }
    }

    /// Returns an image with Perl, bash and git.
    pub(crate) fn tools_image(&self) -> String {
        match self.engine() {
            Engine::Docker => claude_image(),
            Engine::Sandbox => self.engine().agent_image(),
        }
    }

    /// Sets a scene in which the engine is reached through a proxy.
    pub(crate) fn behind(proxy: &EngineProxy) -> Self {
        Self::new().through(proxy)
    }

    /// Lets `dark-factory` reach the scene's engine through a proxy.
    pub(crate) fn through(mut self, proxy: &EngineProxy) -> Self {
        self.proxy = Some(proxy.host());
        self
    }

    /// Runs the docker command line on the scene's engine and returns what it printed.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        docker_on(self.host.as_deref(), arguments)
    }

    /// Returns a `dark-factory` command.
    pub(crate) fn dark_factory(&self, arguments: &[&str]) -> Command {
        let mut command = self.installation.dark_factory();
        if self.place == Place::UsersSandbox {
            command = as_user(PROJECT_OWNER, &["--clear-groups"], &command);
        }
        command.args(arguments).current_dir(self.project.path());
        self.engine().choose(&mut command);
        if let Some(proxy) = &self.proxy {
            command.env("DOCKER_HOST", proxy);
        }
        command
    }

    /// Returns a `run` of an argument vector in an image, with more flags.
    pub(crate) fn run_argv(&self, image: &str, flags: &[&str], argv: &[&str]) -> Command {
        self.run_files(image, flags, &[&self.prompt], argv)
    }

    /// Returns a `run` of an argument vector for each of several files.
    pub(crate) fn run_files(
        &self,
        image: &str,
        flags: &[&str],
        files: &[&Path],
        argv: &[&str],
    ) -> Command {
        let mut command = self.dark_factory(&["run", "--agent", "command", "--network", "none"]);
        command
            .args(["--image", image])
            .args(flags)
            .args(files)
            .arg("--")
            .args(argv);
        command
    }

    /// Returns a `run` of a script.
    pub(crate) fn run(&self, script: &str) -> Command {
        self.run_with(&[], script)
    }

    /// Returns a `run` of a script with more flags.
    pub(crate) fn run_with(&self, flags: &[&str], script: &str) -> Command {
        self.run_file(&self.prompt, flags, script)
    }

    /// Returns a `run` of a script for another file than the scene's own.
    pub(crate) fn run_file(&self, file: &Path, flags: &[&str], script: &str) -> Command {
        let argv = self.engine().agent(script);
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        self.run_files(&self.engine().agent_image(), flags, &[file], &argv)
    }

    /// Starts a `run` of a script, and waits until the script has made `file`.
    pub(crate) fn run_until(&self, file: &str, script: &str) -> Running {
        let run = Running::start(&mut self.run(script));
        self.wait_for_file(file);
        run
    }

    /// Waits until the agent has made a file of the project.
    pub(crate) fn wait_for_file(&self, name: &str) {
        let path = self.project.path().join(name);
        eventually(name, || path.exists().then_some(()));
    }

    /// Waits until the engine says that the one run's container has ended, for whatever reason.
    pub(crate) fn wait_for_container(&self) {
        match self.engine() {
            Engine::Docker => drop(self.docker(&["wait", &self.container()])),
            Engine::Sandbox => {
                let sandbox = self.sandbox();
                eventually("the end of the sandbox", || {
                    sandbox.process(Part::Shim).is_none().then_some(())
                });
            }
        }
    }

    /// Kills the main process of the agent in the one sandbox, from outside.
    pub(crate) fn kill_agent(&self) {
        let helper = self.sandbox().process(Part::Helper);
        let helper = helper.expect("the sandbox runs");
        let children = format!("/proc/{helper}/task/{helper}/children");
        let children = fs::read_to_string(children).expect("the helper's children");
        let agent = children.split_whitespace().next().expect("an agent");
        let agent = Pid::from_raw(agent.parse().expect("a process id"));
        kill(agent, Signal::SIGKILL).expect("root may kill it");
    }

    /// Returns the one sandbox of the scene.
    pub(crate) fn sandbox(&self) -> SeenSandbox {
        let mut all = sandboxes(&self.installation.state_dir());
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// Returns the name of the one run's container.
    pub(crate) fn container(&self) -> String {
        text(&self.only_run(), "container")
    }

    /// Returns the ids of the one run's containers, ended ones included.
    pub(crate) fn containers(&self) -> Vec<String> {
        let folder = self.folder();
        let attempt = folder
            .file_name()
            .expect("a folder has a name")
            .to_string_lossy();
        if self.engine() == Engine::Sandbox {
            let all = sandboxes(&self.installation.state_dir()).into_iter();
            let ours = all.filter(|sandbox| sandbox.attempt().is_some_and(|it| it == attempt));
            return ours.map(|sandbox| sandbox.name().to_owned()).collect();
        }
        let label = format!("label=dark-factory.attempt={attempt}");
        let ids = self.docker(&["ps", "--all", "--quiet", "--filter", &label]);
        ids.lines().map(str::to_owned).collect()
    }

    /// Runs `recover` to its end.
    pub(crate) fn recover(&self) -> Ended {
        Ended::of(&mut self.dark_factory(&["recover"]))
    }

    /// Runs `recover` to its end, and checks that it finished a run with this outcome.
    pub(crate) fn assert_recovers(&self, outcome: &str) {
        let recover = self.recover();
        assert_eq!(recover.code, 0, "{}", recover.stderr);
        assert!(recover.stdout.contains(outcome), "{}", recover.stdout);
    }

    /// Waits until a living process supervises the one run.
    pub(crate) fn wait_until_supervised(&self) {
        eventually("a supervisor", || {
            (self.only_run()["supervised"] == true).then_some(())
        });
    }

    /// Returns all runs, as `ps -a --json` shows them.
    pub(crate) fn runs(&self) -> Vec<Value> {
        let ended = Ended::of(&mut self.dark_factory(&["ps", "-a", "--json"]));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.json()
    }

    /// Returns the one run.
    pub(crate) fn only_run(&self) -> Value {
        let mut runs = self.runs();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.remove(0)
    }

    /// Returns the folder of the one run's attempt.
    pub(crate) fn folder(&self) -> PathBuf {
        text(&self.only_run(), "dir").into()
    }

    /// Returns the objects of the one run's raw log.
    pub(crate) fn stream(&self) -> Vec<Value> {
        let raw = fs::read_to_string(self.folder().join("raw.jsonl")).expect("the stream is UTF-8");
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        raw.lines().map(parse).collect()
    }

    /// Checks the same as [`Scene::assert_ended`], whatever was printed: a real agent's words are its own.
    pub(crate) fn assert_agent_ended(&self, outcome: &str) -> Value {
        let log = |name: &str| fs::read(self.folder().join(name)).expect("there is a log");
        self.assert_ended(outcome, &log("raw.jsonl"), &log("stderr.log"))
    }

    /// Checks that the one run has ended once, that its logs hold these bytes, and that nothing is left to do; returns
    /// its report.
    pub(crate) fn assert_ended(&self, outcome: &str, stdout: &[u8], stderr: &[u8]) -> Value {
        let run = self.only_run();
        assert_eq!(run["state"], "finished", "{run}");
        assert_eq!(run["outcome"], outcome, "{run}");
        let folder = Path::new(run["dir"].as_str().expect("a folder")).to_owned();
        let report = report(&folder);
        assert_eq!(report["outcome"], outcome, "{report}");
        assert_eq!(report["cause"], run["cause"]);
        assert_eq!(report["log"], "complete", "{report}");
        assert_eq!(report["stdout_bytes"], stdout.len());
        assert_eq!(report["stderr_bytes"], stderr.len());
        assert_same(&folder.join("raw.jsonl"), stdout);
        assert_same(&folder.join("stderr.log"), stderr);
        events(&folder);
        assert!(
            !folder.join("spool").exists(),
            "a spool that was read whole is not kept"
        );
        assert!(self.containers().is_empty(), "containers are left");
        let again = self.recover();
        assert_eq!(
            (again.code, again.stdout.as_str()),
            (0, "nothing to recover\n"),
            "{}",
            again.stderr
        );
        report
    }

    /// Checks that the agent was started exactly once; its script begins with [`STARTED`].
    pub(crate) fn assert_started_once(&self) {
        assert_eq!(self.project.read("starts.txt"), "started\n");
    }
}

/// Gives a folder, and all that is in it, to a user.
pub(crate) fn give(path: &Path, owner: u32) {
    let given = Command::new("chown")
        .arg("--recursive")
        .arg(format!("{owner}:{owner}"))
        .arg(path)
        .status();
    assert!(
        given.is_ok_and(|status| status.success()),
        "root may give files away"
    );
}

/// What a script begins with to leave a trace of each start.
pub(crate) const STARTED: &str = "append starts.txt \"started\\n\"\n";

/// Reads an attempt's report.
pub(crate) fn report(folder: &Path) -> Value {
    let json = fs::read(folder.join("report.json")).expect("there is a report");
    serde_json::from_slice(&json).expect("a report is JSON")
}

/// Returns a text of an object.
pub(crate) fn text(object: &Value, key: &str) -> String {
    object[key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key} in {object}"))
        .to_owned()
}

/// Checks that a file holds exactly these bytes, without printing them all if it does not.
pub(crate) fn assert_same(path: &Path, expected: &[u8]) {
    let found = fs::read(path).expect("there is a log");
    let first_difference = found.iter().zip(expected).position(|(a, b)| a != b);
    assert!(
        found.len() == expected.len() && first_difference.is_none(),
        "{} has {} bytes for {}, the first difference is at {first_difference:?}",
        path.display(),
        found.len(),
        expected.len(),
    );
}

/// Reads an attempt's events, and checks that they are numbered without a gap and that each one's place is a line.
pub(crate) fn events(folder: &Path) -> Vec<Event> {
    let logs = ["raw.jsonl", "stderr.log"].map(|name| fs::read(folder.join(name)).unwrap());
    let text = fs::read_to_string(folder.join("events.jsonl")).expect("there are events");
    let events: Vec<Event> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn last line");
    for (seq, event) in events.iter().enumerate() {
        assert_eq!(event.seq, u64::try_from(seq).unwrap(), "{event:?}");
        let log = match event.stream {
            EventStream::Stdout => &logs[0],
            EventStream::Stderr => &logs[1],
        };
        let line = line_of(event, log);
        let before = &log[..usize::try_from(event.offset).unwrap()];
        let after = &log[before.len() + line.len()..];
        assert!(before.is_empty() || before.ends_with(b"\n"), "{event:?}");
        assert!(!line.contains(&b'\n'), "{event:?}");
        assert!(
            [&b""[..], b"\r"].contains(&after)
                || after.starts_with(b"\n")
                || after.starts_with(b"\r\n"),
            "{event:?}"
        );
    }
    events
}

/// Returns the line that an event comes from, cut out of its stream's log.
pub(crate) fn line_of<'l>(event: &Event, log: &'l [u8]) -> &'l [u8] {
    let start = usize::try_from(event.offset).unwrap();
    &log[start..start + usize::try_from(event.len).unwrap()]
}
