//! The engine itself is killed or stopped during a run, and started again.
//!
//! Owns: an engine of its own, and when it goes down.
//! Reads: what a user can read, and what the engine says of its containers.
//! Never: touches the machine's engine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use dark_factory_init::spew;
use integration_tests::{EngineProxy, Fault, LiveRestore, PrivateEngine, agent_image};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::scene::{STARTED, Scene, assert_same, eventually, report, text};
use crate::support::{Ended, Watched};

/// How the engine goes down.
#[derive(Debug, Clone, Copy)]
enum Down {
    Killed,
    Stopped,
}

fn take_down(engine: &mut PrivateEngine, down: Down) {
    match down {
        Down::Killed => engine.kill(),
        Down::Stopped => engine.terminate(),
    }
}

/// Starts a `run` of a script, and waits until the script has made `file` and the engine has said that it started it.
///
/// An engine that is killed before it says so may forget the start.
fn watch_until(scene: &Scene, file: &str, script: &str) -> Watched {
    let run = Watched::of(&mut scene.run(script));
    scene.wait_for_file(file);
    eventually("the engine's answer", || {
        (scene.only_run()["state"] == "running").then_some(())
    });
    run
}

/// Waits until a command has said that the engine is silent.
fn wait_until_told(run: &Watched) {
    eventually("words about the silent engine", || {
        let words = "the run's state is unknown, waiting for the engine to come back";
        run.stderr().contains(words).then_some(())
    });
}

/// Prints much when `go` is there, and again when `more` is; makes `two`, and waits for `on`.
fn busy_script() -> String {
    format!(
        "{STARTED}print before\nwrite one x\nwait-file go\nspew 4m 80\nwait-file more\nspew 4m 80\nwrite two x\n\
         wait-file on\nprint after"
    )
}

/// Returns what [`busy_script`] prints.
fn busy_output() -> Vec<u8> {
    let much = spew(4 << 20, 80);
    [b"before\n", &much[..], &much, b"after\n"].concat()
}

#[test]
fn a_private_engine_leaves_nothing_and_the_machines_network_alone() {
    let bridge = || {
        let shown = Command::new("ip")
            .args(["link", "show", "docker0"])
            .output();
        shown.expect("ip can be started").stdout
    };
    let before = bridge();
    let mut engine = PrivateEngine::start(LiveRestore::On);
    let agent = agent_image();
    let run = ["run", "--detach", "--network", "none", &agent, "/bin/agent"];
    engine.docker(&[&run[..], &["-e", "sleep 1h"]].concat());
    engine.kill();
    engine.restart();
    let traces = engine.traces();
    let running = engine.docker(&["ps", "--quiet"]);

    drop(engine);

    assert_eq!(running.lines().count(), 1);
    assert_eq!(traces.left(), Vec::<String>::new());
    assert_eq!(bridge(), before);
}

#[test]
fn a_private_engine_leaves_nothing_behind_a_test_that_panics() {
    let mut traces = None;

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let engine = PrivateEngine::start(LiveRestore::Off);
        let agent = agent_image();
        let run = ["run", "--detach", "--network", "none", &agent, "/bin/agent"];
        engine.docker(&[&run[..], &["-e", "sleep 1h"]].concat());
        traces = Some(engine.traces());
        panic!("as a test that fails");
    }));

    assert!(panicked.is_err());
    let left = traces.expect("the engine was there").left();
    assert_eq!(left, Vec::<String>::new());
}

/// Takes an engine with live-restore down while the agent prints: nobody but the supervisor notices.
fn assert_outlived(down: Down) {
    let mut engine = PrivateEngine::start(LiveRestore::On);
    let scene = Scene::on(&engine);
    let run = watch_until(&scene, "one", &busy_script());

    scene.project.write("go", "");
    take_down(&mut engine, down);
    scene.project.write("more", "");
    scene.wait_for_file("two");
    wait_until_told(&run);
    engine.restart();
    scene.project.write("on", "");
    let run = run.ended();

    assert_eq!(run.code, 0, "{}", run.stderr);
    scene.assert_ended("succeeded", &busy_output(), b"");
    scene.assert_started_once();
    assert_eq!(engine.docker(&["ps", "--all", "--quiet"]), "");
}

