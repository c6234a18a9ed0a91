//! Runs whose agent has no key: the guard puts it into their requests, and keeps their budget.
//!
//! Owns: the key, which no container and no file of ours may hold.
//! Reads: reports, files of the state folder, what the engine says of containers.
//! Never: reaches a real model.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use integration_tests::{MockModel, PROJECT_OWNER, claude_image, codex_image};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::guard::{bridge_address, find_guard as guard};
use crate::scene::{Running, Scene, eventually, report};
use crate::support::Ended;

const KEY: &str = "sk-of-this-machine-and-nobody-elses";

/// A run of a prompt under the defaults: no network, no key and no address of the API is asked for.
fn run(scene: &Scene, agent: &str, front_matter: &str) -> Command {
    let text = format!("---\nagent: {agent}\n{front_matter}---\nCreate hello.txt.\n");
    let image = match agent {
        "codex" => codex_image(),
        _ => claude_image(),
    };
    let mut run = scene.dark_factory(&["run", "--image", &image]);
    run.arg(scene.project.write("tasks/hello.md", &text));
    run
}

/// Gives a command this machine's key and the model as its provider.
fn with_key<'a>(command: &'a mut Command, agent: &str, model: &MockModel) -> &'a mut Command {
    let (key, base) = match agent {
        "codex" => ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
        _ => ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    };
    command.env(key, KEY).env(base, model.local_url())
}

/// Checks that no file below a folder holds the key.
fn assert_keyless(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_keyless(&path);
        } else if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            let holds = bytes.windows(KEY.len()).any(|part| part == KEY.as_bytes());
            assert!(!holds, "{} holds the key", path.display());
        }
    }
}

/// The agent does its work, and the key is nowhere.
fn works_without_a_key(agent: &str) {
    let scene = Scene::new();
    let model = MockModel::expecting(KEY, "success");
    let mut run = run(&scene, agent, "");

    let run = Ended::of(with_key(&mut run, agent, &model).arg("--keep"));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("only its API"), "{}", run.stderr);
    assert_eq!(
        scene.project.read("hello.txt"),
        "Hello, world!\nline 2 (edited)\n"
    );
    let container = scene.containers().remove(0);
    let inspected = scene.docker(&["inspect", &container]);
    assert!(!inspected.contains(KEY), "{inspected}");
    assert!(inspected.contains("dark-factory-"), "{inspected}");
    assert!(!run.stdout.contains(KEY) && !run.stderr.contains(KEY));
    assert_keyless(&scene.installation.state_dir());
    let report = report(&scene.folder());
    // Codex asks for a websocket first, and is told that there is none.
    let brokered = report["egress"]["brokered"].as_array().unwrap();
    let asked = |used: &serde_json::Value| used["requests"].as_u64() > Some(1);
    assert!(brokered.iter().any(asked), "{report}");
    // It asks for nothing that it cannot have, and both count the same.
    assert_eq!(report["egress"]["denied"], serde_json::json!([]));
    assert_eq!(report.get("warnings"), None, "{report}");
    scene.docker(&["rm", "--force", &container]);
}

#[test]
fn the_real_claude_code_works_without_a_key() {
    works_without_a_key("claude");
}

#[test]
fn the_real_codex_works_without_a_key() {
    works_without_a_key("codex");
}

#[test]
fn a_budget_that_is_used_up_ends_the_run() {
    let scene = Scene::new();
    let model = MockModel::expecting(KEY, "success");
    let mut run = run(&scene, "claude", "max-requests: 2\n");

    let run = Ended::of(with_key(&mut run, "claude", &model));

    assert_eq!(run.code, 6, "{}{}", run.stdout, run.stderr);
    let report = report(&scene.folder());
    assert_eq!(report["outcome"], "limit", "{report}");
    assert_eq!(report["cause"], "its budget of 2 requests is used up");
    let text = fs::read_to_string(scene.folder().join("report.md")).unwrap();
    assert!(
        text.contains("its budget of 2 requests is used up"),
        "{text}"
    );
}

#[test]
fn the_real_codex_takes_no_for_an_answer_when_its_budget_is_used_up() {
    let scene = Scene::new();
    let model = MockModel::expecting(KEY, "success");
    // A stop of which it does not hear: it goes on for as long as it likes to.
    let deaf = "max-requests: 2\nstop-signal: SIGWINCH\nstop-grace: 2m\n";
    let mut run = run(&scene, "codex", deaf);

    let run = Ended::of(with_key(&mut run, "codex", &model));

    assert_eq!(run.code, 6, "{}{}", run.stdout, run.stderr);
    let report = report(&scene.folder());
    assert_eq!(report["outcome"], "limit", "{report}");
    assert_eq!(report["cause"], "its budget of 2 requests is used up");
    assert_eq!(report["exit"]["status"]["code"], 1, "{report}");
    let requests = fs::read_to_string(scene.folder().join("egress.jsonl")).unwrap();
    let is_refused = |line: &&str| line.contains("budget of 2 requests");
    assert_eq!(requests.lines().filter(is_refused).count(), 1, "{requests}");
}

