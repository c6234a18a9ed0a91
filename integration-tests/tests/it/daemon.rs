//! The daemon: runs that go on without whoever started them.
//!
//! Owns: who supervises a run when processes come and go.
//! Reads: what a user can read: the commands' output, the attempt's folder, the daemon's log.
//! Never: relies on how fast a takeover is.

use std::fs;
use std::time::Duration;

use integration_tests::{LiveRestore, PrivateEngine};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::scene::{Running, STARTED, Scene, eventually, text};
use crate::support::{Ended, Watched};

/// A script that starts, waits for `go`, and fails.
fn waiting() -> String {
    format!("{STARTED}print hello\nwrite one x\nwait-file go\nprint there\nexit 3")
}

/// Queues a run of a script for a daemon, waits until it works, and returns its id.
fn detach(scene: &Scene, script: &str) -> String {
    let queued = Ended::of(&mut scene.run_with(&["--detach", "--json"], script));
    assert_eq!(queued.code, 0, "{}", queued.stderr);
    let run = queued.one();
    assert_eq!(run["state"], "queued", "{run}");
    scene.wait_for_file("one");
    text(&run, "run_id")
}

fn command(scene: &Scene, arguments: &[&str]) -> Ended {
    Ended::of(&mut scene.dark_factory(arguments))
}

fn succeeds(scene: &Scene, arguments: &[&str]) -> String {
    let ended = command(scene, arguments);
    assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
    ended.stdout
}