#[test]
fn a_run_outlives_an_engine_with_live_restore_that_is_killed() {
    assert_outlived(Down::Killed);
}

#[test]
fn a_run_outlives_an_engine_with_live_restore_that_is_stopped() {
    assert_outlived(Down::Stopped);
}

/// Takes an engine with live-restore down, kills the supervisor, and lets `recover` try before the engine is back.
fn assert_recovered(down: Down) {
    let mut engine = PrivateEngine::start(LiveRestore::On);
    let scene = Scene::on(&engine);
    let run = watch_until(&scene, "one", &busy_script());

    scene.project.write("go", "");
    take_down(&mut engine, down);
    run.signal(Signal::SIGKILL);
    run.ended();
    scene.project.write("more", "");
    scene.wait_for_file("two");
    let early = scene.recover();
    let meanwhile = scene.only_run();
    engine.restart();
    scene.project.write("on", "");
    scene.assert_recovers("succeeded");

    assert_eq!(early.code, 4, "{}{}", early.stdout, early.stderr);
    assert!(early.stderr.contains("stays as it is"), "{}", early.stderr);
    assert_eq!(meanwhile["state"], "unknown", "{meanwhile}");
    assert_eq!(meanwhile["known_state"], "running", "{meanwhile}");
    assert_eq!(meanwhile["outcome"], Value::Null, "{meanwhile}");
    scene.assert_ended("succeeded", &busy_output(), b"");
    scene.assert_started_once();
    assert_eq!(engine.docker(&["ps", "--all", "--quiet"]), "");
}

#[test]
fn a_run_whose_supervisor_and_engine_are_killed_is_recovered() {
    assert_recovered(Down::Killed);
}

#[test]
fn a_run_whose_supervisor_is_killed_and_engine_stopped_is_recovered() {
    assert_recovered(Down::Stopped);
}

/// Checks what is true of a run that ended because its engine took the container down.
///
/// Its log is complete, or an exact prefix of `output`.
fn assert_taken_down(scene: &Scene, output: &[u8]) {
    let run = scene.only_run();
    assert_eq!(run["state"], "finished", "{run}");
    let report = report(&scene.folder());
    assert_eq!(report["outcome"], "killed", "{report}");
    assert_engine_is_the_cause(&report);
    if report["log"] == "complete" {
        scene.assert_ended("killed", output, b"");
    } else {
        let raw = scene.folder().join("raw.jsonl");
        let length = std::fs::metadata(&raw).expect("there is a log").len();
        let length = usize::try_from(length).expect("a short log");
        assert!(length <= output.len(), "{length} bytes were logged");
        assert_same(&raw, &output[..length]);
        assert!(scene.containers().is_empty(), "containers are left");
        assert_eq!(scene.recover().stdout, "nothing to recover\n");
    }
    scene.assert_started_once();
}

/// Checks the words for a container that went down with its engine.
fn assert_engine_is_the_cause(report: &Value) {
    assert_ne!(text(report, "cause"), "", "{report}");
}

const LASTING: &str = "append starts.txt \"started\\n\"\nprint hello\nwrite one x\nwait-file never";

#[test]
fn a_run_is_killed_by_an_engine_without_live_restore_that_was_killed_and_comes_back() {
    let mut engine = PrivateEngine::start(LiveRestore::Off);
    let scene = Scene::on(&engine);
    let run = watch_until(&scene, "one", LASTING);

    engine.kill();
    wait_until_told(&run);
    engine.restart();
    let run = run.ended();

    assert!(run.code > 128, "{}: {}", run.code, run.stderr);
    assert_taken_down(&scene, b"hello\n");
}

#[test]
fn an_agent_that_does_not_leave_when_its_engine_comes_back_leaves_an_exact_prefix() {
    let mut engine = PrivateEngine::start(LiveRestore::Off);
    let scene = Scene::on(&engine);
    let script = format!("ignore-term\n{LASTING}");
    let run = watch_until(&scene, "one", &script);

    engine.kill();
    engine.restart();
    let run = run.ended();

    assert!(run.code > 128, "{}: {}", run.code, run.stderr);
    assert_taken_down(&scene, b"hello\n");
}

