//! `retry`: another attempt of a run that has ended.
//!
//! Owns: what of the attempt before is used again, and who is refused.
//! Reads: the commands' output, the attempts' folders.
//! Never: looks into the store.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::scene::{Running, Scene, eventually, text};
use crate::support::Ended;

fn command(scene: &Scene, arguments: &[&str]) -> Ended {
    Ended::of(&mut scene.dark_factory(arguments))
}

/// Runs a script to its end, and returns the run as `--json` prints it.
fn ended_run(scene: &Scene, flags: &[&str], script: &str) -> Value {
    let flags = [&["--json", "--quiet"], flags].concat();
    Ended::of(&mut scene.run_with(&flags, script)).one()
}

#[test]
fn a_retry_is_a_new_attempt_with_the_prompt_and_the_launch_that_were_recorded() {
    let scene = Scene::new();
    let first = ended_run(&scene, &["--env", "WHO=me"], "prompt\nenv WHO\nexit 1");
    let run = text(&first, "run_id");
    fs::remove_file(&scene.prompt).unwrap();

    let retried = command(&scene, &["retry", "--json", "--quiet", &run]);

    assert_eq!(retried.code, 1, "{}", retried.stderr);
    let second = retried.one();
    assert_eq!(second["run_id"], first["run_id"]);
    let [first, second] = [&first, &second].map(|run| text(run, "dir"));
    assert_eq!(second.strip_suffix("-2"), first.strip_suffix("-1"));
    let raw = |dir: &str| fs::read_to_string(Path::new(dir).join("raw.jsonl")).unwrap();
    assert_eq!(raw(&second), "Do what the command says.\nme\n");
    assert_eq!(raw(&second), raw(&first));
}

#[test]
fn a_run_is_what_its_latest_attempt_is_and_the_older_ones_are_named_by_their_number() {
    let scene = Scene::new();
    let run = text(&ended_run(&scene, &[], "print hello\nexit 1"), "run_id");

    let queued = command(&scene, &["retry", "-d", &run]);
    let waited = command(&scene, &["wait", &run]);

    assert_eq!(
        (queued.code, queued.stdout),
        (0, format!("{run}\n")),
        "{}",
        queued.stderr
    );
    assert_eq!(waited.code, 1, "{}", waited.stderr);
    assert_eq!(scene.only_run()["attempt"], 2);
    let attempt_of =
        |name: &str| command(&scene, &["inspect", "--json", name]).one()["attempt_id"].clone();
    assert_eq!(attempt_of(&run), json!(format!("{run}-2")));
    assert_eq!(attempt_of(&format!("{run}-1")), json!(format!("{run}-1")));
    let older = command(&scene, &["logs", &format!("{run}-1")]);
    assert!(older.stdout.contains("hello"), "{}", older.stdout);
    let missing = command(&scene, &["logs", &format!("{run}-3")]);
    assert_eq!(
        (missing.code, missing.stderr.lines().next().unwrap()),
        (3, format!("error: there is no run {run}-3").as_str())
    );
}

#[test]
fn of_two_retries_at_once_one_runs_and_the_other_is_told() {
    let scene = Scene::new();
    let go = scene.project.write("go", "");
    let script = "append tries x\nwait-file go\nexit 0";
    let run = text(&ended_run(&scene, &[], script), "run_id");
    fs::remove_file(go).unwrap();

    let mut retries: Vec<Running> = (0..2)
        .map(|_| Running::start(&mut scene.dark_factory(&["retry", &run])))
        .collect();
    let loser = eventually("one of them to end", || {
        retries.iter_mut().position(Running::has_ended)
    });
    let loser = retries.remove(loser).ended();
    scene.project.write("go", "");
    let winner = retries.remove(0).ended();

    assert_eq!(winner.code, 0, "{}", winner.stderr);
    assert_eq!(loser.code, 2, "{}", loser.stderr);
    assert!(
        loser
            .stderr
            .contains(&format!("error: run {run} has not ended: it is ")),
        "{}",
        loser.stderr
    );
    assert_eq!(scene.project.read("tries"), "xx");
}

#[test]
fn a_retry_whose_process_dies_is_recovered() {
    let scene = Scene::new();
    let run = text(&ended_run(&scene, &[], "append tries x\nexit 1"), "run_id");
    let retry = Running::start(&mut scene.dark_factory(&["retry", &run]));
    eventually("the second attempt", || {
        (scene.only_run()["attempt"] == 2).then_some(())
    });

    retry.crash();
    scene.recover();

    assert_eq!(scene.only_run()["state"], "finished");
    assert_eq!(scene.project.read("tries"), "xx");
    assert!(scene.containers().is_empty());
}

