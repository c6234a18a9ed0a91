//! Prompt files and values that are wrong: each kind has its exit code, one message, and leaves nothing behind.
//!
//! Owns: the messages of bad prompt files, flags, mounts and projects.
//! Reads: standard error; the list of runs.
//! Never: repeats the rules' own unit tests; one case of each kind is enough here.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use integration_tests::{EngineProxy, Fault, Instead, agent_image};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use crate::support::{Ended, Watched, Workshop, attempt_text, for_agent, wait_for};

/// Checks that a command is refused with this exit code and that its one message tells all of this.
#[track_caller]
pub(crate) fn refuses(command: &mut Command, code: i32, told: &[&str]) {
    assert_eq!(errors_of(command, code, told), 1, "{command:?}");
}

/// Checks that a command is refused with this exit code and that its errors tell all of this; returns how many there are.
#[track_caller]
pub(crate) fn errors_of(command: &mut Command, code: i32, told: &[&str]) -> usize {
    let ended = Ended::of(command);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (code, ""),
        "{command:?}: {}",
        ended.stderr
    );
    let text: String = ended.stderr.lines().map(as_text).collect();
    for told in told {
        assert!(
            text.contains(told),
            "{command:?}: {told:?} is not in {text}"
        );
    }
    let errors = text.lines().filter(|line| line.starts_with("error: "));
    errors.count()
}

/// Returns an error that `--json` printed as the lines that a person would have read; other lines as they are.
fn as_text(line: &str) -> String {
    let Ok(object) = serde_json::from_str::<Value>(line) else {
        return format!("{line}\n");
    };
    let error = &object["error"];
    let place: String = ["file", "line", "column"]
        .iter()
        .filter_map(|part| match &error[part] {
            Value::Null => None,
            Value::String(text) => Some(format!("{text}:")),
            number => Some(format!("{number}:")),
        })
        .collect();
    let place = if place.is_empty() {
        place
    } else {
        format!("{place} ")
    };
    let help = error["help"]
        .as_str()
        .map(|help| format!("  help: {help}\n"));
    format!(
        "error: {place}{}\n{}",
        error["message"].as_str().unwrap_or_default(),
        help.unwrap_or_default()
    )
}

/// Checks that no run was recorded.
#[track_caller]
pub(crate) fn nothing_ran(workshop: &Workshop) {
    assert_eq!(
        Ended::of(&mut workshop.command(&["ps", "-a", "--json"])).stdout,
        ""
    );
}

#[test]
fn a_prompt_file_that_cannot_be_used_is_named_with_the_place_and_a_way_out() {
    let workshop = Workshop::new();
    let write = |name: &str, content: &[u8]| workshop.project.write(name, content);
    write("folder/x", b"");
    write("empty.md", b" \n\t\n");
    write("only-front-matter.md", b"---\nimage: x\n---\n\n");
    write("binary.md", b"fine\nnot \xff fine\n");
    write("open.md", b"---\nimage: x\nDo it.\n");
    write("yaml.md", b"---\nmemory: [1\n---\nDo it.\n");
    write("type.md", b"---\nimage: x\n\nmemory: 8x\n---\nDo it.\n");
    write("agent.md", b"---\nagent: cluade\n---\nDo it.\n");

    for (file, told) in [
        (
            "missing.md",
            &[
                "prompt file missing.md cannot be read",
                "No such file",
                "help: check its name",
            ][..],
        ),
        (
            "folder",
            &[
                "prompt file folder cannot be read",
                "help: name a file in it",
            ],
        ),
        (
            "empty.md",
            &["empty.md: the prompt is empty; write what the agent shall do"],
        ),
        (
            "only-front-matter.md",
            &[
                "only-front-matter.md: the prompt is empty",
                "below the front matter",
            ],
        ),
        ("binary.md", &["binary.md:2:", "byte 9", "save it as UTF-8"]),
        (
            "open.md",
            &[
                "open.md:1:1: the front matter that begins here has no end",
                "help: end it with a line ---",
            ],
        ),
        (
            "yaml.md",
            &[
                "yaml.md:2:9: this is not valid YAML",
                "\n  2 | memory: [1\n    |         ^\n",
            ],
        ),
        (
            "type.md",
            &[
                "error: type.md:4:9: memory must be a size such as 512m or 8g, or none, not \"8x\"",
                "\n  4 | memory: 8x\n    |         ^^\n",
            ],
        ),
    ] {
        refuses(workshop.run(&[]).arg(file), 2, told);
    }
    let image = agent_image();
    let unknown = [
        "agent.md:2:8: there is no agent \"cluade\"; there are claude, codex, gemini, command; did you mean claude?",
    ];
    refuses(
        &mut workshop.command(&["run", "--image", &image, "agent.md"]),
        2,
        &unknown,
    );
    nothing_ran(&workshop);
}

