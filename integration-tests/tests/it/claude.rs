//! The real Claude Code, with a scripted model server as its API, works on a real prompt file.
//!
//! Owns: the prompt, and the model's scenarios.
//! Reads: the stream that Claude Code wrote, and what the model server was asked.
//! Never: reaches a real model.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use integration_tests::{MockModel, PROJECT_OWNER, claude_image};
use serde_json::Value;

use crate::scene::{Scene, report};
use crate::support::Ended;

const PROMPT: &str =
    "---\nagent: claude\n---\n# Say hello\n\nCreate hello.txt, look at it, and edit it.\n";

fn run(scene: &Scene, model: &MockModel) -> Command {
    let prompt = scene.project.write("tasks/hello.md", PROMPT);
    let mut command = scene.dark_factory(&["run", "--image", &claude_image(), "--network", "open"]);
    command
        .args([
            "--env",
            "ANTHROPIC_API_KEY=test",
            "--env",
            "CLAUDE_CODE_MAX_RETRIES=1",
        ])
        .args(["--env", &format!("ANTHROPIC_BASE_URL={}", model.base_url())])
        .arg(prompt);
    command
}

/// Returns the objects of the one run's raw log.
fn stream(scene: &Scene) -> Vec<Value> {
    let raw = fs::read_to_string(scene.folder().join("raw.jsonl")).expect("the stream is UTF-8");
    let parse =
        |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    raw.lines().map(parse).collect()
}

fn assert_ended(scene: &Scene, outcome: &str) -> Value {
    let raw = fs::read(scene.folder().join("raw.jsonl")).expect("there is a log");
    let stderr = fs::read(scene.folder().join("stderr.log")).expect("there is a log");
    scene.assert_ended(outcome, &raw, &stderr)
}

#[test]
fn a_prompt_file_is_worked_on() {
    let (scene, model) = (Scene::new(), MockModel::start("success"));

    let run = Ended::of(&mut run(&scene, &model));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert_eq!(
        scene.project.read("hello.txt"),
        "Hello, world!\nline 2 (edited)\n"
    );
    let written = fs::metadata(scene.project.path().join("hello.txt")).expect("it is there");
    assert_eq!(
        (written.uid(), written.gid()),
        (PROJECT_OWNER, PROJECT_OWNER)
    );
    let report = assert_ended(&scene, "succeeded");
    let stream = stream(&scene);
    let (first, last) = (
        stream.first().expect("an event"),
        stream.last().expect("an event"),
    );
    assert_eq!(
        (&first["type"], &first["subtype"]),
        (&"system".into(), &"init".into())
    );
    assert_eq!(
        (&last["type"], &last["is_error"]),
        (&"result".into(), &false.into())
    );
    assert_eq!(report["session_id"], last["session_id"]);
    assert_eq!(report["model"], first["model"]);
    assert_eq!(report["exit"]["status"]["code"], 0);
    let (usage, theirs) = (&report["usage"], &last["usage"]);
    assert_eq!(usage["output_tokens"], theirs["output_tokens"], "{usage}");
    assert!(
        usage["output_tokens"].as_u64() > Some(0) && usage["input_tokens"].as_u64() > Some(0),
        "{usage}"
    );
    assert!(usage["cost_usd"].as_f64() > Some(0.0), "{usage}");
    assert_eq!(usage["cost_usd"], last["total_cost_usd"]);
    let log = fs::read_to_string(scene.folder().join("run.log")).expect("the log is text");
    for words in [
        "I'll create hello.txt.",
        "hello.txt",
        "Done: hello.txt was created, listed, read and edited.",
    ] {
        assert!(
            log.contains(words) && run.stdout.contains(words),
            "{words:?} is missing:\n{log}\n{}",
            run.stdout
        );
    }
    let asked =
        String::from_utf8(fs::read(scene.folder().join("launch.json")).expect("there is a record"));
    assert!(
        !asked.expect("it is text").contains("\"test\""),
        "the key stands in launch.json"
    );
    let requests = model.requests();
    assert!(requests.iter().any(|request| {
        request["path"]
            .as_str()
            .is_some_and(|p| p.contains("/v1/messages"))
    }));
}

#[test]
fn a_completion_report_is_the_verdict() {
    let (scene, model) = (Scene::new(), MockModel::start("report"));

    let run = Ended::of(&mut run(&scene, &model));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let report = assert_ended(&scene, "succeeded");
    let claim = &report["verdict"]["report"];
    assert_eq!(
        (&claim["status"], &claim["summary"]),
        (&"success".into(), &"Created and edited hello.txt.".into())
    );
}

#[test]
fn a_report_of_blocked_work_is_a_failure() {
    let (scene, model) = (Scene::new(), MockModel::start("report_blocked"));

    let run = Ended::of(&mut run(&scene, &model));

    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    let report = assert_ended(&scene, "failed");
    assert!(
        report["cause"]
            .as_str()
            .is_some_and(|cause| cause.starts_with("the agent reports blocked")),
        "{report}"
    );
}

#[test]
fn an_overloaded_model_is_the_cause() {
    let (scene, model) = (Scene::new(), MockModel::start("overloaded"));

    let run = Ended::of(&mut run(&scene, &model));

    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    let report = assert_ended(&scene, "failed");
    let cause = report["cause"].as_str().expect("a cause");
    assert!(
        cause.starts_with("the model's service failed or is overloaded: API Error: 529"),
        "{cause}"
    );
    assert_eq!(report["verdict"]["class"], "overloaded", "{report}");
    assert!(run.stdout.contains(cause), "{}", run.stdout);
}

#[test]
fn a_key_that_is_refused_is_the_cause() {
    let (scene, model) = (Scene::new(), MockModel::start("unauthorized"));

    let run = Ended::of(&mut run(&scene, &model));

    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    let report = assert_ended(&scene, "failed");
    let cause = report["cause"].as_str().expect("a cause");
    assert!(
        cause.starts_with("the agent could not authenticate"),
        "{cause}"
    );
    assert_eq!(report["verdict"]["class"], "auth", "{report}");
    assert!(!scene.project.path().join("hello.txt").exists());
}

#[test]
fn a_crash_while_claude_works_loses_nothing() {
    let (scene, model) = (Scene::new(), MockModel::start("success"));

    let run = crate::scene::Running::start(&mut run(&scene, &model));
    scene.wait_for_file("hello.txt");
    run.crash();
    let recover = scene.recover();

    assert_eq!(recover.code, 0, "{}", recover.stderr);
    let report = assert_ended(&scene, "succeeded");
    assert_eq!(report, crate::scene::report(&scene.folder()));
    assert_eq!(stream(&scene).last().expect("an event")["type"], "result");
    assert_eq!(
        scene.project.read("hello.txt"),
        "Hello, world!\nline 2 (edited)\n"
    );
}

#[test]
fn the_seeds_lines_come_from_the_recorded_stream() {
    let (scene, model) = (Scene::new(), MockModel::start("text"));
    let run = Ended::of(&mut run(&scene, &model));
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let raw = scene.folder().join("raw.jsonl");

    let replay = Ended::of(scene.dark_factory(&["replay", "--format", "seed"]).arg(raw));

    assert_eq!(replay.code, 0, "{}", replay.stderr);
    assert!(
        replay.stdout.contains("Hello from the mock model."),
        "{}",
        replay.stdout
    );
    assert_eq!(report(&scene.folder())["outcome"], "succeeded");
}
