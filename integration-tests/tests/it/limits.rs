//! Limits beside the wall one: silence, the size of the log, and the grace of an agent that is done.
//!
//! Owns: the outcome and exit code of each, and what does not count towards it.
//! Reads: the attempts' folders.
//! Never: asks when exactly; a deadline's arithmetic has unit tests on a simulated clock.

use std::fs;
use std::path::Path;
use std::process::Command;

use dark_factory_init::spew;
use integration_tests::{agent_image, claude_image};
use serde_json::{Value, json};

use crate::scene::{self, Running, STARTED, Scene};
use crate::support::{Ended, Workshop, attempt_file, attempt_text, for_claude, report, wait_for};

/// Runs the scripted Claude; `finished.jsonl` in its project is the recording of a run that was done.
pub(crate) fn claude(workshop: &Workshop, front_matter: &str, script: &str) -> Ended {
    Ended::of(&mut claude_command(workshop, front_matter, script))
}

fn claude_command(workshop: &Workshop, front_matter: &str, script: &str) -> Command {
    let recordings =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/agents/tests/data/streams/claude");
    let finished = fs::read(recordings.join("docker_normal.jsonl")).unwrap();
    workshop.project.write("finished.jsonl", finished);
    let front_matter = format!("env: {{ANTHROPIC_API_KEY: x}}\n{front_matter}");
    let file = workshop
        .project
        .write("claude.md", for_claude(&front_matter, script));
    let mut command = workshop.command(&["run", "--json", "--image", &agent_image()]);
    command.arg(file);
    command
}

#[test]
fn an_agent_that_prints_nothing_for_too_long_ends_the_run_with_124() {
    let workshop = Workshop::new();

    let ended = Ended::of(
        &mut workshop.script(&["--json", "--idle-timeout", "1s"], "print begin; sleep 1h"),
    );

    assert_eq!(ended.code, 124, "{}", ended.stderr);
    let run = ended.one();
    assert_eq!(run["outcome"], "timed_out");
    assert_eq!(
        run["cause"],
        "the agent printed nothing for its idle limit of 1s"
    );
    assert_eq!(
        report(&run)["stop_reason"],
        json!({ "kind": "idle", "limit": 1.0 })
    );
    assert_eq!(
        (&run["log"], attempt_text(&run, "raw.jsonl").as_str()),
        (&json!("complete"), "begin\n")
    );
    let told = "stopping: it printed nothing for too long";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
}

#[test]
fn an_agent_that_prints_now_and_then_is_not_silent() {
    let workshop = Workshop::new();
    let script = "stderr x; sleep 500ms; ".repeat(16);

    let ended = Ended::of(&mut workshop.script(&["--json", "--idle-timeout", "6s"], &script));

    assert_eq!(ended.one()["outcome"], "succeeded", "{}", ended.stderr);
}

#[test]
fn what_was_printed_unsupervised_is_no_silence() {
    let scene = Scene::new();
    // More than is read in a moment, and for longer than the silence may last.
    let script = format!(
        "{STARTED}write one x\nspew 30m\n{}write two x\nwait-file go",
        "print x\nsleep 500ms\n".repeat(14)
    );

    let run = Running::start(&mut scene.run_with(&["--idle-timeout", "6s"], &script));
    scene.wait_for_file("one");
    run.crash();
    scene.wait_for_file("two");
    let recover = Running::start(&mut scene.dark_factory(&["recover"]));
    scene.wait_until_supervised();
    scene.project.write("go", "");
    let recover = recover.ended();

    assert!(
        recover.stdout.contains("succeeded"),
        "{}{}",
        recover.stdout,
        recover.stderr
    );
    let stdout = [spew(30 << 20, 80), b"x\n".repeat(14)].concat();
    scene.assert_ended("succeeded", &stdout, b"");
    scene.assert_started_once();
}

#[test]
fn an_agent_that_prints_more_than_it_may_ends_the_run_with_6() {
    let workshop = Workshop::new();

    let ended =
        Ended::of(&mut workshop.script(&["--json", "--log-limit", "1m"], "spew 8m; sleep 1h"));

    assert_eq!(ended.code, 6, "{}", ended.stderr);
    let run = ended.one();
    assert_eq!(run["outcome"], "limit");
    let cause = run["cause"].as_str().unwrap();
    assert!(
        cause.starts_with("the log reached its limit of 1"),
        "{cause}"
    );
    assert_eq!(run["log"], "complete");
    assert_is_prefix(&run, &spew(8 << 20, 80), 1 << 20);
}

#[test]
fn an_agent_that_printed_more_than_it_may_unsupervised_is_ended_for_that() {
    let scene = Scene::new();
    let script = format!("{STARTED}write one x\nwait-file go\nspew 8m\nsleep 1h");
    let run = Running::start(&mut scene.run_with(&["--log-limit", "1m"], &script));
    scene.wait_for_file("one");
    run.crash();

    scene.project.write("go", "");
    scene.wait_for_container();
    scene.assert_recovers("limit: the log reached its limit");

    assert_eq!(scene.only_run()["outcome"], "limit");
    scene.assert_started_once();
}

/// Checks that the log is the beginning of what was printed, and longer than the limit.
fn assert_is_prefix(run: &Value, printed: &[u8], limit: usize) {
    let raw = fs::read(attempt_file(run, "raw.jsonl")).unwrap();
    assert!(
        raw.len() > limit && raw.len() < printed.len(),
        "{} bytes",
        raw.len()
    );
    assert!(printed.starts_with(&raw), "the log is not what was printed");
}