#[test]
fn all_bad_files_are_told_and_the_good_one_does_not_run() {
    let workshop = Workshop::new();
    workshop.project.write("good.md", "Do it.\n");
    workshop.project.write("empty.md", "");

    let ended = Ended::of(
        workshop
            .run(&[])
            .args(["good.md", "missing.md", "empty.md"]),
    );

    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert!(
        ended.stderr.contains("error: prompt file missing.md"),
        "{}",
        ended.stderr
    );
    assert!(
        ended
            .stderr
            .contains("error: empty.md: the prompt is empty"),
        "{}",
        ended.stderr
    );
    nothing_ran(&workshop);
}

#[test]
fn an_unknown_key_is_a_warning_with_the_key_that_was_meant_and_the_run_goes_on() {
    let workshop = Workshop::new();
    let command = json!(["/bin/agent", "-e", "print done"]);
    workshop.project.write(
        "x.md",
        format!("---\nmemroy: 64m\ncommand: {command}\n---\nDo it.\n"),
    );

    let text = Ended::of(workshop.run(&["--quiet"]).arg("x.md"));
    let json = Ended::of(workshop.run(&["--quiet", "--json"]).arg("x.md"));

    assert_eq!((text.code, json.code), (0, 0), "{}", text.stderr);
    let warning = "warning: x.md:2:1: the key memroy is not known and does nothing\n  2 | memroy: 64m\n    | ^^^^^^\n  help: did you mean memory?\n";
    assert_eq!(text.stderr, warning);
    let object = json!({ "warning": {
        "message": "the key memroy is not known and does nothing", "help": "did you mean memory?",
        "file": "x.md", "line": 2, "column": 1,
    } });
    assert_eq!(json.stderr, format!("{object}\n"));
    assert_eq!(attempt_text(&json.one(), "raw.jsonl"), "done\n");
}

#[test]
fn a_value_that_a_flag_does_not_take_is_refused_with_one_that_it_does() {
    let workshop = Workshop::new();
    for (flags, told) in [
        (
            &["--memory", "8x"][..],
            "--memory must be a size such as 512m or 8g, or none, not \"8x\"",
        ),
        (&["--memory", "1k"], "--memory: memory must be at least 6m"),
        (
            &["--cpus", "0"],
            "--cpus must be a number of CPUs above 0, such as 2 or 0.5, or none, not \"0\"",
        ),
        (
            &["--timeout", "5"],
            "--timeout must be a duration with a unit, such as 90s, 30m or 1h30m, or none, not \"5\"",
        ),
        (
            &["--pids=-1"],
            "--pids must be a whole number such as 512, or none, not \"-1\"",
        ),
        (&["--pids", "0"], "--pids: pids must be at least 1, not 0"),
        (
            &["--network", "allow:127.1"],
            "not \"127.1\": it ends in a number, and so is an address in an odd form",
        ),
        (
            &["--network", "allow:a.example", "--transport", "attach"],
            "--network: a network of some hosts needs the transport spool",
        ),
        (
            &["--network", "host"],
            "--network must be none, open, or allow and a list of hosts such as api.example.com, not \"host\"",
        ),
        (
            &["--pull", "often"],
            "--pull must be never, missing or always, not \"often\"",
        ),
        (
            &["--profile", "soft"],
            "--profile: there is no profile \"soft\"; there are hardened, seed",
        ),
        (
            &["--transport", "mail"],
            "--transport must be spool or attach, not \"mail\"",
        ),
        (
            &["--user", "1:2:3"],
            "--user must be UID or UID:GID, such as 1000:1000, not \"1:2:3\"",
        ),
        (
            &["--user", "node"],
            "--user: user node is a name, which only profile: seed accepts; write numbers: UID or UID:GID",
        ),
        (
            &["--label", "dark-factory.x=y"],
            "--label: the label \"dark-factory.x\" cannot be set",
        ),
        (
            &["--env", "1A=b"],
            "--env: the environment variable \"1A\" is not a variable's name",
        ),
        (
            &["--env", "NOT_SET_HERE"],
            "--env: the environment variable \"NOT_SET_HERE\" has no value on the host",
        ),
        (
            &["--env", "DARK_FACTORY_X=1"],
            "--env: the environment variable \"DARK_FACTORY_X\" cannot be set",
        ),
        (
            &["--env-file", "none.env"],
            "none.env cannot be read; make it a readable UTF-8 file",
        ),
        (&["--model=-x"], "--model: \"-x\" is not a model's name"),
        (
            &["--project", "/no/such"],
            "--project: the project /no/such cannot be used; name a folder that is there",
        ),
    ] {
        refuses(&mut workshop.script(flags, "exit 0"), 2, &[told]);
    }
    nothing_ran(&workshop);
}

