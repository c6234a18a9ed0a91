//! `rm`, and runs that are kept no longer.
//!
//! Owns: what goes, what stays, and who is refused.
//! Reads: the commands' output, the state folder.
//! Never: looks into the store.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::scene::{Scene, docker, eventually, text};
use crate::support::Ended;

fn command(scene: &Scene, arguments: &[&str]) -> Ended {
    Ended::of(&mut scene.dark_factory(arguments))
}

/// Runs the scene's file to its end so many times; returns the runs' ids in the order of their ends.
fn ended_runs(scene: &Scene, count: usize) -> Vec<String> {
    let run =
        || Ended::of(&mut scene.run_with(&["--json", "--quiet"], "print hello\nexit 0")).one();
    (0..count).map(|_| text(&run(), "run_id")).collect()
}

fn left(scene: &Scene) -> Vec<String> {
    scene.runs().iter().map(|run| text(run, "run_id")).collect()
}

fn folders(scene: &Scene) -> usize {
    fs::read_dir(scene.installation.state_dir().join("runs"))
        .unwrap()
        .count()
}

#[test]
fn a_run_that_has_ended_is_removed_with_all_of_its_attempts_and_needs_no_engine() {
    let scene = Scene::new();
    let [first, second] = ended_runs(&scene, 2).try_into().unwrap();
    let retried = command(&scene, &["retry", "--quiet", &first]);

    let mut remove = scene.dark_factory(&["rm", "--json", &first]);
    let removed = Ended::of(remove.env("DOCKER_HOST", "unix:///nowhere.sock"));

    assert_eq!(retried.code, 0, "{}", retried.stderr);
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    let told = removed.one();
    assert_eq!(
        (&told["run_id"], &told["removed"]),
        (&json!(first), &json!(true))
    );
    assert!(told["freed_bytes"].as_u64() > Some(0), "{told}");
    assert_eq!(left(&scene), [second]);
    assert_eq!(folders(&scene), 1);
    assert_eq!(command(&scene, &["inspect", &first]).code, 3);
}

#[test]
fn an_open_run_is_not_removed_and_keeps_no_other_from_it() {
    let scene = Scene::new();
    let [ended] = ended_runs(&scene, 1).try_into().unwrap();
    let foreground = scene.run_until("begun", "write begun x\nwait-file go\nexit 0");
    let open = text(scene.runs().last().unwrap(), "run_id");

    let removed = command(&scene, &["rm", &open, "zzzz", &ended]);

    assert_eq!(removed.code, 2, "{}", removed.stderr);
    let errors: Vec<&str> = removed.stderr.lines().collect();
    assert_eq!(errors[0], "error: there is no run zzzz");
    assert!(
        errors[2].starts_with(&format!("error: run {open} has not ended: it is ")),
        "{errors:?}"
    );
    assert_eq!(
        errors[3],
        format!(
            "  help: wait for it with `dark-factory wait {open}`, or stop it with `dark-factory stop {open}`"
        )
    );
    assert!(
        removed
            .stdout
            .starts_with(&format!("run {ended} removed, ")),
        "{}",
        removed.stdout
    );
    assert_eq!(left(&scene), [open.as_str()]);
    let nothing = command(&scene, &["rm", "--all-finished"]);
    assert_eq!(
        (nothing.code, nothing.stdout.as_str()),
        (0, "no run has ended\n")
    );
    scene.project.write("go", "");
    assert_eq!(foreground.ended().code, 0);
    assert_eq!(command(&scene, &["rm", "--all-finished"]).code, 0);
    assert_eq!((left(&scene).len(), folders(&scene)), (0, 0));
}

#[test]
fn what_is_kept_no_longer_is_listed_by_prune_and_removed_with_apply() {
    let scene = Scene::new();
    let [first, second, third] = ended_runs(&scene, 3).try_into().unwrap();

    let young = command(&scene, &["prune", "--keep-days", "1", "--apply"]);
    let listed = command(&scene, &["prune", "--keep-runs", "1"]);
    let still = left(&scene);
    let applied = command(&scene, &["prune", "--keep-runs", "1", "--apply", "--json"]);

    assert_eq!(
        (young.code, young.stdout.as_str()),
        (0, "nothing is left over\n")
    );
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    for run in [&first, &second] {
        assert!(
            listed.stdout.contains(&format!("run {run} (ended ")),
            "{}",
            listed.stdout
        );
    }
    assert!(
        listed
            .stdout
            .ends_with("not among the last --keep-runs): would be removed\n"),
        "{}",
        listed.stdout
    );
    assert_eq!(still.len(), 3);
    let removed: Vec<_> = applied
        .json()
        .iter()
        .map(|run| run["run_id"].clone())
        .collect();
    assert_eq!(removed, [json!(second), json!(first)]);
    assert_eq!(left(&scene), [third]);
    assert_eq!(folders(&scene), 1);
    for flags in [
        ["--keep-runs", "0"],
        ["--keep-days", "-1"],
        ["--keep-days", "x"],
    ] {
        let refused = command(&scene, &[&["prune"], &flags[..]].concat());
        assert_eq!(refused.code, 2, "{flags:?}: {}", refused.stderr);
    }
}

