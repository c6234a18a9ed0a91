//! The surroundings of one behaviour: an engine, a project, a state folder, an owner of its own.
//!
//! Owns: all of them, and the check that nothing is left.
//! Reads: the lab.
//! Never: knows which engine it is.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use dark_factory_executor::engine::{Engine, EngineExit, Handle, LimitKind, Recovered, Workload};
use dark_factory_executor::spec::{AttemptDir, LaunchSpec, StopPolicy};
use dark_factory_executor::state_dir::{HelperExe, StateDir};
use dark_factory_types::OwnerId;
use tempfile::TempDir;

use crate::lab::Lab;
use crate::launched::{self as launch, helper, random};
use crate::spool::Spool;

/// How long an agent may take to come as far as it should.
const PATIENCE: Duration = Duration::from_secs(120);
const GLANCE: Duration = Duration::from_millis(20);

static HELPER: LazyLock<Vec<u8>> = LazyLock::new(helper);

/// Everything of one behaviour; what it made goes with it.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) lab: Box<dyn Lab>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) owner: OwnerId,
    pub(crate) project: TempDir,
    state: StateDir,
    _state_folder: TempDir,
}

impl Site {
    pub(crate) fn open(lab: Box<dyn Lab>) -> Self {
        let project = folder("df-project-");
        let (uid, gid) = lab.user();
        chown(project.path(), Some(uid), Some(gid)).unwrap();
        let state_folder = folder("df-state-");
        Self {
            engine: lab.engine(),
            owner: OwnerId(format!("contract-{:016x}", random())),
            project,
            state: StateDir::open(state_folder.path(), HelperExe::new(&HELPER)).unwrap(),
            _state_folder: state_folder,
            lab,
        }
    }

    /// Removes what the behaviour left, as the engine lists it, and looks that nothing stays on the machine.
    pub(crate) async fn close(self) {
        for container in self.engine.list_owned(&self.owner).await.unwrap() {
            self.engine
                .remove_owned(&self.owner, &container)
                .await
                .unwrap();
        }
        assert_eq!(self.lab.leftovers(&self.owner), Vec::<String>::new());
    }

    /// Returns the path of a file of the project.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.project.path().join(name)
    }

    /// Writes a file of the project, which belongs to the agent's user.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, content).unwrap();
        let (uid, gid) = self.lab.user();
        chown(&path, Some(uid), Some(gid)).unwrap();
        path
    }

    /// Waits until the agent has written a file of the project: its way of saying how far it is.
    pub(crate) async fn wait_for(&self, name: &str) {
        let path = self.file(name);
        until(&format!("{name} is written"), async || path.exists()).await;
    }

    /// Makes the folder of a new attempt.
    pub(crate) fn attempt(&self) -> AttemptDir {
        self.attempt_with("the prompt\n", &[])
    }

    pub(crate) fn attempt_with(&self, prompt: &str, secrets: &[(String, String)]) -> AttemptDir {
        launch::attempt(&self.state, prompt, secrets)
    }

    /// Returns the spec of a hardened workload that runs a script.
    pub(crate) fn spec(&self, script: &str) -> LaunchSpec {
        LaunchSpec {
            project: "contract".to_owned(),
            ..launch::hardened(
                self.project.path(),
                self.lab.user(),
                self.lab.image(),
                vec![self.lab.agent(), "-e".to_owned(), script.to_owned()],
            )
        }
    }

    pub(crate) async fn create(&self, spec: &LaunchSpec, dir: &AttemptDir) -> Handle {
        self.engine.create(spec, &self.owner, dir).await.unwrap()
    }

    /// Creates and starts a workload.
    pub(crate) async fn start(&self, spec: &LaunchSpec) -> (Box<dyn Workload>, AttemptDir) {
        let dir = self.attempt();
        (self.start_in(spec, &dir).await, dir)
    }

    pub(crate) async fn start_in(&self, spec: &LaunchSpec, dir: &AttemptDir) -> Box<dyn Workload> {
        let handle = self.create(spec, dir).await;
        self.engine.start(spec, &handle, dir).await.unwrap()
    }

    /// Starts a workload and waits until its agent says that it has begun, by a file of that name.
    pub(crate) async fn begin(&self, script: &str) -> (Box<dyn Workload>, AttemptDir) {
        let started = self.start(&self.spec(script)).await;
        self.wait_for("begun").await;
        started
    }

    /// Returns a running workload as another engine object finds it.
    pub(crate) async fn found(&self, engine: &dyn Engine, handle: &Handle) -> Box<dyn Workload> {
        match engine.recover(handle).await.unwrap() {
            Recovered::Running(workload) => workload,
            other => panic!("not running: {other:?}"),
        }
    }

    /// Returns whether the engine says that it keeps a limit.
    pub(crate) async fn keeps(&self, limit: LimitKind) -> bool {
        let description = self.engine.describe().await.unwrap();
        description.capabilities.limits.contains(&limit)
    }

    /// Runs a workload to its end, and removes it.
    pub(crate) async fn run(&self, spec: &LaunchSpec) -> (EngineExit, Spool) {
        self.run_in(spec, &self.attempt()).await
    }

    pub(crate) async fn run_in(&self, spec: &LaunchSpec, dir: &AttemptDir) -> (EngineExit, Spool) {
        let workload = self.start_in(spec, dir).await;
        let exit = workload.wait().await.unwrap();
        workload.remove().await.unwrap();
        (exit, Spool::read(dir))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.lab.clear(&self.owner);
        }
    }
}

/// Returns a policy that gives the agent so many seconds.
pub(crate) fn grace(seconds: u64) -> StopPolicy {
    StopPolicy {
        grace: Duration::from_secs(seconds),
        ..StopPolicy::default()
    }
}

/// Makes a temporary folder by its real path, which is what a launch spec has.
pub(crate) fn folder(prefix: &str) -> TempDir {
    let parent = std::env::temp_dir().canonicalize().unwrap();
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(parent)
        .unwrap()
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let so = async {
        while !is_so().await {
            tokio::time::sleep(GLANCE).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, so).await.is_ok(),
        "waited in vain until {what}"
    );
}
