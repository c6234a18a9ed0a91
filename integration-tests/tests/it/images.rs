//! `image`: an agent's image is made of a wheel and a base, is the one that `agent:` uses, and goes only if it is ours.
//!
//! Owns: wheels whose agent is a shell script; one name of an image for each test.
//! Reads: what `image` and `run` print; the engine's images.
//! Never: makes or removes an image under the names that `agent:` looks for, but on an engine of its own.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::{
    EngineProxy, Fault, LiveRestore, PrivateEngine, agent_image, claude_image, helper,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use uuid::Uuid;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::bad_input::refuses;
use crate::scene::{Running, Scene, docker, eventually, report, text};
use crate::support::{Ended, Watched, for_claude};

/// Where a wheel has Claude Code, and Codex.
pub(crate) const CLAUDE: &str = "claude_agent_sdk/_bundled/claude";
const CODEX: &str = "codex_cli_bin/bin/codex";
/// Stands in for Claude Code: says its version, or writes a file and succeeds; a prompt with `linger` makes it stay.
pub(crate) const STAND_IN: &str = r#"#!/bin/sh
if [ "$1" = --version ]; then
    echo "9.8.7 (Stand-in)"
    exit
fi
prompt=$(cat)
echo '{"type":"system","subtype":"init","session_id":"s","model":"m","cwd":"/workspace","tools":[]}'
id -u > made.txt
case $prompt in *linger*) exec sleep 600 ;; esac
echo '{"type":"result","subtype":"success","is_error":false,"result":"done","session_id":"s","num_turns":1}'
"#;
pub(crate) const FRONT_MATTER: &str = "network: none\nenv:\n  ANTHROPIC_API_KEY: none\n";
/// A user that may not use the engine.
const NOBODY: u32 = 65534;

/// A scene with an image's name that nothing else has.
struct Studio {
    scene: Scene,
    tag: String,
}

impl Studio {
    fn new() -> Self {
        Self {
            scene: Scene::new(),
            tag: format!("dark-factory-images-test:{}", Uuid::new_v4().simple()),
        }
    }

    /// Writes a wheel with these files and returns its path.
    fn wheel(&self, files: &[(&str, &[u8])]) -> PathBuf {
        self.wheel_named("agent.whl", files)
    }

