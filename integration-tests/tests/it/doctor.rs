//! `doctor`: what it finds, what it says to do, and that it leaves nothing.
//!
//! Owns: what is missing or broken in each test.
//! Reads: what the command prints; the engine's containers, the requests that it got.
//! Never: breaks anything that another test uses.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use integration_tests::{
    EngineProxy, Fault, Instead, Leftovers, PROJECT_OWNER, agent_image, claude_image, codex_image,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use uuid::Uuid;

use crate::full_disk::Mounted;
use crate::scene::docker;
use crate::support::{Ended, Watched, Workshop, as_user, for_agent};

pub(crate) const PROBES: [&str; 22] = [
    "engine",
    "version",
    "setup",
    "limits",
    "prompt",
    "image",
    "boot",
    "mount",
    "owner",
    "agent starts",
    "agent works",
    "auth",
    "api",
    "guard",
    "disk",
    "engine's disk",
    "leftovers",
    "state folder",
    "daemon",
    "git",
    "clock",
    "seed",
];
/// A doctor's flags for Codex; the image comes next.
const CODEX: [&str; 5] = ["--agent", "codex", "--env", "OPENAI_API_KEY=x", "--image"];
const KEY: &str = "sk-nobody-may-see-this";

/// A workshop whose doctor has a temporary folder of its own.
struct Practice {
    workshop: Workshop,
    folder: tempfile::TempDir,
}

impl Practice {
    fn new() -> Self {
        Self {
            workshop: Workshop::new(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Returns a doctor's command for a prompt file of the scripted agent.
    fn doctor(&self, flags: &[&str]) -> Command {
        let front_matter = format!("agent: command\nimage: {}\n", agent_image());
        let file = for_agent(&front_matter, "print x");
        let file = self.workshop.project.write("task.md", file);
        let mut command = self.bare(flags);
        command.arg(file);
        command
    }

    /// Returns a doctor's command without a prompt file.
    fn bare(&self, flags: &[&str]) -> Command {
        let mut command = self.workshop.command(&["doctor", "--json"]);
        command.args(flags).env("TMPDIR", self.folder.path());
        command
    }

    /// Checks that a doctor left nothing on the host, and no container.
    fn assert_left_nothing(&self) {
        let left: Vec<PathBuf> = [
            self.folder.path(),
            self.workshop.project.path(),
            &self.workshop.installation.state_dir(),
        ]
        .into_iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.contains("doctor") || name.starts_with("scratch-")
        })
        .collect();
        assert!(left.is_empty(), "{left:?}");
        let containers = Leftovers::of(&self.workshop.installation.state_dir()).containers();
        assert_eq!(containers, [""; 0]);
    }
}

/// Returns what a probe found.
pub(crate) fn probe(ended: &Ended, name: &str) -> Value {
    let probes = ended.json();
    let found = probes.iter().find(|probe| probe["probe"] == name);
    found
        .unwrap_or_else(|| panic!("no {name} in {}{}", ended.stdout, ended.stderr))
        .clone()
}

/// Checks how a probe ended, and that it says this.
pub(crate) fn assert_probe(ended: &Ended, name: &str, status: &str, words: &[&str]) {
    let probe = probe(ended, name);
    assert_eq!(probe["status"], status, "{probe}");
    let said = format!("{} {}", probe["found"], probe["advice"]);
    for words in words {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
}

/// Returns the names of the probes that failed.
pub(crate) fn failed(ended: &Ended) -> Vec<String> {
    let failed = |probe: &Value| probe["status"] == "failed";
    ended
        .json()
        .into_iter()
        .filter(failed)
        .map(|probe| probe["probe"].as_str().unwrap().to_owned())
        .collect()
}

fn images_made_and_removed(proxy: &EngineProxy) -> (usize, usize) {
    (
        proxy.count("POST /images/create"),
        proxy.count("DELETE /images/"),
    )
}

#[test]
fn everything_is_probed_in_order_and_nothing_is_left() {
    let practice = Practice::new();
    let proxy = EngineProxy::new();

    let ended = Ended::of(practice.doctor(&[]).env("DOCKER_HOST", proxy.host()));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let probes = ended.json();
    let names: Vec<&str> = probes
        .iter()
        .map(|probe| probe["probe"].as_str().unwrap())
        .collect();
    assert_eq!(names, PROBES);
    assert!(
        probes.iter().all(|probe| probe["ms"].is_u64()),
        "{probes:?}"
    );
    assert_probe(&ended, "engine", "ok", &["from DOCKER_HOST", "answers"]);
    for name in [
        "version", "limits", "prompt", "image", "boot", "mount", "owner",
    ] {
        assert_probe(&ended, name, "ok", &[]);
    }
    assert_probe(&ended, "agent starts", "skipped", &["any program"]);
    assert_eq!(images_made_and_removed(&proxy), (1, 1));
    practice.assert_left_nothing();
}

#[test]
fn people_read_one_line_a_probe() {
    let practice = Practice::new();
    let task = practice.doctor(&[]);
    let file = task.get_args().last().unwrap();
    let mut command = practice.workshop.command(&["doctor"]);

    let ended = Ended::of(command.arg(file).env("DOCKER_HOST", "unix:///nonexistent"));

    assert_eq!(ended.code, 4, "{}", ended.stderr);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), PROBES.len(), "{}", ended.stdout);
    let engine = "failed   engine        container engine at unix:///nonexistent does not answer";
    assert!(lines[0].starts_with(engine), "{}", lines[0]);
    assert!(
        lines[0].contains("apt-get install docker.io"),
        "{}",
        lines[0]
    );
    let skipped = "skipped  boot          the engine cannot be used";
    assert!(lines.contains(&skipped), "{}", ended.stdout);
}

