//! A recording that is cut anywhere, or whose keys stand in another order, says no more and nothing else.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use dark_factory_agents::{Conclusion, TextFormatter, TextStyle, Transcript, agent};
use dark_factory_types::{Event, EventKind, EventStream, UnparsedReason};
use jiff::Timestamp;
use serde_json::Value;

/// Each agent's `success`, and short lines of short recordings, are cut at every byte, all others at every `STEP`th.
const SHORT_RECORDING: usize = 6 << 10;
const SHORT_LINE: usize = 1 << 10;
const STEP: usize = 17;
/// A line longer than this is not cut any more, and ends its recording.
const LONG_LINE: usize = 8 << 10;

fn recordings(agent: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = format!("tests/data/streams/{agent}");
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let whole = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    };
    paths.into_iter().map(whole).collect()
}

fn feed(transcript: &mut Transcript, bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    transcript.feed(
        EventStream::Stdout,
        bytes,
        Timestamp::UNIX_EPOCH,
        &mut events,
    );
    events
}

fn finish(mut transcript: Transcript, events: &mut Vec<Event>) -> Conclusion {
    transcript.finish(Timestamp::UNIX_EPOCH, events);
    transcript.conclusion()
}

fn shown(event: &Event) -> String {
    let mut text = String::new();
    TextFormatter::new(TextStyle::default()).write(event, &mut text);
    text
}

/// Cuts each of an agent's recordings in every line.
fn cut_everywhere(name: &str) {
    let agent = agent(name).unwrap();
    for (path, recording) in recordings(name) {
        let is_whole = path.file_stem().unwrap() == "success";
        let mut transcript = Transcript::new(agent);
        let mut begin = 0;
        let lines = recording.split_inclusive(|byte| *byte == b'\n');
        for line in lines.take_while(|line| line.len() <= LONG_LINE) {
            let saved = transcript.save().unwrap();
            let before = transcript.conclusion();
            let content = line.strip_suffix(b"\n").unwrap_or(line);
            let is_short = recording.len() <= SHORT_RECORDING && line.len() <= SHORT_LINE;
            let step = if is_whole || is_short { 1 } else { STEP };
            for len in (1..content.len()).step_by(step) {
                let mut cut = Transcript::restore(agent, &saved).unwrap();
                let mut events = feed(&mut cut, &content[..len]);
                let conclusion = finish(cut, &mut events);

                let place = format!("{}, cut at {}", path.display(), begin + len);
                assert_eq!(conclusion, before, "{place}");
                // What an agent said in pieces is shown at the end.
                events.retain(|event| !matches!(event.kind, EventKind::Text { .. }));
                let texts: String = events.iter().map(shown).collect();
                assert_eq!(
                    texts,
                    format!(
                        "⚠ the last line is cut off: {len} bytes at offset {begin} of the raw log\n"
                    ),
                    "{place}"
                );
            }
            // A last line that is whole but for its line end counts.
            let mut whole = Transcript::restore(agent, &saved).unwrap();
            let mut events = feed(&mut whole, content);
            let conclusion = finish(whole, &mut events);
            let is_cut = |event: &Event| {
                matches!(
                    event.kind,
                    EventKind::Unparsed {
                        why: UnparsedReason::Truncated
                    }
                )
            };
            feed(&mut transcript, line);
            if !events.iter().any(is_cut) {
                assert_eq!(conclusion, transcript.conclusion(), "{}", path.display());
            }
            begin += line.len();
        }
    }
}

#[test]
fn a_claude_stream_cut_anywhere_says_where_and_proves_no_more_than_its_whole_lines() {
    cut_everywhere("claude");
}

#[test]
fn a_codex_stream_cut_anywhere_says_where_and_proves_no_more_than_its_whole_lines() {
    cut_everywhere("codex");
}

#[test]
fn a_gemini_stream_cut_anywhere_says_where_and_proves_no_more_than_its_whole_lines() {
    cut_everywhere("gemini");
}

/// Writes a JSON value with the keys of every object in the order that `arrange` gives them.
fn write(value: &Value, arrange: fn(&mut Vec<(&String, &Value)>), out: &mut String) {
    match value {
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            arrange(&mut entries);
            out.push('{');
            for (number, (key, value)) in entries.into_iter().enumerate() {
                out.push_str(if number == 0 { "" } else { "," });
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(value, arrange, out);
            }
            out.push('}');
        }
        Value::Array(values) => {
            out.push('[');
            for (number, value) in values.iter().enumerate() {
                out.push_str(if number == 0 { "" } else { "," });
                write(value, arrange, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

fn arranged(recording: &[u8], arrange: fn(&mut Vec<(&String, &Value)>)) -> Vec<u8> {
    let mut stream = Vec::new();
    for line in recording.split_inclusive(|byte| *byte == b'\n') {
        match serde_json::from_slice::<Value>(line) {
            Ok(value) => {
                let mut text = String::new();
                write(&value, arrange, &mut text);
                stream.extend_from_slice(text.as_bytes());
                stream.push(b'\n');
            }
            Err(_) => stream.extend_from_slice(line),
        }
    }
    stream
}

/// Everything but the places of the lines, whose lengths may differ.
fn told(name: &str, stream: &[u8]) -> (Vec<(Option<String>, EventKind)>, Conclusion) {
    let mut transcript = Transcript::new(agent(name).unwrap());
    let mut events = feed(&mut transcript, stream);
    let conclusion = finish(transcript, &mut events);
    let told = events.into_iter().map(|event| (event.parent, event.kind));
    (told.collect(), conclusion)
}

#[test]
fn keys_may_stand_in_any_order() {
    for name in ["claude", "codex", "gemini"] {
        for (path, recording) in recordings(name) {
            let expected = told(name, &arranged(&recording, |_| {}));
            assert_eq!(told(name, &recording), expected, "{}", path.display());
            for arrange in [
                (|entries| entries.sort_by(|one, other| one.0.cmp(other.0)))
                    as fn(&mut Vec<(&String, &Value)>),
                |entries| entries.sort_by(|one, other| other.0.cmp(one.0)),
                |entries| {
                    entries.sort_by_key(|(key, _)| key.chars().rev().collect::<String>());
                },
                |entries| {
                    let half = entries.len() / 2;
                    entries.rotate_left(half);
                },
            ] {
                let stream = arranged(&recording, arrange);

                assert_eq!(told(name, &stream), expected, "{}", path.display());
            }
        }
    }
}
