//! The scripted agent by itself.

#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use dark_factory_init::{long_line, spew};
use serde_json::Value;

const HELPER: &str = env!("CARGO_BIN_EXE_dark-factory-init");

fn run_in(folder: &Path, name: &str, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(HELPER)
        .arg0(name)
        .args(args)
        .current_dir(folder)
        .env_remove("DARK_FACTORY_PROMPT_FILE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn run(script: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    run_in(folder.path(), "agent", &["-e", script], "")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn claude_events(script: &str) -> (Vec<Value>, Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let prompt = format!("# Task\n\nDo it.\n\n```script\n{script}\n```\n");
    let flags = ["-p", "--output-format", "stream-json", "--model", "x"];
    let output = run_in(folder.path(), "/usr/local/bin/claude", &flags, &prompt);
    let events = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    (events, output.status.code())
}

#[test]
fn output_commands_print_exactly_what_they_say() {
    let output =
        run("print a 'b  c'; print-raw \"d\\n\"; bytes 00ff 0a; stderr no; spew 1000 50; line 10");

    let mut expected = b"a b  c\nd\n\x00\xff\n".to_vec();
    expected.extend(spew(1000, 50));
    expected.extend(long_line(10));
    assert_eq!(output.stdout, expected);
    assert_eq!(output.stderr, b"no\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn file_commands_change_files_and_a_failed_check_fails_the_script() {
    let script =
        "write f 'one two'\nedit f two three\nappend f \"\\nfour\"\nread f\nls .\ncheck f three";
    let output = run(script);
    assert_eq!(stdout(&output), "one three\nfourf\n");
    assert_eq!(output.status.code(), Some(0));

    assert_eq!(run("write f x; check f y; print on").status.code(), Some(1));
    assert_eq!(run("write f x; edit f y z").status.code(), Some(1));
    assert_eq!(run("check missing x; exit 0").status.code(), Some(0));
}

#[test]
fn a_script_with_a_mistake_runs_not_at_all() {
    let output = run("print a; frobnicate");

    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
}

#[test]
fn a_file_is_replayed_verbatim() {
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..=255).rev().collect();
    std::fs::write(folder.path().join("f"), &content).unwrap();

    let output = run_in(
        folder.path(),
        "agent",
        &["-e", "replay f; replay f 1ms"],
        "",
    );

    assert_eq!(output.stdout, [&content[..], &content].concat());
}

#[test]
fn tampering_is_tried_only_in_a_container() {
    let output = run("tamper");

    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
}

#[test]
fn a_prompt_without_a_script_says_so() {
    let folder = tempfile::tempdir().unwrap();

    let output = run_in(folder.path(), "claude", &["-p"], "# Do it\n");

    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("no code block tagged `script`"));
}

#[test]
fn the_prompt_file_of_the_environment_stands_in_for_stdin() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = folder.path().join("prompt.md");
    std::fs::write(&prompt, "```script\nprompt\n```\n").unwrap();

    let output = Command::new(HELPER)
        .arg("agent")
        .env("DARK_FACTORY_PROMPT_FILE", &prompt)
        .stdin(Stdio::null())
        .output()
        .unwrap();

    assert_eq!(stdout(&output), "```script\nprompt\n```\n");
}

#[test]
fn as_claude_it_streams_the_events_of_a_success() {
    let script = "begin\nthinking hm\nsay Working.\nwrite f \"a\\nb\"\nedit f b c\nread f\nappend f d\ncheck f cd\nresult success All done.";

    let (events, code) = claude_events(script);

    assert_eq!(code, Some(0));
    assert_eq!(events[0]["subtype"], "init");
    assert_eq!(events[0]["model"], "scripted-stand-in");
    let session = &events[0]["session_id"];
    assert!(events.iter().all(|event| &event["session_id"] == session));
    let tools: Vec<&str> = events
        .iter()
        .filter_map(|event| event["message"]["content"][0]["name"].as_str())
        .collect();
    assert_eq!(tools, ["Write", "Edit", "Read", "Bash", "Bash"]);
    let results: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "user")
        .collect();
    assert_eq!(results.len(), tools.len());
    assert!(
        results
            .iter()
            .all(|event| event["message"]["content"][0]["is_error"] == false)
    );
    assert_eq!(results[2]["message"]["content"][0]["content"], "1\ta\n2\tc");
    let result = events.last().unwrap();
    assert_eq!(
        (&result["type"], &result["is_error"]),
        (&"result".into(), &false.into())
    );
    let text = result["result"].as_str().unwrap();
    assert!(text.contains("<!-- DARK-FACTORY-REPORT\n{\"status\":\"success\",\"summary\":\"All done.\",\"blockers\":[]}\nDARK-FACTORY-REPORT -->"));
    assert_eq!(
        events[events.len() - 2]["message"]["content"][0]["text"],
        text
    );
    assert_eq!(
        result["modelUsage"]["scripted-stand-in"]["inputTokens"],
        result["usage"]["input_tokens"]
    );
}

#[test]
fn as_claude_a_success_after_a_failed_check_is_a_failure() {
    let (events, code) = claude_events("begin\nwrite f x\ncheck f y\nresult success Done.");

    assert_eq!(code, Some(0));
    let text = events.last().unwrap()["result"].as_str().unwrap();
    assert!(text.contains("\"status\":\"failed\""), "{text}");
    let answer = &events[events.len() - 3]["message"]["content"][0];
    assert_eq!(answer["is_error"], true);
}

#[test]
fn as_claude_an_error_is_a_result_with_its_status() {
    let (events, code) = claude_events("begin\nerror 529 Overloaded.");

    assert_eq!(code, Some(1));
    let result = events.last().unwrap();
    assert_eq!(result["is_error"], true);
    assert_eq!(result["api_error_status"], 529);
    assert_eq!(result["result"], "API Error: 529 Overloaded.");
}
