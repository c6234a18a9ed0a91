//! The real Codex, with a scripted model server as its API, works on a real prompt file.
//!
//! Owns: the prompt, and the model's scenarios.
//! Reads: the stream that Codex wrote, and what the model server was asked.
//! Never: reaches a real model.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use integration_tests::{MockModel, PROJECT_OWNER, codex_image};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::scene::{Running, Scene, report, text};
use crate::support::{Ended, Wrapper, wait_for_words};

const PROMPT: &str =
    "---\nagent: codex\n---\n# Say hello\n\nCreate hello.txt, look at it, and edit it.\n";

fn run(scene: &Scene, model: &MockModel) -> Command {
    let prompt = scene.project.write("tasks/hello.md", PROMPT);
    let mut command = scene.dark_factory(&["run", "--image", &codex_image(), "--network", "open"]);
    command
        .args(["--env", "OPENAI_API_KEY=sk-mock-secret"])
        .args(["--env", &format!("OPENAI_BASE_URL={}/v1", model.base_url())])
        .arg(prompt);
    command
}

/// Returns a configuration in which Codex tries again only once; by default it takes minutes to give up.
fn few_retries(model: &MockModel) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    write!(
        file,
        "model_provider = \"mock\"\n[model_providers.mock]\nname = \"mock\"\nbase_url = \"{}/v1\"\n\
         env_key = \"CODEX_API_KEY\"\nwire_api = \"responses\"\nrequest_max_retries = 1\nstream_max_retries = 1\n",
        model.base_url()
    )
    .expect("our own file");
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(file.path(), readable).expect("our own file");
    file
}

/// Runs a prompt against a model whose every answer is an error.
fn run_to_failure(scene: &Scene, scenario: &str) -> Ended {
    let model = MockModel::start(scenario);
    let config = few_retries(&model);
    let mount = format!("{}:/etc/codex/config.toml:ro", config.path().display());
    Ended::of(run(scene, &model).args(["--mount", &mount]))
}

fn assert_failed(scene: &Scene, run: &Ended, class: &str, cause: &str) {
    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    let report = scene.assert_agent_ended("failed");
    assert_eq!(report["verdict"]["class"], class, "{report}");
    let found = report["cause"].as_str().expect("a cause");
    assert!(found.starts_with(cause), "{found}");
    assert!(run.stdout.contains(found), "{}", run.stdout);
}

#[test]
fn a_prompt_file_is_worked_on() {
    let (scene, model) = (Scene::new(), MockModel::start("report"));

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
    assert_eq!(
        report["verdict"]["report"]["summary"],
        "Created and edited hello.txt."
    );
    let stream = scene.stream();
    let (first, last) = (&stream[0], &stream[stream.len() - 1]);
    assert_eq!(report["session_id"], first["thread_id"]);
    let (usage, theirs) = (&report["usage"], &last["usage"]);
    let tokens = |value: &Value| value.as_u64().expect("a number");
    assert_eq!(usage["output_tokens"], theirs["output_tokens"]);
    assert_eq!(usage["cache_read_tokens"], theirs["cached_input_tokens"]);
    assert_eq!(
        tokens(&usage["input_tokens"]) + tokens(&usage["cache_read_tokens"]),
        tokens(&theirs["input_tokens"])
    );
    assert_eq!(usage["cost_usd"], Value::Null);
    let log = fs::read_to_string(scene.folder().join("run.log")).expect("the log is text");
    for words in ["I'll create hello.txt.", "→ file_change", "✓ done"] {
        assert!(log.contains(words), "{words:?} is missing:\n{log}");
    }
    let launched = fs::read_to_string(scene.folder().join("launch.json")).expect("a record");
    assert!(!launched.contains("sk-mock-secret"), "{launched}");
    let asked = model.requests();
    let is_signed =
        |request: &Value| request["method"] == "GET" || request["auth"] == "authorization";
    assert!(asked.iter().all(is_signed), "{asked:?}");
}

#[test]
fn a_failing_service_is_the_cause() {
    let scene = Scene::new();

    let run = run_to_failure(&scene, "server_error");

    let cause =
        "the model's service failed or is overloaded: We’re currently experiencing high demand";
    assert_failed(&scene, &run, "overloaded", cause);
}

#[test]
fn a_key_that_is_refused_is_the_cause() {
    let scene = Scene::new();

    let run = run_to_failure(&scene, "unauthorized");

    assert_failed(
        &scene,
        &run,
        "auth",
        "the agent could not authenticate: unexpected status 401",
    );
}

#[test]
fn a_rate_limit_is_the_cause() {
    let scene = Scene::new();

    let run = run_to_failure(&scene, "rate_limit");

    assert_failed(
        &scene,
        &run,
        "rate_limit",
        "the agent ran into a rate limit: exceeded retry limit",
    );
}

#[test]
fn an_inner_sandbox_in_which_nothing_works_is_no_success() {
    let (scene, model) = (Scene::new(), MockModel::start("report"));
    let wrapper = Wrapper::new(
        "codex",
        "exec codex \"${@/--dangerously-bypass-approvals-and-sandbox/--sandbox=workspace-write}\"",
    );

    let run = Ended::of(run(&scene, &model).args(wrapper.flags()));

    assert_failed(
        &scene,
        &run,
        "internal",
        "the agent failed: all 4 commands and changes that Codex tried failed",
    );
    assert_eq!(report(&scene.folder())["exit"]["status"]["code"], 0);
    assert!(!scene.project.path().join("hello.txt").exists());
}

#[test]
fn a_stop_while_a_command_runs_is_a_cancel() {
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
    let cause = report["cause"].as_str().expect("a cause");
    assert!(cause.starts_with("SIGTERM from outside"), "{report}");
    assert_eq!(report["verdict"]["kind"], "silent", "{report}");
}

#[test]
fn a_model_that_was_asked_for_prices_the_run() {
    let (scene, model) = (Scene::new(), MockModel::start("text"));

    let run = Ended::of(run(&scene, &model).args(["--model", "gpt-5.1"]));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let usage = &report(&scene.folder())["usage"];
    assert_eq!(usage["cost_usd"], Value::Null, "{usage}");
    assert!(usage["priced_usd"].as_f64() > Some(0.0), "{usage}");
    assert!(run.stdout.contains("by list prices"), "{}", run.stdout);
}

#[test]
fn a_sigkill_from_outside_is_named() {
    let (scene, model) = (Scene::new(), MockModel::start("sleep"));

    let run = Running::start(&mut run(&scene, &model));
    wait_for_words(&scene, "sleep 120");
    scene.docker(&["kill", &scene.container()]);
    let run = run.ended();

    assert_eq!(run.code, 137, "{}{}", run.stdout, run.stderr);
    let report = report(&scene.folder());
    assert_eq!(report["outcome"], "killed", "{report}");
    assert_eq!(report["cause"], "SIGKILL from outside killed the agent");
    assert!(scene.containers().is_empty(), "containers are left");
}
