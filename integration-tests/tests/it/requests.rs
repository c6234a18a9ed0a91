//! Requests to runs and about them: pause, resume, prune, and a terminal that closes.
//!
//! Owns: what a frozen run does and does not do; what is left over and what is not.
//! Reads: the commands' output, the project, the engine's list of containers.
//! Never: needs a daemon; see `daemon`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use integration_tests::{EngineProxy, Fault, agent_image};
use serde_json::{Value, json};

use crate::scene::{Running, STARTED, Scene, docker, eventually, text};
use crate::support::Ended;

/// A script that leaves a trace twenty times a second.
fn ticking() -> String {
    format!(
        "write one x\n{}",
        "append ticks x\nsleep 50ms\n".repeat(2000)
    )
}

fn ticks(scene: &Scene) -> usize {
    let ticks = fs::read(scene.project.path().join("ticks"));
    ticks.map_or(0, |ticks| ticks.len())
}

fn command(scene: &Scene, arguments: &[&str]) -> Ended {
    Ended::of(&mut scene.dark_factory(arguments))
}

/// Waits until the one run's start is recorded, and returns its id.
fn running(scene: &Scene) -> String {
    eventually("the start to be recorded", || {
        (scene.only_run()["state"] == "running").then_some(())
    });
    text(&scene.only_run(), "run_id")
}

fn assert_pauses(scene: &Scene, run: &str) {
    let paused = command(scene, &["pause", run]);
    assert_eq!(
        (paused.code, paused.stdout),
        (0, format!("{run} paused\n")),
        "{}",
        paused.stderr
    );
    assert_eq!(scene.only_run()["state"], "paused");
}

fn assert_resumes(scene: &Scene, run: &str) {
    let resumed = command(scene, &["resume", run]);
    assert_eq!(
        (resumed.code, resumed.stdout),
        (0, format!("{run} resumed\n")),
        "{}",
        resumed.stderr
    );
    assert_eq!(scene.only_run()["state"], "running");
}

/// Checks that the agent does nothing: it would leave a trace every 50 ms.
fn assert_frozen(scene: &Scene) {
    let before = ticks(scene);
    thread::sleep(Duration::from_millis(400));
    assert_eq!(ticks(scene), before);
}

fn assert_going(scene: &Scene) {
    let before = ticks(scene);
    eventually("a trace", || (ticks(scene) > before).then_some(()));
}

#[test]
fn a_paused_run_does_nothing_until_it_is_resumed() {
    let scene = Scene::new();
    let foreground = scene.run_until("one", &ticking());
    let run = running(&scene);

    assert_pauses(&scene, &run);
    assert_frozen(&scene);
    let listed = command(&scene, &["ps"]).stdout;
    assert_resumes(&scene, &run);
    assert_going(&scene);
    let stopped = command(&scene, &["stop", "--grace", "0s", &run]);

    assert!(listed.contains(&format!("{run}  paused")), "{listed}");
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    let ended = foreground.ended();
    assert_eq!(ended.code, 130, "{}", ended.stderr);
    let told: Vec<&str> = ended
        .stderr
        .lines()
        .filter(|line| ["paused", "resumed"].contains(line))
        .collect();
    assert_eq!(told, ["paused", "resumed"], "{}", ended.stderr);
}

#[test]
fn an_orphan_is_paused_and_resumed_too() {
    let scene = Scene::new();
    let foreground = scene.run_until("one", &ticking());
    let run = running(&scene);
    foreground.crash();

    assert_pauses(&scene, &run);
    assert_frozen(&scene);
    assert_resumes(&scene, &run);
    assert_going(&scene);

    assert_eq!(command(&scene, &["stop", "--grace", "0s", &run]).code, 0);
}

#[test]
fn time_in_which_a_run_is_paused_does_not_count_against_its_limit() {
    const LIMIT: Duration = Duration::from_secs(6);
    let scene = Scene::new();
    let script = "print hello\nwrite one x\nwait-file go\nprint there";
    let foreground = Running::start(&mut scene.run_with(&["--timeout", "6s"], script));
    scene.wait_for_file("one");
    let run = running(&scene);

    assert_pauses(&scene, &run);
    thread::sleep(LIMIT + Duration::from_secs(1));
    assert_resumes(&scene, &run);
    scene.project.write("go", "");
    let ended = foreground.ended();

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    scene.assert_ended("succeeded", b"hello\nthere\n", b"");
}

