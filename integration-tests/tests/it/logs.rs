//! `logs`: a part of a log.
//!
//! Owns: what `--tail` and `--since` leave out, alone and with the other flags.
//! Reads: the command's output.
//! Never: looks into the attempt's folder.

use serde_json::Value;

use crate::scene::{Scene, eventually, text};
use crate::support::{Ended, Watched};

fn logs(scene: &Scene, flags: &[&str]) -> Ended {
    let run = text(&scene.only_run(), "run_id");
    Ended::of(&mut scene.dark_factory(&[&["logs", &run], flags].concat()))
}

/// Runs a script that prints five lines and complains of two.
fn five_lines() -> Scene {
    let scene = Scene::new();
    let script = "print one\nprint two\nprint three\nprint four\nprint five\nstderr bad\nstderr worse\nexit 0";
    let ended = Ended::of(&mut scene.run_with(&["--quiet"], script));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    scene
}

#[test]
fn the_last_lines_of_each_log_can_be_had_alone() {
    let scene = five_lines();

    let all = logs(&scene, &[]).stdout;
    let tail = logs(&scene, &["--tail", "3"]).stdout;
    let json = logs(&scene, &["--tail", "3", "--json"]).json();

    assert!(all.ends_with(&tail) && tail.lines().count() == 3, "{all}");
    let texts: Vec<&Value> = json.iter().map(|line| &line["text"]).collect();
    assert_eq!(texts.len(), 3);
    assert_eq!(
        logs(&scene, &["--raw", "--tail", "2"]).stdout,
        "four\nfive\n"
    );
    assert_eq!(
        logs(&scene, &["--raw", "-n", "99"]).stdout.lines().count(),
        5
    );
    assert_eq!(logs(&scene, &["--stderr", "--tail", "1"]).stdout, "worse\n");
    assert_eq!(logs(&scene, &["--stderr"]).stdout, "bad\nworse\n");
    assert_eq!(logs(&scene, &["--tail", "0"]).stdout, "");
}

#[test]
fn what_is_older_than_a_time_can_be_left_out() {
    let scene = five_lines();
    let finished = text(&scene.only_run(), "finished_at");
    let all = logs(&scene, &[]).stdout;

    assert_eq!(logs(&scene, &["--since", "1h"]).stdout, all);
    assert_eq!(
        logs(&scene, &["--since", "2020-01-01T00:00:00+01:00"]).stdout,
        all
    );
    let none = logs(&scene, &["--since", "1h", "--tail", "1"]).stdout;
    assert_eq!(none.lines().count(), 1);
    assert!(logs(&scene, &["--since", &finished]).stdout.lines().count() <= all.lines().count());
}

#[test]
fn a_followed_log_begins_with_its_last_lines_and_goes_on_to_the_end() {
    let scene = Scene::new();
    let script = "print one\nprint two\nwrite begun x\nwait-file go\nprint three\nexit 0";
    let foreground = scene.run_until("begun", script);
    let run = text(&scene.only_run(), "run_id");
    eventually("both lines", || {
        (logs(&scene, &["--raw"]).stdout == "one\ntwo\n").then_some(())
    });

    let follow = ["logs", &run, "-f", "--raw", "--tail", "1"];
    let follow = Watched::of(&mut scene.dark_factory(&follow));
    eventually("the last line", || {
        (follow.stdout() == "two\n").then_some(())
    });
    scene.project.write("go", "");

    assert_eq!(follow.ended().stdout, "two\nthree\n");
    assert_eq!(foreground.ended().code, 0);
}

#[test]
fn a_part_that_makes_no_sense_is_refused_with_what_does() {
    let scene = five_lines();

    for (flags, told) in [
        (
            &["--since", "yesterday"][..],
            "error: --since must be a time such as 2026-11-28T13:00:00Z, or a time ago such as 10m, not \"yesterday\"",
        ),
        (
            &["--since", "2999-01-01T00:00:00Z"],
            "error: --since 2999-01-01T00:00:00Z is still to come",
        ),
        (
            &["--since", "10m", "--raw"],
            "error: --since goes by the times of the log's lines, and --raw has none",
        ),
        (
            &["--since", "10m", "--stderr"],
            "error: --since goes by the times of the log's lines, and --stderr has none",
        ),
        (&["--tail", "-1"], "error: "),
        (
            &["--tail", "x"],
            "error: invalid value 'x' for '--tail <N>'",
        ),
        (
            &["--stderr", "--json"],
            r#"{"error":{"code":2,"help":"Usage: dark-factory logs --stderr <RUN>"#,
        ),
    ] {
        let refused = logs(&scene, flags);

        assert_eq!(
            (refused.code, refused.stdout.as_str()),
            (2, ""),
            "{flags:?}"
        );
        assert!(
            refused.stderr.starts_with(told),
            "{flags:?}: {}",
            refused.stderr
        );
    }
}
