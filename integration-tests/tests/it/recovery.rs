//! A supervisor dies by SIGKILL at each stage of a run, and `recover` brings the run to its one true end.
//!
//! Owns: where a crash is placed: by a file that the agent makes, or by a request that the proxy holds.
//! Reads: the engine, to see what it holds in between.
//! Never: asks who may take a run over, or what else may happen to it; see `orphans`.

use std::thread;
use std::time::Duration;

use dark_factory_init::spew;
use integration_tests::{EngineProxy, Fault, agent_image};

use crate::scene::{Place, Running, STARTED, Scene, docker, eventually, report, text};

/// Ends at once and leaves a trace.
const SHORT: &str = "append starts.txt \"started\\n\"\nprint hello\nstderr there\nexit 3";

fn assert_short_run_ended(scene: &Scene) {
    let report = scene.assert_ended("failed", b"hello\n", b"there\n");
    assert_eq!(report["exit"]["status"]["code"], 3, "{report}");
    scene.assert_started_once();
}

/// Starts a `run`, and kills it once the proxy holds what it was told to.
fn crash_when_held(scene: &Scene, proxy: &EngineProxy, script: &str) {
    let run = Running::start(&mut scene.run(script));
    proxy.wait_until_held();
    run.crash();
}

#[test]
fn output_from_before_during_and_after_a_crash_is_whole() {
    output_is_whole(&Scene::new());
}

pub(crate) fn output_is_whole(scene: &Scene) {
    let script = format!(
        "{STARTED}spew 100k\nwrite one x\nwait-file during\nspew 300k 1k\nstderr meanwhile\nwrite two x\n\
         wait-file after\nprint last words\nexit 3"
    );

    scene.run_until("one", &script).crash();
    scene.project.write("during", "");
    scene.wait_for_file("two");
    let recover = Running::start(&mut scene.dark_factory(&["recover"]));
    scene.wait_until_supervised();
    scene.project.write("after", "");
    let recover = recover.ended();

    assert_eq!(recover.code, 0, "{}", recover.stderr);
    assert!(
        recover
            .stdout
            .contains("failed: the command exited with code 3"),
        "{}",
        recover.stdout
    );
    let stdout = [
        spew(100 << 10, 80),
        spew(300 << 10, 1 << 10),
        b"last words\n".to_vec(),
    ]
    .concat();
    let report = scene.assert_ended("failed", &stdout, b"meanwhile\n");
    assert_eq!(report["exit"]["status"]["code"], 3);
    scene.assert_started_once();
}

#[test]
fn an_agent_that_ended_while_nobody_looked_is_recovered() {
    an_end_nobody_saw_is_recovered(&Scene::new());
}

pub(crate) fn an_end_nobody_saw_is_recovered(scene: &Scene) {
    scene
        .run_until(
            "one",
            &format!("{STARTED}write one x\nwait-file go\nprint hello"),
        )
        .crash();
    scene.project.write("go", "");
    scene.wait_for_container();
    scene.assert_recovers("succeeded");

    scene.assert_ended("succeeded", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_recovery_that_is_killed_too_is_recovered() {
    a_killed_recovery_is_recovered(&Scene::new());
}

pub(crate) fn a_killed_recovery_is_recovered(scene: &Scene) {
    let script = format!("{STARTED}print first\nwrite one x\nwait-file go\nprint second");

    scene.run_until("one", &script).crash();
    let recover = Running::start(&mut scene.dark_factory(&["recover"]));
    scene.wait_until_supervised();
    recover.crash();
    scene.project.write("go", "");
    scene.assert_recovers("succeeded");

    scene.assert_ended("succeeded", b"first\nsecond\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_crash_while_the_image_is_looked_for_is_recovered() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("GET /images/", Fault::HoldRequest);

    crash_when_held(&scene, &proxy, SHORT);
    proxy.break_held();
    // That it is looked for is recorded meanwhile.
    let state = text(&scene.only_run(), "state");
    assert!(["preparing", "pulling"].contains(&&*state), "{state}");
    scene.assert_recovers("failed");

    assert_short_run_ended(&scene);
}

#[test]
fn a_crash_while_the_image_is_pulled_is_recovered() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    let image = format!("dark-factory-test/late-{}:1", std::process::id());
    proxy.next("POST /images/create?", Fault::HoldRequest);

    let run = Running::start(&mut scene.run_argv(&image, &[], &["/bin/agent", "-e", SHORT]));
    proxy.wait_until_held();
    run.crash();
    proxy.break_held();
    docker(&["tag", &agent_image(), &image]);
    let recover = scene.recover();
    docker(&["rmi", &image]);

    assert_eq!(recover.code, 0, "{}", recover.stderr);
    assert_short_run_ended(&scene);
}

#[test]
fn a_crash_before_the_container_exists_is_recovered() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("POST /containers/create?name=", Fault::HoldRequest);

    crash_when_held(&scene, &proxy, SHORT);
    proxy.break_held();
    assert_eq!(scene.only_run()["state"], "creating");
    assert!(scene.containers().is_empty());
    scene.assert_recovers("failed");

    assert_short_run_ended(&scene);
}

#[test]
fn a_container_that_nobody_heard_was_created_is_found_again() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("POST /containers/create?name=", Fault::HoldReply);

    crash_when_held(&scene, &proxy, SHORT);
    proxy.break_held();
    let created = scene.containers();
    assert_eq!(created.len(), 1);
    let start = format!("POST /containers/{}*/start", created[0]);
    scene.assert_recovers("failed");

    assert_eq!(
        (proxy.count(&start), proxy.count("POST /containers/*/start")),
        (1, 1)
    );
    assert_short_run_ended(&scene);
}