    fn wheel_named(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let path = self.scene.installation.folder().join(name);
        let mut wheel = ZipWriter::new(File::create(&path).unwrap());
        for (name, content) in files {
            wheel
                .start_file(*name, SimpleFileOptions::default())
                .unwrap();
            wheel.write_all(content).unwrap();
        }
        wheel.finish().unwrap();
        path
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.scene.installation.folder().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Returns a build of Claude's image on the Debian of the tests.
    fn build(&self, from: &Path) -> Command {
        self.build_on(&claude_image(), from)
    }

    fn build_on(&self, base: &str, from: &Path) -> Command {
        let mut build = self.pinned("claude", base);
        build.arg("--from").arg(from);
        build
    }

    /// Returns a build without a wheel at hand.
    fn pinned(&self, agent: &str, base: &str) -> Command {
        self.scene
            .dark_factory(&["image", "build", agent, "--base", base, "--tag", &self.tag])
    }

    fn list(&self) -> Vec<Value> {
        let all = Ended::of(&mut self.scene.dark_factory(&["image", "list", "--json"])).json();
        all.into_iter()
            .filter(|image| text(image, "reference") == self.tag)
            .collect()
    }

    fn remove(&self) -> Command {
        self.scene.dark_factory(&["image", "rm", &self.tag])
    }

    /// Checks that there is no image under the name.
    #[track_caller]
    fn made_nothing(&self) {
        assert_eq!(docker(&["images", "--quiet", &self.tag]), "");
    }
}

impl Drop for Studio {
    fn drop(&mut self) {
        // Most tests have none.
        let _removed = Command::new("docker")
            .args(["image", "rm", "--force", &self.tag])
            .output();
    }
}

#[test]
fn an_image_is_made_of_a_wheel_runs_is_listed_and_is_removed_once_no_run_has_it() {
    let studio = Studio::new();
    let wheel = studio.wheel(&[
        ("claude_agent_sdk/__init__.py", b""),
        (CLAUDE, STAND_IN.as_bytes()),
    ]);

    let built = Ended::of(&mut studio.build(&wheel));
    let again = Ended::of(&mut studio.build(&wheel));

    let tag = &studio.tag;
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert_eq!(built.stdout, format!("built {tag}: Claude Code 9.8.7\n"));
    assert_eq!(
        again.stdout,
        format!("{tag} is up to date: Claude Code 9.8.7 (--force makes it anew)\n")
    );
    let listed = studio.list();
    let [image] = listed.as_slice() else {
        panic!("{listed:?}")
    };
    assert_eq!(
        (
            text(image, "agent"),
            text(image, "agent_version"),
            text(image, "base")
        ),
        ("claude".to_owned(), "9.8.7".to_owned(), claude_image())
    );
    let inspected = docker(&["image", "inspect", "--format", "{{json .Config}}", tag]);
    let config: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(config["User"], "agent");
    for (label, value) in [
        ("org.opencontainers.image.version", "9.8.7"),
        ("org.opencontainers.image.title", "Claude Code"),
        ("dark-factory.source", "agent.whl"),
    ] {
        assert_eq!(config["Labels"][label], value, "{label}");
    }

    let run = |prompt: &str| {
        let prompt = studio
            .scene
            .project
            .write(&format!("{prompt}.md"), for_claude(FRONT_MATTER, prompt));
        let mut run = studio.scene.dark_factory(&["run", "--quiet"]);
        run.args(["--image", tag]).arg(prompt);
        run
    };
    // Any uid starts the agent, also one that the image does not know.
    let ended = Ended::of(run("begin").args(["--user", "4242:4242"]));
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);

    let running = Running::start(&mut run("linger"));
    studio.scene.wait_for_file("made.txt");
    let open = Ended::of(&mut studio.scene.dark_factory(&["ps", "--json"])).one();
    let id = text(&open, "run_id");
    refuses(
        &mut studio.remove(),
        4,
        &[&format!("image {tag} is in use by run {id} (container ")],
    );
    Ended::of(&mut studio.scene.dark_factory(&["stop", &id]));
    running.ended();

    let removed = Ended::of(&mut studio.remove());
    assert_eq!(
        (removed.code, removed.stdout),
        (0, format!("removed {tag}\n")),
        "{}",
        removed.stderr
    );
    studio.made_nothing();
}

#[test]
fn an_image_that_loses_its_name_goes_unless_it_has_another() {
    let studio = Studio::new();
    let id = |name: &str| docker(&["images", "--no-trunc", "--quiet", name]);
    let build = |version: &str| {
        let agent = STAND_IN.replace("9.8.7", version);
        let wheel = studio.wheel(&[(CLAUDE, agent.as_bytes())]);
        let built = Ended::of(&mut studio.build(&wheel));
        assert_eq!(built.code, 0, "{}", built.stderr);
        id(&studio.tag)
    };
    let pinned = format!("{}-pinned", studio.tag);
    let is_there = |id: &str| docker(&["images", "--no-trunc", "--quiet"]).contains(id);

    let first = build("1.0.0");
    docker(&["tag", &studio.tag, &pinned]);
    let second = build("2.0.0");
    let third = build("3.0.0");

    let kept = id(&pinned);
    docker(&["image", "rm", &pinned]);
    assert_eq!(kept, first);
    assert!(is_there(&third), "{third} is gone");
    assert!(!is_there(&second), "{second} is left");
}