#[test]
fn a_mount_that_would_be_wrong_or_dangerous_is_refused_with_a_way_out() {
    let workshop = Workshop::new();
    workshop.project.write("data", "");
    workshop.project.write("co:lon", "");
    let state = workshop.installation.state_dir();
    let (inside, around) = (
        format!("{}/runs:/x", state.display()),
        format!("{}:/x", state.parent().unwrap().display()),
    );
    for (mounts, told) in [
        (
            &["/no/such:/x"][..],
            "/no/such does not exist; make it, or write optional: true",
        ),
        (
            &["$NOT_SET_HERE:/x"],
            "$NOT_SET_HERE is not set here or is empty; set it, or write the path itself",
        ),
        (&["${NOT_SET_HERE}/x:/x"], "$NOT_SET_HERE is not set here"),
        (&["~bob/x:/x"], "only ~/ is understood"),
        (
            &["data"],
            "--mount must be SRC:DST or SRC:DST:ro, where no path has a colon, not \"data\"",
        ),
        (&[":/x"], "--mount must be SRC:DST or SRC:DST:ro"),
        (&["data:"], "--mount must be SRC:DST or SRC:DST:ro"),
        (
            &["co:lon:/x"],
            "--mount must be SRC:DST or SRC:DST:ro, where no path has a colon",
        ),
        (
            &["data:relative"],
            "its path in the container must begin with /",
        ),
        (&["data:/"], "must not be / itself"),
        (
            &["data:/x", "README.md:/x/"],
            "/x in the container is taken by another --mount; choose another path",
        ),
        (
            &["data:/workspace"],
            "/workspace in the container is taken by the project",
        ),
        (
            &["data:/run/secrets/a"],
            "/run/secrets in the container belongs to dark-factory",
        ),
        (
            &["/var/run/docker.sock:/x"],
            "the container engine's socket /var/run/docker.sock, which gives control of the host",
        ),
        (&["/:/x"], "the whole file system of the host"),
        (
            &["~/.ssh:/x"],
            "/home/.ssh to allow-mounts in config.toml of your own configuration folder",
        ),
        (&["/etc/ssl:/x"], "by which the machine itself is run"),
        (&[&inside], "the state folder"),
        (
            &[&around],
            "mount another folder, or move the state with --state-dir",
        ),
    ] {
        let flags: Vec<&str> = mounts.iter().flat_map(|mount| ["--mount", mount]).collect();
        refuses(
            &mut workshop.script(&flags, "exit 0"),
            2,
            &[mounts.last().unwrap().trim_end_matches("/x"), told],
        );
    }
    let state_dir = state.to_str().unwrap();
    let homeless = ["--state-dir", state_dir, "--mount", "~/x:/x"];
    refuses(
        workshop.script(&homeless, "exit 0").env_remove("HOME"),
        2,
        &["~ stands for nothing, because HOME is not set"],
    );
    let front_matter = "---\nmount:\n- {src: 'co:lon', dst: /x}\n---\nDo it.\n";
    workshop.project.write("x.md", front_matter);
    refuses(
        workshop.run(&[]).arg("x.md"),
        2,
        &["x.md:3:3: cannot mount co:lon:/x", "has a colon"],
    );
    nothing_ran(&workshop);
}

#[test]
fn the_whole_host_and_the_home_folder_are_no_project() {
    let workshop = Workshop::new();
    let home = workshop.installation.state_dir().with_file_name("home");
    fs::write(home.join("x.md"), "Do it.\n").unwrap();
    let way_out = "put the prompt into a folder of its own, or name another with --project";

    refuses(
        workshop.run(&[]).arg(home.join("x.md")),
        2,
        &["it holds your whole home folder", way_out],
    );
    refuses(
        workshop.run(&["--project", "/"]).arg(home.join("x.md")),
        2,
        &["/ cannot be the project", way_out],
    );
    nothing_ran(&workshop);
}

