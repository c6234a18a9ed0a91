//! What a test needs: an engine, a project, a state folder; and their removal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dark_factory_engines::sandbox::{SandboxEngine, ShimCommand};
use dark_factory_executor::clock::SystemClock;
use dark_factory_executor::engine::{Engine, EngineExit, Handle, Workload};
use dark_factory_executor::host::HostView;
use dark_factory_executor::spec::{
    AttemptDir, CONTAINER_INIT, Disposal, GitVisibility, LaunchSpec, Limits, Profile, PullPolicy,
    SPEC_VERSION, SeedSpec, StopPolicy, User, WORKSPACE_TARGET, Workspace,
};
use dark_factory_executor::spool::SpoolReader;
use dark_factory_executor::state_dir::{HelperExe, StateDir};
use dark_factory_spool::{ExecFailed, ExitRecord, Kind};
use dark_factory_types::{Budget, NetworkMode, OwnerId, RunId, Transport};
use rustix::process::getuid;
use tempfile::TempDir;

const HELPER_VARIABLE: &str = "DARK_FACTORY_TEST_HELPER";

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
        let attempt = RunId::from_random_bits(random()).attempt(1);
        self.state
            .make_attempt(attempt, prompt.into(), secrets, b"{}")
            .unwrap()
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
        LaunchSpec {
            version: SPEC_VERSION,
            file: "/project/001.md".to_owned(),
            project: "sandbox-engine-tests".to_owned(),
            prompt: "001".to_owned(),
            container: None,
            agent: "command".to_owned(),
            profile: Profile::Hardened,
            image: "host".to_owned(),
            pull: PullPolicy::Never,
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: BTreeMap::new(),
            secrets: Vec::new(),
            labels: BTreeMap::new(),
            workspace: Workspace {
                source: self.project.path().to_owned(),
                target: WORKSPACE_TARGET.to_owned(),
                git: GitVisibility::Visible,
                git_is_file: false,
            },
            mounts: Vec::new(),
            workdir: WORKSPACE_TARGET.to_owned(),
            user: User::Ids {
                uid: self.uid,
                gid: self.uid,
            },
            limits: Limits::default(),
            network: NetworkMode::None,
            providers: Vec::new(),
            budget: Budget::default(),
            stop: StopPolicy::default(),
            engine_identity: None,
            disposal: Disposal::Remove,
            tell_limits: false,
            secret_sources: BTreeMap::new(),
            env_from_host: BTreeSet::new(),
            completion_grace: None,
            transport: Transport::Spool,
            seed: SeedSpec::default(),
        }
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

/// Everything that a spool holds.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    pub(crate) starts: usize,
    pub(crate) exit: Option<ExitRecord>,
    pub(crate) exec_failed: Option<ExecFailed>,
    streams: [Vec<u8>; 2],
}

impl Spool {
    pub(crate) fn read(dir: &AttemptDir) -> Self {
        let mut spool = Self::default();
        let mut reader = SpoolReader::open(dir, Some(dir.attempt())).unwrap();
        while let Some(record) = reader.next_record().unwrap() {
            match record.header.kind {
                Kind::Start => spool.starts += 1,
                Kind::Data => spool.streams[record.header.stream.index()].extend(record.payload),
                Kind::Eof | Kind::Full | Kind::Room | Kind::Gap => {}
                Kind::Exit => spool.exit = ExitRecord::decode(record.payload),
                Kind::ExecFailed => spool.exec_failed = ExecFailed::decode(record.payload),
            }
        }
        spool
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.streams[0].clone()).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.streams[1].clone()).unwrap()
    }

    /// Returns whether there is an exit record that vouches for every byte.
    pub(crate) fn is_complete(&self) -> bool {
        let lengths = self.streams.each_ref().map(|stream| stream.len() as u64);
        self.exit
            .as_ref()
            .is_some_and(|exit| exit.totals == lengths && exit.eof == [true; 2])
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

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test is told by its environment where the helper is"
)]
fn helper() -> Vec<u8> {
    let path = std::env::var_os(HELPER_VARIABLE).unwrap_or_else(|| {
        panic!("{HELPER_VARIABLE} does not name the static helper; run the tests with `cargo xtask test`")
    });
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{HELPER_VARIABLE} names {}: {error}", path.display()))
}