fn status(scene: &Scene) -> Value {
    let ended = command(scene, &["daemon", "status", "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.one()
}

fn daemon(scene: &Scene) -> i32 {
    scene.installation.daemon().expect("a daemon lives")
}

/// Kills the daemon as a crash would.
fn crash_daemon(scene: &Scene) {
    let pid = daemon(scene);
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the daemon can be killed");
    eventually("the death of the daemon", || {
        scene.installation.daemon().is_none().then_some(())
    });
}

/// Lets the agent go on, waits until its run has ended, and checks that nothing was lost or done twice.
fn assert_goes_on_to_its_end(scene: &Scene) {
    scene.project.write("go", "");
    eventually("the run's end", || {
        (scene.only_run()["state"] == "finished").then_some(())
    });
    eventually("its removal", || {
        scene.containers().is_empty().then_some(())
    });
    scene.assert_ended("failed", b"hello\nthere\n", b"");
    scene.assert_started_once();
}

/// Waits until the daemon supervises a run.
fn wait_until_daemon_has(scene: &Scene, run: &str) {
    eventually("the daemon to supervise the run", || {
        (status(scene)["supervised"] == json!([run])).then_some(())
    });
}

#[test]
fn a_detached_run_ends_by_itself_and_wait_tells_its_code() {
    let scene = Scene::new();
    let run = detach(&scene, &waiting());
    assert_eq!(status(&scene)["supervised"], json!([run]));

    let waiting = Watched::of(&mut scene.dark_factory(&["wait", "--json", &run]));
    assert_goes_on_to_its_end(&scene);
    let waited = waiting.ended();

    assert_eq!(waited.code, 1, "{}", waited.stderr);
    let summary = waited.one();
    assert_eq!(
        (text(&summary, "run_id"), text(&summary, "outcome")),
        (run.clone(), "failed".to_owned())
    );
    let again = command(&scene, &["wait", &run]);
    assert_eq!(again.code, 1, "{}", again.stderr);
    assert!(
        again.stdout.contains("exited with code 3"),
        "{}",
        again.stdout
    );
}

#[test]
fn wait_takes_over_from_a_daemon_that_was_killed() {
    let scene = Scene::new();
    let run = detach(&scene, &waiting());
    let waiting = Watched::of(&mut scene.dark_factory(&["wait", &run]));

    crash_daemon(&scene);
    scene.wait_until_supervised();
    assert_goes_on_to_its_end(&scene);

    assert_eq!(waiting.ended().code, 1);
}

#[test]
fn the_next_daemon_takes_over_from_one_that_was_killed() {
    let scene = Scene::new();
    let run = detach(&scene, &waiting());

    crash_daemon(&scene);
    assert_eq!(scene.only_run()["supervised"], false);
    succeeds(&scene, &["daemon", "start"]);
    wait_until_daemon_has(&scene, &run);

    assert_goes_on_to_its_end(&scene);
}

#[test]
fn a_daemon_takes_over_from_a_run_that_was_killed_and_not_before() {
    let scene = Scene::new();
    succeeds(&scene, &["daemon", "start"]);
    let foreground = scene.run_until("one", &waiting());
    let run = text(&scene.only_run(), "run_id");
    eventually("the daemon to watch the run", || {
        (status(&scene)["watched"] == json!([run])).then_some(())
    });
    assert_eq!(status(&scene)["supervised"], json!([]));

    foreground.crash();
    wait_until_daemon_has(&scene, &run);

    assert_goes_on_to_its_end(&scene);
}

#[test]
fn a_second_daemon_refuses_and_leaves_the_first_ones_files_as_they_are() {
    let scene = Scene::new();
    let started = succeeds(&scene, &["daemon", "start"]);
    let pid = daemon(&scene);
    assert!(started.contains(&format!("process {pid}")), "{started}");
    let state = scene.installation.state_dir();
    let files = ["daemon.log", "daemon.lock"].map(|name| state.join(name));
    let before = files.clone().map(|file| fs::read(file).unwrap());

    for flags in [
        &["daemon", "start"][..],
        &["daemon", "start", "--foreground"],
    ] {
        let second = command(&scene, flags);

        assert_eq!((second.code, second.stdout.as_str()), (2, ""), "{flags:?}");
        assert!(
            second.stderr.contains(&format!("process {pid}")),
            "{}",
            second.stderr
        );
    }

    assert_eq!(files.map(|file| fs::read(file).unwrap()), before);
    assert_eq!(status(&scene)["pid"], pid);
}

#[test]
fn a_stopped_daemon_lets_go_of_its_runs_and_says_so() {
    let scene = Scene::new();
    let run = detach(&scene, &waiting());
    wait_until_daemon_has(&scene, &run);

    let stopped = succeeds(&scene, &["daemon", "stop"]);

    assert!(
        stopped.contains(&format!("run {run} goes on, and nobody supervises it")),
        "{stopped}"
    );
    assert_eq!(scene.installation.daemon(), None);
    assert_eq!(scene.only_run()["supervised"], false);
    assert_eq!(command(&scene, &["daemon", "status"]).code, 3);
    assert_eq!(command(&scene, &["daemon", "stop"]).code, 3);
    scene.project.write("go", "");
    scene.assert_recovers("failed");
    scene.assert_ended("failed", b"hello\nthere\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_daemon_that_gets_sigterm_lets_go_of_its_runs() {
    let scene = Scene::new();
    detach(&scene, &waiting());

    kill(Pid::from_raw(daemon(&scene)), Signal::SIGTERM).unwrap();
    eventually("the daemon's end", || {
        scene.installation.daemon().is_none().then_some(())
    });

    assert_ne!(scene.only_run()["state"], "finished");
    scene.project.write("go", "");
    scene.assert_recovers("failed");
    scene.assert_ended("failed", b"hello\nthere\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_reloaded_daemon_is_the_same_process_and_goes_on_with_its_runs() {
    let scene = Scene::new();
    let run = detach(&scene, &waiting());
    let before = status(&scene);

    succeeds(&scene, &["daemon", "reload"]);
    let after = status(&scene);
    wait_until_daemon_has(&scene, &run);
    kill(Pid::from_raw(daemon(&scene)), Signal::SIGHUP).unwrap();
    eventually("the second reload", || {
        (status(&scene)["since"] != after["since"]).then_some(())
    });
    wait_until_daemon_has(&scene, &run);
    let second = command(&scene, &["daemon", "start"]);

    assert_eq!(before["pid"], after["pid"]);
    assert_ne!(before["since"], after["since"]);
    assert_eq!(second.code, 2, "{}", second.stderr);
    assert_goes_on_to_its_end(&scene);
}

#[test]
fn a_reload_finds_what_the_configuration_says_by_then() {
    let scene = Scene::new();
    let folder = scene.installation.state_dir().with_file_name("config");
    fs::create_dir_all(folder.join("dark-factory")).unwrap();
    let file = folder.join("dark-factory/config.toml");
    fs::write(&file, "jobs = 2\n").unwrap();
    let start = |arguments: &[&str]| {
        let mut command = scene.dark_factory(arguments);
        assert_eq!(Ended::of(command.env("XDG_CONFIG_HOME", &folder)).code, 0);
    };
    start(&["daemon", "start"]);
    let before = status(&scene)["jobs"].clone();

    fs::write(&file, "jobs = 3\n").unwrap();
    succeeds(&scene, &["daemon", "reload"]);
    let after = status(&scene)["jobs"].clone();
    succeeds(&scene, &["daemon", "stop"]);
    start(&["daemon", "start", "--jobs", "5"]);
    succeeds(&scene, &["daemon", "reload"]);

    assert_eq!((before, after), (json!(2), json!(3)));
    assert_eq!(status(&scene)["jobs"], 5, "what was typed stays");
}

#[test]
fn a_draining_daemon_ends_once_its_runs_have_and_begins_no_more() {
    let scene = Scene::new();
    let first = detach(&scene, &waiting());
    wait_until_daemon_has(&scene, &first);
    let draining = Watched::of(&mut scene.dark_factory(&["daemon", "drain"]));
    eventually("the draining", || {
        (status(&scene)["mode"] == "draining").then_some(())
    });

    let file = scene.project.write("second.md", "The second.\n");
    let second = Ended::of(&mut scene.run_file(&file, &["-d"], "write two x"));
    scene.project.write("go", "");
    let drained = draining.ended();

    assert_eq!(second.code, 5, "{}", second.stderr);
    assert!(
        second.stderr.contains("draining") && second.stderr.contains("stays queued"),
        "{}",
        second.stderr
    );
    assert_eq!(drained.code, 0, "{}", drained.stderr);
    let state = |id: &str| {
        let runs = scene.runs();
        let run = runs.iter().find(|run| run["run_id"] == id);
        text(run.expect("the run"), "state")
    };
    assert_eq!(state(&first), "finished");
    let second = second.stdout.trim();
    assert_eq!(state(second), "queued");
    succeeds(&scene, &["daemon", "start"]);
    assert_eq!(command(&scene, &["wait", second]).code, 0);
    scene.assert_started_once();
}

#[test]
fn queued_runs_wait_for_their_turn_and_can_be_stopped_meanwhile() {
    let scene = Scene::new();
    succeeds(&scene, &["daemon", "start", "--jobs", "1"]);
    let first = detach(&scene, &waiting());
    let queue = |name: &str| {
        let file = scene.project.write(name, "Another.\n");
        let script = format!("write {name}.begun x");
        let queued = Ended::of(&mut scene.run_file(&file, &["-d"], &script));
        assert_eq!(queued.code, 0, "{}", queued.stderr);
        queued.stdout.trim().to_owned()
    };
    let (second, third) = (queue("second.md"), queue("third.md"));

    assert_eq!(status(&scene)["queued"], json!([second, third]));
    let paused = command(&scene, &["pause", &second]);
    let stopped = command(&scene, &["stop", &second]);
    let waiting = Watched::of(&mut scene.dark_factory(&["wait", &third]));
    scene.project.write("go", "");

    assert_eq!(paused.code, 2, "{}", paused.stderr);
    assert!(paused.stderr.contains("it is queued"), "{}", paused.stderr);
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    assert!(
        stopped.stdout.contains("cancelled by dark-factory stop"),
        "{}",
        stopped.stdout
    );
    assert_eq!(waiting.ended().code, 0);
    assert_eq!(command(&scene, &["wait", &first, &second]).code, 130);
    let begun = |name: &str| scene.project.path().join(name).exists();
    assert!(!begun("second.md.begun") && begun("third.md.begun"));
}

#[test]
fn a_daemon_that_cannot_be_started_loses_no_run() {
    let scene = Scene::new();
    let lock = scene.installation.state_dir().join("daemon.lock");
    fs::create_dir_all(&lock).unwrap();

    let queued = Ended::of(&mut scene.run_with(&["-d"], "print hello; exit 3"));
    let run = queued.stdout.trim().to_owned();
    let listed = command(&scene, &["ps", "--json"]);
    let again = Ended::of(&mut scene.run_with(&["-d"], "print hello"));
    let waited = command(&scene, &["wait", &run]);

    assert_eq!(queued.code, 5, "{}", queued.stderr);
    for told in ["no daemon could be started", "stays queued", "daemon start"] {
        assert!(queued.stderr.contains(told), "{}", queued.stderr);
    }
    assert_eq!(listed.one()["state"], "queued");
    assert_eq!(again.code, 2, "{}", again.stderr);
    assert!(
        again.stderr.contains("is queued already"),
        "{}",
        again.stderr
    );
    assert_eq!(waited.code, 1, "{}", waited.stderr);
    scene.assert_ended("failed", b"hello\n", b"");
}

#[test]
fn a_queued_run_is_begun_only_on_the_engine_that_it_was_queued_for() {
    let engine = PrivateEngine::start(LiveRestore::On);
    let scene = Scene::new();
    let lock = scene.installation.state_dir().join("daemon.lock");
    fs::create_dir_all(&lock).unwrap();

    let queued = Ended::of(&mut scene.run_with(&["-d"], "print hello; exit 3"));
    let run = queued.stdout.trim().to_owned();
    let elsewhere = command(&scene, &["wait", &run, "--host", &engine.host()]);
    let listed = command(&scene, &["ps", "--json"]);
    let waited = command(&scene, &["wait", &run]);

    assert_eq!(elsewhere.code, 4, "{}", elsewhere.stderr);
    assert!(
        elsewhere.stderr.contains("is not the one of container"),
        "{}",
        elsewhere.stderr
    );
    assert_eq!(listed.one()["known_state"], "queued");
    assert_eq!(waited.code, 1, "{}", waited.stderr);
    scene.assert_ended("failed", b"hello\n", b"");
}

#[test]
fn ctrl_c_under_on_interrupt_detach_hands_the_run_to_a_daemon() {
    let scene = Scene::new();
    let later = scene.project.write("later.md", "Not begun.\n");
    let mut command = scene.run_files(
        &integration_tests::agent_image(),
        &["--on-interrupt", "detach"],
        &[&scene.prompt, &later],
        &["/bin/agent", "-e", &waiting()],
    );
    let foreground = Watched::of(&mut command);
    scene.wait_for_file("one");
    let run = text(&scene.only_run(), "run_id");

    foreground.signal(Signal::SIGINT);
    let detached = foreground.ended();
    wait_until_daemon_has(&scene, &run);

    assert_eq!(detached.code, 130, "{}", detached.stderr);
    for told in [
        format!("run {run} goes on; the daemon"),
        format!("not begun: {}", later.display()),
    ] {
        assert!(detached.stderr.contains(&told), "{}", detached.stderr);
    }
    assert_goes_on_to_its_end(&scene);
}

#[test]
fn sigterm_under_on_interrupt_detach_does_so_too() {
    let scene = Scene::new();
    let mut command = scene.run_with(&["--on-interrupt", "detach"], &waiting());
    let foreground = Watched::of(&mut command);
    scene.wait_for_file("one");

    foreground.signal(Signal::SIGTERM);
    let detached = foreground.ended();

    assert_eq!(detached.code, 130, "{}", detached.stderr);
    assert!(
        !detached.stderr.contains("not begun"),
        "{}",
        detached.stderr
    );
    assert_goes_on_to_its_end(&scene);
}

#[test]
fn attach_shows_a_run_from_its_beginning_and_ctrl_c_leaves_it_alone() {
    let scene = Scene::new();
    let run = detach(&scene, &waiting());
    let attach = |scene: &Scene| {
        let attached = Watched::of(&mut scene.dark_factory(&["attach", &run]));
        eventually("the beginning", || {
            attached.stdout().contains("hello").then_some(())
        });
        attached
    };

    let first = attach(&scene);
    first.signal(Signal::SIGINT);
    let first = first.ended();
    let second = attach(&scene);
    assert_goes_on_to_its_end(&scene);
    let second = second.ended();

    assert_eq!(first.code, 130, "{}", first.stderr);
    assert!(
        first
            .stderr
            .contains(&format!("run {run} goes on; the daemon")),
        "{}",
        first.stderr
    );
    assert_eq!(second.code, 1, "{}", second.stderr);
    assert!(second.stdout.contains("there"), "{}", second.stdout);
    assert!(second.stderr.contains("failed"), "{}", second.stderr);
}

#[test]
fn attach_supervises_an_orphan_and_says_when_it_leaves_one() {
    let scene = Scene::new();
    scene.run_until("one", &waiting()).crash();
    let run = text(&scene.only_run(), "run_id");

    let first = Watched::of(&mut scene.dark_factory(&["attach", &run]));
    scene.wait_until_supervised();
    first.signal(Signal::SIGINT);
    let first = first.ended();
    let left = scene.only_run();
    let second = Running::start(&mut scene.dark_factory(&["attach", &run]));
    scene.wait_until_supervised();
    scene.project.write("go", "");
    let second = second.ended();

    assert_eq!(first.code, 130, "{}", first.stderr);
    assert!(
        first.stderr.contains("nobody supervises it"),
        "{}",
        first.stderr
    );
    assert_eq!(
        (&left["supervised"], &left["outcome"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(second.code, 1, "{}", second.stderr);
    let lines: Vec<&str> = second
        .stdout
        .lines()
        .filter_map(|line| line.split_once(' ').map(|(_, text)| text))
        .collect();
    assert_eq!(lines[..2], ["hello", "there"], "{}", second.stdout);
    scene.assert_ended("failed", b"hello\nthere\n", b"");
    scene.assert_started_once();
}

#[test]
fn an_interrupted_run_names_the_files_that_have_no_run() {
    let scene = Scene::new();
    let queued = detach(&scene, &waiting());
    let [second, third] =
        ["second.md", "third.md"].map(|name| scene.project.write(name, "More.\n"));
    let script = "write two x\nwait-file go";
    // The first one cannot be begun: it has an open run.
    let mut run = scene.run_files(
        &integration_tests::agent_image(),
        &["--on-interrupt", "detach"],
        &[&scene.prompt, &second, &third],
        &["/bin/agent", "-e", script],
    );
    let foreground = Watched::of(&mut run);
    scene.wait_for_file("two");

    foreground.signal(Signal::SIGINT);
    let detached = foreground.ended();
    scene.project.write("go", "");

    assert_eq!(detached.code, 130, "{}", detached.stderr);
    let not_begun = format!(
        "not begun: {}, {}\n",
        scene.prompt.display(),
        third.display()
    );
    assert!(detached.stderr.contains(&not_begun), "{}", detached.stderr);
    let runs = scene.runs();
    assert_eq!(runs.len(), 2, "{runs:?}");
    for run in runs {
        let run = text(&run, "run_id");
        let code = if run == queued { 1 } else { 0 };
        assert_eq!(command(&scene, &["wait", &run]).code, code);
    }
}

#[test]
fn many_hangups_at_once_do_not_kill_the_daemon() {
    let scene = Scene::new();
    let run = detach(&scene, &waiting());
    let pid = daemon(&scene);

    // For some reloads, so that many come while the program is being executed anew, and before it listens.
    for _ in 0..400 {
        kill(Pid::from_raw(pid), Signal::SIGHUP).expect("the daemon lives");
        std::thread::sleep(Duration::from_millis(2));
    }
    wait_until_daemon_has(&scene, &run);

    assert_eq!(daemon(&scene), pid);
    assert_goes_on_to_its_end(&scene);
}
