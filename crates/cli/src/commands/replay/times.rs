//! The times of a recording's lines, as far as there are any.
//!
//! Owns: finding them: in the lines of Claude and Gemini, and in the events of a run.
//! Reads: lines.
//! Never: takes a time in a tool's output for the line's own.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use dark_factory_types::{Event, EventStream};
use jiff::Timestamp;
use serde::Deserialize;

/// A longer line is handed on in pieces, and its time is not looked for.
const LINE: usize = 1 << 20;

#[derive(Deserialize)]
struct Line {
    timestamp: Option<Timestamp>,
}

/// Returns a line's own time.
fn time_of(line: &[u8]) -> Option<Timestamp> {
    // Most lines of most streams have none, and reading them twice is not free.
    let name = b"\"timestamp\"";
    line.windows(name.len())
        .any(|window| window == name)
        .then_some(())?;
    let line: Line = serde_json::from_slice(line).ok()?;
    line.timestamp
}

/// Returns whether a recording is one of events.
pub(super) fn is_event(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\n').next();
    line.and_then(event_of).is_some()
}

/// Returns where the first line begins that is not older; its end if all are, `None` if no line has a time.
pub(super) fn start_by_lines(file: File, since: Timestamp) -> io::Result<Option<u64>> {
    let mut has_times = false;
    let mut offset = 0;
    let found = each_line(file, |line| {
        let at = time_of(line).or_else(|| event_of(line).map(|event| event.at));
        // What stands before the first time is as old.
        let begin = if has_times { offset } else { 0 };
        has_times |= at.is_some();
        offset += line.len() as u64;
        at.is_some_and(|at| at >= since).then_some(begin)
    })?;
    Ok(has_times.then_some(found.unwrap_or(offset)))
}

/// Returns where in the output the first line begins that is not older, by the events made of it.
pub(super) fn start_by_events(file: File, since: Timestamp) -> io::Result<Option<u64>> {
    let mut end = None;
    let found = each_line(file, |line| {
        let event = event_of(line).filter(|event| event.stream == EventStream::Stdout)?;
        end = Some(event.offset + event.len);
        (event.at >= since).then_some(event.offset)
    })?;
    Ok(found.or(end))
}

/// Reads an event; that of a plain line may be without its text, which is in the log of its stream.
pub(super) fn event_of(line: &[u8]) -> Option<Event> {
    if let Ok(event) = serde_json::from_slice(line) {
        return Some(event);
    }
    let mut event: serde_json::Value = serde_json::from_slice(line).ok()?;
    let kind = event
        .get_mut("kind")
        .filter(|kind| kind["type"] == "line")?;
    kind["text"] = "".into();
    serde_json::from_value(event).ok()
}

/// Hands over lines with their ends until something is found.
fn each_line(file: File, mut look: impl FnMut(&[u8]) -> Option<u64>) -> io::Result<Option<u64>> {
    let mut file = BufReader::new(file);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 {
        if let Some(found) = look(&line) {
            return Ok(Some(found));
        }
        line.clear();
    }
    Ok(None)
}

/// Cuts a recording into lines with their times; a line without one has that of the line before it.
pub(super) struct Pieces {
    at: Timestamp,
    carry: Vec<u8>,
}

impl Pieces {
    /// Begins a recording whose first lines, without a time of their own, are from `at`.
    pub(super) fn new(at: Timestamp) -> Self {
        Self {
            at,
            carry: Vec::new(),
        }
    }

    /// Takes the next bytes and hands over each line that they complete.
    pub(super) fn feed(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8], Timestamp)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.carry.extend(piece);
            let is_whole = piece.ends_with(b"\n");
            if is_whole || self.carry.len() > LINE {
                self.hand_over(&mut sink);
            }
        }
    }

    /// Hands over what is left.
    pub(super) fn finish(&mut self, mut sink: impl FnMut(&[u8], Timestamp)) {
        self.hand_over(&mut sink);
    }

    fn hand_over(&mut self, sink: &mut impl FnMut(&[u8], Timestamp)) {
        self.at = time_of(&self.carry).unwrap_or(self.at);
        sink(&self.carry, self.at);
        self.carry.clear();
    }
}
