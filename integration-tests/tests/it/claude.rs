//! The real Claude Code, with a scripted model server as its API, works on a real prompt file.
//!
//! Owns: the prompt, and the model's scenarios.
//! Reads: the stream that Claude Code wrote, and what the model server was asked.
//! Never: reaches a real model.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use integration_tests::{MockModel, PROJECT_OWNER, claude_image};

use crate::scene::{Running, Scene, report, text};
use crate::support::{Ended, Wrapper, wait_for_words};

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
    let report = scene.assert_agent_ended("succeeded");
    let stream = scene.stream();
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
    let report = scene.assert_agent_ended("succeeded");
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
    let report = scene.assert_agent_ended("failed");
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
    let report = scene.assert_agent_ended("failed");
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
    let report = scene.assert_agent_ended("failed");
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

    let run = Running::start(&mut run(&scene, &model));
    scene.wait_for_file("hello.txt");
    run.crash();
    let recover = scene.recover();

    assert_eq!(recover.code, 0, "{}", recover.stderr);
    let report = scene.assert_agent_ended("succeeded");
    assert_eq!(report, crate::scene::report(&scene.folder()));
    assert_eq!(scene.stream().last().expect("an event")["type"], "result");
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

/// What a user knows of a run that failed: its exit code, outcome, cause, and what it used.
fn assert_failed(scene: &Scene, run: &Ended, class: &str, cause: &str) {
    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    let report = scene.assert_agent_ended("failed");
    assert_eq!(report["verdict"]["class"], class, "{report}");
    let found = report["cause"].as_str().expect("a cause");
    assert!(found.starts_with(cause), "{found}");
    assert!(run.stdout.contains(found), "{}", run.stdout);
    let last = scene.stream().pop().expect("an event");
    assert_eq!(last["type"], "result", "{last}");
    let cost = report["usage"]["cost_usd"].as_f64();
    assert_eq!(cost, last["total_cost_usd"].as_f64(), "{report}");
}

#[test]
fn a_failing_service_is_the_cause() {
    let (scene, model) = (Scene::new(), MockModel::start("server_error"));

    let run = Ended::of(&mut run(&scene, &model));

    assert_failed(
        &scene,
        &run,
        "overloaded",
        "the model's service failed or is overloaded: API Error: 500",
    );
}

#[test]
fn a_rate_limit_is_the_cause() {
    let (scene, model) = (Scene::new(), MockModel::start("rate_limit"));

    let run = Ended::of(&mut run(&scene, &model));

    assert_failed(
        &scene,
        &run,
        "rate_limit",
        "the agent ran into a rate limit",
    );
}

#[test]
fn a_used_up_allowance_is_the_cause_with_the_time_at_which_it_starts_anew() {
    let (scene, model) = (Scene::new(), MockModel::start("usage_limit"));
    let prompt = scene.project.write("tasks/hello.md", PROMPT);

    let run = Ended::of(
        scene
            .dark_factory(&["run", "--image", &claude_image(), "--network", "open"])
            .args(["--env", "CLAUDE_CODE_OAUTH_TOKEN=sk-ant-oat01-test"])
            .args(["--env", "CLAUDE_CODE_MAX_RETRIES=1"])
            .args(["--env", &format!("ANTHROPIC_BASE_URL={}", model.base_url())])
            .arg(prompt),
    );

    assert_failed(
        &scene,
        &run,
        "usage_limit",
        "the account's usage limit is reached",
    );
    let cause = text(&report(&scene.folder()), "cause");
    assert!(cause.contains("(starts anew at 20"), "{cause}");
}

#[test]
fn the_agents_own_turn_limit_is_the_cause() {
    let (scene, model) = (Scene::new(), MockModel::start("success"));
    let wrapper = Wrapper::new("claude", "exec claude --max-turns 2 \"$@\"");

    let run = Ended::of(run(&scene, &model).args(wrapper.flags()));

    assert_failed(
        &scene,
        &run,
        "max_turns",
        "the agent reached its turn limit",
    );
    assert_eq!(
        report(&scene.folder())["usage"]["turns"],
        scene.stream().last().expect("an event")["num_turns"]
    );
}

#[test]
fn a_stop_while_a_tool_runs_is_a_cancel() {
    let (scene, model) = (Scene::new(), MockModel::start("sleep"));

    let run = Running::start(&mut run(&scene, &model));
    wait_for_words(&scene, "sleep 120");
    let stop = Ended::of(&mut scene.dark_factory(&["stop", &text(&scene.only_run(), "run_id")]));
    let run = run.ended();

    assert_eq!(stop.code, 0, "{}", stop.stderr);
    assert_eq!(run.code, 130, "{}{}", run.stdout, run.stderr);
    let report = scene.assert_agent_ended("cancelled");
    assert_eq!(
        report["cause"], "cancelled by dark-factory stop",
        "{report}"
    );
    assert_eq!(report["exit"]["status"]["code"], 143, "{report}");
}

