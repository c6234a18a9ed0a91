//! Bugs of keeping things apart: projects, runs of one file, secrets, prompts and flags that are none.

use std::fs;
use std::path::Path;
use std::process::Command;

use integration_tests::{Project, agent_image};

use super::is_running;
use crate::bad_input::{nothing_ran, refuses};
use crate::scene::{STARTED, Scene, report};
use crate::support::{Ended, Watched, Workshop, attempt_text, for_agent, wait_for};

#[test]
fn b_04_each_run_works_in_the_project_of_its_own_file_wherever_it_is_started() {
    let workshop = Workshop::new();
    let other = Project::new();
    let script = for_agent("", "append who.txt \"here\\n\"");
    let files = [
        workshop.project.write("x.md", &script),
        other.write("x.md", &script),
    ];
    let elsewhere = tempfile::tempdir().unwrap();

    let ended = Ended::of(
        workshop
            .run(&["--json"])
            .current_dir(elsewhere.path())
            .args(files),
    );

    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(workshop.project.read("who.txt"), "here\n");
    assert_eq!(other.read("who.txt"), "here\n");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn b_14_two_projects_with_the_same_prompt_name_do_not_touch_each_others_containers() {
    let (one, two) = (Scene::new(), Scene::new());
    let script = format!("{STARTED}write one x\nwait-file go");

    let runs = [one.run_until("one", &script), two.run_until("one", &script)];
    let names = [one.container(), two.container()];

    assert_ne!(names[0], names[1]);
    assert!(names.iter().all(|name| is_running(name)));
    for (scene, run) in [&one, &two].into_iter().zip(runs) {
        scene.project.write("go", "");
        assert_eq!(run.ended().code, 0);
        scene.assert_ended("succeeded", b"", b"");
    }
}

#[test]
fn b_21_running_a_file_again_leaves_the_logs_of_its_earlier_runs() {
    let workshop = Workshop::new();

    let first = Ended::of(&mut workshop.script(&["--json"], "print one; stderr two; exit 3"));
    let second = Ended::of(&mut workshop.script(&["--json"], "print three"));

    let (first, second) = (first.one(), second.one());
    assert_ne!(first["dir"], second["dir"]);
    assert_eq!(attempt_text(&first, "raw.jsonl"), "one\n");
    assert_eq!(attempt_text(&first, "stderr.log"), "two\n");
    assert_eq!(
        report(Path::new(first["dir"].as_str().unwrap()))["outcome"],
        "failed"
    );
    assert_eq!(attempt_text(&second, "raw.jsonl"), "three\n");
}

#[test]
fn b_28_no_secret_is_on_a_command_line_of_the_host_or_in_the_containers_configuration() {
    const SECRET: &str = "s3cr3t-28-of-the-host";
    let workshop = Workshop::new();
    let file = workshop
        .project
        .write("x.md", "---\nsecrets: {token: 'env:TOKEN'}\n---\nUse it.\n");
    let script = "check /run/secrets/token s3cr3t-28; write begun x; wait-file go";
    let mut command = workshop.run(&["--json"]);
    command
        .env("TOKEN", SECRET)
        .arg(file)
        .args(["--", "/bin/agent", "-e", script]);
    let running = Watched::of(&mut command);
    wait_for(&workshop.project.path().join("begun"));

    let shown = command_lines_with(SECRET);
    let container = workshop.container().to_string();
    workshop.project.write("go", "");
    let ended = running.ended();

    assert_eq!(shown, Vec::<String>::new());
    assert!(!container.contains(SECRET), "{container}");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

/// Returns the command lines of this host's processes that have a text in them.
fn command_lines_with(text: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .filter(|line| line.contains(text))
        .collect()
}

#[test]
fn b_32_an_empty_prompt_is_refused_and_left_where_it_is() {
    let workshop = Workshop::new();
    for (name, content) in [
        ("empty.md", ""),
        ("blank.md", " \n\t\n"),
        ("keys.md", "---\nmemory: 1g\n---\n"),
    ] {
        let file = workshop.project.write(name, content);

        refuses(
            workshop.run(&[]).arg(&file),
            2,
            &[name, "the prompt is empty"],
        );

        assert_eq!(workshop.project.read(name), content);
    }
    nothing_ran(&workshop);
}

#[test]
fn b_35_a_flag_that_would_do_nothing_is_refused() {
    let workshop = Workshop::new();
    let file = workshop.project.write("x.md", "Do it.\n");

    for flag in ["--auto-approve", "--auto-release"] {
        let ended = Ended::of(workshop.run(&[flag]).arg(&file));
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains(flag), "{}", ended.stderr);
    }
    let image = agent_image();
    let mut unused: Command = workshop.command(&["run", "--agent", "claude", "--image", &image]);
    refuses(
        unused
            .env("ANTHROPIC_API_KEY", "x")
            .arg(&file)
            .args(["--", "/bin/agent"]),
        2,
        &["command"],
    );

    nothing_ran(&workshop);
}
