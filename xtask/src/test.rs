//! Provisions what the tests need and runs them all.
//!
//! Owns: the phases, the environment of the tests, the closing line.
//! Reads: the output of the test programs, while passing it on.
//! Never: stops early; every test runs, also after a failure.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use crate::engine::Engine;
use crate::helper;
use crate::images;
use crate::packages::{self, Packages};
use crate::phases::Phases;
use crate::podman::{self, Podman};
use crate::program::Failure;
use crate::sandboxes;
use crate::tally::Tally;
use crate::workspace::Workspace;

/// What is built and what is run: the same for both, so that nothing is built twice.
const SELECTION: [&str; 3] = ["test", "--workspace", "--all-features"];

/// What the tests find when they start.
#[derive(Debug)]
struct Provisions {
    engine: Engine,
    podman: Podman,
    packages: Packages,
    environment: Vec<(&'static str, OsString)>,
}

/// Provisions, and prints the environment of the tests as a shell reads it.
pub(crate) fn print_environment(workspace: &Workspace) -> Result<ExitCode, Failure> {
    let (provisions, _) = provide_with_binary(workspace, &mut Phases::default())?;
    for (name, value) in provisions.environment {
        println!("export {name}='{}'", value.display());
    }
    provisions.podman.leave();
    Ok(ExitCode::SUCCESS)
}

/// Provisions everything but the images of the real agents, which take the binary to make.
fn provide(workspace: &Workspace, phases: &mut Phases) -> Result<Provisions, Failure> {
    let cache = workspace.cache();
    fs::create_dir_all(&cache)?;
    let mut packages = Packages::new(&cache);
    let engine = phases.run("engine", || Engine::provide(&mut packages, &cache))?;
    phases.run("packages", || {
        packages.provide(&[packages::GIT, packages::PYTHON])
    })?;
    let helper = phases.run("helper", || helper::build(workspace))?;
    phases.run("agent image", || {
        images::provide_agent(&engine, &cache, &helper)
    })?;
    let podman = phases.run("podman", || {
        let podman = Podman::provide(&mut packages, &cache)?;
        podman.copy(&engine, images::AGENT)?;
        Ok::<_, Failure>(podman)
    })?;
    let environment = vec![
        (podman::VARIABLE, podman.engine.endpoint().into()),
        (helper::VARIABLE, helper.clone().into_os_string()),
        ("DARK_FACTORY_TEST_HELPER", helper.into_os_string()),
        ("DARK_FACTORY_TEST_AGENT_IMAGE", images::AGENT.into()),
        ("DARK_FACTORY_TEST_CLAUDE_IMAGE", images::CLAUDE.into()),
        ("DARK_FACTORY_TEST_CODEX_IMAGE", images::CODEX.into()),
    ];
    Ok(Provisions {
        engine,
        podman,
        packages,
        environment,
    })
}

/// Provisions, and builds the binary with its fail points; returns the environment of the tests.
pub(crate) fn provide_and_build(
    workspace: &Workspace,
    phases: &mut Phases,
) -> Result<Vec<(&'static str, OsString)>, Failure> {
    let (provisions, binary) = provide_with_binary(workspace, phases)?;
    let mut environment = provisions.environment;
    provisions.podman.leave();
    environment.push(("DARK_FACTORY_TEST_BIN", binary.into_os_string()));
    Ok(environment)
}

fn provide_with_binary(
    workspace: &Workspace,
    phases: &mut Phases,
) -> Result<(Provisions, PathBuf), Failure> {
    let mut provisions = provide(workspace, phases)?;
    let binary = phases.run("binary", || {
        built_binary(
            workspace
                .cargo()
                .args(["build", "--package", "dark-factory", "--all-features"])
                .envs(provisions.environment.iter().cloned()),
        )?
        .ok_or_else(|| Failure::new("cargo built no dark-factory binary"))
    })?;
    phases.run("images", || {
        images::provide_real_agents(&binary, &mut provisions.packages)
    })?;
    Ok((provisions, binary))
}

/// Provisions and runs the tests; `filter` is passed on to `cargo test`.
pub(crate) fn run(workspace: &Workspace, filter: &[String]) -> Result<ExitCode, Failure> {
    let mut phases = Phases::default();
    let Provisions {
        engine,
        podman,
        mut packages,
        mut environment,
    } = provide(workspace, &mut phases)?;
    let binary = phases.run("build", || build(workspace, &environment))?;
    phases.run("images", || {
        images::provide_real_agents(&binary, &mut packages)
    })?;
    environment.push(("DARK_FACTORY_TEST_BIN", binary.into_os_string()));

    let ours = || -> Result<Vec<String>, Failure> {
        let mut all = engine.our_containers()?;
        all.extend(podman.engine.our_containers()?);
        Ok(all)
    };
    let (before, sandboxes_before) = (ours()?, sandboxes::traces());
    let (mut tally, all_programs_passed) =
        phases.run("tests", || run_tests(workspace, &environment, filter))?;
    let mut leftovers = ours()?;
    leftovers.retain(|container| !before.contains(container));
    let of_sandboxes = sandboxes::left_since(&sandboxes_before);

    phases.print();
    if !all_programs_passed && tally.failed == 0 {
        println!("a test program did not build, or ended before it had counted its tests");
        tally.failed += 1;
    }
    if !leftovers.is_empty() {
        println!(
            "the tests left containers behind:\n  {}",
            leftovers.join("\n  ")
        );
        tally.failed += 1;
    }
    if !of_sandboxes.is_empty() {
        println!(
            "the tests left something of sandboxes behind:\n  {}",
            of_sandboxes.join("\n  ")
        );
        tally.failed += 1;
    }
    if tally.passed + tally.failed == 0 {
        println!("no test ran");
    }
    println!("{tally}");
    let passed = all_programs_passed && tally.failed == 0 && tally.passed > 0;
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds all test programs; returns the `dark-factory` binary that was built with them.
fn build(workspace: &Workspace, environment: &[(&str, OsString)]) -> Result<PathBuf, Failure> {
    let binary = built_binary(
        workspace
            .cargo()
            .args(SELECTION)
            .arg("--no-run")
            .envs(environment.iter().cloned()),
    )?;
    if let Some(binary) = binary {
        return Ok(binary);
    }
    // Cargo builds it along only for a package with integration tests of its own.
    built_binary(
        workspace
            .cargo()
            .args(["build", "--package", "dark-factory", "--all-features"])
            .envs(environment.iter().cloned()),
    )?
    .ok_or_else(|| Failure::new("cargo built no dark-factory binary"))
}

/// Runs a build; returns the `dark-factory` binary if it is among what cargo built.
fn built_binary(command: &mut Command) -> Result<Option<PathBuf>, Failure> {
    let mut build = command
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let messages = build
        .stdout
        .take()
        .ok_or_else(|| Failure::new("cargo has no output"))?;
    let mut binary = None;
    for line in BufReader::new(messages).lines() {
        let message: serde_json::Value = serde_json::from_str(&line?).unwrap_or_default();
        let target = &message["target"];
        if target["name"] == "dark-factory"
            && target["kind"][0] == "bin"
            && message["profile"]["test"] == false
        {
            binary = message["executable"].as_str().map(PathBuf::from);
        }
    }
    if build.wait()?.success() {
        Ok(binary)
    } else {
        Err(Failure::new("the tests do not build"))
    }
}

/// Runs the tests; returns their counts, and whether cargo is content.
fn run_tests(
    workspace: &Workspace,
    environment: &[(&str, OsString)],
    filter: &[String],
) -> Result<(Tally, bool), Failure> {
    let mut tests = workspace
        .cargo()
        .args(SELECTION)
        .arg("--no-fail-fast")
        .args(filter)
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(
        tests
            .stdout
            .take()
            .ok_or_else(|| Failure::new("cargo has no output"))?,
    );
    let mut tally = Tally::default();
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        io::stdout().write_all(&line)?;
        tally.add_line(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok((tally, tests.wait()?.success()))
}
