//! Provides what the benches need, and starts them: see the crate `benches`.
//!
//! Owns: the release builds of the binary, of the benches and of the example that they run.
//! Reads: which part is asked for: `streams` needs no engine, and `podman` one more; other options are the benches' own.
//! Never: measures.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::engine::Engine;
use crate::helper;
use crate::images;
use crate::packages::{self, Packages};
use crate::podman::{self, Podman};
use crate::program::{self, Failure};
use crate::workspace::Workspace;

/// Tells the benches the options of the `podman` command, as JSON.
const PODMAN_OPTIONS: &str = "DARK_FACTORY_BENCH_PODMAN";
/// Tells the benches where the example `streams` of the agents is.
const STREAMS: &str = "DARK_FACTORY_BENCH_STREAMS";

pub(crate) fn run(workspace: &Workspace, options: &[String]) -> Result<ExitCode, Failure> {
    let helper = helper::build(workspace)?;
    let release = workspace.target().join("release");
    let mut bench = Command::new(release.join("benches"));
    bench
        .args(options)
        .env(STREAMS, release.join("examples/streams"));
    let only = options.windows(2).find(|pair| pair[0] == "--only");
    let only = only.map(|pair| pair[1].as_str());
    let is_wanted = |part| only.is_none_or(|only| only == part);
    // It ends with this.
    let mut podman = None;
    if only == Some("streams") {
        build(workspace, &helper, &["--package", "benches"])?;
    } else {
        let cache = workspace.cache();
        fs::create_dir_all(&cache)?;
        let mut packages = Packages::new(&cache);
        if is_wanted("sandbox") {
            packages.provide(&[packages::BUBBLEWRAP])?;
        }
        let engine = Engine::provide(&mut packages, &cache)?;
        images::provide_agent(&engine, &cache, &helper)?;
        let packages_to_build = ["--package", "dark-factory", "--package", "benches"];
        build(workspace, &helper, &packages_to_build)?;
        let binary = release.join("dark-factory");
        images::provide_real_agents(&binary, &mut packages)?;
        bench
            .env("DARK_FACTORY_BENCH_BINARY", &binary)
            .env("DARK_FACTORY_TEST_AGENT_IMAGE", images::AGENT)
            .env("DARK_FACTORY_TEST_CLAUDE_IMAGE", images::CLAUDE);
        if is_wanted("podman") {
            match provide_podman(&engine, &mut packages, &cache) {
                Ok(provided) => podman = Some(provided),
                Err(failure) if only.is_some() => return Err(failure),
                Err(failure) => eprintln!("   Podman will not be measured: {failure}"),
            }
        }
    }
    if let Some(podman) = &podman {
        bench
            .env(podman::VARIABLE, podman.engine.endpoint())
            .env(
                PODMAN_OPTIONS,
                serde_json::json!(podman.options()).to_string(),
            )
            .env(podman::CONFIGURATION_VARIABLE, podman.configuration());
    }
    let example = ["--package", "dark-factory-agents", "--example", "streams"];
    build(workspace, &helper, &example)?;
    program::run(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}

/// Finds or starts a Podman that has the scripted agent's image.
fn provide_podman(
    engine: &Engine,
    packages: &mut Packages,
    cache: &Path,
) -> Result<Podman, Failure> {
    let podman = Podman::provide(packages, cache)?;
    podman.copy(engine, images::AGENT)?;
    Ok(podman)
}

fn build(workspace: &Workspace, helper: &Path, what: &[&str]) -> Result<(), Failure> {
    let mut build = workspace.cargo();
    build
        .args(["build", "--release"])
        .args(what)
        .env(helper::VARIABLE, helper);
    program::run(&mut build)
}
