//! `stats`: what running runs use.
//!
//! Owns: that the numbers are those of the run, and what is said of one that does not run.
//! Reads: the command's output.
//! Never: expects a rate: how busy the machine is, is not ours.

use serde_json::{Value, json};

use crate::scene::{Running, Scene, eventually, text};
use crate::support::Ended;

fn stats(scene: &Scene, arguments: &[&str]) -> Ended {
    Ended::of(&mut scene.dark_factory(&[&["stats"], arguments].concat()))
}

#[test]
fn a_running_run_has_numbers_and_one_that_has_ended_has_none() {
    let scene = Scene::new();
    let script = "allocate 64m\nwrite begun x\nwait-file go\nexit 0";
    let mut run = scene.run_with(&["--memory", "256m"], script);
    let foreground = Running::start(&mut run);
    scene.wait_for_file("begun");
    let run = eventually("the start to be recorded", || {
        let run = scene.only_run();
        (run["state"] == "running").then(|| text(&run, "run_id"))
    });

    let all = stats(&scene, &["--json"]).one();
    let table = stats(&scene, &[&run]);
    scene.project.write("go", "");
    assert_eq!(foreground.ended().code, 0);
    let named = stats(&scene, &["--json", &run]);
    let nothing = stats(&scene, &[]);
    let nobody = stats(&scene, &["zzzz"]);

    assert_eq!(
        (&all["run_id"], &all["state"]),
        (&json!(run), &json!("running"))
    );
    let number = |key: &str| {
        all[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no {key} in {all}"))
    };
    assert!(number("memory_bytes") >= 64 << 20, "{all}");
    assert_eq!(number("memory_limit_bytes"), 256 << 20);
    assert!(number("pids") >= 2, "{all}");
    assert!(all["cpu_percent"].is_f64(), "{all}");
    assert_eq!(all["network_sent_bytes"], Value::Null, "it has no network");
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert_eq!((table.code, lines.len()), (0, 2), "{}", table.stderr);
    assert!(
        lines[0].starts_with("RUN ") && lines[1].starts_with(&run),
        "{lines:?}"
    );
    assert!(
        lines[1].contains("running") && lines[1].contains("256 MiB"),
        "{lines:?}"
    );
    assert_eq!(named.code, 0, "{}", named.stderr);
    let named = named.one();
    assert_eq!(
        (&named["state"], &named["memory_bytes"]),
        (&json!("finished"), &Value::Null)
    );
    assert_eq!(
        (nothing.code, nothing.stdout.as_str()),
        (0, "nothing runs\n")
    );
    assert_eq!(nobody.code, 3);
}
