//! The engine loses replies, vanishes for a while, or what it holds is damaged, and a living supervisor goes on.
//!
//! Owns: what is lost, cut, killed or damaged under a supervisor that lives.
//! Reads: the spool, to damage it.
//! Never: kills a supervisor, but to damage a spool that nobody reads.

use std::fs;

use integration_tests::{EngineProxy, Fault};

use crate::scene::{Running, STARTED, Scene, assert_same, docker, report, text};
use crate::support::Ended;

/// Ends at once and leaves a trace.
pub(crate) const SHORT: &str = "append starts.txt \"started\\n\"\nprint hello\nexit 3";

/// Runs it to its one end.
pub(crate) fn assert_short_run_ends(scene: &Scene) {
    let run = Ended::of(&mut scene.run(SHORT));

    assert_eq!(run.code, 1, "{}", run.stderr);
    scene.assert_ended("failed", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_create_whose_reply_was_lost_is_found_again() {
    let proxy = EngineProxy::new();
    proxy.next("POST /containers/create?name=", Fault::LoseReply);

    assert_short_run_ends(&Scene::behind(&proxy));

    assert_eq!(proxy.count("POST /containers/*/start"), 1);
}

#[test]
fn a_start_whose_reply_was_lost_is_no_second_start() {
    let proxy = EngineProxy::new();
    proxy.next("POST /containers/*/start", Fault::LoseReply);

    assert_short_run_ends(&Scene::behind(&proxy));
}

#[test]
fn a_wait_whose_reply_was_lost_is_asked_again() {
    let proxy = EngineProxy::new();
    // The hand-over of the spool may be the first to wait.
    proxy.next("POST /containers/*/wait", Fault::LoseReply);
    proxy.next("POST /containers/*/wait", Fault::LoseReply);

    assert_short_run_ends(&Scene::behind(&proxy));
}

#[test]
fn a_removal_whose_reply_was_lost_leaves_nothing_to_do_but_to_note_it() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("DELETE /containers/", Fault::LoseReply);

    let run = Ended::of(&mut scene.run(SHORT));
    let recover = scene.recover();

    assert_eq!(
        (run.code, recover.code),
        (1, 0),
        "{}{}",
        run.stderr,
        recover.stderr
    );
    scene.assert_ended("failed", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_run_outlives_an_engine_that_is_away_for_a_while() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    let run = scene.run_until(
        "one",
        &format!("{STARTED}print before\nwrite one x\nwait-file go\nprint after\nexit 3"),
    );

    proxy.go_away();
    proxy.wait_until_refused(2);
    scene.project.write("go", "");
    proxy.wait_until_refused(4);
    proxy.come_back();
    let run = run.ended();

    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(
        run.stderr.contains("waiting for the engine to come back"),
        "{}",
        run.stderr
    );
    scene.assert_ended("failed", b"before\nafter\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_run_that_loses_the_engine_before_its_container_runs_goes_on_when_it_is_back() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("POST /containers/*/start", Fault::HoldRequest);

    let run = Running::start(&mut scene.run(SHORT));
    proxy.wait_until_held();
    proxy.go_away();
    proxy.break_held();
    proxy.wait_until_refused(2);
    let meanwhile = scene.only_run();
    proxy.come_back();
    let run = run.ended();

    assert_eq!(meanwhile["state"], "unknown", "{meanwhile}");
    assert_eq!(run.code, 1, "{}", run.stderr);
    for words in [
        "does not answer",
        "waiting for the engine to come back",
        "the engine answers again",
    ] {
        assert!(
            run.stderr.contains(words),
            "{words:?} is missing: {}",
            run.stderr
        );
    }
    scene.assert_ended("failed", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_stop_that_does_not_reach_the_engine_ends_nothing_until_the_engine_is_back() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    let run = scene.run_until(
        "one",
        &format!("{STARTED}print hello\nwrite one x\nsleep 1h"),
    );
    let id = text(&scene.only_run(), "run_id");
    let before = scene.containers();

    proxy.go_away();
    proxy.wait_until_refused(2);
    let vain = Ended::of(&mut scene.dark_factory(&["stop", &id]));
    let listed = Ended::of(&mut scene.dark_factory(&["ps"]));
    let state = scene.only_run();
    proxy.come_back();
    let after = scene.containers();
    let run = run.ended();

    assert_eq!(vain.code, 4, "{}{}", vain.stdout, vain.stderr);
    assert!(vain.stderr.contains("does not answer"), "{}", vain.stderr);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    assert_eq!(
        (&state["state"], &state["outcome"]),
        (&"unknown".into(), &serde_json::Value::Null),
        "{state}"
    );
    assert_eq!(after, before);
    assert_eq!(run.code, 130, "{}", run.stderr);
    scene.assert_ended("cancelled", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_container_that_is_removed_under_a_living_run_was_killed() {
    let scene = Scene::new();
    let run = scene.run_until(
        "one",
        &format!("{STARTED}print hello\nwrite one x\nsleep 1h"),
    );

    docker(&["rm", "--force", &scene.container()]);
    let run = run.ended();

    assert_eq!(run.code, 137, "{}", run.stderr);
    let report = report(&scene.folder());
    assert_eq!(
        (&report["outcome"], &report["log"]),
        (&"killed".into(), &"incomplete".into()),
        "{report}"
    );
    assert_same(&scene.folder().join("raw.jsonl"), b"hello\n");
}

#[test]
fn a_helper_that_is_killed_from_outside_leaves_an_exact_prefix() {
    let scene = Scene::new();
    let run = scene.run_until(
        "one",
        &format!("{STARTED}print hello\nstderr there\nwrite one x\nsleep 1h"),
    );

    docker(&["kill", "--signal", "KILL", &scene.container()]);
    let run = run.ended();

    assert_eq!(run.code, 137, "{}", run.stderr);
    let report = report(&scene.folder());
    assert_eq!(
        (&report["outcome"], &report["log"]),
        (&"killed".into(), &"incomplete".into()),
        "{report}"
    );
    assert_same(&scene.folder().join("raw.jsonl"), b"hello\n");
    assert_same(&scene.folder().join("stderr.log"), b"there\n");
    assert!(
        scene.folder().join("spool").exists(),
        "the spool of an incomplete log is kept"
    );
    assert!(scene.containers().is_empty());
    scene.assert_started_once();
}

#[test]
fn a_spool_that_is_deleted_on_the_host_stops_the_agent() {
    let scene = Scene::new();
    let run = scene.run_until(
        "one",
        &format!("{STARTED}print hello\nwrite one x\nsleep 1h"),
    );

    fs::remove_file(scene.folder().join("spool")).expect("there is a spool");
    let run = run.ended();

    assert_eq!(run.code, 5, "{}", run.stderr);
    let report = report(&scene.folder());
    assert_eq!(
        (&report["outcome"], &report["log"]),
        (&"error".into(), &"incomplete".into()),
        "{report}"
    );
    assert!(
        text(&report, "cause").contains("spool was removed on the host"),
        "{report}"
    );
    assert_same(&scene.folder().join("raw.jsonl"), b"hello\n");
    assert!(scene.containers().is_empty());
}

#[test]
fn a_damaged_spool_ends_its_run_as_an_error_and_is_kept() {
    let scene = Scene::new();
    let script =
        format!("{STARTED}print whole\nwrite one x\nwait-file go\nprint damaged\nprint lost");
    scene.run_until("one", &script).crash();
    scene.project.write("go", "");
    scene.wait_for_container();
    let folder = scene.folder();
    let other = scene
        .project
        .write("other.md", "Do what the command says.\n");
    let run =
        Running::start(&mut scene.run_file(&other, &[], "write two x\nwait-file end\nprint other"));
    scene.wait_for_file("two");
    run.crash();
    scene.project.write("end", "");

    let raw = folder.join("raw.jsonl");
    let mut bytes = fs::read(&raw).expect("there is output");
    let at = bytes
        .windows(7)
        .position(|part| part == b"damaged")
        .expect("it was printed");
    bytes[at] ^= 1;
    fs::write(&raw, &bytes).expect("it can be written");
    let spool = fs::read(folder.join("spool")).expect("there is a spool");
    let recover = scene.recover();

    assert_eq!(recover.code, 0, "{}{}", recover.stdout, recover.stderr);
    assert!(
        recover.stdout.contains("prompt.md error: ")
            && recover.stdout.contains("the spool is damaged at byte"),
        "{}",
        recover.stdout
    );
    assert!(
        recover.stdout.contains("other.md succeeded"),
        "{}",
        recover.stdout
    );
    assert_same(&folder.join("spool"), &spool);
    // Nothing is cut off that might be of use to a person; what people read has nothing of it.
    assert_same(&raw, &bytes);
    let shown = fs::read_to_string(folder.join("run.log")).expect("there is a log");
    assert!(
        shown.contains("whole") && !shown.contains("lost"),
        "{shown}"
    );
    scene.assert_started_once();
}

#[test]
fn a_run_whose_folder_somebody_deleted_ends_as_an_error() {
    let scene = Scene::new();
    let script = format!("{STARTED}write one x\nwait-file never");
    scene.run_until("one", &script).crash();
    fs::remove_dir_all(scene.folder()).expect("the folder can be removed");
    scene.wait_for_container();

    let recover = scene.recover();

    assert_eq!(recover.code, 0, "{}{}", recover.stdout, recover.stderr);
    assert!(
        recover.stdout.contains("prompt.md error: ") && recover.stdout.contains("was removed"),
        "{}",
        recover.stdout
    );
    scene.assert_started_once();
}
