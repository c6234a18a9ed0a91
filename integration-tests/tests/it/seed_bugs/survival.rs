//! Bugs of runs that outlive something: their supervisor, the engine, a terminal, a working folder.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, iter, thread};

use dark_factory_init::spew;
use integration_tests::{EngineProxy, Fault};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::is_running;
use crate::bad_input::refuses;
use crate::scene::{Running, STARTED, Scene, eventually, text};
use crate::support::Ended;

/// Longer than the seed gave any subprocess.
const LONGER_THAN_THE_SEEDS_DEFAULT: Duration = Duration::from_secs(11);

#[test]
fn b_05_an_adopted_run_whose_supervisor_dies_is_not_filed_while_its_agent_works() {
    let scene = Scene::new();
    scene
        .run_until(
            "one",
            &format!("{STARTED}write one x\nwait-file go\nexit 3"),
        )
        .crash();
    let adopter = Running::start(&mut scene.dark_factory(&["recover"]));
    eventually("an adopter that follows the agent", || {
        let run = scene.only_run();
        (run["supervised"] == true && run["state"] == "running").then_some(())
    });

    adopter.crash();

    let open = scene.only_run();
    assert_eq!(
        (&open["state"], &open["outcome"]),
        (&json!("running"), &Value::Null)
    );
    assert!(is_running(&scene.container()));
    scene.project.write("go", "");
    scene.assert_recovers("failed");
    scene.assert_ended("failed", b"", b"");
    scene.assert_started_once();
}

#[test]
fn b_06_a_run_that_fails_while_it_is_resumed_hinders_no_other_and_is_not_run_again() {
    let scene = Scene::new();
    let bad = scene.project.write("bad.md", "Fail.\n");
    let script = |name: &str, code: u8| {
        format!("append starts.txt \"started\\n\"\nwrite {name} x\nwait-file go\nexit {code}")
    };
    let good = Running::start(&mut scene.run(&script("one", 0)));
    let failing = Running::start(&mut scene.run_file(&bad, &[], &script("two", 3)));
    scene.wait_for_file("one");
    scene.wait_for_file("two");
    failing.crash();
    good.crash();
    scene.project.write("go", "");

    let recover = scene.recover();

    assert_eq!(recover.code, 0, "{}", recover.stderr);
    assert!(recover.stdout.contains("succeeded: "), "{}", recover.stdout);
    assert!(
        recover
            .stdout
            .contains("failed: the command exited with code 3"),
        "{}",
        recover.stdout
    );
    assert_eq!(scene.recover().stdout, "nothing to recover\n");
    assert_eq!(scene.project.read("starts.txt"), "started\nstarted\n");
}

#[test]
fn b_07_a_run_that_waits_for_its_container_says_so_and_is_not_reset() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("POST /containers/create?name=", Fault::HoldRequest);
    let run = Running::start(&mut scene.run(&format!("{STARTED}exit 0")));
    proxy.wait_until_held();

    let waiting = scene.only_run();
    let recover = scene.recover();
    let still = scene.only_run();
    proxy.release();

    assert_eq!(waiting["state"], "creating", "{waiting}");
    assert!(
        recover.stdout.contains("is supervised by a living process"),
        "{}",
        recover.stdout
    );
    assert_eq!(still, waiting);
    assert_eq!(run.ended().code, 0);
    scene.assert_ended("succeeded", b"", b"");
    scene.assert_started_once();
}

#[test]
fn b_13_an_engine_that_cannot_be_asked_is_not_a_container_that_is_gone() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    scene
        .run_until("one", &format!("{STARTED}write one x\nwait-file go"))
        .crash();

    proxy.go_away();
    let recover = scene.recover();
    let meanwhile = scene.only_run();
    proxy.come_back();

    assert_eq!(recover.code, 4, "{}", recover.stderr);
    assert_eq!(meanwhile["outcome"], Value::Null, "{meanwhile}");
    assert!(is_running(&scene.container()));
    scene.project.write("go", "");
    scene.assert_recovers("succeeded");
    scene.assert_ended("succeeded", b"", b"");
    scene.assert_started_once();
}

#[test]
fn b_20_a_lease_is_one_folder_for_ever_and_trusts_no_process_id() {
    let scene = Scene::new();
    scene
        .run_until("one", &format!("{STARTED}write one x\nwait-file go"))
        .crash();
    let folder = scene.folder();
    let inode = || fs::metadata(&folder).unwrap().ino();
    let first = inode();

    assert_eq!(scene.only_run()["supervised"], false);
    let recover = Running::start(&mut scene.dark_factory(&["recover"]));
    scene.wait_until_supervised();

    assert_eq!(inode(), first);
    scene.project.write("go", "");
    assert_eq!(recover.ended().code, 0);
    assert_eq!(inode(), first);
    scene.assert_ended("succeeded", b"", b"");
}