#[test]
fn the_same_file_is_run_once_at_a_time() {
    let workshop = Workshop::new();
    let running = Watched::of(&mut workshop.script(&["--json"], "write begun x; wait-file go"));
    wait_for(&workshop.project.path().join("begun"));
    let open = Ended::of(&mut workshop.command(&["ps", "--json"])).one();
    let id = open["run_id"].as_str().unwrap();

    let (taken, way_out) = (
        format!("is already being run, as run {id}"),
        format!("`dark-factory stop {id}`"),
    );
    refuses(&mut workshop.script(&[], "exit 0"), 2, &[&taken, &way_out]);
    workshop.project.write("go", "");
    let ended = running.ended();

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(
        Ended::of(&mut workshop.command(&["ps", "-a", "--json"]))
            .json()
            .len(),
        1
    );
    // By whatever way it is named.
    let mut twice = workshop.run(&[]);
    refuses(
        twice.args(["task.md", "./task.md"]),
        2,
        &["./task.md is given twice", "copy it to run it twice"],
    );
    assert_eq!(Ended::of(&mut workshop.script(&[], "exit 0")).code, 0);
}

#[test]
fn only_a_file_of_a_sensible_length_is_a_prompt_file() {
    let workshop = Workshop::new();
    let path = |name: &str| workshop.project.path().join(name);
    mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(path("socket")).unwrap();
    symlink("fifo", path("to-fifo")).unwrap();
    symlink("loop-b", path("loop-a")).unwrap();
    symlink("loop-a", path("loop-b")).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    File::create(path("huge.md"))
        .unwrap()
        .set_len(100 << 20)
        .unwrap();
    fs::create_dir(path("folder")).unwrap();
    let way_out =
        "help: write the prompt into a file, or give it on standard input and - as its name";

    for (file, told) in [
        (
            "fifo",
            &["prompt file fifo is a pipe, not a file", way_out][..],
        ),
        ("to-fifo", &["prompt file to-fifo is a pipe", way_out]),
        ("socket", &["prompt file socket is a socket", way_out]),
        ("/dev/zero", &["prompt file /dev/zero is a device", way_out]),
        ("/dev/stdin", &["prompt file /dev/stdin is a pipe", way_out]),
        ("/dev/fd/0", &["prompt file /dev/fd/0 is a pipe", way_out]),
        (
            "loop-a",
            &[
                "prompt file loop-a cannot be read",
                "lead back to themselves",
            ],
        ),
        (
            "dangling",
            &[
                "prompt file dangling cannot be read",
                "help: check its name",
            ],
        ),
        (
            "folder",
            &[
                "prompt file folder cannot be read",
                "help: name a file in it",
            ],
        ),
        (
            "README.md/x",
            &["prompt file README.md/x cannot be read", "Not a directory"],
        ),
        // Every user may open it, and nobody may read its first byte.
        (
            "/proc/self/mem",
            &["prompt file /proc/self/mem cannot be read", "help: make it"],
        ),
        (
            "huge.md",
            &[
                "huge.md: a prompt has at most 10 MiB",
                "help: let the agent read",
            ],
        ),
    ] {
        refuses(workshop.run(&[]).arg(file).stdin(Stdio::piped()), 2, told);
    }
    let twice = ["- is given twice", "help: standard input is one prompt"];
    refuses(workshop.run(&[]).args(["-", "-"]), 2, &twice);
    refuses(workshop.run(&[]).arg("-"), 2, &["-: the prompt is empty"]);
    nothing_ran(&workshop);
}

#[test]
fn a_name_that_would_drive_the_terminal_is_shown_as_pictures_everywhere() {
    let workshop = Workshop::new();
    let names = ["a\u{1b}[2J.md", "b\u{1b}]0;x\u{7}.md"];
    for name in names {
        workshop
            .project
            .write(name, for_agent("agent: command\n", "exit 0"));
    }

    let validated = Ended::of(workshop.command(&["config", "validate"]).args(names));
    let ran = Ended::of(workshop.run(&["--jobs", "2"]).args(names));

    assert_eq!(validated.code, 0, "{}", validated.stderr);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for text in [validated.stdout, ran.stdout, ran.stderr] {
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
        assert!(text.contains("a\u{241b}[2J.md"), "{text:?}");
    }
}

