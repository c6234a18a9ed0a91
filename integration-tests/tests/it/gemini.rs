//! Recorded streams of the real Gemini CLI, from a container to the report.
//!
//! Owns: which recording a run prints, and with what it ends.
//! Reads: the reports.
//! Never: runs Gemini CLI, which comes from npm only.

use std::fs;
use std::path::Path;

use integration_tests::agent_image;
use serde_json::{Value, json};

use crate::support::{Ended, Workshop, Wrapper, attempt_text, report};

/// Runs a prompt with an agent `gemini` that prints a recording and ends with this exit code.
fn run(workshop: &Workshop, recording: &str, code: u8) -> (Ended, Value) {
    let streams =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/agents/tests/data/streams/gemini");
    let stream = fs::read(streams.join(format!("{recording}.jsonl"))).unwrap();
    workshop.project.write("recorded", stream);
    let prompt = format!("Do it.\n\n```script\nreplay recorded; exit {code}\n```\n");
    let file = workshop.project.write("x.md", prompt);
    let wrapper = Wrapper::scripted("gemini");

    let ended = Ended::of(
        workshop
            .command(&[
                "run",
                "--json",
                "--agent",
                "gemini",
                "--image",
                &agent_image(),
            ])
            .args([
                "--env",
                "GEMINI_API_KEY=test",
                "--model",
                "gemini-2.5-flash",
            ])
            .args(wrapper.flags())
            .arg(file),
    );
    let run = ended.one();
    (ended, run)
}

#[test]
fn a_report_its_usage_and_its_price_come_from_the_stream() {
    let workshop = Workshop::new();

    let (ended, run) = run(&workshop, "success", 0);

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(run["outcome"], "succeeded", "{run}");
    let report = report(&run);
    assert_eq!(report["agent"], "gemini");
    assert_eq!(report["model"], "gemini-2.5-flash");
    assert_eq!(report["session_id"], "571f5335-6379-472a-89ff-595d666dfedd");
    assert_eq!(
        report["verdict"]["report"]["summary"], "Created and edited hello.txt.",
        "{report}"
    );
    let usage = &report["usage"];
    let tokens = ["input_tokens", "output_tokens", "cache_read_tokens"].map(|name| &usage[name]);
    assert_eq!(json!(tokens), json!([7200, 360, 4800]), "{usage}");
    assert_eq!(usage["cost_usd"], Value::Null, "{usage}");
    let price = usage["priced_usd"].as_f64().unwrap();
    assert!((price - 0.003_204).abs() < 1e-9, "{usage}");
    let told = attempt_text(&run, "report.md");
    assert!(told.contains("$0.0032 by list prices of "), "{told}");
    let log = attempt_text(&run, "run.log");
    assert!(
        log.contains("All the work is finished and the tests pass.\n"),
        "{log}"
    );

    let launch: Value = serde_json::from_str(&attempt_text(&run, "launch.json")).unwrap();
    assert_eq!(
        launch["command"],
        json!([
            "gemini",
            "--output-format",
            "stream-json",
            "--yolo",
            "--model",
            "gemini-2.5-flash"
        ])
    );
    assert_eq!(launch["env"]["GEMINI_CLI_NO_RELAUNCH"], "true", "{launch}");
}

#[test]
fn a_refused_key_is_the_cause() {
    let workshop = Workshop::new();

    let (ended, run) = run(&workshop, "api_400_key", 144);

    assert_eq!(ended.code, 1, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(report(&run)["verdict"]["class"], "auth", "{run}");
    assert_eq!(
        run["cause"],
        "the agent could not authenticate: API key not valid. Please pass a valid API key. (HTTP 400)"
    );
}

#[test]
fn an_exit_code_says_what_a_silent_stream_does_not() {
    let workshop = Workshop::new();

    let (ended, run) = run(&workshop, "api_429", 173);

    assert_eq!(ended.code, 1, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(report(&run)["verdict"]["class"], "rate_limit", "{run}");
    assert_eq!(
        run["cause"],
        "the agent ran into a rate limit: HTTP 429 (exit code 173)"
    );
}

#[test]
fn an_exit_code_of_0_without_a_result_is_no_success() {
    let workshop = Workshop::new();

    let (ended, run) = run(&workshop, "sigterm", 0);

    assert_eq!(ended.code, 1, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(run["outcome"], "no_result", "{run}");
}

#[test]
fn without_an_image_it_is_said_where_one_comes_from() {
    let workshop = Workshop::new();
    let file = workshop.project.write("x.md", "Do it.\n");

    let ended = Ended::of(
        workshop
            .command(&["run", "--agent", "gemini", "--env", "GEMINI_API_KEY=test"])
            .arg(file),
    );

    assert_eq!(ended.code, 2, "{}", ended.stderr);
    for words in [
        "no image is named",
        "npm install --global @google/gemini-cli",
    ] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}
