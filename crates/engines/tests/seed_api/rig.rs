//! What a test needs besides the lab: an executor, its logs, and containers that somebody else made.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dark_factory_engines::docker::DockerEndpoint;
use dark_factory_engines::docker::seed::{DockerExecutor, DockerExecutorBuilder};
use dark_factory_executor::execute::Executor as _;
use dark_factory_executor::host::HostView;
use dark_factory_executor::settings::{Settings, Sourced};
use dark_factory_executor::spec::PullPolicy;
use dark_factory_executor::state_dir::HelperExe;
use dark_factory_executor::store::Attempt;
use dark_factory_types::{NetworkMode, Outcome};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::lab::{Lab, docker, random};

/// The label that the seed's containers have, and ours.
pub(crate) const PROJECT_LABEL: &str = "dark-factory.project=seed-api-tests";

/// A project, an executor for it, and the names of its containers.
pub(crate) struct Rig {
    pub(crate) lab: Lab,
    pub(crate) unique: String,
    pub(crate) executor: Arc<DockerExecutor>,
    pub(crate) logs: TempDir,
}

impl Rig {
    /// Makes an executor whose agent does what the `script` block of its prompt says.
    pub(crate) fn new() -> Self {
        let lab = Lab::new();
        let unique = format!("df-seed-{:016x}", random());
        let executor = Arc::new(builder(&lab, &unique).build().unwrap());
        Self {
            lab,
            unique,
            executor,
            logs: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn builder(&self) -> DockerExecutorBuilder {
        builder(&self.lab, &self.unique)
    }

    /// Returns a container's name, which begins with the project's.
    pub(crate) fn name(&self, prompt: &str) -> String {
        format!("{}-{prompt}", self.unique)
    }

    pub(crate) fn log(&self, prompt: &str) -> PathBuf {
        self.logs.path().join(format!("{prompt}.log"))
    }

    /// Returns what is in a log and in its raw twin.
    pub(crate) fn log_texts(&self, prompt: &str) -> (String, String) {
        let log = self.log(prompt);
        (
            fs::read_to_string(log.with_extension("jsonl")).unwrap(),
            fs::read_to_string(log).unwrap(),
        )
    }

    /// Runs a script to its outcome.
    pub(crate) async fn execute(&self, prompt: &str, script: &str) -> Outcome {
        let (log, name, cancel) = (
            self.log(prompt),
            self.name(prompt),
            CancellationToken::new(),
        );
        self.executor
            .execute(&prompt_of(script), &log, &name, &cancel)
            .await
            .unwrap()
    }

    /// Runs a script until the file `here` is in the project, and then drops the future.
    pub(crate) async fn abandon(&self, prompt: &str, script: &str) {
        let (log, name, cancel) = (
            self.log(prompt),
            self.name(prompt),
            CancellationToken::new(),
        );
        let (prompt, here) = (prompt_of(script), self.project_file("here"));
        tokio::select! {
            outcome = self.executor.execute(&prompt, &log, &name, &cancel) => panic!("it ended: {outcome:?}"),
            () = crate::lab::wait_for_file(&here) => {}
        }
    }

    pub(crate) fn project_file(&self, name: &str) -> PathBuf {
        self.lab.project.path().join(name)
    }

    /// Lets scripts go on that wait for `/workspace/go`.
    pub(crate) fn go(&self) {
        fs::write(self.project_file("go"), "").unwrap();
    }

    /// Makes a container as the seed or somebody else would, with these `docker` arguments before the image.
    pub(crate) fn foreign(
        &self,
        command: &[&str],
        prompt: &str,
        options: &[&str],
        script: &str,
    ) -> String {
        let name = self.name(prompt);
        let workspace = format!("{}:/workspace", self.lab.project.path().display());
        let common = ["--network", "none", "--name", &name, "--volume", &workspace];
        docker(
            &[
                command,
                &common,
                options,
                &[&self.lab.image, "/bin/agent", "-e", script],
            ]
            .concat(),
        );
        name
    }

    pub(crate) fn running(&self, prompt: &str, options: &[&str], script: &str) -> String {
        self.foreign(&["run", "--detach"], prompt, options, script)
    }

    /// Returns every attempt that the executor's store knows.
    pub(crate) async fn attempts(&self) -> Vec<Attempt> {
        self.executor.supervisor().store().attempts().await.unwrap()
    }

    /// Returns the names of the test's containers, running or not.
    pub(crate) fn containers(&self) -> Vec<String> {
        let filter = format!("name={}", self.unique);
        let listed = docker(&["ps", "--all", "--format", "{{.Names}}", "--filter", &filter]);
        listed.lines().map(str::to_owned).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for name in self.containers() {
            docker(&["rm", "--force", "--volumes", &name]);
        }
    }
}

fn builder(lab: &Lab, unique: &str) -> DockerExecutorBuilder {
    DockerExecutor::builder()
        .container_image(&lab.image)
        .project_name(unique)
        .project_root(lab.project.path())
        .state_dir(lab.state.path())
        .host(HostView {
            cwd: "/".into(),
            ..HostView::default()
        })
        .helper(helper())
        .agent("command")
        .settings(settings(&["/bin/agent"]))
}

pub(crate) fn settings(command: &[&str]) -> Settings {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    Settings {
        command: Some(Sourced::flag("command", command)),
        network: Some(Sourced::flag("network", NetworkMode::None)),
        pull: Some(Sourced::flag("pull", PullPolicy::Never)),
        ..Settings::default()
    }
}

/// Returns a prompt that makes the scripted agent run a script.
pub(crate) fn prompt_of(script: &str) -> String {
    format!("Do this:\n\n```script\n{script}\n```\n")
}

/// Returns an endpoint with nobody behind it.
pub(crate) fn dead_endpoint() -> DockerEndpoint {
    DockerEndpoint::resolve(Some("unix:///nowhere/docker.sock"), &BTreeMap::new()).unwrap()
}

pub(crate) fn endpoint() -> DockerEndpoint {
    DockerEndpoint::resolve(None, &BTreeMap::new()).unwrap()
}

/// Returns a log without the time stamps in front of its lines.
pub(crate) fn unstamped(log: &str) -> String {
    let bare = log
        .lines()
        .map(|line| line.split_once("] ").map_or(line, |(_, rest)| rest));
    bare.collect::<Vec<_>>().join("\n")
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test is told by its environment where the helper is"
)]
fn helper() -> HelperExe {
    let path = std::env::var_os("DARK_FACTORY_TEST_HELPER").unwrap();
    HelperExe::new(Box::leak(
        fs::read(Path::new(&path)).unwrap().into_boxed_slice(),
    ))
}