#[test]
fn names_and_values_of_any_bytes_and_length_are_refused_in_a_readable_message() {
    let workshop = Workshop::new();
    let long = "x".repeat(10_000);
    workshop.project.write("x.md", "Do it.\n");
    let not_utf8 = OsStr::from_bytes(b"no-\xff\x1b[31m.md");

    let told = ["cannot be read", "(10000 bytes)", "longer than any file's"];
    refuses(workshop.run(&[]).arg(&long), 2, &told);
    refuses(
        workshop.run(&[]).arg(not_utf8),
        2,
        &["prompt file no-\u{fffd}\u{241b}[31m.md cannot be read"],
    );
    let there = OsStr::from_bytes(b"is-\xff.md");
    fs::write(workshop.project.path().join(there), "Do it.\n").unwrap();
    refuses(
        workshop.run(&[]).arg(there),
        2,
        &["its path is not UTF-8", "rename it"],
    );
    for flag in [
        "--memory",
        "--timeout",
        "--network",
        "--user",
        "--env-file",
        "--mount",
        "--project",
    ] {
        refuses(&mut workshop.script(&[flag, &long], "exit 0"), 2, &[flag]);
    }
    refuses(
        &mut workshop.script(&["--model", &long], "exit 0"),
        2,
        &["not a model's name"],
    );
    refuses(
        &mut workshop.command(&["run", "--agent", "command", "--image", &long, "x.md"]),
        2,
        &["not an image reference"],
    );
    refuses(
        &mut workshop.command(&["run", "--image", "x", "--agent", &long, "x.md"]),
        2,
        &["there is no agent"],
    );
    for command in ["logs", "inspect", "stop", "wait", "attach"] {
        refuses(
            &mut workshop.command(&[command, &long]),
            3,
            &["there is no run"],
        );
    }
    nothing_ran(&workshop);
}

#[test]
fn with_json_every_error_is_one_object_on_standard_error_and_nothing_else_is_there() {
    let workshop = Workshop::new();
    workshop
        .project
        .write("bad.md", "---\nmemory: 8x\nhide-git: yes\n---\nDo it.\n");
    workshop
        .project
        .write("agent.md", "---\nagent: cluade\n---\nDo it.\n");
    let objects = |arguments: &[&str], code: i32| -> Vec<Value> {
        let ended = Ended::of(&mut workshop.command(arguments));
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (code, ""),
            "{arguments:?}: {}",
            ended.stderr
        );
        let lines = ended.stderr.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
            .collect()
    };

    let run = objects(&["run", "--json", "bad.md", "agent.md", "missing.md"], 2);
    let usage = objects(&["run", "--json", "--memroy", "1g", "bad.md"], 2);
    let command = objects(&["--json", "recove"], 2);
    let no_run = objects(&["inspect", "nosuchrun", "--json"], 3);
    let no_engine = objects(&["--host", "unix:///no/such", "prune", "--json"], 4);

    let place = |error: &Value| {
        let error = &error["error"];
        json!([
            error["file"],
            error["line"],
            error["column"],
            error["kind"],
            error["code"]
        ])
    };
    let places: Vec<Value> = run.iter().map(place).collect();
    assert_eq!(
        json!(places),
        json!([
            ["bad.md", 2, 9, "usage", 2],
            ["bad.md", 3, 11, "usage", 2],
            ["agent.md", 2, 8, "usage", 2],
            [null, null, null, "usage", 2],
        ])
    );
    assert_eq!(
        run[0]["error"]["message"],
        "memory must be a size such as 512m or 8g, or none, not \"8x\""
    );
    assert!(
        run[3]["error"]["help"]
            .as_str()
            .unwrap()
            .starts_with("check its name")
    );
    for (objects, kind, told) in [
        (&usage, "usage", "--memory"),
        (&command, "usage", "'recover'"),
        (&no_run, "not_found", "ps -a"),
        (&no_engine, "engine", "installed and running"),
    ] {
        assert_eq!(objects.len(), 1, "{objects:?}");
        assert_eq!(objects[0]["error"]["kind"], kind);
        let help = objects[0]["error"]["help"].as_str().unwrap();
        assert!(help.contains(told), "{help}");
    }
    nothing_ran(&workshop);
}

