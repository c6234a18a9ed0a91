//! Agents' images of the embedded sandbox: made without any container engine, and used by real agents.
//!
//! Owns: wheels whose agent is a shell script; the folder of a sandbox's images.
//! Reads: what `image` and `run` print; reports.
//! Never: reaches a real model, or asks Docker for anything but an agent's program.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::{MockModel, PROJECT_OWNER, claude_image};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::bad_input::refuses;
use crate::images::{CLAUDE, FRONT_MATTER, STAND_IN};
use crate::scene::{Running, Scene, docker, report, text};
use crate::support::{Ended, for_claude};

const KEY: &str = "sk-of-this-machine-and-nobody-elses";
const IMAGE: &str = "dark-factory/claude:latest";

/// Whose sandboxes they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Whoever runs the tests.
    Caller,
    /// An ordinary user, to whom project and installation belong.
    User,
}

/// A scene without any container engine.
struct Bare {
    scene: Scene,
    who: Who,
}

impl Bare {
    fn new(who: Who) -> Self {
        let scene = Scene::new();
        if who == Who::User {
            let folder = scene.installation.folder();
            for path in [folder, &folder.join("home")] {
                chown(path, Some(PROJECT_OWNER), Some(PROJECT_OWNER)).unwrap();
            }
        }
        Self { scene, who }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.scene.dark_factory(arguments);
        command
            .env("DARK_FACTORY_ENGINE", "sandbox")
            .env("DOCKER_HOST", "unix:///nonexistent");
        if self.who == Who::User {
            command.uid(PROJECT_OWNER).gid(PROJECT_OWNER);
        }
        command
    }

    fn build(&self, from: &Path) -> Command {
        let mut build = self.command(&["image", "build", "claude", "--from"]);
        build.arg(from);
        build
    }

    /// Writes a wheel whose agent is this program.
    fn wheel(&self, program: &str) -> PathBuf {
        let path = self.scene.installation.folder().join("agent.whl");
        let mut wheel = ZipWriter::new(File::create(&path).unwrap());
        wheel
            .start_file(CLAUDE, SimpleFileOptions::default())
            .unwrap();
        wheel.write_all(program.as_bytes()).unwrap();
        wheel.finish().unwrap();
        path
    }

    fn prompt(&self, name: &str) -> PathBuf {
        let text = for_claude(FRONT_MATTER, name);
        self.scene.project.write(&format!("{name}.md"), text)
    }

