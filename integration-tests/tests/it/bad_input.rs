//! Prompt files and values that are wrong: each kind has its exit code, one message, and leaves nothing behind.
//!
//! Owns: the messages of bad prompt files, flags, mounts and projects.
//! Reads: standard error; the list of runs.
//! Never: repeats the rules' own unit tests; one case of each kind is enough here.

use std::fs;
use std::process::Command;

use integration_tests::agent_image;
use serde_json::json;

use crate::support::{Ended, Watched, Workshop, attempt_text, wait_for};

/// Checks that a command is refused with this exit code and that its one message tells all of this.
#[track_caller]
pub(crate) fn refuses(command: &mut Command, code: i32, told: &[&str]) {
    let ended = Ended::of(command);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (code, ""),
        "{command:?}: {}",
        ended.stderr
    );
    let errors = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .count();
    assert_eq!(errors, 1, "{command:?}: {}", ended.stderr);
    for told in told {
        assert!(
            ended.stderr.contains(told),
            "{command:?}: {told:?} is not in {}",
            ended.stderr
        );
    }
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
    write(
        "type.md",
        b"---\nimage: x\ntimeout: [5]\nmemory: 8x\n---\nDo it.\n",
    );
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
                "type.md:3:10: timeout must be a duration with a unit, such as 90s, 30m or 1h30m, not a list",
                "\n  3 | timeout: [5]\n    |          ^",
                "type.md:4:9: memory must be a size such as 512m or 8g, not \"8x\"",
                "\n  4 | memory: 8x\n    |         ^^\n",
            ],
        ),
    ] {
        refuses(workshop.run(&[]).arg(file), 2, told);
    }
    let image = agent_image();
    let unknown = [
        "agent.md:2:8: there is no agent \"cluade\"; there are claude, codex, command; did you mean claude?",
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

    let ended = Ended::of(workshop.run(&["--json"]).arg("x.md"));

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let warning = "warning: x.md:2:1: the key memroy is not known and does nothing\n  2 | memroy: 64m\n    | ^^^^^^\n  help: did you mean memory?\n";
    assert!(ended.stderr.contains(warning), "{}", ended.stderr);
    assert_eq!(attempt_text(&ended.one(), "raw.jsonl"), "done\n");
}

#[test]
fn a_value_that_a_flag_does_not_take_is_refused_with_one_that_it_does() {
    let workshop = Workshop::new();
    for (flags, told) in [
        (
            &["--memory", "8x"][..],
            "--memory must be a size such as 512m or 8g, not \"8x\"",
        ),
        (&["--memory", "1k"], "--memory: memory must be at least 6m"),
        (
            &["--cpus", "0"],
            "--cpus must be a number of CPUs above 0, such as 2 or 0.5, not \"0\"",
        ),
        (
            &["--timeout", "5"],
            "--timeout must be a duration with a unit, such as 90s, 30m or 1h30m, not \"5\"",
        ),
        (
            &["--pids=-1"],
            "--pids must be a whole number such as 512, not \"-1\"",
        ),
        (&["--pids", "0"], "--pids: pids must be at least 1, not 0"),
        (
            &["--network", "host"],
            "--network must be none or open, not \"host\"",
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
        (&["~/.ssh:/x"], "your SSH keys"),
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
