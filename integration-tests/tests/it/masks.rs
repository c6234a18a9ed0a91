//! What of a run's secrets can be read afterwards: nothing, but in what is byte-exact.
//!
//! Owns: every place where people or programs read what an agent printed.
//! Reads: the commands' output, the attempt's folder.
//! Never: looks for an encoding that is not promised.

use std::fs;

use serde_json::json;

use crate::scene::{Running, Scene};
use crate::support::{Ended, Watched, Workshop, attempt_text, for_claude, wait_for};

/// The value of a variable with a telling name.
const TOKEN: &str = "tok/en+0123456789abcdef";
/// What base64 makes of it behind `u:`, and percent-encoding.
const BASE64: &str = "dTp0b2svZW4rMDEyMzQ1Njc4OWFiY2RlZg==";
const PERCENT: &str = "tok%2Fen%2B0123456789abcdef";
/// The value of a variable that was asked for by name.
const BY_NAME: &str = "a-value-of-the-caller";
/// The values of secret files.
const FROM_ENV: &str = "s3cr3t-of-the-host";
const FROM_FILE: &str = "s3cr3t-of-a-file";
/// A token in a credential folder that is mounted.
const LOGIN: &str = "sk-ant-oat01-of-the-folder";

const ALL: [&str; 7] = [TOKEN, BASE64, PERCENT, BY_NAME, FROM_ENV, FROM_FILE, LOGIN];

fn workshop() -> Workshop {
    let workshop = Workshop::new();
    workshop.project.write("token", format!("{FROM_FILE}\n"));
    let login =
        json!({ "claudeAiOauth": { "accessToken": LOGIN, "refreshToken": "another-token" } });
    workshop
        .project
        .write("login/.credentials.json", login.to_string());
    workshop
}

fn assert_hidden(places: &[(&str, &str)]) {
    for (place, text) in places {
        for secret in ALL {
            assert!(!text.contains(secret), "{secret} is in {place}: {text}");
        }
    }
}

#[test]
fn what_a_command_prints_of_its_secrets_is_only_in_the_byte_exact_logs() {
    let workshop = workshop();
    let front = format!(
        "---\nenv: {{API_TOKEN: '{TOKEN}'}}\nsecrets: {{one: 'env:ONE', two: 'file:token'}}\nmounts: ['login:/login']\n---\nGo.\n"
    );
    let file = workshop.project.write("secret.md", front);
    let script = format!(
        "env API_TOKEN; env BY_NAME; print {BASE64}; print {PERCENT}; print-raw {}; sleep 300ms; print {}; \
         print {FROM_ENV}; stderr {FROM_FILE}; print {LOGIN}; stderr 'and {TOKEN}'; write begun x; wait-file go; exit 3",
        &TOKEN[..9],
        &TOKEN[9..],
    );
    workshop.project.write("script", script);
    let mut command = workshop.run(&["--json", "--env", "BY_NAME"]);
    command
        .env("ONE", FROM_ENV)
        .env("BY_NAME", BY_NAME)
        .arg(file)
        .args(["--", "/bin/agent", "script"]);

    let running = Watched::of(&mut command);
    wait_for(&workshop.project.path().join("begun"));
    workshop.project.write("go", "");
    let ended = running.ended();

    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let run = ended.one();
    let id = run["run_id"].as_str().unwrap().to_owned();
    let of = |arguments: &[&str]| Ended::of(&mut workshop.command(arguments)).stdout;
    let raw = attempt_text(&run, "raw.jsonl");
    let expected =
        format!("{TOKEN}\n{BY_NAME}\n{BASE64}\n{PERCENT}\n{TOKEN}\n{FROM_ENV}\n{LOGIN}\n");
    assert_eq!(raw, expected);
    assert_eq!(
        attempt_text(&run, "stderr.log"),
        format!("{FROM_FILE}\nand {TOKEN}\n")
    );
    let log = attempt_text(&run, "run.log");
    assert_eq!(log.matches("***").count(), 9, "{log}");
    assert_hidden(&[
        ("run.log", &log),
        ("report.json", &attempt_text(&run, "report.json")),
        ("report.md", &attempt_text(&run, "report.md")),
        ("launch.json", &attempt_text(&run, "launch.json")),
        ("the events", &ended.stderr),
        ("the summary", &ended.stdout),
        ("logs", &of(&["logs", &id])),
        ("logs --json", &of(&["logs", "--json", &id])),
        ("attach", &of(&["attach", &id])),
        ("inspect", &of(&["inspect", &id])),
        ("inspect --json", &of(&["inspect", "--json", &id])),
        ("ps", &of(&["ps", "--all"])),
    ]);
}