#[test]
fn a_paused_run_can_be_stopped() {
    let scene = Scene::new();
    let script = "on-term exit 7\nprint hello\nwrite one x\nsleep 1h";
    let foreground = scene.run_until("one", script);
    let run = running(&scene);
    assert_pauses(&scene, &run);

    let stopped = command(&scene, &["stop", "--json", &run]);

    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    let summary = stopped.one();
    assert_eq!(
        (&summary["outcome"], &summary["exit_code"]),
        (&json!("cancelled"), &json!(7)),
        "{summary}"
    );
    assert_eq!(foreground.ended().code, 130);
    scene.assert_ended("cancelled", b"hello\n", b"");
}

#[test]
fn what_has_ended_or_is_not_there_cannot_be_paused() {
    let scene = Scene::new();
    assert_eq!(Ended::of(&mut scene.run("print hello")).code, 0);
    let run = text(&scene.only_run(), "run_id");

    for what in ["pause", "resume"] {
        let ended = command(&scene, &[what, &run]);
        let missing = command(&scene, &[what, "nonono"]);

        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{what}");
        assert!(ended.stderr.contains("it has ended"), "{}", ended.stderr);
        assert_eq!((missing.code, missing.stdout.as_str()), (3, ""), "{what}");
    }
}

#[test]
fn the_steps_of_a_run_can_be_inspected() {
    let scene = Scene::new();
    assert_eq!(Ended::of(&mut scene.run("print hello")).code, 0);
    let run = text(&scene.only_run(), "run_id");

    let inspected = command(&scene, &["inspect", "--json", &run]).one();

    let steps = inspected["steps"].as_array().expect("steps");
    let states: Vec<&str> = steps
        .iter()
        .filter_map(|step| step["state"].as_str())
        .collect();
    assert_eq!(
        states,
        [
            "preparing",
            "pulling",
            "creating",
            "starting",
            "running",
            "collecting",
            "finished"
        ]
    );
    assert!(steps.iter().all(|step| step["at"].is_string()), "{steps:?}");
}

/// A container that is removed with the test, if it is still there.
struct Container(String);

impl Container {
    /// Creates one with a label, never started.
    fn with_label(label: &str) -> Self {
        let id = docker(&["create", "--label", label, &agent_image(), "x"]);
        Self(id.trim().to_owned())
    }

    fn exists(&self) -> bool {
        let mut inspect = Command::new("docker");
        inspect.args(["container", "inspect", &self.0]);
        Ended::of(&mut inspect).code == 0
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.exists() {
            docker(&["rm", "--force", &self.0]);
        }
    }
}

#[test]
fn prune_removes_what_no_open_run_owns_and_nothing_else() {
    let scene = Scene::new();
    let foreground = scene.run_until("one", "write one x\nwait-file go");
    running(&scene);
    let format = "{{index .Config.Labels \"dark-factory.owner\"}}";
    let owner = docker(&["inspect", "--format", format, &scene.container()]);
    let left = Container::with_label(&format!("dark-factory.owner={}", owner.trim()));
    let foreign = Container::with_label("dark-factory.owner=somebody-else");
    let never_recorded = scene.folder().with_file_name("000000000000-1");
    fs::create_dir(&never_recorded).unwrap();

    let young = command(&scene, &["prune", "--apply"]);
    let dry = command(&scene, &["prune", "--grace", "0s", "--json"]);
    assert!(left.exists() && never_recorded.exists());
    let applied = command(&scene, &["prune", "--grace", "0s", "--apply"]);
    let again = command(&scene, &["prune", "--grace", "0s", "--apply", "--json"]);

    assert_eq!(
        (young.code, young.stdout.as_str()),
        (0, "nothing is left over\n"),
        "{}",
        young.stderr
    );
    assert_eq!(dry.code, 0, "{}", dry.stderr);
    let listed = dry.json();
    let kinds: Vec<(&Value, &Value)> = listed
        .iter()
        .map(|found| (&found["kind"], &found["removed"]))
        .collect();
    assert_eq!(
        kinds,
        [
            (&json!("container"), &json!(false)),
            (&json!("folder"), &json!(false))
        ]
    );
    assert_eq!(text(&listed[0], "id"), left.0);
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    assert_eq!(
        applied
            .stdout
            .lines()
            .filter(|line| line.ends_with(": removed"))
            .count(),
        2,
        "{}",
        applied.stdout
    );
    assert_eq!((again.code, again.stdout.as_str()), (0, ""));
    assert!(!left.exists() && foreign.exists() && !never_recorded.exists());
    scene.project.write("go", "");
    assert_eq!(foreground.ended().code, 0);
}

