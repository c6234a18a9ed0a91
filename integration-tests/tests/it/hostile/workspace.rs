//! What an agent leaves in its workspace, against what the host reads there afterwards.
//!
//! Owns: a secret on the host that everything leads to.
//! Reads: all that the host has of the run; the secret, which is to be as it was.
//! Never: leaves what git would wait for; see `crates/factory/src/changes/tests/attacks.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use integration_tests::claude_image;
use tempfile::TempDir;

use super::{Attempts, attack, files_with};
use crate::scene::{Scene, report};
use crate::support::Ended;

const SECRET: &str = "secret-of-the-host-93c2";

/// A folder of the host with a secret in it, which anybody may write to.
struct Elsewhere(TempDir);

impl Elsewhere {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(folder.path().join("secret"), SECRET).unwrap();
        Self(folder)
    }

    fn secret(&self) -> PathBuf {
        self.0.path().join("secret")
    }

    fn assert_untouched(&self) {
        assert_eq!(fs::read_to_string(self.secret()).unwrap(), SECRET);
        assert_eq!(fs::read_dir(self.0.path()).unwrap().count(), 1);
    }
}

/// Returns what a command of ours prints, which has to end well.
fn said(scene: &Scene, arguments: &[&str]) -> String {
    let ended = Ended::of(&mut scene.dark_factory(arguments));
    assert_eq!(
        ended.code, 0,
        "{arguments:?}: {}{}",
        ended.stdout, ended.stderr
    );
    ended.stdout + &ended.stderr
}

#[test]
fn what_an_agent_leaves_in_its_workspace_leads_the_host_nowhere() {
    what_is_left_leads_nowhere(&Scene::new());
}

pub(super) fn what_is_left_leads_nowhere(scene: &Scene) {
    let elsewhere = Elsewhere::new();
    scene.project.write("kept.txt", "kept\n");
    scene.project.write("sub/x", "x\n");
    scene.project.git(&["add", "--all"]);
    let (secret, folder) = (elsewhere.secret(), elsewhere.0.path());
    let arguments = [secret.display().to_string(), folder.display().to_string()];
    let arguments = [arguments[0].as_str(), arguments[1].as_str()];
    let script = include_str!("workspace.pl");

    let run = Ended::of(&mut attack(
        scene,
        script,
        &["--network", "none"],
        &arguments,
    ));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let mut attempts = Attempts::of(scene);
    let links = [
        "hard link to the prompt",
        "hard link to the helper",
        "hard link to the image",
        "hard link by descriptor",
        "folder of the attempt replaced",
    ];
    attempts.assert_all_failed(&links, &["Invalid cross-device link"]);
    let closed = [
        "Read-only file system",
        "Device or resource busy",
        "Permission denied",
    ];
    let ours = [
        "workspace moved",
        "workspace replaced",
        "file in the folder of the attempt",
        "log of ours",
    ];
    attempts.assert_all_failed(&ours, &closed);
    attempts.assert_failed("a device", &["Operation not permitted"]);
    attempts.assert_failed("done", &["all left"]);
    attempts.assert_no_more();
    let attempt = scene.folder();
    let report = report(&attempt);
    assert!(report["changes"]["files"].as_u64() > Some(10), "{report}");
    let patch = fs::read_to_string(attempt.join("changes.patch")).unwrap_or_default();
    assert!(patch.contains("new-link"), "{patch}");
    // The next attempt reads all that again.
    let id = scene.only_run()["run_id"].as_str().unwrap().to_owned();
    let retry = Ended::of(&mut scene.dark_factory(&["retry", &id]));
    // Its script cannot do the same again; how it ends is told all the same.
    assert_eq!(retry.code, 1, "{}{}", retry.stdout, retry.stderr);
    for arguments in [&["inspect", &id][..], &["logs", &id], &["ps", "-a"]] {
        let said = said(scene, arguments);
        assert!(!said.contains(SECRET), "{arguments:?}: {said}");
    }
    let state = scene.installation.state_dir();
    assert_eq!(files_with(&state, SECRET.as_bytes()), Vec::<String>::new());
    said(scene, &["rm", &id]);
    assert!(!attempt.exists());
    elsewhere.assert_untouched();
    assert!(scene.project.path().join("new-link").is_symlink());
}

#[test]
fn a_prompt_that_an_agent_replaces_while_it_waits_is_the_one_that_was_named() {
    let scene = Scene::new();
    let elsewhere = Elsewhere::new();
    let second = scene.project.write("second.md", "The second prompt.\n");
    let script = format!(
        "cat; ln -sf {} /workspace/second.md; ln -sf {0} /workspace/prompt.md",
        elsewhere.secret().display()
    );
    let files = [scene.prompt.as_path(), second.as_path()];

    let argv = ["bash", "-c", &script];
    let run = Ended::of(&mut scene.run_files(&claude_image(), &["--jobs", "1"], &files, &argv));
    let runs = scene.runs();
    let first = runs[0]["run_id"].as_str().unwrap();
    let again = Ended::of(&mut scene.dark_factory(&["retry", first]));

    assert_eq!(
        (run.code, again.code),
        (0, 0),
        "{}{}",
        run.stderr,
        again.stderr
    );
    let printed: Vec<String> = scene
        .runs()
        .iter()
        .map(|run| {
            let folder = run["dir"].as_str().unwrap();
            fs::read_to_string(format!("{folder}/raw.jsonl")).unwrap()
        })
        .collect();
    let prompts = ["Do what the command says.\n", "The second prompt.\n"];
    assert!(
        printed.iter().all(|text| prompts.contains(&text.as_str())),
        "{printed:?}"
    );
    assert_eq!(printed.len(), 2, "{printed:?}");
    let state = scene.installation.state_dir();
    assert_eq!(files_with(&state, SECRET.as_bytes()), Vec::<String>::new());
    elsewhere.assert_untouched();
}

#[test]
fn a_hundred_thousand_new_files_are_counted_and_hold_nothing_up() {
    let scene = Scene::new();
    let script = include_str!("many.pl");

    let run = Ended::of(&mut attack(&scene, script, &["--network", "none"], &[]));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let report = report(&scene.folder());
    assert_eq!(report["changes"]["files"], 100_000, "{report}");
    // Only some are named.
    assert!(report["changed_files"].as_array().unwrap().len() <= 100);
}
