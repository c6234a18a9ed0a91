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

/// A default of the hardened profile, the flags that opt out of it, and what is then otherwise.
struct Default {
    note: &'static str,
    opt_out: &'static [&'static str],
    /// In what `--json` prints.
    pointer: &'static str,
    without: Value,
    note_without: &'static str,
}

/// Returns every default of the hardened profile; `docs/configuration.md` has the same table for people.
fn hardened_defaults() -> Vec<Default> {
    let row = |note, opt_out, pointer, without, note_without| Default {
        note,
        opt_out,
        pointer,
        without,
        note_without,
    };
    let (seed, none) = (&["--profile", "seed"][..], Value::Null);
    vec![
        row(
            "read-only root",
            seed,
            "/create/HostConfig/ReadonlyRootfs",
            json!(false),
            "profile seed: writable root",
        ),
        row(
            "read-only root: the image's files cannot be changed; /tmp and the home are memory",
            seed,
            "/create/HostConfig/Tmpfs",
            none.clone(),
            "profile seed: writable root",
        ),
        row(
            "no capabilities",
            seed,
            "/create/HostConfig/CapDrop",
            none.clone(),
            "profile seed: writable root, NET_ADMIN and NET_RAW",
        ),
        row(
            "no new privileges",
            seed,
            "/create/HostConfig/SecurityOpt",
            none.clone(),
            "profile seed",
        ),
        row(
            "user: ",
            &["--user", "4321:4322"],
            "/create/User",
            json!("4321:4322"),
            "user: 4321:4322",
        ),
        row(
            "limit of memory and swap: 2 GiB",
            &["--memory", "none"],
            "/create/HostConfig/Memory",
            none.clone(),
            "limit of memory and swap: none",
        ),
        row(
            "limit of memory and swap: 2 GiB",
            &["--memory", "none"],
            "/create/HostConfig/MemorySwap",
            none.clone(),
            "limit of memory and swap: none",
        ),
        row(
            "limit of CPUs: ",
            &["--cpus", "none"],
            "/create/HostConfig/NanoCpus",
            none.clone(),
            "limit of CPUs: none",
        ),
        row(
            "limit of processes and threads: 512",
            &["--pids", "none"],
            "/create/HostConfig/PidsLimit",
            none.clone(),
            "limit of processes and threads: none",
        ),
        row(
            "limit of one file's size: 16 GiB",
            &["--file-size", "none"],
            "/spec/limits/file_size",
            none.clone(),
            "limit of one file's size: none",
        ),
        row(
            "limit of open files of a process: 65536",
            &["--open-files", "none"],
            "/spec/limits/open_files",
            none.clone(),
            "limit of open files of a process: none",
        ),
        row(
            "limit of output: 1 GiB",
            &["--log-limit", "none"],
            "/spec/limits/log",
            none.clone(),
            "limit of output: none",
        ),
        row(
            "limit of time after a result: 120s",
            &["--completion-grace", "none"],
            "/spec/completion_grace",
            none.clone(),
            "limit of time after a result: none",
        ),
        row(
            "network allow",
            &["--network", "open"],
            "/create/HostConfig/NetworkMode",
            json!("default"),
            "network open",
        ),
        row(
            "credentials: the key of anthropic stays outside",
            &["--credentials", "none"],
            "/spec/providers",
            none.clone(),
            "credentials: no key of this machine",
        ),
        row(
            "credentials: the key of anthropic stays outside",
            &["--credentials", "mount"],
            "/spec/mounts/0/target",
            json!("/home/agent/.claude"),
            "credentials: no key of this machine",
        ),
        row(
            "limits told",
            &["--tell-limits", "false"],
            "/told",
            none,
            "limits not told",
        ),
        row(
            "around it: our helper as the entrypoint",
            &["--transport", "attach"],
            "/spec/transport",
            json!("attach"),
            "around it: mounted read-only",
        ),
        row(
            "mounts: the project, and 0 more",
            &["--allow-mount", "~/.aws"],
            "/spec/mounts/0/target",
            json!("/aws"),
            "mounts: the project, and 1 more",
        ),
    ]
}

