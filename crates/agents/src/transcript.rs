//! One run's output as events, and what follows from them so far.
//!
//! Owns: a splitter for each stream, the agent's decoder, the numbering of events.
//! Reads: raw chunks, in the order in which they were read.
//! Never: blocks, fails, or keeps events.

use std::collections::VecDeque;
use std::fmt;

use dark_factory_types::{Event, EventKind, EventStream, UnparsedReason, Usage, Verdict};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::agent::Agent;
use crate::json::clip;
use crate::mask::Mask;
use crate::saved::{RestoreError, SavedSplitter, SavedTranscript};
use crate::split::{LineContent, LineEnd, LineSplitter, SplitLine, to_u64};

/// The longest text line in an event, in bytes.
const LINE_CAP: usize = 64 << 10;
/// Tool calls without an answer whose times are remembered.
const OPEN_CALLS: usize = 1024;
/// The longest line of standard error that is shown, in bytes.
const STDERR_CAP: usize = 1 << 20;

/// Reads the standard output of one run, line by line.
///
/// A decoder is total: no line makes it fail, and what it keeps is bounded.
pub trait Decoder: fmt::Debug + Send {
    /// Takes the next line and hands over what it means, which may be nothing.
    fn line(&mut self, line: DecoderLine<'_>, sink: &mut dyn FnMut(DecodedEvent));

    /// Takes the end of the stream and hands over what was held back, which for most agents is nothing.
    fn end(&mut self, sink: &mut dyn FnMut(DecodedEvent)) {
        let _ = sink;
    }

    /// Returns what follows from the lines so far.
    fn conclusion(&self) -> Conclusion;

    /// Returns whether every line is one [`EventKind::Line`], and nothing follows from it.
    fn is_plain(&self) -> bool {
        false
    }

    /// Writes down all that it keeps, as one JSON value of bounded size.
    ///
    /// # Errors
    ///
    /// None in practice: what decoders keep can be written as JSON.
    fn save(&self) -> serde_json::Result<Box<RawValue>>;

    /// Goes on from where a decoder of the same agent was saved.
    ///
    /// # Errors
    ///
    /// If it is not what [`Decoder::save`] wrote; the decoder is then as it was.
    fn restore(&mut self, saved: &RawValue) -> serde_json::Result<()>;
}

/// A line as a decoder sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderLine<'a> {
    /// Its bytes, without the line end; at most [`DECODE_CAP`](crate::DECODE_CAP).
    pub bytes: &'a [u8],
    /// How it ended.
    pub end: LineEnd,
}

/// An event before it has a number, a time and a place.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedEvent {
    /// The id of the tool call that started the subagent which did this; `None` for the agent itself.
    pub parent: Option<String>,
    /// What happened.
    pub kind: EventKind,
}

impl DecodedEvent {
    /// Makes an event of the agent itself.
    pub fn of_agent(kind: EventKind) -> Self {
        Self { parent: None, kind }
    }
}

/// What follows from a run's output.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conclusion {
    /// The agent's own claim.
    pub verdict: Verdict,
    /// What the agent used, as far as it said so.
    pub usage: Usage,
    /// The model, as the agent says it.
    pub model: Option<String>,
    /// The agent's own conversation id.
    pub session_id: Option<String>,
    /// The tool that was called last.
    pub last_tool: Option<String>,
    /// How many tool calls were not permitted.
    pub denials: u64,
    /// When a used-up allowance starts anew, if the provider said so.
    pub rate_limit_reset: Option<Timestamp>,
}

/// What a transcript hands over of a line.
#[derive(Debug)]
pub enum Piece<'l> {
    /// One of the events that it means.
    Event(Event),
    /// The line itself, which means nothing else.
    Line(PlainLine<'l>),
}

/// An event of kind [`EventKind::Line`] that was not made yet: there may be a million of them in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainLine<'l> {
    /// See [`Event::seq`].
    pub seq: u64,
    /// See [`Event::at`].
    pub at: Timestamp,
    /// See [`Event::stream`].
    pub stream: EventStream,
    /// See [`Event::offset`].
    pub offset: u64,
    /// The whole line, without its line end.
    pub text: &'l str,
}

impl PlainLine<'_> {
    /// Returns its length in bytes; see [`Event::len`].
    pub fn len(&self) -> u64 {
        to_u64(self.text.len())
    }

    /// Returns whether there is nothing in the line.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Makes the event.
    pub fn to_event(&self) -> Event {
        Event {
            seq: self.seq,
            at: self.at,
            stream: self.stream,
            offset: self.offset,
            len: self.len(),
            parent: None,
            kind: EventKind::Line {
                text: self.text.to_owned(),
            },
        }
    }
}