#[test]
fn what_an_agent_says_of_its_secrets_is_hidden_in_texts_results_and_causes() {
    let workshop = Workshop::new();
    let line = |value: serde_json::Value| format!("{value}\n");
    let words = format!("the token is {TOKEN}, or {BASE64}");
    let stream = [
        line(
            json!({ "type": "system", "subtype": "init", "session_id": "s", "model": "m", "cwd": "/workspace" }),
        ),
        line(json!({ "type": "assistant", "message": { "content": [
            { "type": "text", "text": words },
            { "type": "tool_use", "id": "1", "name": "Bash", "input": { "command": format!("curl -H 'X: {TOKEN}' 'http://h/?t={PERCENT}'") } }
        ] } })),
        line(json!({ "type": "user", "message": { "content": [
            { "type": "tool_result", "tool_use_id": "1", "content": json!({ "token": TOKEN }).to_string() }
        ] } })),
        line(
            json!({ "type": "result", "subtype": "error_during_execution", "is_error": true, "errors": [words] }),
        ),
    ];
    workshop.project.write("recorded", stream.concat());
    let file = workshop.project.write(
        "x.md",
        for_claude(
            &format!("env: {{ANTHROPIC_API_KEY: '{TOKEN}'}}\n"),
            "replay recorded; exit 1",
        ),
    );
    let image = integration_tests::agent_image();
    let mut command = workshop.command(&["run", "--image", &image]);

    let ended = Ended::of(command.arg(&file));

    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let runs = Ended::of(&mut workshop.command(&["ps", "--all", "--json"])).json();
    let run = &runs[0];
    let folder = workshop.installation.state_dir().join("runs");
    let folder = fs::read_dir(folder)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert!(text("raw.jsonl").contains(TOKEN));
    assert!(
        ended.stdout.contains("the token is ***"),
        "{}",
        ended.stdout
    );
    assert!(
        ended.stdout.contains("→ Bash curl -H 'X: ***'"),
        "{}",
        ended.stdout
    );
    assert!(text("report.json").contains("the token is ***"));
    assert_hidden(&[
        ("the terminal", &ended.stdout),
        ("standard error", &ended.stderr),
        ("ps", &run.to_string()),
        ("run.log", &text("run.log")),
        ("report.json", &text("report.json")),
        ("report.md", &text("report.md")),
    ]);

    let seed = ["run", "--image", &image, "--format", "seed"];
    let seed = Ended::of(workshop.command(&seed).arg(&file));
    assert!(
        seed.stdout.contains("] 🔧 ") || seed.stdout.contains("the token is ***"),
        "{}",
        seed.stdout
    );
    assert_hidden(&[("the seed's lines", &seed.stdout)]);
}

#[test]
fn our_own_log_at_its_loudest_tells_no_secret() {
    let workshop = workshop();
    let file = workshop.project.write(
        "loud.md",
        format!(
            "---\nenv: {{API_TOKEN: '{TOKEN}'}}\nsecrets: {{one: 'env:ONE', two: 'file:token'}}\nmounts: ['login:/login']\n---\nGo.\n"
        ),
    );
    let mut command = workshop.run(&["--env", "BY_NAME"]);
    command
        .env("RUST_LOG", "trace")
        .env("ONE", FROM_ENV)
        .env("BY_NAME", BY_NAME)
        .arg(file)
        .args(["--", "/bin/agent", "-e", &format!("print {TOKEN}; exit 0")]);

    let ended = Ended::of(&mut command);

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("TRACE"), "{}", ended.stderr);
    assert_hidden(&[
        ("our log", &ended.stderr),
        ("standard output", &ended.stdout),
    ]);
}

#[test]
fn a_run_that_another_process_goes_on_with_keeps_its_secrets_hidden() {
    let scene = Scene::new();
    scene.project.write("token", FROM_FILE);
    let mut run = scene.run_with(
        &[
            "--env",
            &format!("API_TOKEN={TOKEN}"),
            "--secret",
            "two=file:token",
        ],
        "env API_TOKEN\nread words\nwrite one x\nwait-file go\nread words",
    );
    scene
        .project
        .write("words", format!("{FROM_FILE} {BASE64}\n"));
    let first = Running::start(&mut run);
    scene.wait_for_file("one");

    first.crash();
    scene.project.write("go", "");
    let recovered = scene.recover();

    assert_eq!(recovered.code, 0, "{}", recovered.stderr);
    let text = |name: &str| fs::read_to_string(scene.folder().join(name)).unwrap();
    assert_eq!(text("raw.jsonl").matches(FROM_FILE).count(), 2);
    assert_eq!(
        text("run.log").matches("***").count(),
        5,
        "{}",
        text("run.log")
    );
    assert_hidden(&[
        ("run.log", &text("run.log")),
        ("report.json", &text("report.json")),
    ]);
}
