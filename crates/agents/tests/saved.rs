//! A transcript that was saved and restored anywhere goes on as if nothing had happened.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use dark_factory_agents::{AGENT_NAMES, Conclusion, RestoreError, Transcript, agent};
use dark_factory_types::{Event, EventStream};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::Value;

fn recordings() -> Vec<(&'static str, PathBuf)> {
    let mut all = Vec::new();
    for name in AGENT_NAMES {
        let folder = format!("tests/data/streams/{name}");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        if let Ok(files) = fs::read_dir(folder) {
            all.extend(files.map(|file| (name, file.unwrap().path())));
        }
    }
    all.sort();
    all
}

/// What is fed between two cuts, a part of it to standard error, each piece at its own time.
fn feed(transcript: &mut Transcript, piece: &[u8], number: usize, events: &mut Vec<Event>) {
    let at = Timestamp::UNIX_EPOCH + SignedDuration::from_millis(number.try_into().unwrap());
    transcript.feed(EventStream::Stdout, piece, at, events);
    transcript.feed(EventStream::Stderr, &piece[piece.len() / 2..], at, events);
}

enum Between {
    Nothing,
    SaveAndRestore,
}

fn play(name: &str, pieces: &[&[u8]], between: &Between) -> (Vec<Event>, Conclusion) {
    let agent = agent(name).unwrap();
    let mut transcript = Transcript::new(agent);
    let mut events = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        feed(&mut transcript, piece, number, &mut events);
        if let Between::SaveAndRestore = between
            && let Some(saved) = transcript.save()
        {
            let before = transcript.conclusion();
            transcript = Transcript::restore(agent, &saved).unwrap();
            assert_eq!(transcript.conclusion(), before);
            assert_eq!(transcript.save().unwrap(), saved);
        }
    }
    transcript.finish(Timestamp::UNIX_EPOCH, &mut events);
    (events, transcript.conclusion())
}

fn pieces(bytes: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
    cuts.iter_mut().for_each(|cut| *cut %= bytes.len() + 1);
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let pairs = cuts.windows(2);
    pairs.map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn any_recording_goes_on_from_any_cuts(cuts in proptest::collection::vec(any::<usize>(), 1..12)) {
        for (name, path) in recordings() {
            let bytes = fs::read(path).unwrap();
            let pieces = pieces(&bytes, cuts.clone());

            let restored = play(name, &pieces, &Between::SaveAndRestore);

            prop_assert_eq!(restored, play(name, &pieces, &Between::Nothing));
        }
    }

    #[test]
    fn lines_that_are_no_text_go_on_too(
        bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
        cuts in proptest::collection::vec(any::<usize>(), 1..12),
    ) {
        for name in AGENT_NAMES {
            let pieces = pieces(&bytes, cuts.clone());

            let restored = play(name, &pieces, &Between::SaveAndRestore);

            prop_assert_eq!(restored, play(name, &pieces, &Between::Nothing));
        }
    }
}

#[test]
fn a_recording_goes_on_from_each_of_its_line_ends() {
    for (name, path) in recordings() {
        let bytes = fs::read(path).unwrap();
        let pieces: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();

        let restored = play(name, &pieces, &Between::SaveAndRestore);

        assert_eq!(restored, play(name, &pieces, &Between::Nothing));
    }
}

#[test]
fn a_long_unfinished_line_is_not_saved() {
    for stream in [EventStream::Stdout, EventStream::Stderr] {
        let mut transcript = Transcript::new(agent("command").unwrap());
        let mut feed = |bytes: &[u8]| {
            transcript.feed(stream, bytes, Timestamp::UNIX_EPOCH, &mut Vec::new());
            transcript.save().is_some()
        };

        assert!(feed(&[b'x'; 64 << 10]));
        assert!(!feed(b"x"));
        assert!(!feed(&vec![b'x'; 20 << 20]));
        assert!(feed(b"x\n"));
    }
}

#[test]
fn what_is_saved_is_bounded() {
    let text = "\\u0001".repeat(100_000);
    let mut transcript = Transcript::new(agent("claude").unwrap());

    for number in 0..3000 {
        let line = format!(
            r#"{{"type":"assistant","message":{{"content":[{{"type":"tool_use","id":"{number}{}","name":"{}"}}]}}}}{}"#,
            "i".repeat(300),
            "n".repeat(300),
            "\n"
        );
        transcript.feed(
            EventStream::Stdout,
            line.as_bytes(),
            Timestamp::UNIX_EPOCH,
            &mut Vec::new(),
        );
    }
    for _ in 0..20 {
        let line = format!(
            r#"{{"type":"assistant","message":{{"content":[{{"type":"text","text":"{text}"}}]}}}}{}"#,
            "\n"
        );
        transcript.feed(
            EventStream::Stdout,
            line.as_bytes(),
            Timestamp::UNIX_EPOCH,
            &mut Vec::new(),
        );
    }

    let saved = transcript.save().unwrap();
    assert!(saved.len() < 6 << 20, "{}", saved.len());
}

#[test]
fn what_is_not_ours_is_refused() {
    let claude = agent("claude").unwrap();
    let saved = Transcript::new(claude).save().unwrap();
    let refused = |name: &str, saved: &[u8]| {
        Transcript::restore(agent(name).unwrap(), saved)
            .err()
            .unwrap()
    };

    let cut = &saved[..saved.len() - 1];
    assert!(matches!(
        refused("claude", cut),
        RestoreError::Unreadable { .. }
    ));
    assert!(matches!(
        refused("codex", &saved),
        RestoreError::Agent { .. }
    ));
    let mut newer: Value = serde_json::from_slice(&saved).unwrap();
    newer["version"] = 99.into();
    newer["decoder"] = "of a later version".into();
    assert!(matches!(
        refused("claude", newer.to_string().as_bytes()),
        RestoreError::Version { found: 99 }
    ));
    let mut other: Value = serde_json::from_slice(&saved).unwrap();
    other["decoder"]["later"] = 1.into();
    assert!(matches!(
        refused("claude", other.to_string().as_bytes()),
        RestoreError::Unreadable { .. }
    ));
    let mut bad: Value = serde_json::from_slice(&saved).unwrap();
    bad["stdout"]["held"] = "\u{100}".into();
    assert!(matches!(
        refused("claude", bad.to_string().as_bytes()),
        RestoreError::Unreadable { .. }
    ));
}