#[test]
fn a_crash_between_creating_and_starting_is_recovered() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("POST /containers/*/start", Fault::HoldRequest);

    crash_when_held(&scene, &proxy, SHORT);
    proxy.break_held();
    assert_eq!(scene.only_run()["state"], "starting");
    scene.assert_recovers("failed");

    assert_short_run_ended(&scene);
}

#[test]
fn a_container_that_started_after_the_crash_gets_its_spool_from_the_recovery() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("POST /containers/*/start", Fault::HoldRequest);

    crash_when_held(&scene, &proxy, SHORT);
    proxy.release();
    eventually("the container to run", || {
        let state = docker(&[
            "inspect",
            "--format",
            "{{.State.Status}}",
            &scene.container(),
        ]);
        (state == "running\n").then_some(())
    });
    scene.assert_recovers("failed");

    assert_short_run_ended(&scene);
}

#[test]
fn a_start_that_nobody_recorded_is_not_repeated() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("POST /containers/*/start", Fault::HoldReply);

    let run = Running::start(&mut scene.run(&format!(
        "{STARTED}write one x\nwait-file go\nprint hello\nexit 3"
    )));
    proxy.wait_until_held();
    scene.wait_for_file("one");
    run.crash();
    proxy.break_held();
    assert_eq!(scene.only_run()["state"], "starting");
    scene.project.write("go", "");
    scene.assert_recovers("failed");

    scene.assert_ended("failed", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_crash_while_cleaning_up_changes_no_outcome() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("DELETE /containers/", Fault::HoldRequest);

    let run = Running::start(&mut scene.run(SHORT));
    proxy.wait_until_held();
    // What is known is recorded, whatever becomes of the container.
    let before = eventually("a run that is finished", || {
        Some(scene.only_run()).filter(|run| run["state"] == "finished")
    });
    run.crash();
    proxy.break_held();
    assert_eq!(before["outcome"], "failed");
    let decided = report(&scene.folder());
    assert_eq!(scene.containers().len(), 1);
    scene.assert_recovers("failed");

    assert_short_run_ended(&scene);
    assert_eq!(report(&scene.folder()), decided);
    assert_eq!(scene.only_run(), before);
}

#[test]
fn a_crash_at_any_moment_is_recovered() {
    crashes_at_any_moment_are_recovered(Place::Container);
}

pub(crate) fn crashes_at_any_moment_are_recovered(place: Place) {
    let script = format!(
        "{STARTED}print hello\nsleep 200ms\nspew 500k\nstderr there\nsleep 200ms\nprint end\nexit 3"
    );
    let stdout = [b"hello\n".to_vec(), spew(500 << 10, 80), b"end\n".to_vec()].concat();
    // Numerical Recipes' generator: the same moments each time.
    let mut seed: u32 = 20_261_124;
    for _ in 0..6 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let moment = Duration::from_millis((u64::from(seed >> 16) * 1500) >> 16);
        let scene = Scene::in_place(place);

        let run = Running::start(&mut scene.run(&script));
        thread::sleep(moment);
        run.crash();
        let recover = scene.recover();

        assert_eq!(
            recover.code, 0,
            "killed after {moment:?}: {}{}",
            recover.stdout, recover.stderr
        );
        if scene.runs().is_empty() {
            assert!(!scene.project.path().join("starts.txt").exists());
        } else {
            scene.assert_ended("failed", &stdout, b"there\n");
            scene.assert_started_once();
        }
    }
}
