//! Runs that something ends: a limit, a signal, somebody outside; and what does not end them.
//!
//! Owns: the outcome and exit code of each.
//! Reads: the attempts' folders; the engine, to kill a container from outside.
//! Never: kills a supervisor; see `recovery`.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use integration_tests::{agent_image, claude_image};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::scene::{Scene, docker, eventually};
use crate::support::{
    Ended, Watched, Workshop, attempt_text, for_agent, for_claude, report, send, wait_for,
};

#[test]
fn a_time_limit_ends_the_run_with_124() {
    let workshop = Workshop::new();

    let ended =
        Ended::of(&mut workshop.script(&["--json", "--timeout", "1s"], "on-term exit 0; sleep 1h"));

    assert_eq!(ended.code, 124);
    let run = ended.one();
    assert_eq!(
        (&run["outcome"], &run["exit_code"]),
        (&json!("timed_out"), &json!(0))
    );
    assert_eq!(run["cause"], "the time limit of 1s passed");
    assert_eq!(
        report(&run)["stop_reason"],
        json!({ "kind": "deadline", "limit": 1.0 })
    );
    assert!(
        ended.stderr.contains("stopping: its time limit passed"),
        "{}",
        ended.stderr
    );
}

#[test]
fn an_agent_that_takes_more_memory_than_it_may_ends_the_run_with_137() {
    let workshop = Workshop::new();

    let ended = Ended::of(
        &mut workshop.script(&["--json", "--memory", "32m"], "print begin; allocate 128m"),
    );

    assert_eq!(ended.code, 137);
    let run = ended.one();
    assert_eq!(
        (&run["outcome"], &run["exit_code"]),
        (&json!("out_of_memory"), &Value::Null)
    );
    let cause = run["cause"].as_str().unwrap();
    assert!(
        cause.starts_with("the kernel killed the agent, `agent`, for lack of memory (limit 32 MiB"),
        "{cause}"
    );
    let report = report(&run);
    assert_eq!(report["exit"]["status"], json!({ "signal": 9 }));
    assert_eq!(report["limits"]["memory"], 32 << 20);
    assert_eq!(report["oom_victim"], "agent");
    assert_eq!(attempt_text(&run, "raw.jsonl"), "begin\n");
}

#[test]
fn a_process_of_the_agent_that_takes_too_much_memory_is_named_in_the_report() {
    let scene = Scene::new();
    // Its parent leaves it, and so it is PID 1 that sees its end.
    let script = "(sh -c 'echo $$ > /tmp/pid; exec tail /dev/zero' &)
        until [ -s /tmp/pid ]; do sleep 0.1; done
        while kill -0 $(cat /tmp/pid) 2> /dev/null; do sleep 0.1; done
        echo survived";
    let flags = ["--memory", "64m"];

    let run = Ended::of(&mut scene.run_argv(&claude_image(), &flags, &["sh", "-c", script]));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let report = scene.assert_ended("succeeded", b"survived\n", b"");
    assert_eq!(report["oom_victim"], "tail", "{report}");
    let warning =
        "the kernel killed a process of the agent, `tail`, for lack of memory (limit 64 MiB";
    assert!(report["warnings"].to_string().contains(warning), "{report}");
    assert!(run.stdout.contains(warning), "{}", run.stdout);
    let text = fs::read_to_string(scene.folder().join("report.md")).unwrap();
    assert!(
        text.contains("- processes killed for lack of memory: 1 (`tail`)\n"),
        "{text}"
    );
    let id = scene.only_run()["run_id"].as_str().unwrap().to_owned();
    let inspected = Ended::of(&mut scene.dark_factory(&["inspect", &id])).stdout;
    assert!(inspected.contains("oom_victim: tail\n"), "{inspected}");
}

#[test]
fn a_container_that_is_killed_or_stopped_from_outside_ends_the_run_with_137() {
    let workshop = Workshop::new();
    for (name, script) in [
        ("kill.md", "print begin; write kill x; sleep 1h"),
        ("stop.md", "print begin; write stop x; sleep 1h"),
    ] {
        workshop.project.write(name, for_agent("", script));
    }
    let running = Watched::of(
        workshop
            .run(&["--json", "--jobs", "2"])
            .args(["kill.md", "stop.md"]),
    );
    wait_for(&workshop.project.path().join("kill"));
    wait_for(&workshop.project.path().join("stop"));

    for open in Ended::of(&mut workshop.command(&["ps", "--json"])).json() {
        let verb = if open["file"].as_str().unwrap().ends_with("kill.md") {
            "kill"
        } else {
            "stop"
        };
        docker(&[verb, open["container"].as_str().unwrap()]);
    }
    let ended = running.ended();

    assert_eq!(ended.code, 137, "{}", ended.stderr);
    let mut runs = ended.json();
    runs.sort_by_key(|run| run["file"].to_string());
    let causes: Vec<_> = runs
        .iter()
        .map(|run| (&run["outcome"], run["cause"].as_str().unwrap()))
        .collect();
    assert_eq!(
        causes,
        [
            (&json!("killed"), "SIGKILL from outside killed the agent"),
            (&json!("killed"), "SIGTERM from outside killed the agent"),
        ]
    );
    for run in &runs {
        assert_eq!(attempt_text(run, "raw.jsonl"), "begin\n");
    }
    // A helper that is killed writes no exit record, and only that proves that the log is whole.
    assert_eq!(
        (&runs[0]["log"], &runs[1]["log"]),
        (&json!("incomplete"), &json!("complete"))
    );
}

