//! The commands about runs: `ps`, `logs`, `stop`, `inspect`, `recover`, and the help of all.
//!
//! Owns: how a run is named, watched, and stopped from another terminal.
//! Reads: the commands' output.
//! Never: kills a supervisor; see `recovery`.

use std::process::Command;

use serde_json::{Value, json};

use crate::scene::eventually;
use crate::support::{Ended, Watched, Workshop, attempt_text, wait_for};

/// Reading what is recorded needs no engine.
fn without_engine(command: &mut Command) -> Ended {
    Ended::of(command.env("DOCKER_HOST", "unix:///nonexistent"))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} is no text in {value}"))
}

#[test]
fn a_run_can_be_watched_from_its_beginning_to_its_end() {
    let workshop = Workshop::new();
    let script = "print first; stderr oops; write begun x; wait-file go; print last";
    let running = Watched::of(&mut workshop.script(&["--json"], script));
    wait_for(&workshop.project.path().join("begun"));

    // The agent may be quicker than the record of its start.
    let open = eventually("the start to be recorded", || {
        let open = without_engine(&mut workshop.command(&["ps", "--json"])).one();
        (open["state"] != "starting").then_some(open)
    });
    let id = text(&open, "run_id");
    let table = without_engine(&mut workshop.command(&["ps"])).stdout;
    let inspected = without_engine(&mut workshop.command(&["inspect", "--json", id])).one();
    let follow = Watched::of(&mut workshop.command(&["logs", "--follow", &id[..5]]));
    let follow_raw =
        Watched::of(&mut workshop.command(&["logs", "-f", "--raw", &id[id.len() - 5..]]));
    let follow_json = Watched::of(&mut workshop.command(&["logs", "-f", "--json", id]));
    eventually("the beginning", || {
        let logs = [&follow, &follow_raw, &follow_json].map(Watched::stdout);
        logs.iter().all(|log| log.contains("first")).then_some(())
    });
    workshop.project.write("go", "");
    let run = running.ended().one();

    assert_eq!(
        (&open["state"], &open["supervised"]),
        (&json!("running"), &json!(true)),
        "{open}"
    );
    assert_eq!(
        (&open["outcome"], &open["finished_at"]),
        (&Value::Null, &Value::Null),
        "{open}"
    );
    for field in ["run_id", "file", "engine", "dir"] {
        assert_eq!(open[field], run[field]);
    }
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        ["RUN", "STATE", "AGENT", "STARTED", "TIME", "FILE"]
    );
    assert_eq!(
        (rows.len(), &rows[1][..3]),
        (2, &[id, "running", "command"][..]),
        "{table}"
    );
    assert_eq!(
        (&inspected["state"], &inspected["report"]),
        (&json!("running"), &Value::Null)
    );
    assert_eq!(inspected["container"], open["container"]);

    let raw = "first\nlast\n";
    let log = attempt_text(&run, "run.log");
    assert_eq!(follow_raw.ended().stdout, raw);
    assert_eq!(follow.ended().stdout, log);
    let lines = follow_json.ended().json();
    let texts: Vec<&str> = lines.iter().map(|line| text(line, "text")).collect();
    assert!(
        texts.contains(&"first") && texts.contains(&"stderr │ oops") && texts[2] == "last",
        "{texts:?}"
    );
    assert!(text(&lines[0], "at").ends_with('Z'), "{lines:?}");
    assert_eq!(
        without_engine(&mut workshop.command(&["logs", id])).stdout,
        log
    );
    assert_eq!(
        without_engine(&mut workshop.command(&["logs", "--raw", id])).stdout,
        raw
    );

    assert_eq!(
        Ended::of(&mut workshop.command(&["ps", "--json"])).stdout,
        ""
    );
    assert_eq!(
        Ended::of(&mut workshop.command(&["ps"]))
            .stdout
            .lines()
            .count(),
        1
    );
    let all = without_engine(&mut workshop.command(&["ps", "-a", "--json"])).one();
    assert_eq!(
        (&all["state"], &all["supervised"]),
        (&json!("finished"), &json!(false)),
        "{all}"
    );
    for field in ["outcome", "cause", "usage", "started_at", "finished_at"] {
        assert_eq!(all[field], run[field]);
    }
    let other = workshop.installation.state_dir().with_file_name("other");
    let elsewhere = ["ps", "-a", "--json", "--state-dir", other.to_str().unwrap()];
    assert_eq!(Ended::of(&mut workshop.command(&elsewhere)).stdout, "");
}

