//! `run`: the attempt's files, several files, front matter, and the scripted Claude.
//!
//! Owns: what a user sees of runs that are left alone.
//! Reads: the attempts' folders.
//! Never: tests an option for its own sake, or what ends a run early; see `options` and `ends`.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use integration_tests::agent_image;
use serde_json::{Value, json};

use crate::support::{Ended, Workshop, attempt_file, attempt_text, for_agent, for_claude, report};

#[test]
fn a_run_that_succeeds_leaves_its_files_and_prints_its_summary() {
    let workshop = Workshop::new();
    let ended = Ended::of(&mut workshop.script(
        &[
            "--json",
            "--env",
            "API_KEY=hunter2",
            "--env",
            "COLOUR=red",
            "--timeout",
            "90s",
        ],
        "print one; stderr two; bytes ff00 0d0a; print-raw three",
    ));

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let run = ended.one();
    let file = workshop
        .project
        .path()
        .join("task.md")
        .display()
        .to_string();
    let fields: Vec<&str> = run
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        fields,
        [
            "cause",
            "changes",
            "dir",
            "engine",
            "exit_code",
            "file",
            "finished_at",
            "log",
            "outcome",
            "run_id",
            "started_at",
            "usage",
        ]
    );
    assert_eq!(run["outcome"], "succeeded");
    assert_eq!(run["cause"], "the command exited with code 0");
    assert_eq!(run["file"], file);
    assert_eq!(
        (&run["engine"], &run["log"], &run["exit_code"]),
        (&json!("docker"), &json!("complete"), &json!(0))
    );
    assert!(run["started_at"].as_str() < run["finished_at"].as_str());
    let id = run["run_id"].as_str().unwrap();
    assert_eq!(
        run["dir"],
        workshop
            .installation
            .state_dir()
            .join(format!("runs/{id}-1"))
            .display()
            .to_string()
    );

    assert_eq!(
        fs::read(attempt_file(&run, "raw.jsonl")).unwrap(),
        b"one\n\xff\0\r\nthree"
    );
    assert_eq!(attempt_text(&run, "stderr.log"), "two\n");
    let log = attempt_text(&run, "run.log");
    assert!(
        log.contains("Z one\n") && log.contains("Z stderr │ two\n"),
        "{log}"
    );
    let launch = attempt_text(&run, "launch.json");
    assert!(!launch.contains("hunter2"), "{launch}");
    let launch: Value = serde_json::from_str(&launch).unwrap();
    assert_eq!(
        (&launch["env"]["API_KEY"], &launch["env"]["COLOUR"]),
        (&json!("***"), &json!("red"))
    );
    assert_eq!(
        launch["network"],
        "allow: nothing but the container's own loopback"
    );
    assert!(!attempt_file(&run, "spool").exists());

    let report = report(&run);
    assert_eq!(report["attempt_id"], format!("{id}-1"));
    assert_eq!(
        report["exit"],
        json!({ "status": { "code": 0 }, "oom": "no", "source": "record" })
    );
    assert_eq!(report["image"]["reference"], agent_image());
    assert!(
        report["image"]["digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:"),
        "{report}"
    );
    assert_eq!(
        report["container"],
        format!("{}-task-{id}-1", project_name(&workshop))
    );
    assert_eq!(
        (&report["stdout_bytes"], &report["stderr_bytes"]),
        (&json!(13), &json!(4))
    );
    assert_eq!(report["limits"]["timeout_ms"], 90_000);
    assert_eq!(
        (&report["transport"], &report["unsealed"]),
        (&json!("spool"), &json!(false))
    );
    assert_eq!(
        (&report["root_owner"], &report["stop_reason"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(report["oom_kills"], 0);
    assert!(report["peak_memory"].as_u64().unwrap() > 0);
    assert!(
        ended.stderr.contains(r#""text":"one""#) && ended.stderr.contains(r#""text":"two""#),
        "{}",
        ended.stderr
    );
}

fn project_name(workshop: &Workshop) -> String {
    let name = workshop
        .project
        .path()
        .file_name()
        .unwrap()
        .to_string_lossy();
    // What a container's name cannot have is replaced.
    name.replace('.', "-")
}

#[test]
fn files_run_one_after_the_other_in_the_order_given_and_the_worst_end_counts() {
    let workshop = Workshop::new();
    let file = |name: &str, script: &str| workshop.project.write(name, for_agent("", script));
    let files = [
        file("c.md", "append order c; exit 3"),
        file("a.md", "append order a; exit 127"),
        file("b.md", "append order b; kill-self SEGV"),
    ];

    let ended = Ended::of(workshop.run(&["--json", "--quiet"]).args(&files));

    assert_eq!(ended.code, 137, "{}", ended.stderr);
    assert_eq!(ended.stderr, "");
    let runs = ended.json();
    let ends: Vec<_> = runs
        .iter()
        .map(|run| {
            (
                run["file"].as_str().unwrap(),
                &run["outcome"],
                &run["exit_code"],
            )
        })
        .collect();
    assert_eq!(
        ends,
        [
            (files[0].to_str().unwrap(), &json!("failed"), &json!(3)),
            (files[1].to_str().unwrap(), &json!("failed"), &json!(127)),
            (files[2].to_str().unwrap(), &json!("killed"), &Value::Null),
        ]
    );
    assert_eq!(runs[2]["cause"], "SIGSEGV from outside killed the agent");
    assert_eq!(workshop.project.read("order"), "cab");
}

#[test]
fn a_quiet_run_prints_only_how_it_ended_and_where_its_files_are() {
    let workshop = Workshop::new();

    let ended = Ended::of(&mut workshop.script(&["--quiet"], "print secret-sauce; exit 2"));

    assert_eq!((ended.code, ended.stderr.as_str()), (1, ""));
    let task = workshop.project.path().join("task.md");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(
        lines[0],
        format!(
            "✘ {}: failed: the command exited with code 2",
            task.display()
        )
    );
    let runs = workshop.installation.state_dir().join("runs");
    assert!(
        lines[2].trim().starts_with(runs.to_str().unwrap()),
        "{}",
        ended.stdout
    );
    assert_eq!(lines.len(), 3, "{}", ended.stdout);
}

#[test]
fn two_jobs_run_at_the_same_time_and_their_lines_carry_their_names() {
    let workshop = Workshop::new();
    workshop.project.write(
        "a.md",
        for_agent("", "write is-a x; wait-file is-b; print i am a"),
    );
    workshop.project.write(
        "b.md",
        for_agent("", "write is-b x; wait-file is-a; print i am b"),
    );

    let ended = Ended::of(
        workshop
            .run(&["--jobs", "2", "--timeout", "30s"])
            .args(["a.md", "b.md"]),
    );

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    for line in [
        "[a.md] i am a\n",
        "[b.md] i am b\n",
        "[a.md] ✔ a.md: succeeded",
        "[b.md] ✔ b.md: succeeded",
    ] {
        assert!(
            ended.stdout.contains(line),
            "{line:?} is not in {}",
            ended.stdout
        );
    }
}

#[test]
fn a_prompt_comes_from_standard_input_where_the_file_is_a_hyphen() {
    let workshop = Workshop::new();
    let prompt = for_agent("", "prompt; ls .");
    let mut command = workshop.run(&["--json"]);
    command
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();

    child
        .stdin
        .take()
        .unwrap()
        .write_all(prompt.as_bytes())
        .unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let run = ended.one();
    assert_eq!(run["file"], "-");
    // The project is the one around the working directory.
    assert_eq!(attempt_text(&run, "raw.jsonl"), "Do it.\n.git\nREADME.md\n");
    let record: Value = serde_json::from_str(&attempt_text(&run, "launch.json")).unwrap();
    assert_eq!(record["prompt"], "stdin");
}

#[test]
fn a_prompt_from_standard_input_can_be_queued_and_run_beside_others() {
    let workshop = Workshop::new();
    let prompt = |word: &str| for_agent("", &format!("print {word}; ls ."));
    workshop.project.write("file.md", prompt("file"));
    let from_stdin = |flags: &[&str], files: &[&str], word: &str| {
        let mut command = workshop.run(flags);
        command.args(files).stdin(Stdio::piped());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(prompt(word).as_bytes()).unwrap();
        drop(stdin);
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended
    };

    let queued = from_stdin(&["--detach", "--json"], &["-"], "queued").one();
    let id = queued["run_id"].as_str().unwrap();
    let waited = Ended::of(&mut workshop.command(&["wait", "--json", id])).one();
    let both = from_stdin(&["--jobs", "2", "--json"], &["-", "file.md"], "beside").json();

    let listed = ".git\nREADME.md\nfile.md\n";
    assert_eq!(
        attempt_text(&waited, "raw.jsonl"),
        format!("queued\n{listed}")
    );
    let mut said: Vec<String> = both
        .iter()
        .map(|run| attempt_text(run, "raw.jsonl"))
        .collect();
    said.sort();
    assert_eq!(
        said,
        [format!("beside\n{listed}"), format!("file\n{listed}")]
    );
}

#[test]
fn claude_is_judged_by_its_own_words_and_its_usage_is_counted() {
    let workshop = Workshop::new();
    let file = |name: &str, script: &str| workshop.project.write(name, for_claude("", script));
    file(
        "success.md",
        "begin; say hello; read README.md; result success \"All done.\"",
    );
    file(
        "failed.md",
        "begin; check README.md nonsense; result failed \"Not possible.\"",
    );
    file("silent.md", "begin; say hello");
    file("limit.md", "begin; error 529 Overloaded");
    let mut command = workshop.command(&["run", "--json", "--image", &agent_image()]);
    command
        .args(["--model", "opus", "--env", "ANTHROPIC_API_KEY"])
        .env("ANTHROPIC_API_KEY", "sk-test-key");

    let ended = Ended::of(command.args(["success.md", "failed.md", "silent.md", "limit.md"]));

    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let runs = ended.json();
    let ends: Vec<_> = runs
        .iter()
        .map(|run| {
            (
                run["outcome"].as_str().unwrap(),
                run["cause"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        ends[0],
        ("succeeded", "the agent finished and reports success")
    );
    assert_eq!(ends[1].0, "failed");
    assert!(
        ends[1]
            .1
            .starts_with("the agent reports failed: Not possible"),
        "{}",
        ends[1].1
    );
    assert_eq!(
        ends[2],
        (
            "no_result",
            "the agent exited with code 0 but its stream has no result and no report"
        )
    );
    assert_eq!(ends[3].0, "failed");
    assert!(
        ends[3].1.contains("overloaded: API Error: 529 Overloaded"),
        "{}",
        ends[3].1
    );

    let report = report(&runs[0]);
    assert_eq!(report["agent"], "claude");
    assert_eq!(report["model"], "scripted-stand-in");
    assert_eq!(report["verdict"]["kind"], "report");
    assert_eq!(report["verdict"]["report"]["summary"], "All done.");
    let stream: Vec<Value> = attempt_text(&runs[0], "raw.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let result = stream.last().unwrap();
    assert_eq!(report["session_id"], result["session_id"]);
    for usage in [&report["usage"], &runs[0]["usage"]] {
        assert_eq!(usage["input_tokens"], result["usage"]["input_tokens"]);
        assert_eq!(usage["output_tokens"], result["usage"]["output_tokens"]);
        assert_eq!(
            usage["cache_read_tokens"],
            result["usage"]["cache_read_input_tokens"]
        );
        assert_eq!(
            usage["cache_write_tokens"],
            result["usage"]["cache_creation_input_tokens"]
        );
        assert_eq!(usage["turns"], result["num_turns"]);
        assert_eq!(usage["cost_usd"], 0.0);
    }
    let launch = attempt_text(&runs[0], "launch.json");
    assert!(!launch.contains("sk-test-key"), "{launch}");
    let launch: Value = serde_json::from_str(&launch).unwrap();
    let argv = launch["command"].to_string();
    assert!(argv.starts_with(r#"["claude","-p""#), "{argv}");
    assert!(argv.contains(r#""--model","opus""#), "{argv}");
}

#[test]
fn front_matter_keys_work_and_a_flag_beats_them() {
    let workshop = Workshop::new();
    let front_matter = "\
agent: command
image: no-such-image-of-ours
memory: 64m
cpus: 0.5
pids: 50
timeout: 2m
network: none
hide_git: true
workdir: /tmp
stop-signal: INT
stop-grace: 3s
pull: never
user: 1234:4321
labels: {team: blue, level: 1}
env: {A: file, B: file}
mounts:
- {src: README.md, dst: /readme, read-only: true}
- {src: nowhere, dst: /nowhere, optional: true}
status: approved
";
    workshop.project.write(
        "all.md",
        for_agent(front_matter, "pwd; id; env A; env B; read /readme"),
    );
    let image = agent_image();
    let flags = [
        "run", "--json", "--image", &image, "--memory", "96m", "--env", "B=flag", "--label",
        "team=red",
    ];

    let ended = Ended::of(workshop.command(&flags).arg("all.md"));

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let warnings: Vec<&str> = ended
        .stderr
        .lines()
        .filter(|line| line.contains("warning"))
        .collect();
    let [user, mount] = warnings[..] else {
        panic!("{}", ended.stderr);
    };
    assert!(user.contains("uid 1234, which may not write"), "{user}");
    assert!(
        mount.contains("the optional mount nowhere:/nowhere is left out"),
        "{mount}"
    );
    let run = ended.one();
    let raw = attempt_text(&run, "raw.jsonl");
    let lines: Vec<&str> = raw.lines().collect();
    assert_eq!(lines[0], "/tmp");
    assert!(lines[1].starts_with("uid=1234 gid=4321 "), "{raw}");
    assert_eq!(lines[2..], ["file", "flag", "# A project"]);
    let launch: Value = serde_json::from_str(&attempt_text(&run, "launch.json")).unwrap();
    assert_eq!(launch["image"], image);
    assert_eq!(
        report(&run)["limits"],
        json!({
            "memory": 96 << 20, "cpus": "0.5", "pids": 50, "file_size": 16_u64 << 30,
            "open_files": 65_536, "timeout_ms": 120_000, "idle_ms": null, "log": 1 << 30, "disk": null
        })
    );
    assert_eq!(launch["labels"], json!({ "team": "red", "level": "1" }));
    assert!(
        launch["network"].as_str().unwrap().starts_with("none"),
        "{launch}"
    );
    assert_eq!(launch["workspace"]["git"], "hidden");
    assert_eq!(launch["pull"], "never");
    assert_eq!(launch["stop"], json!({ "signal": "SIGINT", "grace": "3s" }));
}
