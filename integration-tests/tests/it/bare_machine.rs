//! A machine without a container engine: what a newcomer does there, by the embedded sandbox, as root and as a user.
//!
//! Owns: the machine: a mount namespace in which no engine's socket is where it usually is.
//! Reads: what the commands print; the folders of sandboxes.
//! Never: names an engine, unless that is what is tried.

use std::fs;
use std::process::Command;

use integration_tests::{Installation, PROJECT_OWNER};
use serde_json::{Value, json};

use crate::doctor::{PROBES, assert_probe, failed, probe};
use crate::support::{Ended, Person, Workshop, execute, without_engines};

/// Somebody whom no file of the machine knows.
const STRANGER: u32 = 54_321;
const KEY: &str = "sk-nobody-may-see-this";
/// What an agent of any kind of image can execute.
const COMMAND: &str = "command: [/.dark-factory/init, agent, -e, 'print x']";

/// Checks the first words of the rows of a demo's table.
fn assert_rows(ended: &Ended, third: [&str; 2]) {
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let table = ended.stdout.split("\n\n").last().unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().take(2).collect())
        .collect();
    let expected = [
        ["greeting.md", "succeeded"],
        ["impossible.md", "failed"],
        third,
    ];
    assert_eq!(rows, expected, "{table}");
}

/// Returns the one line that says which engine is used.
fn engine_line(ended: &Ended) -> &str {
    let told = ended.stderr.lines();
    let lines: Vec<&str> = told.filter(|line| line.starts_with("engine:")).collect();
    let [line] = lines.as_slice() else {
        panic!("not one line: {}", ended.stderr)
    };
    line
}

