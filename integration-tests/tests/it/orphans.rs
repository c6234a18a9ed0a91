//! Runs that a dead supervisor left: who may take them over, and what stops or ends them meanwhile.
//!
//! Owns: what happens to a run between a crash and its recovery.
//! Reads: the run list and the report, as a user does.
//! Never: varies where the crash is; see `recovery`.

use std::thread;
use std::time::{Duration, Instant};

use integration_tests::{EngineProxy, Fault};

use crate::scene::{Running, STARTED, Scene, assert_same, docker, eventually, report, text};
use crate::support::Ended;

#[test]
fn of_two_recoveries_at_once_one_finishes_the_run() {
    let scene = Scene::new();
    scene
        .run_until(
            "one",
            &format!("{STARTED}write one x\nwait-file go\nprint hello"),
        )
        .crash();

    let first = Running::start(&mut scene.dark_factory(&["recover"]));
    scene.wait_until_supervised();
    let second = scene.recover();
    scene.project.write("go", "");
    let first = first.ended();

    assert_eq!(
        (first.code, second.code),
        (0, 0),
        "{}{}",
        first.stderr,
        second.stderr
    );
    assert!(first.stdout.contains("succeeded"), "{}", first.stdout);
    assert!(
        second.stdout.contains("is supervised by a living process"),
        "{}",
        second.stdout
    );
    scene.assert_ended("succeeded", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn recoveries_that_race_for_an_ended_agent_agree_on_one_outcome() {
    let scene = Scene::new();
    scene
        .run_until(
            "one",
            &format!("{STARTED}write one x\nwait-file go\nprint hello"),
        )
        .crash();
    scene.project.write("go", "");
    scene.wait_for_container();

    let racing: Vec<Running> = (0..3)
        .map(|_| Running::start(&mut scene.dark_factory(&["recover"])))
        .collect();
    let ended: Vec<Ended> = racing.into_iter().map(Running::ended).collect();

    for recover in &ended {
        assert_eq!(recover.code, 0, "{}", recover.stderr);
        let said = [
            "succeeded",
            "is supervised by a living process",
            "nothing to recover",
        ];
        assert!(
            said.iter().any(|words| recover.stdout.contains(words)),
            "{}",
            recover.stdout
        );
    }
    assert!(
        ended
            .iter()
            .any(|recover| recover.stdout.contains("succeeded"))
    );
    scene.assert_ended("succeeded", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_recovery_leaves_a_supervised_run_alone() {
    let scene = Scene::new();
    let run = scene.run_until(
        "one",
        &format!("{STARTED}write one x\nwait-file go\nprint hello"),
    );
    let before = eventually("the start to be recorded", || {
        Some(scene.only_run()).filter(|run| run["state"] == "running")
    });

    let recover = scene.recover();
    assert_eq!(scene.only_run(), before);
    scene.project.write("go", "");
    let run = run.ended();

    assert_eq!(recover.code, 0, "{}", recover.stderr);
    assert!(
        recover.stdout.contains("is supervised by a living process"),
        "{}",
        recover.stdout
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    scene.assert_ended("succeeded", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn stopping_an_orphaned_run_ends_it_as_cancelled() {
    let scene = Scene::new();
    scene
        .run_until(
            "one",
            &format!("{STARTED}print hello\nwrite one x\nsleep 1h"),
        )
        .crash();
    let run = text(&scene.only_run(), "run_id");

    let stop = Ended::of(&mut scene.dark_factory(&["stop", &run]));

    assert_eq!(stop.code, 0, "{}", stop.stderr);
    assert!(
        stop.stdout.contains("cancelled by dark-factory stop"),
        "{}",
        stop.stdout
    );
    scene.assert_ended("cancelled", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_stop_that_died_half_way_is_finished_as_cancelled() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    scene
        .run_until(
            "one",
            &format!("{STARTED}print hello\nwrite one x\nsleep 1h"),
        )
        .crash();
    let run = text(&scene.only_run(), "run_id");
    proxy.next("POST /containers/*/kill", Fault::HoldRequest);

    let stop = Running::start(&mut scene.dark_factory(&["stop", &run]));
    proxy.wait_until_held();
    stop.crash();
    proxy.break_held();
    scene.assert_recovers("cancelled");

    scene.assert_ended("cancelled", b"hello\n", b"");
    scene.assert_started_once();
}

const LIMIT: Duration = Duration::from_secs(4);

/// Waits until the time of a run that began at `start` is over, and checks that recovering it adds none.
fn assert_its_time_is_up(scene: &Scene, start: Instant) {
    thread::sleep(LIMIT.saturating_sub(start.elapsed()));
    let recovering = Instant::now();
    scene.assert_recovers("timed_out");

    assert!(recovering.elapsed() < LIMIT, "its time began anew");
    let report = scene.assert_ended("timed_out", b"hello\n", b"");
    assert_eq!(report["cause"], "the time limit of 4s passed");
    scene.assert_started_once();
}

#[test]
fn a_time_limit_that_passed_unsupervised_counts_from_the_start() {
    let scene = Scene::new();
    let script = format!("{STARTED}print hello\nwrite one x\nsleep 1h");
    let run = Running::start(&mut scene.run_with(&["--timeout", "4s"], &script));
    scene.wait_for_file("one");
    let start = Instant::now();
    eventually("the start to be recorded", || {
        (scene.only_run()["state"] == "running").then_some(())
    });

    run.crash();

    assert_its_time_is_up(&scene, start);
}

#[test]
fn an_agent_that_ended_in_time_is_not_timed_out_by_a_late_recovery() {
    for transport in ["spool", "attach"] {
        let scene = Scene::new();
        let script = format!("{STARTED}print hello\nwrite one x\nwait-file go\nprint bye");
        let flags = ["--timeout", "5s", "--transport", transport];
        let run = Running::start(&mut scene.run_with(&flags, &script));
        scene.wait_for_file("one");
        let start = Instant::now();
        eventually("the start to be recorded", || {
            (scene.only_run()["state"] == "running").then_some(())
        });

        run.crash();
        scene.project.write("go", "");
        scene.wait_for_container();
        eventually("the time to be up", || {
            (start.elapsed() > Duration::from_secs(6)).then_some(())
        });
        scene.assert_recovers("succeeded");

        assert_eq!(scene.only_run()["outcome"], "succeeded");
        assert_same(&scene.folder().join("raw.jsonl"), b"hello\nbye\n");
        scene.assert_started_once();
    }
}

#[test]
fn a_time_limit_counts_from_a_start_that_nobody_recorded() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("POST /containers/*/start", Fault::HoldReply);
    let script = format!("{STARTED}print hello\nwrite one x\nsleep 1h");
    let run = Running::start(&mut scene.run_with(&["--timeout", "4s"], &script));
    proxy.wait_until_held();
    scene.wait_for_file("one");
    let start = Instant::now();

    run.crash();
    proxy.break_held();

    assert_its_time_is_up(&scene, start);
}

#[test]
fn an_orphan_does_not_wait_for_the_end_of_another() {
    let scene = Scene::new();
    let first = format!("{STARTED}print hello\nwrite one x\nwait-file go");
    scene.run_until("one", &first).crash();
    let second = scene.project.write("second.md", "The second.\n");
    let mut run = scene.run_file(
        &second,
        &["--timeout", "2s"],
        "print there\nwrite two x\nsleep 1h",
    );
    let run = Running::start(&mut run);
    scene.wait_for_file("two");
    run.crash();

    let recover = Running::start(&mut scene.dark_factory(&["recover"]));
    eventually("the second run's time to be up", || {
        scene
            .runs()
            .iter()
            .any(|run| run["outcome"] == "timed_out")
            .then_some(())
    });
    scene.project.write("go", "");
    let recover = recover.ended();

    assert_eq!(recover.code, 0, "{}", recover.stderr);
    let lines: Vec<&str> = recover.stdout.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].contains("timed_out") && lines[1].contains("succeeded"),
        "{lines:?}"
    );
    scene.assert_started_once();
}

#[test]
fn a_recovery_that_cannot_ask_the_engine_changes_nothing() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    scene
        .run_until(
            "one",
            &format!("{STARTED}print hello\nwrite one x\nwait-file go"),
        )
        .crash();
    let before = scene.only_run();

    proxy.go_away();
    let recover = scene.recover();
    let mut unknown = scene.only_run();
    assert_eq!(unknown["state"], "unknown", "{unknown}");
    assert!(unknown["unknown_since"].is_string(), "{unknown}");
    for field in ["state", "unknown_since"] {
        unknown[field] = before[field].clone();
    }
    assert_eq!(unknown, before);
    proxy.come_back();
    scene.project.write("go", "");

    assert_eq!(recover.code, 4, "{}", recover.stdout);
    assert!(
        recover.stderr.contains("stays as it is"),
        "{}",
        recover.stderr
    );
    scene.assert_recovers("succeeded");
    scene.assert_ended("succeeded", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn an_ended_container_that_somebody_removed_has_left_its_record() {
    let scene = Scene::new();
    scene
        .run_until(
            "one",
            &format!("{STARTED}print hello\nwrite one x\nwait-file go\nexit 3"),
        )
        .crash();
    scene.project.write("go", "");
    scene.wait_for_container();

    docker(&["rm", &scene.container()]);
    scene.assert_recovers("failed");

    let report = scene.assert_ended("failed", b"hello\n", b"");
    assert_eq!(report["exit"]["status"]["code"], 3, "{report}");
}

#[test]
fn a_running_container_that_somebody_removed_is_lost() {
    let scene = Scene::new();
    scene
        .run_until(
            "one",
            &format!("{STARTED}print hello\nwrite one x\nsleep 1h"),
        )
        .crash();

    docker(&["rm", "--force", &scene.container()]);
    scene.assert_recovers("lost");

    let report = report(&scene.folder());
    assert_eq!(
        (&report["outcome"], &report["log"]),
        (&"lost".into(), &"incomplete".into()),
        "{report}"
    );
    assert_same(&scene.folder().join("raw.jsonl"), b"hello\n");
}
