//! `explain`: what `run` would launch, in three forms that mean the same container.
//!
//! Owns: what the command shows, hides, and leaves alone.
//! Reads: its output; what the engine says of containers made from it.
//! Never: starts what was explained.

use std::fs;
use std::process::{Command, Stdio};

use integration_tests::{agent_image, engine_api};
use serde_json::{Value, json};

use crate::scene::docker;
use crate::support::{Ended, Workshop, for_agent};

/// An engine that nobody has.
const NOWHERE: &str = "unix:///nowhere/docker.sock";

/// Returns what `explain --json` says of a prompt file.
fn explained(workshop: &Workshop, file: &str, flags: &[&str]) -> Value {
    let ended = Ended::of(&mut workshop.command(&[&["explain", "--json", file], flags].concat()));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.one()
}

/// Returns the docker line that `explain` prints, which may have line breaks in it.
fn docker_line(workshop: &Workshop, file: &str, flags: &[&str]) -> String {
    let ended = Ended::of(&mut workshop.command(&[&["explain", file], flags].concat()));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let (_, line) = ended
        .stdout
        .split_once("# The same container by the command line\n")
        .expect("the line is there");
    line.to_owned()
}

fn notes(explained: &Value) -> Vec<&str> {
    let notes = explained["notes"].as_array().expect("notes");
    notes.iter().filter_map(Value::as_str).collect()
}

/// Containers that a test made; they go with it.
#[derive(Default)]
struct Made(Vec<String>);

impl Made {
    /// Makes a container from a docker line as a person would, but for starting it; returns it as the engine sees it.
    fn by_shell(&mut self, line: &str) -> Value {
        let line = line.replacen("docker run", "docker create", 1);
        let mut shell = Command::new("sh");
        let created = Ended::of(shell.args(["-c", &line]));
        assert_eq!(created.code, 0, "{line}\n{}", created.stderr);
        self.inspect(created.stdout.trim())
    }

    /// Makes a container from a create request.
    fn by_request(&mut self, request: &Value) -> Value {
        let id = engine_api::create_container(request);
        self.inspect(&id)
    }

    /// Returns what decides how a container runs, without what differs between any two of them.
    fn inspect(&mut self, id: &str) -> Value {
        self.0.push(id.to_owned());
        let inspected = docker(&["container", "inspect", id]);
        let mut all: Value = serde_json::from_str(&inspected).expect("JSON");
        let mut container = all[0].take();
        container["Config"]["Hostname"].take();
        for field in container["HostConfig"]
            .as_object_mut()
            .expect("an object")
            .values_mut()
        {
            // The command line sends empty lists for what nobody asked for.
            if *field == json!([]) || *field == json!({}) {
                field.take();
            }
        }
        // The command line keeps mounts in a map, so their order is another one each time.
        for pointer in ["/HostConfig/Binds", "/Config/Env"] {
            if let Some(values) = container.pointer_mut(pointer).and_then(Value::as_array_mut) {
                values.sort_by_key(ToString::to_string);
            }
        }
        let host = &mut container["HostConfig"];
        let removal = (host["AutoRemove"].take(), host["Init"].take());
        assert!(
            removal == (json!(true), Value::Null) || removal == (json!(false), json!(false)),
            "{removal:?}"
        );
        json!([container["Config"].take(), container["HostConfig"].take()])
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for id in &self.0 {
            docker(&["rm", "--force", id]);
        }
    }
}

#[test]
fn the_docker_line_run_by_a_shell_makes_the_container_of_the_create_request() {
    let workshop = Workshop::new();
    let odd = "it's \"a\" `b` $HOME \\ ünï 日本\n  and\ta second line\n";
    workshop.project.write("mounted dir/it's ünï/x", "");
    let front_matter = format!(
        "agent: command\nimage: {}\nenv: {}\nlabel: {}\nmount: [{}]\nhide-git: true\nnetwork: none\n",
        agent_image(),
        json!({ "ODD": odd, "EMPTY": "" }),
        json!({ "odd": odd }),
        json!({ "src": "mounted dir/it's ünï", "dst": "/it's ünï", "read_only": true }),
    );
    let prompt = for_agent(&front_matter, "print \"it's\"\nprint '$HOME'\n");
    workshop.project.write("odd name's prompt.md", prompt);
    let mut made = Made::default();

    let line = docker_line(&workshop, "odd name's prompt.md", &["--memory", "64m"]);
    let request = explained(&workshop, "odd name's prompt.md", &["--memory", "64m"]);

    let by_shell = made.by_shell(&line);
    let by_request = made.by_request(&request["create"]);
    assert_eq!(by_shell, by_request);
    let env = by_request[0]["Env"].as_array().expect("an environment");
    assert!(env.contains(&json!(format!("ODD={odd}"))), "{env:?}");
}

