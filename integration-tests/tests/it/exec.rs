//! `exec` and `shell`: in a running container, and in one that was kept.
//!
//! Owns: a real terminal, and what a person at it sees.
//! Reads: the commands' output, the terminal's mode.
//! Never: touches the agent.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use integration_tests::{EngineProxy, Fault, claude_image};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::pty::{Pty, is_raw, resize};
use crate::scene::{Running, Scene, docker, eventually, text};
use crate::support::Ended;

/// A command at a terminal of its own.
struct Terminal {
    keyboard: File,
    line: File,
    screen: Arc<Mutex<String>>,
    child: Child,
}

impl Terminal {
    fn of(command: &mut Command, columns: u16, rows: u16) -> Self {
        let pty = Pty::open(columns, rows);
        let child = pty.start(command.env("TERM", "xterm"));
        let Pty { keyboard, line } = pty;
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut shown, text) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = shown.read(&mut bytes) {
                text.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self {
            keyboard,
            line,
            screen,
            child,
        }
    }

    fn shows(&self, text: &str) {
        let screen = || self.screen.lock().unwrap().clone();
        let is_there = || screen().contains(text).then_some(());
        let found =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| eventually(text, is_there)));
        assert!(
            found.is_ok(),
            "{text:?} is not on the screen:\n{}",
            screen()
        );
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn ended(mut self) -> i32 {
        let status = eventually("its end", || self.child.try_wait().unwrap());
        assert!(!is_raw(&self.line), "the terminal was left raw");
        status.code().unwrap()
    }
}

/// A run of an image with a shell, which goes on until the scene has a file `go`.
fn running() -> (Scene, Running, String) {
    let scene = Scene::new();
    let wait = "touch begun; until [ -e go ]; do sleep 0.05; done";
    let mut run = scene.run_argv(&claude_image(), &[], &["/bin/bash", "-c", wait]);
    let foreground = Running::start(&mut run);
    scene.wait_for_file("begun");
    let id = eventually("the start to be recorded", || {
        let run = scene.only_run();
        (run["state"] == "running").then(|| text(&run, "run_id"))
    });
    (scene, foreground, id)
}

fn command(scene: &Scene, arguments: &[&str]) -> Ended {
    Ended::of(&mut scene.dark_factory(arguments))
}

#[test]
fn a_shell_in_a_running_container_is_as_at_a_terminal_of_its_own() {
    let (scene, foreground, run) = running();

    let mut shell = Terminal::of(&mut scene.dark_factory(&["shell", &run]), 100, 30);
    shell.shows("$ ");
    assert!(is_raw(&shell.line));
    shell.types("stty size; echo $TERM-$((40 + 2)); pwd\r");
    shell.shows("30 100");
    shell.shows("xterm-42");
    shell.shows("/workspace");
    resize(&shell.keyboard, 120, 40);
    shell.types(
        "until [ \"$(stty size)\" = '40 120' ]; do sleep 0.05; done; echo resized-$((1 + 1))\r",
    );
    shell.shows("resized-2");
    shell.types("echo begun-$((1 + 1)); sleep 1000\r");
    shell.shows("begun-2");
    shell.types("\u{3}");
    shell.types("echo after-$((2 + 1))\r");
    shell.shows("after-3");
    shell.types("exit 7\r");

    assert_eq!(shell.ended(), 7);
    scene.project.write("go", "");
    assert_eq!(foreground.ended().code, 0);
}