#[test]
fn ctrl_c_lets_the_agent_leave_by_itself_and_the_next_file_is_not_begun() {
    let workshop = Workshop::new();
    workshop.project.write(
        "a.md",
        for_agent("", "on-term exit 5; write begun x; sleep 1h"),
    );
    workshop
        .project
        .write("b.md", for_agent("", "write never x"));
    let running = Watched::of(workshop.run(&["--json"]).args(["a.md", "b.md"]));
    wait_for(&workshop.project.path().join("begun"));

    running.signal(Signal::SIGINT);
    let ended = running.ended();

    assert_eq!(ended.code, 130, "{}", ended.stderr);
    let run = ended.one();
    assert_eq!(
        (&run["outcome"], &run["exit_code"]),
        (&json!("cancelled"), &json!(5))
    );
    assert_eq!(
        (&run["cause"], &run["log"]),
        (&json!("cancelled by Ctrl-C"), &json!("complete"))
    );
    assert_eq!(
        report(&run)["stop_reason"],
        json!({ "kind": "cancelled", "by": "Ctrl-C" })
    );
    assert!(
        ended
            .stderr
            .contains("stopping the agent; once more kills it"),
        "{}",
        ended.stderr
    );
    assert!(!workshop.project.path().join("never").exists());
}

#[test]
fn ctrl_c_twice_kills_an_agent_that_does_not_leave() {
    let workshop = Workshop::new();
    let script = "ignore-term; fork 'ignore-term; sleep 1h'; print begin; write begun x; sleep 1h";
    let running = Watched::of(&mut workshop.script(&["--json"], script));
    wait_for(&workshop.project.path().join("begun"));

    running.signal(Signal::SIGINT);
    eventually("word of the first", || {
        running
            .stderr()
            .contains("once more kills it")
            .then_some(())
    });
    running.signal(Signal::SIGINT);
    let ended = running.ended();

    assert_eq!(ended.code, 130, "{}", ended.stderr);
    let run = ended.one();
    assert_eq!(
        (&run["outcome"], &run["exit_code"]),
        (&json!("cancelled"), &Value::Null)
    );
    assert_eq!(report(&run)["exit"]["status"], json!({ "signal": 9 }));
    assert_eq!(
        (&run["log"], attempt_text(&run, "raw.jsonl").as_str()),
        (&json!("complete"), "begin\n")
    );
    assert!(
        ended.stderr.contains("killing the agent"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_hangup_and_a_closed_terminal_do_not_touch_the_run() {
    let workshop = Workshop::new();
    let script = "write begun x; wait-file go; spew 300k; print end";
    let mut child = workshop
        .script(&[], script)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&workshop.project.path().join("begun"));

    drop((child.stdout.take(), child.stderr.take()));
    send(&child, Signal::SIGHUP);
    workshop.project.write("go", "");
    let status = eventually("the end", || child.try_wait().unwrap());

    assert_eq!(status.code(), Some(0));
    let runs = Ended::of(&mut workshop.command(&["ps", "--all", "--json"]));
    let run = runs.one();
    assert_eq!(run["outcome"], "succeeded");
    let raw = attempt_text(&run, "raw.jsonl");
    assert!(
        raw.len() >= 300 << 10 && raw.ends_with("end\n"),
        "{} bytes",
        raw.len()
    );
    assert_eq!(report(&run)["log"], "complete");
}

#[test]
fn a_budget_that_is_used_up_ends_the_run_with_6() {
    let workshop = Workshop::new();
    let recordings =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/agents/tests/data/streams/claude");
    workshop.project.write(
        "recorded",
        fs::read(recordings.join("budget.jsonl")).unwrap(),
    );
    let file = workshop.project.write(
        "x.md",
        for_claude("env: {ANTHROPIC_API_KEY: x}\n", "replay recorded; exit 1"),
    );

    let ended = Ended::of(
        workshop
            .command(&["run", "--json", "--image", &agent_image()])
            .arg(file),
    );

    assert_eq!(ended.code, 6, "{}", ended.stderr);
    let run = ended.one();
    assert_eq!(
        (&run["outcome"], &run["exit_code"]),
        (&json!("limit"), &json!(1))
    );
    assert!(
        run["cause"]
            .as_str()
            .unwrap()
            .contains("reached its budget"),
        "{run}"
    );
    assert!(run["usage"]["cost_usd"].as_f64().unwrap() > 0.0, "{run}");
}