#[test]
fn a_folder_is_as_good_as_a_wheel_and_codex_is_taken_whole() {
    let studio = Studio::new();
    let folder = studio.scene.installation.folder().join("codex_cli_bin");
    for (name, content) in [
        (
            "bin/codex",
            "#!/bin/sh\nexec \"$(dirname \"$(readlink -f \"$0\")\")/beside\"\n",
        ),
        ("bin/beside", "#!/bin/sh\necho codex-cli 1.2.3\n"),
        ("__init__.py", ""),
    ] {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    let built = Ended::of(
        studio
            .pinned("codex", &claude_image())
            .arg("--from")
            .arg(studio.scene.installation.folder()),
    );

    assert_eq!(built.code, 0, "{}", built.stderr);
    assert_eq!(
        built.stdout,
        format!("built {}: Codex CLI 1.2.3\n", studio.tag)
    );
}

#[test]
fn an_agent_without_an_image_names_the_command_that_makes_it_and_uses_it_once_it_is_there() {
    let engine = PrivateEngine::start(LiveRestore::Off);
    let scene = Scene::on(&engine);
    let script = "begin\nresult success done";
    let prompt = scene
        .project
        .write("p.md", for_claude(FRONT_MATTER, script));
    let run = || {
        let mut run = scene.dark_factory(&["run", "--quiet"]);
        run.arg(&prompt);
        run
    };

    for detached in [false, true] {
        let mut run = run();
        if detached {
            run.arg("--detach");
        }
        refuses(
            &mut run,
            4,
            &[
                "p.md: image dark-factory/claude:latest is not on the engine\n",
                "help: `dark-factory image build claude` makes it; --image IMAGE names another\n",
            ],
        );
    }
    assert_eq!(scene.runs(), Vec::<Value>::new());
    scene.docker(&["tag", &agent_image(), "dark-factory/claude:latest"]);
    let ended = Ended::of(&mut run());

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(
        report(&scene.folder())["image"]["reference"],
        "dark-factory/claude:latest"
    );
    // It was not made by `image build`, whatever its name.
    refuses(
        &mut scene.dark_factory(&["image", "rm", "dark-factory/claude:latest"]),
        2,
        &["image dark-factory/claude:latest was not made by dark-factory and is left alone"],
    );
}

#[test]
fn a_debian_base_that_cannot_be_made_is_said_and_one_from_the_registry_takes_its_place() {
    let engine = PrivateEngine::start(LiveRestore::Off);
    let mut studio = Studio::new();
    studio.scene = Scene::on(&engine);
    let wheel = studio.wheel(&[(CLAUDE, STAND_IN.as_bytes())]);
    let programs = studio.scene.installation.folder().join("programs");
    fs::create_dir(&programs).unwrap();
    let failing = "#!/bin/sh\n[ \"$1\" = --version ] || { echo no mirror; exit 7; }\n";
    for (name, content) in [("debootstrap", failing), ("apt-get", "#!/bin/sh\n")] {
        let path = programs.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", programs.display(), env!("PATH"));
    let build = |flags: &[&str]| {
        let mut build = studio
            .scene
            .dark_factory(&["image", "build", "claude", "--from"]);
        build.arg(&wheel).args(["--tag", &studio.tag]).args(flags);
        Ended::of(build.env("PATH", &path))
    };
    // It has no shell, which is enough to see what is built on.
    let pulled = "debian:bookworm-slim";
    studio.scene.docker(&["tag", &agent_image(), pulled]);
    let failed = "debootstrap failed: exit status: 7: no mirror";
    let unfit = |base: &str| format!("does not get ready in an image based on {base}: ");

    let automatic = build(&[]);
    let asked_for = build(&["--base", "debootstrap"]);
    let release = fs::read_to_string("/etc/os-release").unwrap();
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let base = format!(
        "dark-factory/base:{}-1",
        codename.unwrap().trim_matches('"')
    );
    studio.scene.docker(&["tag", &agent_image(), &base]);
    let kept = build(&["--base", "debootstrap"]);
    let forced = build(&["--base", "debootstrap", "--force"]);

    let words = [
        &format!("{failed}; going on with {pulled}\n"),
        &unfit(pulled),
    ];
    assert_says(&automatic, 4, &words);
    let advice = "name another folder with TMPDIR".to_owned();
    assert_says(&asked_for, 5, &[&failed.to_owned(), &advice]);
    assert_says(&kept, 4, &[&unfit(&base)]);
    assert_says(&forced, 5, &[&failed.to_owned()]);
}

#[track_caller]
fn assert_says(ended: &Ended, code: i32, words: &[&String]) {
    assert_eq!(ended.code, code, "{}", ended.stderr);
    for words in words {
        assert!(
            ended.stderr.contains(*words),
            "{words} is not in {}",
            ended.stderr
        );
    }
}

#[test]
fn the_images_of_an_agent_go_with_older_ones_that_have_no_name_left() {
    let engine = PrivateEngine::start(LiveRestore::Off);
    let scene = Scene::on(&engine);
    let empty = scene.installation.folder().join("empty.tar");
    fs::write(&empty, [0; 1024]).unwrap();
    let nameless = |agent: &str| {
        let agent = format!("LABEL dark-factory.agent={agent}");
        let changes = [
            "--change",
            "LABEL dark-factory.image=agent",
            "--change",
            &agent,
        ];
        let id = scene.docker(&[&["import"], &changes[..], &[empty.to_str().unwrap()]].concat());
        id.trim().to_owned()
    };
    let (claude, codex) = (nameless("claude"), nameless("codex"));

    let removed = Ended::of(&mut scene.dark_factory(&["image", "rm", "claude"]));

    assert_eq!(removed.code, 0, "{}", removed.stderr);
    assert_eq!(removed.stdout, format!("removed {claude}\n"));
    let left = scene.docker(&["images", "--no-trunc", "--quiet"]);
    assert!(left.contains(&codex) && !left.contains(&claude), "{left}");
}

#[test]
fn what_is_no_wheel_of_the_agent_is_refused_with_what_is_wrong_with_it() {
    let studio = Studio::new();
    let helper = fs::read(helper()).unwrap();
    let mut foreign = helper.clone();
    // The machine in an ELF file's head: SPARC.
    foreign[18] = 2;
    let whole = fs::read(studio.wheel(&[(CLAUDE, &helper)])).unwrap();
    let empty = studio.scene.installation.folder().join("empty");
    fs::create_dir(&empty).unwrap();

    for (from, told) in [
        (
            studio.file("text.whl", b"not a zip"),
            "it is not a wheel: a wheel is a zip file",
        ),
        (
            studio.file("nothing.whl", b""),
            "it is not a wheel: a wheel is a zip file",
        ),
        (
            studio.file("cut.whl", &whole[..whole.len() / 2]),
            "it is cut off or damaged: its table of contents cannot be read",
        ),
        (
            studio.wheel_named("other.whl", &[("other/file", b"x")]),
            "there is no claude_agent_sdk/_bundled/claude in it",
        ),
        (
            studio.wheel_named("codex.whl", &[(CODEX, &helper)]),
            "there is no claude_agent_sdk/_bundled/claude in it",
        ),
        (
            studio.wheel_named("foreign.whl", &[(CLAUDE, &foreign)]),
            "claude_agent_sdk/_bundled/claude in it is for another machine; the engine needs one for",
        ),
        (
            studio.wheel_named(
                "windows.whl",
                &[(CLAUDE, b"MZ, and what Windows wants behind it")],
            ),
            "is not a Linux executable; the engine needs one for",
        ),
        (
            empty,
            "there is no claude and no claude_agent_sdk/_bundled/claude in it",
        ),
        (PathBuf::from("/nowhere.whl"), "No such file or directory"),
        (
            PathBuf::from("/dev/null"),
            "it is neither a file nor a folder",
        ),
    ] {
        refuses(
            &mut studio.build_on(&agent_image(), &from),
            2,
            &[
                told,
                from.to_str().unwrap(),
                "is not usable for claude",
                "help: --from takes the claude-agent-sdk wheel (pip download --no-deps --ignore-requires-python \
                 --only-binary=:all: --platform manylinux_2_17_",
            ],
        );
    }

    studio.made_nothing();
}

#[test]
fn a_wheel_that_turns_out_to_be_damaged_makes_no_image() {
    let studio = Studio::new();
    let marker = b"the middle of the file";
    let content = [STAND_IN.as_bytes(), &marker[..]].concat();
    let path = studio.scene.installation.folder().join("agent.whl");
    let mut wheel = ZipWriter::new(File::create(&path).unwrap());
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    wheel.start_file(CLAUDE, stored).unwrap();
    wheel.write_all(&content).unwrap();
    wheel.finish().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes
        .windows(marker.len())
        .position(|window| window == marker)
        .unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();

    let ended = Ended::of(&mut studio.build(&path));

    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("it cannot be unpacked: "),
        "{}",
        ended.stderr
    );
    studio.made_nothing();
}

#[test]
fn a_base_that_is_missing_or_has_no_shell_or_no_debian_is_said() {
    let studio = Studio::new();
    let wheel = studio.wheel(&[(CLAUDE, STAND_IN.as_bytes())]);
    let nowhere = "localhost:1/none/such:1";

    let mut missing = studio.build_on(nowhere, &wheel);
    refuses(
        &mut missing,
        4,
        &[&format!(
            "the base image {nowhere} is not on the engine and cannot be pulled"
        )],
    );
    let bare = Ended::of(&mut studio.build_on(&agent_image(), &wheel));
    assert_eq!(bare.code, 4, "{}", bare.stderr);
    assert!(
        bare.stderr.contains("/bin/sh cannot be started"),
        "{}",
        bare.stderr
    );
    let mut ordinary = studio.build_on("debootstrap", Path::new("/nowhere.whl"));
    // Nothing that is asked before needs the engine, or the folders of the test.
    ordinary
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .env("DARK_FACTORY_STATE_DIR", "/nowhere");
    refuses(
        &mut ordinary,
        2,
        &["a Debian base cannot be made here: this process is not root"],
    );

    studio.made_nothing();
}

#[test]
fn an_unknown_agent_a_bad_name_and_an_engine_that_is_down_are_said() {
    let studio = Studio::new();

    refuses(
        &mut studio.scene.dark_factory(&["image", "build", "gemini"]),
        2,
        &["there is no image recipe for agent gemini; there is one for: claude, codex"],
    );
    refuses(
        &mut studio
            .scene
            .dark_factory(&["image", "build", "claude", "--tag", "Not-A-Name"]),
        2,
        &["\"Not-A-Name\" cannot be the name of an image: its name must be in lower case"],
    );
    for command in [
        &["image", "list"][..],
        &["image", "rm", "claude"],
        &["image", "build", "claude"],
    ] {
        refuses(
            studio
                .scene
                .dark_factory(command)
                .args(["--host", "unix:///nowhere.sock"]),
            4,
            &["container engine at unix:///nowhere.sock does not answer"],
        );
    }
    refuses(
        &mut studio
            .scene
            .dark_factory(&["image", "rm", "dark-factory-images-test:none"]),
        4,
        &[
            "there is no image dark-factory-images-test:none",
            "dark-factory image list",
        ],
    );
    refuses(
        &mut studio.scene.dark_factory(&["image", "rm", &agent_image()]),
        2,
        &["was not made by dark-factory and is left alone"],
    );
}

#[test]
fn a_wheel_that_is_not_there_and_cannot_be_downloaded_is_named_with_where_it_is() {
    let studio = Studio::new();
    let programs = studio.scene.installation.folder().join("no-programs");
    fs::create_dir(&programs).unwrap();

    let mut build = studio.pinned("codex", &agent_image());
    build.env("PATH", &programs).env_remove("XDG_CACHE_HOME");

    refuses(
        &mut build,
        5,
        &[
            "openai_codex_cli_bin-0.163.0-py3-none-manylinux_2_17_",
            ".whl could not be downloaded: there is no pip and no uv to download it with",
            "help: download https://files.pythonhosted.org/packages/",
            "dark-factory image build codex --from openai_codex_cli_bin-0.163.0-",
            ".cache/dark-factory/wheels",
        ],
    );
}

#[test]
fn a_cache_without_room_for_the_wheel_is_said_before_anything_is_downloaded() {
    let studio = Studio::new();
    let cache = studio.scene.installation.folder().join("cache");
    fs::create_dir(&cache).unwrap();
    let build = studio.pinned("claude", &agent_image());
    let mut small = on_a_small_disk(&cache, &build);
    small.env("XDG_CACHE_HOME", &cache);

    refuses(
        &mut small,
        5,
        &[
            "dark-factory/wheels has 8 MiB free, and 400 MiB are needed for the wheel",
            "help: make room, or name another cache folder with XDG_CACHE_HOME",
        ],
    );
}

#[test]
fn an_engine_without_room_for_the_image_is_said_before_anything_is_made() {
    let studio = Studio::new();
    let wheel = studio.wheel(&[(CLAUDE, STAND_IN.as_bytes())]);
    let data = docker(&["info", "--format", "{{.DockerRootDir}}"]);
    let data = Path::new(data.trim());

    refuses(
        &mut on_a_small_disk(data, &studio.build(&wheel)),
        5,
        &[
            &format!(
                "{} has 8 MiB free, and 1 GiB are needed for the image",
                data.display()
            ),
            "help: make room, or give the engine another data folder",
        ],
    );

    studio.made_nothing();
}

/// Returns a command for which there is a small disk at `folder`; its mount namespace, and the disk, end with it.
fn on_a_small_disk(folder: &Path, command: &Command) -> Command {
    let mut small = Command::new("unshare");
    small
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tmpfs -o size=8m small \"$1\" && shift && exec \"$@\"")
        .arg("sh")
        .arg(folder)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            small.env(name, value);
        }
    }
    small
}