/// Lets an engine without live-restore take down an agent that leaves with a code of its own when it is told to.
fn assert_no_end_of_its_own(code: u8) {
    let mut engine = PrivateEngine::start(LiveRestore::Off);
    let scene = Scene::on(&engine);
    let run = watch_until(&scene, "one", &format!("on-term exit {code}\n{LASTING}"));

    engine.kill();
    engine.restart();
    run.ended();

    assert_taken_down(&scene, b"hello\n");
}

#[test]
fn an_agent_that_its_engine_told_to_leave_has_not_failed() {
    assert_no_end_of_its_own(3);
}

#[test]
fn an_agent_that_its_engine_told_to_leave_has_not_succeeded() {
    assert_no_end_of_its_own(0);
}

#[test]
fn a_run_is_killed_by_an_engine_without_live_restore_that_is_stopped() {
    let mut engine = PrivateEngine::start(LiveRestore::Off);
    let scene = Scene::on(&engine);
    let run = watch_until(&scene, "one", LASTING);

    engine.terminate();
    engine.restart();
    let run = run.ended();
    // The run may have ended before the engine went, and then its container could not be removed.
    let recover = scene.recover();

    assert!(run.code > 128, "{}: {}", run.code, run.stderr);
    assert_eq!(recover.code, 0, "{}", recover.stderr);
    assert_taken_down(&scene, b"hello\n");
}

#[test]
fn a_run_that_nobody_supervised_when_its_engine_was_stopped_was_killed() {
    let mut engine = PrivateEngine::start(LiveRestore::Off);
    let scene = Scene::on(&engine);
    let run = watch_until(&scene, "one", LASTING);

    run.signal(Signal::SIGKILL);
    run.ended();
    engine.terminate();
    engine.restart();
    scene.assert_recovers("killed");

    assert_taken_down(&scene, b"hello\n");
}

const SHORT: &str = "append starts.txt \"started\\n\"\nprint hello\nexit 3";

