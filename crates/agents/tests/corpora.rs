//! Every kept input of the fuzz targets, and every recording, goes through each target again.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../../../fuzz/src/lib.rs"]
pub mod targets;

use std::fs;
use std::path::{Path, PathBuf};

/// A target, and its name.
type Target = (&'static str, fn(&[u8]));

const TARGETS: &[Target] = &[
    ("split", targets::split),
    ("claude", targets::claude),
    ("codex", targets::codex),
    ("gemini", targets::gemini),
    ("command", targets::command),
    ("detect", targets::detect),
    ("saved", targets::saved),
    ("mask", targets::mask),
    ("text_formatter", targets::text_formatter),
    ("seed_formatter", targets::seed_formatter),
    ("report", targets::report),
];

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(folder)
}

fn paths(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Feeds the target a file, whose name is printed if it finds a bug.
fn play(name: &str, target: fn(&[u8]), file: &Path) {
    let bytes = fs::read(file).unwrap();
    if std::panic::catch_unwind(|| target(&bytes)).is_err() {
        panic!("{name} is not true of {}", file.display());
    }
}

#[test]
fn what_holds_of_any_input_holds_of_the_kept_ones() {
    let mut kept: Vec<String> = Vec::new();
    for (name, target) in TARGETS {
        for file in paths(&data("corpora").join(name)) {
            play(name, *target, &file);
        }
        kept.push((*name).to_owned());
    }

    kept.sort();
    let folders = paths(&data("corpora"));
    let folders: Vec<String> = folders
        .iter()
        .map(|folder| folder.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(
        folders, kept,
        "a folder without a target, or a target without a folder"
    );
}

#[test]
fn what_holds_of_any_input_holds_of_the_recordings() {
    let folders = paths(&data("streams"))
        .into_iter()
        .filter(|path| path.is_dir());
    for folder in folders {
        let agent = folder.file_name().unwrap().to_string_lossy().into_owned();
        let wanted = [agent.as_str(), "detect", "saved", "text_formatter"];
        for recording in paths(&folder) {
            for (name, target) in TARGETS.iter().filter(|(name, _)| wanted.contains(name)) {
                play(name, *target, &recording);
            }
        }
    }
}
