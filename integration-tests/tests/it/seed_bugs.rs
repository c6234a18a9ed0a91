//! The seed's bugs that could be ours too, each by its number, on the real binary and engine.
//!
//! Owns: one test for each bug that applies to a run of a prompt file; `docs/reliability.md` says why others do not.
//! Reads: what a user can read.
//! Never: knows how a bug is avoided.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use integration_tests::{EngineProxy, Fault, Project, agent_image};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bad_input::{nothing_ran, refuses};
use crate::limits::claude;
use crate::scene::{Running, STARTED, Scene, docker, report, text};
use crate::support::{Ended, Watched, Workshop, attempt_file, attempt_text, for_agent, wait_for};

/// Longer than the seed gave any subprocess.
const LONGER_THAN_THE_SEEDS_DEFAULT: Duration = Duration::from_secs(11);
/// The seed's completion report, as an agent may quote it.
const MARKER: &str = "<!-- DARK-FACTORY-REPORT\n{\"status\":\"success\",\"summary\":\"quoted\",\"blockers\":[]}\nDARK-FACTORY-REPORT -->";

fn is_running(container: &str) -> bool {
    docker(&["inspect", "--format", "{{.State.Running}}", container]) == "true\n"
}

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
fn b_04_each_run_works_in_the_project_of_its_own_file_wherever_it_is_started() {
    let workshop = Workshop::new();
    let other = Project::new();
    let script = for_agent("", "append who.txt \"here\\n\"");
    let files = [
        workshop.project.write("x.md", &script),
        other.write("x.md", &script),
    ];
    let elsewhere = tempfile::tempdir().unwrap();

    let ended = Ended::of(
        workshop
            .run(&["--json"])
            .current_dir(elsewhere.path())
            .args(files),
    );

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(workshop.project.read("who.txt"), "here\n");
    assert_eq!(other.read("who.txt"), "here\n");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn b_05_an_adopted_run_whose_supervisor_dies_is_not_filed_while_its_agent_works() {
    let scene = Scene::new();
    scene
        .run_until(
            "one",
            &format!("{STARTED}write one x\nwait-file go\nexit 3"),
        )
        .crash();
    let adopter = Running::start(&mut scene.dark_factory(&["recover"]));
    scene.wait_until_supervised();

    adopter.crash();

    let open = scene.only_run();
    assert_eq!(
        (&open["state"], &open["outcome"]),
        (&json!("running"), &Value::Null)
    );
    assert!(is_running(&scene.container()));
    scene.project.write("go", "");
    scene.assert_recovers("failed");
    scene.assert_ended("failed", b"", b"");
    scene.assert_started_once();
}

#[test]
fn b_06_a_run_that_fails_while_it_is_resumed_hinders_no_other_and_is_not_run_again() {
    let scene = Scene::new();
    let bad = scene.project.write("bad.md", "Fail.\n");
    let script = |name: &str, code: u8| {
        format!("append starts.txt \"started\\n\"\nwrite {name} x\nwait-file go\nexit {code}")
    };
    let good = Running::start(&mut scene.run(&script("one", 0)));
    let failing = Running::start(&mut scene.run_file(&bad, &[], &script("two", 3)));
    scene.wait_for_file("one");
    scene.wait_for_file("two");
    failing.crash();
    good.crash();
    scene.project.write("go", "");

    let recover = scene.recover();

    assert_eq!(recover.code, 0, "{}", recover.stderr);
    assert!(recover.stdout.contains("succeeded: "), "{}", recover.stdout);
    assert!(
        recover
            .stdout
            .contains("failed: the command exited with code 3"),
        "{}",
        recover.stdout
    );
    assert_eq!(scene.recover().stdout, "nothing to recover\n");
    assert_eq!(scene.project.read("starts.txt"), "started\nstarted\n");
}

#[test]
fn b_07_a_run_that_waits_for_its_container_says_so_and_is_not_reset() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("POST /containers/create?name=", Fault::HoldRequest);
    let run = Running::start(&mut scene.run(&format!("{STARTED}exit 0")));
    proxy.wait_until_held();

    let waiting = scene.only_run();
    let recover = scene.recover();
    let still = scene.only_run();
    proxy.release();

    assert_eq!(waiting["state"], "creating", "{waiting}");
    assert!(
        recover.stdout.contains("is supervised by a living process"),
        "{}",
        recover.stdout
    );
    assert_eq!(still, waiting);
    assert_eq!(run.ended().code, 0);
    scene.assert_ended("succeeded", b"", b"");
    scene.assert_started_once();
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
fn b_13_an_engine_that_cannot_be_asked_is_not_a_container_that_is_gone() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    scene
        .run_until("one", &format!("{STARTED}write one x\nwait-file go"))
        .crash();

    proxy.go_away();
    let recover = scene.recover();
    let meanwhile = scene.only_run();
    proxy.come_back();

    assert_eq!(recover.code, 4, "{}", recover.stderr);
    assert_eq!(meanwhile["outcome"], Value::Null, "{meanwhile}");
    assert!(is_running(&scene.container()));
    scene.project.write("go", "");
    scene.assert_recovers("succeeded");
    scene.assert_ended("succeeded", b"", b"");
    scene.assert_started_once();
}