#[test]
fn a_real_agent_starts_and_could_work_and_its_key_is_named_and_not_shown() {
    let practice = Practice::new();
    let image = claude_image();
    let front_matter = format!("image: {image}\nenv: {{ANTHROPIC_API_KEY: {KEY}}}\n");
    let text = format!("---\n{front_matter}---\nDo it.\n");
    let file = practice.workshop.project.write("claude.md", text);

    let ended = Ended::of(practice.bare(&[]).arg(file).env("RUST_LOG", "debug"));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_probe(&ended, "agent starts", "ok", &["claude", "Claude Code"]);
    assert_probe(&ended, "agent works", "ok", &["a shell, git"]);
    assert_probe(&ended, "auth", "ok", &["ANTHROPIC_API_KEY"]);
    assert!(!ended.stdout.contains(KEY), "{}", ended.stdout);
    assert!(!ended.stderr.contains(KEY), "{}", ended.stderr);
    practice.assert_left_nothing();
}

#[test]
fn an_image_without_the_agent_is_told_with_what_makes_one() {
    let practice = Practice::new();
    let flags = ["--agent", "claude", "--image", &agent_image(), "--env"];

    let ended = Ended::of(practice.bare(&flags).arg("ANTHROPIC_API_KEY=x"));

    assert_eq!(ended.code, 2, "{}{}", ended.stdout, ended.stderr);
    // The stand-in knows no --version, and there is no shell.
    assert_eq!(failed(&ended), ["agent starts", "agent works"]);
    let advice = "dark-factory image build claude";
    assert_probe(&ended, "agent works", "failed", &["no shell", advice]);
}

#[test]
fn codex_without_the_program_that_it_needs_beside_it_is_told() {
    let practice = Practice::new();
    let name = format!("dark-factory-codex-alone-{}", Uuid::new_v4().simple());
    // Any executable that knows --version stands in for Codex.
    let codex = ["cp", "/bin/true", "/usr/local/bin/codex"];
    docker(
        &[
            &["run", "--name", &name, "--user", "0", &claude_image()][..],
            &codex,
        ]
        .concat(),
    );
    docker(&["commit", &name, &name]);

    let whole = Ended::of(practice.bare(&CODEX).arg(codex_image()));
    let alone = Ended::of(practice.bare(&CODEX).arg(&name));

    docker(&["rm", &name]);
    docker(&["image", "rm", &name]);
    assert_eq!(whole.code, 0, "{}{}", whole.stdout, whole.stderr);
    assert_eq!(alone.code, 2, "{}{}", alone.stdout, alone.stderr);
    assert_eq!(failed(&alone), ["agent works"]);
    let words = ["codex-code-mode-host", "image build codex"];
    assert_probe(&alone, "agent works", "failed", &words);
}