#[test]
fn prune_does_nothing_without_an_engine() {
    let scene = Scene::new();

    let pruned = Ended::of(
        scene
            .dark_factory(&["prune", "--apply", "--grace", "0s"])
            .env("DOCKER_HOST", "unix:///nonexistent"),
    );

    assert_eq!((pruned.code, pruned.stdout.as_str()), (4, ""));
}

#[test]
fn a_terminal_that_closes_does_not_touch_the_run() {
    let scene = Scene::new();
    let run = scene.run("print hello\nwrite one x\nwait-file go\nprint there");
    let words: Vec<String> = std::iter::once(run.get_program())
        .chain(run.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let file = scene.installation.state_dir().with_file_name("run.sh");
    fs::write(&file, format!("#!/bin/sh\nexec {}\n", words.join(" "))).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let mut terminal = Command::new("script");
    terminal
        .args(["--quiet", "--command"])
        .arg(&file)
        .arg("/dev/null")
        .current_dir(scene.project.path());
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    let terminal = Running::start(&mut terminal);
    scene.wait_for_file("one");
    running(&scene);

    terminal.crash();
    scene.project.write("go", "");
    // It has ended before it is cleaned up.
    let waited = Ended::of(&mut scene.dark_factory(&["wait", &text(&scene.only_run(), "run_id")]));

    assert_eq!(waited.code, 0, "{}", waited.stderr);
    scene.assert_ended("succeeded", b"hello\nthere\n", b"");
}

#[test]
fn how_long_a_full_disk_is_waited_out_is_a_duration() {
    let scene = Scene::new();

    let bad = Ended::of(
        scene
            .dark_factory(&["ps"])
            .env("DARK_FACTORY_DISK_PATIENCE", "soon"),
    );

    assert_eq!(bad.code, 2);
    assert!(
        bad.stderr.contains("DARK_FACTORY_DISK_PATIENCE"),
        "{}",
        bad.stderr
    );
}

#[test]
fn a_recovery_that_nobody_reads_keeps_the_deadlines_of_its_runs() {
    let scene = Scene::new();
    scene.run_until("one", "write one x").crash();
    let second = scene.project.write("second.md", "The second.\n");
    let mut run = scene.run_file(&second, &["--timeout", "3s"], "write two x\nsleep 1h");
    let run = Running::start(&mut run);
    scene.wait_for_file("two");
    run.crash();
    let (reader, mut writer) = std::io::pipe().unwrap();
    // As many bytes as the kernel keeps for a reader.
    writer.write_all(&vec![b'x'; 64 << 10]).unwrap();

    let mut recover = scene
        .dark_factory(&["recover"])
        .stdout(writer)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the second run's time to be up", || {
        scene
            .runs()
            .iter()
            .any(|run| run["outcome"] == "timed_out")
            .then_some(())
    });
    let printed = std::io::read_to_string(reader).unwrap();
    let ended = recover.wait().unwrap();

    assert_eq!(ended.code(), Some(0));
    let lines: Vec<&str> = printed.trim_start_matches('x').lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn a_stop_does_not_depend_on_a_supervisor_that_hangs() {
    let scene = Scene::new();
    let script = format!("{STARTED}print hello\nwrite one x\nsleep 1h");
    let run = scene.run_until("one", &script);
    let id = running(&scene);

    run.hang();
    let stop = command(&scene, &["stop", &id]);
    let left = scene.containers();
    scene.wait_for_container();
    run.crash();
    scene.assert_recovers("cancelled");

    assert_eq!(stop.code, 5, "{}", stop.stderr);
    assert!(stop.stderr.contains("hangs"), "{}", stop.stderr);
    assert_eq!(left.len(), 1);
    scene.assert_ended("cancelled", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn a_container_whose_helper_waits_for_its_spool_is_not_frozen() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("POST /containers/*/start", Fault::HoldRequest);
    let run = Running::start(&mut scene.run("print hello; exit 3"));
    proxy.wait_until_held();
    run.crash();
    proxy.release();
    let container = scene.container();
    eventually("the container to run", || {
        let state = docker(&["inspect", "--format", "{{.State.Status}}", &container]);
        (state == "running\n").then_some(())
    });
    let id = text(&scene.only_run(), "run_id");

    let pause = command(&scene, &["pause", &id]);
    scene.assert_recovers("failed");

    assert_eq!(pause.code, 2, "{}", pause.stderr);
    assert!(
        pause.stderr.contains("nothing to pause"),
        "{}",
        pause.stderr
    );
    scene.assert_ended("failed", b"hello\n", b"");
}