#[test]
fn the_terminal_is_as_before_also_if_the_command_is_told_to_end_or_the_run_ends() {
    let (scene, foreground, run) = running();

    let told = Terminal::of(&mut scene.dark_factory(&["shell", &run]), 80, 24);
    told.shows("$ ");
    let pid = i32::try_from(told.child.id()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert_eq!(told.ended(), 143);
    let left = Terminal::of(&mut scene.dark_factory(&["shell", &run]), 80, 24);
    left.shows("$ ");
    scene.project.write("go", "");

    assert_eq!(foreground.ended().code, 0);
    assert_eq!(left.ended(), 137);
}

#[test]
fn without_a_terminal_a_program_has_three_pipes_and_its_exit_code_is_ours() {
    let (scene, foreground, run) = running();
    let script = "cat; echo bad >&2; test -t 0 || test -t 1 || echo none; id -u; exit 3";

    let mut exec = scene.dark_factory(&["exec", "-i", &run, "--", "sh", "-c", script]);
    let mut exec = exec
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let long = "0123456789\n".repeat(50_000);
    let mut stdin = exec.stdin.take().unwrap();
    let typed = long.clone();
    let typing = thread::spawn(move || stdin.write_all(typed.as_bytes()).unwrap());
    let ended = Ended::from(exec.wait_with_output().unwrap());
    typing.join().unwrap();

    assert_eq!((ended.code, ended.stderr.as_str()), (3, "bad\n"));
    assert!(
        ended.stdout == format!("{long}none\n1000\n"),
        "{} bytes",
        ended.stdout.len()
    );
    let nothing = command(&scene, &["exec", &run, "--", "/nowhere/program"]);
    assert_eq!(nothing.code, 126, "{}", nothing.stderr);
    assert!(
        nothing.stdout.contains("/nowhere/program"),
        "{}",
        nothing.stdout
    );
    scene.project.write("go", "");
    assert_eq!(foreground.ended().code, 0);
}

#[test]
fn a_kept_container_can_be_looked_into_after_its_end_until_its_run_is_removed() {
    let scene = Scene::new();
    let flags = ["--keep", "--json", "--quiet", "--profile", "seed"];
    let leave = "echo left > /tmp/left; echo $$ > /workspace/pid";
    let mut run = scene.run_argv(&claude_image(), &flags, &["/bin/bash", "-c", leave]);
    let run = Ended::of(&mut run);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = text(&run.one(), "run_id");
    let kept = scene.containers();

    let exec = command(
        &scene,
        &[
            "exec",
            &run,
            "--",
            "sh",
            "-c",
            "cat /tmp/left; echo more > /tmp/more; exit 5",
        ],
    );
    let again = command(&scene, &["exec", &run, "--", "ls", "/tmp/more"]);
    let listed = command(&scene, &["prune", "--grace", "0s"]);

    assert_eq!(
        (exec.code, exec.stdout.as_str()),
        (5, "left\n"),
        "{}",
        exec.stderr
    );
    assert!(
        exec.stderr.contains("this is a copy of its container"),
        "{}",
        exec.stderr
    );
    assert_ne!(again.code, 0, "what was written in a copy goes with it");
    assert_eq!((kept.len(), scene.containers()), (1, kept.clone()));
    let copies = docker(&[
        "images",
        "--quiet",
        "--filter",
        &format!("reference=dark-factory-reopened:*{run}*"),
    ]);
    assert_eq!(copies, "");
    assert!(
        listed.stdout.contains("(it was kept by `run --keep`)"),
        "{}",
        listed.stdout
    );
    assert_eq!(scene.recover().stdout, "nothing to recover\n");
    assert_eq!(scene.containers(), kept);
    let removed = command(&scene, &["rm", &run]);
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    assert_eq!(
        docker(&[
            "ps",
            "--all",
            "--quiet",
            "--no-trunc",
            "--filter",
            &format!("id={}", kept[0])
        ]),
        ""
    );
}

#[test]
fn nothing_is_left_of_a_copy_that_was_being_made_when_the_command_was_told_to_end() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    let run = Ended::of(&mut scene.run_with(&["--keep", "--json", "--quiet"], "exit 0")).one();
    let run = text(&run, "run_id");
    let kept = scene.containers();
    proxy.next("POST /commit", Fault::HoldReply);
    let mut exec = scene.dark_factory(&["exec", &run, "--", "/bin/agent", "-e", "exit 0"]);
    let mut exec = exec.stderr(Stdio::null()).spawn().unwrap();
    proxy.wait_until_held();

    kill(Pid::from_raw(exec.id().cast_signed()), Signal::SIGINT).unwrap();
    proxy.release();
    let ended = exec.wait().unwrap();

    assert_eq!(ended.code(), Some(130));
    assert_eq!(scene.containers(), kept);
    assert_eq!(proxy.count("POST /containers/*/exec"), 0);
    let copies = format!("reference=dark-factory-reopened:*{run}*");
    assert_eq!(docker(&["images", "--quiet", "--filter", &copies]), "");
    assert_eq!(command(&scene, &["rm", &run]).code, 0);
}

#[test]
fn a_copy_whose_command_was_killed_has_nothing_at_stake() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    let run = Ended::of(&mut scene.run_with(&["--keep", "--json", "--quiet"], "exit 0")).one();
    let run = text(&run, "run_id");
    proxy.next("POST /containers/*/exec", Fault::HoldRequest);
    let exec = ["exec", &run, "--", "/bin/agent", "-e", "exit 0"];
    let exec = Running::start(&mut scene.dark_factory(&exec));
    proxy.wait_until_held();
    exec.crash();
    proxy.break_held();

    let listed = command(&scene, &["prune", "--grace", "0s", "--json"]).json();
    let applied = command(&scene, &["prune", "--grace", "0s", "--apply"]);

    let stakes: Vec<bool> = listed
        .iter()
        .map(|found| found["at_stake"].is_null())
        .collect();
    assert_eq!(
        stakes.iter().filter(|is_null| **is_null).count(),
        1,
        "{listed:?}"
    );
    assert_eq!(stakes.len(), 2, "the kept container and its copy");
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    let copies = format!("reference=dark-factory-reopened:*{run}*");
    assert_eq!(docker(&["images", "--quiet", "--filter", &copies]), "");
}