#[test]
fn b_14_two_projects_with_the_same_prompt_name_do_not_touch_each_others_containers() {
    let (one, two) = (Scene::new(), Scene::new());
    let script = format!("{STARTED}write one x\nwait-file go");

    let runs = [one.run_until("one", &script), two.run_until("one", &script)];
    let names = [one.container(), two.container()];

    assert_ne!(names[0], names[1]);
    assert!(names.iter().all(|name| is_running(name)));
    for (scene, run) in [&one, &two].into_iter().zip(runs) {
        scene.project.write("go", "");
        assert_eq!(run.ended().code, 0);
        scene.assert_ended("succeeded", b"", b"");
    }
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
fn b_20_a_lease_is_one_file_for_ever_and_trusts_no_process_id() {
    let scene = Scene::new();
    scene
        .run_until("one", &format!("{STARTED}write one x\nwait-file go"))
        .crash();
    let lock = scene.folder().join("lock");
    let inode = || fs::metadata(&lock).unwrap().ino();
    let first = inode();

    assert_eq!(scene.only_run()["supervised"], false);
    let recover = Running::start(&mut scene.dark_factory(&["recover"]));
    scene.wait_until_supervised();

    assert_eq!((inode(), fs::read(&lock).unwrap()), (first, Vec::new()));
    scene.project.write("go", "");
    assert_eq!(recover.ended().code, 0);
    assert_eq!(inode(), first);
    scene.assert_ended("succeeded", b"", b"");
}

#[test]
fn b_21_running_a_file_again_leaves_the_logs_of_its_earlier_runs() {
    let workshop = Workshop::new();

    let first = Ended::of(&mut workshop.script(&["--json"], "print one; stderr two; exit 3"));
    let second = Ended::of(&mut workshop.script(&["--json"], "print three"));

    let (first, second) = (first.one(), second.one());
    assert_ne!(first["dir"], second["dir"]);
    assert_eq!(attempt_text(&first, "raw.jsonl"), "one\n");
    assert_eq!(attempt_text(&first, "stderr.log"), "two\n");
    assert_eq!(
        report(Path::new(first["dir"].as_str().unwrap()))["outcome"],
        "failed"
    );
    assert_eq!(attempt_text(&second, "raw.jsonl"), "three\n");
}

#[test]
fn b_22_an_engine_that_takes_longer_than_ten_seconds_is_waited_for() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    proxy.next("POST /containers/create?name=", Fault::HoldRequest);
    let run = Running::start(&mut scene.run(&format!("{STARTED}print hello")));

    proxy.wait_until_held();
    // The time itself is what is tested.
    thread::sleep(LONGER_THAN_THE_SEEDS_DEFAULT);
    proxy.release();
    let run = run.ended();

    assert_eq!(run.code, 0, "{}", run.stderr);
    scene.assert_ended("succeeded", b"hello\n", b"");
    scene.assert_started_once();
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
fn b_24_no_path_of_a_run_depends_on_a_working_folder() {
    let scene = Scene::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let state = scene.installation.state_dir();
    let parent = state.parent().unwrap();
    let script = format!("{STARTED}write one x\nwait-file go\nprint done");
    let mut run = scene.run_with(&["--state-dir", "state"], &script);
    let run = Running::start(run.current_dir(parent));
    scene.wait_for_file("one");
    run.crash();
    scene.project.write("go", "");

    let mut recover = scene.dark_factory(&["recover"]);
    let recover = Ended::of(recover.current_dir(elsewhere.path()));

    assert_eq!(recover.code, 0, "{}", recover.stderr);
    scene.assert_ended("succeeded", b"done\n", b"");
    scene.assert_started_once();
}

#[test]
fn b_25_without_an_engine_whatever_needs_none_goes_on() {
    let proxy = EngineProxy::new();
    let scene = Scene::behind(&proxy);
    assert_eq!(Ended::of(&mut scene.run("print hello")).code, 0);
    let id = text(&scene.only_run(), "run_id");

    proxy.go_away();

    assert_eq!(scene.recover().stdout, "nothing to recover\n");
    for command in [&["ps", "-a"][..], &["logs", &id], &["inspect", &id]] {
        let ended = Ended::of(&mut scene.dark_factory(command));
        assert_eq!(ended.code, 0, "{command:?}: {}", ended.stderr);
    }
    proxy.come_back();
}

#[test]
fn b_26_a_run_that_a_dead_process_left_is_named_and_not_forgotten() {
    let scene = Scene::new();
    let script = format!("{STARTED}write one x\nwait-file go");
    scene.run_until("one", &script).crash();
    let id = text(&scene.only_run(), "run_id");

    refuses(
        &mut scene.run(&script),
        2,
        &[&id, "which a dead process left", "`dark-factory recover`"],
    );
    scene.project.write("go", "");
    scene.assert_recovers("succeeded");

    scene.assert_ended("succeeded", b"", b"");
    scene.assert_started_once();
}

#[test]
fn b_28_no_secret_is_on_a_command_line_of_the_host_or_in_the_containers_configuration() {
    const SECRET: &str = "s3cr3t-28-of-the-host";
    let workshop = Workshop::new();
    let file = workshop
        .project
        .write("x.md", "---\nsecrets: {token: 'env:TOKEN'}\n---\nUse it.\n");
    let script = "check /run/secrets/token s3cr3t-28; write begun x; wait-file go";
    let mut command = workshop.run(&["--json"]);
    command
        .env("TOKEN", SECRET)
        .arg(file)
        .args(["--", "/bin/agent", "-e", script]);
    let running = Watched::of(&mut command);
    wait_for(&workshop.project.path().join("begun"));

    let shown = command_lines_with(SECRET);
    let container = workshop.container().to_string();
    workshop.project.write("go", "");
    let ended = running.ended();

    assert_eq!(shown, Vec::<String>::new());
    assert!(!container.contains(SECRET), "{container}");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

/// Returns the command lines of this host's processes that have a text in them.
fn command_lines_with(text: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .filter(|line| line.contains(text))
        .collect()
}

#[test]
fn b_30_a_signal_to_the_whole_foreground_group_does_not_reach_the_container() {
    let scene = Scene::new();
    let script = format!("{STARTED}print before\nwrite one x\nwait-file go\nprint after");
    let mut run = scene.run(&script);
    let run = Running::start(run.process_group(0));
    scene.wait_for_file("one");
    let container = scene.container();

    killpg(
        Pid::from_raw(i32::try_from(run.id()).unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    drop(run.ended());

    assert!(is_running(&container));
    scene.project.write("go", "");
    scene.assert_recovers("succeeded");
    scene.assert_ended("succeeded", b"before\nafter\n", b"");
    scene.assert_started_once();
}

#[test]
fn b_32_an_empty_prompt_is_refused_and_left_where_it_is() {
    let workshop = Workshop::new();
    for (name, content) in [
        ("empty.md", ""),
        ("blank.md", " \n\t\n"),
        ("keys.md", "---\nmemory: 1g\n---\n"),
    ] {
        let file = workshop.project.write(name, content);

        refuses(
            workshop.run(&[]).arg(&file),
            2,
            &[name, "the prompt is empty"],
        );

        assert_eq!(workshop.project.read(name), content);
    }
    nothing_ran(&workshop);
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

#[test]
fn b_35_a_flag_that_would_do_nothing_is_refused() {
    let workshop = Workshop::new();
    let file = workshop.project.write("x.md", "Do it.\n");

    for flag in ["--auto-approve", "--auto-release"] {
        let ended = Ended::of(workshop.run(&[flag]).arg(&file));
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains(flag), "{}", ended.stderr);
    }
    let image = agent_image();
    let mut unused: Command = workshop.command(&["run", "--agent", "claude", "--image", &image]);
    refuses(
        unused
            .env("ANTHROPIC_API_KEY", "x")
            .arg(&file)
            .args(["--", "/bin/agent"]),
        2,
        &["command"],
    );

    nothing_ran(&workshop);
}