    /// Returns the names in the folder of images.
    fn kept(&self) -> Vec<String> {
        let folder = self
            .scene
            .installation
            .state_dir()
            .join("sandboxes/.images");
        let entries = fs::read_dir(folder).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

#[test]
fn an_agents_image_is_made_of_a_wheel_runs_is_listed_and_is_removed_once_no_run_has_it() {
    let bare = Bare::new(Who::Caller);
    let wheel = bare.wheel(STAND_IN);
    let list = || Ended::of(&mut bare.command(&["image", "list", "--json"])).json();

    let built = Ended::of(&mut bare.build(&wheel));
    let again = Ended::of(&mut bare.build(&wheel));

    let names = "dark-factory/claude:latest and dark-factory/claude:9.8.7";
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert_eq!(built.stdout, format!("built {names}: Claude Code 9.8.7\n"));
    assert_eq!(
        again.stdout,
        format!("{IMAGE} is up to date: Claude Code 9.8.7 (--force makes it anew)\n")
    );
    let listed = list();
    assert_eq!(listed.len(), 2, "{listed:?}");
    for image in &listed {
        assert_eq!(
            (text(image, "agent_version"), text(image, "base")),
            ("9.8.7".to_owned(), "host".to_owned())
        );
    }

    let running = Running::start(bare.command(&["run", "--quiet"]).arg(bare.prompt("linger")));
    bare.scene.wait_for_file("made.txt");
    let open = Ended::of(&mut bare.command(&["ps", "--json"])).one();
    let id = text(&open, "run_id");
    refuses(
        &mut bare.command(&["image", "rm", "claude"]),
        4,
        &[&format!("is in use by run {id}")],
    );
    // A newer one takes the names, and the run goes on with its own.
    let newer = bare.wheel(&STAND_IN.replace("9.8.7", "9.9.0"));
    let built = Ended::of(&mut bare.build(&newer));
    assert_eq!(built.code, 0, "{}", built.stderr);
    let both = bare.kept();
    Ended::of(&mut bare.command(&["stop", &id]));
    running.ended();
    let removed = Ended::of(&mut bare.command(&["image", "rm", "claude"]));

    assert_eq!(both.len(), 4, "{both:?}");
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    assert!(removed.stdout.contains(&format!("removed {IMAGE}\n")));
    assert_eq!(list(), Vec::<serde_json::Value>::new());
    assert_eq!(bare.kept(), ["lock", "names"]);
    refuses(
        &mut bare.command(&["image", "rm", IMAGE]),
        4,
        &[&format!("there is no image {IMAGE}")],
    );
}

#[test]
fn an_agent_without_an_image_names_the_command_that_makes_it() {
    let bare = Bare::new(Who::Caller);

    refuses(
        bare.command(&["run", "--engine", "sandbox"])
            .arg(bare.prompt("begin")),
        4,
        &[
            &format!("begin.md: the sandbox has no image {IMAGE}\n"),
            "help: `dark-factory image build claude --engine sandbox` makes it; --image IMAGE names another",
        ],
    );
}

#[test]
fn what_no_agent_can_start_on_or_from_makes_no_image() {
    let bare = Bare::new(Who::Caller);
    let wheel = bare.wheel(STAND_IN);
    let empty = bare.scene.installation.folder().join("empty");
    fs::create_dir(&empty).unwrap();
    let on = |base: &str| {
        let mut build = bare.build(&wheel);
        build.args(["--base", base]);
        build
    };

    for base in ["debootstrap", "debian:bookworm"] {
        refuses(
            &mut on(base),
            2,
            &[
                &format!("{base} is no base for an image of the embedded sandbox"),
                "--base host (the default)",
            ],
        );
    }
    refuses(&mut on("/nowhere"), 4, &["No such file or directory"]);
    let unfit = Ended::of(&mut on(empty.to_str().unwrap()));
    assert_eq!(unfit.code, 4, "{}", unfit.stderr);
    assert!(
        unfit.stderr.contains("/bin/sh cannot be started"),
        "{}",
        unfit.stderr
    );
    let broken = bare.wheel("#!/bin/sh\necho it is broken\nexit 3\n");
    let broken = Ended::of(&mut bare.build(&broken));
    assert_eq!(broken.code, 4, "{}", broken.stderr);
    assert!(broken.stderr.contains("it is broken"), "{}", broken.stderr);

    let listed = Ended::of(&mut bare.command(&["image", "list", "--json"]));
    assert_eq!(listed.stdout, "");
    let left: Vec<String> = bare
        .kept()
        .into_iter()
        .filter(|name| name != "lock")
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

/// Has a real agent do its work under the defaults, with the key outside.
fn works(bare: &Bare, agent: &str, build: &mut Command) {
    let model = MockModel::expecting(KEY, "success");
    let task = format!("---\nagent: {agent}\n---\nCreate hello.txt.\n");
    let task = bare.scene.project.write("tasks/hello.md", task);
    let built = Ended::of(build);
    assert_eq!(built.code, 0, "{}{}", built.stdout, built.stderr);
    let (key, base) = match agent {
        "codex" => ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
        _ => ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    };

    let mut run = bare.command(&["run"]);
    let run = Ended::of(run.arg(task).env(key, KEY).env(base, model.local_url()));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert_eq!(
        bare.scene.project.read("hello.txt"),
        "Hello, world!\nline 2 (edited)\n"
    );
    let project = fs::metadata(bare.scene.project.path()).unwrap();
    let written = fs::metadata(bare.scene.project.path().join("hello.txt")).unwrap();
    assert_eq!(
        (written.uid(), written.gid()),
        (project.uid(), project.gid())
    );
    let report = report(&bare.scene.folder());
    assert_eq!(report["outcome"], "succeeded", "{report}");
    assert!(
        report["usage"]["output_tokens"].as_u64() > Some(0),
        "{report}"
    );
    let brokered = report["egress"]["brokered"].as_array().unwrap();
    let asked = |used: &serde_json::Value| used["requests"].as_u64() > Some(1);
    assert!(brokered.iter().any(asked), "{report}");
    let image = text(&report["image"], "reference");
    assert_eq!(image, format!("dark-factory/{agent}:latest"));
}

/// Returns a build of the pinned wheel, which providing the tests has brought.
fn pinned(bare: &Bare, agent: &str) -> Command {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache")));
    let mut build = bare.command(&["image", "build", agent]);
    build.env("XDG_CACHE_HOME", cache.expect("a home folder"));
    build
}

#[test]
fn the_real_claude_code_works_in_a_sandbox() {
    let bare = Bare::new(Who::Caller);

    works(&bare, "claude", &mut pinned(&bare, "claude"));
}

#[test]
fn the_real_codex_works_in_a_sandbox() {
    let bare = Bare::new(Who::Caller);

    works(&bare, "codex", &mut pinned(&bare, "codex"));
}

#[test]
fn the_real_claude_code_works_in_an_ordinary_users_sandbox() {
    let bare = Bare::new(Who::User);
    let folder = bare.scene.installation.folder().join("claude");
    fs::create_dir(&folder).unwrap();
    let container = docker(&["create", &claude_image()]);
    let program = format!("{}:/usr/local/bin/claude", container.trim());
    docker(&["cp", &program, folder.to_str().unwrap()]);
    docker(&["rm", container.trim()]);

    works(&bare, "claude", &mut bare.build(&folder));
}