/// Makes events out of the raw output of one run.
///
/// Holds at most one line of standard output, so [`DECODE_CAP`](crate::DECODE_CAP) bytes, one of
/// standard error of 1 MiB, and what the decoder keeps, which is less than 3 MiB.
#[derive(Debug)]
pub struct Transcript {
    agent: &'static dyn Agent,
    stdout: LineSplitter,
    stderr: LineSplitter,
    decoder: Box<dyn Decoder>,
    numbering: Numbering,
    mask: Mask,
}

impl Transcript {
    /// Begins the transcript of one run.
    pub fn new(agent: &'static dyn Agent) -> Self {
        Self {
            agent,
            stdout: LineSplitter::new(),
            stderr: LineSplitter::with_cap(STDERR_CAP),
            decoder: agent.decoder(),
            numbering: Numbering::default(),
            mask: Mask::default(),
        }
    }

    /// Hides secrets in all that the transcript hands over from now on; what it keeps, and saves, still has them.
    #[must_use]
    pub fn with_mask(mut self, mask: Mask) -> Self {
        self.mask = mask;
        self
    }

    /// Goes on from where a transcript of the same agent was saved.
    ///
    /// The next bytes of each stream are those that follow the ones that the saved transcript was fed.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] if that is not possible: begin anew then, from the first byte.
    pub fn restore(agent: &'static dyn Agent, saved: &[u8]) -> Result<Self, RestoreError> {
        let saved = SavedTranscript::read(agent.name(), saved)?;
        let mut transcript = Self::new(agent);
        saved.stdout.resume(&mut transcript.stdout)?;
        saved.stderr.resume(&mut transcript.stderr)?;
        transcript.decoder.restore(&saved.decoder)?;
        transcript.numbering = saved.numbering;
        Ok(transcript)
    }

    /// Writes down all that is kept, unfinished lines included.
    ///
    /// `None` while an unfinished line is longer than 64 KiB: try again after the next line. It takes a few hundred
    /// bytes as a rule; escapes make it at most six times as long as what is kept.
    pub fn save(&self) -> Option<Vec<u8>> {
        let saved = SavedTranscript::new(
            self.agent.name(),
            SavedSplitter::of(&self.stdout)?,
            SavedSplitter::of(&self.stderr)?,
            &self.numbering,
            self.decoder.save().ok()?,
        );
        serde_json::to_vec(&saved).ok()
    }

    /// Takes the next chunk of a stream, read at `at`, and appends the events of each line it completes.
    ///
    /// Any chunking gives the same events. `out` grows with the lines of the chunk: see
    /// [`Transcript::feed_each`] for one at a time.
    pub fn feed(&mut self, stream: EventStream, chunk: &[u8], at: Timestamp, out: &mut Vec<Event>) {
        self.feed_each(stream, chunk, at, |event| out.push(event));
    }

    /// Takes the next chunk of a stream, read at `at`, and hands over the events of each line it completes.
    pub fn feed_each(
        &mut self,
        stream: EventStream,
        chunk: &[u8],
        at: Timestamp,
        mut sink: impl FnMut(Event),
    ) {
        self.feed_pieces(stream, chunk, at, |piece| match piece {
            Piece::Event(event) => sink(event),
            Piece::Line(line) => sink(line.to_event()),
        });
    }

