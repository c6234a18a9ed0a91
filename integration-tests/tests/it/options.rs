//! The options of `run`, as the agent sees them from inside and the engine from outside.
//!
//! Owns: what each flag and front matter key does to the container.
//! Reads: what the scripted agent prints; the engine's description of the container while it runs.
//! Never: tests a value that is refused; see `bad_input`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use integration_tests::{Project, agent_image};
use serde_json::{Value, json};

use crate::support::{Ended, Watched, Workshop, attempt_file, attempt_text, report, wait_for};

/// The agent says that it has begun, and goes on when the test says so.
const PAUSE: &str = "write begun x; wait-file go";

/// Runs a script that makes a pause; returns the container as the engine saw it then, and the run's end.
fn watched(workshop: &Workshop, flags: &[&str], script: &str) -> (Value, Ended) {
    let running = Watched::of(&mut workshop.script(flags, script));
    wait_for(&workshop.project.path().join("begun"));
    let container = workshop.container();
    workshop.project.write("go", "");
    (container, running.ended())
}

/// Runs a script and returns what it printed.
fn printed(workshop: &Workshop, flags: &[&str], script: &str) -> String {
    let flags = [&["--json"], flags].concat();
    let ended = Ended::of(&mut workshop.script(&flags, script));
    attempt_text(&ended.one(), "raw.jsonl")
}