#[test]
fn the_demo_finds_the_sandbox_by_itself_and_says_what_it_does_not_keep_apart() {
    let installation = Installation::new();
    let folder = tempfile::tempdir().unwrap();
    let mut demo = installation.dark_factory();
    demo.arg("demo").env("TMPDIR", folder.path());

    let ended = Ended::of(&mut without_engines(&demo));

    assert_rows(&ended, ["hungry.md", "out_of_memory"]);
    let line = engine_line(&ended);
    assert!(line.contains("the embedded sandbox"), "{line}");
    assert!(line.contains("it shares the machine's kernel"), "{line}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_demo_of_a_stranger_ends_its_third_prompt_by_its_deadline_and_says_why() {
    let installation = Installation::new();
    let person = Person::at(&installation, STRANGER);
    let mut demo = installation.dark_factory();
    demo.arg("demo").current_dir("/");

    let ended = Ended::of(&mut without_engines(&person.runs_freely(&demo)));

    assert_rows(&ended, ["endless.md", "timed_out"]);
    let line = engine_line(&ended);
    let says = "keeps no limit of memory and cpus here";
    assert!(line.contains(says), "{line}");
    assert!(ended.stdout.contains("3s"), "{}", ended.stdout);
    assert_eq!(fs::read_dir(person.temporary()).unwrap().count(), 0);
}

/// A prompt file that runs on any machine.
fn write_task(workshop: &Workshop, more: &str) {
    let text = format!("---\nagent: command\nimage: host\n{more}{COMMAND}\n---\nDo it.\n");
    workshop.project.write("task.md", text);
}

fn doctor(workshop: &Workshop, arguments: &[&str]) -> Command {
    workshop.command(&[&["doctor", "--json"], arguments].concat())
}

/// Returns the names of the sandboxes that are left.
fn sandboxes(workshop: &Workshop) -> Vec<String> {
    let folder = workshop.installation.state_dir().join("sandboxes");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

#[test]
fn doctor_tries_the_sandbox_that_is_found_and_leaves_nothing() {
    let workshop = Workshop::new();
    write_task(&workshop, "");

    let ended = Ended::of(&mut without_engines(&doctor(&workshop, &["task.md"])));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let probes = ended.json();
    let names: Vec<&str> = probes
        .iter()
        .map(|probe| probe["probe"].as_str().unwrap())
        .collect();
    let [head, tail] = [&PROBES[..3], &PROBES[3..]];
    assert_eq!(names, [head, &["namespaces"], tail].concat());
    for (name, words) in [
        ("engine", &["sandbox", "nothing names an engine"][..]),
        ("version", &[]),
        ("setup", &["run by root", "memory limit by control groups"]),
        (
            "namespaces",
            &["a sandbox was made", "root needs no user namespace"],
        ),
        ("limits", &["memory with swap, processes and CPU time"]),
        ("prompt", &["agent command"]),
        ("image", &["host is there"]),
        ("boot", &["its log is complete"]),
        ("mount", &[]),
        ("owner", &["1000:1000"]),
        ("auth", &[]),
        ("guard", &[]),
        ("leftovers", &[]),
        ("state folder", &[]),
        ("git", &[]),
    ] {
        assert_probe(&ended, name, "ok", words);
    }
    assert_probe(&ended, "agent starts", "skipped", &["any program"]);
    assert_ne!(probe(&ended, "engine's disk")["status"], "skipped");
    assert_eq!(sandboxes(&workshop), [""; 0]);
}

#[test]
fn doctor_says_of_a_users_sandbox_which_limits_are_not_kept_and_what_would_keep_them() {
    let workshop = Workshop::new();
    let person = Person::at(&workshop.installation, PROJECT_OWNER);
    write_task(&workshop, "");

    let ended = Ended::of(&mut person.runs(&doctor(&workshop, &["task.md"])));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let words = ["user namespaces are allowed", "1000:1000 and nobody else"];
    assert_probe(&ended, "namespaces", "ok", &words);
    let words = [
        "processes are kept within limits",
        "no limit is kept on memory with swap, CPU time",
        "control groups",
    ];
    assert_probe(&ended, "limits", "warning", &words);
    for name in ["image", "boot", "mount", "owner", "state folder"] {
        assert_probe(&ended, name, "ok", &[]);
    }
    assert_eq!(sandboxes(&workshop), [""; 0]);
}

#[test]
fn doctor_says_where_a_file_asks_for_a_limit_that_is_not_kept() {
    let workshop = Workshop::new();
    let person = Person::at(&workshop.installation, PROJECT_OWNER);
    write_task(&workshop, "memory: 1g\n");

    let ended = Ended::of(&mut person.runs(&doctor(&workshop, &["task.md"])));

    assert_eq!(ended.code, 2, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(failed(&ended), ["prompt"]);
    assert_probe(&ended, "prompt", "failed", &["task.md:4", "limit memory"]);
    assert_probe(&ended, "boot", "ok", &[]);
}

#[test]
fn doctor_says_what_forbids_user_namespaces_and_how_they_are_allowed() {
    let workshop = Workshop::new();
    let doctor = doctor(&workshop, &["--engine", "sandbox", "--agent", "command"]);
    // In a user namespace of its own somebody without capabilities is forbidden to make another one.
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && \
                  exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs \"$@\"";
    let mut forbidden = Command::new("unshare");
    forbidden.args(["--user", "--map-root-user", "sh", "-c", forbid, "sh"]);
    execute(&mut forbidden, &doctor);
    forbidden.current_dir("/");

    let ended = Ended::of(&mut forbidden);

    assert_eq!(ended.code, 4, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(failed(&ended), ["namespaces"]);
    let words = [
        "make a user namespace",
        "sysctl -w user.max_user_namespaces=10000",
    ];
    assert_probe(&ended, "namespaces", "failed", &words);
    assert_probe(&ended, "boot", "skipped", &["no container can be started"]);
}

#[test]
fn doctor_without_a_file_tries_the_machines_own_system() {
    let workshop = Workshop::new();

    let ended = Ended::of(&mut without_engines(&doctor(
        &workshop,
        &["--agent", "command"],
    )));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_probe(&ended, "image", "ok", &["host is there"]);
}

#[test]
fn an_agent_that_the_machine_does_not_have_is_told_with_where_a_sandbox_looks_for_it() {
    let workshop = Workshop::new();
    let arguments = ["--agent", "gemini", "--env", "GEMINI_API_KEY=x"];

    let ended = Ended::of(&mut without_engines(&doctor(&workshop, &arguments)));

    assert_eq!(ended.code, 2, "{}{}", ended.stdout, ended.stderr);
    let words = [
        "gemini does not start in host",
        "install it where the sandbox sees it",
    ];
    assert_probe(&ended, "agent starts", "failed", &words);
}

/// Returns what `explain` says in the sandbox of a prompt file with a secret.
fn explained(workshop: &Workshop, flags: &[&str]) -> Ended {
    write_task(
        workshop,
        &format!("env: {{MY_TOKEN: {KEY}}}\nmemory: 64m\nnetwork: none\n"),
    );
    let explain = workshop.command(&[&["explain", "task.md"], flags].concat());
    let ended = Ended::of(&mut without_engines(&explain));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended
}

#[test]
fn explain_shows_the_sandbox_and_makes_none() {
    let workshop = Workshop::new();

    let ended = explained(&workshop, &["--json"]);

    let all = ended.one();
    assert_eq!(all["spec"]["engine"], "sandbox");
    assert_eq!(
        (&all["create"], &all["docker_run"]),
        (&Value::Null, &Value::Null)
    );
    let sandbox = &all["sandbox"];
    assert_eq!(
        [&sandbox["root"], &sandbox["network"], &sandbox["uid"]],
        [&json!("host"), &json!("loopback"), &json!(PROJECT_OWNER)]
    );
    let project = workshop.project.path().canonicalize().unwrap();
    let bind = json!({ "source": project, "target": "/workspace", "access": "read_write" });
    let binds = sandbox["binds"].as_array().unwrap();
    assert!(binds.contains(&bind), "{binds:?}");
    let settings = sandbox["limits"]["settings"].as_array().unwrap();
    let is_memory = |setting: &&Value| {
        let file = setting["file"].as_str().unwrap();
        file.ends_with("memory.max") || file.ends_with("memory.limit_in_bytes")
    };
    let memory = settings.iter().find(is_memory).unwrap();
    assert_eq!(memory["value"], (64 << 20).to_string());
    let groups = sandbox["limits"]["cgroups"].as_array().unwrap();
    for group in groups {
        assert!(!fs::exists(group.as_str().unwrap()).unwrap(), "{group}");
    }
    let notes = all["notes"].to_string();
    for words in [
        "engine: the embedded sandbox",
        "memory limit: by control groups",
        "image: host",
        "no opt-out in a sandbox",
        "masked: MY_TOKEN",
    ] {
        assert!(notes.contains(words), "{words:?} is not in {notes}");
    }
    assert!(!ended.stdout.contains(KEY), "{}", ended.stdout);
    assert!(!workshop.installation.state_dir().exists());
}

#[test]
fn explain_reveals_a_sandboxs_environment_and_has_no_docker_line_for_people() {
    let workshop = Workshop::new();

    let hidden = explained(&workshop, &[]);
    let shown = explained(&workshop, &["--reveal"]);

    assert!(!hidden.stdout.contains(KEY), "{}", hidden.stdout);
    assert!(shown.stdout.contains(&format!("\"MY_TOKEN\": \"{KEY}\"")));
    for ended in [hidden, shown] {
        for words in ["# The sandbox\n{", "There is no such line"] {
            assert!(ended.stdout.contains(words), "{}", ended.stdout);
        }
        assert!(!ended.stdout.contains("docker run"), "{}", ended.stdout);
    }
}