#[test]
fn an_agent_that_is_done_and_does_not_leave_is_ended_and_has_succeeded() {
    let workshop = Workshop::new();

    let ended = claude(
        &workshop,
        "completion-grace: 1s\n",
        "replay finished.jsonl; sleep 1h",
    );

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let run = ended.one();
    assert_eq!(run["outcome"], "succeeded", "{run}");
    let report = report(&run);
    assert_eq!(
        report["stop_reason"],
        json!({ "kind": "lingered", "grace": 1.0 })
    );
    assert_eq!(report["log"], "complete");
    assert_eq!(
        attempt_text(&run, "raw.jsonl"),
        workshop.project.read("finished.jsonl")
    );
    let told = "stopping: it has given its result and does not leave";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
}

#[test]
fn an_agent_that_works_on_after_a_result_is_left_to_work() {
    let workshop = Workshop::new();
    let script = "replay finished.jsonl; say 'One thing more.'; sleep 4s; write late x; replay finished.jsonl; exit 0";

    let ended = claude(&workshop, "completion-grace: 2s\n", script);

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(report(&ended.one())["stop_reason"], Value::Null);
    assert_eq!(workshop.project.read("late"), "x");
}

#[test]
fn an_agent_that_was_done_while_nobody_looked_is_ended_by_the_recovery() {
    let workshop = Workshop::new();
    let script = "replay finished.jsonl; write done x; sleep 1h";
    let mut command = claude_command(&workshop, "completion-grace: 1s\n", script);
    let run = Running::start(&mut command);
    wait_for(&workshop.project.path().join("done"));
    run.crash();

    let recover = Ended::of(&mut workshop.command(&["recover", "--json"]));

    let run = recover.one();
    assert_eq!(
        (recover.code, &run["outcome"]),
        (0, &json!("succeeded")),
        "{run}"
    );
    assert_eq!(
        (&run["log"], &report(&run)["stop_reason"]["kind"]),
        (&json!("complete"), &json!("lingered"))
    );
}

#[test]
fn a_file_of_the_agent_grows_to_its_limit_and_its_output_beyond_it() {
    let workshop = Workshop::new();
    let file = workshop.project.write("big.md", "Write.\n");
    let script = "head -c 1m /dev/zero > big; echo \"code $?\"; (ulimit -f unlimited) 2>/dev/null && echo raised; \
                  ulimit -n; head -c 1m /dev/zero | tr '\\0' x";
    let mut command = workshop.command(&["run", "--json", "--agent", "command"]);
    command
        .args(["--image", &claude_image(), "--file-size", "64k"])
        .args(["--open-files", "300"])
        .arg(file)
        .args(["--", "sh", "-c", script]);

    let ended = Ended::of(&mut command);

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let run = ended.one();
    let (said, rest) = attempt_text(&run, "raw.jsonl")
        .split_once("300\n")
        .map(|(said, rest)| (said.to_owned(), rest.to_owned()))
        .expect("the limit of open files is printed");
    // 128 and SIGXFSZ, or what a program says of EFBIG.
    assert!(said == "code 153\n" || said == "code 1\n", "{said}");
    assert_eq!((&run["log"], rest.len()), (&json!("complete"), 1 << 20));
    let big = fs::metadata(workshop.project.path().join("big")).unwrap();
    assert_eq!(big.len(), 64 << 10);
    let limits = &report(&run)["limits"];
    assert_eq!(
        (&limits["file_size"], &limits["open_files"]),
        (&json!(65_536), &json!(300))
    );
}

/// Flags of a container whose own file system can be written to, and how much.
const WRITABLE: [&str; 4] = ["--profile", "seed", "--disk-limit", "8m"];

/// Writes 16 MiB into the container's own file system.
const GROW: &str = "for part in 1 2 3 4; do head -c 4M /dev/zero >> /var/tmp/big; done; ";

#[test]
fn an_agent_that_writes_more_into_its_container_than_it_may_ends_the_run_with_6() {
    let scene = Scene::new();
    // What is written into the project does not count.
    let script = format!("head -c 64M /dev/zero > /workspace/mine; {GROW}sleep 1h");

    let ended = Ended::of(&mut scene.run_argv(&claude_image(), &WRITABLE, &["sh", "-c", &script]));

    assert_eq!(ended.code, 6, "{}{}", ended.stdout, ended.stderr);
    let report = scene.assert_ended("limit", b"", b"");
    let cause = report["cause"].as_str().unwrap();
    assert!(
        cause.starts_with("the agent wrote ")
            && cause.ends_with(
                " into the container's own file system, which is beyond its limit of 8 MiB"
            ),
        "{cause}"
    );
    let reason = &report["stop_reason"];
    assert_eq!(
        (&reason["kind"], &reason["limit"], &report["limits"]["disk"]),
        (&json!("disk_limit"), &json!(8 << 20), &json!(8 << 20))
    );
    let used = reason["used"].as_u64().unwrap();
    assert!((8 << 20..64 << 20).contains(&used), "{used}");
    let told = "stopping: it wrote ";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
}

#[test]
fn a_disk_limit_that_was_reached_before_a_crash_is_why_the_run_ended() {
    let scene = Scene::new();
    let script = format!(
        "trap 'touch /workspace/told' TERM; {GROW}until [ -e /workspace/go ]; do sleep 0.1; done; exit 0"
    );
    let argv = ["sh", "-c", &script];
    let run = Running::start(&mut scene.run_argv(&claude_image(), &WRITABLE, &argv));
    scene.wait_for_file("told");
    run.crash();

    scene.project.write("go", "");
    scene.wait_for_container();
    scene.assert_recovers("limit: the agent wrote ");

    let report = scene::report(&scene.folder());
    assert_eq!(report["stop_reason"]["kind"], "disk_limit", "{report}");
    assert_eq!(report["exit"]["status"]["code"], 0, "{report}");
}