fn list(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[test]
fn the_container_is_hardened_limited_and_labelled_and_has_nothing_that_was_not_asked_for() {
    let workshop = Workshop::new();
    let flags = [
        "--json",
        "--memory",
        "96m",
        "--cpus",
        "0.5",
        "--pids",
        "40",
        "--label",
        "team=blue",
        "--env",
        "A=b c",
        "--timeout",
        "1m",
    ];
    let inside = "id; pwd; env HOME; env A; write /tmp/x 1; write /home/agent/x 1; write /x 1; read begun; ls /home/agent";

    let (container, ended) = watched(&workshop, &flags, &format!("{PAUSE}; {inside}"));

    let run = ended.one();
    let lines = attempt_text(&run, "raw.jsonl");
    assert_eq!(
        lines,
        "uid=1000 gid=1000 cap_eff=0000000000000000 no_new_privs=1\n/workspace\n/home/agent\nb c\nxx\n"
    );
    assert_eq!(
        attempt_text(&run, "stderr.log"),
        "cannot write /x: Read-only file system (os error 30)\n"
    );

    let config = &container["Config"];
    assert_eq!(config["User"], "1000:1000");
    assert_eq!(config["WorkingDir"], "/workspace");
    assert_eq!(
        (&config["OpenStdin"], &config["Tty"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(config["StopSignal"], "SIGTERM");
    assert!(list(&config["Env"]).contains(&"A=b c"), "{config}");
    let id = run["run_id"].as_str().unwrap();
    let project = workshop
        .project
        .path()
        .file_name()
        .unwrap()
        .to_string_lossy();
    assert_eq!(
        container["Name"],
        format!("/{}-task-{id}-1", project.replace('.', "-"))
    );
    let labels = &config["Labels"];
    assert_eq!(labels["team"], "blue");
    assert_eq!(labels["dark-factory.project"], project.as_ref());
    assert_eq!(labels["dark-factory.prompt"], "task");
    assert_eq!(labels["dark-factory.attempt"], format!("{id}-1"));
    assert!(
        labels["dark-factory.owner"]
            .as_str()
            .is_some_and(|owner| !owner.is_empty()),
        "{labels}"
    );

    assert_eq!(config["NetworkDisabled"], true);
    let host = &container["HostConfig"];
    assert_eq!(list(&host["CapDrop"]), ["ALL"]);
    assert_eq!(list(&host["CapAdd"]), [""; 0]);
    assert!(
        list(&host["SecurityOpt"])
            .iter()
            .any(|option| option.starts_with("no-new-privileges")),
        "{host}"
    );
    for (key, value) in [
        ("ReadonlyRootfs", json!(true)),
        ("Privileged", json!(false)),
        ("AutoRemove", json!(false)),
        ("Memory", json!(96 << 20)),
        ("MemorySwap", json!(96 << 20)),
        ("NanoCpus", json!(500_000_000)),
        ("PidsLimit", json!(40)),
        ("PidMode", json!("")),
        ("UTSMode", json!("")),
        ("UsernsMode", json!("")),
        ("ExtraHosts", json!(null)),
        (
            "RestartPolicy",
            json!({ "Name": "no", "MaximumRetryCount": 0 }),
        ),
    ] {
        let shown = &host[key];
        let unset = key == "RestartPolicy" && shown["Name"] == "";
        assert!(*shown == value || unset, "{key}: {shown}");
    }
    assert_ne!(host["Init"], true);
    assert_ne!(host["IpcMode"], "host");
    assert_ne!(host["NetworkMode"], "host");
    assert_eq!(list(&host["Devices"]), [""; 0]);
    let tmpfs: Vec<&String> = host["Tmpfs"].as_object().unwrap().keys().collect();
    assert_eq!(tmpfs, ["/home/agent", "/tmp"]);

    let mut targets: Vec<(&str, bool)> = container["Mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| {
            (
                mount["Destination"].as_str().unwrap(),
                mount["RW"].as_bool().unwrap(),
            )
        })
        .collect();
    targets.sort_unstable();
    assert_eq!(
        targets,
        [
            ("/.dark-factory/attempt", false),
            ("/.dark-factory/init", false),
            ("/workspace", true)
        ]
    );
}

#[test]
fn a_project_of_roots_makes_the_agent_root_without_any_power_and_that_is_said() {
    let workshop = Workshop::new();
    let script = "env IS_SANDBOX; id; begin; result success done";
    let prompt = format!("---\nagent: claude\n---\n```script\n{script}\n```\n");
    let file = workshop.project.write("root.md", prompt);
    chown(workshop.project.path(), Some(0), Some(0)).expect("this test needs root");
    let image = agent_image();
    let flags = [
        "run",
        "--json",
        "--image",
        &image,
        "--env",
        "ANTHROPIC_API_KEY=x",
    ];

    let ended = Ended::of(workshop.command(&flags).arg(&file));
    let other = Ended::of(
        workshop
            .command(&flags)
            .args(["--user", "1234:4321"])
            .arg(&file),
    );

    assert_eq!(
        (ended.code, other.code),
        (0, 0),
        "{}{}",
        ended.stderr,
        other.stderr
    );
    let notice = r#"{"note":{"message":"the project belongs to root: the agent runs as uid 0 without capabilities; --user UID:GID changes that"}}"#;
    assert!(ended.stderr.contains(notice), "{}", ended.stderr);
    let run = ended.one();
    let raw = attempt_text(&run, "raw.jsonl");
    assert!(
        raw.starts_with("1\nuid=0 gid=0 cap_eff=0000000000000000 no_new_privs=1\n"),
        "{raw}"
    );
    assert_eq!(report(&run)["root_owner"], true);

    let run = other.one();
    let raw = attempt_text(&run, "raw.jsonl");
    assert!(
        raw.starts_with("IS_SANDBOX is not set\nuid=1234 gid=4321 "),
        "{raw}"
    );
    assert!(
        !other.stderr.contains("belongs to root"),
        "{}",
        other.stderr
    );
    assert_eq!(report(&run)["root_owner"], false);
}

#[test]
fn an_open_network_reaches_the_host_and_none_reaches_nothing() {
    let workshop = Workshop::new();
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let address = format!(
        "host.docker.internal:{}",
        listener.local_addr().unwrap().port()
    );
    let script = format!("connect {address}; connect 1.1.1.1:80");

    let open = printed(
        &workshop,
        &["--network", "open"],
        &format!("connect {address}"),
    );
    let none = printed(&workshop, &["--network", "none"], &script);

    assert_eq!(open, format!("connect {address} ok\n"));
    let lines: Vec<&str> = none.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines.iter().all(|line| line.contains(" refused: ")),
        "{none}"
    );
}

#[test]
fn git_is_hidden_whether_it_is_a_folder_or_a_file() {
    let workshop = Workshop::new();
    let worktree = Workshop::new();
    fs::remove_dir_all(worktree.project.path().join(".git")).unwrap();
    worktree.project.write(".git", "gitdir: /nowhere\n");

    let visible = printed(&workshop, &[], "ls .git; read README.md");
    let hidden = printed(&workshop, &["--hide-git"], "ls .git; read README.md");
    let hidden_file = printed(&worktree, &["--hide-git"], "read .git; read README.md");

    assert!(
        visible.contains("HEAD\n") && visible.ends_with("# A project\n"),
        "{visible}"
    );
    assert_eq!(hidden, "# A project\n");
    assert_eq!(hidden_file, "# A project\n");
    assert_eq!(worktree.project.read(".git"), "gitdir: /nowhere\n");
}

#[test]
fn mounts_and_environment_reach_the_agent_as_they_were_asked_for() {
    let workshop = Workshop::new();
    let data = Project::new();
    data.write("in", "from the host\n");
    workshop
        .project
        .write("sub/relative", "below the project\n");
    workshop.project.write(
        "vars.env",
        "# comment\nFROM_FILE=a=b \"c\"\nBOTH=file\nFROM_HOST\n",
    );
    let path = data.path().to_str().unwrap();
    let (rw, ro) = (format!("{path}:/data"), "$DATA/in:/input:ro");
    let flags = [
        "--json",
        "--mount",
        &rw,
        "--mount",
        ro,
        "--mount",
        "sub/relative:/relative",
        "--env-file",
        "vars.env",
        "--env",
        "BOTH=flag",
        "--env",
        "TAKEN",
        "--env",
        "EMPTY=",
    ];
    let script = "read /data/in; read /input; read /relative; write /data/out yes; write /input no; \
                  env FROM_FILE; env BOTH; env FROM_HOST; env TAKEN; env EMPTY; env NOT_ASKED_FOR";

    let ended = Ended::of(
        workshop
            .script(&flags, script)
            .env("DATA", path)
            .env("FROM_HOST", "host's")
            .env("TAKEN", "taken over")
            .env("NOT_ASKED_FOR", "x"),
    );

    let run = ended.one();
    assert_eq!(
        attempt_text(&run, "raw.jsonl"),
        "from the host\nfrom the host\nbelow the project\na=b \"c\"\nflag\nhost's\ntaken over\n\nNOT_ASKED_FOR is not set\n",
        "{}",
        ended.stderr
    );
    assert_eq!(data.read("out"), "yes");
    assert_eq!(data.read("in"), "from the host\n");
    assert_eq!(
        attempt_text(&run, "stderr.log"),
        "cannot write /input: Read-only file system (os error 30)\n"
    );
}

#[test]
fn the_project_is_the_git_top_level_around_the_file_or_the_one_that_was_named() {
    let workshop = Workshop::new();
    let other = Project::new();
    other.write("other", "");
    let file = workshop.project.write("deep/er/x.md", "Look around.\n");
    let command = |flags: &[&str]| {
        let mut command = workshop.run(&["--json"]);
        // Where the command was typed does not matter.
        command.current_dir("/").args(flags).arg(&file).args([
            "--",
            "/bin/agent",
            "-e",
            "pwd; ls .",
        ]);
        let run = Ended::of(&mut command).one();
        (attempt_text(&run, "raw.jsonl"), run["file"].clone())
    };

    let found = command(&[]);
    let named = command(&["--project", other.path().to_str().unwrap()]);

    let file = json!(file.to_str().unwrap());
    assert_eq!(
        found,
        (
            "/workspace\n.git\nREADME.md\ndeep\n".to_owned(),
            file.clone()
        )
    );
    assert_eq!(
        named,
        ("/workspace\n.git\nREADME.md\nother\n".to_owned(), file)
    );
}

#[test]
fn secrets_are_files_in_the_container_and_nowhere_else() {
    const SECRETS: [&str; 2] = ["s3cr3t-of-the-host", "s3cr3t-of-a-file"];
    let workshop = Workshop::new();
    workshop.project.write("token", format!("{}\n", SECRETS[1]));
    let prompt = "---\nsecrets: {one: 'env:ONE', two: 'file:token'}\n---\nUse them.\n";
    let file = workshop.project.write("secret.md", prompt);
    let script = format!(
        "{PAUSE}; check /run/secrets/one {}; check /run/secrets/two {}; ls /run/secrets; write /run/secrets/one x; exit 0",
        "s3cr3t-of-the-ho", "s3cr3t-of-a-fi"
    );
    let mut command = workshop.run(&["--json"]);
    command
        .env("ONE", SECRETS[0])
        .arg(file)
        .args(["--", "/bin/agent", "-e", &script]);

    let running = Watched::of(&mut command);
    wait_for(&workshop.project.path().join("begun"));
    let container = workshop.container();
    workshop.project.write("go", "");
    let ended = running.ended();

    let run = ended.one();
    assert_eq!(attempt_text(&run, "raw.jsonl"), "one\ntwo\n");
    assert_eq!(
        attempt_text(&run, "stderr.log"),
        "cannot write /run/secrets/one: Read-only file system (os error 30)\n"
    );
    let launch = attempt_text(&run, "launch.json");
    assert_eq!(
        serde_json::from_str::<Value>(&launch).unwrap()["secrets"],
        json!(["one", "two"])
    );
    let inspect =
        Ended::of(&mut workshop.command(&["inspect", "--json", run["run_id"].as_str().unwrap()]));
    for place in [
        &launch,
        &container.to_string(),
        &inspect.stdout,
        &attempt_text(&run, "report.json"),
        &ended.stderr,
    ] {
        assert!(
            !SECRETS.iter().any(|secret| place.contains(secret)),
            "{place}"
        );
    }
    assert!(
        !contains(&workshop.installation.state_dir(), SECRETS[0].as_bytes()),
        "a secret stayed on the disk"
    );
}

/// Returns whether a file in a folder has some bytes in it.
fn contains(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            contains(&path, bytes)
        } else {
            path.is_file()
                && fs::read(&path)
                    .unwrap()
                    .windows(bytes.len())
                    .any(|window| window == bytes)
        }
    })
}