#[test]
fn what_a_crash_leaves_of_a_removed_run_has_nothing_at_stake() {
    let scene = Scene::new();
    let [run] = ended_runs(&scene, 1).try_into().unwrap();
    let mut remove = scene.dark_factory(&["rm", &run]);
    remove.env("FAILPOINTS", "store.remove_run.after=return(kill)");

    let removed = remove.status().unwrap();
    let listed = command(&scene, &["prune", "--grace", "0s", "--json"]).one();

    assert_eq!(removed.code(), None, "it was killed");
    assert_eq!((left(&scene).len(), folders(&scene)), (0, 1));
    assert_eq!(text(&listed, "attempt_id"), format!("{run}-1"));
    assert_eq!(listed["at_stake"], json!(null));
}

#[test]
fn a_removal_that_was_killed_at_any_step_is_finished_by_the_next_one() {
    for point in [
        "engine.list.before",
        "engine.remove_owned.before",
        "engine.remove_owned.after",
        "removal.mark.after",
        "store.remove_run.before",
        "store.remove_run.after",
        "removal.folder.before",
        "removal.folder.between",
        "removal.folder.after",
    ] {
        let scene = Scene::new();
        let run = Ended::of(&mut scene.run_with(&["--keep", "--json", "--quiet"], "exit 0")).one();
        let run = text(&run, "run_id");
        assert_eq!(command(&scene, &["retry", "--quiet", &run]).code, 0);
        let mut remove = scene.dark_factory(&["rm", &run]);
        remove.env("FAILPOINTS", format!("{point}=return(kill)"));

        let killed = remove.status().unwrap();
        let is_there = left(&scene) == [run.clone()];
        let inspected = command(&scene, &["inspect", &run]);
        let again = command(&scene, &["rm", &run]);
        let pruned = command(&scene, &["prune", "--grace", "0s", "--apply"]);

        assert_eq!(killed.code(), None, "{point} was not reached");
        // It is there as a whole, or not at all.
        let codes = if is_there { (0, 0) } else { (3, 3) };
        assert_eq!(
            (inspected.code, again.code),
            codes,
            "{point}: {}{}",
            inspected.stderr,
            again.stderr
        );
        assert_eq!(pruned.code, 0, "{point}: {}", pruned.stderr);
        assert_eq!(scene.recover().stdout, "nothing to recover\n", "{point}");
        assert_eq!((left(&scene).len(), folders(&scene)), (0, 0), "{point}");
        for attempt in [1, 2] {
            let label = format!("label=dark-factory.attempt={run}-{attempt}");
            let held = docker(&["ps", "--all", "--quiet", "--filter", &label]);
            assert_eq!(held, "", "{point}");
        }
        let mut names = fs::read_dir(scene.installation.state_dir()).unwrap();
        let is_scratch = names.any(|entry| {
            let name = entry.unwrap().file_name();
            name.to_string_lossy().starts_with("scratch-")
        });
        assert!(!is_scratch, "{point}");
    }
}

#[test]
fn a_daemon_removes_what_is_kept_no_longer_and_leaves_open_runs_alone() {
    let scene = Scene::new();
    let [old, newest] = ended_runs(&scene, 2).try_into().unwrap();
    let foreground = scene.run_until("begun", "write begun x\nwait-file go\nexit 0");

    let started = command(&scene, &["daemon", "start", "--keep-runs", "1"]);

    assert_eq!(started.code, 0, "{}", started.stderr);
    eventually("the older run to go", || {
        (left(&scene).len() == 2).then_some(())
    });
    let stays = left(&scene);
    assert!(
        stays.contains(&newest) && !stays.contains(&old),
        "{stays:?}"
    );
    scene.project.write("go", "");
    let ended = foreground.ended();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(Path::new(&text(&scene.runs()[1], "dir")).exists());
}