#[test]
fn an_engine_that_is_killed_between_create_and_start_is_waited_for_and_starts_the_agent_once() {
    let mut engine = PrivateEngine::start(LiveRestore::Off);
    let proxy = EngineProxy::before(&engine.socket());
    let scene = Scene::on(&engine).through(&proxy);
    proxy.next("POST /containers/*/start", Fault::HoldRequest);
    let run = Watched::of(&mut scene.run(SHORT));

    proxy.wait_until_held();
    engine.kill();
    proxy.break_held();
    eventually("the run to be unknown", || {
        (scene.only_run()["state"] == "unknown").then_some(())
    });
    engine.restart();
    let run = run.ended();

    assert_eq!(run.code, 1, "{}", run.stderr);
    scene.assert_ended("failed", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn an_engine_that_is_killed_in_the_middle_of_a_start_starts_the_agent_at_most_once() {
    let mut engine = PrivateEngine::start(LiveRestore::On);
    let scene = Scene::on(&engine);
    let run = Watched::of(&mut scene.run(SHORT));

    engine.wait_for_start();
    engine.kill();
    engine.restart();
    run.ended();
    let recover = scene.recover();

    assert_eq!(recover.code, 0, "{}", recover.stderr);
    // What containerd kept of the first start may make it refuse the second one.
    let starts = scene.project.path().join("starts.txt");
    if starts.exists() {
        scene.assert_started_once();
        scene.assert_ended("failed", b"hello\n", b"");
    } else {
        scene.assert_ended("start_failed", b"", b"");
    }
}

#[test]
fn a_run_whose_start_the_engine_forgot_ends_as_its_record_says() {
    for _ in 0..20 {
        let mut engine = PrivateEngine::start(LiveRestore::On);
        let scene = Scene::on(&engine);
        let script = format!("{STARTED}write one x\nwait-file go");
        let run = Watched::of(&mut scene.run(&script));
        let one = scene.project.path().join("one");
        while !one.exists() {
            std::thread::yield_now();
        }
        engine.kill();
        engine.restart();
        scene.project.write("go", "");
        run.ended();
        assert_eq!(scene.only_run()["state"], "finished");
        scene.assert_started_once();
    }
}

/// Takes the engine down once it has started the container, and before it says so.
fn assert_started_by(
    live_restore: LiveRestore,
    end: impl FnOnce(&Scene, &mut PrivateEngine, Watched),
) {
    let mut engine = PrivateEngine::start(live_restore);
    let proxy = EngineProxy::before(&engine.socket());
    let scene = Scene::on(&engine).through(&proxy);
    proxy.next("POST /containers/*/start", Fault::HoldReply);
    let script = format!("{STARTED}print hello\nwrite one x\nwait-file go\nprint bye");
    let run = Watched::of(&mut scene.run(&script));

    scene.wait_for_file("one");
    proxy.wait_until_held();
    engine.kill();
    proxy.break_held();
    end(&scene, &mut engine, run);

    scene.assert_started_once();
    assert_eq!(engine.docker(&["ps", "--all", "--quiet"]), "");
}

#[test]
fn an_engine_with_live_restore_that_is_killed_right_after_the_start_starts_nothing_twice() {
    assert_started_by(LiveRestore::On, |scene, engine, run| {
        engine.restart();
        scene.project.write("go", "");
        let run = run.ended();

        assert_eq!(run.code, 0, "{}", run.stderr);
        scene.assert_ended("succeeded", b"hello\nbye\n", b"");
    });
}

#[test]
fn an_engine_that_is_killed_right_after_the_start_ends_a_run_that_recover_finds() {
    assert_started_by(LiveRestore::Off, |scene, engine, run| {
        run.signal(Signal::SIGKILL);
        run.ended();
        engine.restart();
        scene.assert_recovers("killed");

        assert_taken_down(scene, b"hello\n");
    });
}

#[test]
fn runs_are_listed_and_none_is_begun_while_the_engine_is_down() {
    let mut engine = PrivateEngine::start(LiveRestore::On);
    let scene = Scene::on(&engine);
    let run = watch_until(&scene, "one", LASTING);
    let other = scene.project.write("other.md", "Do it.\n");

    engine.kill();
    eventually("the run to be unknown", || {
        (scene.only_run()["state"] == "unknown").then_some(())
    });
    let listed = Ended::of(&mut scene.dark_factory(&["ps"]));
    let second = Ended::of(&mut scene.run_file(&other, &[], SHORT));
    engine.restart();
    let container = scene.containers();
    scene.project.write("never", "");
    let run = run.ended();

    assert_eq!(listed.code, 0, "{}", listed.stderr);
    assert!(listed.stdout.contains("unknown since"), "{}", listed.stdout);
    assert_eq!(second.code, 4, "{}", second.stderr);
    assert_eq!(container.len(), 1, "{container:?}");
    assert_eq!(run.code, 0, "{}", run.stderr);
    scene.assert_started_once();
}

/// Returns a command that names no engine, so it has the machine's own.
fn elsewhere(scene: &Scene, arguments: &[&str]) -> Command {
    let mut command = scene.dark_factory(arguments);
    command.env_remove("DOCKER_HOST");
    command
}

#[test]
fn a_run_of_another_engine_is_not_lost_and_goes_on_once_its_own_is_named() {
    let engine = PrivateEngine::start(LiveRestore::On);
    let scene = Scene::on(&engine);
    let run = watch_until(&scene, "one", &busy_script());
    run.signal(Signal::SIGKILL);
    run.ended();
    let container = scene.containers();

    let recover = Ended::of(&mut elsewhere(&scene, &["recover"]));
    let id = text(&scene.only_run(), "run_id");
    let wait = Ended::of(&mut elsewhere(&scene, &["wait", &id]));
    let daemon = Ended::of(&mut elsewhere(&scene, &["daemon", "start"]));
    let status = eventually("the daemon to give up for now", || {
        let status = Ended::of(&mut elsewhere(&scene, &["daemon", "status"]));
        status.stdout.contains("tried again: ").then_some(status)
    });
    let stopped = Ended::of(&mut elsewhere(&scene, &["daemon", "stop"]));
    let left = scene.only_run();

    let other = "the container engine at unix:///var/run/docker.sock is not the one of container";
    assert_eq!(recover.code, 4, "{}{}", recover.stdout, recover.stderr);
    for told in ["stays as it is", other, "--host or DOCKER_HOST"] {
        assert!(recover.stderr.contains(told), "{}", recover.stderr);
    }
    assert_eq!(wait.code, 4, "{}{}", wait.stdout, wait.stderr);
    assert!(wait.stderr.contains(other), "{}", wait.stderr);
    assert_eq!((daemon.code, stopped.code), (0, 0), "{}", daemon.stderr);
    assert!(status.stdout.contains(other), "{}", status.stdout);
    assert!(left["outcome"].is_null(), "{left}");
    assert_eq!(container.len(), 1);
    assert_eq!(scene.containers(), container);
    for file in ["go", "more", "on"] {
        scene.project.write(file, "");
    }
    scene.assert_recovers("succeeded");
    scene.assert_ended("succeeded", &busy_output(), b"");
    scene.assert_started_once();
}

#[test]
fn a_run_is_not_said_to_be_in_the_hands_of_a_daemon_of_another_engine() {
    let engine = PrivateEngine::start(LiveRestore::On);
    let scene = Scene::on(&engine);
    let daemon = Ended::of(&mut elsewhere(&scene, &["daemon", "start"]));
    let script = format!("{STARTED}write one x\nwait-file go");
    let run = Watched::of(&mut scene.run_with(&["--on-interrupt", "detach"], &script));
    scene.wait_for_file("one");

    run.signal(Signal::SIGINT);
    let run = run.ended();
    let stopped = Ended::of(&mut elsewhere(&scene, &["daemon", "stop"]));
    scene.project.write("go", "");

    assert_eq!((daemon.code, stopped.code), (0, 0), "{}", daemon.stderr);
    assert_eq!(run.code, 5, "{}", run.stderr);
    assert!(
        run.stderr.contains("works with the engine at"),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains("sees to it"), "{}", run.stderr);
    scene.assert_recovers("succeeded");
    scene.assert_ended("succeeded", b"", b"");
    scene.assert_started_once();
}

#[test]
fn a_run_is_not_queued_for_a_daemon_of_another_engine() {
    let engine = PrivateEngine::start(LiveRestore::Off);
    let proxy = EngineProxy::before(&engine.socket());
    let scene = Scene::on(&engine);
    let here = Ended::of(&mut elsewhere(&scene, &["daemon", "start"]));
    let refused = Ended::of(&mut scene.run_with(&["-d"], SHORT));
    let queued = scene.runs();
    let stopped = Ended::of(&mut elsewhere(&scene, &["daemon", "stop"]));
    let there = Ended::of(&mut scene.dark_factory(&["daemon", "start"]));
    let status = Ended::of(&mut scene.dark_factory(&["daemon", "status"]));
    // Another endpoint of the same engine.
    let mut run = scene.run_with(&["-d"], SHORT);
    let taken = Ended::of(run.env("DOCKER_HOST", proxy.host()));

    assert_eq!((here.code, stopped.code, there.code), (0, 0, 0));
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    let told = format!("and not with the one at {}", engine.host());
    assert!(refused.stderr.contains(&told), "{}", refused.stderr);
    assert_eq!(queued, Vec::<Value>::new());
    let ends = "this engine ends its containers when it restarts";
    assert!(there.stderr.contains(ends), "{}", there.stderr);
    let line = format!(
        "engine: {} (containers end when it restarts)",
        engine.host()
    );
    assert!(status.stdout.contains(&line), "{}", status.stdout);
    assert_eq!(taken.code, 0, "{}", taken.stderr);
    assert_eq!(taken.stderr.matches(ends).count(), 1, "{}", taken.stderr);
    let wait = Ended::of(&mut scene.dark_factory(&["wait", taken.stdout.trim()]));
    assert_eq!(wait.code, 1, "{}", wait.stderr);
    scene.assert_ended("failed", b"hello\n", b"");
}
