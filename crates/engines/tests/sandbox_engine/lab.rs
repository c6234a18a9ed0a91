//! What a test needs: an engine, a project, a state folder; and their removal.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dark_factory_engines::sandbox::{SandboxEngine, ShimCommand};
use dark_factory_executor::clock::SystemClock;
use dark_factory_executor::engine::{Engine, EngineExit, Handle, Workload};
use dark_factory_executor::host::HostView;
use dark_factory_executor::spec::{AttemptDir, CONTAINER_INIT, LaunchSpec};
use dark_factory_executor::state_dir::{HelperExe, StateDir};
use dark_factory_types::OwnerId;
use rustix::process::getuid;
use tempfile::TempDir;

#[path = "../common/launch.rs"]
mod launch;
#[path = "../common/spool.rs"]
mod spool;

use launch::{helper, random};
pub(crate) use spool::Spool;

/// Everything of one test; its sandboxes go when it is dropped.
pub(crate) struct Lab {
    pub(crate) engine: SandboxEngine,
    pub(crate) owner: OwnerId,
    pub(crate) project: TempDir,
    pub(crate) state: StateDir,
    pub(crate) root: PathBuf,
    pub(crate) uid: u32,
    _state_folder: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let folder = |prefix: &str| tempfile::Builder::new().prefix(prefix).tempdir().unwrap();
        let (project, state_folder) = (folder("df-project-"), folder("df-state-"));
        // An ordinary user can be nobody else.
        let uid = match getuid().is_root() {
            true => 1000,
            false => getuid().as_raw(),
        };
        chown(project.path(), Some(uid), Some(uid)).unwrap();
        let root = state_folder.path().join("sandboxes");
        Self {
            engine: engine(&root),
            owner: OwnerId(format!("test-{:016x}", random())),
            project,
            state: StateDir::open(
                state_folder.path(),
                HelperExe::new(Box::leak(helper().into_boxed_slice())),
            )
            .unwrap(),
            root,
            uid,
            _state_folder: state_folder,
        }
    }

    /// Makes the folder of a new attempt.
    pub(crate) fn attempt(&self) -> AttemptDir {
        self.attempt_with("the prompt\n", &[])
    }

    pub(crate) fn attempt_with(&self, prompt: &str, secrets: &[(String, String)]) -> AttemptDir {
        launch::attempt(&self.state, prompt, secrets)
    }

    /// Returns the spec of a sandbox in which the scripted agent runs a script.
    pub(crate) fn spec(&self, script: &str) -> LaunchSpec {
        self.command(&[CONTAINER_INIT, "agent", "-e", script])
    }

    /// Returns the spec of a sandbox in which the shell runs a script.
    pub(crate) fn shell(&self, script: &str) -> LaunchSpec {
        self.command(&["/bin/sh", "-c", script])
    }

    pub(crate) fn command(&self, command: &[&str]) -> LaunchSpec {
        launch::hardened(
            self.project.path(),
            (self.uid, self.uid),
            "host".to_owned(),
            command.iter().map(|word| (*word).to_owned()).collect(),
        )
    }

    pub(crate) async fn create(&self, spec: &LaunchSpec, dir: &AttemptDir) -> Handle {
        self.engine.create(spec, &self.owner, dir).await.unwrap()
    }

    /// Creates and starts a sandbox.
    pub(crate) async fn start(&self, spec: &LaunchSpec) -> (Box<dyn Workload>, AttemptDir) {
        let dir = self.attempt();
        let handle = self.create(spec, &dir).await;
        (self.engine.start(spec, &handle, &dir).await.unwrap(), dir)
    }

    /// Runs a sandbox to its end, and removes it.
    pub(crate) async fn run(&self, spec: &LaunchSpec) -> (EngineExit, Spool) {
        let (workload, dir) = self.start(spec).await;
        let exit = workload.wait().await.unwrap();
        workload.remove().await.unwrap();
        (exit, Spool::read(&dir))
    }

    /// Waits until the agent has made a file in the workspace: its way of saying how far it is.
    pub(crate) async fn wait_for(&self, name: &str) {
        let path = self.project.path().join(name);
        let there = async {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), there)
            .await
            .unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let (engine, owner) = (self.engine.clone(), self.owner.clone());
        // The test's own runtime cannot be waited for from within.
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                for left in engine.list_owned(&owner).await.unwrap() {
                    engine.remove_owned(&owner, &left).await.unwrap();
                }
            });
        });
        let removed = removed.join();
        assert!(removed.is_ok() || std::thread::panicking());
    }
}

pub(crate) fn engine(root: &Path) -> SandboxEngine {
    SandboxEngine::new(
        root.to_owned(),
        ShimCommand::new(env!("CARGO_BIN_EXE_sandbox-shim").into(), Vec::new()),
        HostView {
            cwd: "/".into(),
            ..HostView::default()
        },
        Arc::new(SystemClock),
    )
}