#[test]
fn the_prompt_reaches_the_agent_byte_for_byte_and_cannot_be_changed() {
    let workshop = Workshop::new();
    let body = "\n`backticks` $(id) $HOME \"double\" 'single' \\n é ✔ \t\r\n---\nkey: value\n---\n$'x'; rm -rf /\n  end";
    let file = workshop.project.write(
        "odd name; $(id).md",
        format!("---\nenv: {{A: b}}\n---\n{body}"),
    );
    let path = "/.dark-factory/attempt/prompt.md";
    let script = format!("prompt; env DARK_FACTORY_PROMPT_FILE; read {path}; write {path} no");

    let ended =
        Ended::of(
            workshop
                .run(&["--json"])
                .arg(&file)
                .args(["--", "/bin/agent", "-e", &script]),
        );

    let run = ended.one();
    assert_eq!(
        attempt_text(&run, "raw.jsonl"),
        format!("{body}{path}\n{body}"),
        "{}",
        ended.stderr
    );
    assert!(attempt_text(&run, "stderr.log").contains("Read-only file system"));
    assert_eq!(run["file"], file.to_str().unwrap());
}

#[test]
fn what_the_container_can_see_of_the_attempt_is_in_a_folder_that_only_its_owner_can_enter() {
    let workshop = Workshop::new();

    let ended = Ended::of(&mut workshop.script(&["--json"], "exit 0"));

    let run = ended.one();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&attempt_file(&run, "")), 0o700);
    assert_eq!(mode(&workshop.installation.state_dir()), 0o700);
    for name in [
        "raw.jsonl",
        "stderr.log",
        "run.log",
        "events.jsonl",
        "launch.json",
        "report.json",
    ] {
        assert_eq!(mode(&attempt_file(&run, name)) & 0o077, 0, "{name}");
    }
}

