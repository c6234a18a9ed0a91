//! Bugs of how a run ends: by itself, by a limit, by somebody; and of what counts as success.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use super::is_running;
use crate::bad_input::{nothing_ran, refuses};
use crate::limits::claude;
use crate::scene::{Running, Scene, text};
use crate::support::{Ended, Watched, Workshop, attempt_file, attempt_text, for_agent, wait_for};

/// The seed's completion report, as an agent may quote it.
const MARKER: &str = "<!-- DARK-FACTORY-REPORT\n{\"status\":\"success\",\"summary\":\"quoted\",\"blockers\":[]}\nDARK-FACTORY-REPORT -->";

/// Returns an agent's line of Claude's stream.
fn result_line(result: &str) -> String {
    let line = json!({
        "type": "result", "subtype": "success", "is_error": false, "terminal_reason": "completed",
        "num_turns": 1, "duration_ms": 1, "session_id": "s", "total_cost_usd": 0, "result": result,
        "usage": { "input_tokens": 1, "output_tokens": 1 },
    });
    format!("{line}\n")
}

#[test]
fn b_01_a_line_of_11_mib_does_not_hang_the_run_and_what_follows_is_there() {
    let workshop = Workshop::new();

    let ended = claude(&workshop, "", "line 11m; say after; result success done");

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let run = ended.one();
    assert_eq!(run["outcome"], "succeeded", "{run}");
    let raw = fs::read(attempt_file(&run, "raw.jsonl")).unwrap();
    let longest = raw.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
    assert!(longest >= Some(11 << 20), "{longest:?}");
    let log = attempt_text(&run, "run.log");
    assert!(log.contains("after"), "what follows is missing");
    assert!(
        log.len() < 1 << 20 && log.contains("bytes"),
        "nothing says that the line was cut"
    );
}

#[test]
fn b_02_the_first_ctrl_c_reaches_the_agent_as_sigterm_with_time_to_leave() {
    let workshop = Workshop::new();
    let script = "on-term exit 5; write begun x; sleep 1h";
    let running = Watched::of(&mut workshop.script(&["--json"], script));
    wait_for(&workshop.project.path().join("begun"));

    running.signal(Signal::SIGINT);
    let ended = running.ended();

    let run = ended.one();
    assert_eq!(
        (&run["outcome"], &run["exit_code"]),
        (&json!("cancelled"), &json!(5))
    );
}

#[test]
fn b_03_a_run_is_filed_as_cancelled_once_its_container_is_gone() {
    let scene = Scene::new();
    let run = scene.run_until("one", "ignore-term\nwrite one x\nsleep 1h");
    let id = text(&scene.only_run(), "run_id");

    let stop = Ended::of(&mut scene.dark_factory(&["stop", "--grace", "100ms", &id]));

    assert_eq!(stop.code, 0, "{}", stop.stderr);
    assert_eq!(scene.only_run()["outcome"], "cancelled");
    assert!(
        scene
            .containers()
            .iter()
            .all(|container| !is_running(container))
    );
    assert_eq!(run.ended().code, 130);
    scene.assert_ended("cancelled", b"", b"");
}

#[test]
fn b_09_the_reason_of_a_stop_is_not_lost_to_the_exit_that_it_causes() {
    let workshop = Workshop::new();

    let timed_out =
        Ended::of(&mut workshop.script(&["--json", "--timeout", "1s"], "on-term exit 0; sleep 1h"));
    let stuck = claude(
        &workshop,
        "completion-grace: 1s\n",
        "on-term exit 9; replay finished.jsonl; sleep 1h",
    );

    let run = timed_out.one();
    assert_eq!(
        (timed_out.code, &run["outcome"], &run["exit_code"]),
        (124, &json!("timed_out"), &json!(0))
    );
    let run = stuck.one();
    assert_eq!(
        (stuck.code, &run["outcome"]),
        (0, &json!("succeeded")),
        "{run}"
    );
}

#[test]
fn b_10_a_failure_report_of_10_kib_and_one_that_is_not_json_are_failures() {
    let workshop = Workshop::new();
    let long = "x".repeat(10 << 10);
    let malformed = "<!-- DARK-FACTORY-REPORT\n{\"status\":\"success\",\nDARK-FACTORY-REPORT -->";
    workshop
        .project
        .write("malformed.jsonl", result_line(malformed));

    let far = claude(&workshop, "", &format!("result failed {long}"));
    let broken = claude(&workshop, "", "replay malformed.jsonl");

    assert_eq!((far.code, &far.one()["outcome"]), (1, &json!("failed")));
    let run = broken.one();
    assert_eq!((broken.code, &run["outcome"]), (1, &json!("failed")));
    let cause = run["cause"].as_str().unwrap();
    assert!(cause.contains("report is not readable"), "{cause}");
}

