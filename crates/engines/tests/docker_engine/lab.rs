//! What a test needs: an engine, an image of the scripted agent, a project, a state folder; and their removal.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dark_factory_engines::docker::{DockerEndpoint, DockerEngine};
use dark_factory_executor::clock::SystemClock;
use dark_factory_executor::engine::{Engine, EngineExit, Handle, Workload};
use dark_factory_executor::host::HostView;
use dark_factory_executor::spec::{AttemptDir, LaunchSpec};
use dark_factory_executor::state_dir::{HelperExe, StateDir};
use dark_factory_types::{OwnerId, Transport};
use tempfile::TempDir;

#[path = "../common/launch.rs"]
mod launch;
#[path = "../common/spool.rs"]
mod spool;

pub(crate) use launch::{helper, random};
pub(crate) use spool::Spool;

/// Everything of one test; its containers and its image go when it is dropped.
pub(crate) struct Lab {
    pub(crate) engine: DockerEngine,
    pub(crate) owner: OwnerId,
    pub(crate) image: String,
    pub(crate) project: TempDir,
    pub(crate) state: StateDir,
    _state_folder: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let helper = helper();
        let unique = format!("{:016x}", random());
        let project = tempfile::Builder::new()
            .prefix("df-project-")
            .tempdir()
            .unwrap();
        chown(project.path(), Some(1000), Some(1000)).unwrap();
        let state_folder = tempfile::Builder::new()
            .prefix("df-state-")
            .tempdir()
            .unwrap();
        let lab = Self {
            engine: engine("unix:///var/run/docker.sock"),
            owner: OwnerId(format!("test-{unique}")),
            image: format!("dark-factory-test/{unique}:1"),
            project,
            state: StateDir::open(
                state_folder.path(),
                HelperExe::new(Box::leak(helper.into_boxed_slice())),
            )
            .unwrap(),
            _state_folder: state_folder,
        };
        lab.build_image(&lab.image, &[]);
        lab
    }

    /// Builds an image of nothing but the scripted agent, at `/bin/agent`.
    pub(crate) fn build_image(&self, name: &str, changes: &[&str]) {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join("bin")).unwrap();
        fs::write(root.path().join("bin/agent"), helper()).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(root.path().join("bin/agent"), mode).unwrap();
        let mut archive = Command::new("tar")
            .args(["--create", "--directory"])
            .arg(root.path())
            .arg("bin")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let import = Command::new("docker")
            .arg("import")
            .args(changes.iter().flat_map(|change| ["--change", change]))
            .args(["-", name])
            .stdin(archive.stdout.take().unwrap())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(import.success() && archive.wait().unwrap().success());
    }

    /// Makes the folder of a new attempt.
    pub(crate) fn attempt(&self) -> AttemptDir {
        self.attempt_with("the prompt\n", &[])
    }

    pub(crate) fn attempt_with(&self, prompt: &str, secrets: &[(String, String)]) -> AttemptDir {
        launch::attempt(&self.state, prompt, secrets)
    }

    /// Returns the spec of a hardened container that runs a script as user 1000.
    pub(crate) fn spec(&self, script: &str) -> LaunchSpec {
        launch::hardened(
            self.project.path(),
            (1000, 1000),
            self.image.clone(),
            ["/bin/agent", "-e", script].map(str::to_owned).to_vec(),
        )
    }

    pub(crate) fn attached(&self, script: &str) -> LaunchSpec {
        LaunchSpec {
            transport: Transport::Attach,
            ..self.spec(script)
        }
    }

    pub(crate) async fn create(&self, spec: &LaunchSpec, dir: &AttemptDir) -> Handle {
        self.engine.create(spec, &self.owner, dir).await.unwrap()
    }

    /// Creates and starts a container.
    pub(crate) async fn start(&self, spec: &LaunchSpec) -> (Box<dyn Workload>, AttemptDir) {
        let dir = self.attempt();
        let handle = self.create(spec, &dir).await;
        (self.engine.start(spec, &handle, &dir).await.unwrap(), dir)
    }

    /// Runs a container to its end, and removes it.
    pub(crate) async fn run(&self, spec: &LaunchSpec) -> (EngineExit, Spool) {
        let (workload, dir) = self.start(spec).await;
        let exit = workload.wait().await.unwrap();
        workload.remove().await.unwrap();
        (exit, Spool::read(&dir))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let label = format!("label=dark-factory.owner={}", self.owner);
        let listed = docker(&["ps", "--all", "--quiet", "--filter", &label]);
        let ids: Vec<&str> = listed.split_whitespace().collect();
        if !ids.is_empty() {
            docker(&[&["rm", "--force", "--volumes"], &ids[..]].concat());
        }
        docker(&["rmi", "--force", &self.image]);
    }
}

pub(crate) fn engine(endpoint: &str) -> DockerEngine {
    let endpoint = DockerEndpoint::resolve(Some(endpoint), &BTreeMap::new()).unwrap();
    DockerEngine::connect(
        &endpoint,
        HostView {
            cwd: "/".into(),
            ..HostView::default()
        },
        Arc::new(SystemClock),
    )
}

/// Runs the `docker` command and returns what it prints.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    // In a test that failed already, a second panic would hide the first one.
    assert!(
        output.status.success() || std::thread::panicking(),
        "docker {arguments:?}: {stderr}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Returns one value out of what `docker inspect` says.
pub(crate) fn inspect(name: &str, template: &str) -> String {
    docker(&["container", "inspect", "--format", template, name])
        .trim()
        .to_owned()
}

/// Waits until a file is there: the agent's way of saying how far it is.
pub(crate) async fn wait_for_file(path: &Path) {
    let there = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), there)
        .await
        .unwrap();
}