#[test]
fn a_budget_without_a_broker_is_refused() {
    let scene = Scene::new();
    let mut run = run(
        &scene,
        "claude",
        "max-requests: 2\nenv: {ANTHROPIC_API_KEY: own}\n",
    );

    let run = Ended::of(&mut run);

    assert_eq!(run.code, 2, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("hello.md:3"), "{}", run.stderr);
    assert!(
        run.stderr.contains("max-requests is kept at the broker"),
        "{}",
        run.stderr
    );
}

#[test]
fn without_a_key_anywhere_the_run_is_refused_and_told_where_was_looked() {
    let scene = Scene::new();

    let run = Ended::of(&mut run(&scene, "claude", ""));

    assert_eq!(run.code, 2, "{}{}", run.stdout, run.stderr);
    for place in [
        "ANTHROPIC_API_KEY",
        "CLAUDE_CODE_OAUTH_TOKEN",
        ".claude/.credentials.json",
        "credentials: none",
    ] {
        assert!(run.stderr.contains(place), "{place}: {}", run.stderr);
    }
}

#[test]
fn a_prompt_file_cannot_choose_where_the_key_is_sent() {
    let scene = Scene::new();
    let thief = MockModel::start("success");
    let front_matter = format!("env: {{ANTHROPIC_BASE_URL: '{}'}}\n", thief.local_url());
    let mut run = run(&scene, "claude", &front_matter);

    let run = Ended::of(run.env("ANTHROPIC_API_KEY", KEY));

    assert_eq!(run.code, 2, "{}{}", run.stdout, run.stderr);
    assert!(
        run.stderr.contains("ANTHROPIC_BASE_URL") && run.stderr.contains("no key of this machine"),
        "{}",
        run.stderr
    );
    assert!(thief.requests().is_empty());
}

#[test]
fn a_project_cannot_say_where_keys_are() {
    let scene = Scene::new();
    scene.project.write(
        "dark-factory.toml",
        "[api-key]\nanthropic = \"command:touch stolen\"\n",
    );

    let run = Ended::of(run(&scene, "claude", "").env("ANTHROPIC_API_KEY", KEY));

    assert_ne!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("api-key"), "{}", run.stderr);
    assert!(!scene.project.path().join("stolen").exists());
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let scene = Scene::new();
    let file = scene.installation.folder().join("key");
    fs::write(&file, KEY).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let mut run = run(&scene, "claude", "");
    run.arg(format!("--api-key=anthropic=file:{}", file.display()));

    let run = Ended::of(&mut run);

    assert_eq!(run.code, 2, "{}{}", run.stdout, run.stderr);
    assert!(
        run.stderr
            .contains(&format!("chmod 600 {}", file.display())),
        "{}",
        run.stderr
    );
}

#[test]
fn a_program_of_the_configuration_prints_the_key() {
    let scene = Scene::new();
    let model = MockModel::expecting(KEY, "success");
    let folder = scene
        .installation
        .folder()
        .join("home/.config/dark-factory");
    fs::create_dir_all(&folder).unwrap();
    let asked = scene.installation.folder().join("asked");
    let config = format!(
        "[api-key]\nanthropic = [\"sh\", \"-c\", \"echo asked >> {}; echo {KEY}\"]\n[api-base]\nanthropic = \"{}\"\n",
        asked.display(),
        model.local_url()
    );
    fs::write(folder.join("config.toml"), config).unwrap();

    let run = Ended::of(&mut run(&scene, "claude", ""));

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(scene.project.path().join("hello.txt").exists());
    assert_eq!(fs::read_to_string(asked).unwrap(), "asked\n");
}

#[test]
fn a_program_that_fails_to_print_the_key_is_the_cause() {
    let scene = Scene::new();
    let vault = scene.installation.folder().join("vault");
    fs::write(&vault, "echo asked >> \"$0.asked\"; ls /no-such-vault").unwrap();
    let mut run = run(&scene, "claude", "");
    run.arg(format!(
        "--api-key=anthropic=command:sh {}",
        vault.display()
    ));

    let run = Ended::of(&mut run);

    assert_ne!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(
        run.stdout.contains("the program that prints the key")
            && run.stdout.contains("/no-such-vault"),
        "{}{}",
        run.stdout,
        run.stderr
    );
    // Some ask a person, who has said no.
    let asked = fs::read_to_string(vault.with_extension("asked")).unwrap();
    assert_eq!(asked, "asked\n");
}

