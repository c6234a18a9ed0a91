//! The embedded sandbox: the same runs without any container engine.
//!
//! Owns: that the whole path works on it, also when the supervisor dies.
//! Reads: what a user can read.
//! Never: tests the contract: the engine's own tests do that.

use std::process::Command;

use integration_tests::Installation;

use crate::scene::{Running, STARTED, Scene};
use crate::support::Ended;

/// Where the scripted agent is in a sandbox: it is the helper.
const AGENT: [&str; 3] = ["/.dark-factory/init", "agent", "-e"];

fn with_sandbox<'c>(command: &'c mut Command, arguments: &[&str]) -> &'c mut Command {
    command
        .args(arguments)
        .env("DARK_FACTORY_ENGINE", "sandbox")
        .env("DOCKER_HOST", "unix:///nonexistent")
}

fn run(scene: &Scene, script: &str) -> Command {
    let mut command = scene.run_argv("host", &[], &[&AGENT[..], &[script]].concat());
    with_sandbox(&mut command, &[]);
    command
}

fn recover(scene: &Scene) -> Ended {
    Ended::of(with_sandbox(&mut scene.dark_factory(&[]), &["recover"]))
}

#[test]
fn a_run_in_the_sandbox_is_a_run_like_any_other() {
    let scene = Scene::new();
    let script = format!("{STARTED}print hello\nstderr there\nwrite made mine\nexit 3");

    let ended = Ended::of(&mut run(&scene, &script));

    let report = scene.assert_ended("failed", b"hello\n", b"there\n");
    assert_eq!(report["exit"]["status"]["code"], 3, "{report}");
    assert_eq!(report["image"]["reference"], "host", "{report}");
    assert!(
        ended
            .stdout
            .contains("failed: the command exited with code 3"),
        "{}\n{}",
        ended.stdout,
        ended.stderr
    );
    scene.assert_started_once();
    assert!(scene.project.path().join("made").exists());
}

#[test]
fn a_sandbox_outlives_a_killed_supervisor_and_is_recovered_whole() {
    let scene = Scene::new();
    let script = format!("{STARTED}print before\nwrite one x\nwait-file go\nprint after\nexit 0");
    let foreground = Running::start(&mut run(&scene, &script));
    scene.wait_for_file("one");

    foreground.crash();
    scene.project.write("go", "");
    let recovered = recover(&scene);

    assert_eq!(recovered.code, 0, "{}", recovered.stderr);
    scene.assert_ended("succeeded", b"before\nafter\n", b"");
    scene.assert_started_once();
}

#[test]
fn an_image_that_no_sandbox_runs_on_is_told_with_what_it_runs_on() {
    let scene = Scene::new();
    let mut command = scene.run_argv("debian:bookworm", &[], &["true"]);

    let ended = Ended::of(with_sandbox(&mut command, &[]));

    assert_ne!(ended.code, 0);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(said.contains("a sandbox runs on `host`"), "{said}");
}

#[test]
fn the_demo_needs_no_container_engine() {
    let installation = Installation::new();
    let folder = tempfile::tempdir().unwrap();
    let mut command = installation.dark_factory();
    command
        .args(["demo", "--engine", "sandbox"])
        .env("TMPDIR", folder.path());

    let ended = Ended::of(&mut command);

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert!(
        ended.stderr.contains("engine: the embedded sandbox"),
        "{}",
        ended.stderr
    );
    for row in [
        ["greeting.md", "succeeded"],
        ["impossible.md", "failed"],
        ["hungry.md", "out_of_memory"],
    ] {
        let is_in = ended.stdout.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().take(2).collect();
            words == row
        });
        assert!(is_in, "{row:?}: {}", ended.stdout);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
