//! Those who read an attempt's decoded events: the log for people, the log of events, the sinks.
//!
//! Owns: `run.log` and `events.jsonl`, and whether the agent is at rest, as its events say.
//! Reads: events.
//! Never: makes an event of a plain line that nobody wants as one.

use std::io::{self, Write};

use dark_factory_agents::{Piece, PlainLine, TextFormatter, TextState, neutralise};
use dark_factory_types::{Event, EventKind, EventStream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::derived::Derived;
use super::event_log::EventLog;
use crate::sink::Sink;

/// The readers.
pub(super) struct Readers {
    run_log: Derived,
    event_log: EventLog<Derived>,
    formatter: TextFormatter,
    text: String,
    stamp: LineStamp,
    sinks: Vec<Box<dyn Sink>>,
    /// The first error of a log.
    written: io::Result<()>,
    /// Whether the last turn of the agent has ended and nothing was done since.
    rest: Option<Rest>,
    /// Whether that was taken since it was seen.
    rest_taken: bool,
}

/// Whether an agent is done, as far as its events say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Rest {
    /// It gave its result.
    Done,
    /// It works.
    Working,
}

impl Readers {
    pub(super) fn new(
        run_log: Derived,
        event_log: Derived,
        formatter: TextFormatter,
        rest: Option<Rest>,
        sinks: Vec<Box<dyn Sink>>,
    ) -> Self {
        Self {
            run_log,
            event_log: EventLog::new(event_log),
            formatter,
            text: String::new(),
            stamp: LineStamp::default(),
            sinks,
            written: Ok(()),
            rest,
            rest_taken: false,
        }
    }

    /// Hands bytes to the sinks, as they were read.
    pub(super) fn bytes(&mut self, stream: EventStream, bytes: &[u8], at: Timestamp) {
        for sink in &mut self.sinks {
            match stream {
                EventStream::Stdout => sink.stdout(bytes, at),
                EventStream::Stderr => sink.stderr(bytes, at),
            }
        }
    }

    /// Hands on what a line means; the first error of a log is kept for [`Readers::check`].
    pub(super) fn piece(&mut self, piece: &Piece<'_>) {
        match piece {
            Piece::Event(event) => self.event(event),
            Piece::Line(line) => self.plain(line),
        }
    }

    /// Hands an event on.
    pub(super) fn event(&mut self, event: &Event) {
        let rest = match event.kind {
            EventKind::TurnEnd { .. } => Some(Rest::Done),
            EventKind::Text { .. }
            | EventKind::Thinking { .. }
            | EventKind::ToolStart { .. }
            | EventKind::ToolEnd { .. }
            | EventKind::Resumed => Some(Rest::Working),
            _ => None,
        };
        if rest.is_some() {
            self.rest = rest;
            self.rest_taken = false;
        }
        self.show(event);
        if self.written.is_ok() {
            self.written = self.event_log.event(event);
        }
        for sink in &mut self.sinks {
            sink.event(event);
        }
    }

    fn plain(&mut self, line: &PlainLine<'_>) {
        if line.stream == EventStream::Stderr || !self.sinks.is_empty() {
            return self.event(&line.to_event());
        }
        if self.written.is_ok() {
            self.written = self.event_log.plain(line);
        }
        if !is_shown_as_it_is(line.text) {
            self.show(&line.to_event());
        } else if self.written.is_ok() {
            let stamp = self.stamp.of(line.at);
            self.written = write_line(&mut self.run_log, stamp, line.text);
        }
    }

    /// Writes an event's lines to the log for people.
    fn show(&mut self, event: &Event) {
        self.text.clear();
        self.formatter.write(event, &mut self.text);
        if self.written.is_ok() {
            self.written = write_stamped(&mut self.run_log, self.stamp.of(event.at), &self.text);
        }
    }

    /// Returns the first error of a log since the last call.
    pub(super) fn check(&mut self) -> io::Result<()> {
        std::mem::replace(&mut self.written, Ok(()))
    }

    /// Writes what is held of both logs; returns whether there was any.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let held = !self.run_log.is_empty() || !self.event_log.output().is_empty();
        self.run_log.flush()?;
        self.event_log.output_mut().flush()?;
        Ok(held)
    }

    /// Returns whether the agent came to rest, or went on, since the last call.
    pub(super) fn take_rest(&mut self) -> Option<Rest> {
        let taken = std::mem::replace(&mut self.rest_taken, true);
        self.rest.filter(|_| !taken)
    }

    /// Returns whether the agent is at rest, if that is known.
    pub(super) fn rest(&self) -> Option<Rest> {
        self.rest
    }

    /// Returns what the log for people depends on, beside the events to come.
    pub(super) fn save(&self) -> TextState {
        self.formatter.save()
    }

    /// Returns the lengths of both logs, as far as they are written.
    pub(super) fn lengths(&self) -> [u64; 2] {
        [self.run_log.length(), self.event_log.output().length()]
    }

    /// Tells the sinks that nothing more comes; returns what a person should know.
    pub(super) fn finish(&mut self) -> impl Iterator<Item = String> {
        self.sinks.iter_mut().filter_map(|sink| sink.finish())
    }
}

/// Returns whether the log for people shows a plain line of standard output byte for byte.
fn is_shown_as_it_is(text: &str) -> bool {
    matches!(neutralise(text), std::borrow::Cow::Borrowed(_))
}

/// The time before a log's lines, written anew only once a second: there may be 100,000 lines in one.
#[derive(Default)]
struct LineStamp {
    second: i64,
    text: String,
}

impl LineStamp {
    fn of(&mut self, at: Timestamp) -> &str {
        if self.text.is_empty() || self.second != at.as_second() {
            self.second = at.as_second();
            self.text = at.strftime("%Y-%m-%dT%H:%M:%SZ ").to_string();
        }
        &self.text
    }
}

/// Writes an event's lines, each with its time in UTC before it.
fn write_stamped(log: &mut impl Write, stamp: &str, text: &str) -> io::Result<()> {
    text.lines()
        .try_for_each(|line| write_line(log, stamp, line))
}

fn write_line(log: &mut impl Write, stamp: &str, line: &str) -> io::Result<()> {
    log.write_all(stamp.as_bytes())?;
    log.write_all(line.as_bytes())?;
    log.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use dark_factory_agents::TextStyle;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_line_that_is_written_at_once_looks_as_the_formatter_shows_it(
            text in prop_oneof![any::<String>(), "[ -~]{0,40}", "[a\r\t\u{202e}\u{9b}]{0,6}"]
        ) {
            prop_assume!(!text.contains('\n') && is_shown_as_it_is(&text));
            let line = PlainLine {
                seq: 0,
                at: Timestamp::UNIX_EPOCH,
                stream: EventStream::Stdout,
                offset: 0,
                text: &text,
            };
            let (mut shown, mut formatted) = (String::new(), Vec::new());
            TextFormatter::new(TextStyle::default()).write(&line.to_event(), &mut shown);
            write_stamped(&mut formatted, "T ", &shown).unwrap();

            let mut written = Vec::new();
            write_line(&mut written, "T ", &text).unwrap();

            prop_assert_eq!(written, formatted);
        }
    }
}