/// A program that asks the broker for the model's answer, again and again until `done` is there.
const ASK: &str = r#"while [ ! -e done ]; do exec 3<>/dev/tcp/127.0.0.1/3128 && printf "POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: $ANTHROPIC_API_KEY\r\ncontent-type: application/json\r\ncontent-length: 2\r\nConnection: close\r\n\r\n{}" >&3 && head -1 <&3; exec 3>&-; touch asked; sleep 0.2; done"#;

/// Starts a program that uses a provider through the broker; it needs no agent.
fn asking(scene: &Scene, model: &MockModel) -> Running {
    let mut run = scene.dark_factory(&["run", "--agent", "command", "--image", &claude_image()]);
    run.args(["--providers", "anthropic"]).arg(&scene.prompt);
    run.args(["--", "bash", "-c", ASK]);
    let run = Running::start(with_key(&mut run, "claude", model));
    scene.wait_for_file("asked");
    run
}

#[test]
fn a_killed_guard_gets_the_key_again_from_the_supervisor() {
    let scene = Scene::new();
    let model = MockModel::expecting(KEY, "success");
    let run = asking(&scene, &model);
    let first = eventually("a guard", || guard(&scene));

    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    eventually("another guard", || {
        guard(&scene).filter(|next| *next != first)
    });
    let before = model.requests().len();
    eventually("a request", || {
        (model.requests().len() > before).then_some(())
    });
    scene.project.write("done", "");
    let run = run.ended();

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert_keyless(&scene.installation.state_dir());
}

#[test]
fn a_recovery_without_the_key_leaves_the_way_shut_and_says_so() {
    let scene = Scene::new();
    let model = MockModel::expecting(KEY, "success");
    let run = asking(&scene, &model);
    let first = eventually("a guard", || guard(&scene));
    run.crash();
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let before = model.requests().len();

    let recover = Running::start(&mut scene.dark_factory(&["recover"]));
    scene.wait_until_supervised();
    scene.project.write("done", "");
    let recover = recover.ended();

    assert!(
        recover.stderr.contains("no key of anthropic was found"),
        "{}{}",
        recover.stdout,
        recover.stderr
    );
    assert_eq!(model.requests().len(), before);
    let report = report(&scene.folder());
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("its way out was shut"), "{report}");
}

#[test]
fn the_real_claude_code_works_by_a_login_that_is_mounted() {
    let (scene, token) = (Scene::new(), "sk-ant-oat01-of-this-machine");
    let model = MockModel::expecting(token, "success");
    let folder = scene.installation.folder().join("home/.claude");
    let file = folder.join(".credentials.json");
    fs::create_dir_all(&folder).unwrap();
    let login = format!(
        r#"{{"claudeAiOauth":{{"accessToken":"{token}","refreshToken":"r","expiresAt":4102444800000,"scopes":["user:inference"],"subscriptionType":"max"}}}}"#
    );
    fs::write(&file, &login).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    for path in [&folder, &file] {
        chown(path, Some(PROJECT_OWNER), Some(PROJECT_OWNER)).unwrap();
    }
    let at = format!("{}:{}", bridge_address(&scene), model.port());
    let mut run = run(&scene, "claude", "credentials: mount\n");
    run.args(["--network", &format!("allow:{at}")]);
    run.args(["--env", &format!("ANTHROPIC_BASE_URL=http://{at}")]);

    let run = Ended::of(&mut run);

    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert_eq!(
        scene.project.read("hello.txt"),
        "Hello, world!\nline 2 (edited)\n"
    );
    // It was shown as a login is, and nothing of the folder was written to or told.
    let asked = model.requests();
    let is_login = |request: &serde_json::Value| request["auth"] == "authorization";
    assert!(asked.iter().any(is_login), "{asked:?}");
    let left: Vec<_> = fs::read_dir(&folder).unwrap().collect();
    assert_eq!((left.len(), fs::read_to_string(file).unwrap()), (1, login));
    assert!(!run.stdout.contains(token) && !run.stderr.contains(token));
    assert_eq!(
        report(&scene.folder())["egress"]["reached"][0]["target"],
        at.as_str()
    );
}

#[test]
fn a_mounted_credential_folder_can_only_be_read() {
    let scene = Scene::new();
    let folder = scene.installation.folder().join("home/.claude");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(".credentials.json"), "{}").unwrap();

    let mut explain = scene.dark_factory(&["explain", "--json", "--image", &claude_image()]);
    explain.args(["--credentials", "mount"]).arg(&scene.prompt);
    let explained = Ended::of(explain.arg("--agent=claude")).one();

    let binds = explained["create"]["HostConfig"]["Binds"].to_string();
    let source = folder.display().to_string();
    assert!(
        binds.contains(&format!("{source}:/home/agent/.claude:ro")),
        "{binds}"
    );
    assert!(explained["spec"].get("providers").is_none(), "{explained}");
}
