//! What the tests of every engine launch.
//!
//! Owns: the spec that each of them varies.
//! Reads: the static helper that `cargo xtask test` provides.
//! Never: knows an engine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;

use dark_factory_executor::spec::{
    AttemptDir, Disposal, GitVisibility, LaunchSpec, Limits, Profile, PullPolicy, SPEC_VERSION,
    SeedSpec, StopPolicy, User, WORKSPACE_TARGET, Workspace,
};
use dark_factory_executor::state_dir::StateDir;
use dark_factory_types::{Budget, NetworkMode, RunId, Transport};

const HELPER_VARIABLE: &str = "DARK_FACTORY_TEST_HELPER";

/// Returns the spec of a hardened workload without limits: a command in an image, as a user, in a workspace.
pub(crate) fn hardened(
    workspace: &Path,
    (uid, gid): (u32, u32),
    image: String,
    command: Vec<String>,
) -> LaunchSpec {
    LaunchSpec {
        version: SPEC_VERSION,
        file: "/project/001.md".to_owned(),
        project: "engine-tests".to_owned(),
        prompt: "001".to_owned(),
        container: None,
        agent: "command".to_owned(),
        profile: Profile::Hardened,
        image,
        pull: PullPolicy::Never,
        command,
        env: BTreeMap::new(),
        secrets: Vec::new(),
        labels: BTreeMap::new(),
        workspace: Workspace {
            source: workspace.to_owned(),
            target: WORKSPACE_TARGET.to_owned(),
            git: GitVisibility::Visible,
            git_is_file: false,
        },
        mounts: Vec::new(),
        workdir: WORKSPACE_TARGET.to_owned(),
        user: User::Ids { uid, gid },
        limits: Limits::default(),
        network: NetworkMode::None,
        providers: Vec::new(),
        budget: Budget::default(),
        stop: StopPolicy::default(),
        engine_identity: None,
        disposal: Disposal::Remove,
        tell_limits: false,
        prompt_digests: None,
        secret_sources: BTreeMap::new(),
        env_from_host: BTreeSet::new(),
        completion_grace: None,
        transport: Transport::Spool,
        seed: SeedSpec::default(),
    }
}

/// Makes the folder of a new attempt.
pub(crate) fn attempt(state: &StateDir, prompt: &str, secrets: &[(String, String)]) -> AttemptDir {
    let attempt = RunId::from_random_bits(random()).attempt(1);
    state
        .make_attempt(attempt, prompt.into(), secrets, b"{}")
        .unwrap()
}

pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Reads the static helper.
#[expect(
    clippy::disallowed_methods,
    reason = "a test is told by its environment where the helper is"
)]
pub(crate) fn helper() -> Vec<u8> {
    let path = std::env::var_os(HELPER_VARIABLE).unwrap_or_else(|| {
        panic!("{HELPER_VARIABLE} does not name the static helper; run the tests with `cargo xtask test`")
    });
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{HELPER_VARIABLE} names {}: {error}", path.display()))
}
