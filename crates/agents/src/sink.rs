//! Hands over the events of one line, within bounds.
//!
//! Owns: how long the texts of events may be.
//! Reads: strings of a line.
//! Never: lets one line become more than a bounded amount of text.

use std::borrow::Cow;

use dark_factory_types::{EventKind, UnparsedReason};

use crate::json::{JsonStr, Raw, string};
use crate::split::LineEnd;
use crate::transcript::{DecodedEvent, DecoderLine, line_event};

/// A line that is not UTF-8 is repaired up to this length.
const REPAIR_CAP: usize = 1 << 20;
/// Text of all events of one line together, in bytes, before they are cut short.
const LINE_BUDGET: usize = 1 << 20;
/// One text of the agent, in bytes.
pub(crate) const TEXT_CAP: usize = 64 << 10;
/// One value of a tool's input, a message, a path, in bytes.
pub(crate) const VALUE_CAP: usize = 4 << 10;
/// Ids, names and other short words, in bytes.
pub(crate) const WORD_CAP: usize = 256;

/// Hands over the events of one line and keeps their texts within the budget.
pub(crate) struct LineSink<'s> {
    sink: &'s mut dyn FnMut(DecodedEvent),
    /// The id of the call whose subagent the line comes from.
    pub(crate) parent: Option<String>,
    left: usize,
}

impl<'s> LineSink<'s> {
    pub(crate) fn new(sink: &'s mut dyn FnMut(DecodedEvent)) -> Self {
        Self {
            sink,
            parent: None,
            left: LINE_BUDGET,
        }
    }

    pub(crate) fn send(&mut self, kind: EventKind) {
        (self.sink)(DecodedEvent {
            parent: self.parent.clone(),
            kind,
        });
    }

    pub(crate) fn unparsed(&mut self, why: UnparsedReason) {
        self.send(EventKind::Unparsed { why });
    }

    /// Returns a text of at most `max` bytes, or less if the line's budget is used up.
    pub(crate) fn text(&mut self, text: Option<JsonStr<'_>>, max: usize) -> String {
        let text = text.map(|text| text.clip(max.min(self.left)));
        let text = text.unwrap_or_default();
        self.left = self.left.saturating_sub(text.len());
        text
    }

    /// As [`LineSink::text`], of a text whose length is known.
    pub(crate) fn text_of_length(&mut self, text: JsonStr<'_>, max: usize, len: usize) -> String {
        let text = text.clip_known(max.min(self.left), len);
        self.left = self.left.saturating_sub(text.len());
        text
    }

    /// Takes bytes from the line's budget; `false` if not so many are left.
    pub(crate) fn take(&mut self, len: usize) -> bool {
        match self.left.checked_sub(len) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// Hands a line over: to `object` if it begins one, and as what it is if not, or if `object` cannot read it.
pub(crate) fn read_object(
    line: DecoderLine<'_>,
    sink: &mut dyn FnMut(DecodedEvent),
    object: impl FnOnce(&str, &mut LineSink<'_>) -> Option<()>,
) {
    let mut sink = LineSink::new(sink);
    let text = match std::str::from_utf8(line.bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) if line.bytes.len() <= REPAIR_CAP => String::from_utf8_lossy(line.bytes),
        Err(_) => return sink.unparsed(UnparsedReason::NotUtf8),
    };
    if !text.trim_start().starts_with('{') {
        return sink.send(line_event(line.bytes));
    }
    if object(&text, &mut sink).is_none() {
        sink.unparsed(match line.end {
            LineEnd::Newline => UnparsedReason::Malformed,
            LineEnd::StreamEnd => UnparsedReason::Truncated,
        });
    }
}

/// Returns a string to compare with, or the beginning of one that is too long to be any word; empty if there is none.
pub(crate) fn plain(value: Option<Raw<'_>>) -> Cow<'_, str> {
    string(value).unwrap_or_default().keyword(TEXT_CAP)
}

/// Returns a short string; empty if there is none.
pub(crate) fn word(value: Option<Raw<'_>>) -> String {
    string(value)
        .map(|text| text.clip(WORD_CAP))
        .unwrap_or_default()
}

/// Returns a short string; `None` if there is none or it is empty.
pub(crate) fn optional_word(value: Option<Raw<'_>>) -> Option<String> {
    Some(word(value)).filter(|word| !word.is_empty())
}
