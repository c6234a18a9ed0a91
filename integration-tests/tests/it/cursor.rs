//! Recovery goes on from where a killed supervisor was, and from the first byte where there is a doubt.
//!
//! Owns: marks in derived files, to see which of their bytes were written once more.
//! Reads: the attempt's folder.
//! Never: looks at what is in a cursor.

use std::fs;
use std::path::Path;

use dark_factory_init::spew;

use crate::scene::{STARTED, Scene, eventually};
use crate::support::Ended;

/// Output before, at and behind a cursor: one is due once there is enough that is new, after two seconds.
const SCRIPT: &str = "spew 2m 80\nsleep 2500ms\nspew 2m 80\nwrite one x\nwait-file go\nspew 300k 80\nprint last words";

fn printed() -> Vec<u8> {
    [
        spew(2 << 20, 80),
        spew(2 << 20, 80),
        spew(300 << 10, 80),
        b"last words\n".to_vec(),
    ]
    .concat()
}

/// Crashes a run that has a cursor, lets `meddle` at its folder, and recovers it.
fn recovered(meddle: impl FnOnce(&Path)) -> Scene {
    let scene = Scene::new();
    let run = scene.run_until("one", &format!("{STARTED}{SCRIPT}"));
    let cursor = scene.folder().join("cursor.json");
    eventually("a cursor", || cursor.exists().then_some(()));
    run.crash();
    meddle(&scene.folder());
    scene.project.write("go", "");
    scene.assert_recovers("succeeded");
    assert!(!cursor.exists(), "nobody needs it any more");
    scene
}

/// Marks the first byte of the log for people.
fn mark(folder: &Path) {
    let path = folder.join("run.log");
    let mut log = fs::read(&path).unwrap();
    log[0] = b'#';
    fs::write(path, log).unwrap();
}

#[test]
fn a_second_supervisor_goes_on_from_the_cursor() {
    let undisturbed = Scene::new();
    undisturbed.project.write("go", "");
    let run = Ended::of(&mut undisturbed.run(&format!("{STARTED}{SCRIPT}")));
    assert_eq!(run.code, 0, "{}", run.stderr);

    let scene = recovered(mark);

    scene.assert_ended("succeeded", &printed(), b"");
    scene.assert_started_once();
    let log = fs::read_to_string(scene.folder().join("run.log")).unwrap();
    let whole = fs::read_to_string(undisturbed.folder().join("run.log")).unwrap();
    assert!(
        log.starts_with('#'),
        "what is before the cursor was not written again"
    );
    // Each line begins with the time.
    let words = |log: &str| -> Vec<String> {
        let lines = log.lines();
        lines
            .map(|line| {
                line.split_once(' ')
                    .map_or("", |(_, words)| words)
                    .to_owned()
            })
            .collect()
    };
    assert!(words(&log) == words(&whole));
}

#[test]
fn a_file_that_is_shorter_than_the_cursor_says_is_derived_from_the_first_byte() {
    let scene = recovered(|folder| {
        mark(folder);
        fs::write(folder.join("events.jsonl"), "").unwrap();
    });

    scene.assert_ended("succeeded", &printed(), b"");
    let log = fs::read(scene.folder().join("run.log")).unwrap();
    assert_ne!(log[0], b'#');
}

#[test]
fn a_damaged_cursor_is_none() {
    let scene = recovered(|folder| {
        mark(folder);
        let path = folder.join("cursor.json");
        let mut cursor = fs::read(&path).unwrap();
        let middle = cursor.len() / 2;
        cursor[middle] ^= 1;
        fs::write(path, cursor).unwrap();
    });

    scene.assert_ended("succeeded", &printed(), b"");
    let log = fs::read(scene.folder().join("run.log")).unwrap();
    assert_ne!(log[0], b'#');
}