#[test]
fn output_comes_by_the_engines_attach_stream_where_that_is_asked_for() {
    let workshop = Workshop::new();
    let script = "print begin; stderr oops; bytes ff0d0a; spew 200k; print-raw end; exit 3";

    let ended = Ended::of(&mut workshop.script(&["--json", "--transport", "attach"], script));

    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let run = ended.one();
    assert_eq!(
        (&run["outcome"], &run["exit_code"], &run["log"]),
        (&json!("failed"), &json!(3), &json!("complete"))
    );
    let raw = fs::read(attempt_file(&run, "raw.jsonl")).unwrap();
    assert!(
        raw.starts_with(b"begin\n\xff\r\n") && raw.ends_with(b"end"),
        "{} bytes",
        raw.len()
    );
    assert!(raw.len() > 200 << 10, "{} bytes", raw.len());
    assert_eq!(attempt_text(&run, "stderr.log"), "oops\n");
    let report = report(&run);
    assert_eq!(
        (&report["transport"], &report["unsealed"]),
        (&json!("attach"), &json!(true))
    );
    assert_eq!(report["exit"]["source"], "engine");
}

#[test]
fn a_lack_of_memory_is_told_without_our_helper_too() {
    let workshop = Workshop::new();
    let flags = ["--json", "--transport", "attach", "--memory", "32m"];

    let ended = Ended::of(&mut workshop.script(&flags, "print begin; allocate 128m"));

    assert_eq!(ended.code, 137, "{}", ended.stderr);
    let run = ended.one();
    assert_eq!(
        (&run["outcome"], &run["exit_code"]),
        (&json!("out_of_memory"), &Value::Null)
    );
    assert_eq!(attempt_text(&run, "raw.jsonl"), "begin\n");
}