#[test]
fn the_seeds_container_and_a_hardened_claude_are_explained_the_same_way() {
    let workshop = Workshop::new();
    workshop.project.write("p.md", "Do it.\n");
    let image = agent_image();
    let mut made = Made::default();

    for flags in [
        &[
            "--profile",
            "seed",
            "--agent",
            "command",
            "--",
            "/bin/agent",
        ][..],
        &["--env", "ANTHROPIC_API_KEY=k", "--model", "m"],
    ] {
        let flags = [&["--image", &image, "--reveal"], flags].concat();
        let by_shell = made.by_shell(&docker_line(&workshop, "p.md", &flags));
        let by_request = made.by_request(&explained(&workshop, "p.md", &flags)["create"]);
        // The lines have the same name.
        docker(&["rm", &made.0.remove(0)]);

        assert_eq!(by_shell, by_request, "{flags:?}");
    }
}

#[test]
fn nothing_is_made_and_nothing_is_started() {
    let workshop = Workshop::new();
    workshop.project.write("p.md", for_agent("", "write x x"));

    let explained = explained(
        &workshop,
        "p.md",
        &["--agent", "command", "--image", &agent_image()],
    );

    assert_eq!(explained["spec"]["image"], agent_image());
    assert!(!workshop.installation.state_dir().exists());
    assert!(!workshop.project.path().join("x").exists());
    assert_eq!(
        fs::read_dir(workshop.installation.folder().join("home"))
            .expect("the home")
            .count(),
        0
    );
}

#[test]
fn an_engine_that_is_down_leaves_only_what_it_would_say_unknown() {
    let workshop = Workshop::new();
    workshop.project.write("p.md", for_agent("", "print x"));
    let flags = ["--agent", "command", "--image", "i"];
    let arguments = [&["explain", "p.md", "--json"], flags.as_slice()].concat();

    let down = Ended::of(workshop.command(&arguments).env("DOCKER_HOST", NOWHERE));
    let up = explained(&workshop, "p.md", &flags);

    assert_eq!(down.code, 0, "{}", down.stderr);
    let down = down.one();
    for part in ["spec", "create", "docker_run"] {
        assert_eq!(down[part], up[part]);
    }
    for (subject, why) in [
        ("engine: not probed: ", NOWHERE),
        ("limits, CPUs: not probed: ", ""),
        ("image: not probed: ", ""),
    ] {
        let is_it = |note: &&str| note.starts_with(subject) && note.contains(why);
        assert!(notes(&down).iter().any(is_it), "{subject} {down}");
    }
    assert!(!up.to_string().contains("not probed"), "{up}");
}

#[test]
fn what_looks_secret_or_came_from_the_host_is_shown_only_if_asked_for() {
    let workshop = Workshop::new();
    let front_matter = "agent: command\nimage: i\nenv:\n  - MY_TOKEN=swordfish\n  - FROM_HOST\n  - PLAIN=shown-value\n";
    let prompt = for_agent(front_matter, "print swordfish; print from-the-host");
    workshop.project.write("p.md", prompt);
    let explain = |flags: &[&str]| {
        let mut command = workshop.command(&[&["explain", "p.md"], flags].concat());
        let ended = Ended::of(command.env("FROM_HOST", "from-the-host"));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.stdout + &ended.stderr
    };

    for flags in [&[][..], &["--json"]] {
        let shown = explain(flags);
        assert!(!shown.contains("swordfish"), "{shown}");
        assert!(!shown.contains("from-the-host"), "{shown}");
        assert!(shown.contains("shown-value"), "{shown}");
        assert!(shown.contains("masked: FROM_HOST, MY_TOKEN"), "{shown}");
        let revealed = explain(&[flags, &["--reveal"]].concat());
        assert!(revealed.contains("MY_TOKEN=swordfish"), "{revealed}");
        assert!(revealed.contains("FROM_HOST=from-the-host"), "{revealed}");
    }
}