#[test]
fn every_hardened_default_has_an_opt_out_that_does_what_it_says() {
    let workshop = Workshop::new();
    let home = workshop.installation.folder().join("home");
    fs::create_dir_all(home.join(".aws")).expect("a folder");
    fs::create_dir_all(home.join(".claude")).expect("a folder");
    workshop.project.write("p.md", "Do it.\n");
    let explained = |flags: &[&str]| {
        let flags = [&["explain", "--json", "--image", "i", "p.md"], flags].concat();
        let mut command = workshop.command(&flags);
        let ended = Ended::of(command.env("ANTHROPIC_API_KEY", "k"));
        assert_eq!(ended.code, 0, "{flags:?}: {}", ended.stderr);
        ended.one()
    };
    let page = include_str!("../../../docs/configuration.md");
    let (_, page) = page.split_once("## Opt-outs").expect("the table");
    let hardened = explained(&[]);

    for default in hardened_defaults() {
        // What an opt-out needs beside it: the attached way has neither helper nor broker, a mount is asked for.
        let more: &[&str] = match default.opt_out[0] {
            "--transport" => &["--network", "open", "--credentials", "none"],
            "--allow-mount" => &["--mount", "~/.aws:/aws"],
            _ => &[],
        };
        let without = explained(&[default.opt_out, more].concat());

        let told = |explained: &Value, start: &str| {
            let notes = notes(explained);
            notes.iter().any(|note| note.starts_with(start))
        };
        let Default { pointer, note, .. } = default;
        assert!(told(&hardened, note), "{note}: {hardened}");
        assert!(told(&without, default.note_without), "{note}: {without}");
        let now = without.pointer(pointer).unwrap_or(&Value::Null);
        assert_eq!(*now, default.without, "{pointer}");
        assert_ne!(
            hardened.pointer(pointer),
            without.pointer(pointer),
            "{note}"
        );
        let opt_out = default.opt_out.join(" ").replace("4321:4322", "UID:GID");
        let opt_out = opt_out.replace("~/.aws", "PATH");
        assert!(page.contains(&format!("`{opt_out}`")), "{opt_out}");
    }
}

#[test]
fn only_the_owner_of_the_machine_allows_dangerous_mounts() {
    let workshop = Workshop::new();
    let home = workshop.installation.folder().join("home");
    let config = home.join(".config/dark-factory");
    fs::create_dir_all(home.join(".aws")).expect("a folder");
    fs::create_dir_all(&config).expect("a folder");
    let task = |more: &str| {
        let task =
            format!("---\nagent: command\nimage: i\nmount: ['~/.aws:/aws']\n{more}---\nDo it.\n");
        workshop.project.write("p.md", task)
    };
    let explain = || workshop.command(&["explain", "--json", "p.md"]);
    let refused = |told: &str| {
        let mut command = workshop.command(&["explain", "p.md"]);
        let ended = Ended::of(&mut command);
        assert_eq!(ended.code, 2, "{}", ended.stdout);
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
    };
    let allowed = |mut command: Command, by: &str| {
        let ended = Ended::of(&mut command);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let explained = ended.one();
        let told = format!("{by})");
        let notes = notes(&explained);
        let is_told = notes
            .iter()
            .any(|note| note.contains("allow-mounts allows it (") && note.ends_with(&told));
        assert!(is_told, "{explained}");
    };

    task("allow_mounts: ['~/.aws']\n");
    refused("p.md:4:9: cannot mount ~/.aws:/aws");
    refused("config.toml of your own configuration folder");
    task("");
    let project = workshop
        .project
        .write("dark-factory.toml", "allow-mounts = ['~/.aws']\n");
    refused("dark-factory.toml:1:1");
    fs::remove_file(project).expect("it is there");

    let mut by_variable = explain();
    let list = format!("/nowhere:{}", home.join(".aws").display());
    by_variable.env("DARK_FACTORY_ALLOW_MOUNTS", list);
    allowed(by_variable, "DARK_FACTORY_ALLOW_MOUNTS");
    let mut by_flag = explain();
    by_flag.args(["--allow-mount", "/nowhere", "--allow-mount", "~/.aws"]);
    allowed(by_flag, "--allow-mount");
    fs::write(config.join("config.toml"), "allow_mounts = '../../.aws'\n").expect("a file");
    allowed(explain(), "config.toml:1:16");
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