#[test]
fn b_22_an_engine_that_takes_longer_than_ten_seconds_is_waited_for() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("POST /containers/create?name=", Fault::HoldRequest);
    let run = Running::start(&mut scene.run(&format!("{STARTED}print hello")));

    proxy.wait_until_held();
    // The time itself is what is tested.
    thread::sleep(LONGER_THAN_THE_SEEDS_DEFAULT);
    proxy.release();
    let run = run.ended();

    assert_eq!(run.code, 0, "{}", run.stderr);
    scene.assert_ended("succeeded", b"hello\n", b"");
    scene.assert_started_once();
}

#[test]
fn b_24_no_path_of_a_run_depends_on_a_working_folder() {
    let scene = Scene::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let state = scene.installation.state_dir();
    let parent = state.parent().unwrap();
    let script = format!("{STARTED}write one x\nwait-file go\nprint done");
    let mut run = scene.run_with(&["--state-dir", "state"], &script);
    let run = Running::start(run.current_dir(parent));
    scene.wait_for_file("one");
    run.crash();
    scene.project.write("go", "");

    let mut recover = scene.dark_factory(&["recover"]);
    let recover = Ended::of(recover.current_dir(elsewhere.path()));

    assert_eq!(recover.code, 0, "{}", recover.stderr);
    scene.assert_ended("succeeded", b"done\n", b"");
    scene.assert_started_once();
}

#[test]
fn b_25_without_an_engine_whatever_needs_none_goes_on() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    assert_eq!(Ended::of(&mut scene.run("print hello")).code, 0);
    let id = text(&scene.only_run(), "run_id");

    proxy.go_away();

    assert_eq!(scene.recover().stdout, "nothing to recover\n");
    for command in [&["ps", "-a"][..], &["logs", &id], &["inspect", &id]] {
        let ended = Ended::of(&mut scene.dark_factory(command));
        assert_eq!(ended.code, 0, "{command:?}: {}", ended.stderr);
    }
    proxy.come_back();
}

#[test]
fn b_26_a_run_that_a_dead_process_left_is_named_and_not_forgotten() {
    let scene = Scene::new();
    let script = format!("{STARTED}write one x\nwait-file go");
    scene.run_until("one", &script).crash();
    let id = text(&scene.only_run(), "run_id");

    refuses(
        &mut scene.run(&script),
        2,
        &[&id, "which a dead process left", "`dark-factory recover`"],
    );
    scene.project.write("go", "");
    scene.assert_recovers("succeeded");

    scene.assert_ended("succeeded", b"", b"");
    scene.assert_started_once();
}

#[test]
fn b_30_a_signal_to_the_whole_foreground_group_does_not_reach_the_container() {
    let scene = Scene::new();
    let script = format!("{STARTED}print before\nwrite one x\nwait-file go\nprint after");
    let mut run = scene.run(&script);
    let run = Running::start(run.process_group(0));
    scene.wait_for_file("one");
    let container = scene.container();

    killpg(
        Pid::from_raw(i32::try_from(run.id()).unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    drop(run.ended());

    assert!(is_running(&container));
    scene.project.write("go", "");
    scene.assert_recovers("succeeded");
    scene.assert_ended("succeeded", b"before\nafter\n", b"");
    scene.assert_started_once();
}

#[test]
fn b_30_a_terminal_that_is_closed_does_not_touch_the_run() {
    let scene = Scene::new();
    let script = format!("{STARTED}write one x\nwait-file go\nspew 300k\nprint end");
    let terminal = Running::start(&mut in_a_terminal(&scene.run(&script)));
    scene.wait_for_file("one");

    // The kernel hangs up on everybody in it.
    terminal.crash();
    scene.project.write("go", "");
    eventually("the end", || {
        (scene.only_run()["state"] == "finished").then_some(())
    });

    let stdout = [spew(300 << 10, 80), b"end\n".to_vec()].concat();
    eventually("the end of the command", || {
        scene.containers().is_empty().then_some(())
    });
    scene.assert_ended("succeeded", &stdout, b"");
    scene.assert_started_once();
}

/// Returns a command in a terminal of its own, as its session's foreground job.
fn in_a_terminal(command: &Command) -> Command {
    let words = iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''")))
        .collect();
    let mut terminal = Command::new("script");
    terminal
        .args(["--quiet", "--command"])
        .arg(format!("exec {}", words.join(" ")))
        .arg("/dev/null")
        .stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        terminal.current_dir(folder);
    }
    terminal
}