#[test]
fn ctrl_c_does_to_a_retry_what_the_configuration_says() {
    let scene = Scene::new();
    let go = scene.project.write("go", "");
    let script = "append tries x\nwait-file go\nexit 0";
    let run = text(&ended_run(&scene, &[], script), "run_id");
    fs::remove_file(go).unwrap();
    scene
        .project
        .write("dark-factory.toml", "on-interrupt = \"detach\"\n");
    let mut retry = scene.dark_factory(&["retry", "--quiet", &run]);
    let mut retry = retry
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the second attempt", || {
        (scene.project.read("tries") == "xx").then_some(())
    });

    kill(Pid::from_raw(retry.id().cast_signed()), Signal::SIGINT).unwrap();
    let code = retry.wait().unwrap().code();

    assert_eq!(code, Some(130));
    // The agent is quicker than the record of its start, which the daemon makes up for.
    eventually("the run goes on", || {
        (scene.only_run()["state"] == "running").then_some(())
    });
    scene.project.write("go", "");
    assert_eq!(command(&scene, &["wait", &run]).code, 0);
}

#[test]
fn an_attempt_that_the_store_has_forgotten_is_not_overwritten() {
    let scene = Scene::new();
    let first = ended_run(&scene, &[], "print hello\nexit 1");
    let run = text(&first, "run_id");
    let state = scene.installation.state_dir();
    let stores = ["state.db", "state.db-wal", "state.db-shm"].map(|name| state.join(name));
    let copies = stores.clone().map(|store| fs::read(store).ok());
    command(&scene, &["retry", &run]);
    for (store, copy) in stores.iter().zip(copies) {
        match copy {
            Some(copy) => fs::write(store, copy).unwrap(),
            None => fs::remove_file(store).unwrap_or_default(),
        }
    }

    let refused = command(&scene, &["retry", &run]);

    assert_eq!(refused.code, 2, "{}", refused.stderr);
    let told = format!("error: attempt {run}-2 was begun already, and the store does not know it");
    assert_eq!(refused.stderr.lines().next(), Some(told.as_str()));
    assert!(refused.stderr.contains("dark-factory prune"));
    let raw = state
        .join("runs")
        .join(format!("{run}-2"))
        .join("raw.jsonl");
    assert_eq!(fs::read_to_string(raw).unwrap(), "hello\n");
    // A folder of one that died before it had recorded anything keeps nobody from it.
    fs::remove_dir_all(state.join("runs").join(format!("{run}-2"))).unwrap();
    fs::create_dir(state.join("runs").join(format!("{run}-2"))).unwrap();
    assert_eq!(command(&scene, &["retry", "--quiet", &run]).code, 1);
}

#[test]
fn a_retry_that_cannot_be_as_it_was_is_refused_with_what_is_missing() {
    let scene = Scene::new();
    let file = scene.project.write(
        "secret.md",
        "---\nsecrets: {one: 'env:ONE', two: 'file:token'}\n---\nUse them.\n",
    );
    scene.project.write("token", "s3cr3t\n");
    let script = "check /run/secrets/one 1\ncheck /run/secrets/two s3cr3t\nexit 0";
    let mut first = scene.run_file(&file, &["--json", "--quiet"], script);
    let first = Ended::of(first.env("ONE", "1")).one();
    let run = text(&first, "run_id");

    let without = command(&scene, &["retry", &run]);
    let with = Ended::of(
        scene
            .dark_factory(&["retry", "--quiet", &run])
            .env("ONE", "1"),
    );
    fs::remove_file(scene.project.path().join("token")).unwrap();
    let no_file = Ended::of(scene.dark_factory(&["retry", &run]).env("ONE", "1"));
    let nobody = command(&scene, &["retry", "zzzz"]);

    assert_eq!(without.code, 2);
    assert_eq!(
        without.stderr.lines().next(),
        Some("error: secret one has no value: ONE is not set here or is empty; set it")
    );
    assert_eq!(with.code, 0, "{}", with.stderr);
    assert_eq!(no_file.code, 2);
    assert!(
        no_file
            .stderr
            .starts_with("error: secret two cannot be read from "),
        "{}",
        no_file.stderr
    );
    assert_eq!(nobody.code, 3, "{}", nobody.stderr);
    let dir = text(&scene.only_run(), "dir");
    fs::remove_file(Path::new(&dir).join("prompt.md")).unwrap();
    scene.project.write("token", "s3cr3t\n");
    let no_prompt = Ended::of(scene.dark_factory(&["retry", &run]).env("ONE", "1"));
    assert_eq!(no_prompt.code, 2);
    assert!(
        no_prompt.stderr.contains("was not kept"),
        "{}",
        no_prompt.stderr
    );
}