#[test]
fn a_prompt_on_standard_input_is_explained() {
    let workshop = Workshop::new();
    let mut command = workshop.command(&["explain", "-", "--json"]);
    let prompt = workshop.installation.folder().join("prompt");
    fs::write(&prompt, for_agent("agent: command\nimage: i\n", "print x")).expect("a file");
    command.stdin(Stdio::from(fs::File::open(&prompt).expect("it is there")));

    let explained = Ended::of(&mut command);

    assert_eq!(explained.code, 0, "{}", explained.stderr);
    assert_eq!(explained.one()["spec"]["file"], "-");
}

#[test]
fn every_default_says_what_it_is_and_what_opts_out_of_it() {
    let workshop = Workshop::new();
    workshop.project.write("p.md", for_agent("", "print x"));

    let explained = explained(&workshop, "p.md", &["--agent", "command", "--image", "i"]);

    for (subject, way_out) in [
        ("read-only root", "--profile seed"),
        ("no capabilities", "--profile seed"),
        ("no new privileges", "--profile seed"),
        ("user", "--user"),
        ("limit of memory", "--memory"),
        ("limit of CPUs", "--cpus"),
        ("limit of processes", "--pids"),
        ("limit of one file's size", "--file-size"),
        (
            "limit of the container's own file system: none",
            "--disk-limit",
        ),
        ("limit of open files", "--open-files"),
        ("limit of output", "--log-limit"),
        ("network allow", "--network open"),
        ("credentials", "what is in its environment"),
        ("git", "--hide-git"),
        ("limits not told", "--tell-limits true"),
        ("around it", "/.dark-factory/init run"),
    ] {
        let is_it = |note: &&str| note.starts_with(subject) && note.contains(way_out);
        assert!(
            notes(&explained).iter().any(is_it),
            "{subject}: {explained}"
        );
    }
}

#[test]
fn a_prompt_that_cannot_be_run_cannot_be_explained_either() {
    let workshop = Workshop::new();
    workshop
        .project
        .write("p.md", "---\nmemory: much\n---\nDo it.\n");

    let explained = Ended::of(&mut workshop.command(&["explain", "p.md"]));

    assert_eq!((explained.code, explained.stdout.as_str()), (2, ""));
    assert!(explained.stderr.contains("p.md:2"), "{}", explained.stderr);
}

#[test]
fn the_socket_of_the_engine_in_use_is_refused_as_a_mount_whatever_named_it() {
    let workshop = Workshop::new();
    let task = "---\nagent: command\nimage: i\nmount: [/nowhere:/n]\n---\nDo it.\n";
    workshop.project.write("a.md", task);

    let by_flag = Ended::of(&mut workshop.command(&["--host", NOWHERE, "explain", "a.md"]));
    let mut by_variable = workshop.command(&["explain", "a.md"]);
    let by_variable = Ended::of(by_variable.env("DARK_FACTORY_HOST", NOWHERE));

    for ended in [by_flag, by_variable] {
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        let told = "the container engine's socket /nowhere/docker.sock";
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
    }
}

#[test]
fn what_a_front_matter_says_of_secrets_paths_stops_and_git_a_flag_can_say_otherwise() {
    let workshop = Workshop::new();
    let task =
        "---\nagent: command\nimage: i\nhide-git: true\nworkdir: /a\nstop-grace: 1s\n---\nDo it.\n";
    workshop.project.write("a.md", task);
    workshop.project.write("key.txt", "hunter2");

    let explained = explained(
        &workshop,
        "a.md",
        &[
            "--host",
            NOWHERE,
            "--hide-git=false",
            "--workspace",
            "/w",
            "--workdir",
            "/w/x",
            "--stop-signal",
            "int",
            "--stop-grace",
            "3s",
            "--completion-grace",
            "4s",
            "--project-name",
            "named",
            "--secret",
            "k=file:key.txt",
        ],
    );

    let spec = &explained["spec"];
    assert_eq!(spec["workspace"]["git"], "visible");
    assert_eq!(spec["workspace"]["target"], "/w");
    assert_eq!(spec["workdir"], "/w/x");
    assert_eq!(spec["stop"]["signal"], "SIGINT");
    assert_eq!(spec["project"], "named");
    assert_eq!(spec["secrets"], json!(["k"]));
    let raw = explained.to_string();
    assert!(!raw.contains("hunter2"), "{raw}");
}
