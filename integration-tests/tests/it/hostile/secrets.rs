//! What the host has and its agent should not: files, environments, credentials.
//!
//! Owns: marks in every place of the host where a secret is usually kept.
//! Reads: what the agent finds; what the engine tells of the container meanwhile.
//! Never: gives the agent a secret; see `masks`, and the tests of the guard for the credentials of models.

use std::fs;

use integration_tests::PROJECT_OWNER;

use super::{Attempts, attack};
use crate::scene::{Place, Running, Scene, docker, give};

/// Stands in every secret of the host.
const MARK: &str = "mark-of-the-host-7d1f";

#[test]
fn nothing_of_the_host_is_to_be_found_inside() {
    nothing_of_the_host_is_found(&Scene::new());
}

/// Returns all that the engine tells of the one run's container.
fn told(scene: &Scene) -> String {
    match scene.place {
        Place::Container => {
            let name = scene.container();
            docker(&["inspect", &name]) + &docker(&["logs", &name])
        }
        Place::Sandbox | Place::UsersSandbox => scene.sandbox().told(),
    }
}

pub(super) fn nothing_of_the_host_is_found(scene: &Scene) {
    let home = scene.installation.folder().join("home");
    for name in [
        ".ssh/id_ed25519",
        ".claude/.credentials.json",
        ".codex/auth.json",
        ".netrc",
        ".aws/credentials",
        ".config/gh/hosts.yml",
        ".docker/config.json",
    ] {
        let path = home.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, MARK).unwrap();
    }
    let state = scene.installation.state_dir();
    fs::create_dir_all(state.join("runs/other-1")).unwrap();
    fs::write(state.join("runs/other-1/raw.jsonl"), MARK).unwrap();
    if scene.place == Place::UsersSandbox {
        // Its user may read them all, outside.
        give(scene.installation.folder(), PROJECT_OWNER);
    }
    let paths = [
        home.join(".ssh/id_ed25519"),
        home.join(".claude/.credentials.json"),
        home.join(".netrc"),
        state.join("state.db"),
        state.join("runs/other-1/raw.jsonl"),
    ]
    .map(|path| path.display().to_string());
    // It is put together inside, so that the command line is no find.
    let half = MARK.replacen('-', "_", 1);
    let mut arguments = vec![half.as_str()];
    arguments.extend(paths.iter().map(String::as_str));
    let script = include_str!("secrets.pl");
    let mut command = attack(
        scene,
        script,
        &["--network", "allow:example.com"],
        &arguments,
    );
    for name in [
        "OPENAI_API_KEY",
        "GEMINI_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "HARMLESS",
    ] {
        command.env(name, MARK);
    }

    let run = Running::start(&mut command);
    scene.wait_for_file("looked");
    let told = told(scene);
    scene.project.write("enough", "");
    let run = run.ended();

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(told.contains("dark-factory.attempt"), "{told}");
    for text in [&told, &run.stdout, &run.stderr] {
        assert!(!text.contains(MARK), "{text}");
    }
    let mut attempts = Attempts::of(scene);
    for path in &paths {
        let name = path.rsplit('/').next().unwrap();
        for how in ["", " by a link", " from outside of the workspace"] {
            let absent = ["No such file or directory", "Permission denied"];
            attempts.assert_failed(&format!("read {name}{how}"), &absent);
        }
        // Not even the root of PID 1 is entered.
        let under = format!("read {name} under another root");
        attempts.assert_failed(&under, &["Permission denied"]);
    }
    for path in [
        ".claude/.credentials.json",
        ".netrc",
        ".gitconfig",
        ".ssh/id_ed25519",
    ] {
        let absent = ["No such file or directory"];
        attempts.assert_failed(&format!("read /home/agent/{path}"), &absent);
    }
    let closed = ["Permission denied", "No such file or directory"];
    attempts.assert_failed("read /etc/shadow", &closed);
    attempts.assert_failed("variables", &["none of the host"]);
    attempts.assert_only_the_workspace_is_writable();
    attempts.assert_failed("the mark", &["nowhere"]);
    attempts.assert_no_more();
}
