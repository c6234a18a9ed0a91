//! What cannot be launched: no image, no program, no credentials, no engine, no state folder.
//!
//! Owns: the messages and exit codes of each.
//! Reads: standard error; the list of runs.
//! Never: reaches a registry.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use integration_tests::agent_image;
use serde_json::{Value, json};

use crate::bad_input::{nothing_ran, refuses};
use crate::support::{Ended, Workshop, attempt_text};

/// A user that may not use the engine's socket.
const NOBODY: u32 = 65534;
/// Nobody listens on this port.
const NO_REGISTRY: &str = "localhost:1/none/such:1";

/// Checks that a run ended before its agent was started, and why.
#[track_caller]
fn never_starts(command: &mut Command, cause: &[&str]) -> Value {
    let ended = Ended::of(command);
    assert_eq!(ended.code, 4, "{command:?}: {}", ended.stderr);
    let run = ended.one();
    assert_eq!(
        (&run["outcome"], &run["exit_code"]),
        (&json!("start_failed"), &Value::Null),
        "{run}"
    );
    for told in cause {
        assert!(
            run["cause"].as_str().unwrap().contains(told),
            "{told:?} is not in {run}"
        );
    }
    run
}

#[test]
fn an_image_that_is_not_there_or_not_named_right_ends_the_run_before_it_begins() {
    let workshop = Workshop::new();
    workshop.project.write("x.md", "Do it.\n");
    let run = |flags: &[&str]| {
        let mut command = workshop.command(&["run", "--json", "--agent", "command"]);
        command.args(flags).arg("x.md");
        command
    };

    refuses(
        &mut run(&[]),
        2,
        &["x.md: no image is named; pass --image IMAGE, or write image: IMAGE in the front matter"],
    );
    refuses(
        &mut run(&["--image", "My Image"]),
        2,
        &[
            "\"My Image\" is not an image reference",
            "such as debian:12",
        ],
    );
    nothing_ran(&workshop);
    let missing = never_starts(
        &mut run(&["--image", "dark-factory-test/none:1", "--pull", "never"]),
        &[
            "image dark-factory-test/none:1 is not on the engine",
            "docker pull",
            "--pull missing",
        ],
    );
    let unreachable = never_starts(
        &mut run(&["--image", NO_REGISTRY]),
        &["cannot be pulled", NO_REGISTRY, "check its name"],
    );
    for run in [missing, unreachable] {
        assert_eq!(run["started_at"], Value::Null);
        assert_eq!(attempt_text(&run, "raw.jsonl"), "");
    }
}

#[test]
fn a_command_that_cannot_be_executed_is_not_a_failure_of_the_agent() {
    let workshop = Workshop::new();
    workshop.project.write("plain", "text\n");
    let text = workshop.project.write("text", "text\n");
    fs::set_permissions(text, Permissions::from_mode(0o755)).unwrap();
    workshop.project.write("x.md", "Do it.\n");
    let run = |program: &str| {
        let mut command = workshop.run(&["--json", "--quiet"]);
        command.args(["x.md", "--", program, "an argument"]);
        command
    };

    for (program, told) in [
        ("no-such-program", "no such program"),
        ("/workspace/no/such", "no such program"),
        ("/workspace/plain", "it may not be executed"),
        (
            "/workspace/text",
            "it is not an executable file for this machine",
        ),
    ] {
        never_starts(
            &mut run(program),
            &[&format!("bad command {program:?}"), told],
        );
    }
    refuses(
        &mut run(""),
        2,
        &["the command's program is empty", "write a program's name"],
    );
}