#[test]
fn a_build_that_is_interrupted_leaves_no_container_and_no_image() {
    let studio = Studio::new();
    let wheel = studio.wheel(&[(CLAUDE, b"#!/bin/sh\nexec sleep 600\n")]);
    // Containers of other tests' builds come and go; this one's base has a name of its own.
    let base = format!("{}-base", studio.tag);
    docker(&["tag", &claude_image(), &base]);
    let containers = || {
        let images = docker(&["ps", "--all", "--format", "{{.Image}}"]);
        images.lines().filter(|image| *image == base).count()
    };
    let build = Watched::of(&mut studio.build_on(&base, &wheel));
    eventually("the agent is started once", || {
        build
            .stderr()
            .contains("starting Claude Code once")
            .then_some(())
    });
    assert_eq!(containers(), 1);

    build.signal(Signal::SIGINT);
    let ended = build.ended();

    assert_eq!(ended.code, 130, "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("error: the image was not made: interrupted\n"),
        "{}",
        ended.stderr
    );
    assert_eq!(containers(), 0);
    docker(&["image", "rm", &base]);
    studio.made_nothing();
}

#[test]
fn a_build_that_is_interrupted_while_a_debian_base_is_made_waits_until_it_is_gone() {
    let engine = PrivateEngine::start(LiveRestore::Off);
    let mut studio = Studio::new();
    studio.scene = Scene::on(&engine);
    let wheel = studio.wheel(&[(CLAUDE, STAND_IN.as_bytes())]);
    let programs = studio.scene.installation.folder().join("programs");
    let temporary = studio.scene.installation.folder().join("tmp");
    for folder in [&programs, &temporary] {
        fs::create_dir(folder).unwrap();
    }
    let begun = programs.join("begun");
    let stubborn = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exit 0\ntrap '' INT TERM HUP\nfor root; do :; done\necho x > {}\n\
         while :; do mkdir -p $root/new; date > $root/new/file; done\n",
        begun.display(),
    );
    for (name, content) in [
        ("debootstrap", stubborn.as_str()),
        ("apt-get", "#!/bin/sh\n"),
    ] {
        let path = programs.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", programs.display(), env!("PATH"));
    let mut build = studio.build_on("debootstrap", &wheel);
    let build = Watched::of(build.env("PATH", path).env("TMPDIR", &temporary));
    eventually("debootstrap has begun", || begun.exists().then_some(()));

    build.signal(Signal::SIGINT);
    let ended = build.ended();

    assert_eq!(ended.code, 130, "{}", ended.stderr);
    let left: Vec<_> = fs::read_dir(&temporary).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!ended.stderr.contains("going on with"), "{}", ended.stderr);
}

