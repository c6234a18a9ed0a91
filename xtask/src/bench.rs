//! Provides what the benches need, and starts them: see the crate `benches`.
//!
//! Owns: the release builds of the binary and of the benches.
//! Reads: nothing: options are the benches' own.
//! Never: measures.

use std::fs;
use std::process::{Command, ExitCode};

use crate::engine::Engine;
use crate::helper;
use crate::images;
use crate::packages::Packages;
use crate::program::{self, Failure};
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace, options: &[String]) -> Result<ExitCode, Failure> {
    let cache = workspace.cache();
    fs::create_dir_all(&cache)?;
    let mut packages = Packages::new(&cache);
    let engine = Engine::provide(&mut packages, &cache)?;
    let helper = helper::build(workspace)?;
    images::provide_agent(&engine, &cache, &helper)?;
    let mut build = workspace.cargo();
    build
        .args(["build", "--release"])
        .args(["--package", "dark-factory", "--package", "benches"])
        .env(helper::VARIABLE, &helper);
    program::run(&mut build)?;
    let release = workspace.target().join("release");
    let binary = release.join("dark-factory");
    images::provide_real_agents(&binary, &mut packages)?;
    program::run(
        Command::new(release.join("benches"))
            .args(options)
            .env("DARK_FACTORY_BENCH_BINARY", &binary)
            .env("DARK_FACTORY_TEST_AGENT_IMAGE", images::AGENT)
            .env("DARK_FACTORY_TEST_CLAUDE_IMAGE", images::CLAUDE),
    )?;
    Ok(ExitCode::SUCCESS)
}