#[test]
fn a_command_belongs_to_the_command_agent_and_claude_needs_credentials() {
    let workshop = Workshop::new();
    workshop.project.write("x.md", "Do it.\n");
    let image = agent_image();
    let claude = |arguments: &[&str]| {
        let mut command = workshop.command(&["run", "--image", &image]);
        command.args(arguments);
        command
    };

    refuses(
        &mut claude(&["x.md", "--", "make"]),
        2,
        &[
            "a command is only for the agent command",
            "add --agent command",
        ],
    );
    let advice = [
        "no key of anthropic was found",
        "ANTHROPIC_API_KEY",
        "CLAUDE_CODE_OAUTH_TOKEN",
    ];
    refuses(&mut claude(&["x.md"]), 2, &advice);
    let not_passed_on = [
        "ANTHROPIC_API_KEY is set here but",
        "pass it with --env ANTHROPIC_API_KEY",
    ];
    refuses(
        claude(&["--network", "none", "x.md"]).env("ANTHROPIC_API_KEY", "x"),
        2,
        &not_passed_on,
    );
    refuses(
        &mut claude(&["--env", "ANTHROPIC_API_KEY=", "x.md"]),
        2,
        &["\"ANTHROPIC_API_KEY\" is empty"],
    );
    nothing_ran(&workshop);
}

#[test]
fn an_engine_that_is_down_is_told_with_what_to_install() {
    let workshop = Workshop::new();
    let advice = "help: is Docker Engine installed and running?";

    for (flags, endpoint) in [
        (&[][..], "unix:///nonexistent"),
        (&["--host", "unix:///no/such.sock"], "unix:///no/such.sock"),
        (&["--host", "tcp://127.0.0.1:1"], "tcp://127.0.0.1:1"),
    ] {
        let mut command = workshop.script(flags, "exit 0");
        let silent = format!("container engine at {endpoint} does not answer");
        refuses(
            command.env("DOCKER_HOST", "unix:///nonexistent"),
            4,
            &[&silent, advice],
        );
    }
    nothing_ran(&workshop);
}

#[test]
fn an_endpoint_of_a_kind_that_is_not_known_is_bad_usage() {
    let workshop = Workshop::new();
    let way_out = "write it as unix:///PATH or tcp://HOST:PORT";

    for endpoint in [
        "ssh://user@host",
        "https://host:2376",
        "/var/run/docker.sock",
    ] {
        refuses(
            &mut workshop.script(&["--host", endpoint], "exit 0"),
            2,
            &[endpoint, way_out],
        );
        refuses(
            workshop.script(&[], "exit 0").env("DOCKER_HOST", endpoint),
            2,
            &[endpoint, way_out],
        );
    }
}

#[test]
fn an_engine_that_this_user_may_not_use_is_told_with_the_group_to_join() {
    let workshop = Workshop::new();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("engine.sock");
    let _engine = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o000)).unwrap();
    let endpoint = format!("unix://{}", socket.display());
    let mut command = workshop.script(&["--host", &endpoint], "exit 0");
    if fs::metadata(folder.path()).unwrap().uid() == 0 {
        // Root may use any socket.
        give_to_nobody(folder.path());
        give_to_nobody(workshop.installation.state_dir().parent().unwrap());
        command.uid(NOBODY).gid(NOBODY);
    }

    refuses(
        &mut command,
        4,
        &[
            &format!("no permission to use the container engine at {endpoint}"),
            "usermod -aG docker",
        ],
    );
}

fn give_to_nobody(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

#[test]
fn a_state_folder_that_cannot_be_used_is_named_with_how_to_choose_another() {
    let workshop = Workshop::new();
    let file = workshop.project.write("file", "");
    let state = file.to_str().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    workshop.project.write("x.md", "Do it.\n");

    for state in [
        state.to_owned(),
        format!("{state}/below"),
        "/proc/no/such".to_owned(),
    ] {
        let mut command = workshop.run(&[
            "--state-dir",
            &state,
            "--project",
            elsewhere.path().to_str().unwrap(),
        ]);
        refuses(
            command.arg("x.md"),
            5,
            &[
                "the state folder cannot be used",
                &state,
                "--state-dir or DARK_FACTORY_STATE_DIR",
            ],
        );
    }
}