#[test]
fn what_is_wrong_with_image_and_credentials_is_told_apart_from_the_file() {
    let practice = Practice::new();
    let file = practice.workshop.project.write("a.md", "Do it.\n");

    let ended = Ended::of(practice.bare(&[]).arg(file));

    // Whoever works here may have made the image.
    let made = docker(&["image", "ls", "--quiet", "dark-factory/claude:latest"]);
    let (code, expected): (i32, &[&str]) = match made.is_empty() {
        true => (4, &["image", "auth"]),
        false => (2, &["auth"]),
    };
    assert_eq!(ended.code, code, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(failed(&ended), expected);
    assert_probe(&ended, "prompt", "ok", &["agent claude"]);
    assert_probe(&ended, "auth", "failed", &["looked at ANTHROPIC_API_KEY"]);
    assert_probe(&ended, "boot", "ok", &[]);
}

#[test]
fn a_prompt_file_that_cannot_be_run_is_told_with_its_line() {
    let practice = Practice::new();
    let file = "---\nmemory: lots\n---\nDo it.\n";
    let file = practice.workshop.project.write("a.md", file);

    let ended = Ended::of(practice.bare(&[]).arg(file));

    assert_eq!(ended.code, 2, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(failed(&ended), ["prompt"]);
    assert_probe(&ended, "prompt", "failed", &["a.md:2"]);
    assert_probe(&ended, "image", "skipped", &[]);
    assert_probe(&ended, "boot", "ok", &[]);
}

#[test]
fn an_image_that_is_missing_is_not_pulled_and_is_a_warning_if_a_run_would_pull_it() {
    let practice = Practice::new();
    let image = ["--image", "dark-factory-test/not-there:1"];

    let ended = Ended::of(&mut practice.doctor(&image));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let words = ["not-there:1", "a run pulls it", "docker pull"];
    assert_probe(&ended, "image", "warning", &words);
    assert_probe(&ended, "agent starts", "skipped", &["there is no image"]);
}

#[test]
fn an_image_that_no_run_pulls_is_told_with_where_it_comes_from() {
    for (image, comes_from, does_not) in [
        (
            "dark-factory/not-there:1",
            "image build not-there",
            "docker pull",
        ),
        (
            "dark-factory-test/not-there:1",
            "docker pull",
            "image build",
        ),
    ] {
        let practice = Practice::new();
        let text = for_agent("agent: command\npull: never\n", "print x");
        let file = practice.workshop.project.write("task.md", text);

        let ended = Ended::of(practice.bare(&["--image", image]).arg(file));

        assert_eq!(ended.code, 4, "{}{}", ended.stdout, ended.stderr);
        assert_eq!(failed(&ended), ["image"]);
        assert_probe(&ended, "image", "failed", &[image, comes_from]);
        let advice = probe(&ended, "image")["advice"].to_string();
        assert!(!advice.contains(does_not), "{advice}");
    }
}

#[test]
fn a_user_who_may_not_use_the_engine_is_told_of_its_group() {
    let practice = Practice::new();
    let task = practice.doctor(&[]);
    for folder in [
        practice.workshop.installation.folder(),
        practice.folder.path(),
    ] {
        chown(folder, Some(PROJECT_OWNER), Some(PROJECT_OWNER)).unwrap();
    }
    let mut command = as_user(PROJECT_OWNER, &["--clear-groups"], &task);
    command.current_dir(practice.workshop.project.path());

    let ended = Ended::of(&mut command);

    assert_eq!(ended.code, 4, "{}{}", ended.stdout, ended.stderr);
    let words = ["no permission", "usermod -aG docker"];
    assert_probe(&ended, "engine", "failed", &words);
    assert_probe(&ended, "state folder", "ok", &[]);
}

#[test]
fn an_engine_that_is_too_old_is_told_with_the_version_that_is_needed() {
    let practice = Practice::new();
    let proxy = EngineProxy::new();
    proxy.next("HEAD /_ping", Fault::Answer(Instead::OldApi));

    let ended = Ended::of(practice.doctor(&[]).env("DOCKER_HOST", proxy.host()));

    assert_eq!(ended.code, 4, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(failed(&ended), ["version"]);
    assert_probe(&ended, "version", "failed", &["1.40", "1.41 is needed"]);
}

#[test]
fn an_engine_that_does_not_see_our_files_is_told_as_a_mount() {
    let practice = Practice::new();
    let proxy = EngineProxy::new();
    proxy.next(
        "POST /containers/create",
        Fault::Answer(Instead::BadRequest),
    );

    let ended = Ended::of(practice.doctor(&[]).env("DOCKER_HOST", proxy.host()));

    assert_eq!(ended.code, 4, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(failed(&ended), ["mount"]);
    assert_probe(
        &ended,
        "mount",
        "failed",
        &["does not see this machine's files"],
    );
    assert_probe(&ended, "boot", "skipped", &[]);
    assert_eq!(images_made_and_removed(&proxy), (0, 0));
}

#[test]
fn a_project_that_the_agent_may_not_write_to_is_told() {
    let practice = Practice::new();
    let mut doctor = practice.doctor(&[]);
    let project = practice.workshop.project.path();
    fs::set_permissions(project, fs::Permissions::from_mode(0o555)).unwrap();

    let ended = Ended::of(&mut doctor);

    assert_eq!(ended.code, 2, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(failed(&ended), ["mount"]);
    assert_probe(&ended, "mount", "failed", &["1000:1000", "--user"]);
    assert_probe(&ended, "owner", "skipped", &[]);
}

#[test]
fn a_state_folder_inside_the_project_is_told() {
    let practice = Practice::new();
    let state = practice.workshop.project.path().join("state");

    let ended = Ended::of(practice.doctor(&[]).arg("--state-dir").arg(&state));

    assert_eq!(ended.code, 2, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(failed(&ended), ["prompt", "state folder"]);
    assert_probe(
        &ended,
        "state folder",
        "failed",
        &["overlap", "--state-dir"],
    );
}

#[test]
fn a_state_folder_on_a_small_disk_is_told() {
    let practice = Practice::new();
    let _disk = Mounted::at(practice.workshop.installation.state_dir());

    let ended = Ended::of(&mut practice.doctor(&[]));

    assert_eq!(ended.code, 2, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(failed(&ended), ["disk"]);
    assert_probe(&ended, "disk", "failed", &["MiB", "make room"]);
}

#[test]
fn leftovers_are_told_and_stay() {
    let practice = Practice::new();
    let left = practice
        .workshop
        .installation
        .state_dir()
        .join("runs/000000000000-1");
    fs::create_dir_all(&left).unwrap();
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(&left)
        .unwrap()
        .set_modified(hour_ago)
        .unwrap();

    let ended = Ended::of(&mut practice.doctor(&[]));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let words = ["1 containers, images and folders", "dark-factory prune"];
    assert_probe(&ended, "leftovers", "warning", &words);
    assert!(left.exists());
}

#[test]
fn a_state_folder_that_others_may_look_into_is_a_warning() {
    let practice = Practice::new();
    let state = practice.workshop.installation.state_dir();
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();

    let ended = Ended::of(&mut practice.doctor(&[]));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_probe(&ended, "state folder", "warning", &["755", "chmod 700"]);
}

#[test]
fn without_git_it_is_told_how_to_get_it() {
    let practice = Practice::new();

    let ended = Ended::of(practice.doctor(&[]).env("PATH", "/nonexistent"));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_probe(&ended, "git", "warning", &["apt-get install git"]);
}

#[test]
fn a_project_of_the_seed_is_told_of_the_seeds_profile() {
    let practice = Practice::new();
    practice.workshop.project.write(".dark-factory.yaml", "");

    let ended = Ended::of(&mut practice.doctor(&[]));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_probe(&ended, "seed", "ok", &["profile: seed"]);
}

#[test]
fn a_daemon_of_this_binary_and_engine_is_fine() {
    let practice = Practice::new();
    let started = Ended::of(&mut practice.workshop.command(&["daemon", "start"]));
    assert_eq!(started.code, 0, "{}", started.stderr);

    let ended = Ended::of(&mut practice.doctor(&[]));

    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_probe(&ended, "daemon", "ok", &["this engine and this binary"]);
}

#[test]
fn a_probe_that_is_interrupted_takes_no_slot_and_leaves_nothing() {
    let practice = Practice::new();
    let proxy = EngineProxy::new();
    proxy.next("POST /containers/*/start", Fault::HoldRequest);

    let doctor = Watched::of(practice.doctor(&[]).env("DOCKER_HOST", proxy.host()));
    proxy.wait_until_held();
    let state = practice.workshop.installation.state_dir();
    let watch = Leftovers::of(&state);
    let containers = watch.containers();
    let [container] = containers.as_slice() else {
        panic!("not one container: {containers:?}")
    };
    let labels = docker(&["inspect", "--format", "{{json .Config.Labels}}", container]);
    let image = docker(&["inspect", "--format", "{{.Config.Image}}", container]);
    let listed = Ended::of(&mut practice.workshop.command(&["image", "list"]));
    doctor.signal(Signal::SIGINT);
    proxy.release();
    let ended = doctor.ended();

    assert_eq!(ended.code, 130, "{}{}", ended.stdout, ended.stderr);
    assert!(labels.contains("dark-factory.owner"), "{labels}");
    assert!(!labels.contains("dark-factory.project"), "{labels}");
    // If doctor were killed now, this is where its image would be found.
    assert!(listed.stdout.contains(image.trim()), "{}", listed.stdout);
    assert_eq!(images_made_and_removed(&proxy), (1, 1));
    practice.assert_left_nothing();
}

#[test]
fn a_token_that_has_expired_is_told_before_a_run_fails_with_it() {
    let practice = Practice::new();
    let home = practice.workshop.installation.folder().join("home");
    let folder = home.join(".claude-yolo");
    fs::create_dir(&folder).unwrap();
    let token = format!(r#"{{"claudeAiOauth":{{"accessToken":"{KEY}","expiresAt":1}}}}"#);
    fs::write(folder.join(".credentials.json"), token).unwrap();
    let text = format!(
        "---\nprofile: seed\nimage: {}\n---\nDo it.\n",
        claude_image()
    );
    let file = practice.workshop.project.write("seed.md", text);

    let ended = Ended::of(practice.bare(&[]).arg(file));

    assert_eq!(ended.code, 2, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(failed(&ended), ["auth"]);
    assert_probe(&ended, "auth", "failed", &["has expired", "/login"]);
    for name in ["owner", "agent starts", "agent works"] {
        assert_probe(&ended, name, "skipped", &["profile: seed"]);
    }
    assert!(!ended.stdout.contains(KEY), "{}", ended.stdout);
}

#[test]
fn a_base_url_that_is_none_is_told_before_an_agent_cannot_connect() {
    let practice = Practice::new();
    let text = format!(
        "---\nimage: {}\nenv: {{ANTHROPIC_API_KEY: {KEY}, ANTHROPIC_BASE_URL: 'http://me:{KEY}@:8123'}}\n---\nDo it.\n",
        claude_image()
    );
    let file = practice.workshop.project.write("claude.md", text);

    let ended = Ended::of(practice.bare(&[]).arg(file));

    assert_eq!(ended.code, 2, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(failed(&ended), ["auth"]);
    let told = [
        "ANTHROPIC_BASE_URL",
        "http://me:***@:8123",
        "has no host",
        "https://HOST",
    ];
    assert_probe(&ended, "auth", "failed", &told);
    assert!(!ended.stdout.contains(KEY), "{}", ended.stdout);
}

#[test]
fn an_endpoint_that_is_none_is_told_once() {
    let practice = Practice::new();

    let ended = Ended::of(&mut practice.doctor(&["--host", "ssh://somewhere"]));

    assert_eq!(ended.code, 2, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(failed(&ended), ["engine"]);
    assert_probe(&ended, "engine", "failed", &["unix:///PATH", "--host"]);
}