#[test]
fn the_seed_profile_is_the_seeds_container() {
    let workshop = Workshop::new();
    let flags = ["--json", "--profile", "seed", "--user", "1000:1000"];
    // The image says where its entrypoint starts.
    let script = "pwd; write /workspace/begun x; wait-file /workspace/go; env DARK_FACTORY_PROMPT_FILE; read /tmp/prompt.md";

    let (container, ended) = watched(&workshop, &flags, script);

    let run = ended.one();
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(
        attempt_text(&run, "raw.jsonl"),
        "/\n/tmp/prompt.md\nDo what the script says.\n"
    );
    let host = &container["HostConfig"];
    let mut caps = list(&host["CapAdd"]);
    caps.sort_unstable();
    assert_eq!(
        caps.iter()
            .map(|cap| cap.trim_start_matches("CAP_"))
            .collect::<Vec<_>>(),
        ["NET_ADMIN", "NET_RAW"]
    );
    assert_eq!(list(&host["CapDrop"]), [""; 0]);
    assert_eq!(
        (
            &host["ReadonlyRootfs"],
            &host["Memory"],
            &host["Privileged"]
        ),
        (&json!(false), &json!(0), &json!(false))
    );
    assert!(
        !container["Config"]["Env"].to_string().contains("HOME="),
        "{}",
        container["Config"]["Env"]
    );
    let launch: Value = serde_json::from_str(&attempt_text(&run, "launch.json")).unwrap();
    assert_eq!(launch["profile"], "seed");
}

#[test]
fn the_seed_profile_runs_as_the_images_own_user_unless_another_is_named() {
    let workshop = Workshop::new();

    let images = printed(&workshop, &["--profile", "seed"], "id");
    let named = printed(&workshop, &["--profile", "seed", "--user", "0:7"], "id");

    assert!(images.starts_with("uid=0 gid=0 "), "{images}");
    assert!(named.starts_with("uid=0 gid=7 "), "{named}");
}