#[test]
fn a_finished_run_is_inspected_but_neither_stopped_nor_recovered() {
    let workshop = Workshop::new();
    let run =
        Ended::of(&mut workshop.script(&["--json", "--env", "MY_TOKEN=hidden"], "print x")).one();
    let id = text(&run, "run_id");

    let inspected = without_engine(&mut workshop.command(&["inspect", id]));
    let stopped = Ended::of(&mut workshop.command(&["stop", id]));
    let stopped_json = Ended::of(&mut workshop.command(&["stop", "--json", id]));
    let recovered = Ended::of(&mut workshop.command(&["recover"]));
    let recovered_json = Ended::of(&mut workshop.command(&["recover", "--json"]));

    assert_eq!(inspected.code, 0);
    let dir = text(&run, "dir");
    for line in [
        format!("run_id: {id}\n"),
        "state: finished\n".to_owned(),
        format!("dir: {dir}\n"),
        format!("  raw_log: {dir}/raw.jsonl (its standard output, byte for byte)\n"),
        format!("  event_log: {dir}/events.jsonl (what it did, for programs)\n"),
        format!("  report_json: {dir}/report.json (how it ended, for programs)\n"),
        "    MY_TOKEN: ***\n".to_owned(),
        "  outcome: succeeded\n".to_owned(),
    ] {
        assert!(
            inspected.stdout.contains(&line),
            "{line:?} is not in {}",
            inspected.stdout
        );
    }
    assert!(!inspected.stdout.contains("hidden"), "{}", inspected.stdout);
    let expected = format!("{id} had ended before, succeeded: the command exited with code 0\n");
    assert_eq!((stopped.code, stopped.stdout), (0, expected));
    assert_eq!((stopped_json.code, stopped_json.one()), (0, run));
    assert_eq!(
        (recovered.code, recovered.stdout.as_str()),
        (0, "nothing to recover\n")
    );
    assert_eq!(
        (recovered_json.code, recovered_json.stdout.as_str()),
        (0, "")
    );
}

#[test]
fn stop_returns_when_the_end_is_recorded_and_the_run_knows_who_stopped_it() {
    let workshop = Workshop::new();
    for (name, begin) in [("polite", "on-term exit 7"), ("stubborn", "ignore-term")] {
        let command = json!([
            "/bin/agent",
            "-e",
            format!("{begin}; write {name} x; sleep 1h")
        ]);
        workshop.project.write(
            &format!("{name}.md"),
            format!("---\ncommand: {command}\n---\nDo it.\n"),
        );
    }
    let running = Watched::of(
        workshop
            .run(&["--json", "-j", "2"])
            .args(["polite.md", "stubborn.md"]),
    );
    for name in ["polite", "stubborn"] {
        wait_for(&workshop.project.path().join(name));
    }
    let open = Ended::of(&mut workshop.command(&["ps", "--json"])).json();
    let id = |name: &str| {
        text(
            open.iter()
                .find(|run| text(run, "file").ends_with(name))
                .unwrap(),
            "run_id",
        )
    };
    let (polite, stubborn) = (id("polite.md"), id("stubborn.md"));

    let first = Ended::of(&mut workshop.command(&["stop", &polite[..6]]));
    let after = Ended::of(&mut workshop.command(&["ps", "--json"])).json();
    let second = Ended::of(&mut workshop.command(&[
        "stop",
        "--json",
        "--grace",
        "0s",
        &stubborn[stubborn.len() - 6..],
    ]));
    let ended = running.ended();

    let cause = "cancelled by dark-factory stop";
    assert_eq!(
        (first.code, first.stdout),
        (0, format!("{polite} cancelled: {cause}\n"))
    );
    assert_eq!((after.len(), text(&after[0], "run_id")), (1, stubborn));
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert_eq!(ended.code, 130, "{}", ended.stderr);
    let runs = ended.json();
    assert_eq!(
        (text(&runs[0], "run_id"), &runs[0]["exit_code"]),
        (polite, &json!(7))
    );
    assert_eq!(second.one(), runs[1]);
    assert_eq!(
        (text(&runs[1], "run_id"), &runs[1]["exit_code"]),
        (stubborn, &Value::Null)
    );
    for run in &runs {
        assert_eq!(
            (text(run, "outcome"), text(run, "cause"), text(run, "log")),
            ("cancelled", cause, "complete")
        );
    }
}