#[test]
fn b_11_exit_0_without_a_result_is_no_success() {
    let workshop = Workshop::new();

    for script in ["say 'I am done.'; exit 0", "exit 0"] {
        let ended = claude(&workshop, "", script);

        assert_eq!(
            (ended.code, &ended.one()["outcome"]),
            (1, &json!("no_result")),
            "{script}"
        );
    }
}

#[test]
fn b_12_a_report_that_is_only_quoted_ends_nothing_and_proves_nothing() {
    let workshop = Workshop::new();
    workshop.project.write("quoted.md", MARKER);
    let script = "begin; read quoted.md; print '<!-- DARK-FACTORY-REPORT'; say '<!-- DARK-FACTORY-REPORT'; \
                  sleep 3s; write late x; result failed 'it was only quoted'";

    let ended = claude(&workshop, "completion-grace: 1s\n", script);

    let run = ended.one();
    assert_eq!(
        (ended.code, &run["outcome"]),
        (1, &json!("failed")),
        "{run}"
    );
    assert!(
        run["cause"]
            .as_str()
            .unwrap()
            .contains("it was only quoted")
    );
    assert_eq!(workshop.project.read("late"), "x");
}

#[test]
fn b_15_a_limit_that_is_not_positive_is_refused() {
    let workshop = Workshop::new();
    for flag in [
        "--timeout=-5m",
        "--timeout=0",
        "--timeout=0s",
        "--idle-timeout=-1s",
        "--idle-timeout=0s",
        "--log-limit=0",
        "--memory=-1",
    ] {
        let name = flag.split('=').next().unwrap();
        refuses(&mut workshop.script(&[flag], "exit 0"), 2, &[name]);
    }
    workshop
        .project
        .write("x.md", for_agent("timeout: -30m\n", "exit 0"));

    refuses(workshop.run(&[]).arg("x.md"), 2, &["x.md:2", "timeout"]);

    nothing_ran(&workshop);
}

#[test]
fn b_23_a_time_limit_ends_the_container_and_not_only_the_wait_for_it() {
    let scene = Scene::new();
    let script = "ignore-term\nfork 'ignore-term; sleep 1h'\nsleep 1h";
    let prompt = scene.project.write(
        "stubborn.md",
        "---\ntimeout: 1s\nstop-grace: 100ms\n---\nStay.\n",
    );

    let run = Ended::of(&mut scene.run_file(&prompt, &[], script));

    assert_eq!(run.code, 124, "{}", run.stderr);
    scene.assert_ended("timed_out", b"", b"");
}

#[test]
fn b_34_a_time_limit_and_a_stop_at_once_agree_on_one_end() {
    let scene = Scene::new();
    let run = Running::start(
        &mut scene.run_with(&["--timeout", "1s"], "ignore-term\nwrite one x\nsleep 1h"),
    );
    scene.wait_for_file("one");
    let id = text(&scene.only_run(), "run_id");

    let stops: Vec<Running> = (0..3)
        .map(|_| {
            let mut stop = scene.dark_factory(&["stop", "--grace", "100ms", &id]);
            Running::start(&mut stop)
        })
        .collect();
    let run = run.ended();
    let stops: Vec<Ended> = stops.into_iter().map(Running::ended).collect();

    let inspected = Ended::of(&mut scene.dark_factory(&["inspect", "--json", &id])).one();
    let ends = inspected["steps"].as_array().unwrap();
    let ends = ends.iter().filter(|step| step["state"] == "finished");
    assert_eq!(ends.count(), 1, "{inspected}");
    let outcome = text(&scene.only_run(), "outcome");
    let code = if outcome == "timed_out" { 124 } else { 130 };
    assert_eq!(run.code, code, "{outcome}: {}", run.stderr);
    for stop in stops {
        assert!(
            stop.code == 0 || stop.stderr.contains("finished"),
            "{}: {}",
            stop.code,
            stop.stderr
        );
    }
    scene.assert_ended(&outcome, b"", b"");
}