    /// Does what [`Transcript::feed_each`] does, and hands plain lines over as they stand in the chunk.
    pub fn feed_pieces(
        &mut self,
        stream: EventStream,
        chunk: &[u8],
        at: Timestamp,
        mut sink: impl FnMut(Piece<'_>),
    ) {
        let (numbering, mask) = (&mut self.numbering, &self.mask);
        let decoder = self.decoder.as_mut();
        let is_plain = stream == EventStream::Stderr || decoder.is_plain();
        let splitter = match stream {
            EventStream::Stdout => &mut self.stdout,
            EventStream::Stderr => &mut self.stderr,
        };
        splitter.feed(chunk, |line| {
            if is_plain && let Some(text) = plain_text(&line, mask) {
                return sink(Piece::Line(PlainLine {
                    seq: numbering.next(),
                    at,
                    stream,
                    offset: line.offset,
                    text,
                }));
            }
            let mut sink = |mut event| {
                mask.event(&mut event);
                sink(Piece::Event(event));
            };
            match stream {
                EventStream::Stdout => decode_stdout(decoder, line, at, numbering, &mut sink),
                EventStream::Stderr => decode_stderr(line, at, numbering, &mut sink),
            }
        });
    }

    /// Ends both streams and appends the events of last lines without a line end.
    pub fn finish(&mut self, at: Timestamp, out: &mut Vec<Event>) {
        let (numbering, mask) = (&mut self.numbering, &self.mask);
        let mut sink = |mut event| {
            mask.event(&mut event);
            out.push(event);
        };
        let decoder = self.decoder.as_mut();
        self.stdout
            .finish(|line| decode_stdout(decoder, line, at, numbering, &mut sink));
        let end = SplitLine {
            offset: self.stdout.offset(),
            len: 0,
            content: LineContent::Whole(&[]),
            end: LineEnd::StreamEnd,
        };
        decoder.end(&mut |decoded| sink(numbering.event(decoded, &end, EventStream::Stdout, at)));
        self.stderr
            .finish(|line| decode_stderr(line, at, numbering, &mut sink));
    }

    /// Returns what follows from the output so far.
    pub fn conclusion(&self) -> Conclusion {
        let mut conclusion = self.decoder.conclusion();
        self.mask.conclusion(&mut conclusion);
        conclusion
    }
}

/// Returns a line as it is, if nothing has to be done to it.
fn plain_text<'l>(line: &SplitLine<'l>, mask: &Mask) -> Option<&'l str> {
    let LineContent::Whole(bytes) = line.content else {
        return None;
    };
    let text = std::str::from_utf8(bytes).ok()?;
    let is_short = bytes.len() <= LINE_CAP;
    (is_short && (mask.is_empty() || mask.text(text) == text)).then_some(text)
}

fn decode_stdout(
    decoder: &mut dyn Decoder,
    line: SplitLine<'_>,
    at: Timestamp,
    numbering: &mut Numbering,
    sink: &mut impl FnMut(Event),
) {
    let mut number = |decoded| sink(numbering.event(decoded, &line, EventStream::Stdout, at));
    match line.content {
        LineContent::Whole(bytes) => decoder.line(
            DecoderLine {
                bytes,
                end: line.end,
            },
            &mut number,
        ),
        LineContent::TooLong => number(DecodedEvent::of_agent(EventKind::Unparsed {
            why: UnparsedReason::TooLong,
        })),
    }
}

fn decode_stderr(
    line: SplitLine<'_>,
    at: Timestamp,
    numbering: &mut Numbering,
    sink: &mut impl FnMut(Event),
) {
    let kind = match line.content {
        LineContent::Whole(bytes) => line_event(bytes),
        LineContent::TooLong => EventKind::Unparsed {
            why: UnparsedReason::TooLong,
        },
    };
    let decoded = DecodedEvent::of_agent(kind);
    sink(numbering.event(decoded, &line, EventStream::Stderr, at));
}

/// What events get from their place in the transcript: numbers, and how long calls took.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Numbering {
    next_seq: u64,
    /// Ids and times of tool calls without an answer.
    calls: VecDeque<(String, Timestamp)>,
}

impl Numbering {
    fn event(
        &mut self,
        mut decoded: DecodedEvent,
        line: &SplitLine<'_>,
        stream: EventStream,
        at: Timestamp,
    ) -> Event {
        match &mut decoded.kind {
            EventKind::ToolStart { id, .. } => {
                if self.calls.len() == OPEN_CALLS {
                    self.calls.pop_front();
                }
                self.calls.push_back((id.clone(), at));
            }
            EventKind::ToolEnd {
                id, duration_ms, ..
            } => {
                let open = self.calls.iter().rposition(|(open, _)| open == id);
                let call = open.and_then(|open| self.calls.remove(open));
                *duration_ms = call.map(|(_, began)| {
                    u64::try_from(at.duration_since(began).as_millis()).unwrap_or(0)
                });
            }
            _ => {}
        }
        Event {
            seq: self.next(),
            at,
            stream,
            offset: line.offset,
            len: line.len,
            parent: decoded.parent,
            kind: decoded.kind,
        }
    }

    fn next(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }
}

/// Makes a text line of bytes: what is not UTF-8 is U+FFFD, and the middle of a long one is left out.
pub(crate) fn line_event(bytes: &[u8]) -> EventKind {
    let text = if bytes.len() <= LINE_CAP {
        match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => clip(&String::from_utf8_lossy(bytes), LINE_CAP),
        }
    } else {
        let (head, tail) = bytes.split_at(LINE_CAP / 4 * 3);
        let (left_out, tail) = tail.split_at(tail.len().saturating_sub(LINE_CAP / 4));
        format!(
            "{} … {} bytes left out … {}",
            String::from_utf8_lossy(head),
            left_out.len(),
            String::from_utf8_lossy(tail)
        )
    };
    EventKind::Line { text }
}