#[test]
fn the_image_of_a_copy_that_was_never_made_is_listed_and_goes_with_prune_or_its_run() {
    for (undo, kind) in [("prune", "image"), ("rm", "run")] {
        let proxy = EngineProxy::new();
        let scene = Scene::behind(&proxy);
        let run = Ended::of(&mut scene.run_with(&["--keep", "--json", "--quiet"], "exit 0")).one();
        let run = text(&run, "run_id");
        let copies = format!("reference=dark-factory-reopened:*{run}*");
        let images = || docker(&["images", "--quiet", "--filter", &copies]);
        proxy.next("POST /containers/create", Fault::HoldRequest);
        let exec = ["exec", &run, "--", "/bin/agent", "-e", "exit 0"];
        let exec = Running::start(&mut scene.dark_factory(&exec));
        proxy.wait_until_held();
        exec.crash();
        proxy.break_held();
        assert_ne!(images(), "", "the image was made");

        let young = command(&scene, &["prune", "--json"]).json();
        let listed = command(&scene, &["prune", "--grace", "0s", "--json"]).json();
        let undone = match undo {
            "prune" => command(&scene, &["prune", "--grace", "0s", "--apply", "--json"]),
            _ => command(&scene, &["rm", "--json", &run]),
        };
        let undone = undone.json();

        assert_eq!(young, Vec::<serde_json::Value>::new());
        let image = listed
            .iter()
            .find(|found| found["kind"] == "image")
            .unwrap();
        assert_eq!(image["attempt_id"], format!("{run}-1"));
        assert!(image["at_stake"].is_null(), "{image}");
        assert!(
            undone
                .iter()
                .any(|found| found["kind"] == kind && found["removed"] == true)
        );
        assert_eq!(images(), "");
    }
}

#[test]
fn a_program_that_went_with_its_container_was_killed() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    let foreground = scene.run_until("begun", "write begun x\nwait-file go\nexit 0");
    let run = text(&scene.only_run(), "run_id");
    proxy.next("GET /exec/*/json", Fault::HoldRequest);
    let script = "write inside x; wait-file never";
    let exec = ["exec", &run, "--", "/bin/agent", "-e", script];
    let exec = Running::start(&mut scene.dark_factory(&exec));
    scene.wait_for_file("inside");

    docker(&["rm", "--force", &scene.container()]);
    proxy.wait_until_held();
    proxy.release();
    let exec = exec.ended();

    assert_eq!(exec.code, 137, "{}", exec.stderr);
    assert_ne!(foreground.ended().code, 0);
}

#[test]
fn what_has_no_container_or_no_shell_is_told_so() {
    let scene = Scene::new();
    let foreground = scene.run_until("begun", "write begun x\nwait-file go\nexit 0");
    let run = text(&scene.only_run(), "run_id");

    let shell = command(&scene, &["shell", &run]);
    let no_terminal = command(&scene, &["exec", "-it", &run, "--", "true"]);
    let nothing = command(&scene, &["exec", &run]);
    scene.project.write("go", "");
    assert_eq!(foreground.ended().code, 0);
    let ended = command(&scene, &["exec", &run, "--", "true"]);
    let nobody = command(&scene, &["shell", "zzzz"]);

    assert_eq!(
        (shell.code, shell.stderr),
        (
            2,
            format!(
                "error: the container of run {run} has no shell\n  help: `dark-factory exec {run} -- PROGRAM` executes \
                 a program that it has\n"
            )
        )
    );
    assert_eq!(no_terminal.code, 2);
    assert!(
        no_terminal.stderr.starts_with("error: -t needs a terminal"),
        "{}",
        no_terminal.stderr
    );
    assert_eq!(nothing.code, 2);
    assert!(nothing.stderr.contains("<ARGV>"), "{}", nothing.stderr);
    assert_eq!(
        (ended.code, ended.stderr),
        (
            2,
            format!(
                "error: run {run} has no container in which anything could be executed: it is finished\n  help: while a \
                 run goes on it has one, and `run --keep` keeps it after the end\n"
            )
        )
    );
    assert_eq!(nobody.code, 3);
}
