//! What people see of every recording, and what follows from it: one snapshot each.
//!
//! A change of a decoder or a formatter shows here as a change of what people see. To take the new text over, after
//! reading it: `INSTA_UPDATE=always cargo test -p dark-factory-agents --test snapshots`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use dark_factory_agents::{ColorChoice, Conclusion, TextFormatter, TextStyle, Transcript, agent};
use dark_factory_types::{Event, EventStream};
use jiff::{SignedDuration, Timestamp};

/// Recordings that are also shown in colour and on a narrow page.
const MORE_STYLES: [&str; 8] = [
    "claude__subagent",
    "claude__success",
    "claude__tool_error",
    "claude__usage_limit",
    "codex__success",
    "codex__todo",
    "gemini__success",
    "gemini__api_503",
];
/// Recordings whose events are shown, too.
const EVENTS: [&str; 4] = [
    "claude__success",
    "codex__success",
    "codex__todo",
    "gemini__success",
];

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn paths(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

/// Plays a recording whose lines are read a second apart.
fn play(name: &str, recording: &[u8]) -> (Vec<Event>, Conclusion) {
    let mut transcript = Transcript::new(agent(name).unwrap());
    let mut events = Vec::new();
    let mut at: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
    for line in recording.split_inclusive(|byte| *byte == b'\n') {
        transcript.feed(EventStream::Stdout, line, at, &mut events);
        at += SignedDuration::from_secs(1);
    }
    transcript.finish(at, &mut events);
    (events, transcript.conclusion())
}

fn shown(events: &[Event], color: ColorChoice, width: u16) -> String {
    let style = TextStyle {
        color,
        width: Some(width),
    };
    let mut formatter = TextFormatter::new(style);
    let mut text = String::new();
    for event in events {
        formatter.write(event, &mut text);
    }
    // Escapes in a snapshot are for reading.
    text.replace('\x1b', "␛")
}

#[test]
fn every_recording_reads_as_it_should() {
    let mut expected = BTreeSet::new();
    let agents = paths(&tests().join("data/streams"));
    for folder in agents.into_iter().filter(|path| path.is_dir()) {
        let agent = stem(&folder);
        for recording in paths(&folder) {
            let name = format!("{agent}__{}", stem(&recording));
            let (events, conclusion) = play(&agent, &fs::read(&recording).unwrap());

            let mut page = shown(&events, ColorChoice::Never, 100);
            let _ = write!(page, "\n{conclusion:#?}\n");
            if MORE_STYLES.contains(&name.as_str()) {
                let _ = write!(
                    page,
                    "\n40 columns, in colour:\n{}",
                    shown(&events, ColorChoice::Always, 40)
                );
            }
            if EVENTS.contains(&name.as_str()) {
                page.push_str("\nevents:\n");
                for event in &events {
                    let _ = writeln!(page, "{}", serde_json::to_string(event).unwrap());
                }
            }
            insta::with_settings!({
                snapshot_path => "snapshots",
                prepend_module_to_snapshot => false,
                omit_expression => true,
            }, {
                insta::assert_snapshot!(name.clone(), page);
            });
            expected.insert(format!("{name}.snap"));
        }
    }

    let kept = paths(&tests().join("snapshots"));
    let kept: BTreeSet<String> = kept
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".snap"))
        .collect();
    assert_eq!(
        kept, expected,
        "a snapshot whose recording is gone, or a name that no longer is one"
    );
}

#[test]
fn the_recordings_that_are_named_here_exist() {
    for name in MORE_STYLES.iter().chain(&EVENTS) {
        let (agent, recording) = name.split_once("__").unwrap();
        let path = format!("data/streams/{agent}/{recording}.jsonl");
        assert!(tests().join(path).is_file(), "{name}");
    }
}