#[test]
fn with_json_all_that_is_told_of_a_run_is_objects() {
    let workshop = Workshop::new();

    let ended = Ended::of(&mut workshop.script(&["--json"], "print one"));
    let quiet = Ended::of(&mut workshop.script(&["--json", "--quiet"], "print one"));

    let run = ended.one();
    let told: Vec<Value> = ended
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    assert_eq!(told[0]["progress"]["run_id"], run["run_id"], "{told:?}");
    let said = told
        .iter()
        .find(|object| object["event"]["kind"]["text"] == "one");
    assert_eq!(said.unwrap()["run_id"], run["run_id"]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
}

#[test]
fn a_folder_without_git_is_a_project_and_so_is_one_inside_another() {
    let workshop = Workshop::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let bare = elsewhere.path().join("bare");
    fs::create_dir(&bare).unwrap();
    fs::write(bare.join("x.md"), "Do it.\n").unwrap();
    workshop
        .project
        .write("inner/.git/HEAD", "ref: refs/heads/main\n");
    workshop.project.write("inner/x.md", "Do it.\n");
    let files_of = |prompt: &Path| {
        let mut command = workshop.run(&["--json", "--quiet"]);
        command.arg(prompt).args(["--", "/bin/agent", "-e", "ls ."]);
        let ended = Ended::of(&mut command);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        attempt_text(&ended.one(), "raw.jsonl")
    };

    assert_eq!(files_of(&bare.join("x.md")), "x.md\n");
    assert_eq!(
        files_of(&workshop.project.path().join("inner/x.md")),
        ".git\nx.md\n"
    );
}

#[test]
fn an_engine_that_is_too_old_is_refused_with_both_versions() {
    let workshop = Workshop::new();
    let proxy = EngineProxy::new();
    proxy.next("HEAD /_ping", Fault::Answer(Instead::OldEngine));

    refuses(
        workshop
            .script(&[], "exit 0")
            .env("DOCKER_HOST", proxy.host()),
        4,
        &["its API is version 1.24, and 1."],
    );
    nothing_ran(&workshop);
}

#[test]
fn a_word_that_is_nearly_a_command_or_an_agent_is_answered_with_the_nearest() {
    let workshop = Workshop::new();
    workshop.project.write("x.md", "Do it.\n");
    let image = agent_image();

    for (arguments, told) in [
        (
            &["recove"][..],
            "tip: a similar subcommand exists: 'recover'",
        ),
        (
            &["daemon", "drian"],
            "tip: a similar subcommand exists: 'drain'",
        ),
        (
            &["run", "--memroy", "1g", "x.md"],
            "tip: a similar argument exists: '--memory'",
        ),
        (
            &["run", "--image", &image, "--agent", "comand", "x.md"],
            "did you mean command?",
        ),
    ] {
        refuses(&mut workshop.command(arguments), 2, &[told]);
    }
    nothing_ran(&workshop);
}

#[test]
fn what_is_far_too_long_is_not_repeated_whole() {
    let workshop = Workshop::new();
    let long = "k".repeat(10_000);
    workshop.project.write(
        "key.md",
        format!("---\n{long}: 1\nagent: {long}\nimage: x\n---\nDo it.\n"),
    );
    workshop.project.write(
        "type.md",
        format!("---\nhide-git: 1{}\n---\nDo it.\n", "0".repeat(10_000)),
    );
    workshop.project.write(
        "label.md",
        format!("---\nimage: x\nlabel: {{dark-factory.{long}: b}}\n---\nDo it.\n"),
    );

    for arguments in [
        &["key.md"][..],
        &["type.md"],
        &["label.md"],
        &["--image", &long, "x.md"],
        &["--memory", &long, "x.md"],
        &["--project", &long, "x.md"],
        &[&long],
        &[&format!("--{long}")],
    ] {
        for form in [&[][..], &["--json"]] {
            let ended = Ended::of(workshop.run(&[]).args(form).args(arguments));

            assert_eq!(ended.code, 2, "{}", ended.stderr);
            let longest = ended.stderr.lines().map(str::len).max();
            assert!(
                longest.is_some_and(|longest| longest < 1500),
                "{}",
                ended.stderr
            );
        }
    }
    let broken = Ended::of(workshop.command(&["config", "validate"]).arg(&long));
    assert!(broken.stderr.len() < 2000, "{}", broken.stderr);
    nothing_ran(&workshop);
}