#[test]
fn a_build_sweeps_older_images_of_its_agent_that_have_no_name_left() {
    let studio = Studio::new();
    let empty = studio.file("empty.tar", &[0; 1024]);
    let nameless = |agent: &str, year: &str, comment: &str| {
        let changes = [
            "LABEL dark-factory.image=agent".to_owned(),
            format!("LABEL dark-factory.agent={agent}"),
            format!("LABEL org.opencontainers.image.created={year}-01-01T00:00:00Z"),
        ];
        let mut import = vec!["import", "--message", comment];
        for change in &changes {
            import.extend(["--change", change]);
        }
        import.push(empty.to_str().unwrap());
        studio.scene.docker(&import).trim().to_owned()
    };
    let ours = "made by dark-factory image build";
    let old = nameless("claude", "2020", ours);
    let young = nameless("claude", "2199", ours);
    let others = nameless("codex", "2020", ours);
    let theirs = nameless("claude", "2020", "");
    let wheel = studio.wheel(&[(CLAUDE, STAND_IN.as_bytes())]);

    let built = Ended::of(&mut studio.build(&wheel));

    assert_eq!(built.code, 0, "{}", built.stderr);
    let left = studio
        .scene
        .docker(&["images", "--all", "--no-trunc", "--quiet"]);
    for (image, is_left) in [
        (&old, false),
        (&young, true),
        (&others, true),
        (&theirs, true),
    ] {
        assert_eq!(left.contains(image), is_left, "{image} of {left}");
    }
    docker(&["image", "rm", &young, &others, &theirs]);
}

#[test]
fn a_build_that_is_interrupted_while_the_engine_makes_the_image_leaves_none() {
    let studio = Studio::new();
    let proxy = EngineProxy::new();
    proxy.next("POST /commit", Fault::HoldReply);
    let version = format!("1.{}", Uuid::new_v4().simple());
    let agent = STAND_IN.replace("9.8.7", &version);
    let wheel = studio.wheel(&[(CLAUDE, agent.as_bytes())]);
    let label = format!("label=dark-factory.agent.version={version}");
    let images = || docker(&["images", "--quiet", "--filter", &label]);

    let build = Watched::of(studio.build(&wheel).env("DOCKER_HOST", proxy.host()));
    proxy.wait_until_held();
    let before = images();
    build.signal(Signal::SIGINT);
    eventually("the interrupt is taken", || {
        build.stderr().contains("interrupted; ").then_some(())
    });
    proxy.release();
    let ended = build.ended();

    assert_ne!(before, "", "the engine has not made it");
    assert_eq!(ended.code, 130, "{}", ended.stderr);
    assert_eq!(images(), "");
    studio.made_nothing();
}