#[test]
fn a_time_limit_ends_a_tool_that_hangs() {
    let (scene, model) = (Scene::new(), MockModel::start("sleep"));

    let run = Ended::of(run(&scene, &model).args(["--timeout", "8s"]));

    assert_eq!(run.code, 124, "{}{}", run.stdout, run.stderr);
    let report = scene.assert_agent_ended("timed_out");
    assert_eq!(report["cause"], "the time limit of 8s passed", "{report}");
}

#[test]
fn a_sigterm_from_outside_is_named() {
    let (scene, model) = (Scene::new(), MockModel::start("sleep"));

    let run = Running::start(&mut run(&scene, &model));
    wait_for_words(&scene, "sleep 120");
    scene.docker(&["kill", "--signal", "TERM", &scene.container()]);
    let run = run.ended();

    assert_eq!(run.code, 137, "{}{}", run.stdout, run.stderr);
    let report = scene.assert_agent_ended("killed");
    assert_eq!(
        report["cause"], "SIGTERM from outside ended the agent (exit code 143)",
        "{report}"
    );
}

#[test]
fn a_sigkill_from_outside_is_named_and_what_was_printed_before_is_kept() {
    let (scene, model) = (Scene::new(), MockModel::start("sleep"));

    let run = Running::start(&mut run(&scene, &model));
    wait_for_words(&scene, "sleep 120");
    scene.docker(&["kill", &scene.container()]);
    let run = run.ended();

    assert_eq!(run.code, 137, "{}{}", run.stdout, run.stderr);
    let report = report(&scene.folder());
    assert_eq!(
        (&report["outcome"], &report["cause"]),
        (
            &"killed".into(),
            &"SIGKILL from outside killed the agent".into()
        )
    );
    // The helper was killed with the agent, so nobody can say that this is all.
    assert_eq!(report["log"], "incomplete", "{report}");
    assert_eq!(scene.stream()[0]["subtype"], "init");
    assert!(scene.containers().is_empty(), "containers are left");
}

#[test]
fn a_tool_that_eats_all_memory_is_said_though_claude_goes_on() {
    let (scene, model) = (Scene::new(), MockModel::start("memory_hog"));

    let run = Ended::of(run(&scene, &model).args(["--memory", "512m"]));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let report = scene.assert_agent_ended("succeeded");
    assert_eq!(report["exit"]["oom"], "child", "{report}");
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains(
            "the kernel killed a process of the agent for lack of memory (limit 512 MiB, peak 5"
        ),
        "{warnings}"
    );
}

#[test]
fn claude_itself_without_memory_is_out_of_memory() {
    // The tool takes the memory and makes itself the last that the kernel would kill.
    let command = "echo 0 > /proc/self/oom_score_adj; tail /dev/zero";
    let steps = serde_json::json!({ "steps": [{ "tools": [{ "do": "shell", "command": command, "why": "Eat" }] }] });
    let scene = Scene::new();
    let scenario = scene.installation.folder().join("eat.json");
    fs::write(&scenario, steps.to_string()).expect("our own folder");
    let model = MockModel::start(&scenario.to_string_lossy());
    let first = Wrapper::new(
        "claude",
        "echo 1000 > /proc/self/oom_score_adj; exec claude \"$@\"",
    );

    let run = Ended::of(
        run(&scene, &model)
            .args(["--memory", "512m"])
            .args(first.flags()),
    );

    assert_eq!(run.code, 137, "{}{}", run.stdout, run.stderr);
    let report = scene.assert_agent_ended("out_of_memory");
    let cause = report["cause"].as_str().expect("a cause");
    // What it calls itself is its own affair.
    let (start, facts) = (
        "the kernel killed the agent, `",
        "`, for lack of memory (limit 512 MiB, peak 5",
    );
    assert!(cause.starts_with(start) && cause.contains(facts), "{cause}");
    assert_eq!(report["exit"]["oom"], "certain", "{report}");
    assert_eq!(scene.stream()[0]["subtype"], "init");
}

#[test]
fn a_workspace_that_claude_may_not_write_is_warned_of() {
    let (scene, model) = (Scene::new(), MockModel::start("success"));

    let run = Ended::of(run(&scene, &model).args(["--user", "1234:1234"]));

    // Claude Code ends with a success and exit code 0, whatever its tools said.
    assert_failed(
        &scene,
        &run,
        "internal",
        "the agent failed: all 4 commands and changes that Claude Code tried failed: EACCES",
    );
    assert_eq!(report(&scene.folder())["exit"]["status"]["code"], 0);
    assert!(
        run.stderr.contains(
            "the project belongs to uid 1000 and the agent runs as uid 1234, which may not write"
        ),
        "{}",
        run.stderr
    );
    let log = fs::read_to_string(scene.folder().join("run.log")).expect("the log is text");
    assert!(log.contains("EACCES: permission denied"), "{log}");
    assert!(!scene.project.path().join("hello.txt").exists());
}