#[test]
fn a_run_that_is_not_there_is_not_found() {
    let workshop = Workshop::new();

    for arguments in [
        &["logs", "nonono"][..],
        &["logs", "-f", "x"],
        &["inspect", "nonono"],
        &["stop", "nonono"],
        &["inspect", ""],
    ] {
        let ended = Ended::of(&mut workshop.command(arguments));

        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (3, ""),
            "{arguments:?}"
        );
        let name = arguments.last().unwrap();
        assert_eq!(
            ended.stderr,
            format!("error: there is no run {name}\n  help: `dark-factory ps -a` lists all runs\n"),
        );
    }
}

#[test]
fn a_name_that_several_runs_could_have_names_none_of_them() {
    let workshop = Workshop::new();
    // Ids have 32 letters: of 33 runs two begin with the same one.
    let names: Vec<String> = (0..33).map(|n| format!("{n}.md")).collect();
    for name in &names {
        workshop.project.write(name, "Do it.\n");
    }
    let flags = [
        "run",
        "--json",
        "--agent",
        "command",
        "--pull",
        "never",
        "--image",
        "dark-factory-test/none:1",
    ];
    let ended = Ended::of(workshop.command(&flags).args(&names));
    let runs = ended.json();
    assert_eq!((ended.code, runs.len()), (4, 33), "{}", ended.stderr);
    let first = |run: &Value| text(run, "run_id")[..1].to_owned();
    let same = runs
        .iter()
        .map(first)
        .find(|letter| runs.iter().filter(|run| first(run) == *letter).count() > 1);
    let same = same.unwrap();
    let count = runs
        .iter()
        .map(|run| text(run, "run_id"))
        .filter(|id| id.starts_with(&same) || id.ends_with(&same))
        .count();

    let ended = Ended::of(&mut workshop.command(&["inspect", &same]));

    assert_eq!((ended.code, ended.stdout.as_str()), (3, ""));
    let error = format!(
        "error: {same} could be any of {count} runs\n  help: `dark-factory ps -a` lists all runs\n"
    );
    assert_eq!(ended.stderr, error);
}

#[test]
fn help_tells_the_exit_codes_and_bad_usage_is_one_of_them() {
    let workshop = Workshop::new();

    let help = Ended::of(&mut workshop.command(&["--help"]));
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    let (_, codes) = help.stdout.split_once("Exit codes:\n").unwrap();
    let numbers: Vec<u8> = codes
        .lines()
        .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 124, 130, 137]);
    for command in [
        "run",
        "explain",
        "retry",
        "ps",
        "logs",
        "stop",
        "pause",
        "resume",
        "wait",
        "attach",
        "inspect",
        "replay",
        "config",
        "recover",
        "rm",
        "prune",
        "exec",
        "shell",
        "stats",
        "daemon",
        "image",
        "demo",
        "doctor",
        "completion",
        "man",
    ] {
        assert!(
            help.stdout.contains(&format!("\n  {command} ")),
            "{command} is not in {}",
            help.stdout
        );
        let own = Ended::of(&mut workshop.command(&[command, "--help"]));
        assert_eq!(own.code, 0);
        assert!(
            own.stdout.contains(&format!("dark-factory {command}")),
            "{}",
            own.stdout
        );
    }
    let version = Ended::of(&mut workshop.command(&["--version"]));
    assert_eq!(
        (version.code, version.stdout.starts_with("dark-factory ")),
        (0, true)
    );

    for (arguments, told) in [
        (&[][..], "Usage: dark-factory"),
        (&["run"], "<FILE>"),
        (&["rnu"], "'rnu'"),
        (&["run", "--nonsense", "x.md"], "--nonsense"),
        (&["run", "--jobs", "0", "x.md"], "--jobs"),
        (&["run", "--image"], "--image"),
        (&["logs", "--raw", "--json", "x"], "--raw"),
        (&["replay", "--format", "xml", "x"], "xml"),
        (&["stop", "--grace", "5", "x"], "--grace"),
    ] {
        let ended = Ended::of(&mut workshop.command(arguments));

        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (2, ""),
            "{arguments:?}"
        );
        assert!(
            ended.stderr.contains(told),
            "{told:?} is not in {}",
            ended.stderr
        );
    }
}
