//! What has to be safe from a loss of power, and before what.
//!
//! Owns: a supervisor whose bringing of its store to the disk never ends.
//! Reads: what the engine and the attempt's folder show meanwhile.
//! Never: takes the power away: that what was synced is there is the file system's word.

use std::fs;

use crate::bad_input::refuses;
use crate::scene::{Running, STARTED, Scene, docker, eventually, report, text};

/// The disk never takes what is brought to it the first, or the second, time: the intent, or the report.
fn run_on_a_hanging_disk(scene: &Scene, points: &str, script: &str) -> Running {
    Running::start(scene.run(script).env("FAILPOINTS", points))
}

#[test]
fn no_agent_is_started_before_its_run_is_safe() {
    let scene = Scene::new();
    let script = format!("{STARTED}print hello");

    let run = run_on_a_hanging_disk(&scene, "store.sync.before=return(hang)", &script);
    eventually("a row that has its container", || {
        (scene.runs().first()?["state"] == "starting").then_some(())
    });
    let container = scene.container();
    let state = docker(&["inspect", "--format", "{{.State.Status}}", &container]);
    run.crash();

    assert_eq!(state.trim(), "created");
    assert!(!scene.project.path().join("starts.txt").exists());
    scene.assert_recovers("succeeded");
    scene.assert_ended("succeeded", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn no_agent_gets_a_prompt_that_the_disk_lost() {
    let scene = Scene::new();

    let run = run_on_a_hanging_disk(&scene, "store.sync.before=return(hang)", STARTED);
    eventually("a row that has its container", || {
        (scene.runs().first()?["state"] == "starting").then_some(())
    });
    run.crash();
    let folder = scene.folder();
    for prompt in ["prompt.md", "mount/prompt.md"] {
        let prompt = folder.join(prompt);
        fs::remove_file(&prompt).unwrap();
        fs::write(&prompt, "").unwrap();
    }
    scene.assert_recovers("start_failed");

    let report = report(&folder);
    let cause = text(&report, "cause");
    assert!(
        cause.starts_with("its prompt is not as it was recorded: "),
        "{cause}"
    );
    assert!(!scene.project.path().join("starts.txt").exists());
    assert!(scene.containers().is_empty());
    let run = text(&scene.only_run(), "run_id");
    refuses(
        &mut scene.dark_factory(&["retry", &run]),
        2,
        &["was not kept", "runs the file as it is now"],
    );
}

#[test]
fn no_container_whose_end_only_the_engine_tells_is_removed_before_its_report_is_safe() {
    let scene = Scene::new();
    let script = format!("{STARTED}print hello\nwrite one x\nsleep 60s");

    let run = run_on_a_hanging_disk(&scene, "store.sync.before=1*off->return(hang)", &script);
    scene.wait_for_file("one");
    // The helper, too: it records nothing any more.
    docker(&["kill", &scene.container()]);
    eventually("a row that is finished", || {
        (scene.runs().first()?["state"] == "finished").then_some(())
    });
    let containers = scene.containers();
    let spool = scene.folder().join("spool").exists();
    run.crash();

    assert_eq!(containers.len(), 1);
    assert!(spool);
    scene.recover();
    let report = report(&scene.folder());
    assert_eq!(text(&report, "outcome"), "killed");
    assert_eq!(
        text(&report, "cause"),
        "SIGKILL from outside killed the agent"
    );
    assert!(scene.containers().is_empty());
    scene.assert_started_once();
}

#[test]
fn a_container_whose_files_tell_its_end_is_removed_beside_its_report_and_nothing_is_lost_with_it() {
    let scene = Scene::new();
    let script = format!("{STARTED}print hello\nexit 7");

    let hang = "attempt.report.before=return(hang)";
    let run = run_on_a_hanging_disk(&scene, hang, &script);
    eventually("the end of the container", || {
        let state = scene.runs().first()?["state"].clone();
        (state == "collecting" && scene.containers().is_empty()).then_some(())
    });
    let spool = scene.folder().join("spool").exists();
    run.crash();

    assert!(spool);
    assert!(!scene.folder().join("report.json").exists());
    scene.recover();
    scene.assert_ended("failed", b"hello\n", b"");
    let report = report(&scene.folder());
    assert_eq!(report["exit"]["status"]["code"], 7, "{report}");
    assert_eq!(text(&report, "cause"), "the command exited with code 7");
    scene.assert_started_once();
}

#[test]
fn a_report_of_which_the_disk_lost_a_file_is_written_again_before_anything_is_removed() {
    let scene = Scene::new();
    let script = format!("{STARTED}print hello");

    let run = run_on_a_hanging_disk(&scene, "store.sync.before=1*off->return(hang)", &script);
    eventually("a row that is finished", || {
        (scene.runs().first()?["state"] == "finished").then_some(())
    });
    run.crash();
    let folder = scene.folder();
    let whole = report(&folder);
    let text_before = fs::read_to_string(folder.join("report.md")).unwrap();
    fs::write(folder.join("report.json"), "").unwrap();
    fs::remove_file(folder.join("report.md")).unwrap();
    scene.recover();

    assert_eq!(report(&folder), whole);
    assert_eq!(text(&whole, "outcome"), "succeeded");
    assert_eq!(
        fs::read_to_string(folder.join("report.md")).unwrap(),
        text_before
    );
    scene.assert_ended("succeeded", b"hello\n", b"");
}
