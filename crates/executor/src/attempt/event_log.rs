//! Writes `events.jsonl`: every event of an attempt, one JSON object a line.
//!
//! Owns: the form of a line.
//! Reads: events, in their order.
//! Never: repeats the text of a plain line: its place in the log of its stream says where it is.

use std::io::{self, Write};

use dark_factory_agents::PlainLine;
use dark_factory_types::{Event, EventKind, EventStream};
use jiff::Timestamp;

/// A log of events.
pub(super) struct EventLog<W> {
    out: W,
    /// A line on its way, so that it is written at once.
    line: Vec<u8>,
    /// The last time that was written, and how.
    at: (Timestamp, String),
}

impl<W: Write> EventLog<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            line: Vec::new(),
            at: (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH.to_string()),
        }
    }

    /// Returns where the lines go.
    pub(super) fn output(&self) -> &W {
        &self.out
    }

    /// Returns where the lines go, to be flushed.
    pub(super) fn output_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes an event.
    pub(super) fn event(&mut self, event: &Event) -> io::Result<()> {
        if matches!(event.kind, EventKind::Line { .. }) && event.parent.is_none() {
            return self.place(event.seq, event.at, event.stream, event.offset, event.len);
        }
        self.line.clear();
        serde_json::to_writer(&mut self.line, event)?;
        self.line.push(b'\n');
        self.out.write_all(&self.line)
    }

    /// Writes the event that a plain line is.
    pub(super) fn plain(&mut self, line: &PlainLine<'_>) -> io::Result<()> {
        self.place(line.seq, line.at, line.stream, line.offset, line.len())
    }

    /// Writes the place of a line: what serde makes of such an event, without its text.
    fn place(
        &mut self,
        seq: u64,
        at: Timestamp,
        stream: EventStream,
        offset: u64,
        len: u64,
    ) -> io::Result<()> {
        // All lines of one read have the same time.
        if self.at.0 != at {
            self.at = (at, at.to_string());
        }
        let stream: &[u8] = match stream {
            EventStream::Stdout => b"\",\"stream\":\"stdout\",\"offset\":",
            EventStream::Stderr => b"\",\"stream\":\"stderr\",\"offset\":",
        };
        self.line.clear();
        self.line.extend_from_slice(b"{\"seq\":");
        decimal(&mut self.line, seq);
        self.line.extend_from_slice(b",\"at\":\"");
        self.line.extend_from_slice(self.at.1.as_bytes());
        self.line.extend_from_slice(stream);
        decimal(&mut self.line, offset);
        self.line.extend_from_slice(b",\"len\":");
        decimal(&mut self.line, len);
        self.line
            .extend_from_slice(b",\"kind\":{\"type\":\"line\"}}\n");
        self.out.write_all(&self.line)
    }
}

/// Appends a number, several times as fast as the formatting of the standard library.
fn decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] += u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use dark_factory_types::NoticeLevel;

    use super::*;

    fn event(seq: u64, kind: EventKind) -> Event {
        Event {
            seq,
            at: Timestamp::from_nanosecond(1_764_345_600_123_456_789).unwrap(),
            stream: EventStream::Stderr,
            offset: u64::MAX,
            len: 10,
            parent: None,
            kind,
        }
    }

    fn written(events: &[Event]) -> String {
        let mut log = EventLog::new(Vec::new());
        for event in events {
            log.event(event).unwrap();
        }
        String::from_utf8(log.out).unwrap()
    }

    #[test]
    fn a_line_is_written_as_its_place_and_read_back_without_its_text() {
        let line = |text: &str| {
            event(
                107,
                EventKind::Line {
                    text: text.to_owned(),
                },
            )
        };

        let text = written(&[line("some words")]);

        assert_eq!(
            text,
            "{\"seq\":107,\"at\":\"2025-11-28T16:00:00.123456789Z\",\"stream\":\"stderr\",\
             \"offset\":18446744073709551615,\"len\":10,\"kind\":{\"type\":\"line\"}}\n"
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), line(""));
    }

    #[test]
    fn other_events_are_written_whole() {
        let notice = event(
            0,
            EventKind::Notice {
                level: NoticeLevel::Warning,
                text: "a\nb".to_owned(),
            },
        );

        let text = written(&[notice.clone(), notice.clone()]);

        let read: Vec<Event> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(read, [notice.clone(), notice]);
    }
}
