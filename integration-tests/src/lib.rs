//! Support for tests that run the real binary on a real engine.
//!
//! Owns: throw-away installations, projects and engines, the model server, the faulty engine socket, the check that
//! no container is left.
//! Reads: the environment that `cargo xtask test` prepares; `cargo xtask env` prints it.
//! Never: ships, or stands in for an engine. What is missing fails the test and says what to run.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "test support: whatever goes wrong here fails the test that asked"
)]

pub mod chaos;
mod engine;
pub mod engine_api;
mod installation;
mod model;
mod private_engine;
mod project;
mod proxy;
mod registry;
pub mod sandboxes;
mod traces;

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

pub use engine::Engine;
pub use installation::{Installation, Leftovers};
pub use model::MockModel;
pub use private_engine::{LiveRestore, PrivateEngine};
pub use project::{PROJECT_OWNER, Project};
pub use proxy::{EngineProxy, Fault, Instead};
pub use registry::Registry;
pub use traces::Traces;

/// Returns the image of the scripted agent: `/bin/agent` takes `-e SCRIPT`, `claude` a prompt on its standard input.
///
/// # Panics
///
/// Where the tests were not provisioned.
pub fn agent_image() -> String {
    provisioned("DARK_FACTORY_TEST_AGENT_IMAGE")
}

/// Returns where the Podman of the tests is, which has the image of the scripted agent.
///
/// # Panics
///
/// Where the tests were not provisioned.
pub fn podman_host() -> String {
    provisioned("DARK_FACTORY_TEST_PODMAN")
}

/// Returns the image of the real Claude Code on a minimal Debian, with git and bash.
///
/// # Panics
///
/// Where the tests were not provisioned.
pub fn claude_image() -> String {
    provisioned("DARK_FACTORY_TEST_CLAUDE_IMAGE")
}

/// Returns the image of the real Codex on the same Debian.
///
/// # Panics
///
/// Where the tests were not provisioned.
pub fn codex_image() -> String {
    provisioned("DARK_FACTORY_TEST_CODEX_IMAGE")
}

/// Returns the path of the static helper.
///
/// # Panics
///
/// Where the tests were not provisioned.
pub fn helper() -> PathBuf {
    provisioned("DARK_FACTORY_TEST_HELPER").into()
}

/// Returns the path of the `dark-factory` binary that was built with the tests.
///
/// # Panics
///
/// Where there is none.
pub fn dark_factory_bin() -> PathBuf {
    if let Some(named) = env::var_os("DARK_FACTORY_TEST_BIN") {
        return named.into();
    }
    // Tests lie in target/PROFILE/deps, binaries in the folder above.
    let test = env::current_exe().expect("a test knows its own path");
    let binary = test
        .ancestors()
        .nth(2)
        .map(|folder| folder.join("dark-factory"));
    binary
        .filter(|binary| binary.is_file())
        .unwrap_or_else(|| panic!("there is no dark-factory binary: `cargo build -p dark-factory`, or run `cargo xtask test`"))
}

/// Returns an example of `crates/cli`, which lies beside the binary.
///
/// # Panics
///
/// If it is not built.
pub fn example_bin(name: &str) -> PathBuf {
    let example = dark_factory_bin().with_file_name("examples").join(name);
    assert!(
        example.is_file(),
        "{} is not there: `cargo build -p dark-factory --example {name}`, or run `cargo xtask test`",
        example.display()
    );
    example
}

/// Returns whether the tests run as root.
///
/// # Panics
///
/// Without `/proc`.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").expect("this process").uid() == 0
}

/// Returns the group whose members may use the engine.
///
/// # Panics
///
/// Where the engine's socket is not at its usual place.
pub fn docker_group() -> u32 {
    fs::metadata(proxy::ENGINE)
        .expect("the engine's socket")
        .gid()
}

fn provisioned(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `cargo xtask test`, or `eval \"$(cargo xtask env)\"` before `cargo test`")
    })
}
