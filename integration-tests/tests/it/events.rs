//! `events.jsonl` says what an agent did, one event a line, whoever wrote it and however often.
//!
//! Owns: what the events of known output are.
//! Reads: the attempt's folder, and the engine's own log of a container.
//! Never: looks at a mere line's text in it: it has none.

use std::fs;

use dark_factory_init::spew;
use dark_factory_types::{EventKind, EventStream};
use integration_tests::agent_image;

use crate::scene::{Running, STARTED, Scene, events, eventually, line_of};
use crate::support::{Ended, for_claude};

#[test]
fn the_events_of_a_command_are_the_places_of_its_lines() {
    let scene = Scene::new();
    let script =
        "print first\nsleep 100ms\nstderr second\nsleep 100ms\nprint-raw \"third\\r\\n\\nno end\"";

    let run = Ended::of(&mut scene.run(script));

    assert_eq!(run.code, 0, "{}", run.stderr);
    scene.assert_ended("succeeded", b"first\nthird\r\n\nno end", b"second\n");
    let folder = scene.folder();
    let raw = fs::read(folder.join("raw.jsonl")).unwrap();
    let events = events(&folder);
    let lines: Vec<&[u8]> = events
        .iter()
        .filter(|event| event.stream == EventStream::Stdout)
        .map(|event| line_of(event, &raw))
        .collect();
    assert_eq!(lines, [&b"first"[..], b"third", b"", b"no end"]);
    assert_eq!(events[1].stream, EventStream::Stderr);
    for event in events {
        assert_eq!(
            event.kind,
            EventKind::Line {
                text: String::new()
            }
        );
    }
}

#[test]
fn the_events_of_an_agent_that_claude_is_played_by_are_whole() {
    let scene = Scene::new();
    let script = "begin; say 'I begin.'; read prompt.md; result success \"All done.\"";
    let prompt = scene.project.write("play.md", for_claude("", script));
    let mut run = scene.dark_factory(&["run", "--quiet", "--network", "none"]);
    run.args(["--image", &agent_image(), "--env", "ANTHROPIC_API_KEY"])
        .env("ANTHROPIC_API_KEY", "sk-test-key")
        .arg(&prompt);

    let run = Ended::of(&mut run);

    assert_eq!(run.code, 0, "{}", run.stderr);
    scene.assert_agent_ended("succeeded");
    let events = events(&scene.folder());
    let kinds: Vec<String> = events
        .iter()
        .map(|event| serde_json::to_value(&event.kind).unwrap()["type"].to_string())
        .collect();
    for kind in ["started", "text", "tool_start", "tool_end", "turn_end"] {
        assert!(kinds.contains(&format!("\"{kind}\"")), "{kind}: {kinds:?}");
    }
    let says = EventKind::Text {
        text: "I begin.".to_owned(),
    };
    assert!(events.iter().any(|event| event.kind == says), "{events:?}");
}

#[test]
fn a_second_supervisor_writes_the_same_events() {
    let scene = Scene::new();
    let script = format!(
        "{STARTED}spew 300k 1k\nstderr there\nwrite one x\nwait-file go\nspew 200k 100\nprint-raw end"
    );

    let first = scene.run_until("one", &script);
    let written = || fs::read(scene.folder().join("events.jsonl")).ok();
    eventually("events of the first one", || {
        written().filter(|events| !events.is_empty())
    });
    first.crash();
    let before = written().unwrap();
    let recover = Running::start(&mut scene.dark_factory(&["recover"]));
    scene.wait_until_supervised();
    scene.project.write("go", "");
    let recover = recover.ended();

    assert_eq!(recover.code, 0, "{}", recover.stderr);
    let stdout = [
        spew(300 << 10, 1 << 10),
        spew(200 << 10, 100),
        b"end".to_vec(),
    ]
    .concat();
    scene.assert_ended("succeeded", &stdout, b"there\n");
    let folder = scene.folder();
    assert!(
        fs::read(folder.join("events.jsonl"))
            .unwrap()
            .starts_with(&before)
    );
    let lines = stdout.split(|byte| *byte == b'\n').count();
    assert_eq!(events(&folder).len(), lines + 1);
}

#[test]
fn the_log_of_the_engine_has_the_beginning_of_a_flood_and_says_what_is_missing() {
    let scene = Scene::new();
    let flood = spew(30 << 20, 1 << 10);

    let run = Ended::of(&mut scene.run_with(&["--quiet", "--keep"], "spew 30m 1k"));

    assert_eq!(run.code, 0, "{}", run.stderr);
    let folder = scene.folder();
    assert!(fs::read(folder.join("raw.jsonl")).unwrap() == flood);
    let log = scene.docker(&["logs", &scene.container()]);
    let beginning = &flood[..200 << 10];
    assert!(log.as_bytes().starts_with(beginning), "{} bytes", log.len());
    assert!(log.len() < 2 << 20, "{} bytes", log.len());
    let last = log.lines().last().unwrap();
    let is_mark = last.starts_with("[dark-factory: ")
        && last.ends_with(" bytes not shown here; `dark-factory logs RUN` has everything]");
    assert!(is_mark, "{last}");
    let removed = Ended::of(&mut scene.dark_factory(&["rm", "--all-finished"]));
    assert_eq!(removed.code, 0, "{}", removed.stderr);
}
