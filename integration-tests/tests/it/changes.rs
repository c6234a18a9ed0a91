//! What an attempt changed: the patch, the numbers, `report.md`, and where `inspect` says that they are.
//!
//! Owns: what a user sees of an agent's changes.
//! Reads: the attempts' folders; what git makes of the patch.
//! Never: tests what git does; see the tests of `crates/factory`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use integration_tests::{Installation, Project, claude_image};
use serde_json::{Value, json};

use crate::scene::{self, STARTED, Scene};
use crate::support::{Ended, Workshop, attempt_file, attempt_text, report};

/// Runs a program that has to succeed.
fn host(command: &mut Command) -> String {
    let ended = Ended::of(command);
    assert_eq!(ended.code, 0, "{command:?}: {}", ended.stderr);
    ended.stdout
}

/// Returns what `prune` says with these flags.
fn pruned(workshop: &Workshop, flags: &[&str]) -> String {
    let prune = Ended::of(&mut workshop.command(&[&["prune"], flags].concat()));
    assert_eq!(prune.code, 0, "{}", prune.stderr);
    prune.stdout
}

#[test]
fn the_kept_index_of_a_project_goes_once_the_project_is_gone_or_unused_for_long() {
    let workshop = Workshop::new();
    assert_eq!(
        Ended::of(&mut workshop.script(&["--quiet"], "exit 0")).code,
        0
    );
    let kept = workshop.installation.state_dir().join("projects");
    let files = || {
        fs::read_dir(&kept)
            .unwrap()
            .map(|file| file.unwrap().path())
    };
    let age = |days: u64| {
        let time = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
        for file in files() {
            fs::File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
    };
    let nothing = "nothing is left over\n";
    let project = workshop.project.path().canonicalize().unwrap();
    let project = project.display();

    let used = pruned(&workshop, &["--keep-days", "3", "--apply"]);
    age(5);
    let old = pruned(&workshop, &["--keep-days", "3"]);
    let kept_for_ever = pruned(&workshop, &["--apply"]);
    let moved = workshop.installation.folder().join("moved");
    fs::rename(workshop.project.path(), &moved).unwrap();
    let mut prune = workshop.command(&["prune", "--apply"]);
    let gone = Ended::of(prune.current_dir(&moved)).stdout;
    let left = files().count();
    fs::write(kept.join("0123.sha1"), "of an older version").unwrap();
    let mut prune = workshop.command(&["prune", "--apply", "--json"]);
    let unknown = Ended::of(prune.current_dir(&moved)).one();
    fs::rename(&moved, workshop.project.path()).unwrap();

    assert_eq!(used, nothing);
    assert!(
        old.contains(&format!(
            "index of {project} (not used for longer than --keep-days): would be removed\n"
        )),
        "{old}"
    );
    assert_eq!(kept_for_ever, nothing);
    assert_eq!(
        gone,
        format!("index of {project} (the project's folder is gone): removed\n")
    );
    assert_eq!(left, 0);
    assert_eq!(
        (&unknown["kind"], &unknown["removed"]),
        (&json!("index"), &json!(true))
    );
    assert_eq!(files().count(), 0);
}

fn copy(project: &Path, to: &Path) {
    host(Command::new("cp").arg("-a").arg(project).arg(to));
}

#[test]
fn a_run_leaves_a_patch_of_what_its_agent_changed_and_says_how_much() {
    let workshop = Workshop::new();
    workshop.project.write("mine.txt", "the user's own work\n");
    let script = "write new.txt one; append README.md two; append mine.txt three";
    let mut command = workshop.script(&["--json"], script);
    let folder = tempfile::tempdir().unwrap();
    let before = folder.path().join("before");
    copy(workshop.project.path(), &before);

    let run = Ended::of(&mut command).one();

    let patch = attempt_file(&run, "changes.patch");
    assert_eq!(
        run["changes"],
        json!({ "files": 3, "insertions": 3, "deletions": 0, "patch": patch, "note": null })
    );
    assert_eq!(report(&run)["changes"], run["changes"]);
    assert_eq!(
        attempt_text(&run, "changes.stat"),
        "1\t0\tREADME.md\n1\t0\tmine.txt\n1\t0\tnew.txt\n"
    );
    fs::remove_dir_all(before.join(".git")).unwrap();
    host(
        Command::new("git")
            .arg("apply")
            .arg(&patch)
            .current_dir(&before),
    );
    let differ = ["-r", "--exclude", ".git"];
    host(
        Command::new("diff")
            .args(differ)
            .arg(&before)
            .arg(workshop.project.path()),
    );
    assert_eq!(workshop.project.git(&["stash", "list"]), "");
    assert_eq!(workshop.project.git(&["diff", "--cached"]), "");
    assert!(!attempt_file(&run, "changes.git").exists());
}

#[test]
fn the_last_words_and_the_report_for_people_say_what_changed() {
    let workshop = Workshop::new();

    let ended =
        Ended::of(&mut workshop.script(&["--quiet"], "append README.md '<b>two</b>'; exit 2"));

    assert!(
        ended.stdout.contains("1 file changed, +1 −0"),
        "{}",
        ended.stdout
    );
    let folder = ended.stdout.lines().last().unwrap().trim();
    let text = fs::read_to_string(Path::new(folder).join("report.md")).unwrap();
    assert!(text.starts_with("# ✘ failed: "), "{text}");
    for part in [
        "the command exited with code 2\n",
        "- exit: code 2\n",
        "1 file changed, +1 −0\n",
        "| 1 | 0 | README.md |\n",
        "- changes.patch: ",
        "    dark-factory retry ",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn inspect_names_every_file_and_what_to_do_next_while_the_engine_is_down() {
    let workshop = Workshop::new();
    let run = Ended::of(&mut workshop.script(&["--json"], "write new.txt one")).one();
    let id = run["run_id"].as_str().unwrap();
    let inspect = |flags: &[&str]| {
        let mut command = workshop.command(&["inspect", id]);
        Ended::of(
            command
                .args(flags)
                .env("DOCKER_HOST", "unix:///nowhere.sock"),
        )
    };

    let object = inspect(&["--json"]).one();
    let text = inspect(&[]).stdout;

    for (name, file) in [
        ("prompt", "prompt.md"),
        ("raw_log", "raw.jsonl"),
        ("stderr_log", "stderr.log"),
        ("run_log", "run.log"),
        ("event_log", "events.jsonl"),
        ("launch_json", "launch.json"),
        ("report_json", "report.json"),
        ("report_md", "report.md"),
        ("changes_patch", "changes.patch"),
        ("changes_stat", "changes.stat"),
    ] {
        let path = attempt_file(&run, file);
        assert_eq!(object["paths"][name], path.display().to_string());
        assert!(
            text.contains(&format!("{name}: {} (", path.display())),
            "{text}"
        );
    }
    assert_eq!(object["paths"]["spool"], Value::Null);
    assert_eq!(object["attempts"][0]["attempt_id"], format!("{id}-1"));
    assert_eq!(object["attempts"][0]["outcome"], "succeeded");
    assert_eq!(object["next"][0], format!("dark-factory logs {id}"));
}

#[test]
fn a_project_without_git_is_said_to_be_none() {
    let workshop = Workshop {
        installation: Installation::new(),
        project: Project::unversioned(),
    };

    let run = Ended::of(&mut workshop.script(&["--json"], "write new.txt one")).one();

    assert_eq!(run["outcome"], "succeeded");
    assert_eq!(run["changes"]["note"], "not a git project");
    assert_eq!(run["changes"]["files"], Value::Null);
    assert!(!attempt_file(&run, "changes.patch").exists());
}

#[test]
fn what_an_agent_left_in_git_is_not_executed_on_the_host() {
    let scene = Scene::new();
    let canary = tempfile::tempdir().unwrap();
    fs::set_permissions(canary.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let trap = format!("touch {}/fell; false", canary.path().display());
    let script = format!(
        "git config --global --add safe.directory '*'; \
         git config core.fsmonitor '{trap}'; git config diff.external '{trap}'; \
         git config filter.x.clean '{trap}'; echo '* filter=x' > .gitattributes; \
         printf '#!/bin/sh\\n{trap}\\n' > .git/hooks/post-index-change; chmod +x .git/hooks/post-index-change; \
         echo changed >> README.md"
    );

    let argv = ["/bin/bash", "-c", &script];
    let run = Ended::of(&mut scene.run_argv(&claude_image(), &["--json"], &argv)).one();

    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(run["changes"]["files"], 2, "{run}");
    let config = scene.project.read(".git/config");
    assert!(config.contains("fsmonitor"), "{config}");
    assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 0);
}

#[test]
fn a_run_that_another_process_finishes_has_its_patch() {
    let scene = Scene::new();
    let script = format!("{STARTED}write begun x; wait-file go; append README.md two");
    let run = scene.run_until("begun", &script);
    run.crash();
    scene.project.write("go", "");
    scene.wait_for_container();

    scene.assert_recovers("succeeded");

    let folder = scene.folder();
    let patch = fs::read_to_string(folder.join("changes.patch")).unwrap();
    assert!(patch.contains("+two"), "{patch}");
    assert!(patch.contains("+++ b/begun\n"), "{patch}");
    assert!(folder.join("report.md").exists());
    assert!(!folder.join("changes.git").exists());
}

#[test]
fn a_hidden_git_folder_is_no_hindrance() {
    let scene = Scene::new();

    let script = "append README.md two";
    let run = Ended::of(&mut scene.run_with(&["--json", "--hide-git"], script)).one();

    assert_eq!(run["changes"]["files"], 1, "{run}");
}

#[test]
fn a_run_that_changed_what_the_next_one_obeys_says_so_at_its_end() {
    let (obeyed, ordinary) = (Scene::new(), Scene::new());
    let script = "mkdir -p .git/hooks .claude; echo 'memory = \"1g\"' > dark-factory.toml; echo x > .git/hooks/post-checkout; \
                  echo {} > .claude/settings.json; echo x > CLAUDE.md";
    let warning = "while it ran, files changed that later runs, git or an editor obey: .claude/settings.json (new), \
                   .git/hooks/post-checkout (new), dark-factory.toml (new); read them before you go on in this project";

    let changed = Ended::of(&mut obeyed.run_argv(&claude_image(), &[], &["sh", "-c", script]));
    let same = Ended::of(&mut ordinary.run("write CLAUDE.md x; write main.rs x"));

    assert_eq!((changed.code, same.code), (0, 0), "{}", changed.stderr);
    let told = format!("  warning: {warning}\n");
    assert!(changed.stdout.contains(&told), "{}", changed.stdout);
    assert!(!same.stdout.contains("warning: "), "{}", same.stdout);
    assert_eq!(
        scene::report(&obeyed.folder())["warnings"],
        json!([warning])
    );
    let text = fs::read_to_string(obeyed.folder().join("report.md")).unwrap();
    assert!(text.contains("post-checkout"), "{text}");
}

#[test]
fn what_was_obeyed_before_a_crash_is_compared_by_the_recovery() {
    let scene = Scene::new();
    let run = scene.run_until("begun", "write .envrc x; write begun x; wait-file go");
    run.crash();

    scene.project.write("go", "");
    scene.wait_for_container();
    scene.assert_recovers("succeeded");

    let warnings = scene::report(&scene.folder())["warnings"].to_string();
    assert!(warnings.contains("obey: .envrc (new); "), "{warnings}");
}
